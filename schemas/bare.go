package schemas

import (
	"bytes"
	"fmt"
	"math/big"
	"time"

	"github.com/twmb/avro"
)

// Duration is Avro's duration: months, days and milliseconds, which no single number can stand for.
type Duration = avro.Duration

// maxDecimal is the longest unscaled decimal that is read: 32 KiB, some 79,000 digits.
const maxDecimal = 32 << 10 // bytes

// bare turns an engine's raw value into the one that users see: unions without their tags, logical types as Go
// values, nothing that points into the source. It changes maps and slices in place.
func (n *node) bare(v any) (any, error) {
	switch n.kind {
	case kUnion:
		if v == nil {
			return nil, nil //nolint:nilnil // the value null
		}
		branch, v, err := n.tagged(v)
		if err != nil {
			return nil, err
		}
		return branch.bare(v)
	case kRecord:
		m, ok := v.(map[string]any)
		if !ok {
			return nil, n.strange(v)
		}
		for i := range n.fields {
			f := &n.fields[i]
			x, err := f.node.bare(m[f.name])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
			m[f.name] = x
		}
	case kArray:
		s, ok := v.([]any)
		if !ok {
			return nil, n.strange(v)
		}
		for i := range s {
			x, err := n.items.bare(s[i])
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			s[i] = x
		}
	case kMap:
		m, ok := v.(map[string]any)
		if !ok {
			return nil, n.strange(v)
		}
		for k := range m {
			x, err := n.items.bare(m[k])
			if err != nil {
				return nil, fmt.Errorf("[%q]: %w", k, err)
			}
			m[k] = x
		}
	case kInt, kLong, kBytes, kFixed:
		return n.meaning(v)
	default:
	}
	return v, nil
}

// tagged is the branch that an engine named, and the value under it.
func (n *node) tagged(v any) (*node, any, error) {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return nil, nil, n.strange(v)
	}
	for tag, x := range m {
		for _, b := range n.branches {
			if b.tag == tag {
				return b, x, nil
			}
		}
	}
	return nil, nil, n.strange(v)
}

func (n *node) strange(v any) error { return fmt.Errorf("a %T stands for a %s", v, n.name) }

// meaning is the Go value of a number or of bytes, by the logical type.
func (n *node) meaning(v any) (any, error) {
	switch v := v.(type) {
	case int32:
		switch n.logical {
		case lDate:
			return time.Unix(int64(v)*86_400, 0).UTC(), nil
		case lTimeMillis:
			return time.Duration(v) * time.Millisecond, nil
		default:
			return v, nil
		}
	case int64:
		switch n.logical {
		case lTimeMicros:
			d := time.Duration(v) * time.Microsecond
			if d/time.Microsecond != time.Duration(v) {
				return nil, fmt.Errorf("time-micros %d is out of range", v)
			}
			return d, nil
		case lTimestampMillis, lLocalMillis:
			return time.UnixMilli(v).UTC(), nil
		case lTimestampMicros, lLocalMicros:
			return time.UnixMicro(v).UTC(), nil
		case lTimestampNanos, lLocalNanos:
			return time.Unix(0, v).UTC(), nil
		default:
			return v, nil
		}
	case []byte:
		switch n.logical {
		case lDecimal:
			return decimalOf(v, n.scale)
		case lUUID:
			if len(v) == 16 {
				return [16]byte(v), nil
			}
		case lDuration:
			if len(v) == 12 {
				return avro.DurationFromBytes(v), nil
			}
		default:
		}
		return bytes.Clone(v), nil
	default:
		return nil, n.strange(v)
	}
}

func decimalOf(b []byte, scale int) (*big.Rat, error) {
	if len(b) > maxDecimal {
		return nil, fmt.Errorf("a decimal of %d bytes; the limit is %d", len(b), maxDecimal)
	}
	return avro.RatFromBytes(b, scale), nil
}
