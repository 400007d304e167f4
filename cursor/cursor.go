// Package cursor is a reader's whole state on a partition: its position, and what is done or open around it,
// kept in one Kafka offset commit.
package cursor

import (
	"context"
	"time"
)

// ID names a cursor: a reader on one partition of one log. A topic that was deleted and created again is
// another log, so its id is part of the name.
type ID struct {
	Reader, Topic string
	TopicID       [16]byte
	Partition     int32
}

// Open is something unresolved below the position.
type Open struct {
	Offset     int64
	Lane       uint32
	Held       bool
	Attempt    uint16
	First, Due time.Time
}

// Run is a range of resolved offsets above the position: From ≤ offset < To.
type Run struct{ From, To int64 }

// Mark is where spilled entries lie in the spill partition: From ≤ offset ≤ To.
type Mark struct{ From, To int64 }

// Cursor is a reader's state on a partition. All below Position is resolved or in Open.
type Cursor struct {
	Position int64
	Epoch    int32 // leader epoch of the record before Position, -1 where not known
	Open     []Open
	Done     []Run
	Floor    int64
	Mark     *Mark
}

// Lease is what a store needs to tell its owner from an older one. It is opaque to the engine.
type Lease struct {
	Epoch  int64
	Opaque string
}

// Claimed is a cursor and the right to move it.
type Claimed struct {
	Cursor
	Fresh bool // there was no cursor: Position is not set, start where the configuration says
	Lease Lease
	Err   error // why this one could not be claimed, or what was lost when it was
}

// Store holds cursors.
type Store interface {
	// Claim reads the cursors of ids for a new owner.
	Claim(ctx context.Context, ids []ID) (map[ID]Claimed, error)
	// Commit writes cursors and returns an error per id that was not written.
	Commit(ctx context.Context, cs map[ID]Claimed) (map[ID]error, error)
	// Room is how many bytes of metadata a commit of id may carry.
	Room(id ID) int
}
