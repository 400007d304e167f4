package event_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
)

type placed struct{ OrderID string }

type shipped struct{ OrderID string }

func (shipped) AvroName() string { return "shop.OrderShipped" }

type orderID string

func TestNewStampsADifferentIDEachTime(t *testing.T) {
	t.Parallel()
	v7 := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 10_000 {
		id := event.New("t", "k", nil).ID
		if !v7.MatchString(id) {
			t.Fatalf("got id %q, want a UUIDv7", id)
		}
		if seen[id] {
			t.Fatalf("id %s was stamped twice", id)
		}
		seen[id] = true
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	var none []byte
	tests := []struct {
		name string
		got  event.Event
		want []byte
	}{
		{"string", event.New("t", "k", nil), []byte("k")},
		{"named string", event.New("t", orderID("k"), nil), []byte("k")},
		{"empty string is not null", event.New("t", "", nil), []byte{}},
		{"bytes", event.New("t", []byte{0xff}, nil), []byte{0xff}},
		{"nil bytes are null", event.New("t", none, nil), nil},
		{"unkeyed is null", event.Unkeyed("t", nil), nil},
		{"tombstone", event.Tombstone("t", "k"), []byte("k")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !bytes.Equal(tt.got.Key, tt.want) || (tt.got.Key == nil) != (tt.want == nil) {
				t.Errorf("got key %#v, want %#v", tt.got.Key, tt.want)
			}
		})
	}
}

func TestAfterDerivesTheSameIDForTheSameEffect(t *testing.T) {
	t.Parallel()
	cause := event.New("orders", "o1", placed{"o1"})
	base := event.After(cause.Meta, "shipments", "o1", shipped{"o1"})
	tests := []struct {
		name string
		e    event.Event
		same bool
	}{
		{"again", event.After(cause.Meta, "shipments", "o1", shipped{"o1"}), true},
		{"again with other data", event.After(cause.Meta, "shipments", "o1", shipped{"o2"}), true},
		{"a pointer is the same type", event.After(cause.Meta, "shipments", "o1", &shipped{"o1"}), true},
		{"other topic", event.After(cause.Meta, "returns", "o1", shipped{"o1"}), false},
		{"other key", event.After(cause.Meta, "shipments", "o2", shipped{"o1"}), false},
		{"other type", event.After(cause.Meta, "shipments", "o1", placed{"o1"}), false},
		{"label", event.After(cause.Meta, "shipments", "o1", shipped{"o1"}, "second"), false},
		{"other cause", event.After(event.New("orders", "o1", nil).Meta, "shipments", "o1", shipped{"o1"}), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.e.ID == base.ID; got != tt.same {
				t.Errorf("got same id %v, want %v", got, tt.same)
			}
		})
	}
	if !regexp.MustCompile(`-8[0-9a-f]{3}-[89ab]`).MatchString(base.ID) {
		t.Errorf("got id %s, want a UUIDv8", base.ID)
	}
}

// The id of an effect is a promise to every later version: a change here would make a replay publish everything anew.
func TestDerivedIDIsPinned(t *testing.T) {
	t.Parallel()
	if got, want := event.DeriveID("a", "bc"), pinned; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if event.DeriveID("a", "bc") == event.DeriveID("ab", "c") {
		t.Error("parts run into each other")
	}
}

func TestAfterHandsOnCorrelationAndCause(t *testing.T) {
	t.Parallel()
	first := event.New("a", "k", placed{})
	first.Tenant = "acme"
	first.Headers = event.Headers{{Key: event.HeaderTraceParent, Value: []byte("00-trace")}}
	second := event.After(first.Meta, "b", "k", placed{})
	third := event.After(second.Meta, "c", "k", placed{})
	if got := string(third.Headers.Get(event.HeaderCorrelation)); got != first.ID {
		t.Errorf("got correlation %s, want the first event's id %s", got, first.ID)
	}
	if got := string(third.Headers.Get(event.HeaderCause)); got != second.ID {
		t.Errorf("got cause %s, want the second event's id %s", got, second.ID)
	}
	if third.Tenant != "acme" || string(third.Headers.Get(event.HeaderTraceParent)) != "00-trace" {
		t.Errorf("tenant or trace is lost: %+v", third.Meta)
	}
}

func TestHeadersRoundTrip(t *testing.T) {
	t.Parallel()
	in := event.Meta{
		ID: "id-1", Type: "shop.OrderPlaced", Source: "orders", Tenant: "acme", ContentType: "application/avro",
		Time:    time.Date(2026, 11, 24, 9, 0, 0, 123456789, time.FixedZone("CET", 3600)),
		Headers: event.Headers{{Key: "x", Value: []byte("1")}, {Key: "x", Value: nil}, {Key: "ce_subject", Value: []byte("s")}, {Key: "ce_id", Value: []byte("old")}},
	}
	h := event.AppendHeaders(nil, in)
	var out event.Meta
	event.ParseHeaders(&out, h)
	if !out.Time.Equal(in.Time) {
		t.Errorf("got time %v, want %v", out.Time, in.Time)
	}
	want := in
	want.Time, want.Headers = out.Time, h
	if !reflect.DeepEqual(out, want) {
		t.Errorf("got %+v, want %+v", out, want)
	}
	// A header that stands for an attribute is written once, from Meta; every other one keeps its place and repeats.
	ids := 0
	for _, x := range h {
		if x.Key == event.HeaderID {
			ids++
		}
	}
	if tail := h[len(h)-3:]; ids != 1 || tail[0].Key != "x" || tail[1].Value != nil || tail[2].Key != "ce_subject" {
		t.Errorf("got headers %v", h)
	}
}

func TestParseHeadersKeepsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	when := time.UnixMilli(1).UTC()
	m := event.Meta{ID: "topic/0/1", Time: when}
	event.ParseHeaders(&m, event.Headers{
		{Key: event.HeaderTime, Value: []byte("yesterday")},
		{Key: event.HeaderID, Value: bytes.Repeat([]byte("x"), 256)},
		{Key: event.HeaderType, Value: nil},
	})
	if m.ID != "topic/0/1" || !m.Time.Equal(when) || m.Type != "" {
		t.Errorf("got %+v", m)
	}
}

func TestGetTakesTheLastAndWithCopies(t *testing.T) {
	t.Parallel()
	h := event.Headers{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}, {Key: "a", Value: []byte("3")}}
	if got := string(h.Get("a")); got != "3" {
		t.Errorf("got %q, want the last value", got)
	}
	with := h.With("a", []byte("4"))
	if len(h) != 3 || string(h.Get("a")) != "3" || len(with) != 2 || string(with.Get("a")) != "4" {
		t.Errorf("got %v from %v", with, h)
	}
}

func TestNowFollowsTheContext(t *testing.T) {
	t.Parallel()
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	ctx := event.WithClock(t.Context(), func() time.Time { return at })
	if got := event.Now(ctx); !got.Equal(at) {
		t.Errorf("got %v, want the context's clock", got)
	}
	if d := time.Since(event.Now(t.Context())); d < 0 || d > time.Minute {
		t.Errorf("without a clock, Now is %v off the wall clock", d)
	}
}

// Two effects with one derived id would be taken for a repeat and one would be lost: the second is refused.
func TestClaimRefusesASecondEffectWithTheSameID(t *testing.T) {
	t.Parallel()
	cause := event.New("orders", "o1", placed{})
	effect := event.After(cause.Meta, "shipments", "o1", shipped{})
	ctx := event.WithAttempt(t.Context())
	if err := event.Claim(ctx, &effect); err != nil {
		t.Fatal(err)
	}
	second := event.After(cause.Meta, "shipments", "o1", shipped{})
	if err := event.Claim(ctx, &second); !errors.Is(err, event.ErrSameEffect) {
		t.Fatalf("got %v, want ErrSameEffect", err)
	}
	labelled := event.After(cause.Meta, "shipments", "o1", shipped{}, "2")
	if err := event.Claim(ctx, &labelled); err != nil {
		t.Errorf("a labelled effect is refused: %v", err)
	}
	event.Unclaim(ctx, &effect)
	if err := event.Claim(ctx, &second); err != nil {
		t.Errorf("after Unclaim the effect may be published again: %v", err)
	}
	if err := event.Claim(event.WithAttempt(t.Context()), &second); err != nil {
		t.Errorf("another attempt publishes the same id: %v", err)
	}
	plain := event.New("t", "k", nil)
	for range 2 { // a value of New may be published again: its id is the point
		if err := event.Claim(ctx, &plain); err != nil {
			t.Error(err)
		}
	}
}

func TestAttemptPassesValuesThrough(t *testing.T) {
	t.Parallel()
	type key struct{}
	ctx := event.WithAttempt(event.WithReplay(context.WithValue(t.Context(), key{}, 1), event.Replay{ID: "r", Shadow: true}))
	if r, ok := event.InReplay(ctx); !ok || r.ID != "r" || !r.Shadow || ctx.Value(key{}) != 1 {
		t.Errorf("got %+v", r)
	}
	if _, ok := event.InReplay(t.Context()); ok {
		t.Error("a plain context is in no replay")
	}
}

const pinned = "3fafa1cf-2f19-87c1-929b-eb20cf0983f7"

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = event.New("topic", "key", nil)
	}
}

func BenchmarkAppendHeaders(b *testing.B) {
	b.ReportAllocs()
	m := event.New("topic", "key", nil).Meta
	m.Type, m.Source, m.ContentType, m.Time = "shop.OrderPlaced", "orders", "application/avro", time.Now()
	dst := make(event.Headers, 0, 8)
	for b.Loop() {
		dst = m.AppendTo(dst[:0])
	}
}
