package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/schemas"
)

// graveyard takes the copy of an event that is given up, and returns nil once it is acknowledged. *deadletter.Writer is
// one.
type graveyard interface {
	Write(ctx context.Context, e event.Event, f deadletter.Failure) error
}

// runner is the engine's handler: it works through a batch of records with the mux and settles what each attempt's
// error means by policy. It holds no position; what it returns moves one.
type runner struct {
	mux     *Mux
	dec     Decoder
	cfg     Config
	letters graveyard
	now     func() time.Time

	partitions sync.Map  // cursor.ID → *partition
	unhandled  sync.Map  // what was logged: type name → true
	pool       sync.Pool // *[]slot
}

// partition is what is remembered of a partition between rounds. One goroutine at a time uses it.
type partition struct {
	burst  BurstCount
	waited time.Time // since when the partition waits for a dependency; zero when it does not
}

// slot is a record as an event, with its handler or the error of finding one.
type slot struct {
	route *route
	err   error
}

// round is one batch on its way through the mux.
type round struct {
	*runner
	p      *partition
	b      engine.Batch
	events []event.Event // those of b.Items[:len(events)]: read as they are needed
	slots  []slot
	out    []verdict.Verdict // nil as long as all are done
	at     time.Time         // when the last attempt ended
}

// Handle implements [engine.Handler].
func (r *runner) Handle(ctx context.Context, b engine.Batch) []verdict.Verdict {
	p, ok := r.partitions.Load(b.ID)
	if !ok {
		p, _ = r.partitions.LoadOrStore(b.ID, &partition{})
	}
	rd := r.round()
	defer r.release(rd)
	rd.p, rd.b, rd.at = p.(*partition), b, r.now() //nolint:forcetypeassert // only partitions are stored
	for i := 0; i < len(b.Items); {
		if ctx.Err() != nil || i > 0 && b.Draining() {
			return rd.upTo(i)
		}
		n, more := rd.step(ctx, i)
		if i += n; !more {
			return rd.upTo(i)
		}
	}
	return rd.out
}

// upTo is the verdicts of the first n items; the rest comes again as it is.
func (rd *round) upTo(n int) []verdict.Verdict {
	if rd.out == nil {
		return make([]verdict.Verdict, n)
	}
	return rd.out[:n]
}

// settle writes down the verdict of item i.
func (rd *round) settle(i int, v verdict.Verdict) {
	if v.Resolved() {
		rd.b.Done(i)
		if rd.out == nil {
			return
		}
	}
	if rd.out == nil {
		rd.out = make([]verdict.Verdict, len(rd.b.Items))
	}
	rd.out[i] = v
}

// read makes item i an event and finds its handler. Items are read in order, each once.
func (rd *round) read(ctx context.Context, i int) *slot {
	for len(rd.events) <= i {
		k := len(rd.events)
		rd.events = append(rd.events, event.Event{})
		e := &rd.events[k]
		wire.Read(e, rd.b.Items[k].Record, rd.b.ID.TopicID)
		e.Attempt = rd.b.Items[k].Attempt
		route, err := rd.mux.route(ctx, rd.dec, e)
		rd.slots = append(rd.slots, slot{route, err})
	}
	return &rd.slots[i]
}

// step handles item i, or the batch that starts with it. It returns how many items were attempted, and whether
// the round goes on.
func (rd *round) step(ctx context.Context, i int) (attempted int, more bool) {
	s := rd.read(ctx, i)
	if s.err != nil {
		return rd.one(ctx, i, s.route, s.err)
	}
	if s.route.batch != nil {
		return rd.many(ctx, i, s.route)
	}
	attempt, cancel := rd.attempt(ctx)
	err := rd.mux.single(attempt, rd.dec, s.route, &rd.events[i])
	err = rd.late(attempt, ctx, err)
	cancel()
	return rd.one(ctx, i, s.route, err)
}

func (rd *round) attempt(ctx context.Context) (context.Context, context.CancelFunc) {
	if rd.cfg.Timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, rd.cfg.Timeout)
}

// late says that an error came after the attempt's time was up.
func (rd *round) late(attempt, ctx context.Context, err error) error {
	if err == nil || rd.cfg.Timeout == 0 || ctx.Err() != nil || !errors.Is(attempt.Err(), context.DeadlineExceeded) {
		return err
	}
	if _, each := err.(verdict.Each); each { //nolint:errorlint // only as it is: see Each
		return err
	}
	return fmt.Errorf("no answer within %s: %w: %w", rd.cfg.Timeout, context.DeadlineExceeded, err)
}

// one settles the single item i whose attempt ended with err.
func (rd *round) one(ctx context.Context, i int, r *route, err error) (attempted int, more bool) {
	if ctx.Err() != nil && err != nil {
		return 0, false // the partition is given up: no fault of the event
	}
	v := rd.judge(i, VerdictOf(err), err)
	rd.observe(r, v.Kind, 1)
	if v.Kind == verdict.DeadLetter {
		v = rd.bury(ctx, i, r, v.Err)
		if v.Kind == verdict.Pause {
			return 0, false // given up before the copy was acknowledged
		}
	} else if v.Resolved() {
		rd.p.burst.OK(1, rd.cfg.Burst)
	}
	rd.settle(i, v)
	return 1, v.Resolved()
}

// many gathers the batch that starts with item i and settles its items.
func (rd *round) many(ctx context.Context, i int, r *route) (attempted int, more bool) {
	end := i + 1
	for end < len(rd.b.Items) && rd.b.Items[end].Attempt == rd.b.Items[i].Attempt {
		if s := rd.read(ctx, end); s.err != nil || s.route != r {
			break
		}
		end++
	}
	w := r.batch(rd.events[i:end])
	n, err := w.decode(ctx, rd.dec)
	if n == 0 {
		return rd.one(ctx, i, r, err)
	}
	err = rd.call(ctx, w, 0, n)
	if ctx.Err() != nil && err != nil {
		return 0, false
	}
	v := VerdictOf(err)
	switch {
	case v.Each != nil && len(v.Each) != n:
		err = Stop(fmt.Errorf("handle %d events of %s: the handler returned %d verdicts", n, r.name, len(v.Each)))
		v = VerdictOf(err)
	case v.Kind == verdict.Retry && v.Each == nil && n > 1 && rd.exhausted(i):
		return rd.oneByOne(ctx, i, n, r, w)
	}
	return rd.batchOf(ctx, i, n, r, v, err)
}

// batchOf settles the n items from i, which were handled as one batch. Items behind one that comes again keep
// their own verdicts: the handler has given them.
func (rd *round) batchOf(ctx context.Context, i, n int, r *route, v Verdict, err error) (attempted int, more bool) {
	if v.Kind == verdict.Done {
		for k := range n {
			rd.settle(i+k, v)
		}
		rd.p.burst.OK(n, rd.cfg.Burst)
		rd.observe(r, verdict.Done, n)
		return n, true
	}
	more = true
	for k := range n {
		own, e := v, err
		if v.Each != nil {
			e = v.Each[k]
			own = VerdictOf(e)
		}
		own = rd.judge(i+k, own, e)
		rd.observe(r, own.Kind, 1)
		if own.Kind == verdict.DeadLetter {
			if own = rd.bury(ctx, i+k, r, own.Err); own.Kind == verdict.Pause {
				return k, false
			}
		} else if own.Resolved() {
			rd.p.burst.OK(1, rd.cfg.Burst)
		}
		rd.settle(i+k, own)
		if own.Kind == verdict.Stop {
			return k + 1, false
		}
		more = more && own.Resolved()
	}
	return n, more
}

// oneByOne hands the items of a batch over one at a time after their last attempt together failed, so that only
// those that fail alone are dead-lettered.
func (rd *round) oneByOne(ctx context.Context, i, n int, r *route, w work) (attempted int, more bool) {
	for k := range n {
		if ctx.Err() != nil {
			return k, false
		}
		n, more := rd.one(ctx, i+k, r, one(rd.call(ctx, w, k, k+1)))
		if !more {
			return k + n, false
		}
	}
	return n, true
}

func (rd *round) call(ctx context.Context, w work, from, to int) error {
	attempt, cancel := rd.attempt(ctx)
	defer cancel()
	err := guard(event.WithAttempt(attempt), func(ctx context.Context) error { return w.call(ctx, from, to) })
	return rd.late(attempt, ctx, err)
}

// exhausted reports whether item i is at its last attempt.
func (rd *round) exhausted(i int) bool {
	_, again := rd.cfg.Retry.Next(rd.b.Items[i].Attempt)
	return !again
}

// judge turns the verdict of an attempt at item i into what the policy makes of it.
func (rd *round) judge(i int, v Verdict, err error) Verdict {
	v.Each = nil
	var undecoded *decodeError
	isDecode := errors.As(err, &undecoded)
	switch v.Kind {
	case verdict.Done:
	case verdict.Dropped:
		if errors.Is(err, ErrUnhandled) {
			v = rd.nobody(i, v)
		}
	case verdict.Retry:
		wait, again := rd.cfg.Retry.Next(rd.b.Items[i].Attempt)
		switch {
		case again && v.After == 0:
			v.After = jitter(wait)
		case !again && rd.cfg.Retry.Stop:
			v = Verdict{Kind: verdict.Stop, Err: fmt.Errorf("attempt %d was the last: %w", rd.b.Items[i].Attempt, err)}
		case !again:
			v = Verdict{Kind: verdict.DeadLetter, Err: err}
		}
	case verdict.DeadLetter:
		if isDecode && rd.cfg.Retry.Stop {
			v.Kind = verdict.Stop
		}
	case verdict.Pause:
		v = rd.wait(i, v, err)
	case verdict.Stop:
		if isDecode && errors.Is(err, schemas.ErrIncompatible) && rd.cfg.Incompatible == DeadLettered {
			v.Kind = verdict.DeadLetter
		}
	}
	if v.Kind != verdict.Pause {
		rd.goesOn()
	}
	if v.Kind == verdict.Stop {
		v.Err = fmt.Errorf("event %s: %w", rd.events[i].ID, v.Err) // the engine adds the place
	}
	return v
}

// nobody is what becomes of an event without a handler.
func (rd *round) nobody(i int, v Verdict) Verdict {
	if rd.cfg.Strict {
		return Verdict{Kind: verdict.Stop, Err: v.Err}
	}
	e := &rd.events[i]
	if _, logged := rd.unhandled.LoadOrStore(e.Topic+" "+e.Type, true); !logged {
		rd.cfg.Log.Warn("no handler for a type: its events are dropped and counted",
			zap.String("topic", e.Topic), zap.String("type", e.Type), zap.String("event_id", e.ID))
	}
	return v
}

// pause is how long a partition waits before it asks a dependency again.
const pause = time.Second

// wait notes that the partition waits for a dependency. It is logged when it begins and when it ends.
func (rd *round) wait(i int, v Verdict, err error) Verdict {
	if v.After == 0 {
		v.After = jitter(2 * pause)
	}
	rd.cfg.Observer.Problem(rd.b.ID, err)
	if rd.p.waited.IsZero() {
		rd.p.waited = rd.now()
		e := &rd.events[i]
		rd.cfg.Log.Warn("a dependency does not answer: the partition waits and nothing is skipped", rd.place(e, zap.Error(err))...)
	}
	return v
}

func (rd *round) goesOn() {
	if !rd.p.waited.IsZero() {
		rd.cfg.Log.Info("the dependency answers again: the partition goes on", zap.String("topic", rd.b.ID.Topic),
			zap.Int32("partition", rd.b.ID.Partition), zap.Duration("waited", rd.now().Sub(rd.p.waited)))
		rd.p.waited = time.Time{}
	}
}

// bury copies item i to the dead letters and returns its verdict: Done once the copy is acknowledged, Stop when it
// would be one too many, Pause when the partition is given up before that. While the dead letters cannot be
// written the partition waits here: the handler's verdict stands, and running it again would not change it.
func (rd *round) bury(ctx context.Context, i int, r *route, err error) Verdict {
	e := &rd.events[i]
	if dead, of, refused := rd.p.burst.Letter(rd.cfg.Burst); refused {
		return Verdict{Kind: verdict.Stop, Err: &BurstError{Topic: e.Topic, Partition: e.Partition, Dead: dead, Of: of, Err: err}}
	}
	f := rd.failure(i, r, err)
	for try := 1; ; try++ {
		werr := rd.write(ctx, *e, f)
		if werr == nil {
			rd.cfg.Observer.DeadLettered(rd.b.ID, f.Handler, string(f.Class))
			rd.cfg.Log.Warn("dead letter", rd.place(e, zap.String("handler", f.Handler), zap.String("class", string(f.Class)),
				zap.Int("attempt", f.Attempts), zap.Error(err))...)
			return Verdict{}
		}
		rd.cfg.Observer.Problem(rd.b.ID, werr)
		if try == 1 {
			rd.cfg.Log.Error("the dead letters cannot be written: the partition waits", rd.place(e, zap.Error(werr))...)
		}
		if !rd.sleep(ctx, jitter(min(time.Duration(try)*pause, 10*pause))) {
			return Verdict{Kind: verdict.Pause, Err: werr}
		}
	}
}

// letterTimeout bounds one try at a dead letter. A copy whose answer was late may be there twice, with one id.
const letterTimeout = 15 * time.Second

func (rd *round) write(ctx context.Context, e event.Event, f deadletter.Failure) error {
	ctx, cancel := context.WithTimeout(ctx, letterTimeout)
	defer cancel()
	return rd.letters.Write(ctx, e, f)
}

// failure is why item i is given up.
func (rd *round) failure(i int, r *route, err error) deadletter.Failure {
	item := rd.b.Items[i]
	f := deadletter.Failure{
		Class: class(err), Err: err, Handler: r.label(), Attempts: item.Attempt, First: item.First, Last: rd.now(),
		LogAppend: item.Record.Attrs.TimestampType() == logAppendTime,
	}
	if f.First.IsZero() {
		f.First = f.Last
	}
	if p, ok := errors.AsType[*PanicError](err); ok {
		f.Stack = p.Stack
	}
	return f
}

// logAppendTime is kgo's number for a timestamp that the broker has set.
const logAppendTime = 1

// sleep waits for d, and reports false when the partition is to be given up meanwhile.
func (rd *round) sleep(ctx context.Context, d time.Duration) bool {
	const look = pause / 4
	for d > 0 {
		t := time.NewTimer(min(d, look))
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
		if rd.b.Draining() {
			return false
		}
		d -= look
	}
	return true
}

func (rd *round) place(e *event.Event, more ...zap.Field) []zap.Field {
	return append([]zap.Field{
		zap.String("topic", e.Topic), zap.Int32("partition", e.Partition), zap.Int64("offset", e.Offset), zap.String("event_id", e.ID),
	}, more...)
}

// observe reports an attempt. The clock is read once per attempt: where one ends, the next begins.
func (rd *round) observe(r *route, kind Kind, n int) {
	if _, silent := rd.cfg.Observer.(Silent); silent {
		return
	}
	now := rd.now()
	rd.cfg.Observer.Attempted(rd.b.ID, r.label(), kind, n, now.Sub(rd.at))
	rd.at = now
}

func (r *route) label() string {
	if r == nil {
		return ""
	}
	return r.name
}

// class is the error's class: a small, bounded set, for headers and metrics.
func class(err error) deadletter.Class {
	var undecoded *decodeError
	isDecode := errors.As(err, &undecoded)
	_, panicked := errors.AsType[*PanicError](err)
	switch {
	case panicked:
		return deadletter.Panic
	case isDecode && errors.Is(err, schemas.ErrIncompatible):
		return deadletter.Incompatible
	case isDecode:
		return deadletter.Poison
	case VerdictOf(err).Kind == verdict.DeadLetter:
		return deadletter.Rejected
	case errors.Is(err, context.DeadlineExceeded):
		return deadletter.Timeout
	default:
		return deadletter.Handler
	}
}

func (r *runner) round() *round {
	if rd, ok := r.pool.Get().(*round); ok {
		return rd
	}
	return &round{runner: r}
}

// release forgets the events, so that the memory of their records is not held.
func (r *runner) release(rd *round) {
	clear(rd.events)
	clear(rd.slots)
	rd.events, rd.slots = rd.events[:0], rd.slots[:0]
	rd.out, rd.p, rd.b = nil, nil, engine.Batch{ID: cursor.ID{}}
	r.pool.Put(rd)
}
