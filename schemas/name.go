package schemas

import (
	"reflect"
	"strings"

	"github.com/twmb/avro"
)

// Named is a Go type that says its Avro full name, "shop.OrderPlaced". Without it a type that is written by hand
// and has no schema text is called by its Go name, pkg.Type.
type Named interface{ AvroName() string }

// Described is a Go type that says its schema: the text it is read by (the reader's schema, so that fields the
// writer does not know get their defaults) and the text that is looked up in the subject when it is written.
//
// The text stands alone: types of other subjects are written out in it.
//
// A type that is written by hand may hold the text as a constant, or derive it from its own fields:
//
//	var orderSchema = schemas.MustFor[Order]()
//
//	func (Order) AvroName() string   { return "shop.Order" }
//	func (Order) AvroSchema() string { return orderSchema }
//
// A type that is not Described is read by the writer's schema as it comes: fields match by name, fields the type
// lacks are skipped, fields the writer lacks are left as they are. It is written by the subject's latest version.
type Described interface{ AvroSchema() string }

// Generated is what generated types are: they carry their schema, its CRC-64-AVRO fingerprint (the value as
// big-endian) and a straight-line encoder. Methods have value receivers.
//
// AppendAvro is used where the fingerprint equals that of the schema that is written, so its output must be the
// Avro binary form of exactly that schema.
type Generated interface {
	Described
	AvroFingerprint() uint64
	AppendAvro(dst []byte) ([]byte, error)
}

// Reader is the fast way in: ReadAvro, on a pointer, reads one value of the type's own schema and returns the bytes after it.
// It is used only where the writer's schema is the type's own. An error, or a rest, makes the record poison.
type Reader interface {
	ReadAvro(src []byte) (rest []byte, err error)
}

// NameOf is the Avro full name of a Go type: what its AvroName method says, else the name in its AvroSchema, else
// Go's pkg.Type. Pointers are looked through. It is "" for a nil type.
//
// The mux of a consumer routes by it, so a type whose schema has a namespace must be [Named] or [Described].
func NameOf(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return ""
	}
	zero := reflect.New(t).Interface()
	if n, ok := zero.(Named); ok {
		return n.AvroName()
	}
	if d, ok := zero.(Described); ok {
		if s, err := Parse(d.AvroSchema()); err == nil && s.Name != "" {
			return s.Name
		}
	}
	return t.String()
}

// For derives the Avro schema of a struct from its fields and their avro tags: `avro:"total,decimal(9,2)"`,
// `avro:"placed_at,timestamp-millis"`, `avro:",default=0"`. The name is T's AvroName, else Go's pkg.Type.
func For[T any]() (string, error) {
	t := reflect.TypeFor[T]()
	name := t.String()
	if n, ok := reflect.TypeAssert[Named](reflect.New(t)); ok {
		name = n.AvroName()
	}
	opts := []avro.SchemaOpt{avro.WithName(name)}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		opts = []avro.SchemaOpt{avro.WithName(name[i+1:]), avro.WithNamespace(name[:i])}
	}
	s, err := avro.SchemaFor[T](opts...)
	if err != nil {
		return "", err
	}
	return s.String(), nil
}

// MustFor is [For] for a package variable: it panics where T has no schema.
func MustFor[T any]() string {
	text, err := For[T]()
	if err != nil {
		panic("schemas: " + err.Error())
	}
	return text
}

// Naming says how a topic and an event type make a subject: the name that versions of a schema are registered under.
type Naming int

// The subject namings, as Confluent's clients know them.
const (
	// ByTopic is "<topic>-value", for a topic that carries one event type. The zero value.
	ByTopic Naming = iota
	// ByRecord is the event type's full name, "shop.OrderPlaced": one line of versions whatever the topic.
	ByRecord
	// ByTopicRecord is "<topic>-<full name>".
	ByTopicRecord
)

// Subject is the subject for values of the event type record in topic.
func (n Naming) Subject(topic, record string) string {
	switch n {
	case ByRecord:
		return record
	case ByTopicRecord:
		return topic + "-" + record
	default:
		return topic + "-value"
	}
}

// String is the naming as topic files write it: topic, record or topic-record.
func (n Naming) String() string {
	switch n {
	case ByRecord:
		return "record"
	case ByTopicRecord:
		return "topic-record"
	default:
		return "topic"
	}
}
