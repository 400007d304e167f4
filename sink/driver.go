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
	// ErrOtherTopic means that the position row is of another topic id: the topic was deleted and created again, and the
	// offset means nothing in the new one. The sink stops.
	ErrOtherTopic = errors.New("the topic was deleted and created again")
	// ErrHalfRebuild means that a rebuild has positions and lacks a table that they count in: it was dropped, or declared
	// since. Going on would fill it with what comes next alone, and a swap would put that in place of everything.
	ErrHalfRebuild = errors.New("a table of the rebuild is not there, and its positions are")
)

// Place is where one owner stands on one partition: what its compare-and-set expects to find.
type Place struct {
	ID    cursor.ID
	Lease cursor.Lease
	// Next is the offset that this owner last read or wrote, not the offset of the first record at hand.
	Next int64
	// Watermark is the newest event time up to Next; zero before the first event. Folds judge lateness by it. Adapters
	// keep it to the microsecond at least.
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
	// Foreign: an error that is not known for the database's. From a user's function it is the function's own, and tried
	// by its policy; from a method of the adapter it is Away.
	Foreign
)

// String is the fault in one lower-case word.
func (f Fault) String() string {
	switch f {
	case Again:
		return "again"
	case Data:
		return "data"
	case Wrong:
		return "wrong"
	case Foreign:
		return "foreign"
	default:
		return "away"
	}
}

// DB is what an adapter implements: a database with transactions. [Mux] is everything else. Package sinktest is its
// conformance suite, and holds one in memory that shows how little is needed.
//
// Methods may be called by several goroutines; each is bounded by its context, and those with a tx are called by
// one goroutine at a time for it.
//
// Within one transaction the calls come in this order, so that no two transactions wait for each other: Advance, Seen,
// the user's functions, Load and Store of each fold by name, Write of each table by name. Isolation is READ COMMITTED or
// stronger.
type DB[Tx any] interface {
	Admin

	// Prepare creates what p needs and does not exist, and compares what exists with it: a table that lacks a nullable
	// column gets it with p.Evolve, any other difference is an error that names both sides. With p.Rebuild, what does not
	// exist while p.Sink has positions is not created: an error that wraps ErrHalfRebuild. It is called when the sink starts.
	Prepare(ctx context.Context, p Plan) error
	// Claim takes ids over for owner: epoch + 1 in the position row of each; an id without a row gets one at start[id]
	// with epoch 1. start has an entry for every id. The claimed cursors hold Position and Lease. A row of another topic
	// id stays as it is and is an error of that id alone that wraps ErrOtherTopic; zeros are any topic id.
	Claim(ctx context.Context, owner string, ids []cursor.ID, start map[cursor.ID]int64) (map[cursor.ID]Claimed, error)
	// InTx begins, calls f, and commits, or rolls back when f fails or panics; it returns f's error as it is or wrapped.
	// Without an answer to COMMIT the error wraps ErrUnknownCommit; when COMMIT was refused it does not.
	InTx(ctx context.Context, f func(ctx context.Context, tx Tx) error) error
	// Try calls f inside a savepoint of tx: after an error all that f wrote is undone and tx goes on. It returns f's
	// error as it is or wrapped. Where tx cannot go on, because the database is away, it returns its own error and f's is
	// lost: what f said then is no word on its events.
	Try(ctx context.Context, tx Tx, f func(ctx context.Context) error) error
	// Advance moves the position row from one place to the next by compare-and-set on offset and epoch: one row, or an
	// error that wraps ErrNotOwner. It is the first statement of a transaction: a fenced owner fails before its work, calls
	// no function and buries nothing.
	Advance(ctx context.Context, tx Tx, from, to Place) error
	// Settle finds out what became of a COMMIT from one place to the next that had no answer: it waits for one that is
	// still under way and reports whether it took effect. ErrNotOwner when the row is at neither place or of another epoch.
	Settle(ctx context.Context, from, to Place) (done bool, err error)
	// Seen notes event ids of a sink, and reports which were there before, within keep. They are seen at once: two
	// transactions with one id wait for each other, and the second sees the first's once that has committed. Ids are unique
	// within the call and in ascending order of their bytes. The slice it returns may be reused by the next call with tx.
	Seen(ctx context.Context, tx Tx, sink string, ids []string, keep time.Duration) ([]bool, error)
	// Write appends, upserts and deletes rows of one table, as t says, and returns how many rows it has changed. Rows are
	// unique by key and in key order unless t.Append; no key is in both. deleted has the same columns, of which those of
	// the key are set; it may be nil, and either may be empty. Both are the caller's again when Write has returned.
	Write(ctx context.Context, tx Tx, t *Table, rows, deleted *schemas.Rows) (changed int64, err error)
	// Load makes the rows of keys that do not exist, locks all of them in the order given, which is ascending by key and
	// window, and returns their states, nil where there was none. Keys are unique.
	Load(ctx context.Context, tx Tx, fold string, keys []FoldKey) ([][]byte, error)
	// Store writes the states of keys that Load has locked. The state is JSON. Both slices are the caller's again when
	// Store has returned.
	Store(ctx context.Context, tx Tx, fold string, keys []FoldKey, states [][]byte) error
	// Fault says what err is about, which came from tx or from another method, perhaps through a user's function that
	// wrapped it.
	Fault(err error) Fault
}

// Admin is what commands need of an adapter, while the sink runs or not.
type Admin interface {
	// Positions returns the position rows of a sink, by topic and partition; none when it never ran.
	Positions(ctx context.Context, sink string) ([]Position, error)
	// Move changes position rows, all or none: each by compare-and-set on From's offset and epoch, with epoch + 1, so that
	// whoever holds the partition is fenced. A nil To removes the row: the sink starts there as one that never ran. One
	// that is not as From says is an error that wraps ErrNotOwner.
	Move(ctx context.Context, moves []Move) error
	// Swap puts what a rebuild has made in the place of what was there, all or nothing.
	Swap(ctx context.Context, s Swap) error
	// Discard gives a rebuild up, all or nothing: it drops each table's New, and removes the position rows and seen ids
	// of s.From, so that whoever holds a partition of it is fenced. What is not there is no error.
	Discard(ctx context.Context, s Swap) error
}

// Position is a position row.
type Position struct {
	ID        cursor.ID // Reader is the name of the sink
	Next      int64
	Epoch     int64
	Watermark time.Time // zero before the first event
	Owner     string
	Updated   time.Time
}

// Move is a change of one position row. To's ID, Epoch, Owner and Updated are ignored, but for a topic id that is not
// zeros: it replaces the row's.
type Move struct {
	From Position
	To   *Position
}

// Swap ends a rebuild: each table's New gets its name, and what had the name is called Old, replacing an earlier Old.
// The position rows and seen ids of the sink From become those of the sink Into, whose own are removed, with an epoch
// above both, so that owners of either are fenced and whoever claims next goes on where the rebuild stands.
type Swap struct {
	Into, From string
	Tables     []Renamed
}

// Renamed is a table, or a fold's, in a [Swap].
type Renamed struct {
	Name, New, Old string
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
	Window time.Time // when it begins, in UTC; zero without windows
}

// Plan is what a sink needs of its database.
type Plan struct {
	Sink   string
	Dedupe bool
	Folds  []string // the tables of folds, by name
	Tables []Layout
	Evolve bool
	// Rebuild says that tables without positions are as good as new, and positions without tables are not.
	Rebuild bool
	// Shadow says that the tables are a replay's own: no rebuild replaces them.
	Shadow bool
}

// Layout is a table with its columns: Columns has no row, and names and types of all columns in their order.
type Layout struct {
	*Table
	Columns *schemas.Rows
}
