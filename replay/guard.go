package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/millrace/millrace/event"
)

// ErrRefused is wrapped by the [*RefusedError] of a request that a shadow did not let out.
var ErrRefused = errors.New("a replay in shadow sends nothing")

// RefusedError says which request was refused.
type RefusedError struct{ Method, URL string }

// Error says what to do where the request is harmless.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s %s: %v: where it changes nothing, say so: Service.ReplayAllow, or --replay-allow-idempotent for requests with an Idempotency-Key",
		e.Method, e.URL, ErrRefused)
}

// Unwrap returns [ErrRefused].
func (e *RefusedError) Unwrap() error { return ErrRefused }

// Guard stands around handlers that run in a shadow: what they cause is captured, and what would leave the process is
// refused. It holds only what goes through it: a [Guard.Transport], a context of [Guard.Begin], or a call of [Guard.Note].
type Guard struct {
	// ID is that of the replay.
	ID string
	// Capture is called with each effect, those of one event together and in their order, by one goroutine at a time. An
	// error ends the replay: what is captured comes before the progress that passes it. Nil captures nothing.
	Capture func([]Effect) error
	// Allow lets a request out. Nil lets none.
	Allow func(*http.Request) bool

	mu     sync.Mutex
	failed error
	totals map[Total]int64
}

// Total is what a guard counted effects by.
type Total struct {
	Kind, Target string
	Refused      bool
}

// Totals are how many effects there were so far, those of attempts that were followed by another one left out.
func (g *Guard) Totals() map[Total]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[Total]int64, len(g.totals))
	maps.Copy(out, g.totals)
	return out
}

// Attempt is one attempt of a handler at an event: its effects are held back until it is known whether it was the last.
type Attempt struct {
	guard *Guard
	by    string
	cause Cause

	mu      sync.Mutex
	effects []Effect
	ended   bool
	next    map[place]int // the ordinals of what comes
}

// place is what the effects of one cause are numbered by.
type place struct{ kind, target string }

type attemptKey struct{}

// Begin returns the context of an attempt at e by a group or a sink: it carries the replay with Shadow set, and a clock
// that stands at now.
func (g *Guard) Begin(ctx context.Context, by string, e *event.Event, now time.Time) (context.Context, *Attempt) {
	a := &Attempt{guard: g, by: by, cause: Cause{ID: e.ID, Type: e.Type, Topic: e.Topic, Partition: e.Partition, Offset: e.Offset}}
	ctx = event.WithReplay(ctx, event.Replay{ID: g.ID, Shadow: true, Origin: e.Meta})
	ctx = event.WithClock(ctx, func() time.Time { return now })
	return context.WithValue(ctx, attemptKey{}, a), a
}

// Note notes an effect of the attempt that ctx belongs to. Without one nobody knows the cause, and it is captured at once
// with an empty one. What a handler causes behind the end of its last attempt, in a goroutine that it left behind, is captured
// at once too. Replay, By and Cause are filled in, and Ordinal when it is captured.
func (g *Guard) Note(ctx context.Context, e Effect) {
	a, ok := ctx.Value(attemptKey{}).(*Attempt)
	if !ok {
		_ = g.keep([]Effect{e}, map[place]int{}) // the next attempt hears of the error
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.effects = append(a.effects, e)
	if a.ended {
		_ = a.flush() // as above
	}
}

// End captures the effects of the attempt, when it was the last. The error is that of [Guard.Capture], also an earlier one.
func (a *Attempt) End() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	return a.flush()
}

// flush captures what was noted. a.mu is held.
func (a *Attempt) flush() error {
	effects := a.effects
	a.effects = nil
	for i := range effects {
		effects[i].By, effects[i].Cause = a.by, a.cause
	}
	if a.next == nil {
		a.next = map[place]int{}
	}
	return a.guard.keep(effects, a.next)
}

// keep numbers effects of one cause from next on and captures them.
func (g *Guard) keep(effects []Effect, next map[place]int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.totals == nil {
		g.totals = map[Total]int64{}
	}
	for i := range effects {
		e := &effects[i]
		p := place{e.Kind, e.Target}
		e.Replay, e.Ordinal = g.ID, next[p]
		next[p]++
		g.totals[Total{e.Kind, e.Target, e.Refused}]++
	}
	if g.failed == nil && g.Capture != nil && len(effects) > 0 {
		g.failed = g.Capture(effects)
	}
	return g.failed
}

// maxBody is how much of a request's body is captured.
const maxBody = 1 << 20

// Transport captures each request and refuses it with a [*RefusedError], unless Allow lets it out: then next sends it.
func (g *Guard) Transport(next http.RoundTripper) http.RoundTripper { return &guarded{g, next} }

type guarded struct {
	guard *Guard
	next  http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	send := r
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxBody)); err != nil {
			_ = r.Body.Close()
			return nil, fmt.Errorf("read the body of a request: %w", err)
		}
		send = r.Clone(r.Context())
		send.Body = rest{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	}
	address := *r.URL
	address.User = nil
	e := Effect{Kind: KindHTTP, Target: r.Method + " " + address.String(), Headers: telling(r.Header), Body: Value(body)}
	allowed := t.guard.Allow != nil && t.guard.Allow(r)
	e.Refused = !allowed
	t.guard.Note(r.Context(), e)
	if allowed {
		return t.next.RoundTrip(send) //nolint:wrapcheck // a transport around a transport
	}
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return nil, &RefusedError{Method: r.Method, URL: address.Redacted()}
}

// rest is a body of which the beginning was read.
type rest struct {
	io.Reader
	io.Closer
}

// telling are the headers of a request that say what it is: nothing secret, and nothing that differs from run to run.
func telling(h http.Header) map[string]string {
	out := map[string]string{}
	for _, name := range []string{"Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Prefer"} {
		if v := h.Get(name); v != "" {
			out[name] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
