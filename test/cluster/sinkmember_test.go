package cluster_test

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/pgsink"
)

// The variables that make this test binary a member of the fault run's sink.
const (
	sinkJournal  = "MILLRACE_SINK_JOURNAL"
	sinkTopic    = "MILLRACE_SINK_TOPIC"
	sinkName     = "MILLRACE_SINK_NAME"
	sinkDSN      = "MILLRACE_SINK_DSN"
	sinkInstance = "MILLRACE_SINK_INSTANCE"
)

// sinkSession is how long a silent member keeps its partitions.
const sinkSession = 6 * time.Second

// runSinkMember writes to PostgreSQL until SIGTERM, in all the ways that a sink has, and notes what became of its
// transactions.
func runSinkMember(name string) error {
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
	out, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	pool, err := pgxpool.New(ctx, os.Getenv(sinkDSN))
	if err != nil {
		return err
	}
	defer pool.Close()
	j := &sinkNotes{journal: &journal{out: out}}
	nap := newNap(j.journal)
	cluster.Dial = nap.dial
	topic := os.Getenv(sinkTopic)
	return sink.Run(ctx, cluster, reg, napper{ledgerSink(pool, topic), nap}, sink.Config{
		Name: os.Getenv(sinkName), Topics: []string{topic}, Batch: 500, Wait: 20 * time.Millisecond, Dedupe: 24 * time.Hour,
		Retry:      consumer.Retry{Attempts: 2, Backoff: 10 * time.Millisecond, Max: 50 * time.Millisecond},
		InstanceID: os.Getenv(sinkInstance), SessionTimeout: sinkSession, Observer: j, Log: log,
	})
}

// ledgerSink has a function with the database's own transaction, two tables and a fold.
func ledgerSink(pool *pgxpool.Pool, topic string) *sink.Mux[pgx.Tx] {
	m := pgsink.New(pool, pgsink.Config{Timeout: 20 * time.Second, Idle: 4 * time.Second})
	ledger.ByHand(m, func(ctx context.Context, tx pgx.Tx, es []event.Of[ledger.Moved]) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"by_hand"}, ledger.ByHandColumns, pgx.CopyFromSlice(len(es), func(i int) ([]any, error) {
			e := &es[i]
			return []any{e.ID, e.Partition, e.Offset, e.Data.Account, e.Data.Seq}, nil
		}))
		return err
	})
	ledger.Declare(m, topic)
	return m
}

// byHandTable is the table of the function. Nothing in it keeps a second row of an event out.
const byHandTable = `CREATE TABLE by_hand (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id text NOT NULL, part integer NOT NULL, at bigint NOT NULL,
account text NOT NULL, seq bigint NOT NULL)`

// napper is a target that sleeps before a transaction when it is told to: the transaction is attempted when it wakes.
type napper struct {
	sink.Target
	nap *nap
}

// Open implements [sink.Target].
func (n napper) Open(ctx context.Context, dec consumer.Decoder, s sink.Setup) (sink.Writer, error) {
	w, err := n.Target.Open(ctx, dec, s)
	return napWriter{w, n.nap}, err
}

type napWriter struct {
	sink.Writer
	nap *nap
}

// Write implements [sink.Writer].
func (w napWriter) Write(ctx context.Context, b sink.Batch) error {
	w.nap.take()
	return w.Writer.Write(ctx, b)
}

// sinkNotes writes a line for each transaction: what was written survives kill -9.
type sinkNotes struct {
	sink.Silent

	journal *journal
}

// Written implements [sink.Observer].
func (n *sinkNotes) Written(_ cursor.ID, w sink.Written, took time.Duration, err error) {
	if err == nil {
		n.journal.note("written %d %d %d %d %d %d %d", w.Events, w.Rows, w.States, w.Repeats, w.Late, w.Buried, took.Microseconds())
	}
}

// Settled implements [sink.Observer].
func (n *sinkNotes) Settled(_ cursor.ID, done bool) { n.journal.note("settled %t", done) }

// Fenced implements [sink.Observer].
func (n *sinkNotes) Fenced(id cursor.ID) { n.journal.note("fenced %d", id.Partition) }
