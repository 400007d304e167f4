package sink

import (
	"context"
	"runtime/debug"
	"slices"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
)

// sheet holds the decoded events of one Go type in a batch.
type sheet interface {
	// add decodes event i.
	add(ctx context.Context, dec consumer.Decoder, e *event.Event, i int) error
	reset()
}

// span is a part of a batch: events from ≤ i < to that are not skipped.
type span struct {
	from, to int
	skip     []bool // by event
}

// whole reports whether nothing of the events at is left out.
func (sp span) whole(at []int) bool {
	return !slices.ContainsFunc(at, func(i int) bool { return i < sp.from || i >= sp.to || sp.skip[i] })
}

// typed is the sheet of type T. Its memory is used again for the next batch.
type typed[T any] struct {
	of    []event.Of[T]
	at    []int         // by event in of: its index in the batch
	some  []event.Of[T] // what pick has picked
	where []int
}

func (t *typed[T]) add(ctx context.Context, dec consumer.Decoder, e *event.Event, i int) error {
	t.of = append(t.of, event.Of[T]{Meta: e.Meta})
	if err := dec.Decode(ctx, e, &t.of[len(t.of)-1].Data); err != nil {
		t.of = t.of[:len(t.of)-1]
		return err
	}
	t.at = append(t.at, i)
	return nil
}

// reset forgets the events, so that their memory is not held.
func (t *typed[T]) reset() {
	clear(t.of)
	clear(t.some)
	t.of, t.at, t.some, t.where = t.of[:0], t.at[:0], t.some[:0], t.where[:0]
}

// pick returns the events of a span, and their places in the batch. Both are good until the next call.
func (t *typed[T]) pick(sp span) ([]event.Of[T], []int) {
	from, _ := slices.BinarySearch(t.at, sp.from)
	to, _ := slices.BinarySearch(t.at, sp.to)
	of, at := t.of[from:to:to], t.at[from:to]
	if sp.whole(at) {
		return of, at
	}
	t.some, t.where = t.some[:0], t.where[:0]
	for k, i := range at {
		if !sp.skip[i] {
			t.some, t.where = append(t.some, of[k]), append(t.where, i)
		}
	}
	return t.some, t.where
}

// guard calls a user's code and makes a panic an error with its stack.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &consumer.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
