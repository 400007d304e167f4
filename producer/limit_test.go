package producer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestLimitHoldsAndForgetsNobody(t *testing.T) {
	t.Parallel()
	const records, size, workers, rounds = 8, 1000, 16, 3000
	l := newLimit(records, size, func(context.Context) {})
	var inside, used atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				n := int64((w*rounds+i)%size + 1)
				if err := l.acquire(t.Context(), n); err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) > records || used.Add(n) > size {
					t.Error("more is inside than allowed")
				}
				inside.Add(-1)
				used.Add(-n)
				l.release(n)
			}
		})
	}
	wg.Wait()
	if l.load.Load() != 0 || l.line.Load() {
		t.Errorf("left over: %x, line %v", l.load.Load(), l.line.Load())
	}
}

func TestLimitWaitsForAQuarterAndKeepsTheLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full := 0
		l := newLimit(8, 1<<20, func(context.Context) { full++ })
		for range 8 {
			_ = l.acquire(t.Context(), 1)
		}
		canceled, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- l.acquire(canceled, 1) }()
		synctest.Wait()
		var admitted atomic.Int32
		go func() { _ = l.acquire(t.Context(), 1); admitted.Add(1) }()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		l.release(1)
		synctest.Wait()
		if admitted.Load() != 0 {
			t.Error("one free place lets a waiter in: producers would be woken per record")
		}
		l.release(1)
		synctest.Wait()
		if admitted.Load() != 1 || full != 2 {
			t.Errorf("a quarter is free: got %d admitted, %d calls of full; want 1 and 2", admitted.Load(), full)
		}
		l.close()
		if err := l.acquire(t.Context(), 1); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		for range 7 {
			select {
			case <-l.drained:
				t.Error("drained with records on their way")
			default:
			}
			l.release(1)
		}
		<-l.drained
	})
}
