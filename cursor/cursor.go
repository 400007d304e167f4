// Package cursor is a reader's whole state on a partition: its position, and what is done or open around it,
// kept in one Kafka offset commit.
//
// The log is never copied; a reader is a cursor on it. Consumer groups, retries, replays and webhook endpoints
// are all cursors, and every Kafka tool sees their positions as ordinary committed offsets. [Encode] and
// [Decode] are the format of the rest, which rides in the commit's metadata. A [Store] keeps cursors:
//
//	store := cursor.NewMemory()
//	claimed, err := store.Claim(ctx, ids) // before the first record is handled
//	refused, err := store.Commit(ctx, claimed)
//
// The engine that moves cursors stands above this package and knows stores by their interface only.
//
// # Errors
//
// [ErrForeign] and [ErrDamaged] say what was found in place of a cursor's metadata, [ErrReplaced] that a claim
// found the commit of a stranger, [ErrFenced] that a commit was refused because the partition has another owner,
// [ErrUnknown] that nobody can tell whether a commit was written.
package cursor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The errors of stores. What each means for the caller stands at [Store].
var (
	// ErrReplaced means that the committed offset is not the commit of a cursor: another client or tool wrote
	// it. The offset counts; records that were deferred by reference may be forgotten.
	ErrReplaced = errors.New("the last commit was not written by Millrace: its offset counts, deferred records may be forgotten")
	// ErrFenced means that a commit was refused because the lease is not the newest: the partition has another
	// owner, or had one since.
	ErrFenced = errors.New("commit refused: the partition has another owner")
	// ErrUnknown means that a commit had no answer in time and could not be read back.
	ErrUnknown = errors.New("outcome of the commit is unknown")
)

// ID names a cursor: a reader on one partition of one log. A topic that was deleted and created again is
// another log, so its id is part of the name.
type ID struct {
	Reader, Topic string
	TopicID       [16]byte
	Partition     int32
}

// String is "reader topic/partition".
func (id ID) String() string { return fmt.Sprintf("%s %s/%d", id.Reader, id.Topic, id.Partition) }

// Open is something unresolved below the position: one record, or with Held all records of a lane from Offset
// to the position.
type Open struct {
	Offset  int64
	Lane    uint32 // 32-bit hash of topic and key: the unit of order
	Held    bool
	Attempt uint16
	// First is when the record failed first, Due when it is tried again. Both are kept to the second: First
	// is rounded down, Due up.
	First, Due time.Time
}

// Run is a range of resolved offsets above the position: From ≤ offset < To.
type Run struct{ From, To int64 }

// Mark is where spilled entries lie in the spill partition: From ≤ offset ≤ To.
type Mark struct{ From, To int64 }

// Cursor is a reader's state on a partition. All below Position is resolved or in Open.
type Cursor struct {
	// Position is the offset of the next record: the committed offset.
	Position int64
	// Epoch is the leader epoch of the record before Position, -1 where it is not known.
	Epoch int32
	// Open is what is unresolved below Position, ascending by Offset.
	Open []Open
	// Done are ranges above Position, ascending and apart, that are resolved. They are a courtesy: forgetting
	// one repeats records, it never loses any.
	Done []Run
	// Floor is the lowest unresolved offset, at most Position: what retention alarms look at.
	Floor int64
	// Mark is nil when nothing is spilled.
	Mark *Mark
}

// Lease is what a store needs to tell its owner from an older one. It is opaque to the engine.
type Lease struct {
	Epoch  int64
	Opaque string
}

// Claimed is a cursor and the right to move it.
type Claimed struct {
	Cursor
	// Fresh means that there was no cursor: Position is not set, the owner starts where it is configured to.
	Fresh bool
	Lease Lease
	// Err is why this one could not be claimed. With [ErrReplaced] or [ErrDamaged] it was claimed and the cursor
	// is good, and Err is what an operator must hear of.
	Err error
}

// Usable reports whether the cursor was claimed, perhaps with a loss to report.
func (c Claimed) Usable() bool {
	return c.Err == nil || errors.Is(c.Err, ErrReplaced) || errors.Is(c.Err, ErrDamaged)
}

// Store holds cursors. Its methods may be called from several goroutines; every call has a deadline, that of ctx
// or its own.
type Store interface {
	// Claim reads the cursors of ids for a new owner; leases given out before are old from then on. The answer
	// has an entry for every id. An error means that none was claimed: the caller tries again or gives up.
	Claim(ctx context.Context, ids []ID) (map[ID]Claimed, error)
	// Commit writes cursors and returns an error for each that was not written or may not have been: with
	// [ErrFenced] the owner has lost the partition, or will hear that it keeps it; with any other the same or a later cursor is
	// committed again. The second error is about all of them. Fresh and Err of the argument are ignored.
	Commit(ctx context.Context, cs map[ID]Claimed) (map[ID]error, error)
	// Room is how many bytes of metadata a commit of id may carry.
	Room(id ID) int
}
