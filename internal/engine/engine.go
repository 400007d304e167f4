// Package engine runs one member over its partitions: actors, ring, retries in place, drain and fence.
package engine

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

// Feed is where records come from: a group, or fixed partitions with an end.
type Feed interface {
	// Run keeps the feed alive and tells o of its partitions until ctx ends. It returns nil before that when
	// the feed has an end and every record was polled.
	Run(ctx context.Context, o Owner) error
	// Poll returns at most max records; it returns when ctx ends.
	Poll(ctx context.Context, max int) kgo.Fetches
	// Release lets rebalances go on; it is called after every poll.
	Release()
	// Starts resolves where ids that have no cursor begin: always an offset ≥ 0.
	Starts(ctx context.Context, ids []cursor.ID) (map[cursor.ID]int64, error)
	// Seek makes the next record of id the one at offset.
	Seek(id cursor.ID, offset int64) error
	// Pause stops or resumes the polling of id.
	Pause(id cursor.ID, paused bool)
}

// Owner is told of partitions.
type Owner interface {
	// Assigned claims ids and returns where each starts: always an offset ≥ 0.
	Assigned(ctx context.Context, ids []cursor.ID) (start map[cursor.ID]int64, err error)
	// Revoked drains, commits and fences ids before it returns.
	Revoked(ctx context.Context, ids []cursor.ID)
	// Lost fences ids at once; nothing is committed.
	Lost(ids []cursor.ID)
}

// Item is one record and how often it was tried.
type Item struct {
	Record  *kgo.Record
	Attempt int       // 1 on the first attempt
	First   time.Time // of the first failure, zero on the first attempt
}

// Batch is unresolved records of one partition in offset order. It is the handler's until Handle returns.
type Batch struct {
	ID    cursor.ID
	Lease cursor.Lease
	Items []Item
	Next  int64 // the position once every item is resolved
}

// Done resolves item i before Handle returns, so that the position may pass it: a handler that works through
// the items one by one calls it for each that is done or dropped. Calling it again, or after Handle has
// returned, does nothing.
func (b Batch) Done(i int) {}

// Draining reports that the partition is about to be given up. A handler that works through the items one by
// one returns after the current one; the rest is handled by the next owner.
func (b Batch) Draining() bool { return false }

// Handler handles batches. Handle is called by one goroutine a partition at a time.
//
// It returns nil when all items are done, else one verdict per item up to the last that was attempted: items
// past the end of the slice come again as they are. Done and Dropped resolve an item. Retry and Pause bring it again, with
// those behind it that are not resolved, after the first such verdict's After (0 = 100 ms); Retry counts as an attempt, Pause
// does not. Stop ends Run with the verdict's Err. DeadLetter is the caller's business: a handler returns
// Done once the dead letter is acknowledged.
type Handler interface {
	Handle(ctx context.Context, b Batch) []verdict.Verdict
}

// PanicError is a panic of a handler that nobody else recovered.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return "" }

// Config says how Run works.
type Config struct {
	Batch         int           // at most so many items a Handle. Defaults to 500
	BatchWait     time.Duration // how long a batch that is not full waits for more. Defaults to 0: not at all
	InFlight      int           // records polled and unresolved, over all partitions. Defaults to 16,384
	InFlightSize  int64         // the same in bytes. Defaults to 64 MiB
	CommitEvery   time.Duration // Defaults to 1 s
	CommitRecords int           // commits early after so many resolved records. Defaults to 0: never early
	Drain         time.Duration // how long handlers may go on when partitions are given up. Defaults to 20 s
	Observer      Observer      // nil = none
	Log           *zap.Logger   // nil = silent
}

// Observer sees what a member does. Calls come from several goroutines and must not block.
type Observer interface {
	// Assigned: ids are ours, and where they start.
	Assigned(start map[cursor.ID]int64)
	// Revoked: ids are given up in order, or lost.
	Revoked(ids []cursor.ID, lost bool)
	// Handled: one Handle took so long and resolved so many items; retried come again.
	Handled(id cursor.ID, resolved, retried int, took time.Duration)
	// Committed: a commit of so many partitions.
	Committed(partitions int, took time.Duration, err error)
	// Lag: records behind the end of the log, and the age of the oldest polled record that is not resolved.
	Lag(id cursor.ID, records int64, age time.Duration)
	// Problem: an error that did not end Run. id is zero when it is not about one partition.
	Problem(id cursor.ID, err error)
}

// Run handles f's records with h and keeps the position in s until ctx ends, f ends, or a verdict says Stop.
func Run(ctx context.Context, f Feed, s cursor.Store, h Handler, cfg Config) error {
	return errors.ErrUnsupported
}

// GroupConfig is a member of a consumer group.
type GroupConfig struct {
	Group            string
	Topics           []string
	Start            position.Point // where partitions without a cursor start
	InstanceID       string         // static membership
	ServerAssign     bool           // KIP-848
	Uncommitted      bool           // also reads records of open and aborted transactions
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	Log              *zap.Logger
}

// Group is the feed of one member of a consumer group.
type Group struct{}

// NewGroup returns a feed for cfg. It connects in Run.
func NewGroup(c kafka.Cluster, cfg GroupConfig) (*Group, error) { return &Group{}, nil }

// Store returns the store of the group's own commits.
func (g *Group) Store() cursor.Store { return nil }

// Run implements [Feed].
func (g *Group) Run(ctx context.Context, o Owner) error { return errors.ErrUnsupported }

// Poll implements [Feed].
func (g *Group) Poll(ctx context.Context, max int) kgo.Fetches { return nil }

// Release implements [Feed].
func (g *Group) Release() {}

// Starts implements [Feed].
func (g *Group) Starts(ctx context.Context, ids []cursor.ID) (map[cursor.ID]int64, error) {
	return nil, errors.ErrUnsupported
}

// Seek implements [Feed].
func (g *Group) Seek(id cursor.ID, offset int64) error { return errors.ErrUnsupported }

// Pause implements [Feed].
func (g *Group) Pause(id cursor.ID, paused bool) {}

// Memory is a feed of records in memory with an end: for tests without a broker.
type Memory struct{ Group }

// NewMemory returns a feed of records, each with its topic, partition and offset set. Run ends when all were polled.
func NewMemory(records ...*kgo.Record) *Memory { return &Memory{} }
