package sqlitesink_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sqlitesink"
)

// placed is an event of the tests.
type placed struct {
	Order   string `avro:"order"`
	Country string `avro:"country"`
	Cents   int64  `avro:"cents"`
}

func (placed) AvroSchema() string {
	return `{"type":"record","name":"shop.Placed","fields":[{"name":"order","type":"string"},{"name":"country","type":"string"},{"name":"cents","type":"long"}]}`
}

type revenue struct{ Cents, Orders int64 }

// target writes a table by key, one row per event, a fold and what a function likes, all in one transaction.
func target(pool *sql.DB) *sink.Mux[*sql.Tx] {
	out := sqlitesink.New(pool, sqlitesink.Config{})
	out.Table(sink.Table{Name: "orders", Event: "shop.Placed", Key: []string{"order"}})
	out.Table(sink.Table{Name: "log", Event: "shop.Placed", Append: true, Columns: []sink.Column{{Name: "cents"}, {Name: "part", From: "$partition"}, {Name: "at", From: "$offset"}}})
	sink.OnFold(out, sink.Fold[placed]{Name: "revenue", By: func(e event.Of[placed]) string { return e.Data.Country }}, func(r revenue, e event.Of[placed]) revenue {
		return revenue{r.Cents + e.Data.Cents, r.Orders + 1}
	})
	sink.On(out, func(ctx context.Context, tx *sql.Tx, es []event.Of[placed]) error {
		for _, e := range es {
			if _, err := tx.ExecContext(ctx, `INSERT INTO calls (n) VALUES (?)`, e.Data.Cents); err != nil {
				return err
			}
		}
		return nil
	})
	return out
}

// Two members of one sink share a file; one ends and comes back. Every event counts once in all that they keep, and a
// producer's repeat counts not at all.
func TestRun(t *testing.T) {
	t.Parallel()
	const topic, n = "shop.placed", 3000
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, topic, topic+".analytics.dlq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cluster, reg := kafka.Cluster{Seeds: fake.ListenAddrs()}, schemas.Memory()
	pub, err := producer.New(cluster, reg, producer.Config{Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pub.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	events := make([]event.Event, n)
	for i := range events {
		order := fmt.Sprintf("o%05d", i%1000)
		events[i] = event.New(topic, order, placed{Order: order, Country: []string{"DE", "FR"}[i%2], Cents: int64(i)})
	}
	publish := func(es ...event.Event) {
		t.Helper()
		if err := pub.Publish(t.Context(), es...); err != nil {
			t.Fatal(err)
		}
	}

	path := filepath.Join(t.TempDir(), "analytics.db")
	pools := make([]*sql.DB, 2)
	for i := range pools {
		if pools[i], err = sqlitesink.Open(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pools[i].Close() })
	}
	if _, err := pools[0].ExecContext(t.Context(), `CREATE TABLE calls (n INTEGER) STRICT`); err != nil {
		t.Fatal(err)
	}
	start := func(pool *sql.DB) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		cfg := sink.Config{Name: "analytics", Topics: []string{topic}, Wait: time.Millisecond, Batch: 200, Dedupe: time.Hour}
		go func() { ended <- sink.Run(ctx, cluster, reg, target(pool), cfg) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	one := func(query string) (got int64) {
		t.Helper()
		if err := pools[0].QueryRowContext(t.Context(), query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	until := func(orders int64) {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		late := time.After(30 * time.Second)
		for {
			var at sql.NullInt64 // the table is made by the sink
			err := pools[0].QueryRowContext(t.Context(), `SELECT count(*) FROM log`).Scan(&at)
			if err == nil && at.Int64 >= orders {
				return
			}
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("%d of %d rows, %v", at.Int64, orders, err)
			}
		}
	}

	publish(events[:1000]...)
	stop := start(pools[0])
	until(500)
	stop()
	stops := []func(){start(pools[0]), start(pools[1])}
	publish(events[:100]...) // the producer's repeat
	publish(events[1000:]...)
	until(n)
	for _, stop := range stops {
		stop()
	}
	const sum = n * (n - 1) / 2
	for query, want := range map[string]int64{
		`SELECT count(*) FROM log`:                                        n,
		`SELECT sum(cents) FROM log`:                                      sum,
		`SELECT count(*) FROM (SELECT DISTINCT part, at FROM log)`:        n,
		`SELECT sum(n) FROM calls`:                                        sum,
		`SELECT count(*) FROM orders`:                                     1000,
		`SELECT min(cents) FROM orders`:                                   2000, // the last of each key
		`SELECT sum(state ->> 'Cents') FROM revenue`:                      sum,
		`SELECT sum(state ->> 'Orders') FROM revenue`:                     n,
		`SELECT sum(next_offset) FROM millrace_sink_offsets`:              n + 100,
		`SELECT count(*) FROM millrace_sink_seen WHERE sink='analytics'`:  n,
		`SELECT count(*) FROM millrace_sink_offsets WHERE updated > 1e15`: 4,
	} {
		if got := one(query); got != want {
			t.Errorf("%s: got %d, want %d", query, got, want)
		}
	}
}

func ExampleNew() {
	run := func(ctx context.Context, cluster kafka.Cluster, registry *schemas.Registry) error {
		db, err := sqlitesink.Open("analytics.db")
		if err != nil {
			return err
		}
		defer db.Close() //nolint:errcheck // all that counts is committed
		out := sqlitesink.New(db, sqlitesink.Config{})
		out.Table(sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"order_id"}})
		return sink.Run(ctx, cluster, registry, out, sink.Config{Name: "analytics", Topics: []string{"shop.orders"}})
	}
	_ = run
}
