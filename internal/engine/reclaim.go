package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/verdict"
)

// maxReclaimWait bounds the wait between two claims of a partition whose lease another owner took.
const maxReclaimWait = 30 * time.Second

// renewal is a partition that was claimed again by the member that still reads it.
type renewal struct {
	actor   *actor // the old one, which has ended
	claimed cursor.Claimed
	start   int64
}

// fencedBy reports that a verdict says that the lease is not the newest any more.
func fencedBy(v verdict.Verdict) bool {
	return v.Kind == verdict.Pause && errors.Is(v.Err, cursor.ErrFenced)
}

// reclaim claims the partition again after another owner had it, for as long as the feed says that it is ours. The
// actor ends with it: a lease is one actor, and what it has queued belongs to the old position.
func (a *actor) reclaim(wait time.Duration) {
	a.letGo() // first: other partitions need the room
	for a.sleep(wait) {
		claimed, start, err := a.m.claim(a.ctx, []cursor.ID{a.id})
		switch {
		case err == nil:
			a.m.cfg.Log.Info("claimed again after another owner had it", zap.String("topic", a.id.Topic),
				zap.Int32("partition", a.id.Partition), zap.Int64("offset", start[a.id]))
			a.m.renew(renewal{a, claimed[a.id], start[a.id]})
			return
		case verdict.Of(err).Kind == verdict.Stop:
			a.failed = err
			return
		case a.ctx.Err() == nil:
			a.m.problem(a.id, err)
		}
		wait = min(2*wait, maxReclaimWait)
		wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // a wait needs no secrecy
	}
}

// pass tells the handler of markers that no record has followed. What it does not take comes again.
func (a *actor) pass() bool {
	next := a.through + 1
	verdicts := a.handle(Batch{ID: a.id, Lease: a.lease, Next: next, actor: a, turn: a.turn.Load()})
	a.turn.Add(1)
	if len(verdicts) == 0 {
		a.passed = next
		return true
	}
	switch v := verdicts[0]; {
	case fencedBy(v):
		a.reclaim(v.After)
		return false
	case v.Kind == verdict.Stop:
		a.failed = fmt.Errorf("pass the markers before offset %d of %s/%d: %w", next, a.id.Topic, a.id.Partition, v.Err)
		return false
	default:
		return a.sleep(max(v.After, retryWait))
	}
}

// renew hands r to the poll goroutine, which may be waiting for records.
func (m *member) renew(r renewal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.renewed = append(m.renewed, r)
	if m.interrupt != nil {
		m.interrupt()
	}
}

// polling is a context for one poll: it ends when there is something to resume.
func (m *member) polling(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.interrupt = cancel; len(m.renewed) > 0 {
		cancel()
	}
	return ctx, cancel
}

// resume goes on with the partitions that were claimed again, where their claim says. It runs between a poll and
// Release: what was polled from the old position has been dropped, and until Release no rebalance can come between.
func (m *member) resume() error {
	m.mu.Lock()
	renewed := m.renewed
	m.renewed = nil
	m.mu.Unlock()
	for _, r := range renewed {
		id := r.actor.id
		if !m.mine(r.actor) { // given up meanwhile
			continue
		}
		if err := m.feed.Seek(id, r.start); err != nil {
			return fmt.Errorf("go to offset %d of %s: %w", r.start, id, err)
		}
		err := m.take([]cursor.ID{id}, map[cursor.ID]cursor.Claimed{id: r.claimed}, map[cursor.ID]int64{id: r.start})
		if err != nil {
			m.cfg.Log.Debug("not resumed", zap.Error(err)) // the member is stopping
		}
	}
	return nil
}

// mine reports whether a still stands for its partition.
func (m *member) mine(a *actor) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.actors[topicPartition{a.id.Topic, a.id.Partition}] == a && !a.draining.Load()
}
