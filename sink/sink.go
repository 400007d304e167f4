// Package sink writes events to where they are counted on: each event once, whatever crashes. The position of a partition
// and what its events changed are one transaction of the target. It stands between internal/engine, which reads partitions,
// and an adapter: pgsink (PostgreSQL), sqlitesink (SQLite), parquetsink (files in a directory).
//
//	out := pgsink.New(pool, pgsink.Config{})
//	sink.On(out, func(ctx context.Context, tx pgx.Tx, es []event.Of[shop.OrderPlaced]) error { return addOrders(ctx, tx, es) })
//	err := sink.Run(ctx, cluster, registry, out, sink.Config{Name: "analytics", Topics: []string{"shop.orders"}})
//
// Three uses go together in one sink, and in one transaction: [On], a function with the database's own transaction;
// [OnFold], a state per key that each event moves on; [Mux.Table], rows from the events' schema.
//
// # Exactly once
//
// The only truth about a position is its row in the target. A transaction moves it by compare-and-set, from what this
// owner last read or wrote, together with the data: an owner that has lost its partition rolls back, however late it comes, and
// a COMMIT whose answer is lost is looked up. Kafka's committed offset is a report for those who watch the lag: it is
// written afterwards, marked as one, and never read. Without a position row a partition begins at [Config.Start].
//
// What a producer published twice is two events; [Config.Dedupe] makes them one by their id.
//
// # Errors
//
// What an error of a function or of the database does is told by [Mux], what one of a target of your own does by [Writer].
// Run ends with an error where going on would lose events without a word: retention has overtaken the position, the log
// was cut, the topic was created anew.
//
// # Concurrency
//
// One transaction per partition at a time; partitions, and the members of a sink, at the same time. A [Mux] is filled
// before it is used.
package sink

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/position"
)

// Target is where a sink writes: a [Mux] over a database, or a directory of Parquet files.
type Target interface {
	// Open makes the target ready for a sink: what it needs is created or compared. An error ends Run, but one of [Pause]:
	// Run logs it and opens the target again, until that works or ctx ends.
	Open(ctx context.Context, dec consumer.Decoder, s Setup) (Writer, error)
}

// Setup is what a target needs to know of the sink that writes to it.
type Setup struct {
	// Sink is the name of the position rows.
	Sink string
	// Owner names this process in the position rows, for people.
	Owner string
	// Topics are what the sink reads.
	Topics []string
	// Suffix is put behind the names of tables: not empty in a rebuild.
	Suffix string
	// Dedupe is how long ids are remembered; 0 is off.
	Dedupe time.Duration
	// Evolve adds columns that tables lack.
	Evolve bool
	// Shadow is set where nothing live may change: what functions write is undone, and it is told rows and states once they
	// are committed, to tables with the Suffix. Nil is none.
	Shadow func(ctx context.Context, c Change)
	// Observer sees what happens; never nil.
	Observer Observer
	// Log is never nil.
	Log *zap.Logger
}

// Writer is an open target.
type Writer interface {
	// Claim takes partitions over. start has an offset for every id: where those begin that the target has no position
	// of. The answer has an entry for every id. An error of one id that wraps [ErrOtherTopic] stops the sink.
	Claim(ctx context.Context, ids []cursor.ID, start map[cursor.ID]int64) (map[cursor.ID]Claimed, error)
	// Write writes the events of one partition and moves its position to b.To, both or neither. One call at a time for a
	// partition, several partitions at once.
	//
	// nil: done, the owner stands at b.To. An error that wraps [ErrNotOwner]: the partition is claimed again. Any other is
	// read as a verdict, as [consumer.VerdictOf] does, and the same batch comes again: with [Pause] after a wait and the
	// attempt not counted, with consumer.Stop never, and the sink ends.
	Write(ctx context.Context, b Batch) error
}

// Batch is events of one partition in offset order, and the step that they make. It is the sink's again when Write has
// returned.
type Batch struct {
	From, To Place
	Events   []event.Event
	// Attempt counts from 1. Last says that no other follows: events that fail alone are buried now.
	Attempt int
	Last    bool
	// Bury copies event i to the dead letters, and returns nil once the copy is acknowledged: before COMMIT, so that a
	// crash may repeat the copy and never loses the event. handler names who failed.
	Bury func(ctx context.Context, i int, handler string, why error) error
}

// Config says which events a sink writes, and how.
type Config struct {
	// Name names the sink: its position rows, and the consumer group that shows its lag. Required.
	Name string
	// Topics are the topics to read. Required.
	Topics []string
	// Start is where a partition starts that has no position row. Defaults to the log start.
	Start position.Point
	// Batch is how many events a transaction has at most. Defaults to 5,000.
	Batch int
	// Wait is how long a batch that is not full waits for more. Defaults to 50 ms.
	Wait time.Duration
	// Dedupe skips events whose id was seen within it, before functions, folds and tables. Defaults to 0: off.
	Dedupe time.Duration
	// Evolve adds columns that tables lack, nullable ones. Defaults to false: Run ends with an error that names them.
	Evolve bool
	// Retry says how often a failing function is tried before its events are looked for and dead-lettered.
	Retry consumer.Retry
	// Burst stops Run instead of draining a topic into the dead letters.
	Burst consumer.Burst
	// CreateTopics creates missing dead-letter topics at start, as deadletter.Create does. By default they must
	// exist: a dead letter that cannot be written holds its partition.
	CreateTopics bool
	// Rebuild writes everything once more beside what is there: under the name of the sink and its tables with
	// [RebuildSuffix] behind, from Start. Its dead letters go where those of the sink go, with the ids that they have
	// there. [Admin.Swap] puts the result in place, and the sink goes on from there. A mux
	// with functions refuses it: where they write is their own choice.
	Rebuild bool
	// InstanceID makes the member static: a restart within the session timeout moves no partition. Defaults to "": dynamic.
	InstanceID string
	// SessionTimeout is how long a silent member keeps its partitions before others take them. Defaults to 45 s.
	SessionTimeout time.Duration
	// Observer sees what happens; nil = none.
	Observer Observer
	// Log; nil = silent.
	Log *zap.Logger
}
