package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// kind is an Avro type by its name in a schema.
type kind string

const (
	kindRecord kind = "record"
	kindEnum   kind = "enum"
	kindArray  kind = "array"
	kindMap    kind = "map"
	kindUnion  kind = "union"
	kindFixed  kind = "fixed"
	kindString kind = "string"
	kindBytes  kind = "bytes"
	kindInt    kind = "int"
	kindLong   kind = "long"
	kindFloat  kind = "float"
	kindDouble kind = "double"
	kindBool   kind = "boolean"
	kindNull   kind = "null"
)

var (
	primitives = []kind{kindString, kindBytes, kindInt, kindLong, kindFloat, kindDouble, kindBool, kindNull}
	keywords   = append([]kind{kindRecord, kindEnum, kindArray, kindMap, kindUnion, kindFixed}, primitives...)
)

// avroName is a name with its namespace, "" for none.
type avroName struct{ space, name string }

func nameIn(name, space string) avroName {
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		return avroName{name[:dot], name[dot+1:]}
	}
	return avroName{space, name}
}

func (n avroName) full() string {
	if n.space == "" {
		return n.name
	}
	return n.space + "." + n.name
}

// in is the name as it is written within a namespace: short in its own, unless the short name is a type's.
func (n avroName) in(space string) string {
	if n.space != "" && n.space == space && !slices.Contains(keywords, kind(n.name)) {
		return n.name
	}
	return n.full()
}

// node is one schema in the model of Avro's Java library: what that keeps is here, in its order, and nothing else.
type node struct {
	kind        kind
	name        avroName   // of a record, enum or fixed
	aliases     []avroName // of the same
	doc         string
	hasDoc      bool
	isError     bool // a record that is declared as an error
	fields      []field
	symbols     []string
	enumDefault string // "" for none
	size        int
	items       *node // of an array or map
	branches    []*node
	props       []member
}

type field struct {
	name       string
	schema     *node
	doc        string
	hasDoc     bool
	value      value // the default
	hasDefault bool
	order      string // "" for ascending
	aliases    []string
	props      []member
}

// scope is what is known while a schema is parsed: the types by full name, and the namespace around.
type scope struct {
	types map[string]*node
	space string
}

// parseSchema reads text as Avro's Java parser does. The refs are the texts that it may use by name, each after those it
// uses itself; the names they define are returned with the tree.
func parseSchema(text string, refs ...string) (root *node, known map[string]bool, err error) {
	s := scope{types: map[string]*node{}}
	for _, ref := range refs {
		if _, err := s.parseText(ref); err != nil {
			return nil, nil, fmt.Errorf("parse a reference: %w", err)
		}
	}
	known = map[string]bool{}
	for name := range s.types {
		known[name] = true
	}
	root, err = s.parseText(text)
	return root, known, err
}

func (s *scope) parseText(text string) (*node, error) {
	if t := strings.TrimSpace(text); slices.Contains(primitives, kind(t)) {
		return &node{kind: kind(t)}, nil // long for "long": some clients send it
	}
	v, err := readValue(text)
	if err != nil {
		return nil, fmt.Errorf("read schema text: %w", err)
	}
	s.space = ""
	return s.parse(v)
}

func (s *scope) parse(v value) (*node, error) {
	switch v := v.(type) {
	case string:
		if slices.Contains(primitives, kind(v)) {
			return &node{kind: kind(v)}, nil
		}
		if n := s.lookup(v); n != nil {
			return n, nil
		}
		return nil, fmt.Errorf("%q is not a defined name", clip(v))
	case []value:
		return s.parseUnion(v)
	case *object:
		return s.parseObject(v)
	}
	return nil, fmt.Errorf("%s is no schema", clip(string(appendValue(nil, v))))
}

func (s *scope) lookup(name string) *node {
	n := nameIn(name, s.space)
	if t, ok := s.types[n.full()]; ok {
		return t
	}
	return s.types[n.name]
}

func (s *scope) parseUnion(branches []value) (*node, error) {
	n := &node{kind: kindUnion}
	seen := map[string]bool{}
	for _, b := range branches {
		branch, err := s.parse(b)
		if err != nil {
			return nil, err
		}
		id := string(branch.kind)
		if branch.name.name != "" {
			id = branch.name.full()
		}
		switch {
		case branch.kind == kindUnion:
			return nil, errors.New("a union within a union")
		case seen[id]:
			return nil, fmt.Errorf("%s is twice in a union", id)
		}
		seen[id] = true
		n.branches = append(n.branches, branch)
	}
	return n, nil
}

func (s *scope) parseObject(o *object) (*node, error) {
	text, ok := o.text("type")
	if !ok {
		return nil, fmt.Errorf("a schema's type is missing or no name: %s", clip(string(appendValue(nil, o))))
	}
	var (
		n     = &node{kind: kind(text)}
		err   error
		saved = s.space
	)
	switch {
	case slices.Contains(primitives, n.kind):
	case text == "record" || text == "error" || text == "enum" || text == "fixed":
		err = s.parseNamed(n, o)
	case n.kind == kindArray:
		n.items, err = s.parseMember(o, "items")
	case n.kind == kindMap:
		n.items, err = s.parseMember(o, "values")
	default:
		if known := s.lookup(text); known != nil {
			return known, nil // {"type":"shop.Money"}
		}
		return nil, fmt.Errorf("%q is no type and no defined name", clip(text))
	}
	s.space = saved
	if err != nil {
		return nil, err
	}
	for _, m := range o.members {
		switch m.name {
		case "type", "name", "namespace", "doc", "fields", "symbols", "size", "items", "values", "aliases":
			continue
		case "default":
			if n.kind == kindEnum {
				continue
			}
		}
		n.props = append(n.props, m)
	}
	return n, nil
}

func (s *scope) parseMember(o *object, name string) (*node, error) {
	v, ok := o.get(name)
	if !ok {
		return nil, fmt.Errorf("%s is missing: %s", name, clip(string(appendValue(nil, o))))
	}
	return s.parse(v)
}

// parseNamed reads a record, enum or fixed. The type is known from its name on, so that its fields may use it.
func (s *scope) parseNamed(n *node, o *object) error {
	if n.kind == "error" {
		n.kind, n.isError = kindRecord, true
	}
	name, ok := o.text("name")
	if !ok {
		return fmt.Errorf("a %s has no name", n.kind)
	}
	space, ok := o.text("namespace")
	if !ok {
		space = s.space
	}
	n.name = nameIn(name, space)
	n.doc, n.hasDoc = o.text("doc")
	s.space = n.name.space
	full := n.name.full()
	if n.name.name == "" || s.types[full] != nil || n.name.space == "" && slices.Contains(keywords, kind(full)) {
		return fmt.Errorf("%q is empty, a type's name, or defined twice", clip(full))
	}
	s.types[full] = n
	aliases, err := texts(o, "aliases")
	if err != nil {
		return err
	}
	for _, a := range aliases {
		if alias := nameIn(a, n.name.space); !slices.Contains(n.aliases, alias) {
			n.aliases = append(n.aliases, alias)
		}
	}
	switch n.kind {
	case kindRecord:
		return s.parseFields(n, o)
	case kindEnum:
		n.enumDefault, _ = o.text("default")
		if _, ok := o.get("symbols"); !ok {
			return fmt.Errorf("enum %s has no symbols", full)
		}
		n.symbols, err = texts(o, "symbols")
		if err == nil && n.enumDefault != "" && !slices.Contains(n.symbols, n.enumDefault) {
			return fmt.Errorf("enum %s has the default %q, which is none of its symbols", full, clip(n.enumDefault))
		}
		return err
	default:
		size, _ := o.get("size")
		if n.size, ok = isInt(size); !ok || n.size < 0 {
			return fmt.Errorf("fixed %s has no valid size", full)
		}
		return nil
	}
}

func (s *scope) parseFields(n *node, o *object) error {
	v, _ := o.get("fields")
	list, ok := v.([]value)
	if !ok {
		return fmt.Errorf("record %s has no fields", n.name.full())
	}
	seen := map[string]bool{}
	for _, v := range list {
		fo, ok := v.(*object)
		if !ok {
			return fmt.Errorf("record %s has a field that is no object", n.name.full())
		}
		f, err := s.parseField(fo)
		if err != nil {
			return fmt.Errorf("record %s: %w", n.name.full(), err)
		}
		if seen[f.name] {
			return fmt.Errorf("record %s has the field %s twice", n.name.full(), f.name)
		}
		seen[f.name] = true
		n.fields = append(n.fields, f)
	}
	return nil
}

func (s *scope) parseField(o *object) (field, error) {
	var f field
	var ok bool
	if f.name, ok = o.text("name"); !ok {
		return f, errors.New("a field has no name")
	}
	var err error
	if f.schema, err = s.parseMember(o, "type"); err != nil {
		return f, fmt.Errorf("field %s: %w", clip(f.name), err)
	}
	f.doc, f.hasDoc = o.text("doc")
	f.value, f.hasDefault = o.get("default")
	if text, ok := f.value.(string); ok && (f.schema.kind == kindFloat || f.schema.kind == kindDouble) {
		d, err := strconv.ParseFloat(text, 64)
		if err != nil && !math.IsInf(d, 0) {
			return f, fmt.Errorf("field %s: default %q is no number", f.name, clip(text))
		}
		f.value = double(d)
	}
	if v, ok := o.get("order"); ok {
		text, _ := v.(string)
		switch f.order = strings.ToLower(text); f.order {
		case "ascending":
			f.order = ""
		case "descending", "ignore":
		default:
			return f, fmt.Errorf("field %s: order %q is none of ascending, descending, ignore", f.name, clip(text))
		}
	}
	aliases, err := texts(o, "aliases")
	if err != nil {
		return f, fmt.Errorf("field %s: %w", f.name, err)
	}
	for _, a := range aliases {
		if !slices.Contains(f.aliases, a) {
			f.aliases = append(f.aliases, a)
		}
	}
	for _, m := range o.members {
		switch m.name {
		case "name", "type", "doc", "default", "order", "aliases":
		default:
			f.props = append(f.props, m)
		}
	}
	return f, nil
}

// double is f as a value that prints as Java prints it.
func double(f float64) value {
	text := string(appendDouble(nil, f))
	if quoted, ok := strings.CutPrefix(text, `"`); ok {
		return strings.TrimSuffix(quoted, `"`)
	}
	return json.Number(text)
}

func texts(o *object, name string) ([]string, error) {
	v, ok := o.get(name)
	if !ok {
		return nil, nil
	}
	list, ok := v.([]value)
	if !ok {
		return nil, fmt.Errorf("%s is no list", name)
	}
	all := make([]string, 0, len(list))
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, fmt.Errorf("%s has a member that is no text", name)
		}
		all = append(all, s)
	}
	return all, nil
}

// clip keeps what others sent short in a message.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
