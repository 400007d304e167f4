package engine

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/cursor"
)

func TestRingPositionIsTheResolvedPrefix(t *testing.T) {
	t.Parallel()
	r := newRing(8)
	if _, ok := r.snapshot(); ok {
		t.Error("nothing was tracked, so nothing may be committed")
	}
	// Gaps: compaction and transaction markers. The epoch is that of the last resolved record.
	var seqs []uint64
	for i, o := range []int64{10, 11, 15, 16, 40} {
		s, ok := r.track(o, int32(i))
		if !ok {
			t.Fatal("full")
		}
		seqs = append(seqs, s)
	}
	steps := []struct {
		done     int
		position int64
		epoch    int32
		runs     []cursor.Run
	}{
		{1, 0, 0, nil},
		{3, 0, 0, nil},
		{0, 12, 1, []cursor.Run{{From: 16, To: 17}}},
		{0, 12, 1, []cursor.Run{{From: 16, To: 17}}}, // a second time changes nothing
		{2, 17, 3, nil},
		{4, 41, 4, nil},
	}
	for i, s := range steps {
		r.mark(seqs[s.done])
		r.sweep()
		c, ok := r.snapshot()
		if ok != (s.position > 0) || ok && (c.Position != s.position || c.Epoch != s.epoch || !slices.Equal(c.Done, s.runs)) {
			t.Errorf("step %d: got %+v, %v, want %+v", i, c, ok, s)
		}
	}
}

func TestRingIsFullUntilItsHeadMoves(t *testing.T) {
	t.Parallel()
	r := newRing(4)
	for o := range int64(4) {
		if _, ok := r.track(o, 0); !ok {
			t.Fatalf("full at %d", o)
		}
	}
	r.mark(2)
	r.sweep()
	if _, ok := r.track(4, 0); ok {
		t.Error("tracked a fifth record in a ring of four")
	}
	r.mark(0)
	r.sweep()
	if _, ok := r.track(4, 0); !ok {
		t.Error("still full after the head moved")
	}
}

// Slots are used again a lap later. A record that is resolved twice must not resolve the one that has its slot now.
func TestRingItemsAreResolvedOnce(t *testing.T) {
	t.Parallel()
	r := newRing(2)
	first, _ := r.track(0, 0)
	if !r.mark(first) || r.mark(first) {
		t.Error("the first call resolves, the second does not")
	}
	r.sweep()
	_, _ = r.track(1, 0)
	again, ok := r.track(2, 0) // the slot of the first
	if !ok || again&r.mask != first&r.mask {
		t.Fatal("not the same slot")
	}
	if r.mark(first) || r.resolved(again) {
		t.Error("a late call resolved a stranger")
	}
	if !r.resolved(first) {
		t.Error("what was resolved stays so")
	}
}

// Several workers resolve, each sweeping, while the committer takes snapshots. Whoever moves the head must look
// again after letting the lock go; if nobody does, the head stands still although all is resolved.
func TestRingHeadNeverStandsStill(t *testing.T) {
	t.Parallel()
	const workers, each = 4, 16
	deadline := time.Now().Add(time.Second)
	for round := 0; round < 20_000 && time.Now().Before(deadline); round++ {
		r := newRing(workers * each)
		for o := range int64(workers * each) {
			_, _ = r.track(o, 0)
		}
		var wg sync.WaitGroup
		start := make(chan struct{})
		for w := range workers {
			wg.Go(func() {
				<-start
				for i := range each {
					r.mark(uint64(i*workers + w))
					r.sweep()
				}
			})
		}
		wg.Go(func() {
			<-start
			for range each {
				_, _ = r.snapshot()
			}
		})
		close(start)
		wg.Wait()
		if h := r.head.Load(); h != workers*each {
			t.Fatalf("round %d: all %d are resolved, the head is at %d", round, workers*each, h)
		}
	}
}

// A sweep that finds the lock taken leaves the head to the snapshot that holds it. The batch it was called for is
// resolved all the same: the next one finds room, whenever the snapshot comes to moving the head.
func TestRingIsNotFullOfResolvedRecords(t *testing.T) {
	t.Parallel()
	const size = 4
	r := newRing(size)
	batch := func(from int64) {
		var seqs [size]uint64
		for i := range seqs {
			seq, ok := r.track(from+int64(i), 0)
			if !ok {
				t.Fatalf("full at offset %d, although all before are resolved", from+int64(i))
			}
			seqs[i] = seq
		}
		for _, seq := range seqs {
			r.mark(seq)
		}
		r.sweep()
	}
	r.advance.Lock() // a snapshot that has not moved the head yet
	batch(0)
	r.advance.Unlock()
	batch(size)

	done := make(chan struct{})
	var snapshots sync.WaitGroup
	snapshots.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				r.snapshot()
			}
		}
	})
	for n := int64(2); n < 50_000; n++ {
		batch(n * size)
	}
	close(done)
	snapshots.Wait()
	if c, _ := r.snapshot(); c.Position != 50_000*size {
		t.Errorf("position %d, want %d", c.Position, 50_000*size)
	}
}

// Any order of completions over many laps: the position is what a simple list says.
func TestRingAgainstAList(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	r := newRing(16)
	var list []int64 // every offset ever tracked
	var open []uint64
	offset, want := int64(0), int64(0)
	for range 50_000 {
		if rng.IntN(2) == 0 {
			offset += 1 + rng.Int64N(3)
			if s, ok := r.track(offset, 0); ok {
				list, open = append(list, offset), append(open, s)
			}
		} else if len(open) > 0 {
			i := rng.IntN(len(open))
			r.mark(open[i])
			r.sweep()
			open = slices.Delete(open, i, i+1)
		}
		if h := r.head.Load(); h > 0 {
			want = list[h-1] + 1
		}
		c, ok := r.snapshot()
		if ok && c.Position != want {
			t.Fatalf("position %d, want %d", c.Position, want)
		}
		if h := r.head.Load(); len(open) > 0 && slices.Min(open) < h {
			t.Fatalf("the head %d passed record %d, which is open", h, slices.Min(open))
		}
	}
}

func BenchmarkRing(b *testing.B) {
	r := newRing(512)
	offset := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		s, _ := r.track(offset, 0)
		offset++
		r.mark(s)
		if offset&255 == 0 {
			r.sweep()
		}
	}
}

func BenchmarkRingSweepEach(b *testing.B) {
	r := newRing(512)
	offset := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		s, _ := r.track(offset, 0)
		offset++
		r.mark(s)
		r.sweep()
	}
}
