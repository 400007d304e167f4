package gateway

import (
	"crypto/rand"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// newRequestID returns what ties an answer to a line of the log.
func newRequestID() string { return rand.Text()[:16] }

// leftover is how long the rest of a body is waited for that nobody will read.
const leftover = 500 * time.Millisecond

// finish sends the answer. What goes wrong with that concerns the sender alone, who comes again.
func (g *Gateway) finish(w http.ResponseWriter, source, id string, began time.Time, out outcome) {
	h := w.Header()
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch out.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", retryAfter)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodPost)
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout, http.StatusBadRequest:
		h.Set("Connection", "close") // what is left of the body is not read
	}
	if out.status >= http.StatusBadRequest {
		// The server reads what is left of the body before it answers. Not every ResponseWriter has deadlines.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(leftover))
		out.contentType = "application/json"
		out.body = []byte(`{"error":"` + words[out.status] + `","request_id":"` + id + `"}` + "\n")
		g.log.Debug("a webhook was not accepted", zap.String("request", id), zap.String("source", source), zap.Int("status", out.status),
			zap.String("result", string(out.result)), zap.String("reason", out.reason), zap.Error(out.err))
	}
	if out.contentType != "" {
		h.Set("Content-Type", out.contentType)
	}
	w.WriteHeader(out.status)
	_, _ = w.Write(out.body)
	g.cfg.Observer.Inbound(source, out.result, out.reason, time.Since(began))
}

// words are what strangers hear.
var words = map[int]string{
	http.StatusBadRequest:            "the request could not be read",
	http.StatusUnauthorized:          "not verified",
	http.StatusForbidden:             "not confirmed",
	http.StatusNotFound:              "not found",
	http.StatusMethodNotAllowed:      "method not allowed",
	http.StatusRequestTimeout:        "the body took too long",
	http.StatusRequestEntityTooLarge: "the body is too large",
	http.StatusUnsupportedMediaType:  "the content encoding is not supported",
	http.StatusTooManyRequests:       "too many requests",
	http.StatusInternalServerError:   "internal error",
	http.StatusServiceUnavailable:    "try again later",
}
