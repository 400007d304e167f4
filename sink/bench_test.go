package sink_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// nothing is a database that answers at once and keeps nothing.
type nothing struct {
	sink.DB[int]
	seen   []bool
	states [][]byte
}

func (*nothing) Prepare(context.Context, sink.Plan) error { return nil }

func (*nothing) Claim(_ context.Context, _ string, ids []cursor.ID, _ map[cursor.ID]int64) (map[cursor.ID]sink.Claimed, error) {
	return map[cursor.ID]sink.Claimed{ids[0]: {Claimed: cursor.Claimed{Lease: cursor.Lease{Epoch: 1}}}}, nil
}

func (*nothing) InTx(ctx context.Context, f func(ctx context.Context, tx int) error) error {
	return f(ctx, 0)
}

func (*nothing) Advance(context.Context, int, sink.Place, sink.Place) error { return nil }

func (n *nothing) Seen(_ context.Context, _ int, _ string, ids []string, _ time.Duration) ([]bool, error) {
	n.seen = append(n.seen[:0], make([]bool, len(ids))...)
	return n.seen, nil
}

func (*nothing) Write(_ context.Context, _ int, _ *sink.Table, rows, _ *schemas.Rows) (int64, error) {
	return int64(rows.Len()), nil
}

func (n *nothing) Load(_ context.Context, _ int, _ string, keys []sink.FoldKey) ([][]byte, error) {
	n.states = append(n.states[:0], make([][]byte, len(keys))...)
	return n.states, nil
}

func (*nothing) Store(context.Context, int, string, []sink.FoldKey, [][]byte) error { return nil }

// uses are the ways of a mux, by name.
var uses = map[string]func(m *sink.Mux[int], cfg *sink.Config){
	"On": func(m *sink.Mux[int], _ *sink.Config) {
		sink.On(m, func(context.Context, int, []event.Of[placed]) error { return nil })
	},
	"OnFold": func(m *sink.Mux[int], _ *sink.Config) {
		sink.OnFold(m, sink.Fold[placed]{Name: "f", By: func(e event.Of[placed]) string { return e.Data.Country }}, add)
	},
	"Upsert": func(m *sink.Mux[int], _ *sink.Config) {
		m.Table(sink.Table{Name: "t", Event: "shop.OrderPlaced", Key: []string{"order"}})
	},
	"Append": func(m *sink.Mux[int], _ *sink.Config) {
		m.Table(sink.Table{Name: "t", Event: "shop.OrderPlaced", Append: true})
	},
	"Dedupe": func(m *sink.Mux[int], cfg *sink.Config) {
		cfg.Dedupe = time.Hour
		m.Table(sink.Table{Name: "t", Event: "shop.OrderPlaced", Append: true})
	},
}

// batch is a batch of n orders, and a member to write it, each time anew.
func batch(tb testing.TB, use string, n int) (write func()) {
	tb.Helper()
	reg := schemas.Memory()
	b := engine.Batch{ID: idOf(0), Lease: cursor.Lease{Epoch: 1}, Next: int64(n)}
	for i := range n {
		e := event.New(topic, fmt.Sprintf("o%06d", i*7919%n), placed{Order: fmt.Sprintf("o%06d", i*7919%n), Country: "DE", Cents: 1})
		e.Source, e.Time = "test", epoch
		value, err := reg.Encode(tb.Context(), nil, &e)
		if err != nil {
			tb.Fatal(err)
		}
		r := wire.Record(&e, value)
		r.Topic, r.Offset, r.Timestamp = topic, int64(i), epoch
		b.Items = append(b.Items, engine.Item{Record: r, Attempt: 1})
	}
	m, cfg := sink.NewMux[int](&nothing{}), sink.Config{Name: "analytics", Topics: []string{topic}}
	uses[use](m, &cfg)
	member, err := sink.NewMember(tb.Context(), logsOf{}, logsOf{}, reg, m, cfg, nil, "")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := member.Claim(tb.Context(), []cursor.ID{b.ID}, nil); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if v := member.Handle(tb.Context(), b); v != nil {
			tb.Fatal(v[0].Err)
		}
		for i := range b.Items { // the place has moved on
			b.Items[i].Record.Offset += int64(n)
		}
		b.Next += int64(n)
	}
}

// BenchmarkWrite is what an event costs between Kafka and the database, in batches of 5,000.
func BenchmarkWrite(b *testing.B) {
	for _, use := range []string{"On", "OnFold", "Upsert", "Append", "Dedupe"} {
		b.Run(use, func(b *testing.B) {
			const n = 5000
			write := batch(b, use, n)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += n {
				write()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// An event costs no memory but what its decoding does: for a Go type the strings in it.
func TestMemoryPerEvent(t *testing.T) { //nolint:paralleltest // counts allocations
	for use, most := range map[string]float64{"On": 1.1, "OnFold": 1.1, "Upsert": 0.1, "Append": 0.1, "Dedupe": 0.1} {
		const n = 5000
		write := batch(t, use, n)
		if got := testing.AllocsPerRun(10, write) / n; got > most {
			t.Errorf("%s: %.2f allocations an event, at most %.1f", use, got, most)
		}
	}
}
