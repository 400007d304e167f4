package sink

import (
	"time"

	"github.com/millrace/millrace/event"
)

// Table declares a table: one row per event or per key, its columns from the events' schema.
type Table struct {
	// Name is the table, with or without a schema: "orders", "analytics.orders". Required.
	Name string
	// Event is the full name of the event type whose events become rows. Required.
	Event string
	// Key are the columns of the primary key. Required unless Append.
	Key []string
	// Columns are what to take of the event. Defaults to all of its fields.
	Columns []Column
	// Append makes one row of each event instead of one of each key; a unique event_id keeps a producer's repeat out.
	Append bool
	// NoDedupe leaves event_id out of an appended table and lets rows be copied in bulk: a producer's repeat is two rows.
	NoDedupe bool
}

// Column is one column of a [Table].
type Column struct {
	// Name in the table. Required.
	Name string
	// From is the path to the field, dotted: "customer.country"; "$key", "$time", "$id", "$topic", "$partition", "$offset"
	// name attributes. Defaults to Name.
	From string
}

// Fold is keyed state: a value per key that each event moves on.
type Fold[T any] struct {
	// Name is the table of the states.
	Name string
	// By is the key of an event. It is free to differ from the record's key.
	By func(e event.Of[T]) string
	// Window cuts event time into pieces of this length, each with a state of its own. Defaults to 0: one state for all time.
	Window time.Duration
	// Lateness is how far behind the newest event time of its partition an event may be and still count.
	Lateness time.Duration
}
