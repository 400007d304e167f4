package schemas

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/event"
)

// faulty is a registry that can be away, slow, and counts what it is asked.
type faulty struct {
	*memory

	mu    sync.Mutex
	away  bool
	slow  time.Duration
	asked map[string]int
}

func newFaulty() *faulty { return &faulty{memory: newMemory(), asked: map[string]int{}} }

func (f *faulty) ask(ctx context.Context, what string) error {
	f.mu.Lock()
	f.asked[what]++
	away, slow := f.away, f.slow
	f.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	if away {
		return fmt.Errorf("%w: connection refused", ErrUnavailable)
	}
	return nil
}

func (f *faulty) set(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

func (f *faulty) count(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[what]
}

func (f *faulty) byID(ctx context.Context, id int32) (record, error) {
	if err := f.ask(ctx, "id"); err != nil {
		return record{}, err
	}
	return f.memory.byID(ctx, id)
}

func (f *faulty) version(ctx context.Context, subject string, version int) (record, error) {
	if err := f.ask(ctx, "version"); err != nil {
		return record{}, err
	}
	return f.memory.version(ctx, subject, version)
}

func (f *faulty) lookup(ctx context.Context, subject string, r record) (record, error) {
	if err := f.ask(ctx, "lookup"); err != nil {
		return record{}, err
	}
	return f.memory.lookup(ctx, subject, r)
}

func open(t *testing.T, topics map[string]Topic) (*Registry, *faulty) {
	t.Helper()
	f := newFaulty()
	if _, err := f.register(t.Context(), "t-value", record{text: `{"type":"record","name":"R","fields":[{"name":"x","type":"long"}]}`}); err != nil {
		t.Fatal(err)
	}
	return newRegistry(Config{Topics: topics}.withDefaults(), f), f
}

// Many who ask for one id at once are one request.
func TestResolverSingleFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, f := open(t, nil)
		f.slow = time.Second
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if s, err := r.ByID(t.Context(), 1); err != nil || s.Name != "R" {
					t.Errorf("got %+v, %v", s, err)
				}
			})
		}
		wg.Wait()
		if n := f.count("id"); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// One caller who gives up does not fail the others, and is told that the registry is unavailable.
func TestResolverImpatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, f := open(t, nil)
		f.slow = time.Second
		hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.ByID(hasty, 1); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait() // the hasty one has asked
		wg.Go(func() {
			if _, err := r.ByID(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if n := f.count("id"); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// An outage never fails what is known, and makes what is not known unavailable, never poison.
func TestResolverOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, f := open(t, nil)
		known := event.Event{Meta: event.Meta{Topic: "t"}, Value: []byte{0, 0, 0, 0, 1, 14}}
		unknown := event.Event{Meta: event.Meta{Topic: "t"}, Value: []byte{0, 0, 0, 0, 9, 14}}
		if err := r.Decode(t.Context(), &known, new(any)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Latest(t.Context(), "t-value"); err != nil {
			t.Fatal(err)
		}
		f.set(true)
		time.Sleep(24 * time.Hour) //nolint:forbidigo // the bubble's clock
		if err := r.Decode(t.Context(), &known, new(any)); err != nil {
			t.Errorf("a known id fails in an outage: %v", err)
		}
		if s, err := r.Latest(t.Context(), "t-value"); err != nil || s.Version != 1 {
			t.Errorf("the latest version that is known does not stand: %v", err)
		}
		asked := f.count("version")
		if _, err := r.Latest(t.Context(), "t-value"); err != nil || f.count("version") != asked {
			t.Errorf("every call asks a registry that is away: %v", err)
		}
		if err := r.Decode(t.Context(), &unknown, new(any)); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrPoison) {
			t.Errorf("got %v, want unavailable", err)
		}
		f.set(false)
		if err := r.Decode(t.Context(), &unknown, new(any)); !errors.Is(err, ErrPoison) || errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v, want poison from a healthy registry", err)
		}
	})
}

// A topic full of one unknown id asks once in some seconds; then the answer may have changed.
func TestResolverNegativeCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, f := open(t, nil)
		e := event.Event{Meta: event.Meta{Topic: "t"}, Value: []byte{0, 0, 0, 0, 2, 14}}
		for range 1000 {
			if err := r.Decode(t.Context(), &e, new(any)); !errors.Is(err, ErrPoison) {
				t.Fatalf("got %v, want poison", err)
			}
		}
		if n := f.count("id"); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if _, err := f.register(t.Context(), "u", record{text: `"long"`}); err != nil { // by someone else
			t.Fatal(err)
		}
		time.Sleep(refusalTTL + time.Millisecond) //nolint:forbidigo // the bubble's clock
		if err := r.Decode(t.Context(), &e, new(any)); err != nil {
			t.Errorf("registered meanwhile, and still %v", err)
		}
	})
}

// The latest version is looked up again after the TTL, and a writer follows it.
func TestResolverLatest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, f := open(t, map[string]Topic{"t": {Latest: true}})
		publish := func() int32 {
			e := event.New("t", "k", map[string]any{"x": 7})
			b, err := r.Encode(t.Context(), nil, &e)
			if err != nil {
				t.Fatal(err)
			}
			return int32(b[4])
		}
		if id := publish(); id != 1 {
			t.Fatalf("written with schema %d", id)
		}
		if _, err := f.register(t.Context(), "t-value", record{text: `{"type":"record","name":"R","fields":[{"name":"x","type":"long"},{"name":"y","type":"int","default":1}]}`}); err != nil {
			t.Fatal(err)
		}
		asked := f.count("version")
		if id := publish(); id != 1 || f.count("version") != asked {
			t.Errorf("written with schema %d before the TTL, asked %d times more", id, f.count("version")-asked)
		}
		time.Sleep(r.ttl + time.Second) //nolint:forbidigo // the bubble's clock
		if id := publish(); id != 2 {
			t.Errorf("written with schema %d after the TTL", id)
		}
		f.set(true)
		time.Sleep(r.ttl + time.Second) //nolint:forbidigo // the bubble's clock
		if id := publish(); id != 2 {
			t.Errorf("written with schema %d in an outage", id)
		}
	})
}

// What is known is bounded, and what was dropped is asked for again.
func TestResolverBound(t *testing.T) {
	t.Parallel()
	var c cache[int, int]
	for i := range maxCached + 10 {
		c.put(i, i)
	}
	if n := len(*c.read.Load()); n > maxCached || n < maxCached/2 {
		t.Errorf("the cache holds %d", n)
	}
	if v, ok := c.get(maxCached + 9); !ok || v != maxCached+9 {
		t.Error("the newest is gone")
	}
}

// The hot paths allocate nothing but what the codec does.
func TestNoAllocations(t *testing.T) {
	r, _ := open(t, nil)
	e := event.Event{Meta: event.Meta{Topic: "t"}, Value: []byte{0, 0, 0, 0, 1, 14}}
	type row struct {
		X int64 `avro:"x"`
	}
	var into row
	out := event.New("t", "k", &into)
	buf := make([]byte, 0, 64)
	for name, f := range map[string]func() error{
		"decode": func() error { return r.Decode(t.Context(), &e, &into) },
		"type":   func() error { _, err := r.TypeOf(t.Context(), &e); return err },
		"encode": func() error { _, err := r.Encode(t.Context(), buf, &out); return err },
	} {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = f() }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// The references of a text are found, in the order of their use, and a circle or a crowd of them is refused.
func TestReferences(t *testing.T) {
	t.Parallel()
	r, f := open(t, nil)
	money := record{text: `{"type":"record","name":"a.Money","fields":[{"name":"cents","type":"long"}]}`}
	if _, err := f.register(t.Context(), "money", money); err != nil {
		t.Fatal(err)
	}
	line := `{"type":"record","name":"a.Line","fields":[{"name":"price","type":"a.Money"}]}`
	if _, err := r.Register(t.Context(), "line", line, Reference{"a.Money", "money", 1}); err != nil {
		t.Fatal(err)
	}
	s, err := r.Register(t.Context(), "order", `{"type":"record","name":"a.Order","fields":[{"name":"line","type":"a.Line"},{"name":"total","type":"a.Money"}]}`,
		Reference{"a.Line", "line", 1}, Reference{"a.Money", "money", 1})
	if err != nil {
		t.Fatal(err)
	}
	e := event.Event{Meta: event.Meta{Topic: "t"}, Value: append(appendFrame(nil, s.ID), 14, 18)}
	text, err := newRegistry(Config{}.withDefaults(), f).AppendJSON(t.Context(), nil, &e)
	if want := `{"line":{"price":{"cents":7}},"total":{"cents":9}}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	f.records[f.bySubj["money"][0]-1].refs = []Reference{{"a.Line", "line", 1}}
	if _, err := newRegistry(Config{}.withDefaults(), f).Version(t.Context(), "order", 1); !errors.Is(err, ErrIncompatible) {
		t.Errorf("a circle: got %v", err)
	}
}

// A recursive schema, and one with an empty union, never reach goavro.
func TestEngine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{"type":"record","name":"R","fields":[{"name":"x","type":"long"}]}`:                      true,
		`{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}`:                false,
		`{"type":"record","name":"R","fields":[{"name":"e","type":{"type":"array","items":[]}}]}`: false,
	} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		g, err := s.generic()
		if err != nil {
			t.Fatal(err)
		}
		if _, got := g.engine.(goavroEngine); got != want {
			t.Errorf("%s: goavro is %v, want %v", text, got, want)
		}
	}
}

// What generic data costs in memory is known before it is made, for every kind of value, and bounded.
func TestMeter(t *testing.T) {
	t.Parallel()
	s, err := Parse(`{"type":"record","name":"R","fields":[
		{"name":"n","type":"null"},{"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"f","type":"float"},{"name":"d","type":"double"},
		{"name":"s","type":"string"},{"name":"x","type":{"type":"fixed","name":"F","size":2}},{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},
		{"name":"m","type":{"type":"map","values":"long"}},{"name":"u","type":["null","bytes"]},{"name":"a","type":{"type":"array","items":"R"}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.generic()
	if err != nil {
		t.Fatal(err)
	}
	body, err := s.FromJSON(nil, []byte(`{"n":null,"b":true,"i":300,"f":1,"d":2,"s":"text","x":"ab","e":"B","m":{"k":7},"u":"xyz","a":[
		{"n":null,"b":true,"i":1,"f":1,"d":2,"s":"","x":"ab","e":"A","m":{},"u":null,"a":[]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var m meter
	rest, err := m.walk(g.tree.root, append(body, "rest"...))
	if err != nil || string(rest) != "rest" || m.cost < costOfMap {
		t.Errorf("left %q, %v, cost %d", rest, err, m.cost)
	}
	for n := range body {
		if _, err := new(meter).walk(g.tree.root, body[:n]); err == nil {
			t.Errorf("%d bytes of %d are a value", n, len(body))
		}
	}
	tiny, err := Parse(`{"type":"array","items":{"type":"record","name":"T","fields":[{"name":"b","type":"boolean"}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	many := append([]byte{0x80, 0x80, 0x80, 0x01}, make([]byte, 1<<20+1)...) // 2^20 records of one byte
	if _, err := tiny.AppendJSON(nil, many); !errors.Is(err, ErrPoison) {
		t.Errorf("a million tiny records: got %v, want poison", err)
	}
}

// A schema beyond the configured limits is served as text, and its events are incompatible.
func TestConfigLimits(t *testing.T) {
	t.Parallel()
	_, f := open(t, nil)
	r := newRegistry(Config{Limits: Limits{Fields: 1}}.withDefaults(), f)
	if s, err := r.ByID(t.Context(), 1); err != nil || s.Text == "" {
		t.Errorf("got %+v, %v", s, err)
	}
	e := event.Event{Meta: event.Meta{Topic: "t"}, Value: []byte{0, 0, 0, 0, 1, 14}}
	if err := r.Decode(t.Context(), &e, new(any)); !errors.Is(err, ErrIncompatible) {
		t.Errorf("got %v, want ErrIncompatible", err)
	}
}
