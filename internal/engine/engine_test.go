package engine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
)

func TestEveryRecordIsHandledInOrderAndCommitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := slices.Concat(records(0, 1000, 1), records(1, 500, 3))
		j := &journal{}
		feed, store := engine.NewMemory(log...), cursor.NewMemory()
		w := newWitness(j, "a", store)
		if err := engine.Run(t.Context(), feed, w, handler{j: j}, engine.Config{Batch: 64, Observer: w}); err != nil {
			t.Fatal(err)
		}
		j.mustBeClean(t, log)
		got := store.Positions()
		if got[feed.ID("orders", 0)] != 1000 || got[feed.ID("orders", 1)] != 499*3+1 {
			t.Errorf("got positions %v, want 1000 and %d: the offset after the last record, gaps or not", got, 499*3+1)
		}
		if n := j.count("handled"); n != len(log) {
			t.Errorf("handled %d records, want %d", n, len(log))
		}
		claimed, err := store.Claim(t.Context(), []cursor.ID{feed.ID("orders", 0)})
		if err != nil || claimed[feed.ID("orders", 0)].Epoch != 3 {
			t.Errorf("committed %+v, error %v, want the leader epoch 3 of the last record", claimed, err)
		}
	})
}

// A batch's verdicts may resolve later records first: the position waits for the first that is not, and what is
// resolved above it rides in the commit, so that not even a crash repeats it.
func TestPositionNeverPassesAnUnresolvedRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := records(0, 10, 1)
		store := cursor.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		var seen [][]int64
		h := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
			var offsets []int64
			vs := make([]verdict.Verdict, len(b.Items))
			for i, it := range b.Items {
				offsets = append(offsets, it.Record.Offset)
				if o := it.Record.Offset; o == 3 || o == 7 {
					vs[i] = verdict.Verdict{Kind: verdict.Retry, After: time.Minute}
				}
			}
			seen = append(seen, offsets)
			return vs
		})
		go func() {
			<-time.After(10 * time.Second)
			cancel()
		}()
		feed := engine.NewMemory(log...)
		if err := engine.Run(ctx, feed, store, h, engine.Config{}); err != nil {
			t.Fatal(err)
		}
		id := feed.ID("orders", 0)
		claimed, err := store.Claim(t.Context(), []cursor.ID{id})
		if err != nil {
			t.Fatal(err)
		}
		if c := claimed[id]; c.Position != 3 || !slices.Equal(c.Done, []cursor.Run{{From: 4, To: 7}, {From: 8, To: 10}}) {
			t.Errorf("got position %d, done %v, want 3 and [4,7) [8,10)", c.Position, c.Done)
		}

		// The next owner handles only what is not done.
		seen = nil
		again := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
			for _, it := range b.Items {
				seen = append(seen, []int64{it.Record.Offset})
			}
			return nil
		})
		if err := engine.Run(t.Context(), engine.NewMemory(log...), store, again, engine.Config{}); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 2 || seen[0][0] != 3 || seen[1][0] != 7 || store.Positions()[id] != 10 {
			t.Errorf("the next owner handled %v and committed %d, want 3 and 7, and 10", seen, store.Positions()[id])
		}
	})
}

func TestRetryHoldsThePartitionAndCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type call struct {
			at      time.Duration
			offset  int64
			attempt int
			again   bool // First is set
		}
		var calls []call
		started := time.Now()
		h := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
			it := b.Items[0]
			calls = append(calls, call{time.Since(started), it.Record.Offset, it.Attempt, !it.First.IsZero()})
			switch {
			case it.Record.Offset == 1 && it.Attempt == 1:
				return []verdict.Verdict{{Kind: verdict.Retry, After: 2 * time.Second, Err: errors.New("busy")}}
			case it.Record.Offset == 1 && it.Attempt == 2 && time.Since(started) < 4*time.Second:
				return []verdict.Verdict{{Kind: verdict.Pause, After: 3 * time.Second}}
			}
			return []verdict.Verdict{{}} // one at a time: the others come again as they are
		})
		if err := engine.Run(t.Context(), engine.NewMemory(records(0, 4, 1)...), cursor.NewMemory(), h, engine.Config{}); err != nil {
			t.Fatal(err)
		}
		want := []call{
			{0, 0, 1, false},
			{0, 1, 1, false},
			{2 * time.Second, 1, 2, true}, // a retry counts
			{5 * time.Second, 1, 2, true}, // a pause does not
			{5 * time.Second, 2, 1, false},
			{5 * time.Second, 3, 1, false},
		}
		if !slices.Equal(calls, want) {
			t.Errorf("got %+v, want %+v", calls, want)
		}
	})
}

func TestStopEndsRunAndCommitsWhatIsDone(t *testing.T) {
	t.Parallel()
	cause := errors.New("the disk is full")
	tests := []struct {
		name    string
		verdict verdict.Verdict
		says    string
	}{
		{"stop", verdict.Verdict{Kind: verdict.Stop, Err: cause}, "offset 5"},
		{"a dead letter that was not written", verdict.Verdict{Kind: verdict.DeadLetter, Err: cause}, "dead letter"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				j, store := &journal{}, cursor.NewMemory()
				h := handler{j: j, f: func(_ context.Context, b engine.Batch, i int) verdict.Verdict {
					if b.Items[i].Record.Offset == 5 {
						return tt.verdict
					}
					return verdict.Verdict{}
				}}
				feed := engine.NewMemory(records(0, 10, 1)...)
				err := engine.Run(t.Context(), feed, store, h, engine.Config{})
				if !errors.Is(err, cause) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got error %v, want %v that speaks of %q", err, cause, tt.says)
				}
				if at := store.Positions()[feed.ID("orders", 0)]; at != 5 {
					t.Errorf("committed %d, want 5", at)
				}
			})
		})
	}
}

func TestPanicIsARetryThatTheObserverSees(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		log := records(0, 5, 1)
		w := newWitness(j, "a", cursor.NewMemory())
		h := handler{j: j, f: func(_ context.Context, b engine.Batch, i int) verdict.Verdict {
			if it := b.Items[i]; it.Record.Offset == 2 && it.Attempt == 1 {
				b.Done(0)
				b.Done(1)
				panic("boom")
			} else if it.Record.Offset == 2 && it.Attempt != 2 || it.Record.Offset > 2 && it.Attempt != 1 {
				t.Errorf("offset %d in attempt %d", it.Record.Offset, it.Attempt)
			}
			return verdict.Verdict{}
		}}
		if err := engine.Run(t.Context(), engine.NewMemory(log...), w, h, engine.Config{Observer: w}); err != nil {
			t.Fatal(err)
		}
		j.mustBeClean(t, log)
		var p *engine.PanicError
		if seen := w.seen(); len(seen) != 1 || !errors.As(seen[0], &p) || p.Value != "boom" || len(p.Stack) == 0 {
			t.Errorf("got problems %v, want the panic with its stack", seen)
		}
		if n := j.count("handled"); n != 5 {
			t.Errorf("handled %d records, want 5: Done before the panic counts", n)
		}
	})
}

func TestAHandlerThatEndsItsGoroutineEndsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := handlerFunc(func(context.Context, engine.Batch) []verdict.Verdict {
			exit()
			return nil
		})
		err := engine.Run(t.Context(), engine.NewMemory(records(0, 1, 1)...), cursor.NewMemory(), h, engine.Config{})
		if err == nil || !strings.Contains(err.Error(), "ended its goroutine") {
			t.Errorf("got %v, want an error instead of a partition that stands still", err)
		}
	})
}

// A fresh partition's start is committed before anything is handled: with a start at the end of the log, a
// restart would otherwise begin at a later end and skip what came in between.
func TestAFreshStartIsCommitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, feed := cursor.NewMemory(), newScripted()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- engine.Run(ctx, feed, store, handler{j: &journal{}}, engine.Config{}) }()
		if _, err := (<-feed.owner).Assigned(ctx, []cursor.ID{idOf(0)}); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		if at, ok := store.Positions()[idOf(0)]; !ok || at != 0 {
			t.Errorf("committed %d, %v, want the start 0", at, ok)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLag(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, feed := cursor.NewMemory(), newScripted()
		w := newWitness(&journal{}, "a", store)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		h := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
			return []verdict.Verdict{{}, {Kind: verdict.Pause, After: time.Hour}}
		})
		go func() { done <- engine.Run(ctx, feed, store, h, engine.Config{Observer: w}) }()
		if _, err := (<-feed.owner).Assigned(ctx, []cursor.ID{idOf(0)}); err != nil {
			t.Fatal(err)
		}
		feed.push(records(0, 10, 1)...)
		<-time.After(90*time.Second + time.Millisecond)
		w.mu.Lock()
		lag, age := w.lag[idOf(0)], w.age
		w.mu.Unlock()
		if lag != 9 || age.Round(time.Second) != 90*time.Second {
			t.Errorf("got lag %d and %v, want 9 records and 90 s", lag, age)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := newScripted()
		ctx, cancel := context.WithCancel(t.Context())
		var sizes []int
		h := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
			sizes = append(sizes, len(b.Items))
			return nil
		})
		done := make(chan error, 1)
		go func() {
			done <- engine.Run(ctx, feed, cursor.NewMemory(), h, engine.Config{Batch: 4, BatchWait: time.Second})
		}()
		if _, err := (<-feed.owner).Assigned(ctx, []cursor.ID{idOf(0)}); err != nil {
			t.Fatal(err)
		}
		log := records(0, 10, 1)
		feed.push(log[:3]...) // waits for a fourth
		<-time.After(500 * time.Millisecond)
		feed.push(log[3:9]...)
		<-time.After(10 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !slices.Equal(sizes, []int{4, 4, 1}) {
			t.Errorf("got batches of %v, want 4, 4, and 1 after a second", sizes)
		}
	})
}

func TestErrorsOfTheFeed(t *testing.T) {
	t.Parallel()
	lost := &kgo.ErrDataLoss{Topic: "orders", ConsumedTo: 9, ResetTo: 4}
	tests := []struct {
		name  string
		err   error
		fatal bool
	}{
		{"data loss is told", lost, false},
		{"a batch too large to unpack ends Run", &kgo.ErrDecompressTooLarge{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				feed := newScripted()
				w := newWitness(&journal{}, "a", cursor.NewMemory())
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- engine.Run(ctx, feed, w, handler{j: w.j}, engine.Config{Observer: w}) }()
				if _, err := (<-feed.owner).Assigned(ctx, []cursor.ID{idOf(0)}); err != nil {
					t.Fatal(err)
				}
				feed.polls <- kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "orders", Partitions: []kgo.FetchPartition{{Err: tt.err}}}}}}
				err := <-done
				if tt.fatal != errors.Is(err, tt.err) {
					t.Errorf("Run returned %v", err)
				}
				if seen := w.seen(); !tt.fatal && (len(seen) != 1 || !errors.Is(seen[0], tt.err)) {
					t.Errorf("problems %v, want %v", seen, tt.err)
				}
			})
		})
	}
}

func TestConfigIsRefusedByName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  engine.Config
	}{
		{"Batch", engine.Config{Batch: -1}},
		{"BatchWait", engine.Config{BatchWait: -1}},
		{"InFlight", engine.Config{InFlight: -1}},
		{"InFlightSize", engine.Config{InFlightSize: -1}},
		{"CommitEvery", engine.Config{CommitEvery: -1}},
		{"CommitRecords", engine.Config{CommitRecords: -1}},
		{"Drain", engine.Config{Drain: -1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := engine.Run(t.Context(), engine.NewMemory(), cursor.NewMemory(), handler{j: &journal{}}, tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.name) {
				t.Errorf("got %v, want an error that names %s", err, tt.name)
			}
		})
	}
}
