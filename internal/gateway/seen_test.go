package gateway

import (
	"fmt"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestTableRemembersForAWindow(t *testing.T) {
	t.Parallel()
	for _, window := range []time.Duration{5 * time.Minute, 72 * time.Hour} {
		tab := newTable(1<<20, window)
		f := printOf('i', "evt_1")
		if tab.has(f, noon) {
			t.Fatal("an empty table has it")
		}
		tab.add(f, noon, noon)
		for share, want := range map[float64]bool{0: true, 0.5: true, 0.99: true, 1.01: false, 2: false, 3.9: false, 4: false, 4.02: false, 40: false} {
			fresh := *tab
			fresh.words = append([]uint64(nil), tab.words...)
			if got := fresh.has(f, noon.Add(time.Duration(share*float64(window)))); got != want {
				t.Errorf("window %v, after %v of it: got %v", window, share, got)
			}
		}
	}
}

// A repeat may have read the clock before the acknowledgement that it is a repeat of, and clocks are put right.
func TestTableKnowsWhatWasMarkedByALaterClock(t *testing.T) {
	t.Parallel()
	for back, want := range map[time.Duration]bool{time.Millisecond: true, time.Second: true, 4 * time.Minute: true, time.Hour: false} {
		tab := newTable(1<<20, 5*time.Minute)
		f := printOf('b', "body")
		tab.add(f, noon, noon)
		if got := tab.has(f, noon.Add(-back)); got != want {
			t.Errorf("%v back: got %v", back, got)
		}
		tab.add(f, noon.Add(-back), noon.Add(-back))
		if !tab.has(f, noon.Add(-back)) {
			t.Errorf("%v back: it is not known once it was added", back)
		}
		if tab.has(f, noon.Add(6*time.Minute)) {
			t.Errorf("%v back: it is known for ever", back)
		}
	}
}

// The clock of a slot goes round after four windows: what is over must be gone by then, also in a table that is looked
// at rarely.
func TestTableForgetsBeforeItsClockGoesRound(t *testing.T) {
	t.Parallel()
	tab := newTable(1<<20, time.Hour)
	var old []fingerprint
	for i := range 5000 {
		old = append(old, printOf('i', fmt.Sprint("old", i)))
		tab.add(old[i], noon, noon)
	}
	now := noon
	for i := range 100 { // steps of 2.7 minutes: every phase of the clock
		now = now.Add(162 * time.Second)
		tab.add(printOf('i', fmt.Sprint("new", i)), now, now)
		if now.Sub(noon) < 61*time.Minute {
			continue
		}
		for _, f := range old {
			if tab.has(f, now) {
				t.Fatalf("an id is still there after %v", now.Sub(noon))
			}
		}
	}
	if tab.used > 100 {
		t.Errorf("%d words are used, want at most the 100 new ones", tab.used)
	}
}

func TestTableGrowsAndIsBounded(t *testing.T) {
	t.Parallel()
	const most = 1 << 18
	tab := newTable(most, 72*time.Hour)
	prints := make([]fingerprint, 3*most)
	now := noon
	lost := 0
	for i := range prints {
		prints[i] = printOf('i', fmt.Sprint(i))
		now = now.Add(10 * time.Millisecond)
		tab.add(prints[i], now, now)
		if i == most/2 { // growing loses next to nothing
			for _, f := range prints[:i+1] {
				if !tab.has(f, now) {
					lost++
				}
			}
			if lost > i/1000 || tab.Evicted != uint64(lost) {
				t.Fatalf("%d of %d lost, %d evicted, with half of the room free", lost, i, tab.Evicted)
			}
		}
	}
	if len(tab.words) != most {
		t.Errorf("%d words, want the %d that are allowed", len(tab.words), most)
	}
	for _, f := range prints[len(prints)-most/8:] { // the newest eighth is there
		if !tab.has(f, now) {
			lost++
		}
	}
	if lost > most/8/100 || tab.Evicted < most {
		t.Errorf("%d of the newest are lost, %d evicted", lost, tab.Evicted)
	}
}

// What a log tells later must not push out what was seen meanwhile.
func TestTableKeepsTheNewer(t *testing.T) {
	t.Parallel()
	tab := newTable(minBuckets*slots, time.Hour)
	bucket := func(i int) fingerprint { return fingerprint(uint64(i+1) << 20) } // all in bucket 0
	for i := range slots {
		tab.add(bucket(i), noon, noon)
	}
	tab.add(bucket(100), noon.Add(-30*time.Minute), noon)
	if tab.has(bucket(100), noon) || tab.Evicted != 1 {
		t.Error("an older one pushed a newer one out")
	}
	tab.add(bucket(101), noon.Add(time.Minute), noon.Add(time.Minute))
	if !tab.has(bucket(101), noon.Add(time.Minute)) {
		t.Error("the newest one has no room")
	}
	tab.add(bucket(3), noon.Add(-time.Hour), noon.Add(time.Minute))
	if !tab.has(bucket(3), noon.Add(30*time.Minute)) && tab.Evicted < 3 {
		t.Error("the older time of an id replaced the newer one")
	}
}
