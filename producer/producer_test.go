package producer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
)

func cluster(fake *kfake.Cluster) kafka.Cluster { return kafka.Cluster{Seeds: fake.ListenAddrs()} }

func TestAPublishedEventIsOnTheLogWithItsAttributes(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{Source: "shop"})
	e := event.New("a", "k", "hello")
	e.Tenant = "acme"
	e.Headers = event.Headers{{Key: "x", Value: []byte("1")}}
	clock := time.Date(2026, 11, 24, 9, 0, 0, 5e6, time.UTC)
	ctx := event.WithClock(soon(t), func() time.Time { return clock })
	if err := p.Publish(ctx, e); err != nil {
		t.Fatal(err)
	}
	got := read(t, fake, "a", 1)[0]
	if got.ID != e.ID || got.Type != "test.Text" || got.Source != "shop" || got.Tenant != "acme" || got.ContentType != "text/plain" ||
		!got.Time.Equal(clock) || string(got.Key) != "k" || string(got.Value) != "hello" || string(got.Headers.Get("x")) != "1" {
		t.Errorf("got %+v", got)
	}
	if e.Type != "" || !e.Time.IsZero() || e.Source != "" {
		t.Errorf("the caller's event was changed: %+v", e.Meta)
	}
	if since := time.Since(got.Published); since < -time.Minute || since > time.Minute {
		t.Errorf("got record timestamp %v: want the time of publishing, not the event's", got.Published)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{})
	raw := event.New("a", "raw", nil)
	raw.Value = []byte{0, 1, 2}
	none := event.New("a", "none", nil)
	none.Value = []byte{}
	if err := p.Publish(soon(t), raw, none, event.Tombstone("a", "dead"), event.New("a", "empty", ""), event.Unkeyed("a", "x")); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"raw": {0, 1, 2}, "none": {}, "dead": nil, "empty": {}, "": []byte("x")}
	for _, e := range read(t, fake, "a", len(want)) {
		w := want[string(e.Key)]
		if !bytes.Equal(e.Value, w) || (e.Value == nil) != (w == nil) {
			t.Errorf("key %q: got value %#v, want %#v", e.Key, e.Value, w)
		}
	}
}

// The hashes are those of Kafka's own test of its murmur2 (UtilsTest.testMurmur2); a key's partition is the hash
// without its sign bit, modulo the number of partitions.
func TestKeysGoWhereJavaClientsPutThem(t *testing.T) {
	t.Parallel()
	const partitions = 97
	fake := newFake(t, kfake.SeedTopics(partitions, "wide"))
	p := open(t, cluster(fake), producer.Config{})
	hashes := map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	}
	var events []event.Event
	for key := range hashes {
		events = append(events, event.New("wide", key, "x"))
	}
	if err := p.Publish(soon(t), events...); err != nil {
		t.Fatal(err)
	}
	for _, e := range read(t, fake, "wide", len(events)) {
		if want := hashes[string(e.Key)] & 0x7fffffff % partitions; e.Partition != want {
			t.Errorf("key %q: got partition %d, want %d", e.Key, e.Partition, want)
		}
	}
}

// A Publish that did not wait for the answer would return nil here, and one that asked for fewer replicas would not
// send acks=-1.
func TestPublishWaitsForAllInSyncReplicas(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{})
	acks := make(chan int16, 1)
	fake.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		if r, ok := r.(*kmsg.ProduceRequest); ok {
			acks <- r.Acks
		}
		fake.DropControl()
		return nil, nil, false
	})
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord})
	if err := p.Publish(soon(t), event.New("a", "k", "x")); !errors.Is(err, kerr.InvalidRecord) {
		t.Errorf("got %v, want the broker's answer", err)
	}
	if got := <-acks; got != -1 {
		t.Errorf("got acks=%d, want -1", got)
	}
}

func TestABatchGoesToManyTopicsAndEachEventHasItsOutcome(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{})
	in := []event.Event{
		event.New("a", "1", "x"), event.New("b", "1", "x"), event.New("a", "2", "bad"), event.New("none", "1", "x"), event.New("b", "2", "x"),
	}
	err := p.Publish(soon(t), in...)
	rs := results(t, err)
	want := []producer.Outcome{producer.Acked, producer.Acked, producer.Rejected, producer.Rejected, producer.Acked}
	for i, r := range rs {
		if r.Outcome != want[i] || r.Event.ID != in[i].ID || (r.Err == nil) != (want[i] == producer.Acked) {
			t.Errorf("event %d: got %v (%v), want %v", i, r.Outcome, r.Err, want[i])
		}
		if acked := r.Outcome == producer.Acked; acked != (r.Offset >= 0) || acked != (r.Partition >= 0) {
			t.Errorf("event %d: got place %d@%d", i, r.Partition, r.Offset)
		}
	}
	if !errors.Is(err, errBad) || !errors.Is(err, producer.ErrUnknownTopic) || !errors.Is(err, producer.ErrRejected) || errors.Is(err, producer.ErrUnknown) {
		t.Errorf("errors.Is does not look into each: %v", err)
	}
	if !strings.Contains(err.Error(), "publish 5 events: 2 rejected, 0 unknown") || !strings.Contains(err.Error(), in[2].ID) {
		t.Errorf("got %q", err)
	}
	if a, b := count(fake, "a"), count(fake, "b"); a != 1 || b != 2 {
		t.Errorf("a has %d and b %d records, want 1 and 2", a, b)
	}
}

func TestOrderPerKey(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{MaxRecords: 100}) // it fills up many times
	const keys, each = 7, 600
	var failed error
	var mu sync.Mutex
	for i := range each {
		for k := range keys {
			e := event.New("a", fmt.Sprint(k), fmt.Sprint(i))
			if k == 0 {
				if i%50 == 0 {
					if err := p.Publish(soon(t), e); err != nil {
						t.Fatal(err)
					}
					continue
				}
			}
			p.PublishAsync(soon(t), e, func(_ event.Event, err error) {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
			})
		}
	}
	if err := p.Close(soon(t)); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	next := map[string]int{}
	for _, e := range read(t, fake, "a", keys*each) {
		if want := fmt.Sprint(next[string(e.Key)]); string(e.Value) != want {
			t.Fatalf("key %s: got %s, want %s", e.Key, e.Value, want)
		}
		next[string(e.Key)]++
	}
}

func TestAsyncTellsWhereTheEventIs(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{Source: "s"})
	done := make(chan event.Event, 3)
	for range 3 {
		p.PublishAsync(soon(t), event.New("a", "k", "x"), func(e event.Event, err error) {
			if err != nil {
				t.Error(err)
			}
			done <- e
		})
	}
	for want := range int64(3) {
		if e := <-done; e.Offset != want || e.Source != "s" || e.Time.IsZero() {
			t.Errorf("got %+v, want offset %d", e.Meta, want)
		}
	}
}

func TestEventsThatNobodyCouldReadOrTellApartAreRejected(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{BatchBytes: 2048, MaxBytes: 4096})
	with := func(change func(*event.Event)) event.Event {
		e := event.New("a", "k", "x")
		change(&e)
		return e
	}
	tests := []struct {
		name string
		e    event.Event
		says string
		is   error
	}{
		{"no topic", with(func(e *event.Event) { e.Topic = "" }), "no topic", nil},
		{"no id", with(func(e *event.Event) { e.ID = "" }), "event.New", nil},
		{"a long id", with(func(e *event.Event) { e.ID = strings.Repeat("x", 256) }), "255", nil},
		{"data that does not fit", with(func(e *event.Event) { e.Data = 7 }), "", errBad},
		{"larger than a batch", with(func(e *event.Event) { e.Data = strings.Repeat("x", 3000) }), "Config.BatchBytes", producer.ErrTooLarge},
		{"larger than the producer may hold", with(func(e *event.Event) { e.Data = strings.Repeat("x", 5000) }), "Config.MaxBytes", producer.ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check := func(err error) {
				t.Helper()
				if !errors.Is(err, producer.ErrRejected) || errors.Is(err, producer.ErrUnknown) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want a rejection that says %q", err, tt.says)
				}
				if tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("got %v, want %v in it", err, tt.is)
				}
			}
			check(p.Publish(t.Context(), tt.e))
			done := make(chan error, 1)
			p.PublishAsync(t.Context(), tt.e, func(_ event.Event, err error) { done <- err })
			check(<-done)
		})
	}
}

func TestWithoutAnEncoderValuesAreSentAndDataIsRejected(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p, err := producer.New(cluster(fake), nil, producer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	raw := event.New("a", "k", nil)
	raw.Value = []byte("v")
	rs := results(t, p.Publish(soon(t), raw, event.New("a", "k", "x")))
	if rs[0].Outcome != producer.Acked || rs[1].Outcome != producer.Rejected {
		t.Errorf("got %v and %v, want acked and rejected", rs[0].Outcome, rs[1].Outcome)
	}
	if err := p.Close(soon(t)); err != nil {
		t.Error(err)
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{})
	cause := event.New("a", "k", "x")
	effect := func(data string) event.Event { return event.After(cause.Meta, "b", "k", data) }

	ctx := event.WithAttempt(soon(t))
	if err := p.Publish(ctx, effect("bad")); !errors.Is(err, errBad) {
		t.Fatalf("got %v, want a rejection", err)
	}
	if err := p.Publish(ctx, effect("one")); err != nil {
		t.Fatalf("a rejected event keeps its id claimed: %v", err)
	}
	for range 2 { // a refusal gives back nothing: the first holds the id
		if err := p.Publish(ctx, effect("two")); !errors.Is(err, event.ErrSameEffect) || !errors.Is(err, producer.ErrRejected) {
			t.Fatalf("got %v, want ErrSameEffect", err)
		}
		p.PublishAsync(ctx, effect("three"), func(_ event.Event, err error) {
			if !errors.Is(err, event.ErrSameEffect) {
				t.Errorf("got %v, want ErrSameEffect", err)
			}
		})
	}
	if err := p.Publish(event.WithAttempt(soon(t)), effect("one")); err != nil {
		t.Errorf("the next attempt publishes the same id again: %v", err)
	}
	if n := count(fake, "b"); n != 2 {
		t.Errorf("got %d records, want 2", n)
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	errNot := errors.New("not in a replay")
	p := open(t, cluster(fake), producer.Config{Redirect: func(topic string) (string, error) {
		switch topic {
		case "a":
			return "b", nil
		case "captured":
			return "", nil
		}
		return "", errNot
	}})
	rs := results(t, p.Publish(soon(t), event.New("a", "k", "x"), event.New("captured", "k", "x"), event.New("c", "k", "x"), event.New("captured", "k", "bad")))
	if r := rs[0]; r.Outcome != producer.Acked || r.Topic != "b" || r.Event.Topic != "a" {
		t.Errorf("got %v in %s", r.Outcome, r.Topic)
	}
	if r := rs[1]; r.Outcome != producer.Acked || r.Offset != -1 {
		t.Errorf("captured: got %v at %d", r.Outcome, r.Offset)
	}
	if r := rs[2]; r.Outcome != producer.Rejected || !errors.Is(r.Err, errNot) {
		t.Errorf("got %v, want a rejection", r.Err)
	}
	if r := rs[3]; !errors.Is(r.Err, errBad) {
		t.Errorf("captured events are encoded all the same: got %v", r.Err)
	}
	if a, b := count(fake, "a"), count(fake, "b"); a != 0 || b != 1 {
		t.Errorf("a has %d and b %d records, want 0 and 1", a, b)
	}
	called := false
	p.PublishAsync(soon(t), event.New("captured", "k", "x"), func(_ event.Event, err error) { called = err == nil })
	if !called {
		t.Error("a captured event is not answered")
	}
}

type seen struct {
	mu    sync.Mutex
	ends  map[producer.Outcome]int
	bytes int
}

func (s *seen) Published(_ string, o producer.Outcome, size int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends[o]++
	if o == producer.Acked {
		s.bytes += size
	}
	if took < 0 {
		s.ends[-1]++
	}
}

func TestObserverHearsOfEveryEnd(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	s := &seen{ends: map[producer.Outcome]int{}}
	p := open(t, cluster(fake), producer.Config{Observer: s})
	_ = p.Publish(soon(t), event.New("a", "k", "x"), event.New("a", "k", "bad"))
	p.PublishAsync(soon(t), event.New("a", "k", "x"), nil)
	p.PublishAsync(soon(t), event.New("a", "k", "bad"), nil)
	if err := p.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	_ = p.Publish(soon(t), event.New("a", "k", "x"))
	p.PublishAsync(soon(t), event.New("a", "k", "x"), nil)
	if s.ends[producer.Acked] != 2 || s.ends[producer.Rejected] != 4 || len(s.ends) != 2 || s.bytes < 100 {
		t.Errorf("got %v and %d bytes", s.ends, s.bytes)
	}
}

func TestCompressionIsReadable(t *testing.T) {
	t.Parallel()
	for _, c := range []string{"", "none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run("codec "+c, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t)
			p := open(t, cluster(fake), producer.Config{Compression: c})
			data := strings.Repeat("x", 10_000)
			if err := p.Publish(soon(t), event.New("a", "k", data)); err != nil {
				t.Fatal(err)
			}
			if got := read(t, fake, "a", 1)[0]; string(got.Value) != data {
				t.Errorf("got %d bytes", len(got.Value))
			}
		})
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  producer.Config
		says string
	}{
		{"codec", producer.Config{Compression: "brotli"}, "Config.Compression"},
		{"linger", producer.Config{Linger: time.Hour}, "Config.Linger"},
		{"records", producer.Config{MaxRecords: -1}, "Config.MaxRecords"},
		{"batch", producer.Config{BatchBytes: 100}, "Config.BatchBytes"},
		{"bytes", producer.Config{MaxBytes: -1}, "Config.MaxBytes"},
		{"source", producer.Config{Source: strings.Repeat("x", 300)}, "Config.Source"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := producer.New(kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}, text{}, tt.cfg); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error that names %s", err, tt.says)
			}
		})
	}
	if _, err := producer.New(kafka.Cluster{}, text{}, producer.Config{}); err == nil || !strings.Contains(err.Error(), "Seeds") {
		t.Errorf("got %v, want an error that names Seeds", err)
	}
}

func TestNothingIsPublishedByNothing(t *testing.T) {
	t.Parallel()
	p := open(t, kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}, producer.Config{})
	if err := p.Publish(context.Background()); err != nil {
		t.Error(err)
	}
}
