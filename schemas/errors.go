package schemas

import (
	"errors"
	"fmt"

	"github.com/millrace/millrace/event"
)

// The errors that decide what a consumer does next. Every error of this package that concerns bytes, a registry or
// a schema wraps exactly one of them; ask with errors.Is.
var (
	// ErrPoison: the bytes do not decode, the frame is bad, or the id is unknown to a healthy registry. Trying again
	// changes nothing: dead-letter the record and go on.
	ErrPoison = errors.New("poison")
	// ErrUnavailable: the registry cannot be reached, answers 5xx or too late. The record may be fine: wait and try
	// again; never skip it, never dead-letter it.
	ErrUnavailable = errors.New("registry unavailable")
	// ErrIncompatible: the writer's schema cannot be read as the type that was asked for, or a new schema cannot
	// follow the subject's versions. A person decides: by default a consumer stops.
	ErrIncompatible = errors.New("incompatible schema")
	// ErrNotFound: a healthy registry has no such subject, version or schema.
	ErrNotFound = errors.New("not found")
)

// where names a record in an error: "shop.orders/3@42", or the topic alone for an event that has no position yet.
func where(e *event.Event) string {
	if e.Epoch == 0 && e.Offset == 0 && e.Partition == 0 && e.Published.IsZero() {
		return e.Topic
	}
	return fmt.Sprintf("%s/%d@%d", e.Topic, e.Partition, e.Offset)
}
