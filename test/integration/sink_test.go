package integration_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/sink/sqlitesink"
)

// plan makes movements of money for the pipeline's topic, of which none is written yet.
func (p *pipeline) plan(events int, partitions int32) []*kgo.Record {
	p.t.Helper()
	schema, err := p.writes.Register(p.t.Context(), p.topic+"-value", ledger.Moved{}.AvroSchema())
	if err != nil {
		p.t.Fatal(err)
	}
	return ledger.Plan(ledger.Load{
		Events: events, Partitions: int(partitions), Topic: p.topic, SchemaID: int(schema.ID), Seed: rand.Uint64(),
		From: time.Now().Add(-24 * time.Hour).Truncate(time.Minute),
	})
}

func (p *pipeline) move(records ...*kgo.Record) {
	p.t.Helper()
	client := kafkatest.Client(p.t, p.cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := ledger.Publish(p.t.Context(), client, records, func(context.Context, int) {}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pipeline) read(topic string) []ledger.Entry {
	p.t.Helper()
	log, err := ledger.Read(p.t.Context(), p.cluster, topic)
	if err != nil {
		p.t.Fatal(err)
	}
	return log
}

// wantTables compares what the tables hold with the log.
func (p *pipeline) wantTables(takes ledger.Takes, q ledger.Query, second string, byHand bool) {
	p.t.Helper()
	want, err := ledger.Expect(p.read(p.topic), takes)
	if err != nil {
		p.t.Fatal(err)
	}
	got, err := ledger.Tables(p.t.Context(), q, second, byHand)
	if err != nil {
		p.t.Fatal(err)
	}
	if !byHand {
		got.ByHand = want.Rows()
	}
	letters := p.read(deadletter.Topic(p.topic, p.group))
	if got.Letters, err = ledger.Letters(letters); err != nil {
		p.t.Fatal(err)
	}
	for _, wrong := range want.Differ(got) {
		p.t.Error(wrong)
	}
	p.t.Logf("%d records, %d events, %d repeats, %d dead letters and %d copies of them", want.Records, want.Moves(), want.Repeats, want.Letters(), len(letters)-want.Letters())
}

// sqliteQuery asks a file.
func sqliteQuery(db *sql.DB) ledger.Query {
	return func(ctx context.Context, text string, row func(scan func(...any) error) error) error {
		rows, err := db.QueryContext(ctx, text)
		if err != nil {
			return err
		}
		defer rows.Close() //nolint:errcheck // rows.Err says it
		for rows.Next() {
			if err := row(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	}
}

// sinkKills is how often a sink is killed.
const sinkKills = 10

// killed runs a sink in processes that are killed ten times, and then in one that goes on to the end of the topic.
func (p *pipeline) killed(kind, where string, records int) {
	p.t.Helper()
	for range sinkKills {
		p.member(kind, where).kill(1 + rand.IntN(12))
	}
	last := p.member(kind, where)
	last.drain()
	adm := p.admin()
	await(p.t, fmt.Sprintf("the position of %d events in Kafka, as a report", records), func() bool {
		at, err := adm.FetchOffsets(p.t.Context(), p.group)
		if err != nil {
			p.t.Fatal(err)
		}
		sum := int64(0)
		for _, o := range at.Sorted() {
			sum += o.At
		}
		return sum == int64(records)
	})
	last.stop()
}

// A sink to SQLite is killed ten times while it works off a topic with repeats: what a function, two tables and a fold have
// written is what the log says.
func TestRealSQLiteSinkIsKilled(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, 4)
	records := p.plan(40_000, 4)
	p.move(records...)
	path := filepath.Join(t.TempDir(), "ledger.db")
	p.killed(memberSQLite, path, len(records))
	db, err := sqlitesink.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	p.wantTables(ledger.Takes{Zero: true}, sqliteQuery(db), ledger.SQLiteWindow, true)
}

// moved is a row of the Parquet files.
type moved struct {
	Part    int64  `parquet:"part"`
	At      int64  `parquet:"at"`
	EventID string `parquet:"event_id"`
	Account string `parquet:"account"`
	Region  string `parquet:"region"`
	Seq     int64  `parquet:"seq"`
	Cents   int64  `parquet:"cents"`
	Note    string `parquet:"note"`
}

// A sink to Parquet files is killed ten times: the files have a row of each event that decodes, in the order of its
// partition, and a dead letter is there for each that does not.
func TestRealParquetSinkIsKilled(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, 4)
	records := p.plan(40_000, 4)
	p.move(records...)
	dir := t.TempDir()
	p.killed(memberParquet, dir, len(records))

	var want, got []moved
	var buried []ledger.Spot
	for _, e := range p.read(p.topic) {
		m, err := e.Moved()
		switch {
		case e.Value == nil:
		case err != nil:
			buried = append(buried, e.Spot)
		default:
			want = append(want, moved{int64(e.Partition), e.Offset, e.ID, m.Account, m.Region, m.Seq, m.Cents, m.Note})
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, p.topic, "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files { // in the order of their names, which is that of the log
		rows, err := parquet.ReadFile[moved](name)
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
		got = append(got, rows...)
	}
	slices.SortStableFunc(want, func(a, b moved) int { return int(a.Part - b.Part) })
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			t.Fatalf("row %d of the files is\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
	if len(want) != len(got) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
	letters, err := ledger.Letters(p.read(deadletter.Topic(p.topic, p.group)))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range buried {
		if !slices.Contains(letters, at) {
			t.Errorf("there is no dead letter of %s, which does not decode", at)
		}
	}
	for _, at := range letters {
		if !slices.Contains(buried, at) {
			t.Errorf("there is a dead letter of %s, which does decode", at)
		}
	}
	t.Logf("%d rows in %d files, %d dead letters and %d copies of them", len(got), len(files), len(buried), len(letters)-len(buried))
}
