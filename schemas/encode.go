package schemas

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/millrace/millrace/event"
)

// writer is all that is needed to write one Go type to one topic.
type writer struct {
	schema      Schema // zero where the format is not framed
	codec       Codec
	framed      bool
	name        string
	contentType string
	until       time.Time // zero: for ever
}

// writerKey is all that decides how typed data is written, and small: it is hashed for every event.
type writerKey struct {
	topic string
	t     reflect.Type
}

// genericKey is the same for data without a Go type.
type genericKey struct {
	writerKey

	name string // the event's type
	id   int32  // of the schema that a Generic brings
	text string // the same, where it has no id yet
}

// Encode appends e's data to dst in its topic's format and framing, and sets e.Type and e.ContentType. It returns the
// longer slice; after an error dst's own bytes are as they were.
//
// An event without Data keeps its Value, Type and ContentType: the bytes are appended as they are.
//
// An error wraps ErrNotFound where the type's schema is not registered, ErrUnavailable where that cannot be known,
// ErrIncompatible where the type and the schema do not fit. Another error is the data's: it does not fit its schema.
func (r *Registry) Encode(ctx context.Context, dst []byte, e *event.Event) (_ []byte, err error) {
	if e.Data == nil {
		return append(dst, e.Value...), nil
	}
	w, err := r.writerOf(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("encode %s for topic %s: %w", typeOf(e), e.Topic, err)
	}
	out := dst
	if w.framed {
		out = appendFrame(out, w.schema.ID)
	}
	if out, err = w.append(out, e.Data); err != nil {
		return nil, fmt.Errorf("encode %s for topic %s: %w", typeOf(e), e.Topic, err)
	}
	if w.name != "" {
		e.Type = w.name
	}
	e.ContentType = w.contentType
	return out, nil
}

// append keeps a panic in a user's AppendAvro, or in an engine, from ending the process.
func (w *writer) append(dst []byte, data any) (_ []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the encoder panicked: %v", p)
		}
	}()
	return w.codec.Append(dst, data)
}

func (r *Registry) writerOf(ctx context.Context, e *event.Event) (*writer, error) {
	key := genericKey{writerKey: writerKey{e.Topic, reflect.TypeOf(e.Data)}}
	if w, ok := r.writers.get(key.writerKey); ok && w.good() {
		return w, nil
	}
	if !isGeneric(key.t) {
		w, err := r.writer(ctx, e, key)
		if err == nil {
			r.writers.put(key.writerKey, w)
		}
		return w, err
	}
	var s *Schema
	switch g := e.Data.(type) {
	case Generic:
		s = &g.Schema
	case *Generic:
		s = &g.Schema
	}
	switch {
	case s == nil:
		key.name = e.Type
	case s.ID > 0:
		key.id = s.ID
	default:
		key.name, key.text = s.Name, s.Text
	}
	if w, ok := r.generic.get(key); ok && w.good() {
		return w, nil
	}
	w, err := r.writer(ctx, e, key)
	if err == nil {
		r.generic.put(key, w)
	}
	return w, err
}

// good reports whether the writer still stands.
func (w *writer) good() bool { return w.until.IsZero() || time.Now().Before(w.until) }

func typeOf(e *event.Event) string {
	if t := reflect.TypeOf(e.Data); !isGeneric(t) {
		return NameOf(t)
	}
	if e.Type != "" {
		return e.Type
	}
	return "generic data"
}

// writer finds out how e is written.
func (r *Registry) writer(ctx context.Context, e *event.Event, key genericKey) (*writer, error) {
	topic := r.topic(e.Topic)
	w := &writer{framed: topic.Format.Framed(), contentType: topic.Format.ContentType()}
	if !w.framed {
		c, err := topic.Format.Compile(Schema{}, key.t)
		if err != nil {
			return nil, err
		}
		w.codec = c
		if !isGeneric(key.t) && topic.Format.Name() != Raw().Name() {
			w.name = NameOf(key.t)
		}
		return w, nil
	}
	s, until, err := r.writing(ctx, topic, e, key)
	if err != nil {
		return nil, err
	}
	w.schema, w.name, w.until = s, s.Name, until
	if known, ok := r.ids.get(s.ID); ok && topic.Format == Avro() {
		w.codec, err = known.codec(key.t)
	} else {
		w.codec, err = topic.Format.Compile(s, key.t)
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// writing is the schema that e is written with, and until when that is so: zero for ever.
func (r *Registry) writing(ctx context.Context, topic Topic, e *event.Event, key genericKey) (s Schema, until time.Time, err error) {
	if key.id > 0 {
		s, err := r.ByID(ctx, key.id)
		return s, until, err
	}
	name, text := key.name, key.text
	if !isGeneric(key.t) {
		name, text = NameOf(key.t), textOf(key.t)
	} else if name == "" && topic.Naming != ByTopic {
		return Schema{}, until, fmt.Errorf("%w: the naming %s needs the event's Type, and generic data says none: set it, or send a Generic",
			ErrIncompatible, topic.Naming)
	}
	subject := topic.Naming.Subject(e.Topic, name)
	if text == "" || topic.Latest {
		s, err := r.Latest(ctx, subject)
		if errors.Is(err, ErrNotFound) && text != "" && topic.Create {
			s, err = r.Register(ctx, subject, text)
		}
		if errors.Is(err, ErrNotFound) && text == "" && topic.Create {
			return Schema{}, until, fmt.Errorf("%s has no AvroSchema method, so its schema can be neither registered nor looked up: %w", key.t, err)
		}
		if l, ok := r.latest.get(subject); ok {
			until = l.until
		} else {
			until = time.Now().Add(r.ttl)
		}
		return s, until, unregistered(err, name, subject)
	}
	s, err = r.Lookup(ctx, subject, text)
	if errors.Is(err, ErrNotFound) && topic.Create {
		s, err = r.Register(ctx, subject, text)
	}
	return s, until, unregistered(err, name, subject)
}

// unregistered says what to type.
func unregistered(err error, name, subject string) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("the schema of %s is not registered under subject %s: run millrace schemas register with its .avsc file: %w", name, subject, err)
}

// textOf is the schema text of a Go type, "" where it says none.
func textOf(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if d, ok := reflect.TypeAssert[Described](reflect.New(t)); ok {
		return d.AvroSchema()
	}
	return ""
}
