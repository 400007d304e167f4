package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a JSON text: parsing and printing recurse.
const maxDepth = 512

var errDepth = fmt.Errorf("nested deeper than %d", maxDepth)

// A value is a JSON value with its members in the order of the text, which Go's maps lose and the canonical text keeps.
// It is nil, bool, json.Number, string, []value or *object.
type value any

type member struct {
	name  string
	value value
}

// object keeps the place of a name's first appearance and the value of its last, as Jackson does.
type object struct {
	members []member
	at      map[string]int
}

func (o *object) set(name string, v value) {
	if i, ok := o.at[name]; ok {
		o.members[i].value = v
		return
	}
	if o.at == nil {
		o.at = map[string]int{}
	}
	o.at[name] = len(o.members)
	o.members = append(o.members, member{name, v})
}

func (o *object) get(name string) (value, bool) {
	i, ok := o.at[name]
	if !ok {
		return nil, false
	}
	return o.members[i].value, true
}

// text is the member when it is a string.
func (o *object) text(name string) (string, bool) {
	v, _ := o.get(name)
	s, ok := v.(string)
	return s, ok
}

// readValue reads one JSON value and nothing after it.
func readValue(src string) (value, error) {
	dec := json.NewDecoder(strings.NewReader(src))
	dec.UseNumber()
	v, err := next(dec, 0)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the end of the JSON value")
	}
	return v, nil
}

func next(dec *json.Decoder, depth int) (value, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if depth == maxDepth {
		return nil, errDepth
	}
	if delim == '[' {
		list := []value{}
		for dec.More() {
			v, err := next(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	}
	o := &object{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("member name %v is no string", key)
		}
		v, err := next(dec, depth+1)
		if err != nil {
			return nil, err
		}
		o.set(name, v)
	}
	_, err = dec.Token()
	return o, err
}

// appendValue appends v as Jackson prints it.
func appendValue(dst []byte, v value) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case string:
		return appendString(dst, v)
	case json.Number:
		return appendNumber(dst, v.String())
	case []value:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, e)
		}
		return append(dst, ']')
	case *object:
		dst = append(dst, '{')
		for i, m := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, m.name)
			dst = append(dst, ':')
			dst = appendValue(dst, m.value)
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

// appendString appends s as a JSON string in Jackson's spelling. Go's encoding/json escapes < > & and U+2028, and writes
// control characters in lower-case hexadecimals: its text would have another id and its keys would not compact.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r) // a byte that is no UTF-8 becomes U+FFFD, as on the way in
			i += n
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(dst, '"')
}

// appendNumber appends a JSON number as Java prints it after reading it: whole numbers as they are, others as doubles.
func appendNumber(dst []byte, n string) []byte {
	if !strings.ContainsAny(n, ".eE") {
		if n == "-0" {
			n = "0"
		}
		return append(dst, n...)
	}
	f, err := strconv.ParseFloat(n, 64)
	if err != nil && !math.IsInf(f, 0) {
		return append(dst, n...)
	}
	return appendDouble(dst, f)
}

// appendDouble appends f as Java's Double.toString does; what JSON has no number for is a string.
func appendDouble(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-3 || a >= 1e7) {
		format = 'e'
	}
	digits := strconv.FormatFloat(f, format, -1, 64)
	mantissa, exponent, scientific := strings.Cut(digits, "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	dst = append(dst, mantissa...)
	if scientific {
		exp, _ := strconv.Atoi(exponent) // "+21": without the sign and leading zeros
		dst = append(dst, 'E')
		dst = strconv.AppendInt(dst, int64(exp), 10)
	}
	return dst
}

// isInt reports whether v is a whole number that Java's int holds.
func isInt(v value) (int, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(n.String(), 10, 32)
	return int(i), err == nil
}

// compact is raw JSON without space; nil for absent and null.
func compact(raw json.RawMessage) json.RawMessage {
	var out bytes.Buffer
	if len(raw) == 0 || json.Compact(&out, raw) != nil || out.String() == "null" {
		return nil
	}
	return out.Bytes()
}
