package schemas

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// JSON is the format of plain JSON without a frame, by encoding/json: what the topic carries is text that anyone can
// read, and nothing but the type that reads it says what is in it.
func JSON() Format { return jsonFormat{} }

type jsonFormat struct{}

func (jsonFormat) Name() string        { return "json" }
func (jsonFormat) ContentType() string { return "application/json" }
func (jsonFormat) Framed() bool        { return false }

func (jsonFormat) Compile(Schema, reflect.Type) (Codec, error) { return jsonCodec{}, nil }

type jsonCodec struct{}

func (jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	if g, ok := v.(Generic); ok {
		v = g.Data
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(dst, b...), nil
}

func (jsonCodec) Decode(src []byte, into any) error {
	if err := json.Unmarshal(src, into); err != nil {
		return fmt.Errorf("%w: %w", ErrPoison, err)
	}
	return nil
}

// Raw is the format of bytes that are sent and given as they are: a []byte, a json.RawMessage or a string.
func Raw() Format { return rawFormat{} }

type rawFormat struct{}

func (rawFormat) Name() string        { return "raw" }
func (rawFormat) ContentType() string { return "application/octet-stream" }
func (rawFormat) Framed() bool        { return false }

func (rawFormat) Compile(_ Schema, t reflect.Type) (Codec, error) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() == reflect.Interface || t.Kind() == reflect.String || isBytes(t) {
		return rawCodec{}, nil
	}
	return nil, fmt.Errorf("%w: raw bytes are a []byte or a string, not a %s", ErrIncompatible, t)
}

func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

type rawCodec struct{}

func (rawCodec) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return append(dst, v...), nil
	case string:
		return append(dst, v...), nil
	}
	rv := reflect.ValueOf(v)
	for rv.Kind() == reflect.Pointer && !rv.IsNil() {
		rv = rv.Elem()
	}
	switch {
	case rv.Kind() == reflect.String:
		return append(dst, rv.String()...), nil
	case rv.IsValid() && isBytes(rv.Type()):
		return append(dst, rv.Bytes()...), nil
	}
	return nil, fmt.Errorf("raw bytes are a []byte or a string, not a %T", v)
}

func (rawCodec) Decode(src []byte, into any) error {
	switch into := into.(type) {
	case *[]byte:
		*into = append([]byte{}, src...)
		return nil
	case *string:
		*into = string(src)
		return nil
	case *any:
		*into = append([]byte{}, src...)
		return nil
	}
	rv := reflect.ValueOf(into)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return fmt.Errorf("%w: raw bytes are decoded into a *[]byte, not a %T", ErrIncompatible, into)
	}
	switch at := rv.Elem(); {
	case isBytes(at.Type()):
		at.SetBytes(append([]byte{}, src...))
	case at.Kind() == reflect.String:
		at.SetString(string(src))
	default:
		return fmt.Errorf("%w: raw bytes are decoded into a *[]byte, not a %T", ErrIncompatible, into)
	}
	return nil
}
