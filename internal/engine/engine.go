// Package engine runs one member over its partitions: actors, ring, retries in place, drain and fence.
package engine

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/verdict"
)

// Feed is where records come from: a group, or fixed partitions with an end.
type Feed interface {
	// Run keeps the feed alive and tells o of its partitions until ctx ends.
	Run(ctx context.Context, o Owner) error
	// Poll returns at most max records; it returns when ctx ends.
	Poll(ctx context.Context, max int) kgo.Fetches
	// Release lets rebalances go on; it is called after every poll.
	Release()
	// Seek makes the next record of id the one at offset.
	Seek(id cursor.ID, offset int64) error
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

// Handler handles batches. Handle is called by one goroutine a partition at a time.
//
// It returns one verdict per item, or nil when all are done. Done and Dropped resolve an item. Retry and Pause
// bring it again, with those behind it that are not resolved, after Verdict.After; Pause does not count as an
// attempt. Stop ends Run with the verdict's Err. DeadLetter is the caller's business: a handler returns
// Done once the dead letter is acknowledged.
type Handler interface {
	Handle(ctx context.Context, b Batch) []verdict.Verdict
}
