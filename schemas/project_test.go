package schemas_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// framed is body behind the id of a schema.
func framed(s schemas.Schema, body []byte) *event.Event {
	id := s.ID
	return &event.Event{Meta: event.Meta{Topic: "t"}, Value: append([]byte{0, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}, body...)}
}

var fieldName = regexp.MustCompile(`^f\d$`)

// restricted is what a projection is to make of a value that was decoded whole.
func restricted(v any, paths [][]string) any {
	m, ok := v.(map[string]any)
	if !ok || slices.ContainsFunc(paths, func(p []string) bool { return len(p) == 0 }) {
		return v
	}
	out := map[string]any{}
	for k, x := range m {
		if !fieldName.MatchString(k) {
			return v // a map, not a record
		}
		var within [][]string
		for _, p := range paths {
			if p[0] == k {
				within = append(within, p[1:])
			}
		}
		if within != nil {
			out[k] = restricted(x, within)
		}
	}
	return out
}

// A projection is the whole value less what no path names, and refuses what is cut off.
func TestProjectionAgreesWithTheWhole(t *testing.T) {
	t.Parallel()
	m := &maker{Rand: rand.New(rand.NewPCG(3, 4))}
	for i := range 1500 {
		reg := schemas.Memory()
		text, value := m.record("x.Root", 4)
		s, err := reg.Register(t.Context(), "t-value", text)
		if err != nil {
			t.Fatal(err)
		}
		_, c := generic(t, text)
		body, err := c.Append(nil, value())
		if err != nil {
			t.Fatal(err)
		}
		var whole any
		if err := c.Decode(body, &whole); err != nil {
			t.Fatal(err)
		}
		var paths [][]string
		for range m.IntN(4) {
			p := make([]string, m.IntN(3)+1)
			for j := range p {
				p[j] = "f" + string(rune('0'+m.IntN(4)))
			}
			paths = append(paths, p)
		}
		if m.IntN(20) == 0 {
			paths = append(paths, nil)
		}
		p := reg.Project(paths...)
		got, err := p.Decode(t.Context(), framed(s, body))
		if err != nil {
			t.Fatalf("%d: %s: %v", i, text, err)
		}
		if want := restricted(whole, paths); show(got) != show(want) {
			t.Fatalf("%d: %s: %v: got %s, want %s", i, text, paths, show(got), show(want))
		}
		for cut := range len(body) {
			if _, err := p.Decode(t.Context(), framed(s, body[:cut])); !errors.Is(err, schemas.ErrPoison) {
				t.Fatalf("%d: %s: %d bytes of %d: got %v, want poison", i, text, cut, len(body), err)
			}
		}
		if _, err := p.Decode(t.Context(), framed(s, append(body, 0))); !errors.Is(err, schemas.ErrPoison) {
			t.Fatalf("%d: %s: a byte after the value: got %v, want poison", i, text, err)
		}
	}
}

func TestProjectionOfOtherData(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	p := reg.Project([]string{"a"})
	json := event.Meta{Topic: "t", ContentType: "application/json"}
	for _, tt := range []struct {
		name string
		e    event.Event
		want string
	}{
		{"tombstone", event.Event{Meta: json}, "null"},
		{"JSON is read whole", event.Event{Meta: json, Value: []byte(`{"a":1,"b":"x"}`)}, ""},
		{"no JSON", event.Event{Meta: json, Value: []byte(`{`)}, "poison"},
		{"unknown id", event.Event{Meta: event.Meta{Topic: "t"}, Value: []byte{0, 0, 0, 1, 0, 2}}, "poison"},
		{"bytes that say nothing", event.Event{Meta: event.Meta{Topic: "t"}, Value: []byte("hello")}, "poison"},
	} {
		v, err := p.Decode(t.Context(), &tt.e)
		switch {
		case tt.want == "poison":
			if !errors.Is(err, schemas.ErrPoison) {
				t.Errorf("%s: got %v, %v", tt.name, v, err)
			}
		case err != nil || tt.want == "null" && v != nil:
			t.Errorf("%s: got %v, %v", tt.name, v, err)
		case tt.want == "":
			if m, ok := v.(map[string]any); !ok || len(m) != 2 {
				t.Errorf("%s: got %v", tt.name, v)
			}
		}
	}
}

// A few bytes may claim 2^60 items, a schema of a kilobyte 2^40 fields, a recursive one any depth.
func TestProjectionOfHostileBytes(t *testing.T) {
	t.Parallel()
	var doubled strings.Builder
	doubled.WriteString(`{"type":"record","name":"R","fields":[{"name":"v","type":"int"},{"name":"x0","type":{"type":"record","name":"D0","fields":[]}}`)
	for i := range 40 {
		a, b := string(rune('a'+i%26)), string(rune('a'+i/26))
		prev := "D0"
		if i > 0 {
			prev = "D" + string(rune('a'+(i-1)%26)) + string(rune('a'+(i-1)/26))
		}
		doubled.WriteString(`,{"name":"x` + a + b + `","type":{"type":"record","name":"D` + a + b + `","fields":[{"name":"l","type":"` + prev + `"},{"name":"r","type":"` + prev + `"}]}}`)
	}
	doubled.WriteString(`]}`)
	tests := []struct{ name, text, body string }{
		{"nulls without end", `{"type":"record","name":"R","fields":[{"name":"v","type":"int"},{"name":"n","type":{"type":"array","items":"null"}}]}`, "\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"},
		{"a negative count that has no opposite", `{"type":"record","name":"R","fields":[{"name":"v","type":"int"},{"name":"n","type":{"type":"array","items":"null"}}]}`, "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00"},
		{"fields without end", doubled.String(), "\x02"},
		{"depth without end", `{"type":"record","name":"R","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","R"]}]}`, strings.Repeat("\x02\x02", 5000) + "\x02\x00"},
		{"a length beyond the value", `{"type":"record","name":"R","fields":[{"name":"v","type":"int"},{"name":"s","type":"string"}]}`, "\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
		{"a branch that is not there", `{"type":"record","name":"R","fields":[{"name":"v","type":"int"},{"name":"u","type":["null","int"]}]}`, "\x02\x09\x00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := schemas.Memory()
			s, err := reg.Register(t.Context(), "t-value", tt.text)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range [][]string{{"v"}, nil} {
				if v, err := reg.Project(path).Decode(t.Context(), framed(s, []byte(tt.body))); !errors.Is(err, schemas.ErrPoison) {
					t.Errorf("%v: got %v, %v, want poison", path, v, err)
				}
			}
		})
	}
}

// FuzzProject: any bytes are poison or what the whole value has, whichever fields are read.
func FuzzProject(f *testing.F) {
	reg := schemas.Memory()
	s, err := reg.Register(f.Context(), "shop.orders-value", orderText)
	if err != nil {
		f.Fatal(err)
	}
	body, err := s.FromJSON(nil, []byte(orderJSON))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte{})
	f.Add(body[:20])
	some, all := reg.Project([]string{"country"}, []string{"placed_at"}, []string{"lines", "sku"}), reg.Project(nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		e := framed(s, body)
		var whole any
		wholeErr := reg.Decode(t.Context(), e, &whole)
		for _, p := range []*schemas.Projection{some, all} {
			got, err := p.Decode(t.Context(), e)
			if err != nil && !errors.Is(err, schemas.ErrPoison) {
				t.Fatal(err)
			}
			if wholeErr != nil {
				continue // damage in a field that is skipped may go unnoticed
			}
			want, _ := whole.(map[string]any)
			m, ok := got.(map[string]any)
			if err != nil || !ok {
				t.Fatalf("the whole decodes, the projection says %v, %v", got, err)
			}
			for k, v := range m {
				if got, want := fmt.Sprint(v), fmt.Sprint(want[k]); got != want { // maps in the order of their keys, NaN as it is
					t.Fatalf("%s: got %s, want %s", k, got, want)
				}
			}
		}
	})
}

// BenchmarkProject reads one field of an order of twelve: compare decode/generic of BenchmarkOrder.
func BenchmarkProject(b *testing.B) {
	reg := schemas.Memory()
	if _, err := reg.Register(b.Context(), "shop.orders-value", orderText); err != nil {
		b.Fatal(err)
	}
	e := event.New("shop.orders", "o1", testOrder())
	value, err := reg.Encode(b.Context(), nil, &e)
	if err != nil {
		b.Fatal(err)
	}
	got, p := event.Event{Meta: e.Meta, Value: value}, reg.Project([]string{"country"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Decode(b.Context(), &got); err != nil {
			b.Fatal(err)
		}
	}
}
