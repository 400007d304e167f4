// Package wire turns records into events and events into records, without copying headers, keys or values.
package wire

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
)

// Read sets e from r: attributes, key, value and headers alias r's memory. e.Data is set to nil. A record
// without a ce_id gets topic-id/partition/offset, and one without a ce_time its own timestamp.
func Read(e *event.Event, r *kgo.Record, topicID [16]byte) {}

// Record returns the record for e with its attributes as headers; value is the encoded data, nil for a tombstone.
func Record(e *event.Event, value []byte) *kgo.Record { return nil }

// Headers is h seen as event headers: the same memory.
func Headers(h []kgo.RecordHeader) event.Headers { return nil }

// RecordHeaders is h seen as record headers: the same memory.
func RecordHeaders(h event.Headers) []kgo.RecordHeader { return nil }
