package filter

import (
	"fmt"
	"maps"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// Mapping makes new data of an event: a field of its own from each of several expressions. The event's data is decoded
// once for all of them. It is safe for concurrent use.
type Mapping struct {
	fields []mapped
	data   *schemas.Projection
}

type mapped struct {
	name    string
	program cel.Program
}

// NewMapping compiles one expression of any type for each field. It is [New] in all else.
func NewMapping(exprs map[string]string, reg *schemas.Registry) (*Mapping, error) {
	m := &Mapping{}
	var paths [][]string
	for _, name := range slices.Sorted(maps.Keys(exprs)) {
		c, err := compile(exprs[name], reg)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", name, err)
		}
		root := c.ast.NativeRep().Expr()
		p, err := c.program(root)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", name, err)
		}
		if c.data != nil {
			paths = append(paths, fields(root)...)
		}
		m.fields = append(m.fields, mapped{name, p})
	}
	if paths != nil {
		m.data = reg.Project(paths...)
	}
	return m, nil
}

// Eval returns the value of every field as package schemas writes it: nil, bool, int64, float64, string, []byte,
// time.Time, time.Duration, []any or map[string]any. Errors are those of [Filter.Match], with the field's name.
func (m *Mapping) Eval(e *event.Event) (map[string]any, error) {
	v := take(e, m.data)
	defer v.put()
	out := make(map[string]any, len(m.fields))
	for _, f := range m.fields {
		val, err := v.eval(f.program)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.name, err)
		}
		if out[f.name], err = native(val); err != nil {
			return nil, fmt.Errorf("field %s: %w", f.name, err)
		}
	}
	return out, nil
}

// native is a value of CEL as Go has it.
func native(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.Null:
		return nil, nil //nolint:nilnil // the value null
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return int64(v), nil
	case types.Double:
		return float64(v), nil
	case types.String:
		return string(v), nil
	case types.Bytes:
		return []byte(v), nil
	case types.Timestamp:
		return v.Time, nil
	case types.Duration:
		return v.Duration, nil
	case traits.Mapper:
		out := map[string]any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			k := it.Next()
			x, err := native(v.Get(k))
			if err != nil {
				return nil, err
			}
			out[text(k)] = x
		}
		return out, nil
	case traits.Lister:
		out := []any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			x, err := native(it.Next())
			if err != nil {
				return nil, err
			}
			out = append(out, x)
		}
		return out, nil
	default:
		return nil, fmt.Errorf("a %s is no data", v.Type().TypeName())
	}
}
