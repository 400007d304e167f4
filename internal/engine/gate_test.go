package engine_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
)

// endless is a feed that has always more, of the partitions that are not paused, and counts what it gave.
type endless struct {
	*scripted
	partitions int32
	size       int
	next       map[int32]int64
	turn       int32
}

func newEndless(size int) *endless {
	return &endless{scripted: newScripted(), size: size, next: map[int32]int64{}}
}

// Poll gives all that it may of one partition, as a client does that drains one fetch after the other.
func (e *endless) Poll(ctx context.Context, limit int) kgo.Fetches {
	for ctx.Err() == nil {
		e.mu.Lock()
		for range e.partitions {
			p := e.turn % e.partitions
			if e.turn++; e.pause[idOf(p)] {
				continue
			}
			rs := make([]*kgo.Record, limit)
			for i := range rs {
				rs[i] = &kgo.Record{Topic: "orders", Partition: p, Offset: e.next[p], Value: make([]byte, e.size)}
				e.next[p]++
			}
			e.mu.Unlock()
			return kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "orders", Partitions: []kgo.FetchPartition{{
				Partition: p, Records: rs, HighWatermark: 1 << 40, LastStableOffset: -1,
			}}}}}}
		}
		e.mu.Unlock()
		select { // all are paused, or nothing has grown
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
	return kgo.NewErrFetch(ctx.Err())
}

// Seek rewinds, and remembers that nothing may be skipped.
func (e *endless) Seek(id cursor.ID, offset int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next[id.Partition] = offset
	return nil
}

// grow lets n partitions have records.
func (e *endless) grow(n int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.partitions = n
}

func (e *endless) got(p int32) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.next[p]
}

func TestNothingIsPolledBeyondTheBounds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		cfg   engine.Config
		size  int
		atMax int64
	}{
		{"records", engine.Config{InFlight: 1000}, 10, 1000},
		{"fewer than a usual poll", engine.Config{InFlight: 3}, 10, 3},
		{"bytes", engine.Config{InFlightSize: 100 << 10}, 1 << 10, 16384/4 + 100}, // the first poll knows no size
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				feed := newEndless(tt.size)
				h := handlerFunc(func(ctx context.Context, _ engine.Batch) []verdict.Verdict {
					<-ctx.Done() // nothing is ever done
					return []verdict.Verdict{{Kind: verdict.Pause}}
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- engine.Run(ctx, feed, cursor.NewMemory(), h, tt.cfg) }()
				if _, err := (<-feed.owner).Assigned(ctx, []cursor.ID{idOf(0)}); err != nil {
					t.Fatal(err)
				}
				feed.grow(1)
				<-time.After(time.Minute)
				if n := feed.got(0); n > tt.atMax || n == 0 {
					t.Errorf("polled %d records while nothing was done, at most %d are allowed", n, tt.atMax)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A partition that stands still must not stop the others, not even when it had the gate to itself: it gives back
// what is over its share, and gets it again when it moves.
func TestAPartitionThatStandsStillDoesNotStarveTheOthers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		partitions int32
		quiet      time.Duration // how long the others had nothing, and left the gate to the first
	}{
		{"of two", 2, 0},
		{"of six", 6, 0},
		{"after a long silence", 6, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				feed := newEndless(10)
				stuck, handled := make(chan struct{}), int64(0)
				h := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
					if b.ID.Partition == 0 {
						<-stuck
						if first := b.Items[0].Record.Offset; first != handled {
							t.Errorf("offset %d follows %d", first, handled-1)
						}
						handled = b.Next
					}
					<-time.After(10 * time.Millisecond)
					return nil
				})
				var ids []cursor.ID
				for p := range tt.partitions {
					ids = append(ids, idOf(p))
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- engine.Run(ctx, feed, cursor.NewMemory(), h, engine.Config{InFlight: 4096, Batch: 64}) }()
				if _, err := (<-feed.owner).Assigned(ctx, ids); err != nil {
					t.Fatal(err)
				}
				feed.grow(1)
				<-time.After(tt.quiet)
				feed.grow(tt.partitions)
				<-time.After(2 * time.Second)
				first, last := feed.got(0), feed.got(tt.partitions-1)
				if first > 4096+4096/int64(tt.partitions) || last < 10_000 { // of 12,800 that it could handle
					t.Errorf("the one that stands still got %d records, the last partition %d: want at most the gate, and its share once more; and many", first, last)
				}
				close(stuck)
				<-time.After(2 * time.Second)
				if now := feed.got(0); now < 8000 {
					t.Errorf("after it moved again, the first partition got %d records, want many", now)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A partition that is slow has the gate to itself while the others have nothing. It gives back what is over its share
// once, and does not fill the gate again as long as it is behind: when the others have something, there is room.
func TestASlowPartitionDoesNotHoldTheOthersUp(t *testing.T) {
	t.Parallel()
	const partitions, batch, quick = 6, 500, 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		feed := newEndless(10)
		var handled atomic.Int64 // of the others
		h := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
			if b.ID.Partition == 0 {
				<-time.After(30 * quick)
			} else {
				<-time.After(quick)
				handled.Add(int64(len(b.Items)))
			}
			return nil
		})
		var ids []cursor.ID
		for p := range int32(partitions) {
			ids = append(ids, idOf(p))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- engine.Run(ctx, feed, cursor.NewMemory(), h, engine.Config{InFlight: 8 * batch, Batch: batch})
		}()
		if _, err := (<-feed.owner).Assigned(ctx, ids); err != nil {
			t.Fatal(err)
		}
		feed.grow(1)
		<-time.After(time.Minute)
		for range 10 { // bursts
			before := handled.Load()
			feed.grow(partitions)
			<-time.After(500 * time.Millisecond)
			got, full := handled.Load()-before, int64(500*time.Millisecond/quick*batch*(partitions-1))
			if got < full*6/10 { // the gate of eight batches allows some 70 percent; of those that fill it again, a quarter is left
				t.Errorf("the others handled %d records, %d are possible: want 60 percent", got, full)
			}
			feed.grow(1)
			<-time.After(5 * time.Second)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
