package producer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// limit bounds the records that are on their way, by count and by bytes. Acquiring and releasing cost four atomic
// additions while there is room.
//
// Who finds it full waits in line until a quarter is free: woken for every answered record, a producer would be
// scheduled per record and write batches of one.
type limit struct {
	maxRecords, maxBytes int64
	full                 func(context.Context) // called before a wait: nothing may linger while someone waits for room

	records, bytes atomic.Int64
	line           atomic.Bool // someone waits, or the limit is closed: nobody overtakes

	mu     sync.Mutex
	queue  []*waiter
	closed bool
}

type waiter struct {
	size  int64
	ready chan struct{} // closed once err is final
	err   error
}

func newLimit(records, bytes int64, full func(context.Context)) *limit {
	return &limit{maxRecords: records, maxBytes: bytes, full: full}
}

// acquire takes room for one record of size bytes, at most maxBytes. It returns ctx's error, or errClosed, when
// there is none.
func (l *limit) acquire(ctx context.Context, size int64) error {
	if !l.line.Load() && l.take(size) {
		return nil
	}
	return l.wait(ctx, size)
}

func (l *limit) take(size int64) bool {
	records, bytes := l.records.Add(1), l.bytes.Add(size)
	if records <= l.maxRecords && bytes <= l.maxBytes {
		return true
	}
	l.records.Add(-1)
	l.bytes.Add(-size)
	return false
}

// release gives the room of one record back. It looks at the line after it has given back, and a waiter is in line
// before it looks for room: one of the two sees the other.
func (l *limit) release(size int64) {
	l.records.Add(-1)
	l.bytes.Add(-size)
	if l.line.Load() {
		l.mu.Lock()
		l.admit()
		l.mu.Unlock()
	}
}

func (l *limit) wait(ctx context.Context, size int64) error {
	w := &waiter{size: size, ready: make(chan struct{})}
	l.mu.Lock()
	if l.closed {
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
	return fmt.Errorf("wait for room among %d records on their way: %w", l.records.Load(), ctx.Err())
}

// admit lets waiters in from the front while a quarter is free, or nothing is on its way. It is called locked.
func (l *limit) admit() {
	for len(l.queue) > 0 {
		records, bytes := l.records.Load(), l.bytes.Load()
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
	if !l.closed {
		l.line.Store(false)
	}
}

// close refuses whoever waits and whoever comes.
func (l *limit) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.line.Store(true)
	for _, w := range l.queue {
		w.err = errClosed()
		close(w.ready)
	}
	l.queue = nil
}
