package metrics_test

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/sink"
)

func TestASinkShowsItsTransactions(t *testing.T) {
	t.Parallel()
	m := create(t)
	o, err := m.Sink("analytics")
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Sink("analytics") // a second one of the process
	if err != nil {
		t.Fatal(err)
	}
	at := id("shop.orders", 0)
	o.Written(at, sink.Written{Events: 10, Rows: 7, Repeats: 2, Buried: 1}, time.Millisecond, nil)
	again.Written(at, sink.Written{Events: 5, Rows: 5}, time.Millisecond, nil)
	o.Written(at, sink.Written{Events: 5}, time.Millisecond, errors.New("deadlock"))
	o.Fenced(at)
	o.Settled(at, true)
	o.Settled(at, false)
	got := read(t, m.Handler())
	got.want(t, "millrace_sink_transactions_total", map[string]float64{
		"consumergroup=analytics outcome=committed topic=shop.orders": 2, "consumergroup=analytics outcome=failed topic=shop.orders": 1,
		"consumergroup=analytics outcome=fenced topic=shop.orders": 1, "consumergroup=analytics outcome=settled topic=shop.orders": 1,
		"consumergroup=analytics outcome=lost topic=shop.orders": 1,
	})
	got.want(t, "millrace_sink_written_total", map[string]float64{
		"consumergroup=analytics topic=shop.orders what=events": 15, "consumergroup=analytics topic=shop.orders what=rows": 12,
		"consumergroup=analytics topic=shop.orders what=repeats": 2, "consumergroup=analytics topic=shop.orders what=buried": 1,
	})
	got.want(t, "millrace_sink_transaction_duration_seconds", map[string]float64{"consumergroup=analytics": 2})
}

func TestASinkNeedsItsNames(t *testing.T) {
	t.Parallel()
	m := create(t)
	if err := m.Register(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_sink_written_total"}, []string{"x"})); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Sink("analytics"); err == nil {
		t.Error("somebody else's metric is taken for ours")
	}
}
