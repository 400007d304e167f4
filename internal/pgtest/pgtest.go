// Package pgtest gives tests, benchmarks and people a real PostgreSQL: started from Debian's package on a free
// loopback port, and gone with the process that started it.
//
//	dsn := pgtest.DB(t)                              // a fresh database on the server that a package's tests share
//
//	s := pgtest.Start(t, pgtest.Config{Fsync: true}) // a server for this test alone, to be killed and paused
//	p := pgtest.NewProxy(t, s.DSN("postgres"))       // a way to it that can be cut at COMMIT
//
// Beneath both is [Boot], which knows nothing of tests; the command in the folder postgres uses it for people.
//
// A test that needs PostgreSQL and finds none is skipped with the reason; with CI=true it fails, because a test that
// did not run proves nothing. It needs a Unix: servers are ended by signals.
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// shared is the one server of a test process: booted by the first test that asks, ended with the process.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// DB is the DSN of an empty database of this test, on a server that all tests of the process share. It is dropped
// after the test, whoever is still connected. The server does not fsync: it survives [Server.Kill], not a power cut.
func DB(tb testing.TB) string {
	tb.Helper()
	shared.once.Do(func() { shared.server, shared.err = Boot(context.Background(), Config{}) })
	require(tb, shared.server, shared.err)
	return shared.server.Fresh(tb)
}

// Start is a server of its own for this test, ended with it.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	s, err := Boot(tb.Context(), cfg)
	require(tb, s, err)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the end of PostgreSQL's log:\n%s", s.tail())
		}
		if err := s.Close(); err != nil {
			tb.Errorf("end PostgreSQL: %v", err)
		}
	})
	return s
}

// Fresh is the DSN of an empty database of this test, dropped after it.
func (s *Server) Fresh(tb testing.TB) string {
	tb.Helper()
	var b [8]byte
	_, _ = rand.Read(b[:])
	name := "test_" + hex.EncodeToString(b[:])
	if err := s.exec(tb.Context(), "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("make a database: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.exec(context.WithoutCancel(tb.Context()), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Logf("drop database %s: %v", name, err)
		}
	})
	return s.DSN(name)
}

// exec runs one statement in the database postgres.
func (s *Server) exec(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// require ends the test where there is no server: skipped on a machine that lacks PostgreSQL, failed else.
func require(tb testing.TB, s *Server, err error) {
	tb.Helper()
	switch {
	case err == nil:
		note("PostgreSQL "+s.Version, "ran")
	case errors.Is(err, ErrMissing) && os.Getenv("CI") != "true":
		note("PostgreSQL", "skipped")
		tb.Skipf("needs a real PostgreSQL: %v", err)
	default:
		note("PostgreSQL", "failed")
		tb.Fatalf("needs a real PostgreSQL: %v", err)
	}
}

// note appends what tests ran against to the file of MILLRACE_TIERS: tier, version, status. The tier is the folder of
// test/ that the test stands in.
func note(version, status string) {
	name := os.Getenv("MILLRACE_TIERS")
	if name == "" {
		return
	}
	tier := "unit"
	if dir, err := os.Getwd(); err == nil {
		if _, rest, ok := strings.Cut(filepath.ToSlash(dir), "/test/"); ok {
			tier, _, _ = strings.Cut(rest, "/")
		}
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600) //nolint:gosec // the runner names it
	if err != nil {
		return // the runner says what it finds
	}
	defer func() { _ = f.Close() }()
	_, _ = fmt.Fprintf(f, "%s\t%s\t%s\n", tier, version, status)
}
