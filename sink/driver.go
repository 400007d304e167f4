package sink

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/schemas"
)

// The errors of a [DB] that a [Mux] acts on. Wrap them.
var (
	// ErrNotOwner means that the position row is not as its owner left it: someone else has claimed the partition
	// or moved it. The transaction is rolled back and nothing of it may stay.
	ErrNotOwner = errors.New("the position was moved by another owner")
	// ErrUnknownCommit means that nobody knows whether COMMIT took effect: [DB.Settle] finds out.
	ErrUnknownCommit = errors.New("outcome of the commit is unknown")
)

// Place is where one owner stands on one partition: what its compare-and-set expects to find.
type Place struct {
	ID    cursor.ID
	Lease cursor.Lease
	// Next is the offset that this owner last read or wrote, not the offset of the first record at hand.
	Next int64
	// Watermark is the newest event time up to Next; zero before the first event. Folds judge lateness by it.
	Watermark time.Time
}

// Fault says what an error of the database is about.
type Fault int

// The faults. The zero value is a database that is away: everything that is not known to be the data's fault.
const (
	// Away: the database or the way to it. The partition waits; nothing is dead-lettered.
	Away Fault = iota
	// Again: a deadlock or a serialization failure. The transaction is tried again at once.
	Again
	// Data: a value does not fit (type, length, constraint). The row is found and dead-lettered.
	Data
	// Wrong: a table or column is missing, a right is not granted. The sink stops, and the error says what to do.
	Wrong
)

// DB is what an adapter implements: a database with transactions. [Mux] is everything else. Package sinktest is its
// conformance suite, and holds one in memory that shows how little is needed.
//
// Methods may be called by several goroutines; each is bounded by its context, and those with a tx are called by
// one goroutine at a time for it.
type DB[Tx any] interface {
	// Prepare creates what p needs and does not exist, and compares what exists with it: a table that lacks a nullable
	// column gets it with p.Evolve, any other difference is an error that names both sides.
	Prepare(ctx context.Context, p Plan) error
	// Claim takes ids over for owner: epoch + 1 in the position row of each; an id without a row gets one at start[id]
	// with epoch 1 (start has an entry for every id that may have no row). The claimed cursors hold Position and Lease.
	// A row of another topic id is an error of that id alone, which says that the topic was created anew.
	Claim(ctx context.Context, owner string, ids []cursor.ID, start map[cursor.ID]int64) (map[cursor.ID]Claimed, error)
	// InTx begins, calls f, and commits, or rolls back when f fails. Without an answer to COMMIT the error wraps
	// ErrUnknownCommit.
	InTx(ctx context.Context, f func(ctx context.Context, tx Tx) error) error
	// Try calls f inside a savepoint of tx: after an error all that f wrote is undone and tx goes on.
	Try(ctx context.Context, tx Tx, f func(ctx context.Context) error) error
	// Advance moves the position row from one place to the next by compare-and-set on offset and epoch: one row, or an
	// error that wraps ErrNotOwner.
	Advance(ctx context.Context, tx Tx, from, to Place) error
	// Settle finds out what became of a COMMIT from one place to the next that had no answer: it waits for one that is
	// still under way and reports whether it took effect. ErrNotOwner when the row is at neither place.
	Settle(ctx context.Context, from, to Place) (done bool, err error)
	// Seen notes event ids of a sink, and reports which were there before, within keep. They are seen at once: two
	// transactions with one id wait for each other. Ids are unique within the call and in ascending order.
	Seen(ctx context.Context, tx Tx, sink string, ids []string, keep time.Duration) ([]bool, error)
	// Write appends, upserts and deletes the rows of one table, as t says. Rows are unique by key and in key order
	// unless t.Append.
	Write(ctx context.Context, tx Tx, t *Table, rows *schemas.Rows, deleted *schemas.Rows) error
	// Load makes the rows of keys that do not exist, locks all of them in the order given, which is ascending, and
	// returns their states, nil where there was none.
	Load(ctx context.Context, tx Tx, fold string, keys []FoldKey) ([][]byte, error)
	// Store writes the states of keys that Load has locked. The state is JSON.
	Store(ctx context.Context, tx Tx, fold string, keys []FoldKey, states [][]byte) error
	// Fault says what err, which came from tx or from another method, is about.
	Fault(err error) Fault
}

// Claimed is a partition that was taken over: its cursor's Position is the offset of the row. Watermark is what
// [Place.Watermark] was.
type Claimed struct {
	cursor.Claimed
	Watermark time.Time
}

// FoldKey names the state of one key, in one window when the fold has windows.
type FoldKey struct {
	Key    string
	Window time.Time // when it begins; zero without windows
}

// Plan is what a sink needs of its database.
type Plan struct {
	Sink   string
	Dedupe bool
	Folds  []string // the tables of folds, by name
	Tables []*Table
	Evolve bool
}
