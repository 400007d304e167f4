package schemas_test

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/schemas"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       string // the name
		wantText   string
	}{
		{"record", `{"type":"record","name":"OrderPlaced","namespace":"shop","fields":[]}`, "shop.OrderPlaced", ""},
		{"dotted name", `{"type":"record","name":"shop.OrderPlaced","fields":[]}`, "shop.OrderPlaced", ""},
		{"no namespace", `{"type":"fixed","name":"F","size":4}`, "F", ""},
		{"primitive", `"long"`, "long", ""},
		{"bare primitive", `long`, "long", `"long"`},
		{"union", `["null", "long"]`, "union", `["null","long"]`},
		{"spaces go", "{ \"type\" : \"array\",\n \"items\":\"string\" }", "array", `{"type":"array","items":"string"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := schemas.Parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != tt.want || got.Type != schemas.TypeAvro {
				t.Errorf("got %s %s, want %s %s", got.Type, got.Name, schemas.TypeAvro, tt.want)
			}
			if want := tt.wantText; want != "" && got.Text != want {
				t.Errorf("got text %s, want %s", got.Text, want)
			}
			if again, err := schemas.Parse(got.Canonical()); err != nil || again.Fingerprint != got.Fingerprint {
				t.Errorf("canonical form %s: %v, fingerprint %x, want %x", got.Canonical(), err, again.Fingerprint, got.Fingerprint)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"type":"array","items":`, 200) + `"int"` + strings.Repeat(`}`, 200)
	wide := `{"type":"record","name":"R","fields":[` + strings.Repeat(`{"name":"a","type":"int"},`, 10_001) + `{"name":"b","type":"int"}]}`
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "  ", "empty"},
		{"no JSON", `{"type":`, "parse schema"},
		{"unknown type", `{"type":"record","name":"R","fields":[{"name":"a","type":"strnig"}]}`, "strnig"},
		{"too deep", deep, "192 levels"},
		{"too many fields", wide, "10000 fields"},
		{"too long", strings.Repeat(" ", 1<<20) + `"int"`, "the limit is 1048576"},
		{"brackets in strings do not count", `{"type":"enum","name":"E","symbols":["{"]}`, "{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := schemas.Parse(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
		})
	}
}

func TestParseReferences(t *testing.T) {
	t.Parallel()
	money, err := schemas.Parse(`{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"cents","type":"long"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	line, err := schemas.Parse(`{"type":"record","name":"Line","namespace":"shop","fields":[{"name":"price","type":"shop.Money"}]}`, money)
	if err != nil {
		t.Fatal(err)
	}
	order, err := schemas.Parse(`{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"total","type":"shop.Money"},{"name":"lines","type":{"type":"array","items":"shop.Line"}}]}`, money, line)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := schemas.Parse(order.Full())
	if err != nil {
		t.Fatal(err)
	}
	if alone.Canonical() != order.Canonical() || alone.Name != "shop.Order" {
		t.Errorf("inlined text is %s, want %s", alone.Canonical(), order.Canonical())
	}
	if strings.Contains(order.Text, "cents") {
		t.Errorf("Text holds a reference: %s", order.Text)
	}
}
