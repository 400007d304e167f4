package schemas

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const day = 24 * time.Hour

// The forms of dates and times without a zone. Timestamps are RFC 3339.
const (
	dateForm  = "2006-01-02"
	clockForm = "15:04:05.999999999"
	localForm = "2006-01-02T15:04:05.999999999"
)

// integer is v as an int or a long: a number in range, or the value of the logical type.
func (n *node) integer(v any, lowest, highest int64) (int64, error) {
	i, err := n.anyInteger(v)
	if err != nil {
		return 0, err
	}
	if i < lowest || i > highest {
		return 0, fmt.Errorf("%d is out of range for %s", i, n.name)
	}
	return i, nil
}

func (n *node) anyInteger(v any) (int64, error) {
	switch v := v.(type) {
	case time.Time:
		return n.instant(v)
	case time.Duration:
		return n.clock(v)
	case string:
		return n.moment(v)
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return i, nil
		}
		f, err := strconv.ParseFloat(v.String(), 64) // 1e3 and 5.0 are integers too
		if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			return 0, n.unfit(v)
		}
		return int64(f), nil
	case float64:
		if v != math.Trunc(v) || math.Abs(v) > 1<<53 {
			return 0, fmt.Errorf("%g does not fit %s", v, n.name)
		}
		return int64(v), nil
	}
	if i, ok := anyInt(v); ok {
		return i, nil
	}
	return 0, n.unfit(v)
}

// instant is t in the node's unit, rounded down: a date is the day in UTC, a local timestamp is the wall clock.
func (n *node) instant(t time.Time) (int64, error) {
	switch n.logical {
	case lLocalMillis, lLocalMicros, lLocalNanos:
		t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	default:
	}
	sec := t.Unix()
	var unit int64
	switch n.logical {
	case lDate:
		days := sec / 86_400
		if sec%86_400 < 0 {
			days--
		}
		return days, nil
	case lTimestampMillis, lLocalMillis:
		unit = 1e3
	case lTimestampMicros, lLocalMicros:
		unit = 1e6
	case lTimestampNanos, lLocalNanos:
		unit = 1e9
	default:
		return 0, n.unfit(t)
	}
	if sec > math.MaxInt64/unit-1 || sec < math.MinInt64/unit+1 {
		return 0, fmt.Errorf("the time %s is out of range for the unit", t.UTC().Format(time.RFC3339))
	}
	return sec*unit + int64(t.Nanosecond())/(1e9/unit), nil
}

// clock is a time of day in the node's unit.
func (n *node) clock(d time.Duration) (int64, error) {
	if n.logical != lTimeMillis && n.logical != lTimeMicros {
		return 0, n.unfit(d)
	}
	if d < 0 || d >= day {
		return 0, fmt.Errorf("the time of day %s is out of range", d)
	}
	if n.logical == lTimeMillis {
		return d.Milliseconds(), nil
	}
	return d.Microseconds(), nil
}

// moment reads the text of a date or a time.
func (n *node) moment(s string) (int64, error) {
	var form string
	switch n.logical {
	case lDate:
		form = dateForm
	case lTimeMillis, lTimeMicros:
		form = clockForm
	case lLocalMillis, lLocalMicros, lLocalNanos:
		form = localForm
	case lTimestampMillis, lTimestampMicros, lTimestampNanos:
		form = time.RFC3339Nano
	default:
		return 0, n.unfit(s)
	}
	t, err := time.Parse(form, s)
	if err != nil {
		return 0, fmt.Errorf("the text %.40q is not of the form %s", s, form)
	}
	if form == clockForm {
		return n.clock(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute +
			time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond()))
	}
	return n.instant(t)
}

// bytes is v as the bytes of a bytes or a fixed.
func (n *node) bytes(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok && n.logical != lDecimal {
		return b, nil
	}
	switch n.logical {
	case lDecimal:
		return n.decimal(v)
	case lUUID:
		switch v := v.(type) {
		case string:
			return parseUUID(v)
		case [16]byte:
			return v[:], nil
		}
	case lDuration:
		switch v := v.(type) {
		case Duration:
			b := v.Bytes()
			return b[:], nil
		case map[string]any:
			return durationOf(v)
		}
	default:
	}
	if s, ok := v.(string); ok {
		return codePoints(s)
	}
	if rv := reflect.ValueOf(v); v != nil && rv.Kind() == reflect.Array && rv.Type().Elem().Kind() == reflect.Uint8 {
		b := make([]byte, rv.Len())
		reflect.Copy(reflect.ValueOf(b), rv)
		return b, nil
	}
	return nil, n.unfit(v)
}

// codePoints are the bytes that Avro's JSON form writes as text: a code point each.
func codePoints(s string) ([]byte, error) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return nil, fmt.Errorf(`%q is no byte: bytes are written as text with one code point each, up to \u00ff`, r)
		}
		b = append(b, byte(r))
	}
	return b, nil
}

func durationOf(m map[string]any) ([]byte, error) {
	var d Duration
	for k, v := range m {
		part := &node{kind: kLong, name: "long"}
		i, err := part.integer(v, 0, math.MaxUint32)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		switch k {
		case "months":
			d.Months = uint32(i)
		case "days":
			d.Days = uint32(i)
		case "milliseconds":
			d.Milliseconds = uint32(i)
		default:
			return nil, fmt.Errorf("a duration has months, days and milliseconds, no %q", k)
		}
	}
	b := d.Bytes()
	return b[:], nil
}

// decimal is v as the unscaled two's complement, big-endian. A value that the scale or the precision cannot hold
// exactly is an error: money is never rounded in passing.
func (n *node) decimal(v any) ([]byte, error) {
	var r *big.Rat
	switch v := v.(type) {
	case *big.Rat:
		if v == nil {
			return nil, n.unfit(nil)
		}
		r = v
	case big.Rat:
		r = &v
	case json.Number:
		return n.decimalText(v.String())
	case string:
		return n.decimalText(v)
	case float64:
		return n.decimalText(strconv.FormatFloat(v, 'f', -1, 64))
	case []byte:
		d, err := decimalOf(v, n.scale)
		if err != nil {
			return nil, err
		}
		r = d
	default:
		i, ok := anyInt(v)
		if !ok {
			return nil, n.unfit(v)
		}
		r = new(big.Rat).SetInt64(i)
	}
	unscaled := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n.scale)), nil)
	scaled := new(big.Rat).Mul(r, new(big.Rat).SetInt(unscaled))
	if !scaled.IsInt() {
		return nil, fmt.Errorf("%s does not fit decimal(%d,%d) exactly", r.FloatString(n.scale+3), n.precision, n.scale)
	}
	i := scaled.Num()
	if digits := new(big.Int).Abs(i).String(); len(digits) > n.precision && i.Sign() != 0 {
		return nil, fmt.Errorf("%.40s has more than the %d digits of decimal(%d,%d)", r.FloatString(n.scale), n.precision, n.precision, n.scale)
	}
	return twosComplement(i, n)
}

// decimalText refuses an exponent that would cost the memory it asks for.
func (n *node) decimalText(s string) ([]byte, error) {
	mantissa, exponent, ok := strings.Cut(strings.ToLower(s), "e")
	if ok {
		if e, err := strconv.Atoi(exponent); err != nil || e > 10_000 || e < -10_000 {
			return nil, n.unfit(s)
		}
	}
	if len(s) > 1<<16 || strings.Trim(mantissa, "0123456789.-+") != "" {
		return nil, n.unfit(s)
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil, n.unfit(s)
	}
	return n.decimal(r)
}

// twosComplement is the shortest form for bytes, and the full size for a fixed.
func twosComplement(i *big.Int, n *node) ([]byte, error) {
	size := i.BitLen()/8 + 1
	if i.Sign() < 0 { // -128 needs one byte, 128 two
		size = new(big.Int).Not(i).BitLen()/8 + 1
	}
	if n.kind == kFixed {
		if size > n.size {
			return nil, fmt.Errorf("the decimal does not fit the %d bytes of %s", n.size, n.name)
		}
		size = n.size
	}
	if i.Sign() >= 0 {
		return i.FillBytes(make([]byte, size)), nil
	}
	wrapped := new(big.Int).Add(i, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	return wrapped.FillBytes(make([]byte, size)), nil
}

func formatUUID(u [16]byte) string {
	var b [36]byte
	for i, part := range [...][2]int{{0, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		at := 2*part[0] + i
		hex.Encode(b[at:], u[part[0]:part[1]])
		if i < 4 {
			b[2*part[1]+i] = '-'
		}
	}
	return string(b[:])
}

var errUUID = errors.New("not a UUID, 8-4-4-4-12 hexadecimal digits")

func parseUUID(s string) ([]byte, error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return nil, errUUID
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return nil, errUUID
	}
	return b, nil
}

// appendText appends s as a JSON string. Control characters are escaped, those of terminals (DEL, C1) included, so
// that a record cannot write to the screen of whoever looks at it; bytes that are no UTF-8 become U+FFFD.
func appendText(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r == '\t':
			dst = append(dst, '\\', 't')
		case r == '\r':
			dst = append(dst, '\\', 'r')
		case r < 0x20 || r >= 0x7f && r < 0xa0:
			dst = append(dst, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
		case r == utf8.RuneError && size == 1:
			dst = utf8.AppendRune(dst, utf8.RuneError)
		default:
			dst = append(dst, s[i:i+size]...)
		}
		i += size
	}
	return append(dst, '"')
}

// appendBytes appends b as Avro's JSON form has it: one code point a byte.
func appendBytes(dst, b []byte) []byte {
	var s bytes.Buffer
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return appendText(dst, s.String())
}
