package signature_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/signature"
)

const acme = `{
	"name": "acme",
	"signature": {"headers": ["Acme-Signature"], "format": "pairs", "accept": [{"label": "v1", "algorithm": "hmac-sha256"}], "encoding": "hex"},
	"clock": {"param": "t", "unit": "s", "past": "5m", "future": "5m"},
	"signed": "{ts}.{body}",
	"key": "utf8",
	"dedupe": {"json": ["id"], "window": "72h"},
	"sender": {"deadline": "10s", "retries": {"on_5xx": true, "for": "24h"}}
}`

func TestASchemeOfOnesOwn(t *testing.T) {
	t.Parallel()
	s, err := signature.ParseScheme([]byte(acme))
	if err != nil {
		t.Fatal(err)
	}
	key := parseKey(t, s, "secret")
	signed, err := s.Sign(&signature.Request{Body: []byte("{}")}, []signature.Key{key}, "", noon)
	if err != nil {
		t.Fatal(err)
	}
	signed.Header["Stripe-Signature"] = signed.Header["Acme-Signature"]
	for _, scheme := range []*signature.Scheme{s, lookup(t, "stripe")} {
		if _, err := scheme.Verify(signed, []signature.Key{key}, noon); err != nil {
			t.Errorf("%s: %v", scheme.Name, err)
		}
	}
}

func TestKnownSchemesAreJSON(t *testing.T) {
	t.Parallel()
	for _, name := range signature.Names() {
		s := lookup(t, name)
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if name == "adyen" || name == "sns" || name == "paypal" {
			continue // part of them is code
		}
		again, err := signature.ParseScheme(text)
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		if second, err := json.Marshal(again); err != nil || string(second) != string(text) {
			t.Errorf("got %s, %v\nwant %s", second, err, text)
		}
	}
}

// Every field of a scheme has the same name in JSON and in YAML, whose decoder is the caller's.
func TestFieldsHaveOneName(t *testing.T) {
	t.Parallel()
	var visit func(typ reflect.Type)
	visit = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for f := range typ.Fields() {
			if !f.IsExported() {
				continue
			}
			j, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			y, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if j == "" || j != y {
				t.Errorf("%s.%s is %q in JSON and %q in YAML", typ.Name(), f.Name, j, y)
			}
			visit(f.Type)
		}
	}
	visit(reflect.TypeFor[signature.Scheme]())
}

func TestBadSchemes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, from, to, want string }{
		{"a name with capitals", `"acme"`, `"Acme"`, "lower-case"},
		{"an unknown field", `"key"`, `"kye"`, "unknown field"},
		{"an unknown placeholder", "{ts}.{body}", "{ts}.{boddy}", "no placeholder {boddy}"},
		{"an open brace", "{ts}.{body}", "{ts}.{body", "without its }"},
		{"a lone brace", "{ts}.{body}", "{ts}}.{body}", "write }}"},
		{"no body", "{ts}.{body}", "{ts}", "covers the body"},
		{"a time that is not signed", "{ts}.{body}", "{body}", "no window"},
		{"an id from nowhere", "{ts}.{body}", "{id}{ts}.{body}", "names no header"},
		{"no window", `"past": "5m"`, `"past": "0s"`, "above 0"},
		{"a time from nowhere", `"param": "t", `, "", "name the headers or the param"},
		{"a unit", `"unit": "s"`, `"unit": "h"`, "clock unit"},
		{"an algorithm", "hmac-sha256", "md5", "no algorithm"},
		{"a bare hash", "hmac-sha256", "sha256", "without {secret}"},
		{"equality of bytes that are signed", "hmac-sha256", "equal", "signs nothing"},
		{"an encoding", `"hex"`, `"binary"`, "hex, base64 or text"},
		{"text for a MAC", `"hex"`, `"text"`, "is for the algorithm equal"},
		{"a form of key", `"utf8"`, `"ascii"`, "utf8, base64"},
		{"no accepted signature", `{"label": "v1", "algorithm": "hmac-sha256"}`, ``, "one to four"},
		{"no label", `"label": "v1", `, ``, "no label"},
		{"a label twice", `{"label": "v1", "algorithm": "hmac-sha256"}`, `{"label": "v1", "algorithm": "hmac-sha256"}, {"label": "v1", "algorithm": "hmac-sha512"}`, "two signatures"},
		{"a header's name", "Acme-Signature", "Acme Signature", "no header's name"},
		{"neither header nor path", `"headers": ["Acme-Signature"], `, ``, "name headers"},
		{"a separator of signatures' own letters", `"format"`, `"separator": "a", "format"`, "separator"},
		{"a time that is a signature", `"label": "v1"`, `"label": "t"`, "a signature's label"},
		{"a header for two things", `"key"`, `"id": ["ACME-signature"], "key"`, "two things"},
		{"a parameter", `"key"`, `"url": {"body_param": "a&b"}, "key"`, "no parameter's name"},
		{"a path", `["id"]`, `["id..x"]`, "no path"},
		{"a duration", `"10s"`, `"10"`, "missing unit"},
		{"two documents", "\n}", "\n} {}", "follows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(acme, c.from, c.to, 1)
			if _, err := signature.ParseScheme([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestASchemeThatNobodyValidatedVerifiesNothing(t *testing.T) {
	t.Parallel()
	for _, s := range []*signature.Scheme{{}, {Signed: "{nothing}", Signature: signature.Carrier{Headers: []string{"X"}}}} {
		req := &signature.Request{Header: map[string][]string{"X": {"1"}}}
		if _, err := s.Verify(req, []signature.Key{signature.Token("k")}, noon); reason(err) == "" {
			t.Errorf("got %v", err)
		}
	}
}

// What ParseScheme takes, signs and verifies without a panic.
func FuzzParseScheme(f *testing.F) {
	f.Add([]byte(acme), "t=1700000000,v1=ab")
	f.Add([]byte(`{"name":"x","signature":{"json":"a[].b","accept":[{"algorithm":"equal"}],"encoding":"text"},"key":"utf8"}`), "x")
	for _, name := range []string{"standard", "twilio", "hubspot-v3", "ms-graph", "zoom", "discord"} {
		text, err := json.Marshal(lookup(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "v1,YQ==")
	}
	f.Fuzz(func(t *testing.T, text []byte, value string) {
		s, err := signature.ParseScheme(text)
		if err != nil {
			return
		}
		keys := []signature.Key{signature.Token("secret")}
		req := &signature.Request{Method: "POST", URL: "https://h.example.com/?a=b", Body: []byte(`{"a":[{"b":"x"}]}`)}
		if signed, err := s.Sign(req, keys, "id", noon); err == nil {
			if _, err := s.Verify(signed, keys, noon); err != nil {
				t.Errorf("what was signed does not verify: %v\n%s", err, text)
			}
		}
		req.Header = map[string][]string{}
		for _, name := range s.Signature.Headers {
			req.Header[name] = []string{value}
		}
		if _, err := s.Verify(req, keys, noon); err != nil && reason(err) == "" {
			t.Errorf("%v has no reason", err)
		}
		if _, err := s.Greet(req, keys, keys, noon); err != nil && reason(err) == "" {
			t.Errorf("%v has no reason", err)
		}
		s.Identify(req)
	})
}
