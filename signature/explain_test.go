package signature_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

// What happened to a request is named, and proved: undone, it verifies.
func TestExplainProves(t *testing.T) {
	t.Parallel()
	const (
		secret = "it is a secret"
		body   = `{"type": "order.created", "url": "https://x/y", "name": "Zoë <b> 日本 😀", "n": 1.0, "id": "evt_1"}`
		place  = "https://hooks.example.com/in/x?tenant=42"
	)
	compact := strings.NewReplacer(`": `, `":`, `, "`, `,"`).Replace(body)
	ascii := strings.NewReplacer("ë", `\u00eb`, "日", `\u65e5`, "本", `\u672c`, "😀", `\ud83d\ude00`)
	for _, c := range []struct {
		name, scheme string
		sent, got    string // the body that was signed, and the body that arrived
		key          string // of the receiver; the sender's is secret
		url          string // of the receiver; the sender's is place
		want         string
	}{
		{"spaces removed", "github", body, compact, "", "", "body-reserialised"},
		{"spaces and a line's end removed", "github", body + "\n", compact, "", "", "body-reserialised"},
		{"spaces added", "stripe", compact, body, "", "", "body-reserialised"},
		{"escapes removed", "standard", ascii.Replace(compact), compact, "", "", "body-reserialised"},
		{"Python's escapes removed", "shopify", ascii.Replace(body), compact, "", "", "body-reserialised"},
		{"PHP's slashes removed", "slack", strings.ReplaceAll(compact, "/", `\/`), compact, "", "", "body-reserialised"},
		{"Go's escapes removed", "github", strings.NewReplacer("<", `\u003c`, ">", `\u003e`).Replace(compact), compact, "", "", "body-reserialised"},
		{"indentation removed", "github", "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}", `{"a":1,"b":[2]}`, "", "", "body-reserialised"},
		{"sorted before it was signed", "github", `{"a":1,"b":2}`, `{"b":2,"a":1}`, "", "", "body-reserialised"},
		{"line's end added", "github", body, body + "\n", "", "", "body-newline"},
		{"CRLF's end removed", "github", body + "\r\n", body, "", "", "body-newline"},
		{"CRLF made LF", "github", "a\r\nb", "a\nb", "", "", "body-line-ends"},
		{"LF made CRLF", "github", "a\nb", "a\r\nb", "", "", "body-line-ends"},
		{"mark added", "github", body, "\xef\xbb\xbf" + body, "", "", "body-bom"},
		{"base64 of a function gateway", "github", body, base64.StdEncoding.EncodeToString([]byte(body)), "", "", "body-base64"},
		{"the payload of a form", "github", "payload=" + url.QueryEscape(compact), compact, "", "", "body-form"},
		{"a form that was sorted", "slack", "a=1&b=2", "b=2&a=1", "", "", "body-form"},
		{"an empty body signed", "github", "", body, "", "", "body-empty"},
		{"a line's end in the key", "github", body, body, secret + "\n", "", "key-whitespace"},
		{"base64 of the key", "github", body, body, base64.StdEncoding.EncodeToString([]byte(secret)), "", "key-base64"},
		{"a prefixed key", "github", body, body, "whsec_" + secret, "", "key-prefix"},
		{"http for https", "square", body, body, "", strings.Replace(place, "https", "http", 1), "url-scheme"},
		{"a port", "square", body, body, "", strings.Replace(place, ".com/", ".com:443/", 1), "url-port"},
		{"a slash", "hubspot-v2", body, body, "", strings.Replace(place, "/x", "/x/", 1), "url-slash"},
		{"a query", "square", body, body, "", strings.Replace(place, "?", "?x=1&", 1), "url"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := lookup(t, c.scheme)
			senders, receivers := secret, secret
			if c.scheme == "standard" {
				senders = "whsec_" + base64.StdEncoding.EncodeToString([]byte(secret))
				receivers = senders
			}
			if c.key != "" {
				receivers = c.key
			}
			req := &signature.Request{Method: "POST", URL: place, Body: []byte(c.sent)}
			signed, err := s.Sign(req, []signature.Key{parseKey(t, s, senders)}, "msg_1", noon)
			if err != nil {
				t.Fatal(err)
			}
			signed.Body = []byte(c.got)
			if c.url != "" {
				signed.URL = c.url
			}
			found := s.Explain(signed, []signature.Key{parseKey(t, s, receivers)}, noon)
			if len(found) == 0 || found[0].Code != c.want || found[0].Proved != (c.want != "url") || found[0].Reason != signature.Mismatch {
				t.Errorf("got %+v, want %s", found, c.want)
			}
			for _, f := range found {
				if strings.Contains(f.Text, secret) {
					t.Errorf("the text shows the key: %s", f.Text)
				}
			}
		})
	}
}

func TestExplainOfOtherFaults(t *testing.T) {
	t.Parallel()
	stripe, github := lookup(t, "stripe"), lookup(t, "github")
	key := signature.Token("k")
	sign := func(s *signature.Scheme, at time.Time) *signature.Request {
		signed, err := s.Sign(&signature.Request{Method: "POST", Body: []byte("{}")}, []signature.Key{key}, "", at)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	milli := sign(stripe, noon)
	milli.Header["Stripe-Signature"] = []string{strings.Replace(milli.Header["Stripe-Signature"][0], "t=1700000000", "t=1700000000000", 1)}
	old := *lookup(t, "github-sha1")
	mine := *stripe
	mine.Signed = "{ts}{body}"
	if err := mine.Validate(); err != nil {
		t.Fatal(err)
	}
	based := *github
	based.Signature.Encoding = signature.Base64
	for _, c := range []struct {
		name   string
		scheme *signature.Scheme
		req    *signature.Request
		keys   []signature.Key
		code   string
		reason signature.Reason
		proved bool
	}{
		{"an old request", stripe, sign(stripe, noon.Add(-time.Hour)), []signature.Key{key}, "clock", signature.Stale, true},
		{"a clock that is ahead", stripe, sign(stripe, noon.Add(time.Hour)), []signature.Key{key}, "clock", signature.Future, true},
		{"an old request of another key", stripe, sign(stripe, noon.Add(-time.Hour)), []signature.Key{signature.Token("j")}, "clock", signature.Stale, false},
		{"milliseconds", stripe, milli, []signature.Key{key}, "clock-unit", signature.Future, false},
		{"a body that was cut", github, func() *signature.Request {
			r := sign(github, noon)
			r.Header["Content-Length"], r.Body = []string{"2"}, []byte("{")
			return r
		}(), []signature.Key{key}, "body-length", signature.Mismatch, false},
		{"a body that was decompressed", github, func() *signature.Request {
			r := sign(github, noon)
			r.Header["Content-Encoding"], r.Body = []string{"gzip"}, []byte("{")
			return r
		}(), []signature.Key{key}, "content-encoding", signature.Mismatch, false},
		{"another key", stripe, sign(stripe, noon), []signature.Key{signature.Token("j")}, "unknown", signature.Mismatch, false},
		{"an ended key", stripe, sign(stripe, noon), []signature.Key{key.Until(noon)}, "key-expired", signature.Mismatch, true},
		{"no key", stripe, sign(stripe, noon), nil, "no-key", signature.Mismatch, false},
		{"another sender", stripe, sign(github, noon), []signature.Key{key}, "other-scheme", signature.Missing, true},
		{"GitHub's old header", github, sign(&old, noon), []signature.Key{key}, "other-scheme", signature.Missing, true},
		{"nothing at all", github, &signature.Request{}, []signature.Key{key}, "missing", signature.Missing, false},
		{"only v0", stripe, &signature.Request{Header: http.Header{"Stripe-Signature": {"t=1,v0=ab"}}}, []signature.Key{key}, "missing", signature.Missing, false},
		{"a signed text of one's own", &mine, sign(stripe, noon), []signature.Key{key}, "signed-text", signature.Mismatch, true},
		{"an encoding of one's own", &based, sign(github, noon), []signature.Key{key}, "algorithm", signature.Malformed, true},
	} {
		found := c.scheme.Explain(c.req, c.keys, noon)
		if len(found) == 0 || found[0].Code != c.code || found[0].Reason != c.reason || found[0].Proved != c.proved {
			t.Errorf("%s: got %+v, want %s %s proved %v", c.name, found, c.reason, c.code, c.proved)
		}
	}
	if found := stripe.Explain(sign(stripe, noon), []signature.Key{key}, noon); found != nil {
		t.Errorf("a good request is explained: %v", found)
	}
}
