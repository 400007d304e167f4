package schemas

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/avro"

	"github.com/millrace/millrace/event"
)

// intake takes one event's value into the vectors. Its bytes are anyone's.
type intake struct {
	*Rows

	k cutter
}

// run takes in the value of s.node and returns what follows it.
func (in *intake) run(s *step, src []byte) (_ []byte, err error) {
	if s.err != nil {
		return nil, s.err
	}
	rest := src
	switch {
	case s.node.kind == kUnion:
		var i int
		if i, src, err = branch(s.node, src); err != nil {
			return nil, err
		}
		return in.run(s.parts[i], src)
	case s.parts != nil:
		if rest, err = in.record(s, src); err != nil {
			return nil, err
		}
	case len(s.targets) == 0:
		if rest, err = in.k.skip(s.node, src); err != nil {
			return nil, err
		}
	}
	for i := range s.targets {
		if rest, err = in.value(&s.targets[i], src); err != nil {
			return nil, err
		}
	}
	for i := range s.fills {
		if err = in.putNative(s.fills[i].column, s.fills[i].c.v); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (in *intake) record(s *step, src []byte) (_ []byte, err error) {
	for i, part := range s.parts {
		f := &s.node.fields[i]
		if part == nil {
			src, err = in.k.skip(f.node, src)
		} else {
			src, err = in.run(part, src)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return src, nil
}

// value takes one value into one column.
func (in *intake) value(t *target, src []byte) ([]byte, error) {
	if t.as == asJSON {
		from := len(in.bytes)
		out, rest, err := in.k.appendJSON(in.bytes, t.node, src)
		if err != nil {
			return nil, err
		}
		in.bytes = out
		return rest, in.seal(t.column, from)
	}
	switch t.node.kind {
	case kBoolean:
		if len(src) == 0 {
			return nil, errCutOff
		}
		x := int64(0)
		if src[0] != 0 {
			x = 1
		}
		in.putInt(t.column, x)
		return src[1:], nil
	case kInt, kLong, kEnum:
		x, rest, err := varint(src)
		if err != nil {
			return nil, err
		}
		if t.node.kind == kInt && int64(int32(x)) != x {
			return nil, fmt.Errorf("%d is out of range for int", x)
		}
		return rest, in.number(t, x)
	case kFloat:
		if len(src) < 4 {
			return nil, errCutOff
		}
		in.putFloat(t.column, float64(math.Float32frombits(binary.LittleEndian.Uint32(src))))
		return src[4:], nil
	case kDouble:
		if len(src) < 8 {
			return nil, errCutOff
		}
		in.putFloat(t.column, math.Float64frombits(binary.LittleEndian.Uint64(src)))
		return src[8:], nil
	default:
		b, rest, err := t.node.run(src)
		if err != nil {
			return nil, err
		}
		return rest, in.take(*t, b)
	}
}

var errRange = errors.New("is out of range")

// number takes the number of an int, a long or an enum.
func (r *Rows) number(t *target, x int64) error {
	switch t.as {
	case asFloat:
		r.putFloat(t.column, float64(x))
		return nil
	case asSymbol:
		if x < 0 || x >= int64(len(t.node.symbols)) {
			return fmt.Errorf("%s has no symbol %d", t.node.name, x)
		}
		from := len(r.bytes)
		r.bytes = append(r.bytes, t.node.symbols[x]...)
		return r.seal(t.column, from)
	case asNanos:
		micros := x / 1000
		if x%1000 < 0 {
			micros--
		}
		r.putInt(t.column, micros)
		return nil
	default:
	}
	scaled := x * t.factor
	if scaled/t.factor != x {
		return fmt.Errorf("the time %d %w", x, errRange)
	}
	if t.as == asClock && (scaled < 0 || scaled >= day.Microseconds()) {
		return fmt.Errorf("the time of day %d %w", x, errRange)
	}
	r.putInt(t.column, scaled)
	return nil
}

// take takes the bytes of a string, a bytes or a fixed.
func (r *Rows) take(t target, b []byte) error {
	from := len(r.bytes)
	switch t.as {
	case asSame:
		r.bytes = append(r.bytes, b...)
	case asDecimal:
		var err error
		if b, err = r.trimDecimal(t.column, b); err != nil {
			return err
		}
		r.bytes = append(r.bytes, b...)
	case asUUID:
		u, err := parseUUID(string(b))
		if err != nil {
			return fmt.Errorf("%.40q is %w", b, err)
		}
		r.bytes = append(r.bytes, u...)
	case asUUIDText:
		r.bytes = append(r.bytes, formatUUID([16]byte(b))...)
	case asDuration:
		r.bytes = appendPeriod(r.bytes, avro.DurationFromBytes(b))
	default:
		r.bytes = append(r.bytes, b...)
		return r.sealText(t.column, from)
	}
	return r.seal(t.column, from)
}

var errText = errors.New("the text is not UTF-8")

// sealText refuses what no database and no reader of a file takes for text.
func (r *Rows) sealText(i, from int) error {
	if !utf8.Valid(r.bytes[from:]) {
		return errText
	}
	return r.seal(i, from)
}

// trimDecimal is b without bytes that say nothing, so that equal numbers are equal bytes.
func (r *Rows) trimDecimal(i int, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return []byte{0}, nil
	}
	for len(b) > 1 && (b[0] == 0 && b[1] < 0x80 || b[0] == 0xff && b[1] >= 0x80) {
		b = b[1:]
	}
	precision := r.columns[i].Precision
	if len(b) <= 8 {
		x := unscaled(b)
		if precision < len(powers) && (x >= powers[precision] || x <= -powers[precision]) {
			return nil, fmt.Errorf("the decimal has more than %d digits", precision)
		}
		return b, nil
	}
	// A digit takes 3.32 bits: what is certainly too long is not worked out.
	if float64(8*(len(b)-1)) > 3.33*float64(precision)+8 || len(new(big.Int).Abs(bigOf(b)).String()) > precision {
		return nil, fmt.Errorf("the decimal has more than %d digits", precision)
	}
	return b, nil
}

// powers of ten that an int64 holds.
var powers = func() (p [19]int64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = 10 * p[i-1]
	}
	return p
}()

// unscaled is the value of a two's complement of at most 8 bytes.
func unscaled(b []byte) int64 {
	var x int64
	if len(b) > 0 && b[0] >= 0x80 {
		x = -1
	}
	for _, c := range b {
		x = x<<8 | int64(c)
	}
	return x
}

func bigOf(b []byte) *big.Int {
	i := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0] >= 0x80 {
		i.Sub(i, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return i
}

// appendDecimal appends the digits of an unscaled two's complement: 19.90.
func appendDecimal(dst, b []byte, scale int) []byte {
	var buf [24]byte
	var digits []byte
	if len(b) <= 8 {
		digits = strconv.AppendInt(buf[:0], unscaled(b), 10)
	} else {
		digits = bigOf(b).Append(nil, 10)
	}
	if digits[0] == '-' {
		dst, digits = append(dst, '-'), digits[1:]
	}
	if scale == 0 {
		return append(dst, digits...)
	}
	whole := len(digits) - scale
	if whole <= 0 {
		dst = append(dst, '0', '.')
		for range -whole {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	dst = append(dst, digits[:whole]...)
	return append(append(dst, '.'), digits[whole:]...)
}

// appendPeriod appends d as ISO 8601 has it: P1M2DT3.004S.
func appendPeriod(dst []byte, d Duration) []byte {
	dst = append(dst, 'P')
	if d.Months > 0 {
		dst = append(strconv.AppendUint(dst, uint64(d.Months), 10), 'M')
	}
	if d.Days > 0 {
		dst = append(strconv.AppendUint(dst, uint64(d.Days), 10), 'D')
	}
	if d.Milliseconds == 0 && (d.Months > 0 || d.Days > 0) {
		return dst
	}
	dst = append(dst, 'T')
	dst = strconv.AppendUint(dst, uint64(d.Milliseconds/1000), 10)
	if ms := d.Milliseconds % 1000; ms > 0 {
		dst = append(dst, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	}
	return append(dst, 'S')
}

// plain reads JSON: what the columns name, by their paths.
func (r *Rows) plain(e *event.Event, entry *entry, body []byte) error {
	isJSON := entry != nil && entry.schema.Type == TypeJSON
	if entry == nil {
		format, err := r.reg.formatOf(e, nil)
		if err != nil {
			return err
		}
		isJSON = format == JSON()
	}
	if !isJSON {
		return fmt.Errorf("%w: rows are made of Avro or JSON, and the value is neither", ErrIncompatible)
	}
	v, err := readJSON(body)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPoison, err)
	}
	if _, ok := v.(map[string]any); !ok {
		return fmt.Errorf("%w: rows are made of objects, and the value is a %T", ErrPoison, v)
	}
	for i := range r.columns {
		if c := &r.columns[i]; c.attribute() == "" {
			if err := r.fromJSON(i, c, v); err != nil {
				return unfitOr(fmt.Errorf("%s: %w", strings.Join(c.Path, "."), err))
			}
		}
	}
	return nil
}

func (r *Rows) fromJSON(i int, c *Column, v any) error {
	for depth, name := range c.Path {
		if v == nil {
			return r.putNull(i)
		}
		m, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("it is within an object, and the value has a %T", v)
		}
		if v, ok = m[name]; !ok {
			fill, err := c.without(depth)
			if err != nil {
				return err
			}
			return r.putNative(i, fill.v)
		}
	}
	if v == nil {
		return r.putNull(i)
	}
	n := c.like()
	if s, ok := v.(string); ok && n.logical == none && (n.kind == kBytes || n.kind == kFixed) {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return fmt.Errorf("bytes are base64 in JSON: %w", err)
		}
		v = b
	}
	return r.putAny(i, n, v)
}

// putAny sets column i to v, which is in one of the shapes that users write.
func (r *Rows) putAny(i int, n *node, v any) error {
	if r.columns[i].Kind == KindJSON && r.columns[i].node == nil {
		return r.putJSON(i, v)
	}
	budget := maxValues
	x, err := walk{budget: &budget}.native(n, v)
	if err != nil {
		return err
	}
	return r.putNative(i, x)
}

func (r *Rows) putJSON(i int, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	from := len(r.bytes)
	r.bytes = append(r.bytes, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
	return r.seal(i, from)
}

// putNative sets column i to a value of its own type in the shapes of an engine.
func (r *Rows) putNative(i int, v any) error {
	if v == nil {
		return r.putNull(i)
	}
	t := r.targets[i]
	if t.as == asJSON {
		from := len(r.bytes)
		out, err := t.node.appendJSON(r.bytes, v)
		if err != nil {
			return err
		}
		r.bytes = out
		return r.seal(i, from)
	}
	switch v := v.(type) {
	case bool:
		x := int64(0)
		if v {
			x = 1
		}
		r.putInt(i, x)
		return nil
	case int32:
		return r.number(&t, int64(v))
	case int64:
		return r.number(&t, v)
	case float32:
		r.putFloat(i, float64(v))
		return nil
	case float64:
		r.putFloat(i, v)
		return nil
	case string:
		if t.as == asSymbol {
			return r.putText(i, v)
		}
		return r.take(t, []byte(v))
	case []byte:
		return r.take(t, v)
	}
	return t.node.strange(v)
}
