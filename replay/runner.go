package replay

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
)

// laneQueue is how many events wait for each worker. They are delivered when a run is stopped, so they are few.
const laneQueue = 8

// runner is one run of a replay: it reads, waits for the pace and hands out; workers, or a pipeline, deliver; commits
// follow what the tracker says is behind.
type runner struct {
	cfg    Config
	f      *frozen
	lock   *lock // nil: untracked, or nothing to do
	target Target
	track  *tracker
	pace   *pacer
	source *source
	began  time.Time

	retries, again atomic.Int64 // attempts; events sent twice
	slipped        atomic.Int64
	mu             sync.Mutex
	err            error // the first one that ends the run
	stop           context.CancelFunc
	whole          bool
}

// item is one event on its way.
type item struct {
	event event.Event
	part  *part
	n     uint64 // its number in the part
}

func newRunner(cfg Config, f *frozen, l *lock, t Target) *runner {
	window := int64(cfg.Window)
	if l == nil {
		window = 0
	}
	r := &runner{
		cfg: cfg, f: f, lock: l, target: t, pace: newPacer(cfg), began: time.Now(),
		track: newTracker(f.spans, f.head.Counts, window, cfg.plant), whole: f.head.Done,
	}
	spans := f.spans
	if cfg.plant.skipOne && f.resumed {
		spans = append([]Span(nil), spans...)
		for i := range spans {
			spans[i].Position = min(spans[i].Position+1, spans[i].Until)
		}
	}
	r.source = &source{cfg: cfg, f: f, spans: spans, skip: r.track.skip, lost: r.track.lost}
	return r
}

// refuseLoop refuses a target that is read.
func (r *runner) refuseLoop() error {
	t, ok := r.target.(interface{ writes() string })
	if !ok || r.cfg.AllowLoop {
		return nil
	}
	for _, topic := range append(r.f.topics(), r.cfg.Read.Topics...) {
		if topic == t.writes() {
			return fmt.Errorf("replay %s into %s: %w: its readers would get everything again", r.cfg.ID, topic, ErrLoop)
		}
	}
	return nil
}

// fail ends the run with err, unless it has ended.
func (r *runner) fail(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	r.stop()
}

func (r *runner) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// run is the whole of it. Three contexts: ctx is the caller's, reading ends with it or with a failure, and what is on
// its way then has working for another Drain.
func (r *runner) run(ctx context.Context, c kafka.Cluster) (Summary, error) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	r.stop = stop
	working, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	over := make(chan struct{})
	watching := context.AfterFunc(reading, func() {
		r.track.end()
		t := time.NewTimer(r.cfg.Drain)
		defer t.Stop()
		select {
		case <-t.C:
			abandon()
		case <-over:
		}
	})
	defer watching()
	defer close(over)

	var committing sync.WaitGroup
	committed := make(chan struct{})
	committing.Go(func() { r.commits(ctx, committed) })

	d := r.delivery(reading, working)
	err := r.hand(reading, c, d)
	d.end()
	close(committed)
	committing.Wait()
	if failure := r.failure(); failure != nil {
		err = failure // what was read no longer is its consequence
	}
	if err == nil {
		if r.whole = r.track.finish(); !r.whole {
			err = fmt.Errorf("replay %s: %w", r.cfg.ID, ctx.Err()) // all was handed out, and not all answered
		}
	}
	if released := r.release(ctx); err == nil {
		err = released
	}
	s := r.summary()
	if r.cfg.Report != nil {
		r.cfg.Report(s)
	}
	return s, err
}

// hand reads events and hands each out when it is due.
func (r *runner) hand(ctx context.Context, c kafka.Cluster, d delivery) error {
	events := r.source.events(ctx, c)
	paced := r.pace.paced()
	for e, err := range events {
		if err != nil {
			return fmt.Errorf("replay %s: %w", r.cfg.ID, err)
		}
		if paced {
			if err := r.pace.wait(ctx, r.cfg.Clock.of(&e)); err != nil {
				return fmt.Errorf("replay %s: %w", r.cfg.ID, err)
			}
			r.slipped.Store(int64(r.pace.slipped))
		}
		p, n, ok := r.track.begin(&e)
		if ok && !d.take(&e, p, n) {
			r.track.takeBack(p)
			ok = false
		}
		if !ok {
			return fmt.Errorf("replay %s: %w", r.cfg.ID, ctx.Err())
		}
	}
	return nil
}

// commits commits until stop is closed.
func (r *runner) commits(ctx context.Context, stop <-chan struct{}) {
	ctx = context.WithoutCancel(ctx)
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		timed := false
		select {
		case <-stop:
			return
		case <-r.track.kick:
		case <-tick.C:
			timed = true
		}
		if timed && r.cfg.Report != nil {
			r.cfg.Report(r.summary())
		}
		if r.lock == nil || timed && !r.track.isDirty() && time.Since(r.lock.held) < lease/3 {
			continue
		}
		r.commit(ctx)
	}
}

// commit writes what is behind. A cluster that does not answer is waited for as long as the lease lasts.
func (r *runner) commit(ctx context.Context) {
	c := r.track.cut(int64(r.cfg.Window))
	r.lock.h.Repeats, r.lock.h.Gone = r.f.head.Repeats+r.again.Load(), r.f.head.Gone+c.gone
	err := r.lock.commit(ctx, c)
	switch {
	case err == nil:
		r.track.committed(c)
	case errors.Is(err, ErrTaken), time.Since(r.lock.held) > lease:
		r.fail(err)
	default:
		r.cfg.Log.Warn("progress was not committed, and is tried again", zap.String("replay", r.cfg.ID), zap.Error(err))
	}
}

// release commits the end and gives the lock up.
func (r *runner) release(ctx context.Context) error {
	if r.lock == nil {
		return nil
	}
	c := r.track.cut(int64(r.cfg.Window))
	r.lock.h.Repeats, r.lock.h.Gone = r.f.head.Repeats+r.again.Load(), r.f.head.Gone+c.gone
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*commitTimeout)
	defer cancel()
	if err := r.lock.release(ctx, c, r.track.onTheWay(), r.whole); err != nil && !errors.Is(r.failure(), ErrTaken) {
		return err
	}
	return nil
}

func (r *runner) summary() Summary {
	s := Summary{
		ID: r.cfg.ID, Repeats: r.f.head.Repeats + r.again.Load(), Retries: r.retries.Load(),
		Slipped: time.Duration(r.slipped.Load()), Took: time.Since(r.began), Resumed: r.f.resumed, Done: r.whole,
	}
	s.Spans, s.Counts, s.Gone = r.track.snapshot()
	s.Gone += r.f.head.Gone
	return s
}

// delivery hands events to the target.
type delivery interface {
	// take hands over the next event; false says that the run ends.
	take(e *event.Event, p *part, n uint64) bool
	// end returns when everything that was taken is answered, or abandoned.
	end()
}

func (r *runner) delivery(reading, working context.Context) delivery {
	working = event.WithReplay(working, event.Replay{ID: r.cfg.ID})
	if p, ok := r.target.(Pipelined); ok {
		return newPipeline(reading, working, r, p)
	}
	w := &workers{r: r, reading: reading}
	for range r.cfg.Keys {
		lane := make(chan item, laneQueue)
		w.lanes = append(w.lanes, lane)
		w.running.Go(func() {
			over := false
			for it := range lane {
				if over { // nothing of a key may overtake what is open
					continue
				}
				o := r.deliver(reading, working, &it, nil, 1)
				if over = o == open; !over {
					r.track.resolve(it.part, it.n, o)
				}
			}
		})
	}
	return w
}

// workers deliver one event at a time each, and those of one key by the same one.
type workers struct {
	r       *runner
	reading context.Context //nolint:containedctx // of the run that the workers are a part of
	lanes   []chan item
	turn    int
	running sync.WaitGroup
}

var laneSeed = maphash.MakeSeed()

// laneOf is the unit of order: a key of a topic.
func laneOf(e *event.Event) uint64 {
	var h maphash.Hash
	h.SetSeed(laneSeed)
	_, _ = h.WriteString(e.Topic)
	_ = h.WriteByte(0)
	_, _ = h.Write(e.Key)
	return h.Sum64()
}

func (w *workers) take(e *event.Event, p *part, n uint64) bool {
	lane := 0
	if len(w.lanes) > 1 {
		if e.Key == nil || w.r.cfg.plant.anyWorker {
			w.turn++
			lane = w.turn % len(w.lanes)
		} else {
			lane = int(laneOf(e) % uint64(len(w.lanes)))
		}
	}
	select {
	case w.lanes[lane] <- item{*e, p, n}:
		return true
	case <-w.reading.Done():
		return false
	}
}

func (w *workers) end() {
	for _, lane := range w.lanes {
		close(lane)
	}
	w.running.Wait()
}

// deliver gives an event to the target until it is decided. open says that the run ended first. A pipeline comes with
// the error of the first attempt.
func (r *runner) deliver(reading, working context.Context, it *item, err error, attempt int) outcome {
	if err == nil {
		attempt, err = 1, r.attempt(working, it, 1)
	}
	for {
		v := consumer.VerdictOf(err)
		var wait time.Duration
		again := true
		switch v.Kind {
		case consumer.Done:
			return delivered
		case consumer.Dropped:
			return dropped
		case consumer.Stopped:
			r.fail(it.failure(r.cfg.ID, attempt, err))
			return open
		case consumer.DeadLettered:
			again = false
		case consumer.Paused:
			wait, _ = consumer.Retry{Attempts: -1, Backoff: r.cfg.Retry.Backoff, Max: r.cfg.Retry.Max}.Next(attempt)
		case consumer.Retried:
			wait, again = r.cfg.Retry.Next(attempt)
		}
		if v.After > 0 {
			wait = v.After
		}
		switch {
		case reading.Err() != nil:
			return open
		case !again && r.cfg.SkipFailed:
			r.cfg.Log.Warn("an event failed and is skipped", zap.String("replay", r.cfg.ID), zap.String("topic", it.event.Topic),
				zap.Int32("partition", it.event.Partition), zap.Int64("offset", it.event.Offset), zap.Error(err))
			return failed
		case !again:
			r.fail(it.failure(r.cfg.ID, attempt, err))
			return open
		}
		if !sleep(reading, wait) {
			return open
		}
		if v.Kind != consumer.Paused {
			attempt++
		}
		r.retries.Add(1)
		err = r.attempt(working, it, attempt)
	}
}

// attempt is one try. Once a run is stopped, what was handed out still has its first one.
func (r *runner) attempt(working context.Context, it *item, n int) error {
	if err := working.Err(); err != nil {
		return err //nolint:wrapcheck // deliver looks at contexts itself
	}
	ctx, cancel := context.WithTimeout(working, r.cfg.Timeout)
	defer cancel()
	ctx = event.WithReplay(ctx, event.Replay{ID: r.cfg.ID, Origin: it.event.Meta})
	e := it.event
	e.Attempt = n
	return r.target.Deliver(ctx, e) //nolint:wrapcheck // a verdict
}

func (it *item) failure(id string, attempts int, err error) error {
	return fmt.Errorf("replay %s: deliver %s/%d@%d, attempt %d: %w", id, it.event.Topic, it.event.Partition, it.event.Offset, attempts, err)
}

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
