package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/verdict"
)

const (
	retryWait = 100 * time.Millisecond // where a verdict names no time
	panicWait = time.Second
	// markersWait is how long nothing must follow before the handler is told of markers alone.
	markersWait = time.Second
)

// actor is one assignment of one partition: from claim to fence. A partition that comes back gets a new one, so
// nothing that an old handler still does can touch the new owner's state.
//
// The poll goroutine puts slices of records in; the actor's goroutine tracks them, hands them to the handler in
// offset order, and keeps those that come again. Order by partition needs no more than that; order by key
// replaces work with queues by lane, and nothing else.
type actor struct {
	m     *member
	id    cursor.ID
	lease cursor.Lease
	start int64
	skip  []cursor.Run // resolved by an earlier owner
	ring  *ring

	ctx    context.Context //nolint:containedctx // a partition's own context is what its life is
	cancel context.CancelFunc

	draining atomic.Bool // no further batch; see drain
	drained  chan struct{}
	fenced   atomic.Bool   // nothing is committed any more
	exited   chan struct{} // the goroutine has ended

	mu      sync.Mutex
	queue   [][]*kgo.Record // from the poll, not tracked
	closed  bool            // the goroutine takes no more
	ended   bool            // no more will come
	wake    chan struct{}
	paused  bool
	records int64 // held: queued or in work
	bytes   int64
	next    int64     // offset of the next record to come
	slow    bool      // it gave back, and has not been empty since: it keeps to its fair share
	rewound int64     // where reading would go on had a step back no effect, 0 when there was none
	idle    time.Time // since when nothing is held
	moved   time.Time // when something was resolved, or came to where nothing was held

	end    atomic.Int64 // of the log, as the last fetch saw it; -1 before
	oldest atomic.Int64 // timestamp in ms of the first record in work, 0 when there is none

	turn atomic.Uint64 // how many batches were handed out and came back
	// of the actor's goroutine alone
	prev  <-chan struct{} // closed when the partition's last actor here has ended
	items []Item
	// through is the last offset that was tracked: behind the last item there may be markers of transactions.
	through int64
	passed  int64 // the last Next that was handled
	failed  error // ends Run
	lapsed  bool  // another owner has the lease

	// under member.commitMu
	committed int64 // -1: nothing yet
	dirty     bool  // commit although the position has not moved
}

func newActor(m *member, id cursor.ID, c cursor.Claimed, start int64) *actor {
	a := &actor{
		m: m, id: id, lease: c.Lease, start: start, skip: c.Done, ring: newRing(m.cfg.Batch),
		drained: make(chan struct{}), exited: make(chan struct{}), wake: make(chan struct{}, 1),
		items: make([]Item, 0, m.cfg.Batch), next: start, through: start - 1, passed: start, committed: start, dirty: c.Fresh, idle: time.Now(),
	}
	epoch := c.Epoch
	if c.Fresh {
		epoch = -1
	}
	a.ring.reset(start, epoch)
	a.end.Store(-1)
	a.ctx, a.cancel = context.WithCancel(m.detached)
	return a
}

// put hands records over: the poll goroutine's only touch. It reports false when the partition is given up.
func (a *actor) put(records []*kgo.Record, bytes int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	if a.records == 0 {
		a.moved = time.Now()
	}
	a.queue = append(a.queue, records)
	a.records += int64(len(records))
	a.bytes += bytes
	a.next, a.rewound = records[len(records)-1].Offset+1, 0
	if a.slow && !a.paused && a.m.gate.share(a.records, a.bytes) >= a.m.fair() {
		a.setPaused(true)
	}
	a.signal()
	return true
}

func (a *actor) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// drain stops dispatch: the batch in the handler's hands goes on, no other follows.
func (a *actor) drain() {
	if a.draining.CompareAndSwap(false, true) {
		close(a.drained)
	}
}

// finish says that no more records will come: the goroutine ends when all are resolved.
func (a *actor) finish() {
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.signal()
}

// fence ends the actor's right to commit and cancels its handler.
func (a *actor) fence() {
	a.fenced.Store(true)
	a.drain()
	a.cancel()
}

// run is the actor's goroutine.
func (a *actor) run() {
	returned := false
	defer func() {
		if !returned { // a handler called runtime.Goexit, as t.FailNow does: the partition would stand still without a word
			a.failed = fmt.Errorf("handle records of %s: the handler ended its goroutine", a.id)
		}
		a.letGo()
		if a.failed != nil {
			a.m.fail(a.failed)
		}
		close(a.exited)
	}()
	if a.succeed() {
		for a.fill() && a.work() {
		}
	}
	returned = true
}

// succeed waits for the partition's last actor, whose handler may not have noticed yet that it was lost: two
// handlers of one partition at once would break its order. It reports false when the partition is given up first.
func (a *actor) succeed() bool {
	if a.prev == nil {
		return true
	}
	select {
	case <-a.prev:
		return true
	case <-a.drained:
		return false
	}
}

// letGo gives back what the gate counts for records that nobody will handle here.
func (a *actor) letGo() {
	a.mu.Lock()
	records, bytes := a.records, a.bytes
	a.closed, a.queue, a.records, a.bytes = true, nil, 0, 0
	a.mu.Unlock()
	a.oldest.Store(0)
	a.m.gate.release(records, bytes)
}

// fill waits for records and makes the next batch of them. It reports false when there will be none.
func (a *actor) fill() bool {
	a.items = a.items[:0]
	var full, tail <-chan time.Time
	for {
		a.take()
		if a.draining.Load() {
			return false
		}
		if len(a.items) == cap(a.items) || len(a.items) > 0 && a.m.cfg.BatchWait == 0 {
			return true
		}
		if len(a.items) > 0 && full == nil {
			t := time.NewTimer(a.m.cfg.BatchWait)
			defer t.Stop()
			full = t.C
		}
		if len(a.items) == 0 && tail == nil && a.m.cfg.Markers && a.through >= a.passed {
			t := time.NewTimer(markersWait)
			defer t.Stop()
			tail = t.C
		}
		if a.exhausted() {
			return len(a.items) > 0
		}
		select {
		case <-a.wake:
		case <-full:
			return true
		case <-tail:
			if len(a.items) == 0 {
				return true
			}
		case <-a.drained:
			return false
		}
	}
}

func (a *actor) exhausted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended && len(a.queue) == 0
}

// take moves queued records into the batch, tracking each.
func (a *actor) take() {
	var records, bytes int64
	for len(a.items) < cap(a.items) {
		a.mu.Lock()
		if len(a.queue) == 0 {
			a.mu.Unlock()
			break
		}
		chunk := a.queue[0]
		n := min(len(chunk), cap(a.items)-len(a.items))
		if n == len(chunk) {
			a.queue[0] = nil
			if a.queue = a.queue[1:]; len(a.queue) == 0 {
				a.queue = nil
			}
		} else {
			a.queue[0] = chunk[n:]
		}
		a.mu.Unlock()
		for i, r := range chunk[:n] {
			chunk[i] = nil // the slab lives on while the rest waits; the record need not
			if a.track(r) {
				records++
				bytes += size(r)
			}
		}
	}
	if records > 0 { // resolved by an earlier owner
		a.ring.sweep()
		a.release(records, bytes)
	}
	if len(a.items) > 0 {
		a.oldest.Store(a.items[0].Record.Timestamp.UnixMilli())
	}
}

// track adds r to the ring and to the batch, or only to the ring when the cursor says that it is resolved, or when
// it is the marker of a transaction, which the position must pass or a lag would rest above 0. The ring is never full: a batch is worked off before the next is filled.
func (a *actor) track(r *kgo.Record) (skipped bool) {
	seq, ok := a.ring.track(r.Offset, r.LeaderEpoch)
	if !ok {
		panic("engine: the ring is smaller than a batch")
	}
	a.through = r.Offset
	if r.Attrs.IsControl() {
		return a.ring.mark(seq)
	}
	if r.Offset < a.start { // the log was cut and written again: what was resolved above were other records
		a.skip = nil
	}
	for len(a.skip) > 0 && a.skip[0].To <= r.Offset {
		a.skip = a.skip[1:]
	}
	if len(a.skip) > 0 && a.skip[0].From <= r.Offset {
		return a.ring.mark(seq)
	}
	a.items = append(a.items, Item{Record: r, Attempt: 1, seq: seq})
	return false
}

// work hands the batch to the handler until nothing of it is left. It reports false when the actor must end.
func (a *actor) work() bool {
	if len(a.items) == 0 {
		return a.pass()
	}
	for len(a.items) > 0 {
		started := time.Now()
		verdicts := a.handle(Batch{ID: a.id, Lease: a.lease, Items: a.items, Next: a.through + 1, actor: a, turn: a.turn.Load()})
		a.turn.Add(1)
		resolved, wait := a.settle(verdicts)
		if o := a.m.cfg.Observer; o != nil {
			o.Handled(a.id, resolved, len(a.items), time.Since(started))
		}
		if a.failed != nil || a.draining.Load() {
			return false
		}
		if a.lapsed {
			a.reclaim(wait)
			return false
		}
		if len(a.items) == 0 {
			break
		}
		if wait > 0 && !a.sleep(wait) {
			return false
		}
	}
	a.oldest.Store(0)
	a.passed = a.through + 1
	return true
}

func (a *actor) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.drained:
		return false
	}
}

// handle calls the handler. A panic is the verdict of the first item that is not resolved.
func (a *actor) handle(b Batch) (verdicts []verdict.Verdict) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		err := &PanicError{Value: v, Stack: debug.Stack()}
		a.m.problem(a.id, fmt.Errorf("handle records of %s up to offset %d: %w", a.id, b.Next-1, err))
		first := 0
		for first < len(b.Items)-1 && a.ring.resolved(b.Items[first].seq) {
			first++
		}
		verdicts = make([]verdict.Verdict, first+1)
		verdicts[first] = verdict.Verdict{Kind: verdict.Retry, After: panicWait, Err: err}
	}()
	return a.m.handler.Handle(a.ctx, b)
}

// settle applies verdicts to the batch and keeps the items that come again. It returns how many were resolved,
// and how long to wait: as long as the first verdict that resolves nothing says.
func (a *actor) settle(verdicts []verdict.Verdict) (resolved int, wait time.Duration) {
	var bytes int64
	kept := a.items[:0]
	decided := false
	for i := range a.items {
		it := a.items[i]
		v := verdict.Verdict{Kind: unattempted}
		if verdicts == nil {
			v.Kind = verdict.Done
		} else if i < len(verdicts) {
			v = verdicts[i]
		}
		if v.Resolved() || a.ring.resolved(it.seq) {
			a.ring.mark(it.seq)
			resolved++
			bytes += size(it.Record)
			continue
		}
		if v.Kind == verdict.Retry {
			if it.Attempt++; it.First.IsZero() {
				it.First = time.Now()
			}
		}
		switch {
		case v.Kind == unattempted:
		case v.Kind == verdict.Retry, v.Kind == verdict.Pause:
			a.lapsed = a.lapsed || fencedBy(v)
			if !decided {
				decided, wait = true, v.After
				if wait <= 0 {
					wait = retryWait
				}
			}
		case a.failed == nil:
			a.failed = a.stopped(it, v)
		}
		kept = append(kept, it)
	}
	clear(a.items[len(kept):])
	a.items = kept
	a.ring.sweep()
	a.release(int64(resolved), bytes)
	if len(kept) > 0 {
		a.oldest.Store(kept[0].Record.Timestamp.UnixMilli())
	}
	if resolved == 0 && !decided {
		wait = retryWait // a handler that does nothing must not be called in a circle
	}
	return resolved, wait
}

// unattempted is the kind of the items behind the last verdict.
const unattempted verdict.Kind = -1

// stopped is the error that ends Run for a verdict that is neither resolved nor comes again.
func (a *actor) stopped(it Item, v verdict.Verdict) error {
	err := v.Err
	if v.Kind != verdict.Stop {
		err = errors.Join(fmt.Errorf("the verdict %q is not the engine's to carry out", v.Kind), err)
	}
	if err == nil {
		err = errors.New("the handler said stop")
	}
	return fmt.Errorf("handle %s/%d offset %d: %w", a.id.Topic, a.id.Partition, it.Record.Offset, err)
}

// release gives back what the gate counts for resolved records, and lets the partition be polled again when it
// has room.
func (a *actor) release(records, bytes int64) {
	a.mu.Lock()
	a.records -= records
	a.bytes -= bytes
	if records > 0 {
		a.moved = time.Now()
	}
	if a.records == 0 {
		a.idle, a.slow = time.Now(), false
	}
	if a.paused && a.m.gate.share(a.records, a.bytes) < resumeAt*a.m.fair() {
		a.setPaused(false)
	}
	a.mu.Unlock()
	a.m.gate.release(records, bytes)
	a.m.resolved(records)
}

// lag is how many offsets the position is behind the end of the log, and how old the first record in work is.
func (a *actor) lag(now time.Time) (records int64, age time.Duration) {
	c, ok := a.ring.snapshot()
	if end := a.end.Load(); ok && end > c.Position {
		records = end - c.Position
	}
	if ms := a.oldest.Load(); ms > 0 {
		age = max(0, now.Sub(time.UnixMilli(ms)))
	}
	return records, age
}
