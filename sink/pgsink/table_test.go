package pgsink_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// field is a column that comes from the field of its name.
func field(name string, kind schemas.ColumnKind, nullable bool) schemas.Column {
	return schemas.Column{Name: name, Path: []string{name}, Kind: kind, Nullable: nullable}
}

func decimal(name string, precision, scale int) schemas.Column {
	c := field(name, schemas.KindDecimal, true)
	c.Precision, c.Scale = precision, scale
	return c
}

// allKinds has a column of each kind.
func allKinds() []schemas.Column {
	local := field("wall", schemas.KindTimestamp, true)
	local.Local = true
	return []schemas.Column{
		field("id", schemas.KindString, false), field("flag", schemas.KindBool, true), field("n", schemas.KindInt, true),
		field("ratio", schemas.KindFloat, true), field("raw", schemas.KindBytes, true), decimal("price", 12, 2), decimal("huge", 1200, 4),
		field("day", schemas.KindDate, true), field("clock", schemas.KindTime, true), field("at", schemas.KindTimestamp, true), local,
		field("uid", schemas.KindUUID, true), field("doc", schemas.KindJSON, true),
	}
}

// object is an event whose value is JSON.
func object(text string) event.Event {
	e := event.New("t", "k", nil)
	e.Value = []byte(text)
	return e
}

func TestTableDDL(t *testing.T) {
	t.Parallel()
	eventID := eventIDColumn
	for _, tt := range []struct {
		name    string
		table   sink.Table
		columns []schemas.Column
		want    string
	}{
		{"all kinds, upserted", sink.Table{Name: "shop.All", Key: []string{"id", "n"}}, allKinds(), `CREATE TABLE "shop"."All" (
  "id" text NOT NULL,
  "flag" boolean,
  "n" bigint,
  "ratio" double precision,
  "raw" bytea,
  "price" numeric(12,2),
  "huge" numeric,
  "day" date,
  "clock" time without time zone,
  "at" timestamp with time zone,
  "wall" timestamp without time zone,
  "uid" uuid,
  "doc" jsonb,
  PRIMARY KEY ("id", "n")
) WITH (fillfactor = 85)`},
		{"appended", sink.Table{Name: "log", Append: true}, []schemas.Column{field("n", schemas.KindInt, false), eventID}, `CREATE TABLE "public"."log" (
  "n" bigint NOT NULL,
  "event_id" text NOT NULL,
  PRIMARY KEY ("event_id")
)`},
		{"copied", sink.Table{Name: `a"b`, Append: true, NoDedupe: true}, []schemas.Column{field(`x"; DROP TABLE y; --`, schemas.KindInt, true)}, `CREATE TABLE "public"."a""b" (
  "x""; DROP TABLE y; --" bigint
)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := pgsink.TableDDL(sink.Layout{Table: &tt.table, Columns: rowsOf(t, tt.columns)})
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// member is a process of the sink with a partition of its own.
type member struct {
	sink.DB[pgx.Tx]
	t  *testing.T
	at sink.Place
}

func newMember(t *testing.T, db sink.DB[pgx.Tx], partition int32) *member {
	t.Helper()
	id := cursor.ID{Reader: "s", Topic: "t", Partition: partition}
	got, err := db.Claim(t.Context(), "test", []cursor.ID{id}, map[cursor.ID]int64{id: 0})
	if err != nil {
		t.Fatal(err)
	}
	return &member{db, t, sink.Place{ID: id, Lease: got[id].Lease, Next: got[id].Position}}
}

// try does f in a transaction that moves the position by one.
func (m *member) try(f func(ctx context.Context, tx pgx.Tx) error) error {
	next := m.at
	next.Next++
	err := m.InTx(m.t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if err := m.Advance(ctx, tx, m.at, next); err != nil {
			return err
		}
		return f(ctx, tx)
	})
	if err == nil {
		m.at = next
	}
	return err
}

func (m *member) write(t *sink.Table, rows, deleted *schemas.Rows) (n int64, err error) {
	err = m.try(func(ctx context.Context, tx pgx.Tx) error {
		n, err = m.Write(ctx, tx, t, rows, deleted)
		return err
	})
	return n, err
}

func prepare(t *testing.T, db sink.DB[pgx.Tx], evolve bool, table *sink.Table, columns []schemas.Column) error {
	t.Helper()
	return db.Prepare(t.Context(), sink.Plan{Sink: "s", Dedupe: true, Folds: []string{"f"}, Tables: []sink.Layout{{Table: table, Columns: rowsOf(t, columns)}}, Evolve: evolve})
}

// fresh is a database with the tables of a sink.
func fresh(t *testing.T, table *sink.Table, columns []schemas.Column) (*pgxpool.Pool, sink.DB[pgx.Tx]) {
	t.Helper()
	p := pool(t, pgtest.DB(t))
	db := pgsink.NewDB(p, pgsink.Config{})
	if err := prepare(t, db, false, table, columns); err != nil {
		t.Fatal(err)
	}
	return p, db
}

var kinds = []string{
	`{"id":"a","flag":true,"n":-7,"ratio":0.5,"raw":"AAE=","price":"19.90","huge":"-123456789012345678901234567890.1234","day":"2026-11-24","clock":"12:30:00.5","at":"2026-11-24T12:00:00.000001Z","wall":"2026-11-24T13:00:00","uid":"00112233-4455-6677-8899-aabbccddeeff","doc":{"k":[1,"ß"]}}`,
	`{"id":"b","flag":null,"n":null,"ratio":null,"raw":null,"price":null,"huge":null,"day":null,"clock":null,"at":null,"wall":null,"uid":null,"doc":null}`,
}

// Every way into a table makes the same rows of the same events.
func TestRealWaysAgree(t *testing.T) {
	t.Parallel()
	want := [][]string{
		{"a", "true", "-7", "0.5", `\x0001`, "19.90", "-123456789012345678901234567890.1234", "2026-11-24", "12:30:00.5", "2026-11-24 12:00:00.000001+00", "2026-11-24 13:00:00", "00112233-4455-6677-8899-aabbccddeeff", `{"k": [1, "ß"]}`},
		{"b", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null"},
	}
	for _, tt := range []struct {
		name  string
		table sink.Table
	}{
		{"upsert", sink.Table{Name: "x.t", Key: []string{"id"}}},
		{"append", sink.Table{Name: "t", Append: true}},
		{"copy", sink.Table{Name: "T", Append: true, NoDedupe: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := pool(t, pgtest.DB(t))
			if _, err := p.Exec(t.Context(), "CREATE SCHEMA x"); err != nil {
				t.Fatal(err)
			}
			db := pgsink.NewDB(p, pgsink.Config{})
			columns := allKinds()
			if tt.table.Append && !tt.table.NoDedupe {
				columns = append(columns, eventIDColumn)
			}
			if err := prepare(t, db, false, &tt.table, columns); err != nil {
				t.Fatal(err)
			}
			events := []event.Event{object(kinds[0]), object(kinds[1])}
			m := newMember(t, db, 0)
			for round := range 2 {
				n, err := m.write(&tt.table, rowsOf(t, columns, events...), nil)
				if err != nil {
					t.Fatal(err)
				}
				wantRows := int64(2)
				if round == 1 && tt.table.Append && !tt.table.NoDedupe {
					wantRows = 0 // the producer's repeat
				}
				if n != wantRows {
					t.Errorf("round %d: %d rows changed, want %d", round, n, wantRows)
				}
				if round == 0 {
					var names []string
					for _, c := range allKinds() {
						names = append(names, c.Name)
					}
					got := contents(t, p, tt.table.Name, names)
					slices.SortFunc(got, slices.Compare)
					if !slices.EqualFunc(got, want, slices.Equal) {
						t.Errorf("got\n%q\nwant\n%q", got, want)
					}
				}
			}
		})
	}
}

// A value that does not fit is the data's fault, by whichever way it comes.
func TestRealDataFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		table  sink.Table
		change string
		row    string
	}{
		{"a zero byte in a text", sink.Table{Key: []string{"id"}}, "", `{"id":"a","price":null,"at":null,"n":1,"s":"x\u0000"}`},
		{"too long for its column", sink.Table{Key: []string{"id"}}, `ALTER TABLE t ALTER COLUMN s TYPE varchar(3)`, `{"id":"a","price":null,"at":null,"n":1,"s":"long"}`},
		{"a check", sink.Table{Append: true, NoDedupe: true}, `ALTER TABLE t ADD CHECK (n > 0)`, `{"id":"a","price":null,"at":null,"n":-1,"s":""}`},
		{"a year that is none", sink.Table{Append: true, NoDedupe: true}, "", `{"id":"a","price":null,"at":-300000000000000000,"n":1,"s":""}`},
		{"a trigger's word", sink.Table{Key: []string{"id"}}, `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()`, `{"id":"a","price":null,"at":null,"n":1,"s":""}`},
		{"at the commit", sink.Table{Key: []string{"id"}}, `ALTER TABLE t ADD UNIQUE (n) DEFERRABLE INITIALLY DEFERRED; INSERT INTO t (id, n, s) VALUES ('z', 1, '')`, `{"id":"a","price":null,"at":null,"n":1,"s":""}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.table.Name = "t"
			columns := []schemas.Column{field("id", schemas.KindString, false), decimal("price", 4, 2), field("at", schemas.KindTimestamp, true), field("n", schemas.KindInt, false), field("s", schemas.KindString, false)}
			p, db := fresh(t, &tt.table, columns)
			if tt.change != "" {
				if _, err := p.Exec(t.Context(), tt.change); err != nil {
					t.Fatal(err)
				}
			}
			m := newMember(t, db, 0)
			_, err := m.write(&tt.table, rowsOf(t, columns, object(tt.row)), nil)
			if err == nil || db.Fault(err) != sink.Data || errors.Is(err, sink.ErrUnknownCommit) {
				t.Errorf("got %v, a fault of %s, want data", err, db.Fault(err))
			}
		})
	}
}

func TestRealPrepareCompares(t *testing.T) {
	t.Parallel()
	columns := []schemas.Column{field("id", schemas.KindString, false), field("n", schemas.KindInt, true), decimal("price", 12, 2)}
	upsert := sink.Table{Name: "t", Key: []string{"id"}}
	for _, tt := range []struct {
		name, have string
		evolve     bool
		want       string // in the error; "" = none
	}{
		{"the same", `CREATE TABLE t (id text PRIMARY KEY, n bigint, price numeric(12,2))`, false, ""},
		{"wider, in another order, with more", `CREATE TABLE t (price numeric(14,3), id varchar(50) NOT NULL UNIQUE, n bigint, more text, auto bigint GENERATED ALWAYS AS IDENTITY)`, false, ""},
		{"a column is missing", `CREATE TABLE t (id text PRIMARY KEY, n bigint)`, false, `events have price (numeric(12,2)), the table has not: let the sink evolve it, or ALTER TABLE "public"."t" ADD COLUMN "price" numeric(12,2)`},
		{"a column is added", `CREATE TABLE t (id text PRIMARY KEY, n bigint)`, true, ""},
		{"what is never null cannot be added", `CREATE TABLE t (n bigint, price numeric)`, true, `events have id (text, never null), the table has not`},
		{"another type", `CREATE TABLE t (id text PRIMARY KEY, n integer, price numeric(12,2))`, true, `n is integer in the table and bigint in the events: ALTER TABLE "public"."t" ALTER COLUMN "n" TYPE bigint`},
		{"too narrow", `CREATE TABLE t (id text PRIMARY KEY, n bigint, price numeric(12,3))`, true, `price is numeric(12,3) in the table and numeric(12,2) in the events`},
		{"not null", `CREATE TABLE t (id text PRIMARY KEY, n bigint NOT NULL, price numeric)`, true, `n is NOT NULL in the table and may be null in the events`},
		{"something else is not null", `CREATE TABLE t (id text PRIMARY KEY, n bigint, price numeric, x text NOT NULL)`, true, `x is NOT NULL in the table and the sink does not write it`},
		{"no key", `CREATE TABLE t (id text, n bigint, price numeric); CREATE UNIQUE INDEX ON t (id) WHERE n > 0`, true, `the sink's key is (id), and the table has no unique index on it, or a deferrable one: ALTER TABLE "public"."t" ADD UNIQUE ("id")`},
		{"a deferrable key", `CREATE TABLE t (id text, n bigint, price numeric); ALTER TABLE t ADD UNIQUE (id) DEFERRABLE`, true, `the sink's key is (id), and the table has no unique index on it, or a deferrable one: ALTER TABLE "public"."t" ADD UNIQUE ("id")`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := pool(t, pgtest.DB(t))
			if _, err := p.Exec(t.Context(), tt.have); err != nil {
				t.Fatal(err)
			}
			db := pgsink.NewDB(p, pgsink.Config{})
			err := prepare(t, db, tt.evolve, &upsert, columns)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || db.Fault(err) != sink.Wrong {
					t.Errorf("got %v (%s), want %q", err, db.Fault(err), tt.want)
				}
				if tables := contents(t, p, "pg_tables", []string{"schemaname"}); slices.ContainsFunc(tables, func(r []string) bool { return r[0] == "millrace" }) {
					t.Error("half of the plan was done")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m := newMember(t, db, 0)
			if _, err := m.write(&upsert, rowsOf(t, columns, object(`{"id":"a","n":1,"price":"1.50"}`)), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRealNamesThatPostgresWouldCut(t *testing.T) {
	t.Parallel()
	db := pgsink.NewDB(pool(t, pgtest.DB(t)), pgsink.Config{})
	long := strings.Repeat("n", 64)
	for _, table := range []sink.Table{{Name: long, Key: []string{"id"}}, {Name: long[:59], Key: []string{"id"}}, {Name: "t", Key: []string{"missing"}}} {
		if err := prepare(t, db, false, &table, []schemas.Column{field("id", schemas.KindString, false)}); db.Fault(err) != sink.Wrong {
			t.Errorf("%v", err)
		}
	}
	if err := prepare(t, db, false, &sink.Table{Name: "t", Key: []string{long}}, []schemas.Column{field(long, schemas.KindString, false)}); db.Fault(err) != sink.Wrong {
		t.Errorf("%v", err)
	}
}

func TestRealDelete(t *testing.T) {
	t.Parallel()
	columns := []schemas.Column{field("a", schemas.KindString, false), field("b", schemas.KindInt, false), field("v", schemas.KindInt, true)}
	table := sink.Table{Name: "t", Key: []string{"a", "b"}}
	p, db := fresh(t, &table, columns)
	m := newMember(t, db, 0)
	row := func(a string, b, v int) event.Event { return object(fmt.Sprintf(`{"a":%q,"b":%d,"v":%d}`, a, b, v)) }
	for _, step := range []struct {
		rows, deleted []event.Event
		changed       int64
	}{
		{[]event.Event{row("x", 1, 1), row("x", 2, 2), row("y", 1, 3)}, nil, 3},
		{[]event.Event{row("x", 1, 10), row("z", 1, 4)}, []event.Event{row("x", 2, 0), row("y", 9, 0)}, 3},
		{nil, []event.Event{row("y", 1, 0)}, 1},
		{nil, nil, 0},
	} {
		n, err := m.write(&table, rowsOf(t, columns, step.rows...), rowsOf(t, columns, step.deleted...))
		if err != nil || n != step.changed {
			t.Errorf("%d rows changed, want %d: %v", n, step.changed, err)
		}
	}
	got := contents(t, p, "t", []string{"a", "b", "v"})
	slices.SortFunc(got, slices.Compare)
	if want := [][]string{{"x", "1", "10"}, {"z", "1", "4"}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Two members upsert and fold the same keys at once, each batch in its order: none waits for the other for ever.
func TestRealNoDeadlocks(t *testing.T) {
	t.Parallel()
	columns := []schemas.Column{field("id", schemas.KindString, false), field("v", schemas.KindInt, false)}
	table := sink.Table{Name: "t", Key: []string{"id"}}
	_, db := fresh(t, &table, columns)
	const rounds, keys = 200, 50
	var foldKeys []sink.FoldKey
	var states [][]byte
	for k := range keys {
		foldKeys, states = append(foldKeys, sink.FoldKey{Key: fmt.Sprintf("%03d", k)}), append(states, []byte("1"))
	}
	var all sync.WaitGroup
	for i := range 2 {
		m := newMember(t, db, int32(i))
		var rows []*schemas.Rows
		for round := range rounds {
			var events []event.Event
			for n := range keys { // some new, some old; PostgreSQL's own order of these may be another than ours
				k := n
				if i == 1 {
					k = keys - 1 - n
				}
				events = append(events, object(fmt.Sprintf(`{"id":"%c-%d","v":%d}`, []rune("aBäZ")[k%4], round+k, round)))
			}
			r := rowsOf(t, columns, events...)
			r.Reduce(0)
			rows = append(rows, r)
		}
		all.Go(func() {
			for round := range rounds {
				err := m.try(func(ctx context.Context, tx pgx.Tx) error {
					if round < rounds/2 { // apart: a fold's keys keep all others out
						_, err := m.Write(ctx, tx, &table, rows[round], nil)
						return err
					}
					if _, err := m.Load(ctx, tx, "f", foldKeys[round%keys:]); err != nil {
						return err
					}
					return m.Store(ctx, tx, "f", foldKeys[round%keys:], states[round%keys:])
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// A batch that deletes takes the locks of all its keys in their order before it changes anything.
func TestRealDeleteLocksInOrder(t *testing.T) {
	t.Parallel()
	columns := []schemas.Column{field("id", schemas.KindString, false), field("v", schemas.KindInt, false)}
	table := sink.Table{Name: "t", Key: []string{"id"}}
	p, db := fresh(t, &table, columns)
	m := newMember(t, db, 0)
	one, two := object(`{"id":"1","v":1}`), object(`{"id":"2","v":1}`)
	if _, err := m.write(&table, rowsOf(t, columns, one, two), nil); err != nil {
		t.Fatal(err)
	}
	other, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Rollback(context.WithoutCancel(t.Context())) }()
	lock := func(id string) {
		t.Helper()
		if _, err := other.Exec(t.Context(), "SELECT FROM t WHERE id = $1 FOR UPDATE NOWAIT", id); err != nil {
			t.Fatalf("lock %s: %v", id, err)
		}
	}
	lock("1")
	done := make(chan error, 1)
	rows, deleted := rowsOf(t, columns, one), rowsOf(t, columns, two)
	go func() {
		_, err := m.write(&table, rows, deleted)
		done <- err
	}()
	eventually(t, func() error {
		var n int
		err := p.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d sessions wait for a lock, want 1", n)
		}
		return err
	})
	lock("2")
	if err := other.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Two owners of one partition, each sure of itself: exactly one of them moves each step, and nothing of the other stays.
func TestRealFenceRace(t *testing.T) {
	t.Parallel()
	columns := []schemas.Column{field("id", schemas.KindString, false)}
	table := sink.Table{Name: "t", Append: true, NoDedupe: true}
	p, db := fresh(t, &table, columns)
	const steps = 200
	one := newMember(t, db, 0)
	two := &member{db, t, one.at} // a twin, with the same lease: only the offset tells them apart
	var all sync.WaitGroup
	for _, m := range []*member{one, two} {
		all.Go(func() {
			for m.at.Next < steps {
				_, err := m.write(&table, rowsOf(t, columns, object(fmt.Sprintf(`{"id":"%03d"}`, m.at.Next))), nil)
				switch {
				case errors.Is(err, sink.ErrNotOwner):
					m.at.Next++ // the other has done it
				case err != nil:
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	got := contents(t, p, "t", []string{"id"})
	slices.SortFunc(got, slices.Compare)
	if len(got) != steps || !slices.EqualFunc(slices.Compact(slices.Concat(got...)), slices.Concat(got...), func(a, b string) bool { return a == b }) {
		t.Errorf("%d rows, want %d, each once", len(got), steps)
	}
}

// A database that freezes gives an error within the sink's own time, and goes on as if nothing had been.
func TestRealSilentDatabase(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Config{})
	columns := []schemas.Column{field("id", schemas.KindString, false)}
	table := sink.Table{Name: "t", Key: []string{"id"}}
	db := pgsink.NewDB(pool(t, s.Fresh(t)), pgsink.Config{Timeout: 2 * time.Second})
	if err := prepare(t, db, false, &table, columns); err != nil {
		t.Fatal(err)
	}
	m := newMember(t, db, 0)
	rows := rowsOf(t, columns, object(`{"id":"a"}`))
	err := m.try(func(ctx context.Context, tx pgx.Tx) error {
		if err := s.Pause(); err != nil {
			return err
		}
		_, err := m.Write(ctx, tx, &table, rows, nil)
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) || db.Fault(err) != sink.Away || !strings.Contains(err.Error(), "a smaller batch or a larger Timeout") {
		t.Errorf("got %v, a fault of %s, want a deadline, away, and what to do when it is always so", err, db.Fault(err))
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := m.write(&table, rows, nil)
		return err
	})
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(err)
		}
	}
}

// A member that sleeps inside a transaction loses it, so that others can have its rows.
func TestRealSleeperGivesItsRows(t *testing.T) {
	t.Parallel()
	table := sink.Table{Name: "t", Key: []string{"id"}}
	p, _ := fresh(t, &table, []schemas.Column{field("id", schemas.KindString, false)})
	db := pgsink.NewDB(p, pgsink.Config{Idle: 200 * time.Millisecond, Timeout: 20 * time.Second})
	sleeper := newMember(t, db, 0)
	err := sleeper.try(func(context.Context, pgx.Tx) error {
		newMember(t, db, 0) //nolint:contextcheck // another member; it waits until the database has ended the sleeper's transaction
		return nil
	})
	if err == nil || db.Fault(err) != sink.Away || errors.Is(err, sink.ErrNotOwner) {
		t.Errorf("the sleeper: %v, want away", err)
	}
	if err := sleeper.try(func(context.Context, pgx.Tx) error { return nil }); !errors.Is(err, sink.ErrNotOwner) {
		t.Errorf("the sleeper again: %v, want ErrNotOwner", err)
	}
}

func TestRealKilledDatabase(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Config{})
	columns := []schemas.Column{field("id", schemas.KindString, false)}
	table := sink.Table{Name: "t", Append: true, NoDedupe: true}
	p := pool(t, s.Fresh(t))
	db := pgsink.NewDB(p, pgsink.Config{})
	if err := prepare(t, db, false, &table, columns); err != nil {
		t.Fatal(err)
	}
	m := newMember(t, db, 0)
	rows := rowsOf(t, columns, object(`{"id":"a"}`))
	for range 3 {
		if _, err := m.write(&table, rows, nil); err != nil {
			t.Fatal(err)
		}
		err := m.try(func(ctx context.Context, tx pgx.Tx) error {
			if _, err := m.Write(ctx, tx, &table, rows, nil); err != nil {
				return err
			}
			return s.Kill()
		})
		if err == nil || db.Fault(err) != sink.Away {
			t.Errorf("got %v, a fault of %s, want away", err, db.Fault(err))
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		to := m.at
		to.Next++
		eventually(t, func() error {
			done, err := db.Settle(t.Context(), m.at, to)
			if err == nil && done {
				t.Error("a transaction that was never committed is there")
			}
			return err
		})
	}
	if got := contents(t, p, "t", []string{"id"}); len(got) != 3 {
		t.Errorf("%d rows, want 3", len(got))
	}
}

// A view on what the last rebuild has left keeps it: the swap says what to drop, and changes nothing.
func TestRealSwapNamesWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	p := pool(t, pgtest.DB(t))
	db := pgsink.NewDB(p, pgsink.Config{})
	columns := []schemas.Column{field("id", schemas.KindString, false)}
	if err := prepare(t, db, false, &sink.Table{Name: "t__v2", Key: []string{"id"}}, columns); err != nil {
		t.Fatal(err)
	}
	id := cursor.ID{Reader: "a__v2", Topic: "orders"}
	if _, err := db.Claim(t.Context(), "me", []cursor.ID{id}, map[cursor.ID]int64{id: 7}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Exec(t.Context(), `CREATE TABLE t__old (id text); CREATE VIEW seen_by_people AS SELECT * FROM t__old`); err != nil {
		t.Fatal(err)
	}
	swap := sink.Swap{Into: "a", From: "a__v2", Tables: []sink.Renamed{{Name: "t", New: "t__v2", Old: "t__old"}}}
	err := db.Swap(t.Context(), swap)
	for _, want := range []string{"drop what is made on", "seen_by_people"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Swap: %v, want %q in it", err, want)
		}
	}
	if at, err := db.Positions(t.Context(), "a__v2"); err != nil || len(at) != 1 {
		t.Errorf("positions of the rebuild: %v, %v, want them where they were", at, err)
	}
	if _, err := p.Exec(t.Context(), `DROP VIEW seen_by_people`); err != nil {
		t.Fatal(err)
	}
	if err := db.Swap(t.Context(), swap); err != nil {
		t.Error(err)
	}
}

// A swap locks position rows in the order of claims, that of bytes, whatever the collation of the database: one that
// waits for the first row holds none of those behind it.
func TestRealSwapLocksInTheOrderOfClaims(t *testing.T) {
	t.Parallel()
	p := pool(t, pgtest.DB(t))
	db := pgsink.NewDB(p, pgsink.Config{})
	columns := []schemas.Column{field("id", schemas.KindString, false)}
	if err := prepare(t, db, false, &sink.Table{Name: "t__v2", Key: []string{"id"}}, columns); err != nil {
		t.Fatal(err)
	}
	// In it a stands before B.
	if _, err := p.Exec(t.Context(), `ALTER TABLE millrace_sink_offsets ALTER COLUMN topic TYPE text COLLATE "en-x-icu"`); err != nil {
		t.Skip(err)
	}
	ids := []cursor.ID{{Reader: "a__v2", Topic: "B"}, {Reader: "a__v2", Topic: "a"}}
	if _, err := db.Claim(t.Context(), "me", ids, map[cursor.ID]int64{ids[0]: 0, ids[1]: 0}); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(s sink.Swap) error{
		"discard": func(s sink.Swap) error { return db.Discard(t.Context(), s) },
		"swap":    func(s sink.Swap) error { return db.Swap(t.Context(), s) },
	} {
		tx, err := p.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `SELECT FROM millrace_sink_offsets WHERE topic = 'B' FOR UPDATE`); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			ended <- f(sink.Swap{Into: "a", From: "a__v2", Tables: []sink.Renamed{{Name: "t", New: "missing", Old: "t__old"}}})
		}()
		eventually(t, func() error {
			var waits bool
			err := p.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
			if err == nil && !waits {
				err = errors.New("nobody waits")
			}
			return err
		})
		if tag, err := tx.Exec(t.Context(), `SELECT FROM millrace_sink_offsets WHERE topic = 'a' FOR UPDATE SKIP LOCKED`); err != nil || tag.RowsAffected() != 1 {
			t.Errorf("%s holds the last row while it waits for the first: %v, %v", name, tag, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; (err == nil) != (name == "discard") { // a swap needs the table that is missing
			t.Errorf("%s: %v", name, err)
		}
		if _, err := db.Claim(t.Context(), "me", ids, map[cursor.ID]int64{ids[0]: 0, ids[1]: 0}); err != nil {
			t.Fatal(err)
		}
	}
}
