package engine_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
)

// A partition that came back waits for its old handler, and meanwhile must give back what it holds. It keeps one
// record, which resumes it later: nothing else would.
func TestAPartitionThatGaveBackEverythingIsResumed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		stuck := make(chan struct{})
		h := handler{j: j, f: func(_ context.Context, b engine.Batch, i int) verdict.Verdict {
			if b.Items[i].Record.Offset == 0 {
				<-stuck
			}
			return verdict.Verdict{}
		}}
		a := start(t, cursor.NewMemory(), h, engine.Config{InFlightSize: 4000, Drain: time.Second}, idOf(0), idOf(1))
		a.feed.push(records(0, 1, 1)...)
		<-time.After(time.Second)
		a.owner.Revoked(t.Context(), []cursor.ID{idOf(0)})
		if _, err := a.owner.Assigned(t.Context(), []cursor.ID{idOf(0)}); err != nil {
			t.Fatal(err)
		}
		log := records(0, 3, 1)
		for _, r := range log {
			r.Value = make([]byte, 2500) // more than a fair share each
		}
		a.feed.push(log[1:]...)
		<-time.After(time.Minute)
		a.feed.mu.Lock()
		if !a.feed.pause[idOf(0)] {
			t.Error("the partition was not paused: the test tests nothing")
		}
		a.feed.mu.Unlock()
		close(stuck)
		<-time.After(time.Minute)
		a.feed.mu.Lock()
		if a.feed.pause[idOf(0)] {
			t.Error("the partition is still paused after its old handler has returned")
		}
		a.feed.mu.Unlock()
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})
}

// What was given back may be gone when it is fetched again. A step back that had no effect is another matter: it
// would skip records.
func TestWhatComesAfterAStepBack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		first    int64 // offset of the first record after the step
		logStart int64
		ends     bool
	}{
		{"the same again", 1, 0, false},
		{"compacted", 2, 0, false},
		{"removed by retention", 9, 8, false},
		{"no step", 3, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				stuck := make(chan struct{})
				h := handlerFunc(func(context.Context, engine.Batch) []verdict.Verdict {
					<-stuck
					return nil
				})
				a := start(t, cursor.NewMemory(), h, engine.Config{InFlight: 3, Batch: 1}, idOf(0), idOf(1))
				a.feed.push(records(0, 3, 1)...) // the first goes to the handler, the others back
				<-time.After(time.Minute)
				a.feed.polls <- kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "orders", Partitions: []kgo.FetchPartition{{
					Records: []*kgo.Record{{Topic: "orders", Offset: tt.first}}, LogStartOffset: tt.logStart, HighWatermark: 10, LastStableOffset: -1,
				}}}}}}
				<-time.After(time.Second)
				close(stuck)
				<-time.After(time.Second)
				err := a.stop()
				if ended := err != nil && strings.Contains(err.Error(), "went back"); ended != tt.ends {
					t.Errorf("Run returned %v", err)
				}
			})
		})
	}
}

// After a log was cut below where the cursor stood, the offsets that were resolved above it are other records.
func TestACutLogForgetsWhatWasDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := cursor.NewMemory()
		claimed, err := store.Claim(t.Context(), []cursor.ID{idOf(0)})
		if err != nil {
			t.Fatal(err)
		}
		c := claimed[idOf(0)]
		c.Cursor = cursor.Cursor{Position: 3, Floor: 3, Done: []cursor.Run{{From: 5, To: 8}}}
		if _, err := store.Commit(t.Context(), map[cursor.ID]cursor.Claimed{idOf(0): c}); err != nil {
			t.Fatal(err)
		}
		j := &journal{}
		a := start(t, store, handler{j: j}, engine.Config{}, idOf(0))
		a.feed.push(records(0, 10, 1)...)
		<-time.After(time.Minute)
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		if n := j.count("handled"); n != 10 {
			t.Errorf("handled %d of 10 records", n)
		}
	})
}

// A problem of the membership is told as what it is, and no partition is blamed.
func TestAProblemOfTheMembership(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		w := newWitness(&journal{}, "a", cursor.NewMemory())
		a := start(t, w, handler{j: w.j}, engine.Config{Observer: w, Log: zap.New(core)}, idOf(0))
		a.feed.polls <- kgo.NewErrFetch(&kgo.ErrGroupSession{Err: kerr.CoordinatorNotAvailable})
		<-time.After(time.Minute)
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		all := logs.All()
		if len(all) != 1 || all[0].Level != zapcore.WarnLevel || slices.ContainsFunc(all[0].Context, func(f zap.Field) bool { return f.Key == "partition" }) {
			t.Errorf("logged %+v, want one warning without a partition", all)
		}
		if len(w.seen()) != 1 {
			t.Errorf("problems %v, want one", w.seen())
		}
	})
}

// A broker that refuses a partition does so at once, and again: asked as fast as it answers, it would be asked twenty
// thousand times a second, and the log would have as many lines.
func TestAPartitionInTroubleIsNotAskedWithoutPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		w := newWitness(j, "a", cursor.NewMemory())
		a := start(t, w, handler{j: j}, engine.Config{Observer: w}, idOf(0), idOf(1))
		trouble := kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "orders", Partitions: []kgo.FetchPartition{{Partition: 1, Err: kerr.UnknownServerError}}}}}}
		minute := time.After(time.Minute)
		asked := -cap(a.feed.polls)
		for end := false; !end; {
			select {
			case a.feed.polls <- trouble:
				asked++
			case <-minute:
				end = true
			}
		}
		if asked > 5*60 {
			t.Errorf("asked %d times in a minute", asked)
		}
		if n := len(w.seen()); n < 50 || n > 61 { // the first at once, and perhaps one at the very end
			t.Errorf("told of it %d times in a minute, want about once a second", n)
		}
		// With records of the other partition there is no pause, and no more words.
		for i := range 50 {
			both := kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "orders", Partitions: []kgo.FetchPartition{
				{Partition: 0, Records: records(0, 51, 1)[i : i+1]}, {Partition: 1, Err: kerr.UnknownServerError},
			}}}}}
			a.feed.polls <- both
		}
		began := time.Now()
		for j.count("handled") < 50 {
			<-time.After(time.Second)
		}
		if took := time.Since(began); took > 25*time.Second { // the hundred polls of trouble that still wait, no more
			t.Errorf("the other partition took %s", took)
		}
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})
}

// Where few records fill the gate, one that stands still must not shut it for the others.
func TestOneLargeRecordStopsNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		stuck := make(chan struct{})
		h := handler{j: j, f: func(_ context.Context, b engine.Batch, _ int) verdict.Verdict {
			if b.ID.Partition == 0 {
				<-stuck
			}
			return verdict.Verdict{}
		}}
		a := start(t, cursor.NewMemory(), h, engine.Config{InFlightSize: 64 << 10}, idOf(0), idOf(1))
		log := slices.Concat(records(0, 1, 1), records(1, 50, 1))
		for _, r := range log { // each at its own time
			r.Value = make([]byte, 1<<10)
			a.feed.push(r)
		}
		<-time.After(time.Minute)
		if n := j.count("handled"); n != 50 {
			t.Errorf("handled %d records of the other partition, want all 50", n)
		}
		close(stuck)
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})
}
