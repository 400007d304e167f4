package parquetsink

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

const orderSchema = `{"type":"record","name":"shop.Order","fields":[
	{"name":"id","type":"string"},{"name":"customer","type":"string"},{"name":"country","type":["null","string"]},
	{"name":"cents","type":"long"},{"name":"items","type":"int"},
	{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
	{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"note","type":"string"}]}`

// BenchmarkWrite writes batches of rows of 200 bytes in eight columns to files, fsync included: from rows that are
// decoded, and from events.
func BenchmarkWrite(b *testing.B) {
	reg := schemas.Memory()
	s, err := reg.Register(b.Context(), "shop.orders-value", orderSchema)
	if err != nil {
		b.Fatal(err)
	}
	events := make([]event.Event, Batch)
	for i := range events {
		text := fmt.Sprintf(`{"id":"order-%08d","customer":"customer-%06d","country":"DE","cents":%d,"items":3,"total":"%d.90","at":"2026-01-02T03:04:05Z","note":"%s"}`,
			i, i*7919%10000, i*100, i, strings.Repeat(fmt.Sprintf("%09d ", i*7919%1000003), 13))
		body, err := s.FromJSON(nil, []byte(text))
		if err != nil {
			b.Fatal(err)
		}
		events[i] = event.Event{Meta: event.Meta{Topic: "shop.orders", Offset: int64(i)}, Value: append([]byte{0, 0, 0, 0, byte(s.ID)}, body...)}
	}
	open := func(b *testing.B) (*writer, sink.Place) {
		b.Helper()
		w, err := New(Config{Dir: b.TempDir()}).open(reg, setup("shop.orders"))
		if err != nil {
			b.Fatal(err)
		}
		id := cursor.ID{Reader: "lake", Topic: "shop.orders"}
		if _, err := w.Claim(b.Context(), []cursor.ID{id}, map[cursor.ID]int64{id: 0}); err != nil {
			b.Fatal(err)
		}
		return w, sink.Place{ID: id}
	}
	b.Run("rows", func(b *testing.B) {
		w, from := open(b)
		rows, _, err := w.rows(b.Context(), w.topics["shop.orders"], events)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			to := from
			to.Next += int64(len(events))
			if err := w.publish(b.Context(), w.topics["shop.orders"], sink.Batch{From: from, To: to}, rows); err != nil {
				b.Fatal(err)
			}
			from = to
		}
		b.ReportMetric(float64(b.N*len(events))/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("events", func(b *testing.B) {
		w, from := open(b)
		b.ReportAllocs()
		for b.Loop() {
			to := from
			to.Next += int64(len(events))
			if err := w.Write(b.Context(), sink.Batch{From: from, To: to, Events: events}); err != nil {
				b.Fatal(err)
			}
			from = to
		}
		b.ReportMetric(float64(b.N*len(events))/b.Elapsed().Seconds(), "rows/s")
	})
}
