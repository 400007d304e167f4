package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/signature"
)

// verify answers handshakes and refuses what was not signed by the sender. done says that out is the answer; otherwise
// the request is an event.
func (g *Gateway) verify(ctx context.Context, r *request) (out outcome, done bool) {
	r.key = -1
	if r.Scheme == nil { // verify: none
		return outcome{}, false
	}
	req := r.signed()
	if g.cfg.plant.verifyParsed {
		req.Body = parsedAgain(req.Body)
	}
	if out, done := g.chain(ctx, r, req); done {
		return out, true
	}
	now := time.Now()
	answer, err := r.Scheme.Greet(req, r.Keys, r.Tokens, now)
	if err != nil {
		return unverified(err), true
	}
	if answer != nil {
		return g.greet(ctx, r, answer), true
	}
	if r.method == http.MethodGet {
		return rejected(http.StatusMethodNotAllowed, "method"), true
	}
	verified, err := r.Scheme.Verify(req, r.Keys, now)
	if err != nil {
		return unverified(err), true
	}
	r.key = verified.Key
	return outcome{}, false
}

// unverified is one answer for every reason: the difference would help a forger alone.
func unverified(err error) outcome {
	out := rejected(http.StatusUnauthorized, string(signature.Malformed))
	if e, ok := errors.AsType[*signature.Error](err); ok {
		out.reason = string(e.Reason)
	}
	out.err = err
	return out
}

// chain gets the certificate of schemes that sign with one.
func (g *Gateway) chain(ctx context.Context, r *request, req *signature.Request) (out outcome, done bool) {
	if r.method == http.MethodGet {
		return outcome{}, false
	}
	u, err := r.Scheme.CertificateURL(req)
	if err != nil {
		return unverified(err), true
	}
	if u == "" {
		return outcome{}, false
	}
	if req.Chain, err = g.certs.get(ctx, u); err != nil {
		out := busy("certificate")
		out.err = err
		return out, true
	}
	return outcome{}, false
}

// greet answers a handshake.
func (g *Gateway) greet(ctx context.Context, r *request, a *signature.Answer) outcome {
	if a.Fetch != "" {
		if !r.Confirm {
			g.log.Warn("a sender asks to confirm a subscription: set confirm: true in the source's file, and have it ask again",
				zap.String("source", r.Name))
			return rejected(http.StatusForbidden, "unconfirmed")
		}
		if err := confirm(ctx, g.cfg.Client, a.Fetch); err != nil {
			out := busy("confirm")
			out.err = err
			return out
		}
	}
	return outcome{status: max(a.Status, http.StatusOK), result: Handshake, contentType: a.ContentType, body: a.Body}
}

// confirm fetches the URL by which a sender has a subscription confirmed.
func confirm(ctx context.Context, client *http.Client, u string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return fmt.Errorf("confirm the subscription: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("confirm the subscription: %w", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // the status decides
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("confirm the subscription: the sender answered %d", resp.StatusCode)
	}
	return nil
}

// parsedAgain is the planted bug that every other receiver has: the body goes through a parser first.
func parsedAgain(body []byte) []byte {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return body
	}
	again, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return again
}
