package consumer

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/schemas"
)

// benched is an event of some 100 bytes in six fields.
type benched struct {
	ID       string `avro:"id"`
	Customer string `avro:"customer"`
	Country  string `avro:"country"`
	Address  string `avro:"address"`
	Cents    int64  `avro:"cents"`
	At       int64  `avro:"at"`
}

func (benched) AvroName() string   { return "bench.Order" }
func (benched) AvroSchema() string { return benchedSchema }

var benchedSchema = schemas.MustFor[benched]()

// BenchmarkRun is one partition from memory through engine, mux and codec to a handler that does nothing: what a record
// costs beside the client.
func BenchmarkRun(b *testing.B) {
	mux := map[string]func(*Mux){
		"On":        func(m *Mux) { On(m, func(context.Context, event.Of[benched]) error { return nil }) },
		"OnBatch":   func(m *Mux) { OnBatch(m, func(context.Context, []event.Of[benched]) error { return nil }) },
		"Otherwise": func(m *Mux) { m.Otherwise(func(context.Context, event.Event) error { return nil }) },
	}
	for _, name := range []string{"On", "OnBatch", "Otherwise"} {
		b.Run(name, func(b *testing.B) {
			reg := schemas.Memory()
			e := event.New("t", "key", benched{"o-000001", "c-0042", "DE", "Mill Lane 1, 12345 Milltown", 1999, 1700000000000})
			e.Source, e.Time = "bench", time.Now()
			value, err := reg.Encode(b.Context(), nil, &e)
			if err != nil {
				b.Fatal(err)
			}
			records := make([]*kgo.Record, b.N)
			proto := wire.Record(&e, value)
			proto.Timestamp = time.Now()
			for i := range records {
				r := *proto
				r.Offset = int64(i)
				records[i] = &r
			}
			m := NewMux()
			mux[name](m)
			cfg := Config{Group: "g", Topics: []string{"t"}}.withDefaults()
			feed := engine.NewMemory(records...)
			b.ReportAllocs()
			b.ResetTimer()
			if err := run(b.Context(), feed, cursor.NewMemory(), reg, m, cfg, nil); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
