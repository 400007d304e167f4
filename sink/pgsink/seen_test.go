package pgsink_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/internal/pgtest"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/pgsink"
)

const seenDayFormat = "millrace_sink_seen_20060102"

// today is the database's day.
func today(t *testing.T, p *pgxpool.Pool) time.Time {
	t.Helper()
	var now time.Time
	if err := p.QueryRow(t.Context(), "SELECT now()").Scan(&now); err != nil {
		t.Fatal(err)
	}
	return now.UTC().Truncate(24 * time.Hour)
}

func noteIDs(m *member, keep time.Duration, ids ...string) (seen []bool, err error) {
	err = m.try(func(ctx context.Context, tx pgx.Tx) error {
		seen, err = m.Seen(ctx, tx, "s", ids, keep)
		return err
	})
	return seen, err
}

// addDay makes the partition of a day, with ids that were seen at its noon.
func addDay(t *testing.T, p *pgxpool.Pool, day time.Time, ids ...string) {
	t.Helper()
	from, to := day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly)
	if _, err := p.Exec(t.Context(), fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s PARTITION OF millrace_sink_seen FOR VALUES FROM ('%s') TO ('%s')", day.Format(seenDayFormat), from, to)); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if _, err := p.Exec(t.Context(), "INSERT INTO millrace_sink_seen VALUES ('s', $1, $2, $3)", id, day, day.Add(12*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
}

// An id of an earlier day is seen as long as it is kept, and no longer, to the second.
func TestRealSeenOnEarlierDays(t *testing.T) {
	t.Parallel()
	p, db := fresh(t, &sink.Table{Name: "t", Key: []string{"id"}}, []schemas.Column{field("id", schemas.KindString, false)})
	m, day := newMember(t, db, 0), today(t, p)
	addDay(t, p, day.AddDate(0, 0, -1), "yesterday")
	addDay(t, p, day.AddDate(0, 0, -5), "five days ago")
	if _, err := p.Exec(t.Context(), "INSERT INTO millrace_sink_seen SELECT 's', 'an hour ago', (now() AT TIME ZONE 'UTC')::date, now() - interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		keep time.Duration
		want []bool // an hour ago, five days ago, yesterday
	}{
		{50 * time.Hour, []bool{true, false, true}},
		{9 * 24 * time.Hour, []bool{true, true, true}},
	} {
		seen, err := noteIDs(m, step.keep, "an hour ago", "five days ago", "yesterday")
		if err != nil || !slices.Equal(seen, step.want) {
			t.Errorf("keeping %s: %v, %v, want %v", step.keep, seen, err, step.want)
		}
	}
	if _, err := p.Exec(t.Context(), "UPDATE millrace_sink_seen SET seen = now() - interval '1 hour' WHERE event_id = 'an hour ago'"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{false, true} { // too old is as good as new, and seen from then on
		if seen, err := noteIDs(m, 30*time.Minute, "an hour ago"); err != nil || seen[0] != want {
			t.Errorf("an hour ago, kept for half of one: %v, %v, want %t", seen, err, want)
		}
	}
}

// Two transactions on either side of midnight with one id meet, though their days have indexes of their own.
func TestRealSeenAcrossMidnight(t *testing.T) {
	t.Parallel()
	p, _ := fresh(t, &sink.Table{Name: "t", Key: []string{"id"}}, []schemas.Column{field("id", schemas.KindString, false)})
	db := pgsink.NewDB(p, pgsink.Config{Timeout: 12 * time.Hour, Idle: time.Minute}) // so that all of the day is early
	before, err := p.Begin(t.Context())                                              // a transaction that began yesterday
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = before.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := before.Exec(t.Context(), "INSERT INTO millrace_sink_seen SELECT 's', 'b', (now() AT TIME ZONE 'UTC')::date - 1, now()"); err != nil {
		t.Fatal(err)
	}
	m := newMember(t, db, 0)
	type answer struct {
		seen []bool
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		seen, err := noteIDs(m, time.Hour, "a", "b")
		done <- answer{seen, err}
	}()
	eventually(t, func() error {
		var n int
		err := p.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d sessions wait for a lock, want 1", n)
		}
		return err
	})
	if err := before.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := <-done; a.err != nil || !slices.Equal(a.seen, []bool{false, true}) {
		t.Errorf("%v, %v, want a new and b seen", a.seen, a.err)
	}
	if seen, err := noteIDs(m, time.Hour, "a", "b", "c"); err != nil || !slices.Equal(seen, []bool{true, true, false}) {
		t.Errorf("afterwards: %v, %v", seen, err)
	}
}

// The first transaction of a day makes the partitions of those to come and drops what no sink needs, and only that.
func TestRealSeenPartitions(t *testing.T) {
	t.Parallel()
	p, db := fresh(t, &sink.Table{Name: "t", Key: []string{"id"}}, []schemas.Column{field("id", schemas.KindString, false)})
	day := today(t, p)
	for _, ago := range []int{2, 4, 5, 30} {
		addDay(t, p, day.AddDate(0, 0, -ago))
	}
	if _, err := p.Exec(t.Context(), "DROP TABLE "+day.AddDate(0, 0, 2).Format(seenDayFormat)); err != nil {
		t.Fatal(err)
	}
	if _, err := noteIDs(newMember(t, db, 0), 72*time.Hour, "a"); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, ago := range []int{-3, -2, -1, 0, 1, 2, 4} {
		want = append(want, day.AddDate(0, 0, -ago).Format(seenDayFormat))
	}
	rows, err := p.Query(t.Context(), "SELECT relname::text FROM pg_class WHERE relname LIKE 'millrace_sink_seen_2%' AND relkind = 'r'")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("partitions %v (%v), want %v", got, err, want)
	}
}

// Where the partition of the day is missing, it is made, and the transaction goes through when it is tried again.
func TestRealSeenWithoutPartition(t *testing.T) {
	t.Parallel()
	p, db := fresh(t, &sink.Table{Name: "t", Key: []string{"id"}}, []schemas.Column{field("id", schemas.KindString, false)})
	m := newMember(t, db, 0)
	if _, err := noteIDs(m, time.Hour, "a"); err != nil { // what the day needs is done
		t.Fatal(err)
	}
	if _, err := p.Exec(t.Context(), "DROP TABLE "+today(t, p).Format(seenDayFormat)); err != nil {
		t.Fatal(err)
	}
	if _, err := noteIDs(m, time.Hour, "a"); err == nil || db.Fault(err) != sink.Again {
		t.Errorf("got %v, a fault of %s, want again", err, db.Fault(err))
	}
	if seen, err := noteIDs(m, time.Hour, "a"); err != nil || seen[0] {
		t.Errorf("%v, %v", seen, err)
	}
}

// A swap puts tables and folds in their places at once; who reads meanwhile sees the one or the other.
func TestRealSwapOfTables(t *testing.T) {
	t.Parallel()
	columns := []schemas.Column{field("id", schemas.KindString, false)}
	live, rebuilt := sink.Table{Name: "t", Key: []string{"id"}}, sink.Table{Name: "t__v2", Key: []string{"id"}}
	p, db := fresh(t, &live, columns)
	if err := prepare(t, db, false, &rebuilt, columns); err != nil {
		t.Fatal(err)
	}
	m := newMember(t, db, 0)
	for table, id := range map[*sink.Table]string{&live: "old", &rebuilt: "new"} {
		if _, err := m.write(table, rowsOf(t, columns, object(`{"id":"`+id+`"}`)), nil); err != nil {
			t.Fatal(err)
		}
	}
	swap := sink.Swap{Into: "into", From: "nobody", Tables: []sink.Renamed{{Name: "t", New: "t__v2", Old: "t__old"}}}
	if err := db.Swap(t.Context(), swap); db.Fault(err) != sink.Wrong || !strings.Contains(err.Error(), "nobody has no positions") {
		t.Errorf("a swap of what was never rebuilt: %v", err)
	}
	reader, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Rollback(context.WithoutCancel(t.Context())) }()
	read := func(q interface {
		QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	},
	) (id string) {
		t.Helper()
		if err := q.QueryRow(t.Context(), "SELECT id FROM t").Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	if got := read(reader); got != "old" {
		t.Errorf("before the swap: %s", got)
	}
	swap.From = "s"
	done := make(chan error, 1)
	go func() { done <- db.Swap(t.Context(), swap) }()
	if got := read(reader); got != "old" {
		t.Errorf("a reader that was there before: %s", got)
	}
	if err := reader.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := read(p); got != "new" {
		t.Errorf("after the swap: %s", got)
	}
	if got := contents(t, p, "t__old", []string{"id"}); got[0][0] != "old" {
		t.Errorf("what was there is %v", got)
	}
	rows, err := db.Positions(t.Context(), "into")
	if err != nil || len(rows) != 1 || rows[0].Epoch <= m.at.Lease.Epoch {
		t.Errorf("positions: %+v, %v", rows, err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	db := pgsink.NewDB(nil, pgsink.Config{})
	for code, want := range map[string]sink.Fault{
		"40001": sink.Again, "40P01": sink.Again, "55P03": sink.Again,
		"22003": sink.Data, "22P05": sink.Data, "23505": sink.Data, "23514": sink.Data, "54000": sink.Data, "P0001": sink.Data,
		"42P01": sink.Wrong, "42501": sink.Wrong, "28P01": sink.Wrong, "3D000": sink.Wrong, "25P02": sink.Wrong, "2BP01": sink.Wrong, "26000": sink.Wrong,
		"57P01": sink.Away, "57P03": sink.Away, "57014": sink.Away, "53300": sink.Away, "08006": sink.Away, "25006": sink.Away, "25P03": sink.Away, "XX000": sink.Away, "": sink.Away,
	} {
		if got := db.Fault(fmt.Errorf("write: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s is %s, want %s", code, got, want)
		}
	}
}

// A sink that may write its tables and not create any starts where they exist.
func TestRealLeastRights(t *testing.T) {
	t.Parallel()
	columns := []schemas.Column{field("id", schemas.KindString, false)}
	table := sink.Table{Name: "t", Key: []string{"id"}}
	dsn := pgtest.DB(t)
	p := pool(t, dsn)
	if err := prepare(t, pgsink.NewDB(p, pgsink.Config{}), false, &table, columns); err != nil {
		t.Fatal(err)
	}
	role := "r" + strings.TrimPrefix(p.Config().ConnConfig.Database, "test_")
	if _, err := p.Exec(t.Context(), "CREATE ROLE "+role+" LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "+role+"; REVOKE CREATE ON SCHEMA public FROM public"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := p.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	db := pgsink.NewDB(pool(t, strings.Replace(dsn, "millrace@", role+"@", 1)), pgsink.Config{})
	if err := prepare(t, db, true, &table, columns); err != nil {
		t.Fatal(err)
	}
	m := newMember(t, db, 0)
	if _, err := m.write(&table, rowsOf(t, columns, object(`{"id":"a"}`)), nil); err != nil {
		t.Error(err)
	}
	if _, err := noteIDs(m, time.Hour, "a"); err != nil {
		t.Error(err)
	}
	if err := prepare(t, db, true, &sink.Table{Name: "new", Key: []string{"id"}}, columns); db.Fault(err) != sink.Wrong || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a table that it may not create: %v", err)
	}
}

// Nothing is prepared by name in a session, which a pooler gives to another after the transaction.
func TestRealNothingStaysInASession(t *testing.T) {
	t.Parallel()
	columns := []schemas.Column{field("id", schemas.KindString, false)}
	table := sink.Table{Name: "t", Key: []string{"id"}}
	p := pool(t, pgtest.DB(t)+"&pool_max_conns=1")
	db := pgsink.NewDB(p, pgsink.Config{})
	for range 2 {
		if err := prepare(t, db, true, &table, columns); err != nil {
			t.Fatal(err)
		}
	}
	m := newMember(t, db, 0)
	if _, err := noteIDs(m, time.Hour, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.write(&table, rowsOf(t, columns, object(`{"id":"a"}`)), rowsOf(t, columns, object(`{"id":"b"}`))); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Settle(t.Context(), m.at, m.at); err != nil {
		t.Fatal(err)
	}
	if err := db.Swap(t.Context(), sink.Swap{Into: "into", From: "s"}); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := p.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''", pgx.QueryExecModeExec).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d prepared statements: %v", n, err)
	}
}
