// Package engine runs one member over its partitions: it takes records from a [Feed], hands them to a [Handler]
// in batches of one partition, and keeps the position in a [cursor.Store]. The consumer and the sinks stand on
// it; it knows no event, no type and no handler of a user.
//
//	feed, err := engine.NewGroup(cluster, engine.GroupConfig{Group: "shipping", Topics: topics})
//	err = engine.Run(ctx, feed, feed.Store(), handler, engine.Config{})
//
// The position moves only over what is resolved, without a gap: whatever stops the process, every record is
// handled at least once, and the records of a partition in their order.
//
// # Concurrency
//
// One goroutine polls, one commits, and each partition has one of its own, the actor. A partition that is given
// up is drained, committed and fenced, in this order, before anyone else may have it; one that is lost is fenced
// at once and nothing is committed.
package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/verdict"
)

// Feed is where records come from: a group, or fixed partitions with an end.
type Feed interface {
	// Run keeps the feed alive and tells o of its partitions until ctx ends. It returns nil before that when the
	// feed has an end and every record was polled; an error ends the engine's Run.
	Run(ctx context.Context, o Owner) error
	// Poll returns at most limit records, at least one unless there is an error to tell; it returns when ctx ends.
	// The slices are the caller's.
	Poll(ctx context.Context, limit int) kgo.Fetches
	// Release lets rebalances go on; it is called after every poll.
	Release()
	// Starts resolves where ids that have no cursor begin: always an offset ≥ 0.
	Starts(ctx context.Context, ids []cursor.ID) (map[cursor.ID]int64, error)
	// Seek makes the next record of id the one at offset.
	Seek(id cursor.ID, offset int64) error
	// Pause stops or resumes the polling of id. What was fetched of it and not polled is fetched again.
	Pause(id cursor.ID, paused bool)
}

// Owner is told of partitions. The engine is one.
type Owner interface {
	// Assigned claims ids and returns where each starts: always an offset ≥ 0. With an error none is claimed.
	Assigned(ctx context.Context, ids []cursor.ID) (start map[cursor.ID]int64, err error)
	// Revoked drains, commits and fences ids before it returns, the first two within ctx's deadline.
	Revoked(ctx context.Context, ids []cursor.ID)
	// Lost fences ids at once; nothing is committed.
	Lost(ids []cursor.ID)
}

// Item is one record and how often it was tried.
type Item struct {
	Record  *kgo.Record
	Attempt int       // 1 on the first attempt
	First   time.Time // of the first failure, zero on the first attempt

	seq uint64 // in the ring
}

// Batch is unresolved records of one partition in offset order. It is the handler's until Handle returns.
type Batch struct {
	ID    cursor.ID
	Lease cursor.Lease
	Items []Item
	Next  int64 // the position once every item is resolved

	actor *actor
	turn  uint64
}

// Done resolves item i before Handle returns, so that the position may pass it: a handler that works through
// the items one by one calls it for each that is done or dropped. A later verdict on the item is ignored.
// Calling it again, after Handle has returned, or on a batch that the engine did not make, does nothing.
func (b Batch) Done(i int) {
	if b.actor != nil && b.actor.turn.Load() == b.turn && b.actor.ring.mark(b.Items[i].seq) {
		b.actor.ring.sweep()
	}
}

// Draining reports that the partition is about to be given up. A handler that works through the items one by one
// returns after the current one, with a verdict for it and none for the rest; the next owner handles these.
func (b Batch) Draining() bool { return b.actor != nil && b.actor.draining.Load() }

// Handler handles batches. Handle is called by one goroutine a partition at a time, for several partitions at
// once. ctx ends when the partition is lost, or given up and not drained in time: what the handler does then is
// repeated elsewhere.
//
// It returns nil when all items are done, else one verdict per item up to the last that was attempted; items past
// the end of the slice come again as they are. Done and Dropped resolve an item. Retry and Pause bring it again,
// with those behind it that are not resolved, after the first such verdict's After (0 = 100 ms); Retry counts as
// an attempt, Pause does not. A Pause whose error wraps cursor.ErrFenced says that another owner has taken the lease: after
// the wait the partition is claimed again, and read from where the claim says. Stop ends Run with the verdict's Err, after what is done was committed. DeadLetter
// is the caller's business: a handler returns Done once the dead letter is acknowledged, and a verdict
// DeadLetter ends Run like Stop.
//
// A panic becomes a Retry of the first unresolved item after one second and a problem that the observer sees; a
// handler that wants to do better recovers by itself.
type Handler interface {
	Handle(ctx context.Context, b Batch) []verdict.Verdict
}

// PanicError is a panic of a handler that nobody else recovered.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v", e.Value) }

// Unwrap returns the value where it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ErrOutOfLog is the error of [Run] where a position is outside of the log and the feed may not start over.
var ErrOutOfLog = errors.New("the position is outside of the log: retention has removed what comes next, or the log was cut")

// ErrStuck is returned by [Run] when handlers did not return after their context was cancelled: their goroutines
// are left behind.
var ErrStuck = errors.New("handlers ignore that their context has ended")

// Config says how [Run] works.
type Config struct {
	// Batch is how many items a Handle is given at most. Defaults to 500.
	Batch int
	// BatchWait is how long a batch that is not full waits for more. Defaults to 0: not at all.
	BatchWait time.Duration
	// InFlight bounds the records that were polled and are not resolved, over all partitions. Defaults to 16,384.
	InFlight int
	// InFlightSize is the same in bytes of memory, some 200 per record included. One poll may exceed it by what
	// its records are larger than those before. Defaults to 64 MiB.
	InFlightSize int64
	// CommitEvery is the time between commits. Defaults to one second.
	CommitEvery time.Duration
	// CommitRecords commits early after so many resolved records. Defaults to 0: never early.
	CommitRecords int
	// Drain is how long handlers may go on when their partitions are given up or ctx has ended; on a revoke never
	// longer than half the rebalance timeout. Defaults to 20 seconds.
	Drain time.Duration
	// Markers also hands over a batch without items where nothing but markers of transactions has followed for a
	// second, so that a position that the handler keeps passes them: the log start will, one day.
	Markers bool
	// Observer sees what happens; nil is none.
	Observer Observer
	// Log is silent when nil.
	Log *zap.Logger

	plant plant
}

// plant are bugs that tests plant to see that their checker finds them.
type plant struct {
	commitEarly bool // commit what was handed out, before the handler ends
	commitLate  bool // commit after a revoke, without drain and fence
}

func (c Config) withDefaults() Config {
	if c.Batch == 0 {
		c.Batch = 500
	}
	if c.InFlight == 0 {
		c.InFlight = 16384
	}
	if c.InFlightSize == 0 {
		c.InFlightSize = 64 << 20
	}
	if c.CommitEvery == 0 {
		c.CommitEvery = time.Second
	}
	if c.Drain == 0 {
		c.Drain = 20 * time.Second
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Batch < 0 || c.Batch > 1<<20:
		return fmt.Errorf("run engine: Batch is %d, it must be between 1 and 1,048,576", c.Batch)
	case c.BatchWait < 0:
		return fmt.Errorf("run engine: BatchWait is %s, it must not be negative", c.BatchWait)
	case c.InFlight < 0:
		return fmt.Errorf("run engine: InFlight is %d, it must be positive", c.InFlight)
	case c.InFlightSize < 0:
		return fmt.Errorf("run engine: InFlightSize is %d, it must be positive", c.InFlightSize)
	case c.CommitEvery < 0:
		return fmt.Errorf("run engine: CommitEvery is %s, it must be positive", c.CommitEvery)
	case c.CommitRecords < 0:
		return fmt.Errorf("run engine: CommitRecords is %d, it must not be negative", c.CommitRecords)
	case c.Drain < 0:
		return fmt.Errorf("run engine: Drain is %s, it must be positive", c.Drain)
	}
	return nil
}

// Observer sees what a member does. Calls come from several goroutines and must not block.
type Observer interface {
	// Assigned: the partitions are ours, and start there.
	Assigned(start map[cursor.ID]int64)
	// Revoked: ids were given up in order, or lost.
	Revoked(ids []cursor.ID, lost bool)
	// Handled: one Handle took so long, resolved so many items and left so many to come again.
	Handled(id cursor.ID, resolved, again int, took time.Duration)
	// Committed: a commit of so many partitions, and what became of it. An error may be about some of them only.
	Committed(partitions int, took time.Duration, err error)
	// Lag: how many offsets the position is behind the end of the log as it was last seen, and how old the first
	// record in the handler's hands is, 0 when there is none. Once per CommitEvery.
	Lag(id cursor.ID, offsets int64, age time.Duration)
	// Problem: an error that did not end Run. id is zero when it is not about one partition.
	Problem(id cursor.ID, err error)
}

// Run handles f's records with h and keeps the position in s until ctx ends, f ends or fails, or a verdict says
// Stop. When ctx ends it stops polling, lets handlers finish within cfg.Drain, commits, gives the partitions up
// and returns nil. It returns nil as well when f has an end and every record is resolved. It leaves no
// goroutine, unless it returns [ErrStuck].
//
// f, s and h are used by this Run alone until it returns.
func Run(ctx context.Context, f Feed, s cursor.Store, h Handler, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	return newMember(ctx, f, s, h, cfg).run(ctx)
}
