package producer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// limit bounds the records that are on their way, by count and by bytes. While there is room, a record costs one atomic
// addition when it goes and one when it is answered: the two happen on different cores, and each further shared word
// would cost as much as encoding a field.
//
// Who finds it full waits in line until a quarter is free: woken for every answered record, a producer would be
// scheduled per record and write batches of one.
type limit struct {
	maxRecords, maxBytes int64
	full                 func(context.Context) // called before a wait: nothing may linger while someone waits for room

	load   atomic.Int64 // records in units of oneRecord, and their bytes below
	line   atomic.Bool  // someone waits, or the limit is closed: nobody overtakes
	closed atomic.Bool

	mu      sync.Mutex
	queue   []*waiter
	drained chan struct{} // closed when the limit is closed and nothing is on its way
}

const (
	oneRecord  = 1 << 40
	maxRecords = 1 << 20 // what fits above the bytes, with room for those who look whether there is room
	maxBytes   = 1 << 36
)

type waiter struct {
	size  int64
	ready chan struct{} // closed once err is final
	err   error
}

func newLimit(records, bytes int64, full func(context.Context)) *limit {
	return &limit{maxRecords: records, maxBytes: bytes, full: full, drained: make(chan struct{})}
}

// acquire takes room for one record of size bytes, at most maxBytes. It returns ctx's error, or errClosed, when
// there is none.
func (l *limit) acquire(ctx context.Context, size int64) error {
	if !l.line.Load() && l.take(size) {
		if !l.line.Load() {
			return nil
		}
		l.release(size) // closed in between, perhaps: then nobody would wait for this one
	}
	return l.wait(ctx, size)
}

func (l *limit) take(size int64) bool {
	if records, bytes := split(l.load.Add(oneRecord + size)); records <= l.maxRecords && bytes <= l.maxBytes {
		return true
	}
	l.load.Add(-oneRecord - size)
	return false
}

func split(load int64) (records, bytes int64) { return load / oneRecord, load % oneRecord }

// release gives the room of one record back. It looks at the line after it has given back, and a waiter is in line
// before it looks for room: one of the two sees the other.
func (l *limit) release(size int64) {
	l.load.Add(-oneRecord - size)
	if l.line.Load() {
		l.mu.Lock()
		l.admit()
		l.mu.Unlock()
	}
}

func (l *limit) wait(ctx context.Context, size int64) error {
	w := &waiter{size: size, ready: make(chan struct{})}
	l.mu.Lock()
	if l.closed.Load() {
		l.mu.Unlock()
		return errClosed()
	}
	l.line.Store(true)
	l.queue = append(l.queue, w)
	l.admit()
	l.mu.Unlock()
	select {
	case <-w.ready:
		return w.err
	default:
	}
	l.full(ctx)
	select {
	case <-w.ready:
		return w.err
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.queue, w)
	if i < 0 { // it was admitted, or refused, meanwhile
		return w.err
	}
	l.queue = slices.Delete(l.queue, i, i+1)
	l.admit()
	return fmt.Errorf("wait for room among %d records on their way: %w", l.load.Load()/oneRecord, ctx.Err())
}

// admit lets waiters in from the front while a quarter is free, or nothing is on its way. It is called locked.
func (l *limit) admit() {
	for len(l.queue) > 0 {
		records, bytes := split(l.load.Load())
		if records > 0 && (records > l.maxRecords-(l.maxRecords+3)/4 || bytes > l.maxBytes-l.maxBytes/4) {
			return
		}
		w := l.queue[0]
		if !l.take(w.size) {
			return
		}
		l.queue = l.queue[1:]
		close(w.ready)
	}
	if !l.closed.Load() {
		l.line.Store(false)
		return
	}
	select {
	case <-l.drained:
	default:
		if l.load.Load() == 0 {
			close(l.drained)
		}
	}
}

// close refuses whoever waits and whoever comes. It reports whether this was the first close.
func (l *limit) close() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return false
	}
	l.closed.Store(true)
	l.line.Store(true)
	for _, w := range l.queue {
		w.err = errClosed()
		close(w.ready)
	}
	l.queue = nil
	l.admit() // nothing may be on its way
	return true
}
