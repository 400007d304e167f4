// Package verdict says what a handler's error means. A handler returns an error; [Of] reads it; the consumer
// acts on it. The public names are in package consumer, which re-exports these.
package verdict

import (
	"errors"
	"fmt"
	"time"
)

// Kind is what becomes of a record.
type Kind int8

// The kinds of verdict.
const (
	Done       Kind = iota // handled: the position may pass it
	Retry                  // tried again: by policy, or After the given time
	DeadLetter             // never to be tried again here: copied to the dead letters, then done
	Dropped                // resolved without an effect, counted
	Pause                  // not the record's fault (a dependency is down): tried again, the attempt does not count
	Stop                   // the consumer ends with Err
)

var names = [...]string{"done", "retry", "dead letter", "dropped", "pause", "stop"}

// String is the kind in lower-case words.
func (k Kind) String() string {
	if int(k) < len(names) && k >= 0 {
		return names[k]
	}
	return fmt.Sprintf("Kind(%d)", int8(k))
}

// Verdict is what becomes of a record, or of each record of a batch.
type Verdict struct {
	Kind  Kind
	After time.Duration // with Retry and Pause: how long to wait; 0 = by policy
	Err   error         // nil with Done
	Each  []error       // of a batch: one error per event, nil = done. Kind is then the worst of them
}

// Resolved reports whether the position may pass the record.
func (v Verdict) Resolved() bool { return v.Kind == Done || v.Kind == Dropped }

// Error carries a verdict through ordinary error returns.
type Error struct{ Verdict Verdict }

func (e *Error) Error() string {
	if e.Verdict.Err == nil {
		return e.Verdict.Kind.String()
	}
	return e.Verdict.Err.Error()
}

// Unwrap returns the handler's own error.
func (e *Error) Unwrap() error { return e.Verdict.Err }

// Each is the error of a batch handler that gives one verdict per event.
type Each []error

func (e Each) Error() string {
	n := 0
	var first error
	for _, err := range e {
		if err != nil {
			if n++; first == nil {
				first = err
			}
		}
	}
	if first == nil {
		return "every event done"
	}
	return fmt.Sprintf("%d of %d events failed, the first with: %v", n, len(e), first)
}

// Unwrap returns the errors of the events.
func (e Each) Unwrap() []error { return e }

// Of reads err: nil is Done, an Each gives one verdict per event, an *Error anywhere in the chain says its
// verdict, and any other error is Retry.
func Of(err error) Verdict {
	if err == nil {
		return Verdict{}
	}
	each, isEach := err.(Each) //nolint:errorlint // errors.As would look inside the events' own errors
	var ve *Error
	if !isEach && errors.As(err, &ve) {
		v := ve.Verdict
		v.Err = err
		return v
	}
	if isEach {
		v := Verdict{Each: each}
		for _, err := range each {
			if k := Of(err); k.Kind != Done && (v.Err == nil || k.Kind > v.Kind) {
				v.Kind, v.After, v.Err = k.Kind, k.After, k.Err
			}
		}
		return v
	}
	return Verdict{Kind: Retry, Err: err}
}
