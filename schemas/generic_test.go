package schemas_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"

	"github.com/millrace/millrace/schemas"
)

// generic is the codec for values without a Go type.
func generic(tb testing.TB, text string) (schemas.Schema, schemas.Codec) {
	tb.Helper()
	s, err := schemas.Parse(text)
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	c, err := schemas.Avro().Compile(s, nil)
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return s, c
}

// maker makes random schemas and values of them.
type maker struct {
	*rand.Rand

	names int
}

func (m *maker) schema(depth int) (string, func() any) {
	type choice struct {
		text  string
		value func() any
	}
	simple := []choice{
		{`"boolean"`, func() any { return m.IntN(2) == 0 }},
		{`"int"`, func() any { return int32(m.Uint32()) }},
		{`"long"`, func() any { return int64(m.Uint64()) }},
		{`"float"`, func() any { return m.Float32() }},
		{`"double"`, func() any { return m.NormFloat64() }},
		{`"string"`, func() any { return m.text() }},
		{`"bytes"`, func() any { return []byte(m.text()) }},
		{`{"type":"int","logicalType":"date"}`, func() any { return time.Unix(int64(m.IntN(40000)-20000)*86400, 0).UTC() }},
		{`{"type":"int","logicalType":"time-millis"}`, func() any { return time.Duration(m.IntN(86_400_000)) * time.Millisecond }},
		{`{"type":"long","logicalType":"time-micros"}`, func() any { return time.Duration(m.Int64N(86_400_000_000)) * time.Microsecond }},
		{`{"type":"long","logicalType":"timestamp-millis"}`, func() any { return time.UnixMilli(m.Int64N(4e12) - 2e12).UTC() }},
		{`{"type":"long","logicalType":"timestamp-micros"}`, func() any { return time.UnixMicro(m.Int64N(4e15) - 2e15).UTC() }},
		{`{"type":"long","logicalType":"timestamp-nanos"}`, func() any { return time.Unix(0, m.Int64N(4e18)-2e18).UTC() }},
		{`{"type":"long","logicalType":"local-timestamp-millis"}`, func() any { return time.UnixMilli(m.Int64N(4e12) - 2e12).UTC() }},
		{`{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`, func() any { return big.NewRat(m.Int64N(2e8)-1e8, 100) }},
		{`{"type":"string","logicalType":"uuid"}`, func() any { return "f81d4fae-7dec-11d0-a765-00a0c91e6bf6" }},
	}
	n := len(simple)
	if depth > 0 {
		n += 7
	}
	pick := m.IntN(n)
	if pick < len(simple) {
		return simple[pick].text, simple[pick].value
	}
	m.names++
	name := fmt.Sprintf("x.y.T%d", m.names)
	switch pick - len(simple) {
	case 0:
		return fmt.Sprintf(`{"type":"enum","name":"%s","symbols":["A","B","C"]}`, name), func() any { return string(rune('A' + m.IntN(3))) }
	case 1:
		return fmt.Sprintf(`{"type":"fixed","name":"%s","size":4}`, name), func() any { return []byte{1, 2, 0xff, byte(m.Uint32())} }
	case 2:
		return fmt.Sprintf(`{"type":"fixed","name":"%s","size":8,"logicalType":"decimal","precision":15,"scale":3}`, name),
			func() any { return big.NewRat(m.Int64N(2e8)-1e8, 1000) }
	case 3:
		inner, value := m.schema(depth - 1)
		return `{"type":"array","items":` + inner + `}`, func() any {
			s := make([]any, m.IntN(4))
			for i := range s {
				s[i] = value()
			}
			return s
		}
	case 4:
		inner, value := m.schema(depth - 1)
		return `{"type":"map","values":` + inner + `}`, func() any {
			v := map[string]any{}
			for range m.IntN(2) { // one key at most: the order of more is the map's
				v[m.text()] = value()
			}
			return v
		}
	case 5:
		for {
			inner, value := m.schema(depth - 1)
			if strings.HasPrefix(inner, "[") {
				continue
			}
			return `["null",` + inner + `]`, func() any {
				if m.IntN(3) == 0 {
					return nil
				}
				return value()
			}
		}
	default:
		return m.record(name, depth)
	}
}

func (m *maker) record(name string, depth int) (string, func() any) {
	fields := make([]string, m.IntN(4)+1)
	values := make([]func() any, len(fields))
	for i := range fields {
		var inner string
		inner, values[i] = m.schema(depth - 1)
		fields[i] = fmt.Sprintf(`{"name":"f%d","type":%s}`, i, inner)
	}
	return fmt.Sprintf(`{"type":"record","name":"%s","fields":[%s]}`, name, strings.Join(fields, ",")), func() any {
		v := map[string]any{}
		for i := range values {
			v[fmt.Sprintf("f%d", i)] = values[i]()
		}
		return v
	}
}

func (m *maker) text() string {
	return []string{"", "a", "Grüße", "\x00\x1b[31m\"\\", "日本", "long text that is a little longer"}[m.IntN(6)]
}

// Two engines and our own conversions agree on random schemas and values: bytes, values, and JSON there and back.
func TestGenericAgrees(t *testing.T) {
	t.Parallel()
	m := &maker{Rand: rand.New(rand.NewPCG(1, 2))}
	for i := range 1500 {
		text, value := m.schema(3)
		s, c := generic(t, text)
		oracle := avro.MustParse(text)
		v := value()
		body, err := c.Append([]byte("head"), v)
		if err != nil {
			t.Fatalf("%d: %s: encode %v: %v", i, text, v, err)
		}
		body = body[len("head"):]
		want, err := oracle.Encode(v)
		if err != nil {
			t.Fatalf("%d: %s: the oracle cannot encode %v: %v", i, text, v, err)
		}
		if string(body) != string(want) {
			t.Fatalf("%d: %s: %v: got % x, want % x", i, text, v, body, want)
		}
		var got, expected any
		if err := c.Decode(body, &got); err != nil {
			t.Fatalf("%d: %s: %v", i, text, err)
		}
		if _, err := oracle.Decode(body, &expected); err != nil {
			t.Fatal(err)
		}
		if show(got) != show(expected) || show(got) != show(v) {
			t.Fatalf("%d: %s: got %s, oracle %s, want %s", i, text, show(got), show(expected), show(v))
		}
		line, err := s.AppendJSON(nil, body)
		if err != nil || !json.Valid(line) {
			t.Fatalf("%d: %s: %q is no JSON: %v", i, text, line, err)
		}
		again, err := s.FromJSON(nil, line)
		if err != nil {
			t.Fatalf("%d: %s: %s: %v", i, text, line, err)
		}
		if string(again) != string(body) {
			t.Fatalf("%d: %s: %s came back as % x, was % x", i, text, line, again, body)
		}
		for cut := range len(body) {
			if err := c.Decode(body[:cut], new(any)); !errors.Is(err, schemas.ErrPoison) {
				t.Fatalf("%d: %s: %d bytes of %d: got %v, want poison", i, text, cut, len(body), err)
			}
		}
		if err := c.Decode(append(body, 0), new(any)); !errors.Is(err, schemas.ErrPoison) {
			t.Fatalf("%d: %s: a byte after the value: got %v, want poison", i, text, err)
		}
	}
}

// show prints a value with its types, decimals by their value.
func show(v any) string {
	switch v := v.(type) {
	case *big.Rat:
		return "rat " + v.RatString()
	case map[string]any:
		var b strings.Builder
		for i := range 10 {
			if x, ok := v[fmt.Sprintf("f%d", i)]; ok {
				fmt.Fprintf(&b, "f%d=%s ", i, show(x))
			}
		}
		if b.Len() == 0 {
			for k, x := range v {
				fmt.Fprintf(&b, "%q=%s ", k, show(x))
			}
		}
		return "{" + b.String() + "}"
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = show(v[i])
		}
		return "[" + strings.Join(parts, ",") + "]"
	case []byte:
		return fmt.Sprintf("bytes %x", v)
	default:
		return fmt.Sprintf("%T %v", v, v)
	}
}

func TestFromJSON(t *testing.T) {
	t.Parallel()
	record := func(fields string) string { return `{"type":"record","name":"a.R","fields":[` + fields + `]}` }
	for _, tt := range []struct {
		name, schema, text string
		want               string // JSON again; "!…" is an error that says so
	}{
		{"bare union takes the first that fits", `["null","int","long"]`, `7`, `7`},
		{"bare union beyond int", `["int","long"]`, `3000000000`, `3000000000`},
		{"tagged union", `["int","long"]`, `{"long":7}`, `7`},
		{"goavro's tag", `["null",{"type":"long","logicalType":"timestamp-millis"}]`, `{"long.timestamp-millis":0}`, `"1970-01-01T00:00:00Z"`},
		{"tag by full name", `["null",{"type":"enum","name":"a.b.E","symbols":["X"]}]`, `{"a.b.E":"X"}`, `"X"`},
		{"a map with a branch's name is the map where the tag does not fit", `["null","long",{"type":"map","values":"string"}]`, `{"long":"x"}`, `{"long":"x"}`},
		{"no branch", `["null","long"]`, `"x"`, `!"x" does not fit long`},
		{"null without a null branch", `["int","long"]`, `null`, `!null`},
		{"default", record(`{"name":"c","type":"string","default":"EUR"}`), `{}`, `{"c":"EUR"}`},
		{"bytes default is bytes, not UTF-8", record(`{"name":"b","type":"bytes","default":"\u00ff"}`), `{}`, `{"b":"ÿ"}`},
		{"nullable without default", record(`{"name":"n","type":["null","int"]}`), `{}`, `{"n":null}`},
		{"nested default", record(`{"name":"r","type":{"type":"record","name":"I","fields":[{"name":"x","type":"int","default":5}]},"default":{}}`), `{}`, `{"r":{"x":5}}`},
		{"missing", record(`{"name":"c","type":"string"}`), `{}`, `!field c is missing`},
		{"unknown key", record(`{"name":"c","type":"string"}`), `{"c":"x","d":1}`, `!no field "d"`},
		{"int out of range", `"int"`, `2147483648`, `!out of range`},
		{"long out of range", `"long"`, `9223372036854775808`, `!does not fit`},
		{"no integer", `"int"`, `1.5`, `!does not fit`},
		{"an integer written as a float", `"int"`, `5.0`, `5`},
		{"long stays exact", `"long"`, `9007199254740993`, `9007199254740993`},
		{"NaN", `"double"`, `"NaN"`, `"NaN"`},
		{"minus infinity", `"float"`, `"-Infinity"`, `"-Infinity"`},
		{"float out of range", `"float"`, `1e300`, `!out of range`},
		{"decimal by number", `{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}`, `19.9`, `"19.90"`},
		{"negative decimal", `{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}`, `"-1.28"`, `"-1.28"`},
		{"decimal is never rounded", `{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`, `"0.333"`, `!exactly`},
		{"decimal too wide", `{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, `123.45`, `!digits`},
		{"decimal does not fit fixed", `{"type":"fixed","name":"D","size":2,"logicalType":"decimal","precision":4,"scale":0}`, `9999`, `"9999"`},
		{"decimal bomb", `{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`, `1e999999999`, `!does not fit`},
		{"date before 1970", `{"type":"int","logicalType":"date"}`, `"1969-12-31"`, `"1969-12-31"`},
		{"date as a number", `{"type":"int","logicalType":"date"}`, `-1`, `"1969-12-31"`},
		{"time of day", `{"type":"int","logicalType":"time-millis"}`, `"23:59:59.999"`, `"23:59:59.999"`},
		{"local timestamp", `{"type":"long","logicalType":"local-timestamp-micros"}`, `"2026-01-31T12:00:00.5"`, `"2026-01-31T12:00:00.5"`},
		{"timestamp with an offset", `{"type":"long","logicalType":"timestamp-millis"}`, `"2026-01-31T12:00:00+01:00"`, `"2026-01-31T11:00:00Z"`},
		{"nanos out of range", `{"type":"long","logicalType":"timestamp-nanos"}`, `"2500-01-01T00:00:00Z"`, `!out of range`},
		{"a year that RFC 3339 lacks", `{"type":"long","logicalType":"timestamp-millis"}`, `9223372036854775807`, `9223372036854775807`},
		{"no time", `{"type":"long","logicalType":"timestamp-millis"}`, `"yesterday"`, `!is not of the form`},
		{"UUID in fixed", `{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}`, `"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"`, `"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"`},
		{"duration", `{"type":"fixed","name":"D","size":12,"logicalType":"duration"}`, `{"months":1,"milliseconds":3}`, `{"months":1,"days":0,"milliseconds":3}`},
		{"bytes beyond a byte", `"bytes"`, `"日"`, `!no byte`},
		{"enum", `{"type":"enum","name":"E","symbols":["A"]}`, `"B"`, `!no symbol`},
		{"fixed of another size", `{"type":"fixed","name":"F","size":3}`, `"ab"`, `!2 bytes`},
		{"more than one value", `"int"`, `1 2`, `!more follows`},
		{"nothing", `"int"`, ``, `!empty`},
		{"a terminal's escape", `"string"`, `"\u001b[2J\u009b"`, `"\u001b[2J\u009b"`},
		{"field order is the schema's", record(`{"name":"b","type":"int"},{"name":"a","type":"int"}`), `{"a":1,"b":2}`, `{"b":2,"a":1}`},
		{"flat logical type", record(`{"name":"t","type":"long","logicalType":"timestamp-millis"}`), `{"t":"1970-01-01T00:00:01Z"}`, `{"t":"1970-01-01T00:00:01Z"}`},
		{"recursive", record(`{"name":"next","type":["null","a.R"]},{"name":"v","type":"int"}`), `{"v":1,"next":{"v":2}}`, `{"next":{"next":null,"v":2},"v":1}`},
		{
			"the same names in two namespaces", `{"type":"record","name":"a.R","fields":[{"name":"x","type":{"type":"enum","name":"b.E","symbols":["P"]}},{"name":"y","type":["null",{"type":"enum","name":"a.E","symbols":["Q"]}]},{"name":"z","type":["null","b.E","E"]}]}`,
			`{"x":"P","y":"Q","z":{"a.E":"Q"}}`, `{"x":"P","y":"Q","z":"Q"}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := schemas.Parse(tt.schema)
			if err != nil {
				t.Fatal(err)
			}
			body, err := s.FromJSON(nil, []byte(tt.text))
			if why, bad := strings.CutPrefix(tt.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), why) {
					t.Errorf("got % x and %v, want an error that says %q", body, err, why)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.AppendJSON(nil, body)
			if err != nil || string(got) != tt.want {
				t.Errorf("got %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestGenericStrict(t *testing.T) {
	t.Parallel()
	s, c := generic(t, `{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}`)
	data := map[string]any{"a": 1, "b": 2}
	if _, err := c.Append(nil, data); err != nil {
		t.Errorf("unknown keys are ignored by default: %v", err)
	}
	if _, err := c.Append(nil, schemas.Generic{Schema: s, Data: data, Strict: true}); err == nil {
		t.Error("Strict took an unknown key")
	}
}

func TestGenericGoTypes(t *testing.T) {
	t.Parallel()
	type myInt int16
	for _, tt := range []struct {
		name, schema string
		data         any
		want         any
	}{
		{"int is long", `["int","long"]`, 7, int64(7)},
		{"int32 is int", `["long","int"]`, int32(7), int32(7)},
		{"named integer", `"long"`, myInt(3), int64(3)},
		{"unsigned", `"int"`, uint8(3), int32(3)},
		{"slice of a type", `{"type":"array","items":"string"}`, []string{"a"}, []any{"a"}},
		{"map of a type", `{"type":"map","values":"int"}`, map[string]int32{"a": 1}, map[string]any{"a": int32(1)}},
		{"array as fixed", `{"type":"fixed","name":"F","size":2}`, [2]byte{1, 2}, []byte{1, 2}},
		{"a date is the day, before 1970 too", `{"type":"int","logicalType":"date"}`, time.Date(1969, 12, 31, 12, 0, 0, 0, time.UTC), time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)},
		{"time into a union", `["null","string",{"type":"long","logicalType":"timestamp-millis"}]`, placed, placed},
		{"NaN", `"double"`, math.Inf(1), math.Inf(1)},
		{"enum in a union", `["null",{"type":"enum","name":"E","symbols":["A"]},"string"]`, "A", "A"},
		{
			"record with the known keys", `["null",{"type":"record","name":"A","fields":[{"name":"a","type":"int","default":0}]},{"type":"record","name":"B","fields":[{"name":"b","type":"int"}]}]`,
			map[string]any{"b": int32(2)},
			map[string]any{"b": int32(2)},
		},
		{"empty union has no value but is a schema", `{"type":"array","items":[]}`, []any{}, []any{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, c := generic(t, tt.schema)
			body, err := c.Append(nil, tt.data)
			if err != nil {
				t.Fatal(err)
			}
			var got any
			if err := c.Decode(body, &got); err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %#v, %v, want %#v", got, err, tt.want)
			}
		})
	}
}

// A value that holds itself is an error, and so is one without end.
func TestGenericBounds(t *testing.T) {
	t.Parallel()
	_, c := generic(t, `{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}`)
	loop := map[string]any{}
	loop["r"] = loop
	if _, err := c.Append(nil, loop); err == nil {
		t.Error("a value that holds itself was encoded")
	}
	_, nulls := generic(t, `{"type":"array","items":"null"}`)
	if _, err := nulls.Append(nil, make([]any, 1<<22)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("four million values: got %v", err)
	}
}

// What was decoded stays what it is when the source is used again.
func TestGenericKeepsNothing(t *testing.T) {
	t.Parallel()
	_, c := generic(t, `{"type":"array","items":"bytes"}`)
	body, err := c.Append(nil, []any{[]byte("abc")})
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := c.Decode(body, &got); err != nil {
		t.Fatal(err)
	}
	clear(body)
	if !reflect.DeepEqual(got, []any{[]byte("abc")}) {
		t.Errorf("got %q", got)
	}
}
