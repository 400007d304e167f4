package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// maxValues bounds the values of one event, those of filled-in defaults included: a default may name a record whose
// fields have defaults, and so on, twice as many at every step.
const maxValues = 1 << 22

// maxNesting bounds the depth of one event's value, so that a value that holds itself is an error and no stack overflow.
const maxNesting = 1000

// walk turns what users write into the raw shapes of an engine: every field is there, every union is tagged, every
// logical type is a number or bytes, every number fits.
type walk struct {
	strict bool
	budget *int
	depth  int
}

func (w walk) with(strict bool) walk {
	w.strict = strict
	return w
}

func (w walk) native(n *node, v any) (any, error) {
	if *w.budget--; *w.budget < 0 {
		return nil, fmt.Errorf("the event has more than %d values", maxValues)
	}
	if w.depth++; w.depth > maxNesting {
		return nil, fmt.Errorf("the value nests deeper than %d levels", maxNesting)
	}
	switch n.kind {
	case kNull:
		if v != nil {
			return nil, n.unfit(v)
		}
		return nil, nil //nolint:nilnil // the value null
	case kBoolean:
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, n.unfit(v)
	case kInt:
		i, err := n.integer(v, math.MinInt32, math.MaxInt32)
		return int32(i), err
	case kLong:
		return n.integer(v, math.MinInt64, math.MaxInt64)
	case kFloat, kDouble:
		return n.float(v)
	case kBytes:
		return n.bytes(v)
	case kFixed:
		b, err := n.bytes(v)
		if err == nil && len(b) != n.size {
			err = fmt.Errorf("%d bytes do not fit %s, which has %d", len(b), n.name, n.size)
		}
		return b, err
	case kString:
		return n.text(v)
	case kEnum:
		s, ok := v.(string)
		if !ok {
			return nil, n.unfit(v)
		}
		if !n.hasSymbol(s) {
			return nil, fmt.Errorf("%q is no symbol of %s, which has %q", s, n.name, n.symbols)
		}
		return s, nil
	case kArray:
		return w.array(n, v)
	case kMap:
		return w.mapping(n, v)
	case kRecord:
		return w.record(n, v)
	default:
		return w.union(n, v)
	}
}

// word is what people call the node's type: its logical type, else its name.
func (n *node) word() string {
	for word, known := range logicals {
		if n.logical != none && known.l == n.logical {
			return word
		}
	}
	return n.name
}

func (n *node) unfit(v any) error {
	name := n.word()
	switch v := v.(type) {
	case nil:
		return fmt.Errorf("null does not fit %s", name)
	case string:
		return fmt.Errorf("the text %.40q does not fit %s", v, name)
	case json.Number:
		return fmt.Errorf("%.40s does not fit %s", v, name)
	default:
		return fmt.Errorf("a %T does not fit %s", v, name)
	}
}

func (n *node) hasSymbol(s string) bool {
	return slices.Contains(n.symbols, s)
}

// record fills in what is missing: the default, or null where a union has it.
func (w walk) record(n *node, v any) (any, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, n.unfit(v)
	}
	out := make(map[string]any, len(n.fields))
	found := 0
	for i := range n.fields {
		f := &n.fields[i]
		x, ok := m[f.name]
		switch {
		case ok:
			found++
		case f.hasDefault:
			x = f.def
		case f.node.nullable() == nil:
			return nil, fmt.Errorf("field %s is missing and has no default", f.name)
		}
		y, err := w.native(f.node, x)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		out[f.name] = y
	}
	if w.strict && found < len(m) {
		for k := range m {
			if _, ok := n.byName[k]; !ok {
				return nil, fmt.Errorf("%s has no field %q", n.name, k)
			}
		}
	}
	return out, nil
}

// nullable is the null branch of a union, nil where there is none.
func (n *node) nullable() *node {
	for _, b := range n.branches {
		if b.kind == kNull {
			return b
		}
	}
	return nil
}

func (w walk) array(n *node, v any) (any, error) {
	s, ok := v.([]any)
	if !ok {
		rv := reflect.ValueOf(v)
		if v == nil || rv.Kind() != reflect.Slice && rv.Kind() != reflect.Array || rv.Type().Elem().Kind() == reflect.Uint8 {
			return nil, n.unfit(v)
		}
		s = make([]any, rv.Len())
		for i := range s {
			s[i] = rv.Index(i).Interface()
		}
	}
	out := make([]any, len(s))
	for i, x := range s {
		y, err := w.native(n.items, x)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		out[i] = y
	}
	return out, nil
}

func (w walk) mapping(n *node, v any) (any, error) {
	m, ok := v.(map[string]any)
	if !ok {
		rv := reflect.ValueOf(v)
		if v == nil || rv.Kind() != reflect.Map || rv.Type().Key().Kind() != reflect.String {
			return nil, n.unfit(v)
		}
		m = make(map[string]any, rv.Len())
		for it := rv.MapRange(); it.Next(); {
			m[it.Key().String()] = it.Value().Interface()
		}
	}
	out := make(map[string]any, len(m))
	for k, x := range m {
		y, err := w.native(n.items, x)
		if err != nil {
			return nil, fmt.Errorf("[%q]: %w", k, err)
		}
		out[k] = y
	}
	return out, nil
}

// union takes {"long": 7}, where the key names a branch, and 7. A bare value goes to the branch that its Go type
// names, else to the first one that it fits.
func (w walk) union(n *node, v any) (any, error) {
	if v == nil {
		if n.nullable() == nil {
			return nil, n.unfit(nil)
		}
		return nil, nil //nolint:nilnil // the value null
	}
	var why error
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		for key, inner := range m {
			b := n.branchNamed(key)
			if b == nil {
				break
			}
			x, err := w.native(b, inner)
			if err == nil {
				return tag(b, x), nil
			}
			why = err
		}
	}
	if b := n.natural(v); b != nil {
		x, err := w.native(b, v)
		if err == nil {
			return tag(b, x), nil
		}
		why = errors.Join(why, err)
	}
	b, x, err := w.first(n, v)
	if err == nil {
		return tag(b, x), nil
	}
	if why == nil {
		why = err
	}
	if len(n.branches) == 2 && n.nullable() != nil && why != nil {
		return nil, why
	}
	return nil, fmt.Errorf("no branch of the union takes the value: %w", errors.Join(n.unfit(v), why))
}

// first is the first branch that v fits. Of several records the first whose fields are all known comes before one
// that would ignore some of v.
func (w walk) first(n *node, v any) (*node, any, error) {
	records := 0
	for _, b := range n.branches {
		if b.kind == kRecord {
			records++
		}
	}
	passes := []bool{w.strict}
	if records > 1 && !w.strict {
		passes = []bool{true, false}
	}
	why := n.unfit(v)
	for i, strict := range passes {
		for j, b := range n.branches {
			if b.kind == kNull {
				continue
			}
			x, err := w.with(strict).native(b, v)
			if err == nil {
				return b, x, nil
			}
			if i == 0 && (j == 0 || len(n.branches) == 2) {
				why = err
			}
		}
	}
	return nil, nil, why
}

func tag(b *node, v any) any {
	if b.kind == kNull {
		return nil
	}
	return map[string]any{b.tag: v}
}

// branchNamed finds the branch that a tag names: the full name as the specification has it, or goavro's
// "long.timestamp-millis".
func (n *node) branchNamed(key string) *node {
	for _, b := range n.branches {
		if b.name == key {
			return b
		}
	}
	for _, b := range n.branches {
		if b.logical != none && len(key) > len(b.name) && key[:len(b.name)] == b.name && key[len(b.name)] == '.' &&
			logicals[key[len(b.name)+1:]].l == b.logical {
			return b
		}
	}
	return nil
}

// natural is the branch that a bare value's Go type names, nil where it names none.
func (n *node) natural(v any) *node {
	var fits func(b *node) bool
	switch v := v.(type) {
	case bool:
		fits = func(b *node) bool { return b.kind == kBoolean }
	case int32, int16, int8:
		fits = func(b *node) bool { return b.kind == kInt }
	case int64, int:
		fits = func(b *node) bool { return b.kind == kLong }
	case float32:
		fits = func(b *node) bool { return b.kind == kFloat }
	case float64:
		fits = func(b *node) bool { return b.kind == kDouble }
	case string:
		fits = func(b *node) bool { return b.kind == kString || b.kind == kEnum && b.hasSymbol(v) }
	case []byte:
		fits = func(b *node) bool { return b.kind == kBytes || b.kind == kFixed && b.size == len(v) }
	case time.Time:
		fits = func(b *node) bool {
			return b.logical == lDate || b.logical >= lTimestampMillis && b.logical <= lLocalNanos
		}
	case time.Duration:
		fits = func(b *node) bool { return b.logical == lTimeMillis || b.logical == lTimeMicros }
	case *big.Rat:
		fits = func(b *node) bool { return b.logical == lDecimal }
	default:
		return nil
	}
	for _, b := range n.branches {
		if fits(b) {
			return b
		}
	}
	return nil
}

func (n *node) text(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case [16]byte:
		if n.logical == lUUID {
			return formatUUID(v), nil
		}
	default:
		if rv := reflect.ValueOf(v); v != nil && rv.Kind() == reflect.String {
			if _, number := v.(json.Number); !number {
				return rv.String(), nil
			}
		}
	}
	return nil, n.unfit(v)
}

// float takes every number and the three words of values that JSON has no number for.
func (n *node) float(v any) (any, error) {
	var f float64
	switch v := v.(type) {
	case float64:
		f = v
	case float32:
		f = float64(v)
	case json.Number:
		x, err := strconv.ParseFloat(v.String(), 64)
		if err != nil {
			return nil, n.unfit(v)
		}
		f = x
	case string:
		switch v {
		case "NaN":
			f = math.NaN()
		case "Infinity":
			f = math.Inf(1)
		case "-Infinity":
			f = math.Inf(-1)
		default:
			return nil, n.unfit(v)
		}
	default:
		i, ok := anyInt(v)
		if !ok {
			return nil, n.unfit(v)
		}
		f = float64(i)
		if int64(f) != i && n.kind == kDouble {
			return nil, fmt.Errorf("%d does not fit double exactly", i)
		}
	}
	if n.kind == kDouble {
		return f, nil
	}
	if math.Abs(f) > math.MaxFloat32 && !math.IsInf(f, 0) {
		return nil, fmt.Errorf("%g is out of range for float", f)
	}
	return float32(f), nil
}

// anyInt is the value of any of Go's integer types.
func anyInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case int32:
		return int64(v), true
	}
	rv := reflect.ValueOf(v)
	switch {
	case v == nil || rv.Type() == reflect.TypeFor[time.Duration]():
		return 0, false
	case rv.CanInt():
		return rv.Int(), true
	case rv.CanUint() && rv.Uint() <= math.MaxInt64:
		return int64(rv.Uint()), true
	}
	return 0, false
}
