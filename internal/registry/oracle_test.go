package registry

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/millrace/millrace/schemas"
)

// The file holds what Avro's Java library, version 1.12.0, says of generated pairs of schemas: Schema.toString of the
// reader, and SchemaCompatibility of the pair.
func TestAgreesWithAvroJava(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/avro-java-1.12.0.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	printed, incompatible := 0, 0
	for n := 1; lines.Scan(); n++ {
		var java struct {
			Reader, Writer string
			Printed        string
			Compatible     bool
			Conflicts      []string
			Error          string
		}
		if err := json.Unmarshal(lines.Bytes(), &java); err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		if java.Error != "" {
			refused(t, n, java.Error, java.Reader, java.Writer)
			continue
		}
		r, w := mustParse(t, java.Reader), mustParse(t, java.Writer)
		printed++
		if got := canonicalText(r, nil, false); got != java.Printed {
			t.Errorf("line %d:\ngot  %s\nJava %s", n, got, java.Printed)
		}
		found, err := canRead(r, w)
		if err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		var got []string
		for _, c := range found {
			got = append(got, fmt.Sprintf("%s %s %s", c.kind, c.location, c.message))
		}
		slices.Sort(got)
		slices.Sort(java.Conflicts)
		if !java.Compatible {
			incompatible++
		}
		if !slices.Equal(got, java.Conflicts) {
			t.Errorf("line %d:\ngot  %q\nJava %q\nreader %s\nwriter %s", n, got, java.Conflicts, java.Reader, java.Writer)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if printed < 120 || incompatible < 30 {
		t.Errorf("the file has %d pairs, %d of them incompatible: too few", printed, incompatible)
	}
}

// refused checks that the registry, which admits what its parser and that of the codecs take, refuses what Java refuses.
func refused(t *testing.T, line int, why string, texts ...string) {
	t.Helper()
	var trees []*node
	for _, text := range texts {
		tree, _, err := parseSchema(text)
		if err != nil {
			return
		}
		if _, err := schemas.Parse(text); err != nil {
			return
		}
		trees = append(trees, tree)
	}
	// Java throws where two fields match; here it is a conflict.
	if found, err := canRead(trees[0], trees[1]); err == nil && len(found) > 0 && found[0].kind == "READER_FIELD_AMBIGUOUS" {
		return
	}
	t.Errorf("line %d: Java refuses it: %s\n%q", line, why, texts)
}
