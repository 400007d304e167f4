package sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/schemas"
)

const (
	// fencedWait is how long a fenced owner waits at most before it claims the partition again: as long as a member
	// takes to hear that it has lost its partitions.
	fencedWait = 3 * time.Second
	// firstWait and maxWait bound the waits for a target that is away; each is twice the last.
	firstWait = 250 * time.Millisecond
	maxWait   = 30 * time.Second
	// letterTimeout bounds one try at a dead letter: a transaction may be open meanwhile, and a database ends one that is
	// idle for longer (pgsink.Config.Idle).
	letterTimeout = 10 * time.Second
)

// keptElsewhere is the metadata of the commits that report the positions of a sink.
func keptElsewhere(name string) string { return groups.KeptElsewhere + "sink " + name }

// graveyard takes the copy of an event that is given up, and returns nil once it is acknowledged. *deadletter.Writer is
// one.
type graveyard interface {
	Write(ctx context.Context, e event.Event, f deadletter.Failure) error
}

// runner is the engine's handler: it gives batches to the target and settles what each error means.
type runner struct {
	target  Writer
	places  *places
	cfg     Config
	letters graveyard
	now     func() time.Time
}

// Handle implements [engine.Handler]. A batch is one transaction: all of it is resolved, or nothing.
func (r *runner) Handle(ctx context.Context, b engine.Batch) []verdict.Verdict {
	p := r.places.get(b.ID, b.Lease)
	if p == nil {
		return []verdict.Verdict{r.fenced(b.ID, ErrNotOwner)}
	}
	attempt, first := 1, b.Next // a batch without items only passes markers
	if len(b.Items) > 0 {
		attempt, first = b.Items[0].Attempt, b.Items[0].Record.Offset
	}
	if first < p.Next {
		return []verdict.Verdict{{Kind: verdict.Stop, Err: fmt.Errorf("offset %d was read, and up to %d all is written: the log was cut: %s",
			first, p.Next-1, rewind(b.ID.Reader))}}
	}
	_, again := r.cfg.Retry.Next(attempt)
	t := &turn{runner: r, place: p, b: b, attempt: attempt, first: first, started: r.now()}
	w := Batch{From: p.Place, To: p.Place, Events: p.read(b), Attempt: attempt, Last: !again, Bury: t.bury}
	w.To.Next = b.Next
	for i := range w.Events {
		w.To.Watermark = later(w.To.Watermark, &w.Events[i].Meta)
	}
	err := r.target.Write(ctx, w)
	v := t.judge(ctx, err)
	clear(p.events)
	r.cfg.Observer.Attempted(b.ID, "sink "+r.cfg.Name, v.Kind, len(b.Items), r.now().Sub(t.started))
	if v.Kind != verdict.Done {
		return []verdict.Verdict{v}
	}
	p.Place = w.To
	p.burst.OK(len(b.Items)-t.buried, r.cfg.Burst)
	return nil
}

// read makes the items of a batch events.
func (p *place) read(b engine.Batch) []event.Event {
	p.events = p.events[:0]
	for i := range b.Items {
		p.events = append(p.events, event.Event{})
		e := &p.events[i]
		wire.Read(e, b.Items[i].Record, b.ID.TopicID)
		e.Attempt = b.Items[i].Attempt
	}
	return p.events
}

// turn is one batch in the target's hands.
type turn struct {
	*runner
	*place
	b       engine.Batch
	attempt int
	first   int64 // offset
	started time.Time
	buried  int
}

// judge turns the error of a Write into what becomes of the batch.
func (t *turn) judge(ctx context.Context, err error) verdict.Verdict {
	v := consumer.VerdictOf(err)
	switch {
	case err == nil:
		t.goesOn()
		return v
	case ctx.Err() != nil: // given up: nothing of the batch is written, or all of it and the next owner sees that
		return verdict.Verdict{Kind: verdict.Pause, Err: err}
	case errors.Is(err, ErrNotOwner):
		return t.fenced(t.b.ID, err)
	case v.Kind == verdict.Stop:
		return v
	case v.Kind == verdict.Pause:
		return t.wait(v)
	}
	wait, again := t.cfg.Retry.Next(t.attempt)
	if !again { // the target has not said which event: it is not given up
		return t.wait(v)
	}
	t.goesOn()
	t.cfg.Log.Warn("a batch failed and is tried again", t.at(zap.Int("attempt", t.attempt), zap.Error(err))...)
	v.Kind, v.Each = verdict.Retry, nil
	if v.After == 0 {
		v.After = jitter(wait)
	}
	return v
}

// fenced is the verdict of a batch whose partition has another owner. The engine claims it again, if it is still ours.
func (r *runner) fenced(id cursor.ID, err error) verdict.Verdict {
	r.cfg.Observer.Problem(id, err)
	r.cfg.Log.Warn("another owner has the partition: nothing was written; it is claimed again if the group says that it is ours",
		zap.String("topic", id.Topic), zap.Int32("partition", id.Partition), zap.Error(err))
	return verdict.Verdict{Kind: verdict.Pause, After: jitter(fencedWait), Err: fmt.Errorf("%w: %w", cursor.ErrFenced, err)}
}

// wait holds the partition until the target answers. It is logged when it begins and when it ends.
func (t *turn) wait(v verdict.Verdict) verdict.Verdict {
	if t.waited.IsZero() {
		t.waited = t.now()
		t.cfg.Log.Warn("a batch cannot be written now: the partition waits and nothing is skipped", t.at(zap.Error(v.Err))...)
	}
	t.cfg.Observer.Problem(t.b.ID, v.Err)
	v.Kind, v.Each = verdict.Pause, nil
	if v.After == 0 {
		v.After = jitter(min(firstWait<<min(t.pauses, 10), maxWait))
	}
	t.pauses++
	return v
}

func (t *turn) goesOn() {
	if !t.waited.IsZero() {
		t.cfg.Log.Info("a batch was written again: the partition goes on", t.at(zap.Duration("waited", t.now().Sub(t.waited)))...)
	}
	t.waited, t.pauses = time.Time{}, 0
}

func (t *turn) at(more ...zap.Field) []zap.Field {
	return append([]zap.Field{zap.String("topic", t.b.ID.Topic), zap.Int32("partition", t.b.ID.Partition), zap.Int64("offset", t.first)}, more...)
}

// bury is [Batch.Bury].
func (t *turn) bury(ctx context.Context, i int, handler string, why error) error {
	e := &t.events[i]
	f := t.failure(i, handler, why)
	if t.cfg.Retry.Stop && f.Class != deadletter.Rejected {
		return consumer.Stop(fmt.Errorf("event %s at offset %d: %s: %w", e.ID, e.Offset, handler, why))
	}
	if dead, of, refused := t.burst.Letter(t.cfg.Burst); refused {
		return consumer.Stop(&consumer.BurstError{Topic: e.Topic, Partition: e.Partition, Dead: dead, Of: of, Err: why})
	}
	ctx, cancel := context.WithTimeout(ctx, letterTimeout)
	defer cancel()
	if err := t.letters.Write(ctx, *e, f); err != nil {
		return Pause(fmt.Errorf("write a dead letter: %w", err))
	}
	t.buried++
	t.cfg.Observer.DeadLettered(t.b.ID, handler, string(f.Class))
	t.cfg.Log.Warn("dead letter", zap.String("topic", e.Topic), zap.Int32("partition", e.Partition), zap.Int64("offset", e.Offset),
		zap.String("event_id", e.ID), zap.String("handler", handler), zap.String("class", string(f.Class)), zap.Error(why))
	return nil
}

// failure is why event i is given up.
func (t *turn) failure(i int, handler string, why error) deadletter.Failure {
	item := t.b.Items[i]
	f := deadletter.Failure{
		Class: class(why), Err: why, Handler: handler, Attempts: item.Attempt, First: item.First, Last: t.now(),
		LogAppend: item.Record.Attrs.TimestampType() == logAppendTime,
	}
	if f.First.IsZero() {
		f.First = f.Last
	}
	if p, ok := errors.AsType[*consumer.PanicError](why); ok {
		f.Stack = p.Stack
	}
	return f
}

// logAppendTime is kgo's number for a timestamp that the broker has set.
const logAppendTime = 1

// class is the error's class: a small, bounded set, for headers and metrics.
func class(err error) deadletter.Class {
	_, panicked := errors.AsType[*consumer.PanicError](err)
	_, poisoned := errors.AsType[*poison](err)
	_, refused := errors.AsType[*refusedError](err)
	switch {
	case panicked:
		return deadletter.Panic
	case poisoned, errors.Is(err, schemas.ErrPoison):
		return deadletter.Poison
	case consumer.VerdictOf(err).Kind == verdict.DeadLetter:
		return deadletter.Rejected
	case refused:
		return deadletter.Refused
	case errors.Is(err, context.DeadlineExceeded):
		return deadletter.Timeout
	default:
		return deadletter.Handler
	}
}

// jitter is between half of d and d, so that what failed together is not tried again together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) //nolint:gosec // a wait needs no secrecy
}
