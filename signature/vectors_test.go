package signature_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

// vector is a case of testdata/webhooks.json: a request, a key, a time, and whether the request verifies. Most were made
// with the provider's own library; the verdicts were checked with another verifier.
type vector struct {
	ID, Scheme, Secret, Method, URL, Why string
	Headers                              map[string]string
	Body                                 string
	BodyBase64                           string `json:"body_base64"`
	Now                                  int64
	Valid                                bool
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	text, err := os.ReadFile("testdata/webhooks.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct{ Cases []vector }
	if err := json.Unmarshal(text, &file); err != nil {
		tb.Fatal(err)
	}
	return file.Cases
}

func (v *vector) scheme(tb testing.TB) *signature.Scheme {
	tb.Helper()
	s, ok := signature.Lookup(strings.TrimSuffix(v.Scheme, "-v1a"))
	if !ok {
		tb.Fatalf("there is no scheme %s", v.Scheme)
	}
	return s
}

func (v *vector) request(tb testing.TB) *signature.Request {
	tb.Helper()
	h := http.Header{}
	for name, value := range v.Headers {
		h.Add(name, value)
	}
	body := []byte(v.Body)
	if v.BodyBase64 != "" {
		var err error
		if body, err = base64.StdEncoding.DecodeString(v.BodyBase64); err != nil {
			tb.Fatal(err)
		}
	}
	return &signature.Request{Method: v.Method, URL: v.URL, Header: h, Body: body}
}

// verdict verifies the vector, its body changed by plant.
func (v *vector) verdict(tb testing.TB, plant func([]byte) []byte) error {
	tb.Helper()
	s, req := v.scheme(tb), v.request(tb)
	req.Body = plant(req.Body)
	key, err := s.ParseKey(v.Secret)
	if err != nil {
		return err
	}
	_, err = s.Verify(req, []signature.Key{key}, time.Unix(v.Now, 0))
	return err
}

func raw(body []byte) []byte { return body }

func TestVectors(t *testing.T) {
	t.Parallel()
	cases := vectors(t)
	if len(cases) != 276 {
		t.Fatalf("got %d cases, want 276", len(cases))
	}
	for _, v := range cases {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			if err := v.verdict(t, raw); (err == nil) != v.Valid {
				t.Errorf("%s: got %v, want valid %v", v.Why, err, v.Valid)
			}
		})
	}
}

// The commonest bug of receivers, planted: the body is parsed and written again before it is verified. The vectors find it.
func TestVectorsBreakWhenTheParsedBodyIsVerified(t *testing.T) {
	t.Parallel()
	parsed := func(body []byte) []byte {
		var tree any
		if json.Unmarshal(body, &tree) != nil {
			return body
		}
		again, err := json.Marshal(tree)
		if err != nil {
			t.Error(err)
		}
		return again
	}
	broken := map[string]bool{}
	for _, v := range vectors(t) {
		if v.Valid && v.verdict(t, parsed) != nil {
			broken[v.Scheme] = true
		}
	}
	for _, scheme := range []string{"standard-webhooks", "standard-webhooks-v1a", "stripe", "github", "shopify", "square", "slack", "paddle", "sendgrid"} {
		if !broken[scheme] {
			t.Errorf("no vector of %s finds the bug", scheme)
		}
	}
}
