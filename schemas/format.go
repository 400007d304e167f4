package schemas

import "reflect"

// Codec turns values of one Go type into the bytes of one schema, and back. It is safe for concurrent use.
type Codec interface {
	// Append appends v's bytes to dst. An error means that v does not fit the schema; dst is then unusable.
	Append(dst []byte, v any) ([]byte, error)
	// Decode reads all of src into the pointer into. An error wraps ErrPoison where the bytes are at fault, and
	// ErrIncompatible where into's type is. The value keeps no reference to src.
	Decode(src []byte, into any) error
}

// Format is a way to write data: [Avro], [JSON] and [Raw] are the ones there are.
type Format interface {
	// Name is what topic files call it: "avro", "json", "raw".
	Name() string
	// ContentType is the media type of a value without its frame, "" where nothing can be said.
	ContentType() string
	// Framed reports whether a value starts with the id of its schema, so that a registry is needed to write it.
	Framed() bool
	// Compile makes the codec for values of Go type t that are written with writer, once per pair. The zero Schema
	// is given where the format is not Framed. A nil t, or the type of any, asks for generic values. An error
	// wraps ErrIncompatible where t can never be read from writer.
	Compile(writer Schema, t reflect.Type) (Codec, error)
}
