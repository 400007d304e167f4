// Package pgsink writes events to PostgreSQL, each once: the position of a partition and what its events changed are
// one transaction.
//
//	pool, err := pgxpool.New(ctx, dsn)
//	out := pgsink.New(pool, pgsink.Config{})
//	out.Table(sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"order_id"}})
//	err = sink.Run(ctx, cluster, registry, out, sink.Config{Name: "analytics", Topics: []string{"shop.orders"}})
//
// Two tables are its own: millrace_sink_offsets has a row per sink and partition, the only truth about where it stands;
// millrace_sink_seen has the ids of [sink.Config.Dedupe], a partition a day. Tables and folds are created where they do
// not exist.
//
// It needs PostgreSQL 12 or newer, and works through pgbouncer in transaction mode: it holds nothing in a session, no
// prepared statement, temporary table or session lock. What functions of the sink do with their pgx.Tx is another
// matter: there, set default_query_exec_mode=exec in the DSN, or let pgbouncer (1.21 and newer) prepare statements.
//
// # A database that does not answer
//
// Every transaction ends within [Config.Timeout], here by its context and there by statement_timeout, lock_timeout and
// idle_in_transaction_session_timeout, which are set for the transaction alone. How long it takes to connect is the
// pool's own setting (connect_timeout in the DSN).
package pgsink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/sink"
)

// Config says where the sink keeps its tables, and how long it waits. The zero value is good.
type Config struct {
	// Schema holds the sink's own tables, and those whose name has no schema. It is created where it does not exist.
	// Defaults to "public".
	Schema string
	// Timeout bounds a transaction, with what functions do in it. A batch that always needs longer waits for ever, and the
	// log says so: take a smaller [sink.Config.Batch], or a larger Timeout. Defaults to one minute.
	Timeout time.Duration
	// Idle is how long a transaction may be without a statement before the database ends it, so that a member that
	// sleeps does not keep its rows from others. A function that waits for something else, and the acknowledgement of a
	// dead letter, have to end within it. Defaults to 15 seconds.
	Idle time.Duration
}

func (c Config) withDefaults() Config {
	if c.Schema == "" {
		c.Schema = "public"
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	if c.Idle <= 0 {
		c.Idle = 15 * time.Second
	}
	return c
}

// lockTimeout bounds waiting for a row of another transaction. One that sleeps is ended by Idle before.
func (c Config) lockTimeout() time.Duration { return min(c.Timeout, 2*c.Idle) }

// rollbackTimeout bounds the end of a transaction that failed: the database does the same when the connection ends.
const rollbackTimeout = 5 * time.Second

// New returns a mux that writes to the database of pool, which stays the caller's: two connections for each partition
// that is written at once are plenty, two in all keep two cores busy.
func New(pool *pgxpool.Pool, cfg Config) *sink.Mux[pgx.Tx] {
	return sink.NewMux[pgx.Tx](newDB(pool, cfg))
}

// db implements [sink.DB].
type db struct {
	pool *pgxpool.Pool
	cfg  Config

	begin   string // the statements that begin a transaction
	offsets string // the tables' names, quoted
	seen    string

	ids upkeep
}

func newDB(pool *pgxpool.Pool, cfg Config) *db {
	cfg = cfg.withDefaults()
	d := &db{pool: pool, cfg: cfg}
	d.offsets, d.seen = d.ident(offsetsTable), d.ident(seenTable)
	// One round trip. SET LOCAL ends with the transaction, so a pool, or a pgbouncer, may be shared with others.
	d.begin = fmt.Sprintf("begin isolation level read committed; set local statement_timeout=%d; set local lock_timeout=%d; set local idle_in_transaction_session_timeout=%d",
		cfg.Timeout.Milliseconds(), cfg.lockTimeout().Milliseconds(), cfg.Idle.Milliseconds())
	return d
}

// InTx implements [sink.DB].
func (d *db) InTx(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	err := d.inTx(ctx, f)
	switch {
	case err == nil:
		if d.ids.due() {
			_ = d.maintain(ctx) // days have partitions before they begin: it can fail for some, and then the next case tells
		}
		return nil
	case ownPartitionMissing(err):
		if e := d.maintain(ctx); e != nil {
			return fmt.Errorf("%w: %s", e, err.Error())
		}
	}
	return err
}

func (d *db) inTx(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) (err error) {
	whole := ctx
	defer func() {
		if late := errors.Is(ctx.Err(), context.DeadlineExceeded) && whole.Err() == nil; err != nil && (late || statementTimeout(err)) {
			err = fmt.Errorf("a transaction took longer than Timeout (%s): where the database is not just slow for a while, take a smaller batch or a larger Timeout: %w", d.cfg.Timeout, err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	tx, err := d.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: d.begin})
	if err != nil {
		return fmt.Errorf("begin a transaction: %w: %w", errAway, err)
	}
	committing := false
	defer func() {
		if committing {
			return
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		if e := tx.Rollback(end); e != nil && err != nil && !errors.Is(e, pgx.ErrTxClosed) {
			err = fmt.Errorf("%w (and roll back: %s)", err, e.Error())
		}
	}()
	if err := f(ctx, tx); err != nil && tx.Conn().IsClosed() {
		return fmt.Errorf("%w: %w", errAway, err)
	} else if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil || tx.Conn().IsClosed() {
		return fmt.Errorf("commit, before it was sent: %w", cmp.Or(err, pgconn.ErrConnClosed))
	}
	committing = true
	return commitError(tx.Commit(ctx))
}

// Try implements [sink.DB]. Savepoints within each other have one name: the innermost counts.
func (d *db) Try(ctx context.Context, tx pgx.Tx, f func(ctx context.Context) error) error {
	if _, err := tx.Exec(ctx, "savepoint millrace"); err != nil {
		return fmt.Errorf("set a savepoint: %w", err)
	}
	err := f(ctx)
	if err == nil {
		if _, err = tx.Exec(ctx, "release savepoint millrace"); err == nil {
			return nil
		}
	}
	if _, e := tx.Exec(ctx, "rollback to savepoint millrace; release savepoint millrace"); e != nil {
		return fmt.Errorf("roll back to a savepoint: %w: %w", errAway, e) // tx cannot go on, and what f said in it is no word on its events
	}
	return err
}

var _ sink.DB[pgx.Tx] = (*db)(nil)
