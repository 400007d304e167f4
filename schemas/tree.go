package schemas

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/avro"
)

// kind is the Avro type of a node.
type kind uint8

const (
	kNull kind = iota
	kBoolean
	kInt
	kLong
	kFloat
	kDouble
	kBytes
	kString
	kRecord
	kEnum
	kFixed
	kArray
	kMap
	kUnion
)

var kinds = map[string]kind{
	"null": kNull, "boolean": kBoolean, "int": kInt, "long": kLong, "float": kFloat, "double": kDouble,
	"bytes": kBytes, "string": kString, "record": kRecord, "error": kRecord, "enum": kEnum, "fixed": kFixed,
	"array": kArray, "map": kMap, "union": kUnion,
}

func (k kind) String() string {
	for word, x := range kinds {
		if x == k && word != "error" {
			return word
		}
	}
	return "unknown"
}

// logical is the meaning of a node's values, none where it has no logical type that this package knows. An unknown
// or misplaced logicalType is ignored, as the specification says.
type logical uint8

const (
	none logical = iota
	lDate
	lTimeMillis
	lTimeMicros
	lTimestampMillis
	lTimestampMicros
	lTimestampNanos
	lLocalMillis
	lLocalMicros
	lLocalNanos
	lDecimal
	lUUID
	lDuration
)

// logicals says which logical type stands on which type.
var logicals = map[string]struct {
	l  logical
	on []kind
}{
	"date":                   {lDate, []kind{kInt}},
	"time-millis":            {lTimeMillis, []kind{kInt}},
	"time-micros":            {lTimeMicros, []kind{kLong}},
	"timestamp-millis":       {lTimestampMillis, []kind{kLong}},
	"timestamp-micros":       {lTimestampMicros, []kind{kLong}},
	"timestamp-nanos":        {lTimestampNanos, []kind{kLong}},
	"local-timestamp-millis": {lLocalMillis, []kind{kLong}},
	"local-timestamp-micros": {lLocalMicros, []kind{kLong}},
	"local-timestamp-nanos":  {lLocalNanos, []kind{kLong}},
	"decimal":                {lDecimal, []kind{kBytes, kFixed}},
	"uuid":                   {lUUID, []kind{kString, kFixed}},
	"duration":               {lDuration, []kind{kFixed}},
}

// temporal reports whether two different l would read one number as two times.
func (l logical) temporal() bool { return l >= lDate && l <= lLocalNanos }

// node is one type of a schema. A named type is one node however often it is used, so a recursive schema is a cycle.
type node struct {
	kind    kind
	logical logical
	name    string // the specification's name of a union branch: the full name, or the word for the type
	tag     string // the name that the raw engine knows the type by

	precision, scale int // decimal
	size             int // fixed
	symbols          []string
	fields           []field
	byName           map[string]int // of fields
	items            *node          // of an array or a map
	branches         []*node
}

type field struct {
	name       string
	node       *node
	def        any // Avro-native, see avro.SchemaField
	hasDefault bool
}

// tree is a schema's types, and the same types as a text that no engine can misread: full names are replaced by
// n0, n1, …, defaults and logical types are gone. The names do away with every doubt about namespaces.
type tree struct {
	root      *node
	text      string
	recursive bool
	odd       bool // has what goavro cannot express
}

func newTree(s *avro.Schema) (*tree, error) {
	b := treeBuilder{named: map[string]*node{}, open: map[*node]bool{}}
	root := s.Root()
	n, err := b.build(root, "")
	if err != nil {
		return nil, err
	}
	b.tree.root, b.tree.text = n, b.text.String()
	return &b.tree, nil
}

type treeBuilder struct {
	tree  tree
	text  strings.Builder
	named map[string]*node
	open  map[*node]bool // whose definition is not finished: a use of one is a recursion
}

// build returns the node for s and writes its text. Namespace is that of the enclosing named type.
func (b *treeBuilder) build(s *avro.SchemaNode, namespace string) (*node, error) {
	k, ok := kinds[s.Type]
	if !ok {
		return b.use(s.Type, namespace)
	}
	n := &node{kind: k, name: s.Type, tag: s.Type, size: s.Size, symbols: s.Symbols}
	n.mean(s.LogicalType, s.Precision, s.Scale)
	switch k {
	case kRecord, kEnum, kFixed:
		return n, b.define(n, s)
	case kArray, kMap:
		items, word := s.Items, "items"
		if k == kMap {
			items, word = s.Values, "values"
		}
		if items == nil {
			return nil, fmt.Errorf("%s without %s", s.Type, word)
		}
		fmt.Fprintf(&b.text, `{"type":"%s","%s":`, s.Type, word)
		var err error
		if n.items, err = b.build(items, namespace); err != nil {
			return nil, err
		}
		b.text.WriteByte('}')
	case kUnion:
		b.tree.odd = b.tree.odd || len(s.Branches) == 0
		b.text.WriteByte('[')
		for i := range s.Branches {
			if i > 0 {
				b.text.WriteByte(',')
			}
			branch, err := b.build(&s.Branches[i], namespace)
			if err != nil {
				return nil, err
			}
			n.branches = append(n.branches, branch)
		}
		b.text.WriteByte(']')
	default:
		b.text.WriteString(strconv.Quote(s.Type))
	}
	return n, nil
}

// use finds the named type that ref means.
func (b *treeBuilder) use(ref, namespace string) (*node, error) {
	n := b.named[ref]
	if namespace != "" && !strings.Contains(ref, ".") {
		if near := b.named[namespace+"."+ref]; near != nil {
			n = near
		}
	}
	if n == nil {
		return nil, fmt.Errorf("type %q is not defined", ref)
	}
	b.tree.recursive = b.tree.recursive || b.open[n]
	b.text.WriteString(strconv.Quote(n.tag))
	return n, nil
}

// define fills in the named type n and writes its definition.
func (b *treeBuilder) define(n *node, s *avro.SchemaNode) error {
	n.name = fullName(s)
	n.tag = "n" + strconv.Itoa(len(b.named))
	b.named[n.name] = n
	switch n.kind {
	case kFixed:
		fmt.Fprintf(&b.text, `{"type":"fixed","name":"%s","size":%d}`, n.tag, n.size)
		return nil
	case kEnum:
		symbols, err := json.Marshal(s.Symbols)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b.text, `{"type":"enum","name":"%s","symbols":%s}`, n.tag, symbols)
		return nil
	default:
	}
	b.open[n] = true
	defer delete(b.open, n)
	namespace := ""
	if i := strings.LastIndexByte(n.name, '.'); i >= 0 {
		namespace = n.name[:i]
	}
	n.byName = make(map[string]int, len(s.Fields))
	fmt.Fprintf(&b.text, `{"type":"record","name":"%s","fields":[`, n.tag)
	for i := range s.Fields {
		f := &s.Fields[i]
		if i > 0 {
			b.text.WriteByte(',')
		}
		fmt.Fprintf(&b.text, `{"name":%s,"type":`, strconv.Quote(f.Name))
		child, err := b.build(&f.Type, namespace)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", n.name, f.Name, err)
		}
		b.text.WriteByte('}')
		n.byName[f.Name] = i
		n.fields = append(n.fields, field{f.Name, lifted(child, f), f.Default, f.HasDefault})
	}
	b.text.WriteString("]}")
	return nil
}

func fullName(s *avro.SchemaNode) string {
	if s.Namespace == "" || strings.Contains(s.Name, ".") {
		return s.Name
	}
	return s.Namespace + "." + s.Name
}

// maxScale bounds the power of ten that a decimal may ask for; beyond it the values stay bytes.
const maxScale = 10_000

// mean gives the node its logical type, where it may stand.
func (n *node) mean(name string, precision, scale int) {
	known, ok := logicals[name]
	if !ok {
		return
	}
	for _, on := range known.on {
		if on != n.kind || n.kind == kFixed && known.l == lUUID && n.size != 16 || known.l == lDuration && n.size != 12 {
			continue
		}
		if known.l == lDecimal && (scale < 0 || scale > maxScale || precision < 1) {
			continue
		}
		n.logical, n.precision, n.scale = known.l, precision, scale
	}
}

// lifted is n with the logical type that a field states beside its type instead of within it: the flat form
// {"name":"at","type":"long","logicalType":"timestamp-millis"}, which is common in the wild.
func lifted(n *node, f *avro.SchemaField) *node {
	name, ok := f.Props["logicalType"].(string)
	if !ok || n.logical != none || n.kind > kString {
		return n
	}
	flat := *n
	flat.mean(name, propInt(f.Props["precision"]), propInt(f.Props["scale"]))
	return &flat
}

func propInt(v any) int {
	switch v := v.(type) {
	case json.Number:
		n, _ := strconv.Atoi(v.String())
		return n
	case float64:
		return int(v)
	case int64:
		return int(v)
	case int32:
		return int(v)
	case int:
		return v
	}
	return 0
}
