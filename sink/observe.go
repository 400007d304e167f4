package sink

import (
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
)

// Observer sees what a sink does: all that a consumer's observer sees, and what became of transactions. Calls come from
// several goroutines at once and must not block.
type Observer interface {
	consumer.Observer
	// Written: one transaction took so long, with this outcome.
	Written(id cursor.ID, w Written, took time.Duration, err error)
	// Settled: a COMMIT without an answer was settled; done says that it had taken effect.
	Settled(id cursor.ID, done bool)
	// Fenced: a transaction was rolled back because the position had been moved by another owner.
	Fenced(id cursor.ID)
}

// Written is what one transaction did.
type Written struct {
	// Events were read, Rows changed, States of folds stored.
	Events, Rows, States int
	// Repeats had an id that was seen before, Late came after their window had closed, Buried are dead letters, and for
	// Passed nothing is registered.
	Repeats, Late, Buried, Passed int
}

// Silent is an [Observer] that does nothing: embed it to watch some things only.
type Silent struct{ consumer.Silent }

var _ Observer = Silent{}

// Written implements [Observer].
func (Silent) Written(cursor.ID, Written, time.Duration, error) {}

// Settled implements [Observer].
func (Silent) Settled(cursor.ID, bool) {}

// Fenced implements [Observer].
func (Silent) Fenced(cursor.ID) {}
