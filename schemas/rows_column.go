package schemas

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ColumnKind is the type of a column's values.
type ColumnKind int

// The kinds, what they are made of, and how [Rows] holds them.
const (
	// KindBool is a boolean: 0 and 1 in Rows.Ints.
	KindBool ColumnKind = iota
	// KindInt is an int or a long, in Rows.Ints.
	KindInt
	// KindFloat is a float or a double, in Rows.Floats.
	KindFloat
	// KindString is a string, an enum's symbol, or a duration as ISO 8601 writes it (P1M2DT3.004S): UTF-8.
	KindString
	// KindBytes is a bytes or a fixed.
	KindBytes
	// KindDecimal is a decimal of at most Column.Precision digits: its unscaled two's complement, big-endian and
	// without bytes that say nothing, in Rows.Bytes; its digits in Rows.Texts.
	KindDecimal
	// KindDate is days since 1970-01-01, in Rows.Ints.
	KindDate
	// KindTime is the time of day in microseconds, in Rows.Ints.
	KindTime
	// KindTimestamp is microseconds since 1970-01-01 UTC, in Rows.Ints; milliseconds and nanoseconds are converted,
	// the latter rounded down. A local timestamp is the wall clock as if it stood in UTC: see Column.Local.
	KindTimestamp
	// KindUUID is 16 bytes; its text in Rows.Texts.
	KindUUID
	// KindJSON is what has no column type of its own, as [Schema.AppendJSON] writes it: arrays, maps, unions of
	// several branches, records within themselves.
	KindJSON
)

// String is the kind in one word: "timestamp".
func (k ColumnKind) String() string {
	words := [...]string{"bool", "int", "float", "string", "bytes", "decimal", "date", "time", "timestamp", "uuid", "json"}
	if k < 0 || int(k) >= len(words) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return words[k]
}

// Column says what one column of [Rows] holds.
type Column struct {
	// Name is what a table or a file calls it.
	Name string
	// Path leads to the field from the outside in: {"customer", "country"}. One that starts with "$" is an attribute, see
	// [Attribute].
	Path []string
	// Kind is the type of its values.
	Kind ColumnKind
	// Nullable says that there may be nulls.
	Nullable bool
	// Precision and Scale are those of a decimal; 0 for other kinds.
	Precision, Scale int
	// Local marks a timestamp without a zone.
	Local bool
	// Key says that a tombstone, which has no fields, has this one: the record's key, read as text.
	Key bool

	node    *node      // of the schema that the column comes from; nil for another column
	missing []constant // by depth: the value where Path[depth] is the first that the writer does not know
}

// constant is a value that stands for a missing one.
type constant struct {
	ok bool
	v  any // in the shapes of an engine; nil is null
}

// Columns are the fields of a record as flat columns, in their order: a record within it gives a column for each of
// its own fields, named customer_country. What becomes of each type is told by [ColumnKind].
//
// An error wraps ErrIncompatible: s is no record, or two columns would have one name, in upper or lower case.
func (s Schema) Columns() ([]Column, error) {
	root, err := s.record()
	if err != nil {
		return nil, err
	}
	b := columnBuilder{open: map[*node]bool{}, taken: map[string]string{}}
	if err := b.fields(root, place{}); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIncompatible, s.Name, err)
	}
	return b.columns, nil
}

// Column is the column of one field, named by its path with _ between. A record is a column too: one of KindJSON.
// An error wraps ErrIncompatible: there is no such field.
func (s Schema) Column(path ...string) (Column, error) {
	root, err := s.record()
	if err != nil {
		return Column{}, err
	}
	n, at := root, place{}
	for _, name := range path {
		n, at.nullable = n.inner(at.nullable)
		i, ok := n.byName[name]
		if n.kind != kRecord || !ok {
			return Column{}, fmt.Errorf("%w: %s has no field %s", ErrIncompatible, s.Name, strings.Join(path, "."))
		}
		at = at.within(&n.fields[i])
		n = n.fields[i].node
	}
	if len(path) == 0 {
		return Column{}, fmt.Errorf("%w: a column of %s needs the path to a field", ErrIncompatible, s.Name)
	}
	return columnAt(n, at), nil
}

// record is the root of s.
func (s Schema) record() (*node, error) {
	g, err := s.generic()
	if err != nil {
		return nil, err
	}
	if g.tree.root.kind != kRecord {
		return nil, fmt.Errorf("%w: rows are made of records, and %s is none", ErrIncompatible, s.Name)
	}
	return g.tree.root, nil
}

// inner is what a nullable union is beside null, and n where it is none.
func (n *node) inner(nullable bool) (*node, bool) {
	if n.kind != kUnion {
		return n, nullable || n.kind == kNull
	}
	switch null := n.nullable(); {
	case len(n.branches) == 1:
		return n.branches[0].inner(nullable)
	case null == nil || len(n.branches) > 2:
		return n, nullable || null != nil
	case n.branches[0] == null:
		return n.branches[1], true
	default:
		return n.branches[0], true
	}
}

type columnBuilder struct {
	columns []Column
	open    map[*node]bool
	taken   map[string]string // paths by lower-case names
}

// place is a field on the way from the root: its path, and what it is where the writer lacks a field of that path.
type place struct {
	path     []string
	nullable bool
	missing  []given
}

// given is a default: by the schema, or within the default of a record.
type given struct {
	v  any
	ok bool
}

// within is the place of f, a field of the record at p.
func (p place) within(f *field) place {
	next := place{path: append(slices.Clip(p.path), f.name), nullable: p.nullable}
	for _, g := range p.missing {
		m, isMap := g.v.(map[string]any)
		switch v, ok := m[f.name]; {
		case g.ok && g.v == nil, !g.ok: // the record itself is null, or has no default
		case isMap && ok:
			g.v = v
		default:
			g = given{f.def, f.hasDefault}
		}
		next.missing = append(next.missing, g)
	}
	next.missing = append(next.missing, given{f.def, f.hasDefault})
	return next
}

func (b *columnBuilder) fields(n *node, at place) error {
	b.open[n] = true
	defer delete(b.open, n)
	for i := range n.fields {
		f := &n.fields[i]
		where := at.within(f)
		inner, nullable := f.node.inner(where.nullable)
		if inner.kind == kRecord && !b.open[inner] && len(where.path) < maxColumnDepth {
			where.nullable = nullable
			if err := b.fields(inner, where); err != nil {
				return err
			}
			continue
		}
		if len(b.columns) == maxColumns {
			return fmt.Errorf("the record has more than %d fields: name those that you need", maxColumns)
		}
		c := columnAt(f.node, where)
		path := strings.Join(c.Path, ".")
		if other, ok := b.taken[strings.ToLower(c.Name)]; ok {
			return fmt.Errorf("the fields %s and %s would both be the column %s: name the columns, each with the path it is from", other, path, c.Name)
		}
		b.taken[strings.ToLower(c.Name)] = path
		b.columns = append(b.columns, c)
	}
	return nil
}

// A schema is anyone's: one of a kilobyte may stand for 2^40 fields.
const (
	maxColumns     = 2000
	maxColumnDepth = 32
)

func columnAt(n *node, at place) Column {
	c := Column{Name: strings.Join(at.path, "_"), Path: at.path}
	n, c.Nullable = n.inner(at.nullable)
	c.node = n
	c.Kind = n.columnKind()
	if c.Kind == KindDecimal {
		c.Precision, c.Scale = n.precision, n.scale
	}
	switch n.logical {
	case lLocalMillis, lLocalMicros, lLocalNanos:
		c.Local = true
	default:
	}
	for _, g := range at.missing {
		c.missing = append(c.missing, constantOf(n, c.Nullable, g))
	}
	return c
}

// constant is a default as a value of n. One that does not fit its own type is none.
func constantOf(n *node, nullable bool, g given) constant {
	if !g.ok || g.v == nil {
		return constant{ok: nullable}
	}
	budget := maxValues
	v, err := walk{budget: &budget}.native(n, g.v)
	if err != nil {
		return constant{ok: nullable}
	}
	return constant{ok: true, v: v}
}

func (n *node) columnKind() ColumnKind {
	switch n.logical {
	case lDate:
		return KindDate
	case lTimeMillis, lTimeMicros:
		return KindTime
	case lDecimal:
		return KindDecimal
	case lUUID:
		return KindUUID
	case lDuration:
		return KindString
	case none:
	default:
		return KindTimestamp
	}
	switch n.kind {
	case kBoolean:
		return KindBool
	case kInt, kLong:
		return KindInt
	case kFloat, kDouble:
		return KindFloat
	case kString, kEnum:
		return KindString
	case kBytes, kFixed:
		return KindBytes
	default:
		return KindJSON
	}
}

// Attribute is the column of an attribute: "$key" (the record's key as text; null where it is null), "$id", "$type",
// "$source", "$tenant", "$topic", "$partition", "$offset", "$time" (when it happened), "$published" (the record's
// timestamp), and "$header.NAME": the last header of that name as text, else null. Its name is that of the attribute
// without "$", with _ for what is no letter or digit. Set Kind to KindBytes for a key or a header that is no text.
func Attribute(path string) (Column, error) {
	c := Column{Path: []string{path}, Kind: KindString, Nullable: true}
	c.Name = strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, strings.TrimPrefix(path, "$"))
	switch path {
	case "$id", "$type", "$source", "$topic":
		c.Nullable = false
	case "$partition", "$offset":
		c.Kind, c.Nullable = KindInt, false
	case "$published":
		c.Kind, c.Nullable = KindTimestamp, false
	case "$time":
		c.Kind = KindTimestamp
	case "$key", "$tenant":
	default:
		if name, ok := strings.CutPrefix(path, "$header."); !ok || name == "" {
			return Column{}, fmt.Errorf("there is no attribute %q: $key, $id, $type, $source, $tenant, $topic, $partition, $offset, $time, $published, $header.NAME", path)
		}
	}
	return c, nil
}

// attribute is the name of the attribute that the column takes, "" for a field.
func (c *Column) attribute() string {
	if len(c.Path) == 1 && strings.HasPrefix(c.Path[0], "$") {
		return c.Path[0]
	}
	return ""
}

var errColumn = errors.New("a column needs a name and a path")

func (c *Column) validate() error {
	if c.Name == "" || len(c.Path) == 0 {
		return errColumn
	}
	if c.Kind < KindBool || c.Kind > KindJSON {
		return fmt.Errorf("column %s: there is no %s", c.Name, c.Kind)
	}
	if c.Kind == KindDecimal && (c.Precision < 1 || c.Scale < 0 || c.Scale > maxScale) {
		return fmt.Errorf("column %s: decimal(%d,%d) is none", c.Name, c.Precision, c.Scale)
	}
	path := c.attribute()
	if path == "" {
		return nil
	}
	a, err := Attribute(path)
	if err != nil {
		return fmt.Errorf("column %s: %w", c.Name, err)
	}
	isText := path == "$key" || strings.HasPrefix(path, "$header.")
	if c.Kind != a.Kind && (!isText || c.Kind != KindBytes) || !c.Nullable && a.Nullable && path != "$key" {
		return fmt.Errorf("column %s: %s is a %s, and null where it is not set", c.Name, path, a.Kind)
	}
	return nil
}

// like is the type that a column's values have where its schema says nothing finer: for data without a schema, and
// for columns that were declared by hand.
func (c *Column) like() *node {
	if c.node != nil {
		return c.node
	}
	n := &node{kind: kLong, name: c.Kind.String()}
	switch c.Kind {
	case KindBool:
		n.kind = kBoolean
	case KindFloat:
		n.kind = kDouble
	case KindString, KindJSON:
		n.kind = kString
	case KindBytes:
		n.kind = kBytes
	case KindDecimal:
		n.kind, n.logical, n.precision, n.scale = kBytes, lDecimal, c.Precision, c.Scale
	case KindDate:
		n.kind, n.logical = kInt, lDate
	case KindTime:
		n.logical = lTimeMicros
	case KindTimestamp:
		n.logical = lTimestampMicros
		if c.Local {
			n.logical = lLocalMicros
		}
	case KindUUID:
		n.kind, n.logical, n.size = kFixed, lUUID, 16
	default:
	}
	return n
}
