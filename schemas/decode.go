package schemas

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/millrace/millrace/event"
)

// entry is a schema with what was compiled to read it.
type entry struct {
	schema  Schema
	codecs  cache[reflect.Type, Codec]
	refused cache[reflect.Type, error] // types that can never be read: the answer does not change
	compile sync.Mutex
}

// codec returns the codec for a type, compiled once.
func (e *entry) codec(t reflect.Type) (Codec, error) {
	if c, ok := e.codecs.get(t); ok {
		return c, nil
	}
	if err, ok := e.refused.get(t); ok {
		return nil, err
	}
	e.compile.Lock()
	defer e.compile.Unlock()
	if c, ok := e.codecs.get(t); ok {
		return c, nil
	}
	format := Avro()
	if e.schema.Type == TypeJSON {
		format = JSON()
	}
	c, err := format.Compile(e.schema, t)
	if err != nil {
		e.refused.put(t, err)
		return nil, err
	}
	e.codecs.put(t, c)
	return c, nil
}

// entry is what is known of a schema by its id.
func (r *Registry) entry(ctx context.Context, id int32) (*entry, error) {
	if e, ok := r.ids.get(id); ok {
		return e, nil
	}
	_, err := once(ctx, r, fmt.Sprintf("id/%d", id), func(ctx context.Context) (Schema, error) {
		rec, err := r.backend.byID(ctx, id)
		if err != nil {
			return Schema{}, err
		}
		rec.id = id
		return r.keep(ctx, rec)
	})
	if err != nil {
		return nil, fmt.Errorf("get schema %d: %w", id, err)
	}
	e, ok := r.ids.get(id)
	if !ok { // dropped by a flood of other ids in between
		return nil, fmt.Errorf("get schema %d: %w: too many schemas at once", id, ErrUnavailable)
	}
	return e, nil
}

func (r *Registry) entryByGUID(ctx context.Context, guid [16]byte) (*entry, error) {
	if e, ok := r.guids.get(guid); ok {
		return e, nil
	}
	name := formatUUID(guid)
	s, err := once(ctx, r, "guid/"+name, func(ctx context.Context) (Schema, error) {
		rec, err := r.backend.byGUID(ctx, name)
		if err != nil {
			return Schema{}, err
		}
		return r.keep(ctx, rec)
	})
	if err != nil {
		return nil, fmt.Errorf("get schema %s: %w", name, err)
	}
	e, ok := r.ids.get(s.ID)
	if !ok {
		e = &entry{schema: s}
	}
	r.guids.put(guid, e)
	return e, nil
}

// SchemaOf is the schema that e.Value was written with, and the value without its frame. An event without a frame
// has the zero Schema and its whole value. An error wraps ErrPoison or ErrUnavailable.
func (r *Registry) SchemaOf(ctx context.Context, e *event.Event) (Schema, []byte, error) {
	entry, body, err := r.frameOf(ctx, e)
	if err != nil {
		return Schema{}, nil, blame(e, entry, err)
	}
	if entry == nil {
		return Schema{}, body, nil
	}
	return entry.schema, body, nil
}

// frameOf finds the schema of a value; nil for a value without a frame.
func (r *Registry) frameOf(ctx context.Context, e *event.Event) (*entry, []byte, error) {
	if r.unframed[e.Topic] || strings.HasPrefix(e.ContentType, "application/octet-stream") {
		return nil, e.Value, nil
	}
	f, err := ParseFrame(e.Value, e.Headers)
	if err != nil || !f.Framed() {
		return nil, f.Body, err
	}
	var found *entry
	if f.ID != 0 {
		found, err = r.entry(ctx, f.ID)
	} else {
		found, err = r.entryByGUID(ctx, f.GUID)
	}
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %w; another registry made the id, or the schema was deleted for good", ErrPoison, unclassed{err})
	}
	return found, f.Body, err
}

// unclassed keeps an error's text and hides its class: a record whose id is unknown is poison and nothing else.
type unclassed struct{ err error }

func (u unclassed) Error() string { return u.err.Error() }

// TypeOf is the full name of the schema that e.Value was written with, else e.Type: what a mux routes by. A tombstone
// has its e.Type. An error wraps ErrPoison or ErrUnavailable.
func (r *Registry) TypeOf(ctx context.Context, e *event.Event) (string, error) {
	if e.Value == nil {
		return e.Type, nil
	}
	entry, _, err := r.frameOf(ctx, e)
	switch {
	case err != nil:
		return "", blame(e, entry, err)
	case entry == nil || entry.schema.Name == "":
		return e.Type, nil
	}
	return entry.schema.Name, nil
}

// Decode decodes e.Value into into: a *T, or a *any for generic values (see the package comment). What it decodes
// keeps no reference to e.Value.
//
// The frame says the schema. A value without one is read by its topic's format where that is not framed, else by its
// content type, else as it is where into is a *[]byte. A tombstone is nil for a *any and ErrPoison for everything
// else: ask [event.Event.IsTombstone] first.
//
// An error wraps ErrPoison (dead-letter the record), ErrUnavailable (wait and try again) or ErrIncompatible (stop:
// into's type cannot read what the writer writes), and names the record and the schema.
func (r *Registry) Decode(ctx context.Context, e *event.Event, into any) error {
	if e.Value == nil {
		if into, ok := into.(*any); ok {
			*into = nil
			return nil
		}
		return blame(e, nil, fmt.Errorf("%w: a tombstone has no data", ErrPoison))
	}
	entry, body, err := r.frameOf(ctx, e)
	if err == nil {
		err = r.decode(e, entry, body, into)
	}
	if err != nil {
		return blame(e, entry, err)
	}
	return nil
}

func (r *Registry) decode(e *event.Event, entry *entry, body []byte, into any) (err error) {
	// The bytes are anyone's, and a decoder's mistake with them must cost the record, not the process.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the decoder panicked: %v", ErrPoison, p)
		}
	}()
	t := reflect.TypeOf(into)
	if t == nil || t.Kind() != reflect.Pointer {
		return fmt.Errorf("%w: decode into a pointer, not a %T", ErrIncompatible, into)
	}
	if entry != nil {
		c, err := entry.codec(t.Elem())
		if err != nil {
			return err
		}
		return c.Decode(body, into)
	}
	format, err := r.formatOf(e, t.Elem())
	if err != nil {
		return err
	}
	c, err := format.Compile(Schema{}, t.Elem())
	if err != nil {
		return err
	}
	return c.Decode(body, into)
}

// formatOf is the format of a value without a frame.
func (r *Registry) formatOf(e *event.Event, t reflect.Type) (Format, error) {
	if r.unframed[e.Topic] {
		return r.topic(e.Topic).Format, nil
	}
	media, _, _ := strings.Cut(e.ContentType, ";")
	switch {
	case media == "application/json" || strings.HasSuffix(media, "+json") || media == "text/json":
		return JSON(), nil
	case isBytes(t), media == "application/octet-stream", strings.HasPrefix(media, "text/"):
		return Raw(), nil
	}
	return nil, fmt.Errorf("%w: the value has no frame, and its content type %.40q says nothing: give the topic a Format", ErrPoison, e.ContentType)
}

// AppendJSON appends e's data as one line of JSON, whatever its format: for eyes, and for [Schema.FromJSON]. A
// tombstone is null. Bytes that are neither framed nor JSON are a JSON text with one code point a byte.
func (r *Registry) AppendJSON(ctx context.Context, dst []byte, e *event.Event) (_ []byte, err error) {
	if e.Value == nil {
		return append(dst, "null"...), nil
	}
	entry, body, err := r.frameOf(ctx, e)
	if err != nil {
		return nil, blame(e, entry, err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = blame(e, entry, fmt.Errorf("%w: the decoder panicked: %v", ErrPoison, p))
		}
	}()
	if entry != nil && entry.schema.Type == TypeAvro {
		if dst, err = entry.schema.AppendJSON(dst, body); err != nil {
			return nil, blame(e, entry, err)
		}
		return dst, nil
	}
	if out, ok := compactJSON(dst, body); ok {
		return out, nil
	}
	return appendBytes(dst, body), nil
}

// blame names the record and the schema.
func blame(e *event.Event, entry *entry, err error) error {
	if entry != nil {
		return fmt.Errorf("decode %s, written with %s (schema %d): %w", where(e), entry.schema.Name, entry.schema.ID, err)
	}
	return fmt.Errorf("decode %s: %w", where(e), err)
}
