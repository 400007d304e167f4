package event

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

type contextKey int

const (
	clockKey contextKey = iota
	replayKey
	attemptKey
)

// Now is the current time as ctx sees it: the wall clock, a replay's clock, or a test's. Handlers that ask for
// the time this way give the same answer when they are replayed.
func Now(ctx context.Context) time.Time {
	if fn, ok := ctx.Value(clockKey).(func() time.Time); ok {
		return fn()
	}
	return time.Now()
}

// WithClock returns a context whose [Now] is fn.
func WithClock(ctx context.Context, fn func() time.Time) context.Context {
	return context.WithValue(ctx, clockKey, fn)
}

// Replay says that an event is being replayed, not lived.
type Replay struct {
	ID     string // of the replay
	Shadow bool   // effects are captured and reach nobody
	Origin Meta   // the event as it was first read
}

// WithReplay returns a context that carries r.
func WithReplay(ctx context.Context, r Replay) context.Context {
	return context.WithValue(ctx, replayKey, r)
}

// InReplay returns the replay that ctx belongs to, if any.
func InReplay(ctx context.Context) (Replay, bool) {
	r, ok := ctx.Value(replayKey).(Replay)
	return r, ok
}

// ErrSameEffect is returned by a publisher for a second event with the same derived id in one attempt. Without
// it the two would be taken for one event, and one would be lost. Give After a label to tell them apart.
var ErrSameEffect = errors.New("two effects of one cause share an id")

// attempt is a context and the ids that were published in it: one allocation for both.
type attempt struct {
	context.Context //nolint:containedctx // it is a context: one allocation instead of two
	mu              sync.Mutex
	ids             []string
}

func (a *attempt) Value(key any) any {
	if key == attemptKey {
		return a
	}
	return a.Context.Value(key)
}

// WithAttempt returns a context for one attempt of a handler: what is published in it is remembered until the
// attempt ends, so that [Claim] can refuse a repeat.
func WithAttempt(ctx context.Context) context.Context { return &attempt{Context: ctx} }

// Claim is called by a publisher before it sends e. It refuses an event made by [After] whose id was already
// published in ctx's attempt, with [ErrSameEffect]. A publisher that could not publish e gives the id back with
// [Unclaim], so that a handler may try again.
func Claim(ctx context.Context, e *Event) error {
	if !e.derived {
		return nil
	}
	a, ok := ctx.Value(attemptKey).(*attempt)
	if !ok {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.ids, e.ID) {
		return fmt.Errorf("publish a second %s to %s with key %q after %s: %w: give event.After a label",
			typeName(e.Data), e.Topic, e.Key, e.Headers.Get(HeaderCause), ErrSameEffect)
	}
	a.ids = append(a.ids, e.ID)
	return nil
}

// Unclaim forgets what [Claim] remembered of e.
func Unclaim(ctx context.Context, e *Event) {
	if !e.derived {
		return
	}
	if a, ok := ctx.Value(attemptKey).(*attempt); ok {
		a.mu.Lock()
		a.ids = slices.DeleteFunc(a.ids, func(id string) bool { return id == e.ID })
		a.mu.Unlock()
	}
}
