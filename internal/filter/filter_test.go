package filter_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/filter"
	"github.com/millrace/millrace/schemas"
)

const orderSchema = `{"type":"record","name":"shop.OrderPlaced","fields":[
	{"name":"order_id","type":"string"},
	{"name":"country","type":"string"},
	{"name":"quantity","type":"int"},
	{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
	{"name":"placed_at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"coupon","type":["null","string"]},
	{"name":"status","type":{"type":"enum","name":"Status","symbols":["NEW","PAID"]}},
	{"name":"customer","type":{"type":"record","name":"Customer","fields":[{"name":"id","type":"long"},{"name":"city","type":"string"}]}},
	{"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[{"name":"sku","type":"string"},{"name":"n","type":"int"}]}}}
]}`

const orderJSON = `{"order_id":"o-1","country":"IT","quantity":3,"total":"19.90","placed_at":"2026-11-24T12:00:00Z","coupon":null,
	"status":"PAID","customer":{"id":7,"city":"Roma"},"lines":[{"sku":"a","n":1},{"sku":"b","n":2}]}`

func registry(tb testing.TB) (*schemas.Registry, schemas.Schema) {
	tb.Helper()
	reg := schemas.Memory()
	s, err := reg.Register(tb.Context(), "shop.orders-value", orderSchema)
	if err != nil {
		tb.Fatal(err)
	}
	return reg, s
}

func order(tb testing.TB, s schemas.Schema) *event.Event {
	tb.Helper()
	value, err := s.FromJSON([]byte{0, 0, 0, byte(s.ID >> 8), byte(s.ID)}, []byte(orderJSON))
	if err != nil {
		tb.Fatal(err)
	}
	return &event.Event{
		Meta: event.Meta{
			ID: "e-1", Type: "shop.OrderPlaced", Source: "checkout", Topic: "shop.orders", Partition: 2, Offset: 40, Key: []byte("o-1"),
			Time: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), Published: time.Date(2026, 11, 24, 12, 0, 1, 0, time.UTC),
			Headers: event.Headers{{Key: "x", Value: []byte("1")}, {Key: "x", Value: []byte("2")}, {Key: "none"}},
		},
		Value: value,
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	reg, s := registry(t)
	e := order(t, s)
	dead := order(t, s)
	dead.Headers = event.Headers{
		{Key: event.HeaderErrorClass, Value: []byte("timeout")},
		{Key: event.HeaderAttempts, Value: []byte("4")},
		{Key: event.HeaderOriginTopic, Value: []byte("shop.orders")},
		{Key: event.HeaderOriginOffset, Value: []byte("17")},
	}
	tombstone := &event.Event{Meta: e.Meta}
	tombstone.Key = nil
	json := &event.Event{Meta: event.Meta{ContentType: "application/json"}, Value: []byte(`{"a":{"b":[1,2.5]},"big":9007199254740993}`)}
	tests := []struct {
		expr string
		e    *event.Event
		want bool
	}{
		{`value.country == "IT"`, e, true},
		{`value["country"] == "IT" && value.customer.city.startsWith("Ro")`, e, true},
		{`value.quantity > 2.5 && value.total == 19.9 && value.customer.id == 7`, e, true},
		{`value.total >= 20`, e, false},
		{`value.placed_at < timestamp("2026-11-24T12:00:00.001Z") && timestamp - time == duration("1s")`, e, true},
		{`value.placed_at.getFullYear() == 2026`, e, true},
		{`value.coupon == null && value.status == "PAID"`, e, true},
		{`has(value.coupon) && !has(value.no_such_field)`, e, true},
		{`value.lines.exists(l, l.sku == "b" && l.n == 2)`, e, true},
		{`value.lines[1].n == 2 && size(value.lines) == 2`, e, true},
		{`"customer" in value`, e, true},
		{`value != null && value.country in ["DE", "IT"]`, e, true},
		{`value == null`, e, false},
		{`value == null && key == null`, tombstone, true},
		{`value != null && value.country == "IT"`, tombstone, false},
		{`key == "o-1" && key.matches("^o-[0-9]+$")`, e, true},
		{`key == "o-2"`, e, false},
		{`key == "o-2" || topic == "shop.orders"`, e, true},
		{`partition == 2 && offset >= 40 && id == "e-1" && type == "shop.OrderPlaced" && source == "checkout" && tenant == ""`, e, true},
		{fmt.Sprintf(`schema == %d`, s.ID), e, true},
		{`headers.x == "2" && headers["x"] == "2" && "1" in headers.values("x")`, e, true},
		{`headers["absent"] == "" && !("absent" in headers) && "none" in headers && headers.values("absent").size() == 0`, e, true},
		{`headers.exists(h, h.startsWith("no")) && size(headers) == 2`, e, true},
		{`error.class == "timeout" && error.attempts > 3 && origin.topic == "shop.orders" && origin.offset == 17`, dead, true},
		{`error.class == ""`, e, true},
		{`value.a.b[1] == 2.5 && value.a.b[0] == 1 && value.a.b[0] % 2 == 1`, json, true},
		{`value.big == 9007199254740993`, json, true},
		{`value.big == 9007199254740992`, json, false},
		{`true`, e, true},
		// false and an error is false, from either side: what stands first is of no account
		{`value.no_such_field == 1 && key == "o-2"`, e, false},
		{`key == "o-2" && value.no_such_field == 1`, e, false},
		{`value.no_such_field == 1 || value.country == "IT"`, e, true},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			t.Parallel()
			f, err := filter.New(tt.expr, reg)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := f.Match(tt.e); err != nil || got != tt.want {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestMistakesShowWhereAndWhatIsAllowed(t *testing.T) {
	t.Parallel()
	reg, _ := registry(t)
	tests := []struct{ name, expr, want string }{
		{"empty", ``, "column 1: "},
		{"syntax", `value.country = "IT"`, "column 15: "},
		{"open text", `key == "a`, "column 8: "},
		{"unknown name", `key == "a" && contry == "IT"`, "column 15: undeclared reference to 'contry'\n  key == \"a\" && contry == \"IT\"\n                ^\nknown are value, key, headers, type, id, source, tenant, time, timestamp, topic, partition, offset, schema, error.class"},
		{"a field without value", `country == "IT"`, "a field of the data is value.country"},
		{"unknown part of error", `error.clas == "x"`, "did you mean 'error.class'"},
		{"unknown function", `key.beginsWith("a")`, "undeclared reference to 'beginsWith'"},
		{"types that never compare", `partition == "1"`, "no matching overload"},
		{"no truth value", `key`, "a filter is true or false"},
		{"a regular expression", `key.matches("(")`, "no regular expression"},
		{"a huge regular expression", `key.matches("(a{1,100}){1,100}")`, "no regular expression"},
		{"a time", `time > timestamp("yesterday")`, "timestamp"},
		{"has of a header", `has(headers.x)`, `write "x" in headers`},
		{"second line", "key == \"a\" &&\n  bogus", "line 2, column 3: "},
		{"too long", `key == "` + strings.Repeat("a", 20_000) + `"`, "size"},
		{"too deep", strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500), "recursion"},
		{"control characters", "\x1b[31m key ==", "column "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := filter.New(tt.expr, reg)
			if _, ok := errors.AsType[*filter.Error](err); !ok {
				t.Fatalf("got %v, want a *filter.Error", err)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
		})
	}
	if _, err := filter.New(`value.x == 1`, nil); err == nil || !strings.Contains(err.Error(), "registry") {
		t.Errorf("without a registry: got %v", err)
	}
	if _, err := filter.New(`key == "x"`, nil); err != nil {
		t.Errorf("without a registry, without need: got %v", err)
	}
}

// A record that lacks a field is not a record that does not match: a misspelt field would find nothing and say so of
// everything.
func TestFailuresAreErrorsWithAPlace(t *testing.T) {
	t.Parallel()
	reg, s := registry(t)
	e := order(t, s)
	for _, expr := range []string{`value.contry == "IT"`, `value.quantity.size() > 1`, `value.lines[7].n == 1`, `value.quantity / 0 == 1`, `value.country`, `key == "o-1" && value.contry == "IT"`} {
		f, err := filter.New(expr, reg)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Match(e)
		if got || err == nil || !strings.Contains(err.Error(), "shop.orders/2@40") || errors.Is(err, schemas.ErrPoison) {
			t.Errorf("%s: got %v, %v, want a failure with its place", expr, got, err)
		}
	}
}

func TestUndecodableIsPoison(t *testing.T) {
	t.Parallel()
	reg, s := registry(t)
	e := order(t, s)
	e.Value = e.Value[:20]
	f, err := filter.New(`value.country == "IT"`, reg)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Match(e); got || !errors.Is(err, schemas.ErrPoison) {
		t.Errorf("got %v, %v, want poison", got, err)
	}
	cheap, err := filter.New(`value.country == "IT" && topic == "other"`, reg)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cheap.Match(e); got || err != nil {
		t.Errorf("got %v, %v: the topic decides, nothing need be decoded", got, err)
	}
}

// Splitting an expression at its && and taking the cheap sides first changes no answer.
func TestOrderOfSidesChangesNothing(t *testing.T) {
	t.Parallel()
	reg, s := registry(t)
	e := order(t, s)
	rng := rand.New(rand.NewPCG(1, 2))
	sides := []string{`true`, `false`, `key == "o-1"`, `key == "x"`, `value.country == "IT"`, `value.country == "DE"`, `value.nope == 1`, `partition / 0 == 1`, `(value.quantity == 3 || value.nope == 1)`}
	for range 300 {
		parts := make([]string, rng.IntN(4)+1)
		for i := range parts {
			parts[i] = sides[rng.IntN(len(sides))]
		}
		expr := strings.Join(parts, " && ")
		f, err := filter.New(expr, reg)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := filter.New("("+expr+") ? true : false", reg)
		if err != nil {
			t.Fatal(err)
		}
		got, gotErr := f.Match(e)
		want, wantErr := whole.Match(e)
		if got != want || (gotErr == nil) != (wantErr == nil) {
			t.Errorf("%s: got %v, %v, want %v, %v", expr, got, gotErr, want, wantErr)
		}
	}
}

func TestLoopsAreBounded(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	f, err := filter.New(`value.a.all(x, value.a.all(y, value.a.all(z, x + y + z >= 0)))`, reg)
	if err != nil {
		t.Fatal(err)
	}
	e := &event.Event{Meta: event.Meta{Topic: "t", ContentType: "application/json"}, Value: []byte(`{"a":[` + strings.Repeat("1,", 3000) + `1]}`)}
	if _, err := f.Match(e); err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("got %v: 27,000,000,000 steps were allowed", err)
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	reg, s := registry(t)
	e := order(t, s)
	for expr, want := range map[string]string{
		`value.country`:                         "IT",
		`value.coupon`:                          "null",
		`value.quantity * 2`:                    "6",
		`value.total`:                           "19.9",
		`value.placed_at`:                       "2026-11-24T12:00:00Z",
		`timestamp - time`:                      "1s",
		`partition`:                             "2",
		`value.customer`:                        `{"city":"Roma","id":7}`,
		`value.lines.map(l, l.sku)`:             `["a","b"]`,
		`value.quantity > 2 ? "many" : "few"`:   "many",
		`type + "/" + string(time.getHours())`:  "shop.OrderPlaced/12",
		`bytes("x")`:                            "x",
		`[null, 1.5, true, timestamp, b"\x01"]`: `[null,1.5,true,"2026-11-24T12:00:01Z","\u0001"]`,
		`headers`:                               `{"none":"","x":"2"}`,
	} {
		x, err := filter.NewValue(expr, reg)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if got, err := x.Eval(e); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", expr, got, err, want)
		}
	}
	x, err := filter.NewValue(`value.nope`, reg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Eval(e); err == nil {
		t.Error("a field that is not there has a value")
	}
}

func TestVariablesAreListed(t *testing.T) {
	t.Parallel()
	for _, v := range filter.Variables() {
		if v.Name == "" || v.Type == "" || v.Doc == "" {
			t.Errorf("%+v", v)
		}
		if _, err := filter.NewValue(v.Name, schemas.Memory()); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

// FuzzNew: any text is a filter or a mistake, and a filter has an answer or an error for any event.
func FuzzNew(f *testing.F) {
	reg, s := registry(f)
	e := order(f, s)
	for _, seed := range []string{`value.country == "IT"`, `has(value.a.b) && key.matches("a+")`, `[1,2].exists(x, x == value.quantity)`, `headers["x"] == b"\xff"`, "\x00(", `value[0].a["b"] ? type : {"a": 1}.a`, `timestamp + duration("1h") > time`, `{value: value}[value]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		start := time.Now()
		defer func() {
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("%q took %s", expr, d)
			}
		}()
		m, err := filter.New(expr, reg)
		if err != nil {
			if _, ok := errors.AsType[*filter.Error](err); !ok {
				t.Fatal(err)
			}
			return
		}
		if ok, err := m.Match(e); ok && err != nil {
			t.Fatalf("%q: true, and %v", expr, err)
		}
		if _, err := m.Match(&event.Event{}); err != nil {
			return
		}
	})
}

// BenchmarkMatch is what one record costs: a key, a header, a field, two fields, a loop.
func BenchmarkMatch(b *testing.B) {
	reg, s := registry(b)
	e := order(b, s)
	for _, bb := range []struct{ name, expr string }{
		{"key", `key == "o-2"`},
		{"header", `headers.x == "3"`},
		{"field", `value.country == "DE"`},
		{"decimal", `value.total > 100`},
		{"two fields", `value.country == "IT" && value.customer.city == "Milano"`},
		{"loop", `value.lines.exists(l, l.sku == "c")`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			f, err := filter.New(bb.expr, reg)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := f.Match(e); ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func TestJSONWithinAField(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	for _, tt := range []struct{ name, value, expr, want string }{
		{"text", `{"body":"{\"order\":{\"id\":\"o-17\",\"n\":[1,2]}}"}`, `json(value.body).order.id`, "o-17"},
		{"a list", `{"body":"{\"order\":{\"id\":\"o-17\",\"n\":[1,2]}}"}`, `json(value.body).order.n[1] + 1`, "3"},
		{"bytes", `{}`, `json(b'{"a":true}').a`, "true"},
		{"null", `{}`, `json("null")`, "null"},
		{"no JSON", `{}`, `json("hello").a`, "!no JSON document"},
		{"two", `{}`, `json("1 2")`, "!something stands behind"},
		{"a number", `{"body":1}`, `json(value.body)`, "!no such overload"},
	} {
		x, err := filter.NewValue(tt.expr, reg)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		e := event.Event{Value: []byte(tt.value)}
		e.ContentType = "application/json"
		got, err := x.Eval(&e)
		if err != nil {
			got = "!" + err.Error()
		}
		if bad, fails := strings.CutPrefix(tt.want, "!"); fails && !strings.Contains(got, bad) || !fails && got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
