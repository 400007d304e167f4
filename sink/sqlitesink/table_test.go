package sqlitesink

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// keep is how long ids are kept in tests.
const keep = time.Hour

const everyKind = `{"type":"record","name":"x.R","fields":[
	{"name":"id","type":"string"},
	{"name":"yes","type":["null","boolean"]},
	{"name":"n","type":["null","long"]},
	{"name":"x","type":["null","double"]},
	{"name":"raw","type":["null","bytes"]},
	{"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}]},
	{"name":"day","type":["null",{"type":"int","logicalType":"date"}]},
	{"name":"clock","type":["null",{"type":"int","logicalType":"time-millis"}]},
	{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},
	{"name":"uid","type":["null",{"type":"string","logicalType":"uuid"}]},
	{"name":"tags","type":["null",{"type":"array","items":"string"}]}]}`

// rowsOf makes rows of JSON texts, which are events of the schema.
func rowsOf(tb testing.TB, schema string, texts ...string) *schemas.Rows {
	tb.Helper()
	reg := schemas.Memory()
	s, err := reg.Register(tb.Context(), "t-value", schema)
	if err != nil {
		tb.Fatal(err)
	}
	columns, err := s.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	rows, err := reg.NewRows(columns...)
	if err != nil {
		tb.Fatal(err)
	}
	for _, text := range texts {
		body, err := s.FromJSON(nil, []byte(text))
		if err != nil {
			tb.Fatal(err)
		}
		if err := rows.Append(tb.Context(), &event.Event{Meta: event.Meta{Topic: "t"}, Value: append([]byte{0, 0, 0, 0, byte(s.ID)}, body...)}); err != nil {
			tb.Fatal(err)
		}
	}
	return rows
}

func prepare(tb testing.TB, d *db, t *sink.Table, rows *schemas.Rows, evolve bool) error {
	tb.Helper()
	return d.Prepare(tb.Context(), sink.Plan{Sink: "s", Evolve: evolve, Tables: []sink.Layout{{Table: t, Columns: rows.Fresh()}}})
}

func write(tb testing.TB, d *db, t *sink.Table, rows, deleted *schemas.Rows) int64 {
	tb.Helper()
	var n int64
	err := d.InTx(tb.Context(), func(ctx context.Context, tx *sql.Tx) (err error) {
		n, err = d.Write(ctx, tx, t, rows, deleted)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// Every kind of column is kept in a form that SQLite's functions read, in a strict table.
func TestKinds(t *testing.T) {
	t.Parallel()
	pool := open(t, filepath.Join(t.TempDir(), "a.db"))
	d := newDB(pool, Config{Lazy: true})
	table := &sink.Table{Name: "r", Event: "x.R", Key: []string{"id"}}
	rows := rowsOf(t, everyKind,
		`{"id":"a","yes":true,"n":-7,"x":0.5,"raw":"\u0000ÿ","price":"123456789012345678.90","day":"2026-01-31","clock":"15:04:05.006","at":"2026-01-31T15:04:05.006Z","uid":"f81d4fae-7dec-11d0-a765-00a0c91e6bf6","tags":["x"]}`,
		`{"id":"b"}`)
	if err := prepare(t, d, table, rows, false); err != nil {
		t.Fatal(err)
	}
	if n := write(t, d, table, rows, nil); n != 2 {
		t.Errorf("%d rows changed, want 2", n)
	}
	columns := namesOf(rows)
	want := [][]string{
		{"a", "1", "-7", "0.5", "\x00\xff", "123456789012345678.90", "2026-01-31", "15:04:05.006000", "2026-01-31 15:04:05.006000", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", `["x"]`},
		append([]string{"b"}, slices.Repeat([]string{"null"}, 10)...),
	}
	if got := dump(t, pool, "r", columns); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	var seconds int64
	var strict bool
	if err := pool.QueryRowContext(t.Context(), `SELECT unixepoch(at), (SELECT strict FROM pragma_table_list('r')) FROM r WHERE id = 'a'`).Scan(&seconds, &strict); err != nil || seconds != 1769871845 || !strict {
		t.Errorf("SQLite reads the timestamp as %d, strict %v, %v", seconds, strict, err)
	}
}

const (
	keyedText   = `{"type":"record","name":"x.K","fields":[{"name":"b","type":"string"},{"name":"a","type":"long"},{"name":"v","type":"string"}]}`
	keysText    = `{"type":"record","name":"x.K","fields":[{"name":"a","type":"long"},{"name":"b","type":"string"}]}`
	appendText  = `{"type":"record","name":"x.A","fields":[{"name":"event_id","type":"string"},{"name":"v","type":"string"}]}`
	evolvedText = `{"type":"record","name":"x.K","fields":[{"name":"b","type":"string"},{"name":"a","type":"long"},{"name":"v","type":"string"},{"name":"more","type":["null","double"]}]}`
	strictText  = `{"type":"record","name":"x.K","fields":[{"name":"b","type":"string"},{"name":"a","type":"long"},{"name":"v","type":"string"},{"name":"more","type":"double"}]}`
	otherText   = `{"type":"record","name":"x.K","fields":[{"name":"b","type":"string"},{"name":"a","type":"long"},{"name":"v","type":"long"}]}`
	nullText    = `{"type":"record","name":"x.K","fields":[{"name":"b","type":"string"},{"name":"a","type":"long"},{"name":"v","type":["null","string"]}]}`
	fewerText   = `{"type":"record","name":"x.K","fields":[{"name":"b","type":"string"},{"name":"a","type":"long"}]}`
)

func TestUpsertAndDelete(t *testing.T) {
	t.Parallel()
	pool := open(t, filepath.Join(t.TempDir(), "a.db"))
	d := newDB(pool, Config{})
	table := &sink.Table{Name: "k", Event: "x.K", Key: []string{"a", "b"}}
	many := make([]string, 1200) // several statements
	for i := range many {
		many[i] = fmt.Sprintf(`{"a":%d,"b":"x","v":"first"}`, i)
	}
	rows := rowsOf(t, keyedText, many...)
	if err := prepare(t, d, table, rows, false); err != nil {
		t.Fatal(err)
	}
	if n := write(t, d, table, rows, nil); n != 1200 {
		t.Errorf("%d rows changed, want 1,200", n)
	}
	n := write(t, d, table, rowsOf(t, keyedText, `{"a":0,"b":"x","v":"second"}`), rowsOf(t, keysText, `{"a":1,"b":"x"}`, `{"a":1,"b":"never there"}`))
	if got := dump(t, pool, "k", []string{"a", "b", "v"}); n != 2 || len(got) != 1199 || got[0][2] != "second" || got[1][0] != "2" {
		t.Errorf("%d rows changed, %d are there, first %q", n, len(got), got[:2])
	}
}

func TestAppendKeepsRepeatsOut(t *testing.T) {
	t.Parallel()
	pool := open(t, filepath.Join(t.TempDir(), "a.db"))
	d := newDB(pool, Config{})
	rows := rowsOf(t, appendText, `{"event_id":"1","v":"x"}`, `{"event_id":"2","v":"y"}`)
	unique := &sink.Table{Name: "u", Event: "x.A", Append: true}
	all := &sink.Table{Name: "al\"l", Event: "x.A", Append: true, NoDedupe: true}
	for _, table := range []*sink.Table{unique, all} {
		for range 2 { // the second finds what the first has made
			if err := prepare(t, d, table, rows, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, want := range []int64{2, 0} {
		if n := write(t, d, unique, rows, nil); n != want {
			t.Errorf("time %d: %d rows changed, want %d", i, n, want)
		}
		if n := write(t, d, all, rows, nil); n != 2 {
			t.Errorf("time %d: %d rows changed, want 2", i, n)
		}
	}
}

// A table that lacks a nullable column gets it when that is allowed; every other difference is told and nothing is changed.
func TestEvolve(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, schema string
		key          []string
		evolve       bool
		says         string // empty: it is prepared
	}{
		{"the same", keyedText, []string{"a", "b"}, false, ""},
		{"a nullable column, not allowed", evolvedText, []string{"a", "b"}, false, "it lacks the column more: add it, or allow Evolve"},
		{"a nullable column", evolvedText, []string{"a", "b"}, true, ""},
		{"a column that takes no null", strictText, []string{"a", "b"}, true, "more, which takes no null"},
		{"another type", otherText, []string{"a", "b"}, true, "column v is TEXT, and the events' is INTEGER"},
		{"nulls", nullText, []string{"a", "b"}, true, "column v takes no null"},
		{"another key", keyedText, []string{"b", "a"}, true, "primary key is another than (b, a)"},
		{"fewer columns", fewerText, []string{"a", "b"}, true, "column v has no value"},
		{"a key that is no column", keyedText, []string{"c"}, true, "no column c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDB(open(t, filepath.Join(t.TempDir(), "a.db")), Config{})
			table := &sink.Table{Name: "k", Event: "x.K", Key: []string{"a", "b"}}
			if err := prepare(t, d, table, rowsOf(t, keyedText), false); err != nil {
				t.Fatal(err)
			}
			table.Key = tt.key
			err := prepare(t, d, table, rowsOf(t, tt.schema), tt.evolve)
			switch {
			case tt.says == "" && err != nil:
				t.Error(err)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || d.Fault(err) != sink.Wrong):
				t.Errorf("got %v, a fault of %s, want one that says %q", err, d.Fault(err), tt.says)
			}
		})
	}
}

func TestFileThatCannotBeWAL(t *testing.T) {
	t.Parallel()
	pool, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close() //nolint:errcheck // there is nothing in it
	d := newDB(pool, Config{})
	if err := d.Prepare(t.Context(), sink.Plan{Sink: "s"}); d.Fault(err) != sink.Wrong || !strings.Contains(err.Error(), "journal mode is memory") {
		t.Errorf("got %v", err)
	}
	if rows, err := d.Positions(t.Context(), "s"); err != nil || len(rows) > 0 {
		t.Errorf("positions of a file that no sink has used: %v, %v", rows, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.turn <- struct{}{}
	if err := d.InTx(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a transaction that may not wait: %v", err)
	}
}

// What is older than the time that ids are kept is forgotten, a part with each call.
func TestSeenForgets(t *testing.T) {
	t.Parallel()
	d := newDB(open(t, filepath.Join(t.TempDir(), "a.db")), Config{})
	if err := d.Prepare(t.Context(), sink.Plan{Sink: "s", Dedupe: true}); err != nil {
		t.Fatal(err)
	}
	seen := func(ids ...string) (got []bool) {
		t.Helper()
		err := d.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) (err error) {
			got, err = d.Seen(ctx, tx, "s", ids, keep)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	start := d.now()
	seen("a", "b", "c", "d")
	d.now = func() time.Time { return start.Add(keep / 2) }
	if got := seen("a", "e"); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("half way: %v", got)
	}
	d.now = func() time.Time { return start.Add(keep) }
	if got := seen("a"); !slices.Equal(got, []bool{false}) {
		t.Errorf("after its time a is seen: %v", got)
	}
	if got := len(dump(t, d.pool, seenTable, []string{"event_id"})); got != 3 { // a anew, e, and one of b, c and d
		t.Errorf("%d ids are kept, want 3: two are forgotten for one that comes", got)
	}
}

// Commits wait for the disk unless that is left to SQLite, however the handle was opened; a disk that is full is waited for.
func TestDisk(t *testing.T) {
	t.Parallel()
	for _, lazy := range []bool{false, true} {
		pool, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "a.db")+"?_pragma=synchronous(OFF)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pool.Close() })
		pool.SetMaxOpenConns(1) // a transaction needs no second connection
		d := newDB(pool, Config{Lazy: lazy})
		table := &sink.Table{Name: "k", Event: "x.K", Key: []string{"a", "b"}}
		texts := make([]string, 2000)
		for i := range texts {
			texts[i] = fmt.Sprintf(`{"a":%d,"b":"x","v":"%0100d"}`, i, i)
		}
		rows := rowsOf(t, keyedText, texts...)
		if err := prepare(t, d, table, rows, false); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.ExecContext(t.Context(), `PRAGMA max_page_count = 20`); err != nil {
			t.Fatal(err)
		}
		err = d.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			var level int
			if err := tx.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&level); err != nil || (level == 1) != lazy || level == 0 {
				t.Errorf("lazy %v: synchronous is %d, %v", lazy, level, err)
			}
			_, err := d.Write(ctx, tx, table, rows, nil)
			return err
		})
		if err == nil || d.Fault(err) != sink.Away {
			t.Errorf("a full disk: %v, a fault of %s, want away", err, d.Fault(err))
		}
		if got := dump(t, pool, "k", []string{"a"}); len(got) > 0 {
			t.Errorf("%d rows of a transaction that failed", len(got))
		}
	}
}

// BenchmarkWrite is a whole transaction of 5,000 rows of 200 bytes in eight columns, fsync included.
func BenchmarkWrite(b *testing.B) {
	texts := make([]string, 5000)
	for i := range texts {
		texts[i] = fmt.Sprintf(`{"id":"order-%08d","customer":"customer-%06d","country":"DE","cents":%d,"items":3,"total":"%d.90","at":"2026-01-02T03:04:05Z","note":"%s"}`,
			i, i, i*100, i, strings.Repeat("n", 130))
	}
	const text = `{"type":"record","name":"x.Row","fields":[
		{"name":"id","type":"string"},{"name":"customer","type":"string"},{"name":"country","type":["null","string"]},
		{"name":"cents","type":"long"},{"name":"items","type":"int"},
		{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
		{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"note","type":"string"}]}`
	for _, bb := range []struct {
		name  string
		lazy  bool
		table sink.Table
	}{
		{"append", false, sink.Table{Append: true, NoDedupe: true}},
		{"append, lazy", true, sink.Table{Append: true, NoDedupe: true}},
		{"upsert the same", false, sink.Table{Key: []string{"id"}}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			rows := rowsOf(b, text, texts...)
			d := newDB(open(b, filepath.Join(b.TempDir(), "a.db")), Config{Lazy: bb.lazy})
			bb.table.Name, bb.table.Event = "t", "x.Row"
			if err := prepare(b, d, &bb.table, rows, false); err != nil {
				b.Fatal(err)
			}
			id := cursor.ID{Reader: "s", Topic: "t"}
			got, err := d.Claim(b.Context(), "b", []cursor.ID{id}, map[cursor.ID]int64{id: 0})
			if err != nil {
				b.Fatal(err)
			}
			from := sink.Place{ID: id, Lease: got[id].Lease}
			for b.Loop() {
				to := from
				to.Next += int64(rows.Len())
				err := d.InTx(b.Context(), func(ctx context.Context, tx *sql.Tx) error {
					if err := d.Advance(ctx, tx, from, to); err != nil {
						return err
					}
					_, err := d.Write(ctx, tx, &bb.table, rows, nil)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
				from = to
			}
			b.ReportMetric(float64(b.N*rows.Len())/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
