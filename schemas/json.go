package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/avro"
)

// AppendJSON appends the JSON form of body, the bytes of one value of s without a frame, on one line. Keys stand in
// the order of the schema's fields, those of maps in their own order, so equal values are equal texts. Unions are
// bare. Numbers, text and enums are what they are; then
//
//   - bytes and fixed are text with one code point a byte ("\u0000ÿ"), as Avro's JSON form has them,
//   - a decimal is a text with all its digits ("19.90"),
//   - a timestamp is RFC 3339 in UTC, a date 2026-01-31, a time of day 15:04:05.123, a local timestamp has no zone,
//   - a UUID is its text, a duration {"months":1,"days":2,"milliseconds":3},
//   - NaN and the infinities are the texts "NaN", "Infinity" and "-Infinity".
//
// [Schema.FromJSON] reads all of it again. An error wraps ErrPoison.
func (s Schema) AppendJSON(dst, body []byte) ([]byte, error) {
	g, err := s.generic()
	if err != nil {
		return nil, err
	}
	v, err := g.raw(body)
	if err == nil {
		dst, err = g.tree.root.appendJSON(dst, v)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPoison, err)
	}
	return dst, nil
}

// FromJSON appends to dst the bytes of the value that text describes, without a frame. It reads what
// [Schema.AppendJSON] writes, and what Avro's JSON form has beyond it: tagged unions, {"long": 7}. A bare 7 in a
// union goes to the first branch that it fits. Fields that are missing get their defaults; keys that no field has
// are an error, and so is a number, a time or a decimal that does not fit exactly.
func (s Schema) FromJSON(dst, text []byte) ([]byte, error) {
	g, err := s.generic()
	if err != nil {
		return nil, err
	}
	return g.append(dst, json.RawMessage(text), true)
}

func (s Schema) generic() (*genericCodec, error) {
	if s.p == nil {
		return nil, fmt.Errorf("%w: schema %d is no Avro schema that can be read here", ErrIncompatible, s.ID)
	}
	g, err := s.p.generic()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncompatible, err)
	}
	return g, nil
}

// readJSON reads one JSON value with its numbers as they are written.
func readJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("read JSON: the text is empty")
		}
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read JSON: more follows the value")
	}
	return v, nil
}

// appendJSON appends an engine's raw value.
func (n *node) appendJSON(dst []byte, v any) ([]byte, error) {
	switch n.kind {
	case kUnion:
		if v == nil {
			return append(dst, "null"...), nil
		}
		b, v, err := n.tagged(v)
		if err != nil {
			return nil, err
		}
		return b.appendJSON(dst, v)
	case kRecord, kMap, kArray:
		return n.appendMany(dst, v)
	default:
		return n.appendOne(dst, v)
	}
}

func (n *node) appendMany(dst []byte, v any) (_ []byte, err error) {
	switch v := v.(type) {
	case []any:
		dst = append(dst, '[')
		for i := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = n.items.appendJSON(dst, v[i]); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case map[string]any:
		if n.kind == kRecord {
			return n.appendFields(dst, v)
		}
		dst = append(dst, '{')
		for i, k := range sortedKeys(v) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendText(dst, k), ':')
			if dst, err = n.items.appendJSON(dst, v[k]); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	}
	return nil, n.strange(v)
}

func (n *node) appendFields(dst []byte, m map[string]any) (_ []byte, err error) {
	dst = append(dst, '{')
	for i := range n.fields {
		f := &n.fields[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, f.name), ':')
		if dst, err = f.node.appendJSON(dst, m[f.name]); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return append(dst, '}'), nil
}

func (n *node) appendOne(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int32:
		return n.appendInteger(dst, int64(v)), nil
	case int64:
		return n.appendInteger(dst, v), nil
	case float32:
		return appendFloat(dst, float64(v), 32), nil
	case float64:
		return appendFloat(dst, v, 64), nil
	case string:
		return appendText(dst, v), nil
	case []byte:
		return n.appendBytes(dst, v)
	}
	return nil, n.strange(v)
}

func (n *node) appendInteger(dst []byte, i int64) []byte {
	var t time.Time
	form := time.RFC3339Nano
	switch n.logical {
	case lDate:
		t, form = time.Unix(i*86_400, 0), dateForm
	case lTimeMillis, lTimeMicros:
		unit := time.Millisecond
		if n.logical == lTimeMicros {
			unit = time.Microsecond
		}
		if i < 0 || i >= int64(day/unit) {
			return strconv.AppendInt(dst, i, 10)
		}
		t, form = time.Unix(0, i*int64(unit)), clockForm
	case lTimestampMillis:
		t = time.UnixMilli(i)
	case lTimestampMicros:
		t = time.UnixMicro(i)
	case lTimestampNanos:
		t = time.Unix(0, i)
	case lLocalMillis:
		t, form = time.UnixMilli(i), localForm
	case lLocalMicros:
		t, form = time.UnixMicro(i), localForm
	case lLocalNanos:
		t, form = time.Unix(0, i), localForm
	default:
		return strconv.AppendInt(dst, i, 10)
	}
	if t = t.UTC(); t.Year() < 0 || t.Year() > 9999 { // no such RFC 3339: the number says it
		return strconv.AppendInt(dst, i, 10)
	}
	dst = append(dst, '"')
	return append(t.AppendFormat(dst, form), '"')
}

func (n *node) appendBytes(dst, b []byte) ([]byte, error) {
	switch n.logical {
	case lDecimal:
		r, err := decimalOf(b, n.scale)
		if err != nil {
			return nil, err
		}
		return appendText(dst, r.FloatString(n.scale)), nil
	case lUUID:
		if len(b) == 16 {
			return appendText(dst, formatUUID([16]byte(b))), nil
		}
	case lDuration:
		d := avro.DurationFromBytes(b)
		return fmt.Appendf(dst, `{"months":%d,"days":%d,"milliseconds":%d}`, d.Months, d.Days, d.Milliseconds), nil
	default:
	}
	return appendBytes(dst, b), nil
}

func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, bits)
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// compactJSON appends text on one line, where it is JSON.
func compactJSON(dst, text []byte) ([]byte, bool) {
	b := bytes.NewBuffer(dst)
	if err := json.Compact(b, text); err != nil {
		return dst, false
	}
	return b.Bytes(), true
}
