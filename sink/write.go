package sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/schemas"
)

// writer is a [Mux] that is open for one sink.
type writer[Tx any] struct {
	*Mux[Tx]
	dec       consumer.Decoder
	setup     Setup
	types     map[string]*uses
	tables    []*table
	pool      sync.Pool // *work[Tx]
	unhandled sync.Map  // what was logged: topic and type → true

	plant plant
}

// plant are bugs that tests plant to see that their checker finds them.
type plant struct {
	expectFirst bool // compare with the offset of the first record, not with what was read or written last
	byTime      bool // take what is older than the watermark for a repeat
	foldTwice   bool // let folds see repeats

	keepFunctions bool // keep what functions write in a shadow
}

// Claim implements [Writer].
func (w *writer[Tx]) Claim(ctx context.Context, ids []cursor.ID, start map[cursor.ID]int64) (map[cursor.ID]Claimed, error) {
	claimed, err := w.db.Claim(ctx, w.setup.Owner, ids, start)
	if err == nil {
		return claimed, nil
	}
	err = fmt.Errorf("claim partitions in the target: %w", err)
	if w.db.Fault(err) == Wrong {
		return nil, consumer.Stop(err)
	}
	return nil, err
}

// Write implements [Writer].
func (w *writer[Tx]) Write(ctx context.Context, b Batch) error {
	k, ok := w.pool.Get().(*work[Tx])
	if !ok {
		k = w.newWork()
	}
	defer func() {
		k.reset()
		w.pool.Put(k)
	}()
	k.begin(b)
	if err := k.decode(ctx); err != nil {
		return err
	}
	if err := k.bury(ctx); err != nil { // those that do not decode: no transaction waits for it
		return err
	}
	return w.transact(ctx, k)
}

const (
	// tries bounds the transactions of one Write that end with a deadlock or an unknown outcome.
	tries = 10
	// settleTimeout bounds the question what became of a COMMIT.
	settleTimeout = 10 * time.Second
)

// transact writes the batch in one transaction, and tries again what can be tried at once.
func (w *writer[Tx]) transact(ctx context.Context, k *work[Tx]) error {
	for try := 1; ; {
		started := time.Now()
		err := w.once(ctx, k)
		w.setup.Observer.Written(k.To.ID, k.did, time.Since(started), err)
		next := err
		if err != nil {
			next = k.next(ctx, err)
		}
		switch {
		case next == nil:
			k.tell(ctx)
			return nil
		case !errors.Is(next, errAgain):
			return next
		case k.progress: // an event was set aside: that ends by itself
			continue
		case try == tries:
			return Pause(fmt.Errorf("write to the target, %d times in a row: %w", tries, err))
		}
		if !sleep(ctx, rand.N(time.Duration(try)*20*time.Millisecond)) { //nolint:gosec // a wait needs no secrecy
			return Pause(ctx.Err())
		}
		try++
	}
}

// once is one transaction.
func (w *writer[Tx]) once(ctx context.Context, k *work[Tx]) error {
	k.did, k.late, k.progress = Written{Events: len(k.Events), Passed: k.passedBy}, k.late[:0], false
	k.changes = nil
	from := k.From
	if w.plant.expectFirst && len(k.Events) > 0 {
		from.Next = k.Events[0].Offset
	}
	return w.db.InTx(ctx, func(ctx context.Context, tx Tx) error {
		if err := w.db.Advance(ctx, tx, from, k.To); err != nil {
			return err
		}
		var err error
		if k.careful {
			err = k.search(ctx, tx, 0, len(k.Events))
		} else {
			err = k.apply(ctx, tx, 0, len(k.Events))
		}
		if err != nil {
			return err
		}
		return k.bury(ctx)
	})
}

// errAgain says that the transaction is tried again at once.
var errAgain = errors.New("again")

// next says what follows a transaction that failed with err: nil when it was committed all the same, errAgain, or what
// Write returns.
func (k *work[Tx]) next(ctx context.Context, err error) error {
	if p, ok := errors.AsType[*passed](err); ok {
		return p.err
	}
	switch {
	case errors.Is(err, ErrUnknownCommit):
		return k.settle(ctx, err)
	case errors.Is(err, ErrNotOwner):
		k.setup.Observer.Fenced(k.To.ID)
		return err
	case ctx.Err() != nil:
		return Pause(err)
	}
	f, own := errors.AsType[*funcError](err)
	switch k.db.Fault(err) {
	case Again:
		return errAgain
	case Wrong:
		return consumer.Stop(fmt.Errorf("write to the target: %w", err))
	case Data:
		if k.careful { // each event alone did not fail: it was the COMMIT
			return consumer.Stop(fmt.Errorf("write to the target: COMMIT was refused, and no event can be blamed: make its constraint immediate: %w", err))
		}
		k.careful, k.progress = true, true
		return errAgain
	case Foreign:
		if own {
			return k.failed(f)
		}
	default:
	}
	return Pause(fmt.Errorf("write to the target: %w", err))
}

// failed says what follows an error of a function.
func (k *work[Tx]) failed(f *funcError) error {
	v := consumer.VerdictOf(f.err)
	switch {
	case v.Each != nil:
		return k.each(f, v.Each)
	case v.Kind == verdict.Retry && !k.Last, v.Kind == verdict.Pause, v.Kind == verdict.Stop:
		return f
	}
	if k.careful {
		return f // search has an error of its own where it was not an event's
	}
	k.careful, k.progress = true, true
	return errAgain
}

// each sets aside the events that a function's [consumer.Each] names.
func (k *work[Tx]) each(f *funcError, errs []error) error {
	if len(errs) != len(f.at) {
		return consumer.Stop(fmt.Errorf("handle %d events of %s: the function returned %d verdicts", len(f.at), f.name, len(errs)))
	}
	for n, err := range errs {
		switch v := consumer.VerdictOf(err); {
		case v.Kind == verdict.Stop, v.Kind == verdict.Pause, v.Kind == verdict.Retry && !k.Last:
			return &funcError{name: f.name, err: err}
		case v.Kind != verdict.Done:
			k.setAside(f.at[n], f.name, err)
		}
	}
	return errAgain
}

// settle finds out what became of a COMMIT that had no answer.
func (k *work[Tx]) settle(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for try := 1; ; try++ {
		done, err := k.db.Settle(ctx, k.From, k.To)
		switch {
		case err == nil:
			k.setup.Observer.Settled(k.To.ID, done)
			if done {
				return nil
			}
			return errAgain
		case errors.Is(err, ErrNotOwner):
			k.setup.Observer.Fenced(k.To.ID)
			return err
		}
		// Where nobody can tell, the next transaction's compare-and-set will: it fails if this one took effect.
		if !sleep(ctx, rand.N(time.Duration(try)*100*time.Millisecond)) { //nolint:gosec // a wait needs no secrecy
			return Pause(fmt.Errorf("settle a commit: %w: %w", err, cause))
		}
	}
}

// funcError is an error of a user's function, or of the code of a fold.
type funcError struct {
	name string // whose
	at   []int  // the events it was given
	err  error
}

func (e *funcError) Error() string { return fmt.Sprintf("%s: %v", e.name, e.err) }
func (e *funcError) Unwrap() error { return e.err }

// refusedError is a row that the database refuses.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// passed is an error that Write returns as it is, on its way out of a transaction.
type passed struct{ err error }

func (e *passed) Error() string { return e.err.Error() }
func (e *passed) Unwrap() error { return e.err }

// Pause makes err one that the partition waits for, and the attempt is not counted: the target is away, and no event is at
// fault.
func Pause(err error) error {
	return &verdict.Error{Verdict: verdict.Verdict{Kind: verdict.Pause, Err: err}}
}

// sleep waits for d, and reports false when ctx has ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// nobody notes an event that goes nowhere. It is logged once per topic and type.
func (w *writer[Tx]) nobody(topic, name, id string) {
	if name == "" {
		name = "without a type"
	}
	if _, logged := w.unhandled.LoadOrStore(topic+" "+name, true); !logged {
		w.setup.Log.Warn("nothing is registered for a type: its events are passed and counted",
			zap.String("topic", topic), zap.String("type", name), zap.String("event_id", id))
	}
}

// undecodable gives an error of the decoder its verdict, as a consumer does.
func undecodable(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, schemas.ErrUnavailable):
		return Pause(err)
	case errors.Is(err, schemas.ErrIncompatible), errors.Is(err, schemas.ErrFull):
		return consumer.Stop(err)
	default:
		return &poison{err}
	}
}

// poison is an event that does not decode.
type poison struct{ err error }

func (e *poison) Error() string { return e.err.Error() }
func (e *poison) Unwrap() error { return e.err }
