package schemas

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/twmb/avro"
)

// Avro is the format of Avro's binary encoding behind the id of its schema: the default.
func Avro() Format { return avroFormat{} }

type avroFormat struct{}

func (avroFormat) Name() string        { return "avro" }
func (avroFormat) ContentType() string { return "application/avro" }
func (avroFormat) Framed() bool        { return true }

// Compile makes a generic codec, or resolves the writer's schema to the one of t.
func (avroFormat) Compile(writer Schema, t reflect.Type) (Codec, error) {
	if isGeneric(t) {
		return writer.generic()
	}
	if writer.p == nil {
		return nil, fmt.Errorf("%w: schema %d is no Avro schema that can be read here", ErrIncompatible, writer.ID)
	}
	return newTyped(writer, t)
}

// typed is the codec of a Go type for one writer's schema.
type typed struct {
	name   string
	target reflect.Type
	writer Schema

	read   *avro.Schema // writer resolved to the type's own
	unread error        // why the type cannot read the writer's bytes
	covers bool         // the type has a field for every field that is read
	direct bool         // the type's ReadAvro reads the writer's bytes as they are

	write    *avro.Schema // what structs are encoded with
	straight bool         // the type's AppendAvro writes the writer's bytes as they are
	upgrade  *avro.Schema // the type's own resolved to the writer's, where they differ
	unfit    error        // why the type cannot write by this schema
	pool     sync.Pool    // of *T: the engine is slow on a value that has no address
}

func newTyped(writer Schema, t reflect.Type) (*typed, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	c := &typed{name: NameOf(t), target: t, writer: writer}
	c.pool.New = func() any { return reflect.New(t).Interface() }
	zero := reflect.New(t).Interface()
	own, described := writer, false
	if d, ok := zero.(Described); ok {
		described = true
		var err error
		if own, err = Parse(d.AvroSchema()); err != nil {
			return nil, fmt.Errorf("%w: the schema of %s: %w", ErrIncompatible, t, err)
		}
	}
	fit, err := fitOf(own, t)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncompatible, err)
	}
	reader, err := avro.Parse(own.p.full, fit.options()...)
	if err != nil {
		return nil, fmt.Errorf("%w: compile the schema of %s: %w", ErrIncompatible, t, err)
	}
	c.read, c.write, c.covers = reader, reader, !fit.partial
	if !described {
		return c, nil
	}
	same := own.Canonical() == writer.Canonical()
	if c.read, err = avro.Resolve(writer.p.avro, reader); err == nil {
		err = sameTimes(writer, own)
	}
	if err != nil {
		c.unread = fmt.Errorf("%w: %s cannot be read as %s: %w; give the new field a default, or read it with a newer type", ErrIncompatible, writer.Name, t, err)
	}
	if !same {
		if c.upgrade, err = avro.Resolve(own.p.avro, writer.p.avro); err != nil {
			c.unfit = fmt.Errorf("%w: %s cannot be written as %s: %w", ErrIncompatible, t, writer.Name, err)
		}
	}
	if c.unread != nil && (same || c.unfit != nil) {
		return nil, c.unread
	}
	if g, ok := zero.(Generated); ok && same && g.AvroFingerprint() == writer.Fingerprint {
		c.straight = true
		_, c.direct = zero.(Reader)
	}
	return c, nil
}

var skipUnknown = []avro.Opt{avro.SkipUnknown()}

// Decode implements [Codec] for a *T.
func (c *typed) Decode(src []byte, into any) error {
	if c.unread != nil {
		return c.unread
	}
	if c.direct {
		if r, ok := into.(Reader); ok {
			rest, err := r.ReadAvro(src)
			if err == nil && len(rest) > 0 {
				err = errRest(rest)
			}
			if err != nil {
				return fmt.Errorf("%w: %w", ErrPoison, err)
			}
			return nil
		}
	}
	var rest []byte
	var err error
	if c.covers {
		rest, err = c.read.Decode(src, into)
	} else {
		rest, err = c.read.Decode(src, into, skipUnknown...)
	}
	if err == nil && len(rest) == 0 {
		return nil
	}
	return c.blame(src, rest, err)
}

// blame says whose fault it is that src does not decode: the type's, where the bytes are one whole value of the
// writer's schema and a field's Go type cannot hold what its Avro type holds; else the bytes'.
func (c *typed) blame(src, rest []byte, err error) error {
	if err == nil {
		return fmt.Errorf("%w: %w", ErrPoison, errRest(rest))
	}
	if wrong, ok := errors.AsType[*avro.SemanticError](err); ok && wrong.Err == nil {
		if g, guardErr := c.writer.generic(); guardErr == nil && g.check(src) == nil {
			return fmt.Errorf("%w: %s cannot be read as %s: %w", ErrIncompatible, c.writer.Name, c.target, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrPoison, err)
}

// Append implements [Codec] for a T and a *T.
func (c *typed) Append(dst []byte, v any) ([]byte, error) {
	if c.straight {
		if g, ok := v.(Generated); ok {
			return g.AppendAvro(dst)
		}
	}
	if c.unfit != nil {
		return nil, c.unfit
	}
	if c.upgrade != nil {
		return c.appendUpgraded(dst, v)
	}
	return c.append(dst, v)
}

func (c *typed) append(dst []byte, v any) ([]byte, error) {
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Pointer {
		if rv.IsNil() {
			return nil, errors.New("the data is a nil pointer")
		}
		return c.write.AppendEncode(dst, v)
	}
	p := c.pool.Get()
	at := reflect.ValueOf(p).Elem()
	at.Set(rv)
	dst, err := c.write.AppendEncode(dst, p)
	at.SetZero() // keep nothing of the event alive
	c.pool.Put(p)
	return dst, err
}

// appendUpgraded writes by a schema that is not the type's own: what the type knows goes through, the rest is filled
// with the schema's defaults.
func (c *typed) appendUpgraded(dst []byte, v any) ([]byte, error) {
	own, err := c.append(nil, v)
	if err != nil {
		return nil, err
	}
	var data any
	if _, err := c.upgrade.Decode(own, &data, avro.TaggedUnions()); err != nil {
		return nil, fmt.Errorf("carry %s over to schema %d: %w", c.target, c.writer.ID, err)
	}
	return c.writer.p.avro.AppendEncode(dst, data)
}

// errTimes is what Resolve lets pass: one number read in two units.
var errTimes = errors.New("the units of a date or time differ")

// sameTimes refuses a pair of schemas that would read one time as another: a timestamp in microseconds as one in
// milliseconds is off by a factor of a thousand, and no check of the specification minds.
func sameTimes(writer, reader Schema) error {
	w, err := newTree(writer.p.avro)
	if err != nil {
		return err
	}
	r, err := newTree(reader.p.avro)
	if err != nil {
		return err
	}
	return sameTimesIn(w.root, r.root, map[[2]*node]bool{})
}

func sameTimesIn(w, r *node, seen map[[2]*node]bool) error {
	if seen[[2]*node{w, r}] {
		return nil
	}
	seen[[2]*node{w, r}] = true
	switch {
	case w.kind == kUnion || r.kind == kUnion:
		for _, wb := range w.orSelf() {
			for _, rb := range r.orSelf() {
				if wb.kind == rb.kind && wb.name == rb.name {
					if err := sameTimesIn(wb, rb, seen); err != nil {
						return err
					}
				}
			}
		}
	case w.kind == kRecord && r.kind == kRecord:
		for i := range w.fields {
			if j, ok := r.byName[w.fields[i].name]; ok {
				if err := sameTimesIn(w.fields[i].node, r.fields[j].node, seen); err != nil {
					return fmt.Errorf("%s: %w", w.fields[i].name, err)
				}
			}
		}
	case w.items != nil && r.items != nil:
		return sameTimesIn(w.items, r.items, seen)
	case w.logical.temporal() && r.logical.temporal() && w.logical.unit() != r.logical.unit():
		return errTimes
	}
	return nil
}

func (n *node) orSelf() []*node {
	if n.kind == kUnion {
		return n.branches
	}
	return []*node{n}
}

// unit is the same for logical types whose numbers mean the same length of time.
func (l logical) unit() logical {
	switch l {
	case lLocalMillis:
		return lTimestampMillis
	case lLocalMicros:
		return lTimestampMicros
	case lLocalNanos:
		return lTimestampNanos
	default:
		return l
	}
}

// fit compares a schema with the Go type that is to hold its values.
type fit struct {
	wants   map[leanType]bool // logical types; true where some field wants the rich Go value
	partial bool              // the schema has fields that the type lacks
	seen    map[fitPair]bool
}

type leanType struct {
	logical string
	on      kind
}

type fitPair struct {
	n *node
	t reflect.Type
}

func fitOf(s Schema, t reflect.Type) (*fit, error) {
	tree, err := newTree(s.p.avro)
	if err != nil {
		return nil, err
	}
	f := &fit{wants: map[leanType]bool{}, seen: map[fitPair]bool{}}
	f.visit(tree.root, t)
	return f, nil
}

// options leave out the costly Go value of a logical type wherever no field wants it: an int64 takes a timestamp and
// a []byte a decimal as they are on the wire. A logical type is left out for the whole schema or not at all.
func (f *fit) options() []avro.SchemaOpt {
	var opts []avro.SchemaOpt
	for lt, rich := range f.wants {
		if !rich {
			opts = append(opts, avro.WithCustomType(avro.CustomType{LogicalType: lt.logical, AvroType: lt.on.String()}))
		}
	}
	return opts
}

func (f *fit) visit(n *node, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if f.seen[fitPair{n, t}] {
		return
	}
	f.seen[fitPair{n, t}] = true
	switch n.kind {
	case kUnion:
		for _, b := range n.branches {
			f.visit(b, t)
		}
	case kArray, kMap:
		item := t
		if k := t.Kind(); k == reflect.Slice || k == reflect.Map || k == reflect.Array {
			item = t.Elem()
		}
		f.visit(n.items, item)
	case kRecord:
		for i := range n.fields {
			child := &n.fields[i]
			if t.Kind() != reflect.Struct {
				f.visit(child.node, t) // an any, a map: whatever it is, it is not lean
				continue
			}
			found := fieldsNamed(t, child.name, maxInline)
			f.partial = f.partial || len(found) == 0
			for _, ft := range found {
				f.visit(child.node, ft)
			}
		}
	default:
		if n.logical == none {
			return
		}
		for word, known := range logicals {
			if known.l == n.logical {
				lt := leanType{word, n.kind}
				f.wants[lt] = f.wants[lt] || !takesRaw(n, t)
			}
		}
	}
}

// takesRaw reports whether a t holds the raw value of n's logical type as it is on the wire.
func takesRaw(n *node, t reflect.Type) bool {
	switch {
	case n.logical == lDecimal:
		return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
	case n.logical.temporal():
		return t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64 && t != reflect.TypeFor[time.Duration]()
	default:
		return false
	}
}

// maxInline bounds inlined structs that hold each other.
const maxInline = 8

// fieldsNamed are the types of all fields of a struct that may hold the Avro field name, those of embedded and
// inlined structs included.
func fieldsNamed(t reflect.Type, name string, depth int) []reflect.Type {
	var found []reflect.Type
	for _, f := range reflect.VisibleFields(t) {
		tag := []byte(f.Tag.Get("avro"))
		tagName, options, _ := bytes.Cut(tag, []byte(","))
		if string(tagName) == name || f.Name == name {
			found = append(found, f.Type)
		}
		if !f.Anonymous && bytes.Contains(options, []byte("inline")) {
			inner := f.Type
			for inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && depth > 0 {
				found = append(found, fieldsNamed(inner, name, depth-1)...)
			}
		}
	}
	return found
}
