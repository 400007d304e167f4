package pgtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace/millrace/internal/pgtest"
)

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.WithoutCancel(t.Context())) })
	return c
}

func exec(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func count(t *testing.T, c *pgx.Conn) int {
	t.Helper()
	var n int
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDBIsEmptyAndItsOwn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "other"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exec(t, connect(t, pgtest.DB(t)), "CREATE TABLE t()")
		})
	}
}

// What was committed is there after a kill, what was open is not.
func TestKillAndStart(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Config{})
	dsn := s.Fresh(t)
	c := connect(t, dsn)
	exec(t, c, "CREATE TABLE t(a int)")
	exec(t, c, "INSERT INTO t VALUES(1)")
	exec(t, c, "BEGIN")
	exec(t, c, "INSERT INTO t VALUES(2)")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if s.PID() != 0 {
		t.Error("it runs")
	}
	if _, err := c.Exec(t.Context(), "COMMIT"); err == nil {
		t.Error("a killed server answered")
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, connect(t, dsn)); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, connect(t, dsn)); n != 1 {
		t.Errorf("%d rows after a restart, want 1", n)
	}
}

func TestPausedServerIsSilent(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Config{})
	c := connect(t, s.DSN("postgres"))
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	exec(t, connect(t, s.DSN("postgres")), "SELECT 1")
}

func TestProxyCutsAtCommit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		cut  func(*pgtest.Proxy, int)
		want int
	}{
		{"before", (*pgtest.Proxy).CutBefore, 1},
		{"after", (*pgtest.Proxy).CutAfter, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := pgtest.NewProxy(t, pgtest.DB(t))
			c := connect(t, p.DSN())
			exec(t, c, "CREATE TABLE t(a int)")
			test.cut(p, 2)
			for i := range 2 {
				tx, err := c.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec(t.Context(), "INSERT INTO t VALUES($1)", i); err != nil {
					t.Fatal(err)
				}
				if err := tx.Commit(t.Context()); (err != nil) != (i == 1) {
					t.Fatalf("commit %d: %v", i, err)
				}
			}
			if p.Commits() != 2 {
				t.Errorf("%d commits, want 2", p.Commits())
			}
			if n := count(t, connect(t, p.DSN())); n != test.want {
				t.Errorf("%d rows, want %d", n, test.want)
			}
		})
	}
}

func TestBootEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pgtest.Boot(ctx, pgtest.Config{}); err == nil {
		t.Error("booted under a context that has ended")
	}
}
