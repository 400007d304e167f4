package engine

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/cursor"
)

// ring tracks which of a partition's delivered records are resolved, and how far the position may move. One
// goroutine tracks; any goroutine resolves; any goroutine takes a snapshot.
//
// Only offsets that were delivered are tracked: compaction and transaction markers leave gaps, so offsets are never
// counted up by one. The position is the offset after the last record of the resolved prefix, with that record's
// leader epoch.
//
// A slot's state is its sequence number with a bit for resolved, changed by compare-and-swap: resolving twice, or
// resolving a record whose slot a later one has taken, does nothing. Were it a plain flag, the second call would
// acknowledge a stranger.
type ring struct {
	slots []slot
	mask  uint64
	head  atomic.Uint64 // the first that is not known to be resolved
	tail  atomic.Uint64 // the next to track

	advance  sync.Mutex // held to move head, and over the three below
	position int64
	epoch    int32
	moved    bool // position was set: before, there is nothing to commit
}

type slot struct {
	state  atomic.Uint64 // sequence number << 1 | resolved
	offset int64
	epoch  int32
}

// newRing returns a ring that tracks at least size records at once.
func newRing(size int) *ring {
	n := uint64(1) << bits.Len(uint(max(size, 2)-1))
	r := &ring{slots: make([]slot, n), mask: n - 1}
	for i := range r.slots {
		r.slots[i].state.Store(^uint64(0)) // no sequence number that is ever reached
	}
	return r
}

// reset makes position the place to commit before anything was tracked. It is called before the ring is shared.
func (r *ring) reset(position int64, epoch int32) {
	r.position, r.epoch, r.moved = position, epoch, true
}

// track adds a delivered record. It reports false when the ring is full of unresolved ones: reading must stop until
// the head moves.
func (r *ring) track(offset int64, epoch int32) (seq uint64, ok bool) {
	seq = r.tail.Load()
	if seq-r.head.Load() > r.mask {
		// A sweep may have left the head to a snapshot that has not come to it yet: wait for that one.
		r.advance.Lock()
		r.move()
		r.advance.Unlock()
		r.sweep()
		if seq-r.head.Load() > r.mask {
			return 0, false
		}
	}
	s := &r.slots[seq&r.mask]
	s.offset, s.epoch = offset, epoch
	s.state.Store(seq << 1)
	r.tail.Store(seq + 1) // last: whoever sees the tail sees the slot
	return seq, true
}

// mark resolves the record seq without moving the head; sweep does that. It reports whether this call resolved it.
func (r *ring) mark(seq uint64) bool {
	return r.slots[seq&r.mask].state.CompareAndSwap(seq<<1, seq<<1|1)
}

// resolved reports whether the record seq, which was tracked, is resolved.
func (r *ring) resolved(seq uint64) bool {
	return r.slots[seq&r.mask].state.Load() != seq<<1
}

// sweep moves the head over resolved records.
//
// After publishing the head it looks again: a record resolved while the head moved was seen neither by its own call,
// which found the lock taken or the old head, nor by this one; without the second look the partition would stand
// still for good.
func (r *ring) sweep() {
	for r.ready() {
		if !r.advance.TryLock() {
			return // whoever holds the lock looks again after letting it go
		}
		r.move()
		r.advance.Unlock()
	}
}

// ready reports whether the record at the head is resolved.
func (r *ring) ready() bool {
	h := r.head.Load()
	return h != r.tail.Load() && r.slots[h&r.mask].state.Load() == h<<1|1
}

// move does the work of sweep under the lock.
func (r *ring) move() {
	h, tail := r.head.Load(), r.tail.Load()
	first := h
	for h != tail && r.slots[h&r.mask].state.Load() == h<<1|1 {
		h++
	}
	if h == first {
		return
	}
	last := &r.slots[(h-1)&r.mask]
	r.position, r.epoch, r.moved = last.offset+1, last.epoch, true
	r.head.Store(h) // only now may the slots be taken again
}

const maxRunScan = 4096 // slots that a snapshot looks at for resolved runs

// snapshot returns what may be committed; ok is false when there is nothing yet. It holds the lock that sweep only
// tries, so it sweeps too, and once more after letting go.
func (r *ring) snapshot() (c cursor.Cursor, ok bool) {
	r.advance.Lock()
	r.move()
	c = cursor.Cursor{Position: r.position, Epoch: r.epoch, Floor: r.position}
	ok = r.moved
	if ok {
		c.Done = r.runs()
	}
	r.advance.Unlock()
	r.sweep()
	return c, ok
}

// runs returns the ranges of resolved records above the position, under the lock. Where a log was cut and written
// again, offsets are not ascending: such ranges are left out.
func (r *ring) runs() (runs []cursor.Run) {
	h, tail := r.head.Load(), r.tail.Load()
	end, open := r.position, false
	for seq := h; seq < min(tail, h+maxRunScan); seq++ {
		s := &r.slots[seq&r.mask]
		if s.state.Load() != seq<<1|1 {
			open = false
			continue
		}
		switch {
		case s.offset < end || s.offset == r.position:
			return runs
		case open:
			runs[len(runs)-1].To = s.offset + 1
		default:
			runs = append(runs, cursor.Run{From: s.offset, To: s.offset + 1})
		}
		end, open = s.offset+1, true
	}
	return runs
}

// planted is the position as a careless engine would commit it: everything that was handed out.
func (r *ring) planted() (int64, bool) {
	tail := r.tail.Load()
	if tail == 0 {
		return 0, false
	}
	return r.slots[(tail-1)&r.mask].offset + 1, true
}
