package engine

import (
	"fmt"
	"time"
)

// pause stops polling the partition when it holds at least share of the gate.
func (a *actor) pause(share float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed && !a.paused && a.m.gate.share(a.records, a.bytes) >= share {
		a.setPaused(true)
	}
}

// setPaused tells the feed under the lock: were the two told in another order than they were decided, the
// partition would stay paused for good.
func (a *actor) setPaused(paused bool) {
	a.paused = paused
	a.m.feed.Pause(a.id, paused)
}

// giveBack drops queued records, the last first, until the partition holds no more than share of the gate, and
// has the feed bring them again later. From then on it keeps to its fair share, until it has been empty.
func (a *actor) giveBack(share float64) {
	a.mu.Lock()
	var records, bytes int64
	from := int64(-1)
	// One record stays at least: it resumes the partition when it is resolved.
	for n := len(a.queue); n > 0 && !a.closed && a.records-records > 1 && a.m.gate.share(a.records-records, a.bytes-bytes) > share; n = len(a.queue) {
		chunk := a.queue[n-1]
		r := chunk[len(chunk)-1]
		chunk[len(chunk)-1] = nil // else the slab would hold it, and memory know no bound
		records, bytes, from = records+1, bytes+size(r), r.Offset
		if a.queue[n-1] = chunk[:len(chunk)-1]; len(chunk) == 1 {
			a.queue = a.queue[:n-1]
		}
	}
	if from >= 0 {
		a.records -= records
		a.bytes -= bytes
		a.next, a.rewound, a.slow = from, max(a.rewound, a.next), true
		a.setPaused(true)
	}
	a.mu.Unlock()
	if from < 0 {
		return
	}
	a.m.gate.release(records, bytes)
	if err := a.m.feed.Seek(a.id, from); err != nil {
		a.m.fail(fmt.Errorf("go back to offset %d of %s: %w", from, a.id, err)) // else these records would be skipped
	}
}

// stands reports whether the partition has resolved nothing for a while though it holds most of what the gate allows
// beyond a fair share.
func (a *actor) stands(now time.Time, fair float64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.closed && now.Sub(a.moved) > standsAfter && a.m.gate.share(a.records, a.bytes) > (1+fair)/2
}

// notRewound reports that records begin at first although the partition stepped back before it: the step had no effect.
// Retention and compaction may have removed what the step was for.
func (a *actor) notRewound(first, logStart int64) bool {
	return a.rewound > 0 && first >= a.rewound && logStart <= a.next
}

// hungry reports whether the partition has had nothing to do for a while though its log is known to have more.
func (a *actor) hungry(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.records == 0 && !a.closed && a.end.Load() > a.next && now.Sub(a.idle) > hungryAfter
}
