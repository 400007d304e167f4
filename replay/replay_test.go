package replay_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/schemas"
)

var origin = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// recorded is n events over three partitions of one topic and some keys, 50 ms apart.
func recorded(n int) []event.Event {
	events := make([]event.Event, n)
	var next [3]int64
	for i := range events {
		key := fmt.Sprint("k", i*7%11)
		p := int32(i * 7 % 11 % 3)
		at := origin.Add(time.Duration(i) * 50 * time.Millisecond)
		events[i] = event.Event{
			Meta:  event.Meta{ID: fmt.Sprint("e", i), Topic: "orders", Partition: p, Offset: next[p], Key: []byte(key), Published: at, Time: at},
			Value: fmt.Append(nil, i),
		}
		next[p]++
	}
	return events
}

func set(events []event.Event) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// sink is a target that remembers.
type sink struct {
	mu    sync.Mutex
	got   []event.Event
	times []time.Duration
	began time.Time
	// Before, if set, is asked before an event is taken.
	before func(ctx context.Context, e event.Event) error
}

func (s *sink) Deliver(ctx context.Context, e event.Event) error {
	if s.before != nil {
		if err := s.before(ctx, e); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, e)
	s.times = append(s.times, time.Since(s.began))
	return nil
}

// ids are what was got, and how often.
func (s *sink) ids() map[string]int {
	out := map[string]int{}
	for _, e := range s.got {
		out[e.ID]++
	}
	return out
}

// inOrder says where a key's events came in another order than that of their offsets, repeats left out.
func (s *sink) inOrder() error {
	seen := map[string]bool{}
	last := map[string]int64{}
	for _, e := range s.got {
		if seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		k := string(e.Key)
		if at, ok := last[k]; ok && e.Offset <= at {
			return fmt.Errorf("key %s: offset %d after %d", k, e.Offset, at)
		}
		last[k] = e.Offset
	}
	return nil
}

// endsAs reports whether the last event of each key is the last that was got of it.
func (s *sink) endsAs(events []event.Event) bool {
	last, want := map[string]string{}, map[string]string{}
	for _, e := range events {
		want[string(e.Key)] = e.ID
	}
	for _, e := range s.got {
		last[string(e.Key)] = e.ID
	}
	return maps.Equal(last, want)
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestEverythingIsDeliveredOnceAndInOrder(t *testing.T) {
	t.Parallel()
	for _, keys := range []int{1, 4, 64} {
		synctest.Test(t, func(t *testing.T) {
			events := recorded(5000)
			to := &sink{before: func(ctx context.Context, _ event.Event) error { return wait(ctx, rand.N(time.Millisecond)) }}
			s, err := replay.RunWith(t.Context(), replay.NewMemoryStore(), to, replay.Config{ID: "r", Set: set(events), Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			if len(to.got) != len(events) || len(to.ids()) != len(events) || to.inOrder() != nil {
				t.Errorf("%d keys: got %d events, %d ids, order %v", keys, len(to.got), len(to.ids()), to.inOrder())
			}
			passed, total := s.Progress()
			if s.Delivered != 5000 || !s.Done || s.Repeats != 0 || passed != total || total != 5000 {
				t.Errorf("%+v", s)
			}
			if _, err := replay.RunWith(t.Context(), replay.NewMemoryStore(), to, replay.Config{Set: set(nil)}); err != nil {
				t.Errorf("an empty set: %v", err)
			}
		})
	}
}

// Order is by key: what a worker does to one does not hold up the others, and the planted bug is seen.
func TestOrderBreaksUnderItsBug(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		to := &sink{before: func(ctx context.Context, _ event.Event) error { return wait(ctx, rand.N(time.Millisecond)) }}
		cfg := replay.Plant(replay.Config{ID: "r", Set: set(recorded(1000)), Keys: 8}, "workers without keys")
		if _, err := replay.RunWith(t.Context(), replay.NewMemoryStore(), to, cfg); err != nil {
			t.Fatal(err)
		}
		if to.inOrder() == nil {
			t.Error("workers took events whatever their key, and the test does not see it")
		}
	})
}

// crash runs a replay again and again, each time from what a crash at some commit left, and says what the target has.
func crash(t *testing.T, fault string, seed uint64) (lost, repeated int, sum replay.Summary, order error) {
	t.Helper()
	events := recorded(20_000)
	random := rand.New(rand.NewPCG(seed, 0))
	to := &sink{before: func(ctx context.Context, e event.Event) error {
		return wait(ctx, time.Duration(len(e.Value))*20*time.Microsecond)
	}}
	store := replay.NewMemoryStore()
	store.Delay = time.Duration(seed%2) * 100 * time.Millisecond
	for range 20 {
		ctx, kill := context.WithCancel(t.Context())
		after := 1 + random.IntN(6000)
		run := &sink{before: func(rctx context.Context, e event.Event) error {
			if ctx.Err() != nil {
				return errors.New("dead")
			}
			if err := to.before(rctx, e); err != nil {
				return err
			}
			to.mu.Lock()
			defer to.mu.Unlock()
			if ctx.Err() != nil {
				return errors.New("dead")
			}
			to.got = append(to.got, e)
			if after--; after == 0 {
				store = store.Clone() // what is committed later is not seen by the next run
				kill()
			}
			return nil
		}}
		cfg := replay.Plant(replay.Config{ID: "r", Set: set(events), Keys: 4, Window: 2000, Drain: time.Millisecond}, fault)
		mine := store
		s, err := replay.RunWith(ctx, mine, run, cfg)
		kill()
		sum = s
		if err == nil {
			break
		}
	}
	s, err := replay.RunWith(t.Context(), store, to, replay.Plant(replay.Config{ID: "r", Set: set(events), Keys: 4, Window: 2000}, fault))
	if err != nil {
		t.Fatal(err)
	}
	if s.Delivered > sum.Delivered {
		sum = s
	}
	ids := to.ids()
	for _, n := range ids {
		repeated += n - 1
	}
	return len(events) - len(ids), repeated, sum, to.inOrder()
}

func TestCrashesLoseNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			lost, repeated, s, order := crash(t, "", seed)
			if lost != 0 || order != nil || int64(repeated) > s.Repeats || repeated == 0 {
				t.Errorf("seed %d: lost %d, order %v, repeated %d of at most %d", seed, lost, order, repeated, s.Repeats)
			}
			if s.Delivered != 20_000 || s.Repeats > 20*2000 {
				t.Errorf("seed %d: %+v", seed, s.Counts)
			}
		})
	}
}

func TestCrashesShowPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fault string
		seen  func(lost, repeated int, repeats int64) bool
	}{
		{"commit before delivery", func(lost, _ int, _ int64) bool { return lost > 0 }},
		{"no window", func(_, repeated int, repeats int64) bool { return int64(repeated) > repeats }},
	} {
		synctest.Test(t, func(t *testing.T) {
			for seed := range uint64(20) {
				lost, repeated, s, _ := crash(t, tt.fault, seed)
				if tt.seen(lost, repeated, s.Repeats) {
					return
				}
			}
			t.Errorf("%s: no run shows it", tt.fault)
		})
	}
}

// A run goes on with the event after the last one that is behind, and not with the next but one.
func TestAResumeAtTheWrongPlaceIsSeen(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"", "resume one further"} {
		synctest.Test(t, func(t *testing.T) {
			store, to := replay.NewMemoryStore(), &sink{}
			ctx, stop := context.WithCancel(t.Context())
			to.before = func(context.Context, event.Event) error { stop(); return nil }
			if _, err := replay.RunWith(ctx, store, to, replay.Config{ID: "r", Set: set(recorded(100))}); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if _, err := replay.RunWith(t.Context(), store, to, replay.Plant(replay.Config{ID: "r", Set: set(recorded(100))}, fault)); err != nil {
				t.Fatal(err)
			}
			if lost := 100 - len(to.ids()); (lost > 0) != (fault != "") {
				t.Errorf("fault %q: %d events are lost", fault, lost)
			}
		})
	}
}

// A stop in time repeats nothing: what is on its way is answered and committed.
func TestAStopRepeatsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		events := recorded(3000)
		store := replay.NewMemoryStore()
		to := &sink{}
		for range 3 {
			ctx, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
			to.before = func(ctx context.Context, _ event.Event) error { return wait(ctx, time.Millisecond) }
			s, err := replay.RunWith(ctx, store, to, replay.Config{ID: "r", Set: set(events), Keys: 3})
			stop()
			if !errors.Is(err, context.DeadlineExceeded) || s.Done || s.Delivered == 0 {
				t.Fatalf("%v, %+v", err, s.Counts)
			}
		}
		s, err := replay.RunWith(t.Context(), store, to, replay.Config{ID: "r", Set: set(events)})
		if err != nil || !s.Done || !s.Resumed || s.Repeats != 0 || len(to.got) != len(events) || to.inOrder() != nil {
			t.Errorf("%v, %+v, got %d, order %v", err, s.Counts, len(to.got), to.inOrder())
		}
		again, err := replay.RunWith(t.Context(), store, to, replay.Config{ID: "r", Set: set(events)})
		if err != nil || !again.Done || again.Delivered != 3000 || len(to.got) != len(events) {
			t.Errorf("a replay that is over: %v, %+v", err, again.Counts)
		}
	})
}

func TestTwoRunsOfOneIDRefuseEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := replay.NewMemoryStore()
		slow := &sink{before: func(ctx context.Context, _ event.Event) error { return wait(ctx, time.Second) }}
		cfg := replay.Config{ID: "r", Set: set(recorded(60))}
		type end struct {
			s   replay.Summary
			err error
		}
		ends := make(chan end, 2)
		for range 2 { // at the same moment
			go func() {
				s, err := replay.RunWith(t.Context(), store, slow, cfg)
				ends <- end{s, err}
			}()
		}
		if first := <-ends; !errors.Is(first.err, replay.ErrTaken) {
			t.Errorf("the second run: %v", first.err)
		}
		_ = wait(t.Context(), 20*time.Second) // longer than a lease: it is held
		if _, err := replay.RunWith(t.Context(), store, slow, cfg); !errors.Is(err, replay.ErrTaken) || !strings.Contains(err.Error(), "process") {
			t.Errorf("a third run: %v", err)
		}
		if last := <-ends; last.err != nil || last.s.Delivered != 60 {
			t.Errorf("the first run: %v, %+v", last.err, last.s.Counts)
		}
	})
}

// A run whose lease was lost and taken ends at its next commit.
func TestARunThatWasReplacedEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := replay.NewMemoryStore()
		var cut sync.Mutex
		away := errors.New("no broker")
		fail := false
		store.Fail = func() error {
			cut.Lock()
			defer cut.Unlock()
			if fail {
				return away
			}
			return nil
		}
		slow := &sink{before: func(ctx context.Context, _ event.Event) error { return wait(ctx, time.Second) }}
		ended := make(chan error, 1)
		go func() {
			_, err := replay.RunWith(t.Context(), store, slow, replay.Config{ID: "r", Set: set(recorded(100))})
			ended <- err
		}()
		_ = wait(t.Context(), 5*time.Second)
		cut.Lock()
		fail = true
		cut.Unlock()
		if err := <-ended; !errors.Is(err, away) {
			t.Errorf("a run that cannot commit for as long as its lease: %v", err)
		}
	})
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	bad := func(verdict func() error, times int) func(context.Context, event.Event) error {
		return func(_ context.Context, e event.Event) error {
			if e.ID == "e7" && (times < 0 || e.Attempt <= times) {
				return verdict()
			}
			return nil
		}
	}
	retry := func() error { return boom }
	for _, tt := range []struct {
		name   string
		before func(context.Context, event.Event) error
		skip   bool
		want   replay.Counts
		fails  bool
		tries  int64
	}{
		{"passes after two attempts", bad(retry, 2), false, replay.Counts{Delivered: 20}, false, 2},
		{"never passes", bad(retry, -1), false, replay.Counts{Delivered: 7}, true, 4},
		{"never passes and is skipped", bad(retry, -1), true, replay.Counts{Delivered: 19, Failed: 1}, false, 4},
		{"is dropped", bad(func() error { return consumer.Drop(boom) }, -1), false, replay.Counts{Delivered: 19, Dropped: 1}, false, 0},
		{"fails for good", bad(func() error { return consumer.DeadLetter(boom) }, -1), true, replay.Counts{Delivered: 19, Failed: 1}, false, 0},
		{"stops, whatever is skipped", bad(func() error { return consumer.Stop(boom) }, -1), true, replay.Counts{Delivered: 7}, true, 0},
		{"is paused as long as it takes", bad(func() error { return schemas.ErrUnavailable }, -1), false, replay.Counts{Delivered: 7}, true, 0},
	} {
		for _, pipelined := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				to := &sink{before: tt.before}
				var target replay.Target = to
				if pipelined {
					target = &pipe{sink: to}
				}
				store := replay.NewMemoryStore()
				s, err := replay.RunWith(ctx, store, target, replay.Config{ID: "r", Set: set(recorded(20)), SkipFailed: tt.skip})
				if pipelined && tt.fails { // later ones of other keys may be in the target, and are not behind
					tt.want.Delivered = s.Delivered
				}
				if (err != nil) != tt.fails || s.Counts != tt.want || tt.name != "is paused as long as it takes" && s.Retries != tt.tries {
					t.Errorf("%s (pipelined %v): %v, %+v, %d retries", tt.name, pipelined, err, s.Counts, s.Retries)
				}
				if tt.fails && tt.name != "is paused as long as it takes" && (!errors.Is(err, boom) || !strings.Contains(err.Error(), "orders/")) {
					t.Errorf("%s: the error does not say what and where: %v", tt.name, err)
				}
				if tt.fails { // the next run begins with it
					to.before = nil
					s, err = replay.RunWith(t.Context(), store, target, replay.Config{ID: "r", Set: set(recorded(20))})
					if err != nil || s.Delivered != 20 || len(to.ids()) != 20 || !to.endsAs(recorded(20)) {
						t.Errorf("%s, then: %v, %+v", tt.name, err, s.Counts)
					}
				}
			})
		}
	}
}

// pipe answers in its own time, and out of order between keys.
type pipe struct{ *sink }

func (p *pipe) Send(ctx context.Context, e event.Event, done func(event.Event, error)) {
	e.Attempt = 1
	if p.before != nil {
		if err := p.before(ctx, e); err != nil {
			go func() {
				_ = wait(ctx, 3*time.Millisecond)
				done(e, err)
			}()
			return
		}
	}
	p.mu.Lock()
	p.got = append(p.got, e)
	p.mu.Unlock()
	go func() {
		_ = wait(ctx, time.Millisecond)
		done(e, nil)
	}()
}

// What fails in a pipeline is sent again with everything of its key behind it, so that the last event of a key is the
// last that the target got.
func TestAPipelineMendsTheOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		events := recorded(5000)
		var mu sync.Mutex
		failed := map[string]bool{}
		to := &sink{before: func(_ context.Context, e event.Event) error {
			mu.Lock()
			defer mu.Unlock()
			if e.Attempt == 1 && rand.IntN(100) == 0 && !failed[e.ID] {
				failed[e.ID] = true
				return errors.New("not now")
			}
			return nil
		}}
		s, err := replay.RunWith(t.Context(), replay.NewMemoryStore(), &pipe{sink: to}, replay.Config{ID: "r", Set: set(events)})
		if err != nil || s.Delivered != 5000 || len(to.ids()) != 5000 {
			t.Fatalf("%v, %+v", err, s.Counts)
		}
		if !to.endsAs(events) {
			t.Error("the last event of a key is not the last that the target got")
		}
		if repeated := len(to.got) - 5000; int64(repeated) != s.Repeats || repeated == 0 {
			t.Errorf("repeated %d, said %d", repeated, s.Repeats)
		}
	})
}

func TestFilters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		match := func(e *event.Event) (bool, error) {
			switch e.Value[len(e.Value)-1] {
			case '1':
				return false, schemas.ErrPoison
			case '2':
				return false, errors.New("no such field")
			}
			return e.Value[len(e.Value)-1] != '3', nil
		}
		to := &sink{}
		s, err := replay.RunWith(t.Context(), replay.NewMemoryStore(), to, replay.Config{ID: "r", Set: set(recorded(1000)), Read: reader.Config{Match: match}})
		if want := (replay.Counts{Delivered: 700, Filtered: 100, Undecodable: 100, Unanswered: 100}); err != nil || s.Counts != want || !s.Done {
			t.Errorf("%v, %+v", err, s)
		}
		none, err := replay.RunWith(t.Context(), replay.NewMemoryStore(), to, replay.Config{
			ID: "r", Set: set(recorded(10)), Read: reader.Config{Match: func(*event.Event) (bool, error) { return false, schemas.ErrUnavailable }},
		})
		if !errors.Is(err, schemas.ErrUnavailable) || none.Filtered+none.Undecodable != 0 {
			t.Errorf("nothing is known, and yet: %v, %+v", err, none.Counts)
		}
	})
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		events := recorded(1000)
		store := replay.NewMemoryStore()
		ctx, stop := context.WithCancel(t.Context())
		to := &sink{before: func(context.Context, event.Event) error { stop(); return nil }}
		cfg := replay.Config{ID: "r", Set: set(events), Note: "a"}
		if _, err := replay.RunWith(ctx, store, to, cfg); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		other := cfg
		other.Note = "b"
		if _, err := replay.RunWith(t.Context(), store, to, other); !errors.Is(err, replay.ErrMismatch) {
			t.Errorf("another note: %v", err)
		}
		other = cfg
		other.Set = set(events[1:])
		if _, err := replay.RunWith(t.Context(), store, to, other); !errors.Is(err, replay.ErrMismatch) {
			t.Errorf("another set: %v", err)
		}
		back := slices.Clone(events)
		slices.Reverse(back)
		if _, err := replay.RunWith(t.Context(), store, to, replay.Config{ID: "x", Set: set(back)}); err == nil || !strings.Contains(err.Error(), "in the order of its partitions") {
			t.Errorf("a set out of order: %v", err)
		}
		for name, bad := range map[string]replay.Config{
			"id":     {ID: "a/b"},
			"speed":  {Speed: -1},
			"keys":   {Keys: -1},
			"follow": {Read: reader.Config{Topics: []string{"t"}, Follow: true}},
			"note":   {Note: strings.Repeat("x", 3000)},
			"defer":  {Retry: consumer.Retry{Deferred: []time.Duration{1}}},
		} {
			if _, err := replay.Run(t.Context(), kafka.Cluster{}, to, bad); err == nil || !strings.Contains(err.Error(), "replay: Config.") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
