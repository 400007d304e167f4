// Package wire turns records into events and events into records, without copying headers, keys or values.
//
// It stands between the Kafka client and everything that speaks of events: the producer makes records with
// [Record], whoever consumes reads them with [Read].
//
//	var e event.Event
//	wire.Read(&e, record, topicID)
//
// Memory is shared, not copied: an event that was read aliases the bytes of its record, which aliases the fetched
// batch. Keep an event and its batch stays in memory; write to its bytes and its neighbours change.
package wire

import (
	"encoding/hex"
	"strconv"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
)

// Read sets e from r: attributes, key, value and headers alias r's memory. e.Data is set to nil and Attempt to 0.
//
// Any record is an event. One without a ce_id gets topic-id/partition/offset as its id, the topic id as UUID
// text: it stays the same when the record is read again, and differs when a topic of the same name is made anew.
// One without a ce_time gets its own timestamp. Read never fails and never panics, whatever the headers hold.
func Read(e *event.Event, r *kgo.Record, topicID [16]byte) {
	*e = event.Event{
		Meta: event.Meta{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Epoch: r.LeaderEpoch, Published: r.Timestamp, Key: r.Key,
		},
		Value: r.Value,
	}
	event.ParseHeaders(&e.Meta, Headers(r.Headers))
	if e.ID == "" {
		e.ID = positionID(topicID, r.Partition, r.Offset)
	}
	if e.Time.IsZero() {
		e.Time = r.Timestamp
	}
}

// Record returns the record for e with its attributes as headers; value is the encoded data, nil for a tombstone.
// The partition is left to the client's partitioner and the timestamp to the client's clock, so that it is the
// time of publishing: a record timestamp taken from the event would let retention delete it too early or never.
func Record(e *event.Event, value []byte) *kgo.Record {
	return &kgo.Record{Topic: e.Topic, Key: e.Key, Value: value, Headers: RecordHeaders(e.AppendTo(make(event.Headers, 0, headers(&e.Meta))))}
}

// headers is how many headers m has on the wire: exact for an event that was made here, and at most seven too
// many for one that was read, whose Headers hold its attributes too.
func headers(m *event.Meta) int {
	n := len(m.Headers) + 2 // ce_specversion, ce_id
	for _, s := range [...]string{m.Type, m.Source, m.Tenant, m.ContentType} {
		if s != "" {
			n++
		}
	}
	if !m.Time.IsZero() {
		n++
	}
	return n
}

// Headers is h seen as event headers: the same memory. Nil stays nil.
//
// A copy of six headers costs 320 bytes and a quarter of a microsecond a record, more than all the rest of Read;
// the test of this package proves that the two types have one layout.
func Headers(h []kgo.RecordHeader) event.Headers { return *(*event.Headers)(unsafe.Pointer(&h)) }

// RecordHeaders is h seen as record headers: the same memory. Nil stays nil.
func RecordHeaders(h event.Headers) []kgo.RecordHeader {
	return *(*[]kgo.RecordHeader)(unsafe.Pointer(&h))
}

// positionID is the id of a record that was written without one.
func positionID(topicID [16]byte, partition int32, offset int64) string {
	var buf [36 + 1 + 11 + 1 + 20]byte // a UUID, a partition and an offset in decimal
	b := hex.AppendEncode(buf[:0], topicID[:4])
	for _, part := range [...][]byte{topicID[4:6], topicID[6:8], topicID[8:10], topicID[10:]} {
		b = hex.AppendEncode(append(b, '-'), part)
	}
	b = strconv.AppendInt(append(b, '/'), int64(partition), 10)
	return string(strconv.AppendInt(append(b, '/'), offset, 10))
}
