package engine

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
)

const (
	commitTimeout = 20 * time.Second // the store has its own, shorter one; this is the last resort
	lastTimeout   = 4 * time.Second  // for the commit before a partition is given up, its tries together
	lastTries     = 3
	lastWait      = 200 * time.Millisecond
	lastGrace     = time.Second // for a commit that is in flight when the loop is to end
)

// commitLoop is the goroutine that commits the partitions whose position has moved, and tells their lag.
func (m *member) commitLoop(ctx context.Context) {
	// Cut off at once, a commit would end with an unknown outcome and take its connection along.
	sending, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastGrace, cut) })()
	tick := time.NewTicker(m.cfg.CommitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.tellLag()
		case <-m.kick:
		}
		m.commitMu.Lock()
		_ = m.commit(sending, m.all()) // told by commit itself, and covered by the next one
		m.commitMu.Unlock()
	}
}

// commitLast is the last commit of partitions that are given up; the lock is held. A failed one is tried again,
// because what it leaves out is done twice.
func (m *member) commitLast(ctx context.Context, actors []*actor) {
	ctx, cancel := context.WithTimeout(ctx, lastTimeout)
	defer cancel()
	for try := 1; ; try++ {
		err := m.commit(ctx, actors)
		if err == nil || errors.Is(err, cursor.ErrFenced) || try == lastTries {
			return
		}
		select {
		case <-time.After(lastWait):
		case <-ctx.Done():
			return
		}
	}
}

// commit writes the positions of actors that have moved; the lock is held. A failure is told, and left to the
// next commit, which covers it.
func (m *member) commit(ctx context.Context, actors []*actor) error {
	moved := make(map[cursor.ID]*actor, len(actors))
	cursors := make(map[cursor.ID]cursor.Claimed, len(actors))
	for _, a := range actors {
		if a.fenced.Load() && !m.cfg.plant.commitLate {
			continue
		}
		c, ok := m.snapshot(a)
		if !ok || c.Position == a.committed && !a.dirty {
			continue
		}
		moved[a.id], cursors[a.id] = a, cursor.Claimed{Cursor: c, Lease: a.lease}
	}
	if len(cursors) == 0 {
		return nil
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	refused, err := m.store.Commit(ctx, cursors)
	failed, told := err, err
	for id, a := range moved {
		switch {
		case err != nil:
		case refused[id] != nil:
			failed, told = errors.Join(failed, refused[id]), refused[id]
		default:
			a.committed, a.dirty = cursors[id].Position, false
		}
	}
	if o := m.cfg.Observer; o != nil {
		o.Committed(len(cursors), time.Since(started), failed)
	}
	if failed != nil {
		// One partition stands for all: where a coordinator refuses, it refuses each for the same reason.
		m.cfg.Log.Warn("commit failed, and is tried again", zap.Int("partitions", len(cursors)), zap.Error(told))
	}
	return failed
}

func (m *member) snapshot(a *actor) (cursor.Cursor, bool) {
	c, ok := a.ring.snapshot()
	if m.cfg.plant.commitEarly {
		if at, any := a.ring.planted(); any {
			return cursor.Cursor{Position: at, Floor: at, Epoch: -1}, true
		}
	}
	return c, ok
}

func (m *member) tellLag() {
	o := m.cfg.Observer
	if o == nil {
		return
	}
	now := time.Now()
	for _, a := range m.all() {
		offsets, age := a.lag(now)
		o.Lag(a.id, offsets, age)
	}
}
