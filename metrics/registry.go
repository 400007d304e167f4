package metrics

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Registry returns h, a schema registry, with its requests counted, and the schemas that it refuses to register.
func (m *Metrics) Registry(h http.Handler) http.Handler {
	return promhttp.InstrumentHandlerCounter(m.requests, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		subject, registers := registration(req)
		if !registers {
			h.ServeHTTP(w, req)
			return
		}
		answer := &answered{ResponseWriter: w}
		h.ServeHTTP(answer, req)
		var reason string
		switch answer.status {
		case http.StatusConflict:
			reason = "incompatible"
		case http.StatusUnprocessableEntity:
			reason = "invalid"
		default:
			return
		}
		label, _ := m.subjects.label(subject)
		m.rejections.WithLabelValues(label, reason).Inc()
	}))
}

// registration is the subject that a request wants to register a schema for.
func registration(req *http.Request) (subject string, ok bool) {
	if req.Method != http.MethodPost {
		return "", false
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/subjects/")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/versions")
}

// answered remembers the status of an answer.
type answered struct {
	http.ResponseWriter
	status int
}

// Unwrap is for http.ResponseController.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (a *answered) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}
