package gateway

import (
	"sync"
	"time"
)

// bucket bounds the requests of a source in a second, before anything of them is read. It holds what may come within a
// second, one at least.
type bucket struct {
	mu   sync.Mutex
	left float64
	at   time.Time // when left was true; zero is a full bucket
}

// take takes one, unless there is none. A rate of 0 is none at all.
func (b *bucket) take(rate float64, now time.Time) bool {
	if rate <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	full := max(1, rate)
	if b.at.IsZero() {
		b.left, b.at = full, now
	}
	if passed := now.Sub(b.at); passed > 0 { // requests that waited for the lock may have looked at the clock before
		b.left, b.at = b.left+passed.Seconds()*rate, now
	}
	b.left = min(b.left, full) // the rate may be another one than before
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
