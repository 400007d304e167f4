package registry

import (
	"math"
	"strings"
	"testing"
)

// The pairs are from Avro's Java library, version 1.12.0: the text that a client sends, and Schema.toString of it.
func TestCanonicalText(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"a primitive", `"string"`, `"string"`},
		{"a primitive as an object", `{"type":"int"}`, `"int"`},
		{"a bare primitive", `long`, `"long"`},
		{"a primitive with a property", `{"type":"bytes","scale":2,"logicalType":"decimal","precision":9}`, `{"type":"bytes","scale":2,"logicalType":"decimal","precision":9}`},
		{"spaces", "{ \"type\" : \"array\" ,\n\t\"items\" : \"int\" }", `{"type":"array","items":"int"}`},
		{
			"the order of a record's members", `{"aliases":["B"],"x":1,"fields":[],"doc":"d","namespace":"n","name":"R","type":"record","y":{"b":1,"a":[null,true]}}`,
			`{"type":"record","name":"R","namespace":"n","doc":"d","fields":[],"x":1,"y":{"b":1,"a":[null,true]},"aliases":["B"]}`,
		},
		{
			"the order of a field's members", `{"type":"record","name":"R","fields":[{"x":"y","aliases":["b"],"order":"descending","default":1,"doc":"d","type":"int","name":"a"},{"name":"c","type":"int","order":"ascending"},{"name":"d","type":"int","order":"IGNORE"}]}`,
			`{"type":"record","name":"R","fields":[{"name":"a","type":"int","doc":"d","default":1,"order":"descending","aliases":["b"],"x":"y"},{"name":"c","type":"int"},{"name":"d","type":"int","order":"ignore"}]}`,
		},
		{
			"the order of an enum's members", `{"aliases":["o.B"],"x":1,"default":"B","symbols":["A","B"],"doc":"d","namespace":"n","name":"E","type":"enum"}`,
			`{"type":"enum","name":"E","namespace":"n","doc":"d","symbols":["A","B"],"default":"B","x":1,"aliases":["o.B"]}`,
		},
		{
			"the order of a fixed's members", `{"size":16,"name":"n.F","logicalType":"uuid","doc":"","type":"fixed"}`,
			`{"type":"fixed","name":"F","namespace":"n","doc":"","size":16,"logicalType":"uuid"}`,
		},
		{"an error", `{"type":"error","name":"E","fields":[]}`, `{"type":"error","name":"E","fields":[]}`},
		{"a map and its property", `{"values":{"type":"array","items":"int","y":2},"x":1,"type":"map"}`, `{"type":"map","values":{"type":"array","items":"int","y":2},"x":1}`},
		{"a union", `["null",{"type":"string"},{"type":"map","values":"int"}]`, `["null","string",{"type":"map","values":"int"}]`},
		{
			"a namespace that is inherited, and one that is not", `{"type":"record","name":"n.R","fields":[{"name":"a","type":{"type":"fixed","name":"F","size":1}},{"name":"b","type":{"type":"fixed","name":"G","namespace":"o","size":1}},{"name":"c","type":["F","o.G","n.F2"]}]}`,
			``, // F2 is unknown
		},
		{
			"a second use is a name, short in its namespace", `{"type":"record","name":"n.R","fields":[{"name":"a","type":{"type":"fixed","name":"F","size":1}},{"name":"b","type":{"type":"fixed","name":"G","namespace":"o","size":1}},{"name":"c","type":["n.F","o.G","R"]}]}`,
			`{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":{"type":"fixed","name":"F","size":1}},{"name":"b","type":{"type":"fixed","name":"G","namespace":"o","size":1}},{"name":"c","type":["F","o.G","R"]}]}`,
		},
		{
			"no namespace within one", `{"type":"record","name":"n.R","fields":[{"name":"a","type":{"type":"fixed","name":"F","namespace":"","size":1}},{"name":"b","type":"F"}]}`,
			`{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":{"type":"fixed","name":"F","namespace":"","size":1}},{"name":"b","type":"F"}]}`,
		},
		{
			"a short name that is a type's is written in full", `{"type":"record","name":"n.R","fields":[{"name":"a","type":{"type":"fixed","name":"n.map","size":1}},{"name":"b","type":"n.map"}]}`,
			`{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":{"type":"fixed","name":"map","size":1}},{"name":"b","type":"n.map"}]}`,
		},
		{"a type by name in an object", `{"type":"record","name":"R","fields":[{"name":"a","type":["null",{"type":"R"}]}]}`, `{"type":"record","name":"R","fields":[{"name":"a","type":["null","R"]}]}`},
		{"aliases in their own namespace and another", `{"type":"fixed","name":"n.F","size":1,"aliases":["G","n.H","o.I","G"]}`, `{"type":"fixed","name":"F","namespace":"n","size":1,"aliases":["G","H","o.I"]}`},
		{"no default is not a null default", `{"type":"record","name":"R","fields":[{"name":"a","type":["null","int"],"default":null},{"name":"b","type":"int"}]}`, `{"type":"record","name":"R","fields":[{"name":"a","type":["null","int"],"default":null},{"name":"b","type":"int"}]}`},
		{
			"numbers", `{"type":"record","name":"R","fields":[{"name":"a","type":"double","default":1.50e2},{"name":"b","type":"double","default":1e21},{"name":"c","type":"double","default":7},{"name":"d","type":"float","default":0.0001},{"name":"e","type":"long","default":-9223372036854775808},{"name":"f","type":"double","default":-0.0}]}`,
			`{"type":"record","name":"R","fields":[{"name":"a","type":"double","default":150.0},{"name":"b","type":"double","default":1.0E21},{"name":"c","type":"double","default":7},{"name":"d","type":"float","default":1.0E-4},{"name":"e","type":"long","default":-9223372036854775808},{"name":"f","type":"double","default":-0.0}]}`,
		},
		{"strings", `{"type":"fixed","name":"F","size":1,"doc":"< > & / \u2028 \u007f \u00e9 \b\t\n\f\r\u001f\u0000\"\\ \/ \ud83d\ude00"}`, "{\"type\":\"fixed\",\"name\":\"F\",\"doc\":\"< > & / \u2028 \u007f é \\b\\t\\n\\f\\r\\u001F\\u0000\\\"\\\\ / 😀\",\"size\":1}"},
		{"a member twice", `{"type":"fixed","x":1,"name":"F","y":2,"size":1,"x":3}`, `{"type":"fixed","name":"F","size":1,"x":3,"y":2}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tree, _, err := parseSchema(tt.in)
			if tt.want == "" {
				if err == nil {
					t.Error("parsed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := canonicalText(tree, nil, false)
			if got != tt.want {
				t.Errorf("\ngot  %s\nwant %s", got, tt.want)
			}
			again, _, err := parseSchema(got)
			if err != nil {
				t.Fatal(err)
			}
			if twice := canonicalText(again, nil, false); twice != got {
				t.Errorf("printed again\ngot  %s\nwant %s", twice, got)
			}
		})
	}
}

func TestNormalForm(t *testing.T) {
	t.Parallel()
	in := `{"type":"record","name":"R","doc":"","z":{"b":1,"a":2},"a":1,"aliases":["Z","A"],"fields":[{"name":"a","doc":"","type":{"type":"bytes","x":1,"scale":0,"precision":9,"logicalType":"decimal"}}]}`
	want := `{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"bytes","logicalType":"decimal","precision":9,"x":1},"doc":""}],"a":1,"z":{"a":2,"b":1},"aliases":["A","Z"]}`
	tree, _, err := parseSchema(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := canonicalText(tree, nil, true); got != want {
		t.Errorf("\ngot  %s\nwant %s", got, want)
	}
}

func TestDoublesAreJavas(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]float64{
		"0.0": 0, "-0.0": math.Copysign(0, -1), "1.0": 1, "0.001": 0.001, "9.99E-4": 0.000999, "1.0E7": 1e7, "9999999.0": 9999999,
		"1.2345678E7": 12345678, "1.7976931348623157E308": math.MaxFloat64, "0.1": 0.1, "100.5": 100.5,
		`"NaN"`: math.NaN(), `"-Infinity"`: math.Inf(-1),
	} {
		if got := string(appendDouble(nil, f)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSchemasThatAreNone(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		``, `x`, `{}`, `[`, `"Unknown"`, `7`, `{"type":7}`, `{"type":"wrong"}`, `"int" "int"`,
		`{"type":"array"}`, `{"type":"map"}`, `{"type":"record","name":"R"}`, `{"type":"record","fields":[]}`,
		`{"type":"record","name":"","fields":[]}`, `{"type":"record","name":"int","fields":[]}`, `{"type":"record","name":"R","fields":{}}`,
		`{"type":"record","name":"R","fields":[1]}`, `{"type":"record","name":"R","fields":[{"type":"int"}]}`,
		`{"type":"record","name":"R","fields":[{"name":"a"}]}`, `{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}`,
		`{"type":"record","name":"R","fields":[{"name":"a","type":"int","order":"up"}]}`, `{"type":"record","name":"R","fields":[{"name":"a","type":"int","aliases":"b"}]}`,
		`{"type":"record","name":"R","fields":[{"name":"a","type":"double","default":"x"}]}`,
		`{"type":"enum","name":"E"}`, `{"type":"enum","name":"E","symbols":[1]}`, `{"type":"enum","name":"E","symbols":["A"],"default":"B"}`,
		`{"type":"fixed","name":"F"}`, `{"type":"fixed","name":"F","size":-1}`, `{"type":"fixed","name":"F","size":1.5}`, `{"type":"fixed","name":"F","size":4294967296}`,
		`["int","int"]`, `["int",["null"]]`, `[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":1}]`,
		strings.Repeat(`[`, 2000), strings.Repeat(`{"type":"array","items":`, 2000) + `"int"` + strings.Repeat(`}`, 2000),
	} {
		if tree, _, err := parseSchema(in); err == nil {
			t.Errorf("%.80s: parsed as %s", in, canonicalText(tree, nil, false))
		}
	}
}
