package wire_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
)

var topicID = [16]byte{0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}

// The cast between the two header types is sound only while this holds.
func TestHeaderTypesHaveOneLayout(t *testing.T) {
	t.Parallel()
	ours, theirs := reflect.TypeFor[event.Header](), reflect.TypeFor[kgo.RecordHeader]()
	if ours.Size() != theirs.Size() || ours.Align() != theirs.Align() || ours.NumField() != theirs.NumField() {
		t.Fatalf("event.Header is %d bytes, %d fields; kgo.RecordHeader is %d bytes, %d fields", ours.Size(), ours.NumField(), theirs.Size(), theirs.NumField())
	}
	for i := range ours.NumField() {
		a, b := ours.Field(i), theirs.Field(i)
		if a.Name != b.Name || a.Offset != b.Offset || a.Type != b.Type {
			t.Errorf("field %d: event.Header has %s %s at %d, kgo.RecordHeader has %s %s at %d", i, a.Name, a.Type, a.Offset, b.Name, b.Type, b.Offset)
		}
	}
}

func TestCastsShareMemory(t *testing.T) {
	t.Parallel()
	h := make([]kgo.RecordHeader, 2, 5)
	h[0], h[1] = kgo.RecordHeader{Key: "a", Value: []byte("1")}, kgo.RecordHeader{Key: "b"}
	e := wire.Headers(h)
	if len(e) != 2 || cap(e) != 5 || unsafe.Pointer(&e[0]) != unsafe.Pointer(&h[0]) {
		t.Fatalf("Headers copies: len %d, cap %d", len(e), cap(e))
	}
	back := wire.RecordHeaders(e)
	if len(back) != 2 || cap(back) != 5 || &back[0] != &h[0] {
		t.Fatalf("RecordHeaders copies: len %d, cap %d", len(back), cap(back))
	}
	if wire.Headers(nil) != nil || wire.RecordHeaders(nil) != nil {
		t.Error("nil does not stay nil")
	}
	if e := wire.Headers([]kgo.RecordHeader{}); e == nil || len(e) != 0 {
		t.Error("empty does not stay empty")
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	published := time.UnixMilli(1_790_000_000_123)
	happened := time.Date(2026, 9, 1, 12, 0, 0, 5000, time.UTC)
	tests := []struct {
		name    string
		headers []kgo.RecordHeader
		want    event.Meta
	}{
		{
			"all attributes",
			headers("ce_specversion", "1.0", "ce_id", "i1", "ce_type", "shop.OrderPlaced", "ce_source", "storefront", "ce_time", "2026-09-01T12:00:00.000005Z", "ce_tenant", "acme", "content-type", "application/avro", "x", "y"),
			event.Meta{ID: "i1", Type: "shop.OrderPlaced", Source: "storefront", Time: happened, Tenant: "acme", ContentType: "application/avro"},
		},
		{"no headers", nil, event.Meta{ID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8/3/42", Time: published}},
		{"an empty id is no id", headers("ce_id", ""), event.Meta{ID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8/3/42", Time: published}},
		{"a null id is no id", []kgo.RecordHeader{{Key: "ce_id"}}, event.Meta{ID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8/3/42", Time: published}},
		{"an id of 256 bytes is no id", headers("ce_id", strings.Repeat("i", 256)), event.Meta{ID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8/3/42", Time: published}},
		{"an id of 255 bytes is one", headers("ce_id", strings.Repeat("i", 255)), event.Meta{ID: strings.Repeat("i", 255), Time: published}},
		{"the last of a repeated header counts", headers("ce_id", "first", "ce_id", "last"), event.Meta{ID: "last", Time: published}},
		{"a foreign time is ignored", headers("ce_id", "i", "ce_time", "yesterday"), event.Meta{ID: "i", Time: published}},
		{"header names are exact", headers("CE_ID", "i", "ce_id ", "j"), event.Meta{ID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8/3/42", Time: published}},
		{"bytes that are no UTF-8", headers("ce_id", "\xff\xfe", "ce_type", "\x00"), event.Meta{ID: "\xff\xfe", Type: "\x00", Time: published}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &kgo.Record{
				Topic: "shop.orders", Partition: 3, Offset: 42, LeaderEpoch: 7, Timestamp: published,
				Key: []byte("o1"), Value: []byte("v"), Headers: tt.headers,
			}
			e := event.New("other", "k", 1) // whatever stood there before
			e.Attempt = 5
			wire.Read(&e, r, topicID)
			want := tt.want
			want.Topic, want.Partition, want.Offset, want.Epoch, want.Published, want.Key = "shop.orders", 3, 42, 7, published, r.Key
			want.Headers = wire.Headers(tt.headers)
			if !reflect.DeepEqual(e.Meta, want) {
				t.Errorf("got  %+v\nwant %+v", e.Meta, want)
			}
			if e.Data != nil || string(e.Value) != "v" || &e.Value[0] != &r.Value[0] || &e.Key[0] != &r.Key[0] {
				t.Errorf("data %v, value %q: want nil and the record's own bytes", e.Data, e.Value)
			}
		})
	}
}

func TestReadKeepsNullApartFromEmpty(t *testing.T) {
	t.Parallel()
	var e event.Event
	wire.Read(&e, &kgo.Record{Topic: "t"}, topicID)
	if e.Key != nil || e.Value != nil || !e.IsTombstone() {
		t.Errorf("null: key %v, value %v", e.Key, e.Value)
	}
	wire.Read(&e, &kgo.Record{Topic: "t", Key: []byte{}, Value: []byte{}}, topicID)
	if e.Key == nil || e.Value == nil || e.IsTombstone() {
		t.Errorf("empty: key %v, value %v", e.Key, e.Value)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	made := event.New("shop.orders", "o1", "data")
	made.Type, made.Source, made.Tenant, made.ContentType = "shop.OrderPlaced", "storefront", "acme", "application/avro"
	made.Time = time.Date(2026, 9, 1, 12, 0, 0, 123456789, time.FixedZone("CEST", 7200))
	made.Headers = event.Headers{
		{Key: "b", Value: []byte("2")},
		{Key: "a", Value: nil},
		{Key: "b", Value: []byte{}},
		{Key: "b", Value: []byte("2")},
		{Key: "", Value: []byte("no name")},
	}
	r := wire.Record(&made, []byte("encoded"))
	if r.Topic != made.Topic || !bytes.Equal(r.Key, made.Key) || string(r.Value) != "encoded" || r.Partition != 0 || !r.Timestamp.IsZero() {
		t.Errorf("record %+v", r)
	}
	if len(r.Headers) != cap(r.Headers) {
		t.Errorf("%d headers in room for %d", len(r.Headers), cap(r.Headers))
	}
	var read event.Event
	wire.Read(&read, r, topicID)
	if read.ID != made.ID || read.Type != made.Type || read.Source != made.Source || read.Tenant != made.Tenant || read.ContentType != made.ContentType || !read.Time.Equal(made.Time) {
		t.Errorf("got %+v, want %+v", read.Meta, made.Meta)
	}
	var own event.Headers
	for _, h := range read.Headers {
		if !strings.HasPrefix(h.Key, "ce_") && h.Key != "content-type" {
			own = append(own, h)
		}
	}
	if !reflect.DeepEqual(own, made.Headers) {
		t.Errorf("own headers %v, want %v: order, repeats, null and empty stay", own, made.Headers)
	}
	// Written again, as a copy is: the same headers, none twice.
	again := wire.Record(&read, read.Value)
	if !reflect.DeepEqual(again.Headers, r.Headers) {
		t.Errorf("copied: %v\nwant    %v", again.Headers, r.Headers)
	}
}

func TestRecordOfATombstone(t *testing.T) {
	t.Parallel()
	e := event.Tombstone("t", "k")
	if r := wire.Record(&e, nil); r.Value != nil || string(r.Key) != "k" || len(r.Headers) != 2 {
		t.Errorf("record %+v", r)
	}
	e = event.Unkeyed("t", 1)
	if r := wire.Record(&e, []byte{}); r.Key != nil || r.Value == nil {
		t.Errorf("record %+v", r)
	}
}

func TestAllocations(t *testing.T) {
	e, r := sample()
	if n := testing.AllocsPerRun(100, func() { wire.Read(&e, r, topicID) }); n != 0 {
		t.Errorf("Read allocates %.0f times, want 0", n)
	}
	bare := &kgo.Record{Topic: "t"}
	if n := testing.AllocsPerRun(100, func() { wire.Read(&e, bare, topicID) }); n != 1 {
		t.Errorf("Read of a record without an id allocates %.0f times, want 1: the id", n)
	}
	e, _ = sample()
	if n := testing.AllocsPerRun(100, func() { sink = wire.Record(&e, e.Value) }); n != 3 {
		t.Errorf("Record allocates %.0f times, want 3: record, headers, ce_time", n)
	}
}

var sink *kgo.Record

func headers(pairs ...string) []kgo.RecordHeader {
	var h []kgo.RecordHeader
	for i := 0; i < len(pairs); i += 2 {
		h = append(h, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return h
}

func sample() (event.Event, *kgo.Record) {
	e := event.New("shop.orders", "order-1", nil)
	e.Type, e.Source, e.ContentType, e.Value = "shop.OrderPlaced", "storefront", "application/avro", make([]byte, 200)
	e.Time = time.Date(2026, 9, 1, 12, 0, 0, 123456789, time.UTC)
	return e, wire.Record(&e, e.Value)
}

func BenchmarkRead(b *testing.B) {
	e, r := sample()
	b.ReportAllocs()
	for b.Loop() {
		wire.Read(&e, r, topicID)
	}
}

func BenchmarkReadWithoutID(b *testing.B) {
	e, r := sample()
	r.Headers = nil
	b.ReportAllocs()
	for b.Loop() {
		wire.Read(&e, r, topicID)
	}
}

func BenchmarkRecord(b *testing.B) {
	e, _ := sample()
	b.ReportAllocs()
	for b.Loop() {
		sink = wire.Record(&e, e.Value)
	}
}

func ExampleRead() {
	r := &kgo.Record{Topic: "shop.orders", Partition: 1, Offset: 7, Headers: []kgo.RecordHeader{{Key: "ce_type", Value: []byte("shop.OrderPlaced")}}}
	var e event.Event
	wire.Read(&e, r, topicID)
	fmt.Println(e.Type, e.ID)
	// Output: shop.OrderPlaced 6ba7b810-9dad-11d1-80b4-00c04fd430c8/1/7
}
