package gateway

import (
	"context"
	"errors"
	"sync"
)

// errShare says that a request asks for more than its source may ever have.
var errShare = errors.New("more than a source may hold at once")

// budget is an amount that many sources share, of which none may hold more than a part: one flood leaves room for the
// others. Who waits is served in order within a source, and the sources take turns.
type budget struct {
	total, share int64

	mu      sync.Mutex
	used    int64
	sources map[string]*holding
	queue   []*holding // those in which somebody waits
}

type holding struct {
	used    int64
	waiting []*waiter
}

type waiter struct {
	n     int64
	ready chan struct{}
}

// newBudget returns a budget of total, of which a source may hold a quarter.
func newBudget(total int64) *budget {
	return &budget{total: total, share: max(1, total/4), sources: map[string]*holding{}}
}

// acquire waits for n. What it returned nil for must be released.
func (b *budget) acquire(ctx context.Context, source string, n int64) error {
	if n > b.share {
		return errShare
	}
	if n == 0 {
		return nil // and who holds nothing is not remembered
	}
	b.mu.Lock()
	h := b.sources[source]
	if h == nil {
		h = &holding{}
		b.sources[source] = h
	}
	if len(h.waiting) == 0 && b.fits(h, n) {
		b.take(h, n)
		b.mu.Unlock()
		return nil
	}
	w := &waiter{n, make(chan struct{})}
	if h.waiting = append(h.waiting, w); len(h.waiting) == 1 {
		b.queue = append(b.queue, h)
	}
	b.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.ready: // at the same moment
		b.give(source, n)
	default:
		for i, x := range h.waiting {
			if x == w {
				h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
				break
			}
		}
		b.serve() // who stood behind may be smaller
		b.forget(source, h)
	}
	return ctx.Err()
}

// release gives n back.
func (b *budget) release(source string, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.give(source, n)
}

func (b *budget) fits(h *holding, n int64) bool {
	return b.used+n <= b.total && h.used+n <= b.share
}

func (b *budget) take(h *holding, n int64) {
	b.used += n
	h.used += n
}

func (b *budget) give(source string, n int64) {
	h := b.sources[source]
	b.used -= n
	h.used -= n
	b.serve()
	b.forget(source, h)
}

// serve lets go on who waits, one of each source in turn, until none fits.
func (b *budget) serve() {
	for tried := 0; tried < len(b.queue); {
		h := b.queue[0]
		b.queue = b.queue[1:]
		if len(h.waiting) == 0 {
			continue
		}
		w := h.waiting[0]
		if b.fits(h, w.n) {
			b.take(h, w.n)
			h.waiting = h.waiting[1:]
			close(w.ready)
			tried = 0
		} else {
			tried++
		}
		if len(h.waiting) > 0 {
			b.queue = append(b.queue, h)
		}
	}
}

func (b *budget) forget(source string, h *holding) {
	if h.used == 0 && len(h.waiting) == 0 {
		delete(b.sources, source)
	}
}
