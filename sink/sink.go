// Package sink writes events to where they are counted on: each event once, whatever crashes. The position of a partition
// and what its events changed are one transaction of the target.
//
//	out := pgsink.New(pool, pgsink.Config{})
//	sink.On(out, func(ctx context.Context, tx pgx.Tx, es []event.Of[shop.OrderPlaced]) error { return addOrders(ctx, tx, es) })
//	err := sink.Run(ctx, cluster, registry, out, sink.Config{Name: "analytics", Topics: []string{"shop.orders"}})
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
	// Claim takes partitions over. start resolves where those begin that the target has no position of.
	Claim(ctx context.Context, owner string, ids []cursor.ID, start Starts) (map[cursor.ID]Claimed, error)
	// Write writes the events of one partition and moves its position to b.To.Next, both or neither. One call at a time
	// for a partition, several partitions at once.
	Write(ctx context.Context, dec consumer.Decoder, b Batch) error
}

// Starts resolves the offsets that partitions without a position start at.
type Starts func(ctx context.Context, ids []cursor.ID) (map[cursor.ID]int64, error)

// Batch is events of one partition in offset order, and the step that they make.
type Batch struct {
	From, To Place
	Events   []event.Event
	// Bury copies event i to the dead letters, and returns nil once the copy is acknowledged: before COMMIT, so that a
	// crash may repeat the copy and never loses the event.
	Bury func(ctx context.Context, i int, why error) error
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
	// Retry says how often a failing function is tried before its event is looked for and dead-lettered.
	Retry consumer.Retry
	// Observer sees what happens; nil = none.
	Observer consumer.Observer
	// Log; nil = silent.
	Log *zap.Logger
}
