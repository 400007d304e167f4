package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func record(fields string) string {
	return `{"type":"record","name":"R","namespace":"n","fields":[` + fields + `]}`
}

// The verdicts and places are those of Avro's Java library, SchemaCompatibility of version 1.12.0.
func TestCanRead(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, reader, writer string
		want                 []string // kind, location, message
	}{
		{"the same", `"int"`, `"int"`, nil},
		{"int to long", `"long"`, `"int"`, nil},
		{"int to float", `"float"`, `"int"`, nil},
		{"int to double", `"double"`, `"int"`, nil},
		{"long to float", `"float"`, `"long"`, nil},
		{"long to double", `"double"`, `"long"`, nil},
		{"float to double", `"double"`, `"float"`, nil},
		{"string to bytes", `"bytes"`, `"string"`, nil},
		{"bytes to string", `"string"`, `"bytes"`, nil},
		{"long to int", `"int"`, `"long"`, []string{"TYPE_MISMATCH / reader type: INT not compatible with writer type: LONG"}},
		{"double to float", `"float"`, `"double"`, []string{"TYPE_MISMATCH / reader type: FLOAT not compatible with writer type: DOUBLE"}},
		{"string to int", `"int"`, `"string"`, []string{"TYPE_MISMATCH / reader type: INT not compatible with writer type: STRING"}},
		{"array of other", `{"type":"array","items":"int"}`, `{"type":"array","items":"string"}`, []string{"TYPE_MISMATCH /items reader type: INT not compatible with writer type: STRING"}},
		{"map of other", `{"type":"map","values":"int"}`, `{"type":"map","values":"string"}`, []string{"TYPE_MISMATCH /values reader type: INT not compatible with writer type: STRING"}},
		{"array to map", `{"type":"map","values":"int"}`, `{"type":"array","items":"int"}`, []string{"TYPE_MISMATCH / reader type: MAP not compatible with writer type: ARRAY"}},
		{"fixed of other size", `{"type":"fixed","name":"F","size":4}`, `{"type":"fixed","name":"F","size":8}`, []string{"FIXED_SIZE_MISMATCH /size expected: 8, found: 4"}},
		{"fixed of other name", `{"type":"fixed","name":"F","size":4}`, `{"type":"fixed","name":"n.G","size":4}`, []string{"NAME_MISMATCH /name expected: n.G"}},
		{"another namespace", `{"type":"fixed","name":"a.F","size":4}`, `{"type":"fixed","name":"b.F","size":4}`, nil},
		{"an alias", `{"type":"fixed","name":"a.F","aliases":["b.G"],"size":4}`, `{"type":"fixed","name":"b.G","size":4}`, nil},
		{"an alias in another namespace", `{"type":"fixed","name":"a.F","aliases":["G"],"size":4}`, `{"type":"fixed","name":"b.G","size":4}`, []string{"NAME_MISMATCH /name expected: b.G"}},
		{"fewer symbols", `{"type":"enum","name":"E","symbols":["A"]}`, `{"type":"enum","name":"E","symbols":["A","C","B"]}`, []string{"MISSING_ENUM_SYMBOLS /symbols [B, C]"}},
		{"fewer symbols and a default", `{"type":"enum","name":"E","symbols":["A"],"default":"A"}`, `{"type":"enum","name":"E","symbols":["A","B"]}`, nil},
		{"more symbols", `{"type":"enum","name":"E","symbols":["A","B"]}`, `{"type":"enum","name":"E","symbols":["A"]}`, nil},
		{"a field more without default", record(`{"name":"a","type":"int"}`), record(``), []string{"READER_FIELD_MISSING_DEFAULT_VALUE /fields/0 a"}},
		{"a field more with default", record(`{"name":"a","type":"int","default":1}`), record(``), nil},
		{"a field less", record(``), record(`{"name":"a","type":"int"}`), nil},
		{"a field by its alias", record(`{"name":"b","aliases":["a"],"type":"int"}`), record(`{"name":"a","type":"int"}`), nil},
		{"a field by two aliases", record(`{"name":"c","aliases":["a","b"],"type":"int"}`), record(`{"name":"a","type":"int"},{"name":"b","type":"int"}`), []string{"READER_FIELD_AMBIGUOUS /fields/0 c and its aliases match several fields of the writer"}},
		{"a field that is an enum with a default", record(`{"name":"a","type":{"type":"enum","name":"E","symbols":["A"],"default":"A"}}`), record(``), []string{"TYPE_MISMATCH /fields/0/type reader type: ENUM not compatible with writer type: RECORD"}},
		{"several faults", record(`{"name":"a","type":"int"},{"name":"b","type":"string"}`), record(`{"name":"b","type":"long"}`), []string{
			"READER_FIELD_MISSING_DEFAULT_VALUE /fields/0 a", "TYPE_MISMATCH /fields/1/type reader type: STRING not compatible with writer type: LONG",
		}},
		{"other record", record(``), `{"type":"record","name":"S","fields":[]}`, []string{"NAME_MISMATCH /name expected: S"}},
		{"union to a wider one", `["null","int","string"]`, `["null","int"]`, nil},
		{"union to a narrower one", `["null","int"]`, `["null","int","string"]`, []string{"MISSING_UNION_BRANCH /2 reader union lacking writer type: STRING"}},
		{"union by promotion", `["null","long"]`, `["null","int"]`, nil},
		{"into a union", `["null","int"]`, `"int"`, nil},
		{"into a union without it", `["null","int"]`, `"string"`, []string{"MISSING_UNION_BRANCH / reader union lacking writer type: STRING"}},
		{"out of a union", `"int"`, `["null","int"]`, []string{"TYPE_MISMATCH /0 reader type: INT not compatible with writer type: NULL"}},
		{"out of a union of one", `"long"`, `["int"]`, nil},
		{"out of an empty union", `"int"`, `[]`, nil},
		{"a decimal of other precision", `{"type":"bytes","logicalType":"decimal","precision":4}`, `{"type":"bytes","logicalType":"decimal","precision":9}`, nil},
		{"lists", `{"type":"record","name":"L","fields":[{"name":"v","type":"long"},{"name":"n","type":["null","L"]}]}`, `{"type":"record","name":"L","fields":[{"name":"v","type":"int"},{"name":"n","type":["null","L"]}]}`, nil},
		{"lists of other", `{"type":"record","name":"L","fields":[{"name":"n","type":["null","L"]},{"name":"v","type":"int"}]}`, `{"type":"record","name":"L","fields":[{"name":"n","type":["null","L"]},{"name":"v","type":"string"}]}`, []string{"TYPE_MISMATCH /fields/1/type reader type: INT not compatible with writer type: STRING"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			found, err := canRead(mustParse(t, tt.reader), mustParse(t, tt.writer))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range found {
				got = append(got, fmt.Sprintf("%s %s %s", c.kind, c.location, c.message))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("\ngot  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func mustParse(t *testing.T, text string) *node {
	t.Helper()
	tree, _, err := parseSchema(text)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestLevels(t *testing.T) {
	t.Parallel()
	old := record(`{"name":"a","type":"int"}`)
	more := record(`{"name":"a","type":"int"},{"name":"b","type":"int"}`)
	both := record(`{"name":"a","type":"int"},{"name":"b","type":"int","default":0}`)
	tests := []struct {
		level          Level
		candidate, old string
		want           bool
	}{
		{LevelNone, `"int"`, old, true},
		{LevelBackward, more, old, false},
		{LevelBackward, old, more, true},
		{LevelForward, more, old, true},
		{LevelForward, old, more, false},
		{LevelFull, more, old, false},
		{LevelFull, old, more, false},
		{LevelFull, both, old, true},
		{LevelFullTransitive, old, both, true},
		{LevelBackwardTransitive, more, old, false},
		{LevelForwardTransitive, old, more, false},
	}
	for _, tt := range tests {
		found, err := compatible(tt.level, mustParse(t, tt.old), mustParse(t, tt.candidate))
		if err != nil || (len(found) == 0) != tt.want {
			t.Errorf("%s: %s after %s: got %v, %v; want compatible %v", tt.level, tt.candidate, tt.old, found, err, tt.want)
		}
	}
}

// Two large unions have more pairs than anyone should pay for.
func TestComparisonIsBounded(t *testing.T) {
	t.Parallel()
	union := func(prefix string) string {
		var b []string
		for i := range 3_000 {
			b = append(b, fmt.Sprintf(`{"type":"fixed","name":"%s%d","size":1}`, prefix, i))
		}
		return "[" + strings.Join(b, ",") + "]"
	}
	start := time.Now()
	_, err := canRead(mustParse(t, union("A")), mustParse(t, union("B")))
	if err == nil {
		t.Error("nine million pairs were compared")
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}
