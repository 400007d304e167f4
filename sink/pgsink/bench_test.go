package pgsink_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/pgtest"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/pgsink"
)

const (
	benchBatch   = 5000
	benchBatches = 40 // by connection
)

// orderColumns are eight columns of some 200 bytes a row.
var orderColumns = []schemas.Column{
	{Name: "order_id", Path: []string{"order_id"}, Kind: schemas.KindString},
	{Name: "customer", Path: []string{"customer"}, Kind: schemas.KindString},
	{Name: "country", Path: []string{"country"}, Kind: schemas.KindString},
	{Name: "status", Path: []string{"status"}, Kind: schemas.KindString},
	{Name: "cents", Path: []string{"cents"}, Kind: schemas.KindInt},
	{Name: "items", Path: []string{"items"}, Kind: schemas.KindInt},
	{Name: "at", Path: []string{"at"}, Kind: schemas.KindTimestamp},
	{Name: "note", Path: []string{"note"}, Kind: schemas.KindString, Nullable: true},
}

var eventIDColumn = schemas.Column{Name: "event_id", Path: []string{"$id"}, Kind: schemas.KindString}

// rowsOf makes rows of JSON objects.
func rowsOf(tb testing.TB, columns []schemas.Column, events ...event.Event) *schemas.Rows {
	tb.Helper()
	rows, err := schemas.Memory().NewRows(columns...)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range events {
		events[i].ContentType = "application/json"
		if err := rows.Append(context.WithoutCancel(tb.Context()), &events[i]); err != nil {
			tb.Fatalf("%s: %v", events[i].Value, err)
		}
	}
	return rows
}

func benchRows(b *testing.B, columns []schemas.Column, key func(i int) string) *schemas.Rows {
	b.Helper()
	keys := make([]string, benchBatch)
	for i := range keys {
		keys[i] = key(i)
	}
	slices.Sort(keys)
	events := make([]event.Event, benchBatch)
	for i, k := range keys {
		id := event.New("t", k, nil).ID
		events[i] = event.Event{Meta: event.Meta{ID: id, Topic: "t"}, Value: []byte(`{"order_id":"` + k + `","customer":"customer-` + strconv.Itoa(i%977) +
			`","country":"DE","status":"shipped","cents":` + strconv.Itoa(100+i) + `,"items":3,"at":"2026-11-24T12:00:00.123456Z","note":"` + strings.Repeat("x", 75) + `"}`)}
	}
	return rowsOf(b, columns, events...)
}

// BenchmarkRealWrite writes transactions of 5,000 rows of 200 bytes, decoded before, with their positions, to a
// PostgreSQL that waits for its disk, and reports rows a second. MILLRACE_BENCH_POSTGRES is the DSN of a database to
// use instead of one of our own, whose tables are dropped.
//
//	go test ./sink/pgsink -run '^$' -bench RealWrite -benchtime 5x
func BenchmarkRealWrite(b *testing.B) {
	dsn := os.Getenv("MILLRACE_BENCH_POSTGRES")
	if dsn == "" {
		dsn = pgtest.Start(b, pgtest.Config{Fsync: true, Settings: []string{"max_wal_size=4GB", "shared_buffers=512MB", "checkpoint_timeout=30min"}}).DSN("postgres")
	}
	withID := append(slices.Clone(orderColumns), eventIDColumn)
	fresh := func(conn, batch, i int) string { return event.New("t", "k", nil).ID }
	again := func(conn, batch, i int) string { return fmt.Sprintf("order-%d-%030d", conn, i) }
	for _, bb := range []struct {
		name    string
		table   sink.Table
		columns []schemas.Column
		key     func(conn, batch, i int) string
	}{
		{"unnest/append", sink.Table{Append: true}, withID, fresh},
		{"unnest/upsert-new", sink.Table{Key: []string{"order_id"}}, orderColumns, fresh},
		{"unnest/upsert-random", sink.Table{Key: []string{"order_id"}}, orderColumns, func(int, int, int) string { return fmt.Sprintf("order-%032x", rand.Uint64()) }},
		{"unnest/upsert-same", sink.Table{Key: []string{"order_id"}}, orderColumns, again},
		{"copy/append", sink.Table{Append: true, NoDedupe: true}, orderColumns, fresh},
	} {
		for _, conns := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/connections-%d", bb.name, conns), func(b *testing.B) {
				bb.table.Name, bb.table.Event = "bench", "x"
				benchWrite(b, dsn, conns, bb.table, bb.columns, bb.key)
			})
		}
	}
}

func benchWrite(b *testing.B, dsn string, conns int, t sink.Table, columns []schemas.Column, key func(conn, batch, i int) string) {
	b.Helper()
	p := pool(b, dsn)
	db := pgsink.NewDB(p, pgsink.Config{})
	batches := make([][]*schemas.Rows, conns)
	for c := range batches {
		for n := range benchBatches {
			batches[c] = append(batches[c], benchRows(b, columns, func(i int) string { return key(c, n, i) }))
		}
	}
	size := batches[0][0].Size() / benchBatch
	var took time.Duration
	for b.Loop() {
		b.StopTimer()
		places := benchPrepare(b, p, db, t, columns, conns)
		b.StartTimer()
		start := time.Now()
		var all sync.WaitGroup
		for c := range conns {
			all.Go(func() {
				at := places[c]
				for _, rows := range batches[c] {
					next := at
					next.Next += benchBatch
					err := db.InTx(b.Context(), func(ctx context.Context, tx pgx.Tx) error {
						if err := db.Advance(ctx, tx, at, next); err != nil {
							return err
						}
						n, err := db.Write(ctx, tx, &t, rows, nil)
						if err == nil && n != benchBatch {
							err = fmt.Errorf("%d rows changed", n)
						}
						return err
					})
					if err != nil {
						b.Error(err)
						return
					}
					at = next
				}
			})
		}
		all.Wait()
		took += time.Since(start)
	}
	b.ReportMetric(float64(b.N*conns*benchBatches*benchBatch)/took.Seconds(), "rows/s")
	b.ReportMetric(float64(size), "B/row")
}

// benchPrepare makes the tables anew and claims a partition for each connection.
func benchPrepare(b *testing.B, p *pgxpool.Pool, db sink.DB[pgx.Tx], t sink.Table, columns []schemas.Column, conns int) []sink.Place {
	b.Helper()
	ctx := b.Context()
	if _, err := p.Exec(ctx, "DROP TABLE IF EXISTS bench, millrace_sink_offsets; CHECKPOINT"); err != nil {
		b.Fatal(err)
	}
	if err := db.Prepare(ctx, sink.Plan{Sink: "bench", Tables: []sink.Layout{{Table: &t, Columns: rowsOf(b, columns)}}}); err != nil {
		b.Fatal(err)
	}
	places := make([]sink.Place, conns)
	for c := range places {
		id := cursor.ID{Reader: "bench", Topic: "t", Partition: int32(c)}
		got, err := db.Claim(ctx, "bench", []cursor.ID{id}, map[cursor.ID]int64{id: 0})
		if err != nil {
			b.Fatal(err)
		}
		places[c] = sink.Place{ID: id, Lease: got[id].Lease}
	}
	return places
}
