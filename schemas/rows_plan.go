package schemas

import (
	"errors"
	"fmt"
)

// step says what becomes of one node of the writer's schema. A node that no column needs has none: it is skipped.
type step struct {
	node    *node
	targets []target // the columns that take the value
	parts   []*step  // of the fields of a record, nil where skipped; of the branches of a union, all of them
	fills   []fill   // the columns that the writer knows nothing of, once the value was met
	err     error    // the value does not fit
}

// target is a column and how it takes a value of one type.
type target struct {
	column int
	as     conversion
	factor int64 // of asNumber
	node   *node
}

// fill sets a column to a constant.
type fill struct {
	column int
	c      constant
}

// conversion is how a value on the wire becomes one of a column.
type conversion uint8

const (
	asBool conversion = iota
	asNumber
	asClock   // a time of day: within a day
	asNanos   // rounded down to microseconds
	asFloat   // of a number
	asSame    // bytes as they are
	asText    // bytes that must be UTF-8
	asDecimal // bytes, trimmed and held against the precision
	asUUID    // of 36 characters
	asUUIDText
	asDuration
	asSymbol
	asJSON
)

// want is a column that is looked for in a node: the fields of its path from depth on lie within.
type want struct {
	column *Column
	index  int
	depth  int
}

// planOf plans how a record, or whatever else root is, becomes a row.
func planOf(root *node, columns []Column) *step {
	var wants []want
	for i := range columns {
		if columns[i].attribute() == "" {
			wants = append(wants, want{&columns[i], i, 0})
		}
	}
	return stepOf(root, wants)
}

func stepOf(n *node, wants []want) *step {
	s := &step{node: n}
	switch n.kind {
	case kUnion:
		for _, b := range n.branches {
			s.parts = append(s.parts, stepOf(b, wants))
		}
		return s
	case kNull:
		for _, w := range wants {
			if !w.column.Nullable {
				s.err = fmt.Errorf("%w: null for the column %s, which takes none", ErrIncompatible, w.column.Name)
			}
			s.fills = append(s.fills, fill{w.index, constant{}})
		}
		return s
	default:
	}
	var deeper []want
	for _, w := range wants {
		if w.depth < len(w.column.Path) {
			deeper = append(deeper, w)
			continue
		}
		t, err := targetOf(w.index, w.column, n)
		if err != nil {
			s.err = fmt.Errorf("%w: column %s: %w", ErrIncompatible, w.column.Name, err)
		}
		s.targets = append(s.targets, t)
	}
	if len(deeper) > 0 {
		s.descend(deeper)
	}
	return s
}

// descend plans the fields of a record.
func (s *step) descend(wants []want) {
	if s.node.kind != kRecord {
		s.err = fmt.Errorf("%w: column %s is within a record, and the writer has a %s", ErrIncompatible, wants[0].column.Name, s.node.name)
		return
	}
	s.parts = make([]*step, len(s.node.fields))
	for i := range s.node.fields {
		f := &s.node.fields[i]
		var within []want
		for _, w := range wants {
			if w.column.Path[w.depth] == f.name {
				w.depth++
				within = append(within, w)
			}
		}
		if within != nil {
			s.parts[i] = stepOf(f.node, within)
		}
	}
	for _, w := range wants {
		if _, ok := s.node.byName[w.column.Path[w.depth]]; ok {
			continue
		}
		c, err := w.column.without(w.depth)
		if err != nil {
			s.err = err
			return
		}
		s.fills = append(s.fills, fill{w.index, c})
	}
}

// without is the value where the writer lacks the field at depth of the path.
func (c *Column) without(depth int) (constant, error) {
	if depth < len(c.missing) && c.missing[depth].ok {
		return c.missing[depth], nil
	}
	if len(c.missing) == 0 && c.Nullable {
		return constant{ok: true}, nil
	}
	return constant{}, fmt.Errorf("%w: the writer has no field %s, and the column %s has no default and takes no null", ErrIncompatible, c.Path[depth], c.Name)
}

var errUnfit = errors.New("its kind takes no such value")

// targetOf is how column c takes values of n.
func targetOf(index int, c *Column, n *node) (target, error) {
	t := target{column: index, factor: 1, node: n}
	var ok bool
	switch c.Kind {
	case KindBool:
		t.as, ok = asBool, n.kind == kBoolean
	case KindInt:
		t.as, ok = asNumber, n.integral()
	case KindDate:
		t.as, ok = asNumber, n.kind == kInt && (n.logical == lDate || n.logical == none)
	case KindTime, KindTimestamp:
		ok = t.temporal(c, n)
	case KindFloat:
		t.as, ok = asFloat, n.integral() || n.kind == kFloat || n.kind == kDouble
	case KindString:
		ok = t.text(n)
	case KindBytes:
		t.as, ok = asSame, n.kind == kString || n.logical == none && (n.kind == kBytes || n.kind == kFixed)
	case KindDecimal:
		t.as, ok = asDecimal, n.logical == lDecimal && n.scale == c.Scale
	case KindUUID:
		t.as, ok = asUUID, n.kind == kString
		if n.kind == kFixed && n.logical == lUUID {
			t.as, ok = asSame, true
		}
	default:
		t.as, ok = asJSON, true
	}
	if ok {
		return t, nil
	}
	if n.logical == lDecimal && c.Kind == KindDecimal {
		return t, fmt.Errorf("a decimal of scale %d does not fit one of scale %d", n.scale, c.Scale)
	}
	return t, fmt.Errorf("%w: the writer has a %s, the column a %s", errUnfit, n.word(), c.Kind)
}

func (n *node) integral() bool { return n.kind == kInt || n.kind == kLong }

// temporal is how a time is taken: in the writer's unit, and a bare number in that of the column's own schema.
func (t *target) temporal(c *Column, n *node) bool {
	l := n.logical
	if l == none && c.node != nil && n.integral() {
		l = c.node.logical
	}
	switch l {
	case lTimeMillis:
		t.as, t.factor = asClock, 1000
	case lTimeMicros:
		t.as = asClock
	case lTimestampMillis, lLocalMillis:
		t.as, t.factor = asNumber, 1000
	case lTimestampMicros, lLocalMicros:
		t.as = asNumber
	case lTimestampNanos, lLocalNanos:
		t.as = asNanos
	default:
		return false
	}
	return (t.as == asClock) == (c.Kind == KindTime)
}

func (t *target) text(n *node) bool {
	t.as = asText
	switch {
	case n.logical == lUUID && n.kind == kFixed:
		t.as = asUUIDText
	case n.logical == lDuration:
		t.as = asDuration
	case n.kind == kEnum:
		t.as = asSymbol
	case n.kind == kString, n.kind == kBytes && n.logical == none:
	default:
		return false
	}
	return true
}
