package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/pgtest"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/parquetsink"
	"github.com/millrace/millrace/sink/pgsink"
	"github.com/millrace/millrace/sink/sqlitesink"
)

// paid is the status of an order when it is written for the second time.
const paid = "PAID"

// settings are those of a server that is made for writing; commits wait for the disk, and pages are written whole.
var settings = []string{"max_wal_size=4GB", "checkpoint_timeout=15min", "shared_buffers=512MB"}

// connections are those that a sink has to its database, ours and the peer's.
const connections = 2

// sinks is what the arms of sinks share: rows to read, and a PostgreSQL that waits for its disk.
type sinks struct {
	rows    string // the topic
	server  *pgtest.Server
	pool    *pgxpool.Pool
	version string
}

// sinks reports whether the arm writes rows.
func (a arm) sinks() bool { return strings.HasPrefix(a.name, "sink ") }

// sinkArms write the events of one topic to tables and files. The peer stands for the raw arm: no raw client writes rows.
func (w *work) sinkArms() []arm {
	return []arm{
		{"sink connect insert", "", w.connectInsert},
		{"sink pg append", "sink connect insert", w.pg(sink.Table{Append: true})},
		{"sink pg copy", "sink connect insert", w.pg(sink.Table{Append: true, NoDedupe: true})},
		{"sink pg copy dedupe", "sink connect insert", w.dedupe},
		{"sink sqlite append", "sink connect insert", w.sqlite},
		{"sink parquet", "sink connect insert", w.parquet},
		{"sink connect upsert", "", w.connectUpsert},
		{"sink pg upsert", "sink connect upsert", w.pg(sink.Table{Key: []string{"order_id"}})},
	}
}

// pg writes into a table of PostgreSQL.
func (w *work) pg(t sink.Table) func(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	return func(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
		t.Name, t.Event = fmt.Sprintf("sink_%d", time.Now().UnixNano()), Order{}.AvroName()
		out := pgsink.New(w.sinks.pool, pgsink.Config{})
		out.Table(t)
		return errors.Join(w.sink(ctx, c, out, topic, n, k, sink.Config{}), w.drop(ctx, t.Name))
	}
}

// dedupe is the copy with every event's id noted and looked up: what skipping a producer's repeats costs.
func (w *work) dedupe(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	t := sink.Table{Name: fmt.Sprintf("sink_%d", time.Now().UnixNano()), Event: Order{}.AvroName(), Append: true, NoDedupe: true}
	out := pgsink.New(w.sinks.pool, pgsink.Config{})
	out.Table(t)
	return errors.Join(w.sink(ctx, c, out, topic, n, k, sink.Config{Dedupe: 24 * time.Hour}), w.drop(ctx, t.Name))
}

func (w *work) sqlite(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := sqlitesink.Open(filepath.Join(dir, "rows.db"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	out := sqlitesink.New(db, sqlitesink.Config{})
	out.Table(sink.Table{Name: "orders", Event: Order{}.AvroName(), Append: true})
	return w.sink(ctx, c, out, topic, n, k, sink.Config{})
}

func (w *work) parquet(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Files of 10,000 rows: with larger ones the first, which is not measured, would be half of the work.
	return w.sink(ctx, c, parquetsink.New(parquetsink.Config{Dir: dir}), topic, n, k, sink.Config{Batch: 10_000})
}

// sink runs t until it has written n events. Joining the group and the first transaction are not measured, as the peer's are not.
func (w *work) sink(ctx context.Context, c kafka.Cluster, t sink.Target, topic string, n int, k *clock, cfg sink.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := &written{want: int64(n), clock: k, done: cancel}
	cfg.Name, cfg.Topics, cfg.Observer, cfg.CreateTopics = group("sink"), []string{topic}, o, true
	err := sink.Run(ctx, c, w.registry, t, cfg)
	return all(n, o.events.Load(), err)
}

// written counts what transactions have written.
type written struct {
	sink.Silent

	want   int64
	events atomic.Int64
	clock  *clock
	first  sync.Once
	done   func()
}

func (o *written) Written(_ cursor.ID, w sink.Written, _ time.Duration, err error) {
	if err != nil {
		return
	}
	o.first.Do(o.clock.start)
	if o.events.Add(int64(w.Events)) >= o.want {
		o.clock.stop()
		o.done()
	}
}

func (w *work) drop(ctx context.Context, table string) error {
	_, err := w.sinks.pool.Exec(ctx, "DROP TABLE IF EXISTS "+table)
	return err
}

func (w *work) topic(a arm, source string) string {
	if a.sinks() {
		return w.sinks.rows
	}
	return source
}

// prepareSinks writes the rows to read, and starts PostgreSQL.
func (w *work) prepareSinks(ctx context.Context, c kafka.Cluster, adm *kadm.Client, o options) (err error) {
	if w.sinks.rows, err = makeTopic(ctx, adm, "bench-rows", o.partitions); err != nil {
		return err
	}
	if err := w.publishRows(ctx, c, w.sinks.rows, o.records); err != nil {
		return fmt.Errorf("write the rows to read: %w", err)
	}
	if w.sinks.server, err = pgtest.Boot(ctx, pgtest.Config{Fsync: true, Settings: settings}); err != nil {
		return err
	}
	w.sinks.version = "PostgreSQL " + w.sinks.server.Version + ", fsync on, " + strings.Join(settings, ", ")
	cfg, err := pgxpool.ParseConfig(w.sinks.server.DSN("postgres"))
	if err != nil {
		return err
	}
	cfg.MaxConns = connections
	w.sinks.pool, err = pgxpool.NewWithConfig(ctx, cfg)
	return err
}

func (w *work) closeSinks() {
	if w.sinks.pool != nil {
		w.sinks.pool.Close()
	}
	if w.sinks.server != nil {
		_ = w.sinks.server.Close()
	}
}

// connectInsert and connectUpsert are the peer.
func (w *work) connectInsert(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	if err := w.table(ctx, "connect_insert", ""); err != nil {
		return err
	}
	return connect(ctx, c, w.sinks.pool, topic, "connect_insert", "insert", n, k)
}

func (w *work) connectUpsert(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	if err := w.table(ctx, "connect_upsert", ", PRIMARY KEY (order_id)"); err != nil {
		return err
	}
	return connect(ctx, c, w.sinks.pool, topic, "connect_upsert", "upsert", n, k)
}

// table creates an empty table for orders.
func (w *work) table(ctx context.Context, name, key string) error {
	_, err := w.sinks.pool.Exec(ctx, `DROP TABLE IF EXISTS `+name+`; CREATE TABLE `+name+` (order_id text, customer_id text, country text, currency text, status text,
		street text, city text, coupon text, cents bigint, items integer, weight double precision, express boolean`+key+`)`)
	return err
}

// publishRows writes n orders: each event has an id of its own, and each order is written twice, so that an upsert
// inserts half of the time and updates the other half.
func (w *work) publishRows(ctx context.Context, c kafka.Cluster, topic string, n int) error {
	client, err := c.Client(kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(50_000))
	if err != nil {
		return err
	}
	defer client.Close()
	var acked atomic.Int64
	for i := range n {
		o := w.orders[i%distinct]
		o.OrderID = orderID(i, n)
		if i >= n/2 {
			o.Status = paid
		}
		e := event.New(topic, o.OrderID, &o) // the subject is that of the topic: a table looks its columns up there
		value, err := w.registry.Encode(ctx, nil, &e)
		if err != nil {
			return err
		}
		e.Source = source
		r := wire.Record(&e, value)
		r.Topic = topic
		client.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err == nil {
				acked.Add(1)
			}
		})
	}
	err = client.Flush(ctx)
	return all(n, acked.Load(), err)
}

// orderID is the order of row i of n, in an order that no index likes: 7,919 is prime.
func orderID(i, n int) string {
	half := max(1, n/2)
	return fmt.Sprintf("order-%08d", i%half*7919%half)
}
