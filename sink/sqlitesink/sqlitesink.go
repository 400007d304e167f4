// Package sqlitesink writes events to a file of SQLite, each once: the position of a partition and what its events
// changed are one transaction. Nothing has to be installed or run beside it.
//
//	db, err := sqlitesink.Open("analytics.db")
//	out := sqlitesink.New(db, sqlitesink.Config{})
//	out.Table(sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"order_id"}})
//	err = sink.Run(ctx, cluster, registry, out, sink.Config{Name: "analytics", Topics: []string{"shop.orders"}})
//
// Two tables are its own: millrace_sink_offsets has a row per sink and partition, the only truth about where it stands;
// millrace_sink_seen has the ids of [sink.Config.Dedupe]. Tables and folds are created where they do not exist, STRICT.
//
// # How values are kept
//
// SQLite has five types. Booleans are INTEGER 0 and 1; numbers INTEGER and REAL, decimals TEXT with all their digits;
// timestamps TEXT in UTC, 2026-01-31 15:04:05.000006, dates and times of day the parts of that: they sort by time and
// SQLite's date functions read them. Text, UUIDs and JSON are TEXT, bytes BLOB. A fold is a table of key, window_start
// (a timestamp; empty without windows) and state (JSON).
//
// # One writer
//
// SQLite has one writer at a time. Transactions of one process queue in it; those of several processes on one file
// wait for each other up to [Config.Busy]. Readers never wait: the file is kept in WAL mode. The file must be on a disk
// of the machine, not on a network share.
package sqlitesink

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/millrace/millrace/sink"
)

// Config says how the sink uses its file. The zero value is good.
type Config struct {
	// Lazy leaves it to SQLite when commits reach the disk, at the latest with the next checkpoint, instead of waiting
	// for each (PRAGMA synchronous=NORMAL instead of FULL). A crash of the process loses nothing either way. A crash of the
	// machine may undo the last transactions, with their positions, so that their events are read again: what is in the
	// file stays right, as long as the topic still has them. Defaults to false.
	Lazy bool
	// Busy is how long a transaction waits for one of another process. Defaults to 10 seconds.
	Busy time.Duration
}

func (c Config) withDefaults() Config {
	if c.Busy <= 0 {
		c.Busy = 10 * time.Second
	}
	return c
}

// Open opens the file at path, and creates it where it does not exist, with what suits a sink and its readers: WAL,
// waiting for up to 10 seconds, and write locks taken when a transaction begins. A handle that was opened in another
// way will do as well, if its driver is modernc.org/sqlite.
func Open(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// New returns a mux that writes to db, a file of SQLite that modernc.org/sqlite has opened. It does nothing yet. The
// handle stays the caller's, to read from, and to close when Run has returned.
func New(db *sql.DB, cfg Config) *sink.Mux[*sql.Tx] {
	return sink.NewMux[*sql.Tx](newDB(db, cfg))
}

// db implements [sink.DB].
type db struct {
	pool   *sql.DB
	begin  string        // pragmas of a connection
	turn   chan struct{} // holds one: the right to write
	now    func() time.Time
	commit func(tx *sql.Tx) error
}

func newDB(pool *sql.DB, cfg Config) *db {
	cfg = cfg.withDefaults()
	level := "FULL"
	if cfg.Lazy {
		level = "NORMAL"
	}
	return &db{
		pool:   pool,
		begin:  fmt.Sprintf("PRAGMA busy_timeout=%d; PRAGMA synchronous=%s", cfg.Busy.Milliseconds(), level),
		turn:   make(chan struct{}, 1),
		now:    time.Now,
		commit: (*sql.Tx).Commit,
	}
}

// lock is a statement that changes nothing and takes the write lock: from then on a transaction sees what it will
// write on. One that read first could find, when it writes, that another has written meanwhile.
const lock = "UPDATE " + offsetsTable + " SET epoch = epoch WHERE 0"

// InTx implements [sink.DB].
func (d *db) InTx(ctx context.Context, f func(ctx context.Context, tx *sql.Tx) error) error {
	return d.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, lock); err != nil {
			return fmt.Errorf("take the write lock: %w", err)
		}
		return f(ctx, tx)
	})
}

// transact waits for its turn, which SQLite would have it do by asking again and again.
func (d *db) transact(ctx context.Context, f func(tx *sql.Tx) error) error {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return fmt.Errorf("wait for another transaction: %w", ctx.Err())
	}
	conn, err := d.pool.Conn(ctx)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	if _, err := conn.ExecContext(ctx, d.begin); err != nil {
		return fmt.Errorf("set up a connection: %w", err)
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing; after an error SQLite does the same
	if err := f(tx); err != nil {
		return err
	}
	switch err := d.commit(tx); {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), code(err) == sqlite3.SQLITE_BUSY:
		return fmt.Errorf("commit: %w", err) // it was rolled back
	default:
		return fmt.Errorf("commit: %w: %w", sink.ErrUnknownCommit, err)
	}
}

// Try implements [sink.DB]. Savepoints within each other may have one name: it means the innermost.
func (d *db) Try(ctx context.Context, tx *sql.Tx, f func(ctx context.Context) error) error {
	if _, err := tx.ExecContext(ctx, "SAVEPOINT millrace"); err != nil {
		return fmt.Errorf("set a savepoint: %w", err)
	}
	err := f(ctx)
	end := "RELEASE millrace"
	if err != nil {
		end = "ROLLBACK TO millrace; RELEASE millrace"
	}
	if _, endErr := tx.ExecContext(ctx, end); endErr != nil {
		return errors.Join(err, fmt.Errorf("end a savepoint: %w", endErr))
	}
	return err
}

// code is SQLite's primary result code of err, 0 where it has none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// errPlan is the fault of whoever declared a table.
var errPlan = errors.New("the table is not as it is declared")

// Fault implements [sink.DB].
func (d *db) Fault(err error) sink.Fault {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == sqlite3.SQLITE_BUSY_SNAPSHOT {
		return sink.Again
	}
	switch c := code(err); c {
	case 0:
	case sqlite3.SQLITE_LOCKED:
		return sink.Again
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
		return sink.Data
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return sink.Wrong
	default: // busy, full, an error of the disk
		return sink.Away
	}
	switch {
	case errors.Is(err, errPlan):
		return sink.Wrong
	case errors.Is(err, sql.ErrConnDone), errors.Is(err, driver.ErrBadConn):
		return sink.Away
	default:
		return sink.Foreign
	}
}
