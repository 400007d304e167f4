package schemas_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// cell is one value of rows as text.
func cell(r *schemas.Rows, i, row int) string {
	if nulls := r.Nulls(i); nulls != nil && nulls[row] {
		return "null"
	}
	switch c := r.Columns()[i]; c.Kind {
	case schemas.KindFloat:
		return strconv.FormatFloat(r.Floats(i)[row], 'g', -1, 64)
	case schemas.KindBytes:
		return hex.EncodeToString(r.Bytes(i, row))
	case schemas.KindString, schemas.KindJSON, schemas.KindDecimal, schemas.KindUUID:
		return r.Texts(i)[row]
	default:
		return strconv.FormatInt(r.Ints(i)[row], 10)
	}
}

// cells is a row as text.
func cells(r *schemas.Rows, row int) string {
	var all []string
	for i, c := range r.Columns() {
		all = append(all, c.Name+"="+cell(r, i, row))
	}
	return strings.Join(all, " ")
}

// expected is what a column makes of a value that was decoded whole, as text; "?" for what only the JSON form tells.
func expected(c schemas.Column, v any) string {
	for _, name := range c.Path {
		m, ok := v.(map[string]any)
		if !ok {
			return "null"
		}
		v = m[name]
	}
	if v == nil {
		return "null"
	}
	if c.Kind == schemas.KindJSON {
		return "?"
	}
	switch v := v.(type) {
	case bool:
		if v {
			return "1"
		}
		return "0"
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 64)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case []byte:
		return hex.EncodeToString(v)
	case *big.Rat:
		return v.FloatString(c.Scale)
	case time.Duration:
		return strconv.FormatInt(v.Microseconds(), 10)
	case time.Time:
		if c.Kind == schemas.KindDate {
			return strconv.FormatInt(v.Unix()/86_400, 10)
		}
		return strconv.FormatInt(v.UnixMicro(), 10)
	}
	return fmt.Sprint(v)
}

// Rows say of every field what decoding the whole value says, on random schemas; JSON columns are the JSON form, and
// a row that was refused leaves no trace.
func TestRowsAgreeWithTheWhole(t *testing.T) {
	t.Parallel()
	m := &maker{Rand: rand.New(rand.NewPCG(5, 6))}
	for i := range 1500 {
		reg := schemas.Memory()
		text, value := m.record("x.Root", 4)
		s, err := reg.Register(t.Context(), "t-value", text)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := s.Columns()
		if err != nil {
			t.Fatalf("%d: %s: %v", i, text, err)
		}
		rows, err := reg.NewRows(columns...)
		if err != nil {
			t.Fatal(err)
		}
		_, c := generic(t, text)
		var want []string
		for range 4 {
			body, err := c.Append(nil, value())
			if err != nil {
				t.Fatal(err)
			}
			var whole any
			if err := c.Decode(body, &whole); err != nil {
				t.Fatal(err)
			}
			if err := rows.Append(t.Context(), framed(s, body)); err != nil {
				t.Fatalf("%d: %s: %v", i, text, err)
			}
			row := rows.Len() - 1
			for j, column := range columns {
				want := expected(column, whole)
				if want == "?" {
					want = jsonAt(t, s, column, body)
				}
				if got := cell(rows, j, row); got != want {
					t.Fatalf("%d: %s: %v: got %s, want %s", i, text, column.Path, got, want)
				}
			}
			want = append(want, cells(rows, row))
			for cut := range len(body) {
				if err := rows.Append(t.Context(), framed(s, body[:cut])); !errors.Is(err, schemas.ErrPoison) {
					t.Fatalf("%d: %s: %d bytes of %d: got %v, want poison", i, text, cut, len(body), err)
				}
			}
			if err := rows.Append(t.Context(), framed(s, append(body, 0))); !errors.Is(err, schemas.ErrPoison) {
				t.Fatalf("%d: %s: a byte after the value: got %v, want poison", i, text, err)
			}
		}
		for row := range want {
			if got := cells(rows, row); got != want[row] || rows.Len() != len(want) {
				t.Fatalf("%d: %s: row %d is %s, was %s", i, text, row, got, want[row])
			}
		}
	}
}

// jsonAt is the JSON form of the value at the path of a column.
func jsonAt(t *testing.T, s schemas.Schema, c schemas.Column, body []byte) string {
	t.Helper()
	whole, err := s.AppendJSON(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(whole)
	for _, name := range c.Path {
		text = member(text, name)
	}
	return text
}

// member is the text of an object's member; names of test fields are f0 to f9 and occur once a level.
func member(object, name string) string {
	depth, quoted := 0, false
	start := -1
	for i := 0; i < len(object); i++ {
		switch c := object[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			if !quoted && depth == 1 && start < 0 && strings.HasPrefix(object[i:], `"`+name+`":`) {
				start = i + len(name) + 3
			}
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 && start >= 0 {
				return object[start:i]
			}
		case c == ',' && depth == 1 && start >= 0 && i > start:
			return object[start:i]
		}
	}
	return object[start:]
}

const (
	rowsV1 = `{"type":"record","name":"shop.Order","fields":[
		{"name":"id","type":"string"},
		{"name":"cents","type":"int"},
		{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
		{"name":"note","type":["null","string"],"default":null}]}`
	rowsV2 = `{"type":"record","name":"shop.Order","fields":[
		{"name":"customer","type":["null",{"type":"record","name":"Customer","fields":[
			{"name":"country","type":"string","default":"??"},{"name":"vip","type":"boolean","default":false}]}],"default":null},
		{"name":"id","type":"string"},
		{"name":"cents","type":"long"},
		{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2},"default":"\u0007\u00c6"},
		{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
		{"name":"tags","type":{"type":"array","items":"string"},"default":["new"]},
		{"name":"note","type":["null","string"],"default":null}]}`
)

func register(tb testing.TB, reg *schemas.Registry, text string) schemas.Schema {
	tb.Helper()
	s, err := reg.Register(tb.Context(), "t-value", text)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func fromJSON(tb testing.TB, s schemas.Schema, text string) *event.Event {
	tb.Helper()
	body, err := s.FromJSON(nil, []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return framed(s, body)
}

// Events of two versions of a schema, JSON and tombstones are rows of the same columns.
func TestRowsOfSeveralWriters(t *testing.T) {
	t.Parallel()
	reg := schemas.MemoryWith(map[string]schemas.Topic{"plain": {Format: schemas.JSON()}})
	v1, v2 := register(t, reg, rowsV1), register(t, reg, rowsV2)
	columns, err := v2.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for i := range columns {
		columns[i].Key = columns[i].Name == "id"
	}
	rows, err := reg.NewRows(columns...)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		e    *event.Event
		want string
	}{
		{
			"the newer", fromJSON(t, v2,
				`{"id":"o1","cents":5000000000,"customer":{"country":"DE","vip":true},"total":"-0.05","at":"2026-01-02T03:04:05.000006Z","tags":["a","b"],"note":"x"}`),
			`customer_country=DE customer_vip=1 id=o1 cents=5000000000 total=-0.05 at=1767323045000006 tags=["a","b"] note=x`,
		},
		{
			"the older: defaults, another unit, a smaller number", fromJSON(t, v1,
				`{"id":"o2","cents":-7,"at":"2026-01-02T03:04:05.006Z"}`),
			`customer_country=null customer_vip=null id=o2 cents=-7 total=19.90 at=1767323045006000 tags=["new"] note=null`,
		},
		{
			"JSON", &event.Event{Meta: event.Meta{Topic: "plain"}, Value: []byte(`{"id":"o3","cents":1,"customer":{"country":"FR"},"total":"1.5","at":"2026-01-02T03:04:05Z","tags":[]}`)},
			`customer_country=FR customer_vip=0 id=o3 cents=1 total=1.50 at=1767323045000000 tags=[] note=null`,
		},
		{
			"a tombstone", &event.Event{Meta: event.Meta{Topic: "t", Key: []byte("o4")}},
			`customer_country=null customer_vip=null id=o4 cents=0 total= at=0 tags= note=null`,
		},
	} {
		if err := rows.Append(t.Context(), tt.e); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := cells(rows, rows.Len()-1); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	if got, want := rows.Deleted(), []bool{false, false, false, true}; !slices.Equal(got, want) {
		t.Errorf("deleted: got %v, want %v", got, want)
	}
	rows.Reset()
	if rows.Len() != 0 || rows.Size() != 0 || rows.Deleted() != nil {
		t.Error("something is left after Reset")
	}
}

func TestRowsRefuse(t *testing.T) {
	t.Parallel()
	str := func(name string) schemas.Column {
		return schemas.Column{Name: name, Path: []string{name}, Kind: schemas.KindString}
	}
	record := func(field string) string {
		return `{"type":"record","name":"x.R","fields":[{"name":"a","type":` + field + `}]}`
	}
	for _, tt := range []struct {
		name, text, value string
		column            schemas.Column
		want              error
		says              string
	}{
		{"a kind that does not fit", record(`"long"`), `{"a":1}`, str("a"), schemas.ErrIncompatible, "the writer has a long, the column a string"},
		{"a null for a column that takes none", record(`["null","string"]`), `{"a":null}`, str("a"), schemas.ErrIncompatible, "column a, which takes none"},
		{"a field that is not there", record(`"string"`), `{"a":"x"}`, str("b"), schemas.ErrIncompatible, "has no default and takes no null"},
		{"a branch that does not fit", record(`["string","long"]`), `{"a":7}`, str("a"), schemas.ErrIncompatible, "the writer has a long"},
		{
			"a decimal of another scale", record(`{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}`), `{"a":"1.5"}`,
			schemas.Column{Name: "a", Path: []string{"a"}, Kind: schemas.KindDecimal, Precision: 9, Scale: 2},
			schemas.ErrIncompatible, "scale 3 does not fit one of scale 2",
		},
		{
			"more digits than the precision", record(`{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`), `{"a":"1000.00"}`,
			schemas.Column{Name: "a", Path: []string{"a"}, Kind: schemas.KindDecimal, Precision: 5, Scale: 2},
			schemas.ErrPoison, "more than 5 digits",
		},
		{"text that is no UUID", record(`"string"`), `{"a":"x"}`, schemas.Column{Name: "a", Path: []string{"a"}, Kind: schemas.KindUUID}, schemas.ErrPoison, "not a UUID"},
		{
			"a timestamp beyond microseconds", record(`{"type":"long","logicalType":"timestamp-millis"}`), `{"a":9223372036854775807}`,
			schemas.Column{Name: "a", Path: []string{"a"}, Kind: schemas.KindTimestamp},
			schemas.ErrPoison, "out of range",
		},
		{
			"a time of day beyond the day", record(`{"type":"int","logicalType":"time-millis"}`), `{"a":86400000}`,
			schemas.Column{Name: "a", Path: []string{"a"}, Kind: schemas.KindTime},
			schemas.ErrPoison, "out of range",
		},
		{
			"a path through what is no record", record(`"string"`), `{"a":"x"}`,
			schemas.Column{Name: "b", Path: []string{"a", "b"}, Kind: schemas.KindString},
			schemas.ErrIncompatible, "within a record",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := schemas.Memory()
			s := register(t, reg, tt.text)
			rows, err := reg.NewRows(tt.column)
			if err != nil {
				t.Fatal(err)
			}
			err = rows.Append(t.Context(), fromJSON(t, s, tt.value))
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || rows.Len() != 0 {
				t.Errorf("got %v, want %v that says %q", err, tt.want, tt.says)
			}
		})
	}
	for name, c := range map[string]schemas.Column{
		"no name":       {Path: []string{"a"}},
		"no path":       {Name: "a"},
		"no kind":       {Name: "a", Path: []string{"a"}, Kind: 99},
		"no decimal":    {Name: "a", Path: []string{"a"}, Kind: schemas.KindDecimal},
		"no attribute":  {Name: "a", Path: []string{"$color"}, Kind: schemas.KindString, Nullable: true},
		"not its kind":  {Name: "a", Path: []string{"$offset"}, Kind: schemas.KindString},
		"a key is null": {Name: "a", Path: []string{"$header.x"}, Kind: schemas.KindString},
	} {
		if _, err := schemas.Memory().NewRows(c); err == nil {
			t.Errorf("%s: NewRows takes %+v", name, c)
		}
	}
	if _, err := schemas.Memory().NewRows(str("a"), str("A")); err == nil {
		t.Error("NewRows takes two columns of one name")
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	s, err := schemas.Parse(`{"type":"record","name":"x.Tree","fields":[
		{"name":"left","type":["null","Tree"]},
		{"name":"kind","type":{"type":"enum","name":"K","symbols":["A"]}},
		{"name":"several","type":["string","long"]},
		{"name":"for","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}},
		{"name":"due","type":["null",{"type":"long","logicalType":"local-timestamp-nanos"}]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := s.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range columns {
		got = append(got, fmt.Sprintf("%s %s %t %t", c.Name, c.Kind, c.Nullable, c.Local))
	}
	want := []string{"left json true false", "kind string false false", "several json false false", "for string false false", "due timestamp true true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if c, err := s.Column("left", "kind"); err != nil || c.Name != "left_kind" || c.Kind != schemas.KindString || !c.Nullable {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, path := range [][]string{nil, {"no"}, {"kind", "no"}} {
		if _, err := s.Column(path...); !errors.Is(err, schemas.ErrIncompatible) {
			t.Errorf("%q: got %v", path, err)
		}
	}
	clash, err := schemas.Parse(`{"type":"record","name":"x.R","fields":[{"name":"a_b","type":"int"},
		{"name":"A","type":{"type":"record","name":"Q","fields":[{"name":"b","type":"int"}]}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clash.Columns(); !errors.Is(err, schemas.ErrIncompatible) || !strings.Contains(err.Error(), "a_b and A.b") {
		t.Errorf("two columns of one name: %v", err)
	}
	if many, err := schemas.Parse(doubling(40)); err == nil {
		if _, err := many.Columns(); err == nil {
			t.Error("2^40 fields are columns")
		}
	}
	text, err := schemas.Parse(`"string"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := text.Columns(); !errors.Is(err, schemas.ErrIncompatible) {
		t.Errorf("columns of a string: %v", err)
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	var columns []schemas.Column
	for _, path := range []string{"$key", "$id", "$type", "$source", "$tenant", "$topic", "$partition", "$offset", "$time", "$published", "$header.x-trace"} {
		c, err := schemas.Attribute(path)
		if err != nil {
			t.Fatal(err)
		}
		columns = append(columns, c)
	}
	rows, err := reg.NewRows(columns...)
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMicro(1_700_000_000_000_001)
	full := event.Event{Meta: event.Meta{
		ID: "i", Type: "T", Source: "s", Tenant: "t", Topic: "p", Partition: 3, Offset: 4, Time: at, Published: at.Add(time.Second),
		Key: []byte("k"), Headers: event.Headers{{Key: "x-trace", Value: []byte("h")}},
	}, Value: []byte("no schema is needed")}
	empty := event.Event{Meta: event.Meta{ID: "i", Published: at}, Value: []byte{}}
	for e, want := range map[*event.Event]string{
		&full:  "key=k id=i type=T source=s tenant=t topic=p partition=3 offset=4 time=1700000000000001 published=1700000001000001 header_x_trace=h",
		&empty: "key=null id=i type= source= tenant=null topic= partition=0 offset=0 time=null published=1700000000000001 header_x_trace=null",
	} {
		if err := rows.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if got := cells(rows, rows.Len()-1); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if err := rows.Append(t.Context(), &event.Event{Meta: event.Meta{Key: []byte{0xff}}}); !errors.Is(err, schemas.ErrPoison) {
		t.Errorf("a key that is no text: %v", err)
	}
	columns[0].Kind = schemas.KindBytes
	if rows, err = reg.NewRows(columns[0]); err != nil {
		t.Fatal(err)
	}
	if err := rows.Append(t.Context(), &event.Event{Meta: event.Meta{Key: []byte{0xff}}}); err != nil || cell(rows, 0, 0) != "ff" {
		t.Errorf("a key as bytes: %v", err)
	}
}

// Reduce leaves the last row of each key in the order of keys, and Part takes the deleted ones out.
func TestRowsReduce(t *testing.T) {
	t.Parallel()
	reg := schemas.MemoryWith(map[string]schemas.Topic{"plain": {Format: schemas.JSON()}})
	random := rand.New(rand.NewPCG(7, 8))
	for _, kind := range []schemas.ColumnKind{schemas.KindString, schemas.KindInt, schemas.KindFloat} {
		key := schemas.Column{Name: "k", Path: []string{"k"}, Kind: kind, Key: true, Nullable: kind == schemas.KindInt}
		at, err := schemas.Attribute("$offset")
		if err != nil {
			t.Fatal(err)
		}
		rows, err := reg.NewRows(key, at)
		if err != nil {
			t.Fatal(err)
		}
		type last struct {
			offset int64
			gone   bool
		}
		want := map[string]last{}
		for offset := range int64(2000) {
			n := random.IntN(200) - 100
			e := event.Event{Meta: event.Meta{Topic: "plain", Offset: offset, Key: []byte(strconv.Itoa(n))}}
			if gone := random.IntN(4) == 0; !gone {
				e.Value = fmt.Appendf(nil, `{"k":%d}`, n)
				if kind == schemas.KindString {
					e.Value = fmt.Appendf(nil, `{"k":"%d"}`, n)
				}
			}
			if err := rows.Append(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
			want[strconv.Itoa(n)] = last{offset, e.Value == nil}
		}
		rows.Reduce(0)
		if rows.Len() != len(want) {
			t.Fatalf("%s: %d rows of %d keys", kind, rows.Len(), len(want))
		}
		deleted := rows.Fresh()
		if err := rows.Part(deleted); err != nil {
			t.Fatal(err)
		}
		for _, part := range []*schemas.Rows{rows, deleted} {
			for row := range part.Len() {
				if got := (last{part.Ints(1)[row], part == deleted}); got != want[cell(part, 0, row)] {
					t.Errorf("%s: key %s: got %v, want %v", kind, cell(part, 0, row), got, want[cell(part, 0, row)])
				}
				if row > 0 && part.Compare(row-1, row, []int{0}) >= 0 {
					t.Errorf("%s: rows %d and %d are not in order", kind, row-1, row)
				}
			}
		}
		if rows.Len()+deleted.Len() != len(want) || rows.Deleted() != nil {
			t.Errorf("%s: %d and %d rows of %d", kind, rows.Len(), deleted.Len(), len(want))
		}
	}
}

// Texts and numbers that were read stay what they are when the rows are used again; a second reader of the bytes
// sees no row of before.
func TestRowsReset(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	s := register(t, reg, rowsV1)
	columns, err := s.Columns()
	if err != nil {
		t.Fatal(err)
	}
	rows, err := reg.NewRows(columns...)
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.Append(t.Context(), fromJSON(t, s, `{"id":"first","cents":1,"at":0}`)); err != nil {
		t.Fatal(err)
	}
	before := rows.Texts(0)
	rows.Reset()
	if err := rows.Append(t.Context(), fromJSON(t, s, `{"id":"other","cents":1,"at":0}`)); err != nil {
		t.Fatal(err)
	}
	if after := rows.Texts(0); before[0] != "first" || after[0] != "other" {
		t.Errorf("got %q, then %q", before, after)
	}
}
