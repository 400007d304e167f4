package schemas

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"
)

// Generic is data without a Go type, written by a schema that is at hand:
//
//	e := event.New("shop.orders", "o1", schemas.Generic{Schema: s, Data: map[string]any{"order_id": "o1"}})
//
// A map, a slice or a json.RawMessage that is not wrapped is written by the subject's latest version.
type Generic struct {
	// Schema is what Data is written by: one that a Registry returned.
	Schema Schema
	// Data is a map[string]any for a record, else what the package comment lists, or a json.RawMessage: then the
	// text is read by the schema.
	Data any
	// Strict refuses keys that no field of a record has. Off, they are ignored.
	Strict bool
}

// engine turns bytes into the raw shapes of the tree's text and back: nil, bool, int32, int64, float32, float64,
// string, []byte, []any, map[string]any, and map[string]any{tag: value} for a branch of a union other than null.
type engine interface {
	decode(src []byte) (v any, rest []byte, err error)
	encode(dst []byte, v any) ([]byte, error)
}

// genericCodec reads and writes values that have no Go type.
type genericCodec struct {
	tree   *tree
	guard  *avro.Schema
	engine engine
	strict bool
}

func newGeneric(s *avro.Schema) (*genericCodec, error) {
	t, err := newTree(s)
	if err != nil {
		return nil, err
	}
	g := &genericCodec{tree: t}
	// A guard decodes into struct{}, which works for a record alone: one field around any schema changes no byte.
	g.guard, err = avro.Parse(`{"type":"record","name":"guarded","fields":[{"name":"v","type":` + t.text + `}]}`)
	if err != nil {
		return nil, fmt.Errorf("compile the guard: %w", err)
	}
	if g.engine, err = newEngine(t); err != nil {
		return nil, err
	}
	return g, nil
}

// newEngine gives goavro what it can read safely: a text without defaults, logical types and namespaces, in which
// its defects have nothing to work on. Recursion would cost it the stack, which recover cannot save, and it has no
// empty union: those go to the other engine, which makes the same shapes.
func newEngine(t *tree) (engine, error) {
	if !t.recursive && !t.odd {
		if c, err := goavro.NewCodec(t.text); err == nil {
			return goavroEngine{c}, nil
		}
	}
	s, err := avro.Parse(t.text)
	if err != nil {
		return nil, fmt.Errorf("compile for generic values: %w", err)
	}
	return twmbEngine{s}, nil
}

type goavroEngine struct{ codec *goavro.Codec }

func (e goavroEngine) decode(src []byte) (any, []byte, error) { return e.codec.NativeFromBinary(src) }

func (e goavroEngine) encode(dst []byte, v any) ([]byte, error) {
	return e.codec.BinaryFromNative(dst, v)
}

type twmbEngine struct{ schema *avro.Schema }

func (e twmbEngine) decode(src []byte) (v any, rest []byte, err error) {
	rest, err = e.schema.Decode(src, &v, avro.TaggedUnions())
	return v, rest, err
}

func (e twmbEngine) encode(dst []byte, v any) ([]byte, error) { return e.schema.AppendEncode(dst, v) }

// check walks src without keeping anything: nil means that src is exactly one value of the schema, in bounds that
// the engines survive.
func (g *genericCodec) check(src []byte) error {
	rest, err := g.guard.Decode(src, &struct{}{}, avro.SkipUnknown())
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errRest(rest)
	}
	return nil
}

func errRest(rest []byte) error {
	return fmt.Errorf("%d bytes follow the value: it was written with another schema", len(rest))
}

// raw decodes src into the engine's shapes.
func (g *genericCodec) raw(src []byte) (any, error) {
	if err := g.check(src); err != nil {
		return nil, err
	}
	if err := measure(g.tree.root, src); err != nil {
		return nil, err
	}
	v, rest, err := g.engine.decode(src)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errRest(rest)
	}
	return v, nil
}

// Decode implements [Codec] for a *any and a *map[string]any.
func (g *genericCodec) Decode(src []byte, into any) error {
	v, err := g.raw(src)
	if err == nil {
		v, err = g.tree.root.bare(v)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPoison, err)
	}
	switch into := into.(type) {
	case *any:
		*into = v
	case *map[string]any:
		m, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("%w: a %s is no map", ErrIncompatible, g.tree.root.name)
		}
		*into = m
	default:
		return fmt.Errorf("%w: generic values are decoded into a *any, not a %T", ErrIncompatible, into)
	}
	return nil
}

// Append implements [Codec].
func (g *genericCodec) Append(dst []byte, v any) ([]byte, error) {
	return g.append(dst, v, g.strict)
}

func (g *genericCodec) append(dst []byte, v any, strict bool) ([]byte, error) {
	switch data := v.(type) {
	case Generic:
		return g.append(dst, data.Data, strict || data.Strict)
	case *Generic:
		return g.append(dst, data.Data, strict || data.Strict)
	case *any:
		return g.append(dst, *data, strict)
	case json.RawMessage:
		var err error
		if v, err = readJSON(data); err != nil {
			return nil, err
		}
	}
	budget := maxValues
	n, err := walk{strict: strict, budget: &budget}.native(g.tree.root, v)
	if err != nil {
		return nil, err
	}
	return g.engine.encode(dst, n)
}

// isGeneric reports whether values of t have no schema of their own.
func isGeneric(t reflect.Type) bool {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t == reflect.TypeFor[Generic]() {
		return true
	}
	switch t.Kind() {
	case reflect.Interface:
		return t.NumMethod() == 0
	case reflect.Map:
		return t == reflect.TypeFor[map[string]any]()
	case reflect.Slice:
		return t == reflect.TypeFor[[]any]() || t == reflect.TypeFor[json.RawMessage]()
	default:
		return false
	}
}
