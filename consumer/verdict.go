package consumer

import (
	"errors"
	"time"

	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/schemas"
)

// Kind is what becomes of an event.
type Kind = verdict.Kind

// The kinds of verdict.
const (
	Done         = verdict.Done       // handled
	Retried      = verdict.Retry      // tried again, by policy or after Verdict.After
	DeadLettered = verdict.DeadLetter // copied to the dead letters, then done
	Dropped      = verdict.Dropped    // resolved without an effect, counted
	Paused       = verdict.Pause      // a dependency is down: tried again, no attempt counted
	Stopped      = verdict.Stop       // Run ends with the error
)

// Verdict is what a handler's error means; [VerdictOf] reads it.
type Verdict = verdict.Verdict

// Drop returns an error that resolves the event without an effect: it is counted, and never tried again. err says
// why; a nil err is fine.
func Drop(err error) error { return with(verdict.Dropped, 0, err) }

// DeadLetter returns an error that copies the event to the dead letters at once: no further attempt would help.
func DeadLetter(err error) error { return with(verdict.DeadLetter, 0, err) }

// Stop returns an error that ends Run with err. What was done before stays done; the event comes again at the
// next start.
func Stop(err error) error { return with(verdict.Stop, 0, err) }

// RetryAfter returns an error that tries the event again after d, in place of the backoff of [Retry]. It counts as
// an attempt. The partition is held until then.
func RetryAfter(d time.Duration, err error) error { return with(verdict.Retry, d, err) }

// Each returns the verdict of a batch handler per event: errs[i] is the error of the i-th event, nil is done. It
// returns nil when every error is. Return it as it is: wrapped, it is one plain error.
func Each(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return verdict.Each(errs)
		}
	}
	return nil
}

// VerdictOf reads a handler's error: nil is Done, the verdicts of this package are found wherever they are wrapped,
// an error that wraps schemas.ErrUnavailable is Paused, any other is Retried.
func VerdictOf(err error) Verdict {
	v := verdict.Of(err)
	if v.Kind == verdict.Retry && v.Each == nil && errors.Is(err, schemas.ErrUnavailable) {
		v.Kind = verdict.Pause
	}
	return v
}

func with(k Kind, after time.Duration, err error) error {
	return &verdict.Error{Verdict: Verdict{Kind: k, After: after, Err: err}}
}
