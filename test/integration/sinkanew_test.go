package integration_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/pgtest"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/pgsink"
	"github.com/millrace/millrace/sink/sqlitesink"
)

// sinkMux is a mux of any database.
type sinkMux interface {
	sink.Target
	Admin() sink.Admin
	Swap(name string) sink.Swap
}

// store is a database that a copy can be kept of, and put back.
type store interface {
	open(t *testing.T, topic string) *opened
	// keep and restore are called while it is not open.
	keep(t *testing.T)
	restore(t *testing.T)
}

// opened is a database as it is open.
type opened struct {
	mux    sinkMux
	takes  ledger.Takes
	second string // of a window
	query  ledger.Query
	exec   func(statement string) error
	close  func()
}

// The tables of a sink that are dropped are built anew, and those of a database that is put back to an older state go on
// from there, whatever the group in Kafka says: both are then what the log says, and go on.
func TestRealSinkAnew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		make func(t *testing.T) store
	}{
		{"PostgreSQL", newPostgresStore},
		{"SQLite", func(t *testing.T) store { t.Helper(); return &sqliteStore{filepath.Join(t.TempDir(), "ledger.db")} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const old, most, all = 12_000, 20_000, 24_000
			p, s := newPipeline(t, 4), tt.make(t)
			records := p.plan(all, 4)
			p.move(records[:old]...)
			p.sinkUntil(s, false, old)
			s.keep(t)

			p.move(records[old:most]...)
			p.sinkUntil(s, false, most)
			p.wantStore(s)

			s.restore(t)
			db := s.open(t, p.topic)
			if n := sinkStands(t, db.mux, p.group); n != old {
				t.Fatalf("the database that was put back stands at %d, want %d", n, old)
			}
			db.close()
			p.sinkUntil(s, false, most)
			p.wantStore(s)

			db = s.open(t, p.topic)
			for _, table := range []string{"accounts", "moves", "regions"} {
				if err := db.exec("DROP TABLE " + table); err != nil {
					t.Fatal(err)
				}
			}
			db.close()
			p.sinkUntil(s, true, most/3) // it is stopped, and goes on where it was
			p.sinkUntil(s, true, most)
			db = s.open(t, p.topic)
			if err := db.mux.Admin().Swap(t.Context(), db.mux.Swap(p.group)); err != nil {
				t.Fatal(err)
			}
			db.close()
			p.wantStore(s)

			p.move(records[most:]...)
			p.sinkUntil(s, false, all)
			p.wantStore(s)
		})
	}
}

// sinkUntil runs the sink, or its rebuild, until n events are written at least.
func (p *pipeline) sinkUntil(s store, rebuild bool, n int64) {
	p.t.Helper()
	db := s.open(p.t, p.topic)
	defer db.close()
	cfg := sink.Config{
		Name: p.group, Topics: []string{p.topic}, Batch: 500, Wait: 5 * time.Millisecond, Dedupe: 24 * time.Hour, CreateTopics: true, Rebuild: rebuild,
	}
	name := p.group
	if rebuild {
		name += sink.RebuildSuffix
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx, p.cluster, p.reads, db.mux, cfg) }()
	await(p.t, fmt.Sprintf("%d events written by %s", n, name), func() bool {
		select {
		case err := <-ended:
			p.t.Fatalf("the sink ended: %v", err)
		default:
		}
		return sinkStands(p.t, db.mux, name) >= n
	})
	cancel()
	if err := <-ended; err != nil {
		p.t.Fatal(err)
	}
}

// sinkStands is how far the positions of a sink have come, over all partitions.
func sinkStands(t *testing.T, m sinkMux, name string) (sum int64) {
	t.Helper()
	rows, err := m.Admin().Positions(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		sum += r.Next
	}
	return sum
}

func (p *pipeline) wantStore(s store) {
	p.t.Helper()
	db := s.open(p.t, p.topic)
	defer db.close()
	p.wantTables(db.takes, db.query, db.second, false)
	if p.t.Failed() {
		p.t.FailNow()
	}
}

// postgresStore is a database on the server that tests share; its copy is a database beside it.
type postgresStore struct {
	dsn, name string
	server    *pgxpool.Pool
}

func newPostgresStore(t *testing.T) store {
	t.Helper()
	s := &postgresStore{dsn: pgtest.DB(t)}
	cfg, err := pgxpool.ParseConfig(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	s.name = cfg.ConnConfig.Database
	cfg.ConnConfig.Database = "postgres"
	if s.server, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.server.Close)
	return s
}

func (s *postgresStore) open(t *testing.T, topic string) *opened {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	m := pgsink.New(pool, pgsink.Config{})
	ledger.Declare(m, topic)
	return &opened{
		mux: m, takes: ledger.Takes{Refused: true}, second: ledger.PostgresWindow, close: pool.Close,
		exec: func(statement string) error { _, err := pool.Exec(t.Context(), statement); return err },
		query: func(ctx context.Context, text string, row func(scan func(...any) error) error) error {
			rows, err := pool.Query(ctx, text)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				if err := row(rows.Scan); err != nil {
					return err
				}
			}
			return rows.Err()
		},
	}
}

func (s *postgresStore) keep(t *testing.T) {
	t.Helper()
	s.do(t, "CREATE DATABASE "+s.quoted("_old")+" TEMPLATE "+s.quoted(""))
}

func (s *postgresStore) restore(t *testing.T) {
	t.Helper()
	s.do(t, "DROP DATABASE "+s.quoted("")+" WITH (FORCE)")
	s.do(t, "ALTER DATABASE "+s.quoted("_old")+" RENAME TO "+s.quoted(""))
}

func (s *postgresStore) quoted(suffix string) string {
	return pgx.Identifier{s.name + suffix}.Sanitize()
}

func (s *postgresStore) do(t *testing.T, statement string) {
	t.Helper()
	if _, err := s.server.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// sqliteStore is a file; its copy is a file beside it.
type sqliteStore struct{ path string }

func (s *sqliteStore) open(t *testing.T, topic string) *opened {
	t.Helper()
	db, err := sqlitesink.Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	m := sqlitesink.New(db, sqlitesink.Config{})
	ledger.Declare(m, topic)
	return &opened{
		mux: m, takes: ledger.Takes{Zero: true, Refused: true}, second: ledger.SQLiteWindow, query: sqliteQuery(db),
		exec:  func(statement string) error { _, err := db.ExecContext(t.Context(), statement); return err },
		close: func() { closeFile(t, db) },
	}
}

// closeFile brings the log of the file into the file.
func closeFile(t *testing.T, db *sql.DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func (s *sqliteStore) keep(t *testing.T) { t.Helper(); copyFile(t, s.path, s.path+".old") }

func (s *sqliteStore) restore(t *testing.T) {
	t.Helper()
	for _, beside := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(s.path + beside); err == nil {
			t.Fatalf("%s%s is there: the file was not closed", s.path, beside)
		}
	}
	copyFile(t, s.path+".old", s.path)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() //nolint:errcheck // it was read
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
