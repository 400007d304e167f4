// Package event holds the words that every other package speaks: what an event is, what its attributes
// are called on the wire, and what a handler's context carries. It imports the standard library only.
//
// An event is made by [New], [Unkeyed], [After] or [Tombstone], published by an [Publisher], kept in a Kafka
// topic, and given to a handler as an [Event] or, with its data decoded, as an [Of]:
//
//	err := pub.Publish(ctx, event.New("shop.orders", order.ID, order))
//
// Inside a handler an effect is made with [After], so that a handler that runs again publishes the same id:
//
//	err := pub.Publish(ctx, event.After(e.Meta, "shop.shipments", e.Key, shipped))
//
// # On the wire
//
// Attributes travel as record headers in the CloudEvents 1.0 Kafka binding, binary mode: ce_specversion,
// ce_id, ce_type, ce_source, ce_time, content-type, and ce_tenant where a tenant is set. Millrace's own
// headers start with millrace_; this package holds the one table of them.
package event

import (
	"context"
	"reflect"
	"time"
)

// Meta is everything about an event but its data.
//
// ID to Time are written by the producer as ce_ headers. Topic and Key are chosen by whoever makes the event.
// Partition to Published and Attempt are known only for an event that was read from a log.
type Meta struct {
	// ID identifies the event, end to end: at most 255 bytes, unique per event, the idempotency key of every
	// write that the event causes. [New] stamps a UUIDv7, [After] derives a UUIDv8. A record that was written
	// without one reads as topic-id/partition/offset.
	ID string
	// Type is the Avro full name of the data, "shop.OrderPlaced". The producer's encoder sets it.
	Type string
	// Source names the producing service. The producer fills it in where it is empty.
	Source string
	// Tenant is optional and travels as the extension ce_tenant.
	Tenant string
	// ContentType is the media type of the value on the wire, "application/avro". The producer's encoder sets it.
	ContentType string
	// Time is when the event happened. Zero is stamped from [Now] when the event is published.
	Time time.Time

	// Topic is the Kafka topic that the event is published to or was read from.
	Topic string
	// Partition is 0-based.
	Partition int32
	// Offset is the position in the partition, 0-based.
	Offset int64
	// Epoch is the leader epoch of the record, -1 where it is not known.
	Epoch int32
	// Published is the record's timestamp: when it was published, in milliseconds on the wire.
	Published time.Time

	// Key picks the partition and is the unit of order. Nil is the null key: any partition, no order.
	Key []byte
	// Headers are all headers of the record in their order, those of the attributes included when it was read.
	Headers Headers
	// Attempt counts the attempts of a handler on this event, from 1. Zero outside a handler.
	Attempt int
}

// Event is an event with data of any type.
//
// When Data is set, the producer encodes it. When Data is nil and Value is set, Value is sent as it is. When
// both are nil, the event is a tombstone: a record with a null value, which deletes its key in a compacted topic.
type Event struct {
	Meta
	// Data is the decoded data: in a handler registered for a type T it is a *T.
	Data any
	// Value is the record's value on the wire. Nil is null; empty is not.
	Value []byte
	// Verbatim sends the record as it stands: Key, Value and Headers with their order, repeats and nulls, and not one
	// header of the attributes, not even an id. It is for putting back what was read, also what carried none. Data
	// must be nil.
	Verbatim bool

	derived bool // the id comes from After: a second effect with it, in one attempt, is a mistake
}

// Of is an event with data of type T: what typed handlers are given and what tests build.
type Of[T any] struct {
	Meta
	Data T
}

// Publisher publishes events. It is what a handler holds; producer.Producer is one, and so is
// millracetest.Publisher.
//
// Publish returns nil when every in-sync replica has every event. An error means that at least one event was
// rejected or has an unknown outcome; publishing the same values again is safe, because their ids stay.
type Publisher interface {
	Publish(ctx context.Context, events ...Event) error
}

// New returns an event for topic with a fresh id, a UUIDv7. The id is stamped here, so publishing the value
// twice publishes one event twice, never two events.
//
// A nil []byte key is the null key; [Unkeyed] says so in words.
func New[K ~string | ~[]byte](topic string, key K, data any) Event {
	return Event{Meta: Meta{ID: newID(), Topic: topic, Key: keyBytes(key)}, Data: data}
}

// Unkeyed returns an event with the null key: it may land in any partition and has no order.
func Unkeyed(topic string, data any) Event {
	return Event{Meta: Meta{ID: newID(), Topic: topic}, Data: data}
}

// After returns an event that cause led to. Its id, a UUIDv8, is derived from the cause's id, topic, key, the
// type of data and label, so a handler that runs again publishes the same id and whoever dedupes sees one event.
// It carries the headers millrace_correlation_id (the first event of the chain) and millrace_cause_id.
//
// Two effects of one cause with the same topic, key and type need different labels; without, Publish refuses
// the second of an attempt with [ErrSameEffect].
func After[K ~string | ~[]byte](cause Meta, topic string, key K, data any, label ...string) Event {
	k := keyBytes(key)
	m := Meta{ID: DeriveID(append([]string{cause.ID, topic, string(k), typeName(data)}, label...)...), Topic: topic, Key: k, Tenant: cause.Tenant}
	correlation := cause.Headers.Get(HeaderCorrelation)
	if correlation == nil {
		correlation = []byte(cause.ID)
	}
	m.Headers = make(Headers, 0, 3)
	m.Headers = append(m.Headers, Header{HeaderCorrelation, correlation}, Header{HeaderCause, []byte(cause.ID)})
	if tp := cause.Headers.Get(HeaderTraceParent); tp != nil {
		m.Headers = append(m.Headers, Header{HeaderTraceParent, tp})
	}
	return Event{Meta: m, Data: data, derived: true}
}

// Tombstone returns an event with a null value, which deletes key in a compacted topic.
func Tombstone[K ~string | ~[]byte](topic string, key K) Event {
	return New(topic, key, nil)
}

// IsTombstone reports whether the event is a null value: nothing to encode and nothing to send.
func (e *Event) IsTombstone() bool { return e.Data == nil && e.Value == nil }

func keyBytes[K ~string | ~[]byte](key K) []byte {
	if b, ok := any(key).([]byte); ok {
		return b
	}
	v := reflect.ValueOf(key)
	if v.Kind() == reflect.Slice {
		if v.IsNil() {
			return nil
		}
		return v.Bytes()
	}
	return []byte(key)
}

// typeName is the name of data's type as After sees it: AvroName where the type has one, else Go's pkg.Type.
func typeName(data any) string {
	if n, ok := data.(interface{ AvroName() string }); ok {
		return n.AvroName()
	}
	t := reflect.TypeOf(data)
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return ""
	}
	return t.String()
}
