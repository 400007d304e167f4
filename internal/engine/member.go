package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/verdict"
)

// member is one Run.
type member struct {
	cfg      Config
	feed     Feed
	store    cursor.Store
	handler  Handler
	gate     *gate
	detached context.Context //nolint:containedctx // Run's values without its end, for the partitions' own contexts

	mu     sync.Mutex
	actors map[topicPartition]*actor
	last   map[topicPartition]<-chan struct{} // closed when the partition's latest actor has ended
	closed bool                               // no partition is taken any more

	renewed   []renewal          // claimed again, to be resumed by the poll goroutine
	interrupt context.CancelFunc // of the poll that is under way

	wg sync.WaitGroup

	partitions atomic.Int64                 // len(actors)
	done       atomic.Int64                 // resolved since the last commit
	loaded     time.Time                    // since when the gate fills up, as the poll goroutine sees it
	troubled   map[topicPartition]time.Time // when a failed read was last told of, by the poll goroutine alone
	kick       chan struct{}                // commit early
	failures   chan error                   // the first ends Run

	// commitMu is held over the snapshot and the commit of positions, and over the commit and fence of a revoke,
	// so that no commit in flight can name a partition that was given up. Workers never take it.
	commitMu sync.Mutex
}

type topicPartition struct {
	topic     string
	partition int32
}

func newMember(ctx context.Context, f Feed, s cursor.Store, h Handler, cfg Config) *member {
	return &member{
		cfg: cfg, feed: f, store: s, handler: h, gate: newGate(cfg.InFlight, cfg.InFlightSize),
		detached: context.WithoutCancel(ctx), actors: make(map[topicPartition]*actor),
		last: make(map[topicPartition]<-chan struct{}), troubled: make(map[topicPartition]time.Time),
		kick: make(chan struct{}, 1), failures: make(chan error, 1),
	}
}

// run is Run. The feed outlives the drain: it must keep the member in its group until the last commit.
func (m *member) run(ctx context.Context) error {
	detached := context.WithoutCancel(ctx)
	feeding, stopFeed := context.WithCancel(detached)
	defer stopFeed()
	fed := make(chan error, 1)
	go func() { fed <- m.feed.Run(feeding, m) }()
	polling, stopPolls := context.WithCancel(ctx)
	defer stopPolls()
	var loops sync.WaitGroup
	loops.Go(func() { m.poll(polling) })
	committing, stopCommits := context.WithCancel(detached)
	defer stopCommits()
	var commits sync.WaitGroup
	commits.Go(func() { m.commitLoop(committing) })

	var err error
	gone := false
	select {
	case <-ctx.Done():
	case err = <-m.failures:
	case err = <-fed:
		gone = true
	}
	stopPolls()
	if gone && err == nil {
		loops.Wait()
		err = m.finish(ctx)
	}
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	mine := m.all()
	m.drain(detached, mine)
	stopCommits()
	commits.Wait()
	m.settle(detached, mine)
	loops.Wait() // not before: a poll waits while a rebalance has partitions given up
	stopFeed()
	if !gone {
		if late := <-fed; err == nil && !errors.Is(late, context.Canceled) {
			err = late
		}
	}
	return errors.Join(m.firstFailure(err), m.join())
}

// firstFailure prefers err; a failure during the drain must not be lost either.
func (m *member) firstFailure(err error) error {
	select {
	case late := <-m.failures:
		if err == nil {
			return late
		}
	default:
	}
	return err
}

// stuckAfter is how long handlers have to return once their contexts have ended.
const stuckAfter = 5 * time.Second

// join waits for the actors, whose contexts have ended.
func (m *member) join() error {
	ended := make(chan struct{})
	go func() {
		m.wg.Wait()
		close(ended)
	}()
	t := time.NewTimer(stuckAfter)
	defer t.Stop()
	select {
	case <-ended:
		return nil
	case <-t.C:
		return fmt.Errorf("stop engine: %w", ErrStuck)
	}
}

// finish waits until every record of a feed that has ended is resolved.
func (m *member) finish(ctx context.Context) error {
	for _, a := range m.all() {
		a.finish()
		select {
		case <-a.exited:
		case <-ctx.Done():
			return nil
		case err := <-m.failures:
			return err
		}
	}
	return nil
}

// fail ends Run with err; only the first counts.
func (m *member) fail(err error) {
	select {
	case m.failures <- err:
	default:
	}
}

// problem tells of an error that does not end Run.
func (m *member) problem(id cursor.ID, err error) {
	if id == (cursor.ID{}) { // not a partition's but the membership's, which the client restores by itself
		m.cfg.Log.Warn("the membership has a problem and is tried again", zap.Error(err))
	} else {
		m.cfg.Log.Error("partition has a problem", zap.String("topic", id.Topic), zap.Int32("partition", id.Partition), zap.Error(err))
	}
	if m.cfg.Observer != nil {
		m.cfg.Observer.Problem(id, err)
	}
}

// resolved counts towards an early commit.
func (m *member) resolved(records int64) {
	if n := int64(m.cfg.CommitRecords); n > 0 && m.done.Add(records) >= n {
		m.done.Store(0)
		select {
		case m.kick <- struct{}{}:
		default:
		}
	}
}

// fair is a partition's fair share of the gate.
func (m *member) fair() float64 { return 1 / float64(max(m.partitions.Load(), 1)) }

func (m *member) all() []*actor {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.actors))
}

func (m *member) some(ids []cursor.ID) []*actor {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*actor, 0, len(ids))
	for _, id := range ids {
		if a := m.actors[topicPartition{id.Topic, id.Partition}]; a != nil && a.id == id {
			out = append(out, a)
		}
	}
	return out
}

// remove takes a out of the map, unless a newer actor has its place.
func (m *member) remove(a *actor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := (topicPartition{a.id.Topic, a.id.Partition}); m.actors[p] == a {
		delete(m.actors, p)
		m.partitions.Store(int64(len(m.actors)))
	}
}

// Assigned implements [Owner]. A claim that says Stop ends Run; any other failure is the feed's to try again.
func (m *member) Assigned(ctx context.Context, ids []cursor.ID) (map[cursor.ID]int64, error) {
	claimed, start, err := m.claim(ctx, ids)
	if err != nil {
		if verdict.Of(err).Kind == verdict.Stop {
			m.fail(err)
		}
		return nil, err
	}
	if err := m.take(ids, claimed, start); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := claimed[id].Err; err != nil {
			m.problem(id, fmt.Errorf("go on at offset %d of %s: %w", start[id], id, err))
		}
	}
	if o := m.cfg.Observer; o != nil {
		o.Assigned(start)
	}
	return start, nil
}

// claim claims ids, and finds out where those start that have no cursor.
func (m *member) claim(ctx context.Context, ids []cursor.ID) (claimed map[cursor.ID]cursor.Claimed, start map[cursor.ID]int64, err error) {
	claimed, err = m.store.Claim(ctx, ids)
	if err != nil {
		return nil, nil, fmt.Errorf("claim cursors: %w", err)
	}
	start = make(map[cursor.ID]int64, len(ids))
	var fresh []cursor.ID
	for _, id := range ids {
		c, ok := claimed[id]
		switch {
		case !ok:
			return nil, nil, fmt.Errorf("claim cursor of %s: the store did not answer for it", id)
		case !c.Usable():
			return nil, nil, fmt.Errorf("claim cursor of %s: %w", id, c.Err)
		case c.Fresh:
			fresh = append(fresh, id)
		default:
			start[id] = c.Position
		}
	}
	if len(fresh) == 0 {
		return claimed, start, nil
	}
	from, err := m.feed.Starts(ctx, fresh)
	if err != nil {
		return nil, nil, fmt.Errorf("find where to start: %w", err)
	}
	for _, id := range fresh {
		at, ok := from[id]
		if !ok || at < 0 {
			return nil, nil, fmt.Errorf("find where to start %s: the feed has no offset for it", id)
		}
		start[id] = at
	}
	return claimed, start, nil
}

// take makes new actors. One that is still there, from an assignment that was cut short, is fenced first.
func (m *member) take(ids []cursor.ID, claimed map[cursor.ID]cursor.Claimed, start map[cursor.ID]int64) error {
	var again []cursor.ID
	m.mu.Lock()
	defer func() {
		m.mu.Unlock()
		for _, id := range again {
			m.feed.Pause(id, false) // pauses outlive assignments
		}
	}()
	if m.closed {
		return errors.New("take partitions: the member is stopping")
	}
	for _, id := range ids {
		p := topicPartition{id.Topic, id.Partition}
		if old := m.actors[p]; old != nil {
			old.fence()
		}
		a := newActor(m, id, claimed[id], start[id])
		a.prev = m.last[p]
		m.actors[p], m.last[p] = a, a.exited
		m.wg.Go(a.run)
		again = append(again, id)
	}
	m.partitions.Store(int64(len(m.actors)))
	return nil
}

// Revoked implements [Owner]. It drains, commits, fences: in this order. Fencing first would throw away work that
// was done; committing without the drain would leave it to be done twice. What is not finished in time is never
// committed.
func (m *member) Revoked(ctx context.Context, ids []cursor.ID) {
	actors := m.some(ids)
	m.drain(ctx, actors)
	if m.cfg.plant.commitLate {
		m.gone(actors, false)
		return // and the committer goes on with them
	}
	m.settle(ctx, actors)
}

// drain waits until actors have ended, within ctx and Config.Drain.
func (m *member) drain(ctx context.Context, actors []*actor) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Drain)
	defer cancel()
	for _, a := range actors {
		a.drain()
	}
	for _, a := range actors {
		select {
		case <-a.exited:
		case <-ctx.Done():
		}
	}
}

// settle commits what actors have resolved, fences and removes them. It does not end with ctx: the drain may have
// taken all of its time.
func (m *member) settle(ctx context.Context, actors []*actor) {
	m.commitMu.Lock()
	actors = slices.DeleteFunc(actors, func(a *actor) bool { return a.fenced.Load() }) // by another, meanwhile
	m.commitLast(context.WithoutCancel(ctx), actors)
	for _, a := range actors {
		a.fenced.Store(true)
		m.remove(a)
	}
	m.commitMu.Unlock()
	for _, a := range actors {
		a.cancel()
	}
	m.gone(actors, false)
}

// Lost implements [Owner].
func (m *member) Lost(ids []cursor.ID) {
	actors := m.some(ids)
	for _, a := range actors {
		a.fence()
		m.remove(a)
	}
	m.gone(actors, true)
}

func (m *member) gone(actors []*actor, lost bool) {
	if m.cfg.Observer == nil || len(actors) == 0 {
		return
	}
	ids := make([]cursor.ID, 0, len(actors))
	for _, a := range actors {
		ids = append(ids, a.id)
	}
	m.cfg.Observer.Revoked(ids, lost)
}
