package consumer

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Retry says how often and when an event is tried again that failed with an error that is no other verdict. The
// partition is held meanwhile, so in-place retries are for what passes in seconds.
type Retry struct {
	// Attempts is how often an event is tried, the first time included; -1 is without end. Defaults to 5.
	Attempts int
	// Backoff is the wait after the first attempt; it doubles with each further one, and half of it is random.
	// Defaults to 200 ms.
	Backoff time.Duration
	// Max bounds the wait. Defaults to 30 s.
	Max time.Duration
	// Deferred are the waits of attempts after Attempts, for which an event steps aside. Not available in this
	// version: Run refuses it.
	Deferred []time.Duration
	// Stop ends Run with the error where an event would be dead-lettered because its attempts are used up or its
	// bytes do not decode. A handler's own DeadLetter is written all the same.
	Stop bool
}

func (r Retry) withDefaults() Retry {
	if r.Attempts == 0 {
		r.Attempts = 5
	}
	if r.Backoff == 0 {
		r.Backoff = 200 * time.Millisecond
	}
	if r.Max == 0 {
		r.Max = 30 * time.Second
	}
	return r
}

// Next says what follows the failed attempt, counted from 1: whether there is another one, and after which wait at
// most. The wait that is taken is random between half of it and all of it.
func (r Retry) Next(attempt int) (wait time.Duration, again bool) {
	r = r.withDefaults()
	if r.Attempts > 0 && attempt >= r.Attempts {
		return 0, false
	}
	wait = r.Backoff
	for i := 1; i < attempt && wait < r.Max; i++ {
		wait *= 2
	}
	return min(wait, r.Max), true
}

// jitter is between half of d and d, so that what failed together is not tried again together.
func jitter(d time.Duration) time.Duration {
	if d < 2 {
		return d
	}
	return d/2 + rand.N(d/2) //nolint:gosec // a wait needs no secrecy
}

// Burst bounds dead letters: a release that fails on every event, or a producer that writes garbage, must stop the
// consumer, not move the topic into the dead letters.
type Burst struct {
	// Run is how many events of one partition may be dead-lettered in a row; Run ends at the next. -1 is without
	// end. Defaults to 1,000.
	Run int
	// Ratio is which part of the last Over events of one partition may be dead-lettered, between 0 and 1. Defaults
	// to 0: not looked at.
	Ratio float64
	// Over is how many events Ratio is measured over. Defaults to 1,000.
	Over int
}

func (b Burst) withDefaults() Burst {
	if b.Run == 0 {
		b.Run = 1000
	}
	if b.Over == 0 {
		b.Over = 1000
	}
	return b
}

func (b Burst) validate() error {
	if b.Run < -1 || b.Over < 0 || b.Ratio < 0 || b.Ratio > 1 {
		return fmt.Errorf("consumer: Config.Burst %+v: Run is -1 or more, Over is positive, Ratio is between 0 and 1", b)
	}
	return nil
}

// BurstError ends Run when too many events in a partition would be dead letters.
type BurstError struct {
	Topic     string
	Partition int32
	Dead      int   // dead letters
	Of        int   // among so many events
	Err       error // of the last one
}

func (e *BurstError) Error() string {
	return fmt.Sprintf("%d of the last %d events of %s/%d are dead letters: stopped before the topic drains; the last one: %v",
		e.Dead, e.Of, e.Topic, e.Partition, e.Err)
}

// Unwrap returns the error of the last event.
func (e *BurstError) Unwrap() error { return e.Err }

// BurstCount counts the events of one partition against a [Burst], for whoever writes dead letters as Run does. The
// zero value has seen none.
type BurstCount struct {
	run, seen, dead int
}

// OK counts n events that are not dead letters.
func (b *BurstCount) OK(n int, limit Burst) {
	b.run = 0
	b.count(n, 0, limit)
}

// Letter counts one dead letter, unless it would be one too many: then it reports how many of how many.
func (b *BurstCount) Letter(limit Burst) (dead, of int, refused bool) {
	limit = limit.withDefaults()
	if limit.Run > 0 && b.run >= limit.Run {
		return b.run, b.run, true
	}
	if limit.Ratio > 0 && float64(b.dead+1) > limit.Ratio*float64(limit.Over) {
		return b.dead + 1, b.seen + 1, true
	}
	b.run++
	b.count(1, 1, limit)
	return 0, 0, false
}

// count keeps seen within the window: past it both counts are halved, so that the older half weighs less and the
// window needs no list.
func (b *BurstCount) count(n, dead int, limit Burst) {
	if limit.Ratio == 0 {
		return
	}
	limit = limit.withDefaults()
	b.seen += n
	b.dead += dead
	for b.seen >= limit.Over {
		b.seen /= 2
		b.dead /= 2
	}
}
