package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"time"
)

// The shape of a table. A slot is one word: the fingerprint's upper 52 bits and 12 bits of time. The bucket says the
// lower bits, so 64 bits of a hash tell one id from another: 4 million ids pass for an unknown one once in 10^12.
const (
	slots      = 32 // of a bucket, which are looked through one by one; half full, one bucket in 10,000 is too small
	timeBits   = 12
	timeMask   = 1<<timeBits - 1
	minBuckets = 1 << timeBits // a table begins with 1 MiB of untouched memory, and the bits that a slot has no room for
	ticks      = 1024          // parts that a window is told in; the clock of a slot goes round after four windows
)

// fingerprint is what stays of an id.
type fingerprint uint64

// print hashes an id of one kind: the sender's, or the body's.
func printOf(kind byte, id string) fingerprint {
	sum := sha256.Sum256(append([]byte{kind}, id...))
	return fingerprint(binary.BigEndian.Uint64(sum[:]))
}

// table remembers fingerprints for a window of time, up to a bound: in a full bucket the oldest makes room. It grows by doubling until it has most buckets. It is not safe for concurrent use.
type table struct {
	words   []uint64 // buckets × slots; 0 is free
	most    int      // buckets
	window  time.Duration
	used    int // words that are not free, those included whose time is over
	swept   int64
	cursor  int // bucket that the next sweep begins with
	Evicted uint64
}

// newTable returns a table for at most most fingerprints, a power of two.
func newTable(most int, window time.Duration) *table {
	most = max(most/slots, minBuckets)
	return &table{words: make([]uint64, minBuckets*slots), most: 1 << (bits.Len(uint(most)) - 1), window: window}
}

// unit is how long a tick is, in nanoseconds.
func (t *table) unit() int64 { return max(1, int64(t.window)/ticks) }

// tick is a moment as slots tell it, before it goes round.
func (t *table) tick(at time.Time) int64 { return at.UnixNano() / t.unit() }

func stamp(tick int64) uint64 { return uint64(tick%timeMask) + 1 } // never 0: a word is not free

// age is how many ticks ago a slot was written, by a clock that goes round.
func age(word uint64, now int64) int64 {
	then := int64(word&timeMask) - 1
	return (now%timeMask - then + timeMask) % timeMask
}

func (t *table) bucket(f fingerprint) []uint64 {
	i := int(uint64(f)&uint64(len(t.words)/slots-1)) * slots
	return t.words[i : i+slots : i+slots]
}

// word is a fingerprint as a slot has it. The bits it has no room for are those of the smallest table's buckets.
func word(f fingerprint, tick int64) uint64 { return uint64(f)>>timeBits<<timeBits | stamp(tick) }

// has reports whether f was added within the window before now.
func (t *table) has(f fingerprint, now time.Time) bool {
	tick := t.advance(now)
	for _, w := range t.bucket(f) {
		if w != 0 && w&^timeMask == uint64(f)&^timeMask && age(w, tick) <= ticks {
			return true
		}
	}
	return false
}

// add remembers f since at, which is now or, for what a log told, before. Where nothing is free or over, what is oldest
// goes: perhaps f itself.
func (t *table) add(f fingerprint, at, now time.Time) {
	tick := t.advance(now)
	then := min(t.tick(at), tick)
	if tick-then > ticks {
		return
	}
	if t.used*2 > len(t.words) && len(t.words)/slots < t.most {
		t.grow(tick)
	}
	b := t.bucket(f)
	best, oldest := -1, tick-then
	for i, w := range b {
		switch {
		case w != 0 && w&^timeMask == uint64(f)&^timeMask:
			if age(w, tick) > tick-then {
				b[i] = word(f, then)
			}
			return
		case w == 0:
			best, oldest = i, timeMask+1
		case age(w, tick) > oldest:
			best, oldest = i, age(w, tick)
		}
	}
	switch {
	case best < 0: // all are younger
		t.Evicted++
		return
	case b[best] == 0:
		t.used++
	case oldest <= ticks:
		t.Evicted++
	}
	b[best] = word(f, then)
}

// advance is the tick of now, which never goes back: a request may have looked at the clock before the one that marked an
// id, and clocks are put right. What was marked by a clock that was more than a window ahead is forgotten.
func (t *table) advance(now time.Time) int64 {
	tick := t.tick(now)
	if t.swept-tick > ticks {
		clear(t.words)
		t.used, t.swept = 0, tick
	}
	tick = max(tick, t.swept)
	t.sweep(tick)
	return tick
}

// rewindow remembers for another window from now on, also what it has: each word is stamped by the new clock.
func (t *table) rewindow(window time.Duration, now time.Time) {
	if t.window == window {
		return
	}
	tick, unit := t.advance(now), t.unit()
	t.window = window
	t.swept = t.tick(now)
	for i, w := range t.words {
		if w == 0 {
			continue
		}
		ago := (age(w, tick)*unit + t.unit() - 1) / t.unit()
		if age(w, tick) > ticks || ago > ticks {
			t.words[i] = 0
			t.used--
			continue
		}
		t.words[i] = w&^timeMask | stamp(t.swept-ago)
	}
}

// sweep frees what is older than the window: the whole table once in a window, a part at each tick, so that the clock
// of no slot goes round unseen.
func (t *table) sweep(tick int64) {
	passed := tick - t.swept
	if passed <= 0 {
		return
	}
	t.swept = tick
	if passed > ticks { // nothing was added within the window
		clear(t.words)
		t.used = 0
		return
	}
	buckets := len(t.words) / slots
	for range min(buckets, int(passed)*(buckets/ticks+1)) {
		b := t.words[t.cursor*slots : t.cursor*slots+slots]
		for i, w := range b {
			if w != 0 && age(w, tick) > ticks {
				b[i] = 0
				t.used--
			}
		}
		t.cursor = (t.cursor + 1) % buckets
	}
}

// grow doubles the table. The bucket's lower bits are those of the place, all others are in the word.
func (t *table) grow(tick int64) {
	old := t.words
	t.words = make([]uint64, 2*len(old))
	t.used, t.cursor = 0, 0
	for i, w := range old {
		if w == 0 || age(w, tick) > ticks {
			continue
		}
		low := uint64(i/slots) & (minBuckets - 1)
		b := t.bucket(fingerprint(w&^timeMask | low))
		for j := range b {
			if b[j] == 0 {
				b[j] = w
				t.used++
				break
			}
		}
	}
}
