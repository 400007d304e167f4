package consumer

import (
	"time"

	"github.com/millrace/millrace/cursor"
)

// Observer sees what a consumer does, for metrics and screens. Calls come from several goroutines at once and must
// not block.
type Observer interface {
	// Attempted: one call of a handler took so long and gave n events this verdict. handler is the type's name, or
	// "topic X", "tombstone X", "otherwise", or "" where no handler was found.
	Attempted(id cursor.ID, handler string, kind Kind, n int, took time.Duration)
	// DeadLettered: one event was copied to the dead letters, with the class of its error.
	DeadLettered(id cursor.ID, handler, class string)
	// Assigned: these partitions are ours, and where they start.
	Assigned(start map[cursor.ID]int64)
	// Revoked: partitions are given up in order, or lost.
	Revoked(ids []cursor.ID, lost bool)
	// Handled: one round of a partition took so long and resolved so many events; retried come again.
	Handled(id cursor.ID, resolved, retried int, took time.Duration)
	// Committed: a commit of so many partitions.
	Committed(partitions int, took time.Duration, err error)
	// Lag: events behind the end of the log, and the age of the oldest event that is read and not resolved.
	Lag(id cursor.ID, events int64, age time.Duration)
	// Problem: an error that did not end Run. id is zero when it is not about one partition.
	Problem(id cursor.ID, err error)
}

// Silent is an [Observer] that does nothing: embed it to watch some things only.
type Silent struct{}

var _ Observer = Silent{}

// Attempted implements [Observer].
func (Silent) Attempted(cursor.ID, string, Kind, int, time.Duration) {}

// DeadLettered implements [Observer].
func (Silent) DeadLettered(cursor.ID, string, string) {}

// Assigned implements [Observer].
func (Silent) Assigned(map[cursor.ID]int64) {}

// Revoked implements [Observer].
func (Silent) Revoked([]cursor.ID, bool) {}

// Handled implements [Observer].
func (Silent) Handled(cursor.ID, int, int, time.Duration) {}

// Committed implements [Observer].
func (Silent) Committed(int, time.Duration, error) {}

// Lag implements [Observer].
func (Silent) Lag(cursor.ID, int64, time.Duration) {}

// Problem implements [Observer].
func (Silent) Problem(cursor.ID, error) {}
