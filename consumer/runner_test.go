package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/schemas"
)

// These tests run the policy on the real engine, with records, positions and dead letters in memory, and time that
// passes when nobody can go on.

var errBoom = errors.New("boom")

type num struct {
	N int `json:"n"`
}

func (num) AvroName() string { return "num" }

type word struct {
	W string `json:"w"`
}

func (word) AvroName() string { return "word" }

// fixture is one run of a consumer in memory.
type fixture struct {
	mux     *Mux
	cfg     Config
	values  []string // of topic t, partition 0, from offset 0: "5" is a num, "x" and "w5" are words, "?" poison, "~" incompatible, "!" nobody's
	outage  func() bool
	refuse  func(try int) error // of the dead letters
	burials int

	mu       sync.Mutex
	buried   []deadletter.Failure
	offsets  []int64 // of the dead letters
	position int64
}

func (f *fixture) TypeOf(_ context.Context, e *event.Event) (string, error) {
	if f.outage != nil && f.outage() {
		return "", schemas.ErrUnavailable
	}
	return e.Type, nil
}

func (f *fixture) Decode(_ context.Context, e *event.Event, into any) error {
	if string(e.Value) == "?" {
		return fmt.Errorf("decode: %w", schemas.ErrPoison)
	}
	if string(e.Value) == "~" {
		return fmt.Errorf("decode: %w", schemas.ErrIncompatible)
	}
	if w, ok := into.(*word); ok {
		w.W = string(e.Value)
		return nil
	}
	return json.Unmarshal([]byte(`{"n":`+string(e.Value)+`}`), into)
}

func (f *fixture) Write(_ context.Context, e event.Event, why deadletter.Failure) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.burials++
	if f.refuse != nil {
		if err := f.refuse(f.burials); err != nil {
			return err
		}
	}
	f.buried = append(f.buried, why)
	f.offsets = append(f.offsets, e.Offset)
	return nil
}

// Commit implements [cursor.Store] on top of the memory, and notes the position.
type notedStore struct {
	*cursor.Memory
	f *fixture
}

func (s notedStore) Commit(ctx context.Context, cs map[cursor.ID]cursor.Claimed) (map[cursor.ID]error, error) {
	s.f.mu.Lock()
	for _, c := range cs {
		s.f.position = c.Position
	}
	s.f.mu.Unlock()
	return s.Memory.Commit(ctx, cs)
}

func (f *fixture) run(t *testing.T) error {
	t.Helper()
	var err error
	synctest.Test(t, func(t *testing.T) { err = f.runIn(t.Context()) })
	return err
}

func (f *fixture) runIn(ctx context.Context) error {
	records := make([]*kgo.Record, len(f.values))
	for i, v := range f.values {
		typ := "num"
		switch {
		case v == "!":
			typ = "nobody"
		case v >= "a" && v <= "z":
			typ = "word"
			v = strings.TrimPrefix(v, "w") // "5": a word that would decode as a num
		}
		records[i] = &kgo.Record{
			Topic: "t", Offset: int64(i), Key: []byte("k"), Value: []byte(v), Timestamp: time.UnixMilli(int64(i)),
			Headers: []kgo.RecordHeader{{Key: event.HeaderType, Value: []byte(typ)}, {Key: event.HeaderID, Value: fmt.Appendf(nil, "id-%d", i)}},
		}
	}
	f.cfg.Group, f.cfg.Topics = "g", []string{"t"}
	f.cfg = f.cfg.withDefaults()
	if err := f.cfg.validate(); err != nil {
		return err
	}
	return run(ctx, engine.NewMemory(records...), notedStore{cursor.NewMemory(), f}, f, f.mux, f.cfg, f)
}

func fixtureOf(values string, register func(*Mux)) *fixture {
	f := &fixture{mux: NewMux(), values: strings.Fields(values)}
	register(f.mux)
	return f
}

// calls is a handler of nums that notes what it gets and answers by number.
type calls struct {
	mu  sync.Mutex
	got []string
}

func (c *calls) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, fmt.Sprintf(format, args...))
}

func (c *calls) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(c.got, want) {
		t.Errorf("the handler got %q, want %q", c.got, want)
	}
}

// on registers a handler that notes number and attempt, and answers.
func (c *calls) on(answer func(n, attempt int) error) func(*Mux) {
	return func(m *Mux) {
		On(m, func(_ context.Context, e event.Of[num]) error {
			c.note("%d/%d", e.Data.N, e.Attempt)
			return answer(e.Data.N, e.Attempt)
		})
	}
}

func (f *fixture) wantPosition(t *testing.T, want int64) {
	t.Helper()
	if f.position != want {
		t.Errorf("the position is %d, want %d", f.position, want)
	}
}

func (f *fixture) wantDead(t *testing.T, offsets ...int64) {
	t.Helper()
	if !slices.Equal(f.offsets, offsets) {
		t.Errorf("the dead letters are the offsets %v, want %v", f.offsets, offsets)
	}
}

func TestEachVerdictMovesThePositionAsItSays(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		err      error
		position int64
		dead     []int64
		class    deadletter.Class
		ends     error
	}{
		{"done", nil, 3, nil, "", nil},
		{"drop", Drop(errBoom), 3, nil, "", nil},
		{"dead letter", DeadLetter(errBoom), 3, []int64{1}, deadletter.Rejected, nil},
		{"retries, then the dead letters", errBoom, 3, []int64{1}, deadletter.Handler, nil},
		{"retry after, then the dead letters", RetryAfter(time.Hour, errBoom), 3, []int64{1}, deadletter.Handler, nil},
		{"stop keeps what was done", Stop(errBoom), 1, nil, "", errBoom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var c calls
			f := fixtureOf("0 1 2", c.on(func(n, _ int) error {
				if n == 1 {
					return tt.err
				}
				return nil
			}))
			if err := f.run(t); !errors.Is(err, tt.ends) || tt.ends == nil && err != nil {
				t.Fatalf("run ended with %v, want %v", err, tt.ends)
			} else if err != nil && !strings.Contains(err.Error(), "id-1") {
				t.Errorf("the error does not name the event: %v", err)
			}
			f.wantPosition(t, tt.position)
			f.wantDead(t, tt.dead...)
			if len(tt.dead) > 0 && f.buried[0].Class != tt.class {
				t.Errorf("the class is %s, want %s", f.buried[0].Class, tt.class)
			}
		})
	}
}

func TestAFailedEventIsTriedAgainInPlaceWithDoublingWaits(t *testing.T) {
	t.Parallel()
	var c calls
	var at []time.Time
	f := fixtureOf("0 1 2", c.on(func(n, attempt int) error {
		if n == 1 {
			if at = append(at, time.Now()); attempt < 4 {
				return errBoom
			}
		}
		return nil
	}))
	f.cfg.Retry = Retry{Attempts: 4, Backoff: time.Second}
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0/1", "1/1", "1/2", "1/3", "1/4", "2/1")
	f.wantDead(t)
	f.wantPosition(t, 3)
	for i, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if wait := at[i+1].Sub(at[i]); wait < most/2 || wait > most {
			t.Errorf("wait %d is %s, want between %s and %s", i+1, wait, most/2, most)
		}
	}
}

func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	var c calls
	var at []time.Time
	f := fixtureOf("0", c.on(func(_, attempt int) error {
		if at = append(at, time.Now()); attempt == 1 {
			return RetryAfter(time.Hour, errBoom)
		}
		return nil
	}))
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	if wait := at[1].Sub(at[0]); wait != time.Hour {
		t.Errorf("waited %s", wait)
	}
}

func TestTheLastAttemptIsDeadLetteredWithItsHistory(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("7", c.on(func(int, int) error { return errBoom }))
	f.cfg.Retry = Retry{Attempts: 3}
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "7/1", "7/2", "7/3")
	d := f.buried[0]
	if d.Attempts != 3 || d.Handler != "num" || d.Class != "handler" || !errors.Is(d.Err, errBoom) || !d.First.Before(d.Last) {
		t.Errorf("got %+v", d)
	}
}

func TestRetryStopEndsRunInsteadOfDeadLettering(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]error{"0 1": errBoom, "0 ?": schemas.ErrPoison} {
		var c calls
		f := fixtureOf(values, c.on(func(n, _ int) error {
			if n == 1 {
				return errBoom
			}
			return nil
		}))
		f.cfg.Retry = Retry{Attempts: 2, Stop: true}
		if err := f.run(t); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", values, err, want)
		}
		f.wantPosition(t, 1)
		f.wantDead(t)
	}
}

func TestAPanicIsTriedAgainAndThenDeadLettered(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2", c.on(func(n, attempt int) error {
		if n == 1 || n == 2 && attempt == 1 {
			panic("oh")
		}
		return nil
	}))
	f.cfg.Retry.Attempts = 2
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0/1", "1/1", "1/2", "2/1", "2/2")
	f.wantDead(t, 1)
	if d := f.buried[0]; d.Class != deadletter.Panic || len(d.Stack) == 0 {
		t.Errorf("got %+v", d)
	}
}

func TestPoisonIsDeadLetteredAtOnce(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 ? 2", c.on(func(int, int) error { return nil }))
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0/1", "2/1")
	f.wantDead(t, 1)
	if d := f.buried[0]; d.Class != "poison" || d.Attempts != 1 {
		t.Errorf("got %+v", d)
	}
}

func TestARegistryOutagePausesAndCountsNoAttempt(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2", c.on(func(int, int) error { return nil }))
	asked := 0
	f.outage = func() bool { asked++; return asked > 1 && asked < 40 }
	core, logs := observer.New(zap.InfoLevel)
	f.cfg.Log = zap.New(core)
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0/1", "1/1", "2/1")
	f.wantDead(t)
	f.wantPosition(t, 3)
	if n := logs.FilterMessageSnippet("does not answer").Len(); n != 1 {
		t.Errorf("the outage was logged %d times, want once", n)
	}
	if n := logs.FilterMessageSnippet("answers again").Len(); n != 1 {
		t.Errorf("the recovery was logged %d times, want once", n)
	}
}

func TestWhileTheDeadLettersCannotBeWrittenThePositionStays(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2", c.on(func(n, _ int) error {
		if n == 1 {
			return DeadLetter(errBoom)
		}
		return nil
	}))
	f.refuse = func(try int) error {
		if f.position > 1 {
			t.Errorf("the position is %d before the dead letter is acknowledged", f.position)
		}
		if try < 20 {
			return errors.New("no such topic")
		}
		return nil
	}
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0/1", "1/1", "2/1") // the handler's verdict stands: it is not asked again
	f.wantDead(t, 1)
	f.wantPosition(t, 3)
}

func TestADeadLetterThatWaitsDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c calls
		f := fixtureOf("0 1 2", c.on(func(n, _ int) error {
			if n == 1 {
				return DeadLetter(errBoom)
			}
			return nil
		}))
		ctx, end := context.WithCancel(t.Context())
		f.refuse = func(try int) error {
			if try == 3 {
				end()
			}
			return errors.New("no such topic")
		}
		started := time.Now()
		if err := f.runIn(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(started); took > 15*time.Second {
			t.Errorf("ended after %s", took)
		}
		f.wantPosition(t, 1)
	})
}

func TestAnIncompatibleSchemaStopsByDefault(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 ~ 2", c.on(func(int, int) error { return nil }))
	if err := f.run(t); !errors.Is(err, schemas.ErrIncompatible) {
		t.Errorf("got %v", err)
	}
	f.wantPosition(t, 1)

	f = fixtureOf("0 ~ 2", c.on(func(int, int) error { return nil }))
	f.cfg.Incompatible = DeadLettered
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	f.wantDead(t, 1)
	if f.buried[0].Class != "incompatible" {
		t.Errorf("the class is %s", f.buried[0].Class)
	}
}

func TestAnEventThatNobodyHandlesIsLoggedOncePerType(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 ! ! 3 !", c.on(func(int, int) error { return nil }))
	core, logs := observer.New(zap.WarnLevel)
	f.cfg.Log = zap.New(core)
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	f.wantPosition(t, 5)
	if n := logs.FilterMessageSnippet("no handler").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

func TestStrictStopsAtAnEventThatNobodyHandles(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 ! 2", c.on(func(int, int) error { return nil }))
	f.cfg.Strict = true
	if err := f.run(t); !errors.Is(err, ErrUnhandled) || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v", err)
	}
	f.wantPosition(t, 1)
}

func TestAnAttemptEndsWithItsTimeout(t *testing.T) {
	t.Parallel()
	f := fixtureOf("0 1", func(m *Mux) {
		On(m, func(ctx context.Context, e event.Of[num]) error {
			if e.Data.N == 1 {
				return nil
			}
			<-ctx.Done()
			return errors.New("gave up")
		})
	})
	f.cfg.Timeout, f.cfg.Retry.Attempts = time.Minute, 2
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	f.wantDead(t, 0)
	if d := f.buried[0]; d.Class != "timeout" || d.Last.Sub(d.First) < time.Minute {
		t.Errorf("got %+v", d)
	}
}

func TestTooManyDeadLettersStop(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		burst    Burst
		dead     func(n int) bool
		position int64
	}{
		{"in a row", Burst{Run: 4}, func(n int) bool { return n >= 3 }, 7},
		{"a good one in between begins a new row", Burst{Run: 4}, func(n int) bool { return n%4 != 0 }, 20},
		{"a ratio", Burst{Run: -1, Ratio: 0.5, Over: 8}, func(n int) bool { return n%3 != 0 }, 7},
		{"below the ratio", Burst{Run: -1, Ratio: 0.5, Over: 8}, func(n int) bool { return n%3 == 0 }, 20},
		{"no bound", Burst{Run: -1}, func(int) bool { return true }, 20},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var c calls
			var values []string
			for n := range 20 {
				values = append(values, fmt.Sprint(n))
			}
			f := fixtureOf(strings.Join(values, " "), c.on(func(n, _ int) error {
				if tt.dead(n) {
					return DeadLetter(errBoom)
				}
				return nil
			}))
			f.cfg.Burst = tt.burst
			err := f.run(t)
			var burst *BurstError
			if got, want := errors.As(err, &burst), tt.position < 20; got != want {
				t.Fatalf("run ended with %v", err)
			} else if got && !errors.Is(err, errBoom) {
				t.Errorf("the last error is lost: %v", err)
			}
			f.wantPosition(t, tt.position)
		})
	}
}
