package integration_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/parquetsink"
	"github.com/millrace/millrace/sink/sqlitesink"
)

// The variables that make this test binary a sink, until SIGTERM or a kill.
const (
	memberSQLite  = "MILLRACE_MEMBER_SQLITE"  // writes to this file
	memberParquet = "MILLRACE_MEMBER_PARQUET" // writes to this directory
	memberTopic   = "MILLRACE_MEMBER_TOPIC"
	memberName    = "MILLRACE_MEMBER_NAME"
)

func TestMain(m *testing.M) {
	if os.Getenv(memberSQLite) == "" && os.Getenv(memberParquet) == "" {
		os.Exit(m.Run())
	}
	if err := runSink(); err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		os.Exit(1)
	}
}

// runSink tells on stdout of each transaction that it has committed, a line each.
func runSink() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var s service.Settings
	if err := s.FromEnv(os.Getenv); err != nil {
		return err
	}
	cluster, err := s.Cluster()
	if err != nil {
		return err
	}
	log, err := s.Logger(zapcore.Lock(os.Stderr))
	if err != nil {
		return err
	}
	reg, err := s.Registry(log)
	if err != nil {
		return err
	}
	topic := os.Getenv(memberTopic)
	cfg := sink.Config{
		Name: os.Getenv(memberName), Topics: []string{topic}, Batch: 250, Wait: 5 * time.Millisecond, CreateTopics: true,
		InstanceID: "one", Observer: teller{}, Log: log,
	}
	if dir := os.Getenv(memberParquet); dir != "" {
		return sink.Run(ctx, cluster, reg, parquetOut(dir), cfg)
	}
	db, err := sqlitesink.Open(os.Getenv(memberSQLite))
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // what was committed is written
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS by_hand (n INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, part INTEGER NOT NULL,
at INTEGER NOT NULL, account TEXT NOT NULL, seq INTEGER NOT NULL) STRICT`); err != nil {
		return err
	}
	out := sqlitesink.New(db, sqlitesink.Config{})
	ledger.ByHand(out, func(ctx context.Context, tx *sql.Tx, es []event.Of[ledger.Moved]) error {
		stmt, err := tx.PrepareContext(ctx, `INSERT INTO by_hand (`+strings.Join(ledger.ByHandColumns, ", ")+`) VALUES (?, ?, ?, ?, ?)`)
		if err != nil {
			return err
		}
		defer stmt.Close() //nolint:errcheck // the transaction ends it as well
		for i := range es {
			e := &es[i]
			if _, err := stmt.ExecContext(ctx, e.ID, e.Partition, e.Offset, e.Data.Account, e.Data.Seq); err != nil {
				return err
			}
		}
		return nil
	})
	ledger.Declare(out, topic)
	cfg.Dedupe = 24 * time.Hour
	return sink.Run(ctx, cluster, reg, out, cfg)
}

// parquetOut writes the events' fields, and where each was read.
func parquetOut(dir string) sink.Target {
	return parquetsink.New(parquetsink.Config{Dir: dir, Columns: []sink.Column{
		{Name: "part", From: "$partition"},
		{Name: "at", From: "$offset"},
		{Name: "event_id", From: "$id"},
		{Name: "account"},
		{Name: "region"},
		{Name: "seq"},
		{Name: "cents"},
		{Name: "note"},
	}})
}

// teller tells of each transaction that was committed.
type teller struct{ sink.Silent }

// Written implements [sink.Observer].
func (teller) Written(_ cursor.ID, w sink.Written, _ time.Duration, err error) {
	if err == nil {
		fmt.Println("written", w.Events)
	}
}

// process is a sink in a process of its own.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// member starts this test binary as a sink.
func (p *pipeline) member(kind, where string) *process {
	p.t.Helper()
	m := &process{t: p.t, cmd: exec.CommandContext(p.t.Context(), os.Args[0])}
	m.cmd.Env = append(os.Environ(), service.Env("brokers")+"="+strings.Join(p.cluster.Seeds, ","), service.Env("registry")+"="+p.registry.url(),
		service.Env("log-level")+"=error", kind+"="+where, memberTopic+"="+p.topic, memberName+"="+p.group)
	m.cmd.Stderr = os.Stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	m.lines = bufio.NewScanner(out)
	if err := m.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return m
}

// kill ends it with SIGKILL when it has told of n transactions, in the midst of others.
func (m *process) kill(n int) {
	m.t.Helper()
	for range n {
		if !m.lines.Scan() {
			m.t.Fatalf("the sink ended by itself: %v", m.cmd.Wait())
		}
	}
	if err := m.cmd.Process.Kill(); err != nil {
		m.t.Error(err)
	}
	_ = m.cmd.Wait() // killed
}

// drain reads what it tells, so that it can go on.
func (m *process) drain() {
	go func() {
		for m.lines.Scan() {
		}
	}()
}

func (m *process) stop() {
	m.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Error(err)
	}
	if err := m.cmd.Wait(); err != nil {
		m.t.Errorf("the sink ended with %v", err)
	}
}
