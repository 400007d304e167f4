package signature_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

// signedFor returns a POST of body, signed for the scheme with key.
func signedFor(tb testing.TB, s *signature.Scheme, key signature.Key, body string, header http.Header) *signature.Request {
	tb.Helper()
	req := &signature.Request{Method: "POST", URL: "https://hooks.example.com/in/x", Header: header, Body: []byte(body)}
	signed, err := s.Sign(req, []signature.Key{key}, "msg_1", noon)
	if err != nil {
		tb.Fatal(err)
	}
	return signed
}

func TestHandshakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, scheme, method, url, body string
		header                          http.Header
		signed                          bool
		status                          int
		kind, want                      string
	}{
		{
			name: "slack", scheme: "slack", body: `{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}`,
			signed: true, status: 200, kind: "text/plain; charset=utf-8", want: "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
		},
		{
			name: "meta", scheme: "meta", method: "GET", url: "https://h.example.com/?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock",
			status: 200, kind: "text/plain; charset=utf-8", want: "1158201444",
		},
		{
			name: "twitch", scheme: "twitch", body: `{"challenge":"pogchamp-kappa-360noscope-vohiyo"}`, signed: true,
			header: http.Header{"Twitch-Eventsub-Message-Type": {"webhook_callback_verification"}},
			status: 200, kind: "text/plain; charset=utf-8", want: "pogchamp-kappa-360noscope-vohiyo",
		},
		{
			// echo -n qgg8vlvZRS6UYooatFL8Aw | openssl dgst -sha256 -hmac secret
			name: "zoom", scheme: "zoom", body: `{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}`,
			status: 200, kind: "application/json",
			want: `{"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"` + opensslHex + `"}`,
		},
		{
			name: "twitter", scheme: "twitter", method: "GET", url: "https://h.example.com/?crc_token=qgg8vlvZRS6UYooatFL8Aw",
			status: 200, kind: "application/json", want: `{"response_token":"sha256=` + opensslBase64 + `"}`,
		},
		{
			name: "ms-graph", scheme: "ms-graph", url: "https://h.example.com/?validationToken=Validation%3A+a+b%2Fc",
			status: 200, kind: "text/plain; charset=utf-8", want: "Validation: a b/c",
		},
		{name: "discord", scheme: "discord", body: `{"type":1}`, signed: true, status: 200, kind: "application/json", want: `{"type":1}`},
		{name: "discord events", scheme: "discord-events", body: `{"version":1,"application_id":"1","type":0}`, signed: true, status: 204},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := lookup(t, c.scheme)
			text := "secret"
			if c.scheme == "discord" || c.scheme == "discord-events" {
				text = sample(t, s, 0)
			}
			key := parseKey(t, s, text)
			req := &signature.Request{Method: c.method, URL: c.url, Header: c.header, Body: []byte(c.body)}
			if c.method == "" {
				req.Method = "POST"
			}
			if c.signed {
				req = signedFor(t, s, key, c.body, c.header)
			}
			tokens := []signature.Key{signature.Token("other"), signature.Token("meatyhamhock")}
			a, err := s.Greet(req, []signature.Key{key}, tokens, noon)
			if err != nil || a == nil {
				t.Fatalf("got %v, %v", a, err)
			}
			if a.Status != c.status || a.ContentType != c.kind || string(a.Body) != c.want || a.Fetch != "" {
				t.Errorf("got %d %q %q, want %d %q %q", a.Status, a.ContentType, a.Body, c.status, c.kind, c.want)
			}
			if c.signed {
				_, err := s.Greet(req, []signature.Key{parseKey(t, s, sample(t, s, 1))}, nil, noon)
				if reason(err) != signature.Mismatch {
					t.Errorf("with another key: got %v, want a mismatch", err)
				}
			}
		})
	}
}

const (
	opensslHex    = "72cef096bfd47c0b8664df30d07721641e4abd7e885ba432204260db477a9a3e"
	opensslBase64 = "cs7wlr/UfAuGZN8w0HchZB5KvX6IW6QyIEJg20d6mj4="
)

// Zoom and Twitter have the receiver sign what they send, with the key of the events. Whoever may choose that text could
// have an event signed: so it is no text that a scheme signs.
func TestHandshakesAreNoOracle(t *testing.T) {
	t.Parallel()
	for _, token := range []string{
		"", "v0:1700000000:{}", `{\"event\":\"x\"}`, "a b", "a.b", strings.Repeat("a", 257), "é", "a\\n",
	} {
		zoom := lookup(t, "zoom")
		req := &signature.Request{Method: "POST", Body: []byte(`{"event":"endpoint.url_validation","payload":{"plainToken":"` + token + `"}}`)}
		if a, err := zoom.Greet(req, []signature.Key{signature.Token("k")}, nil, noon); reason(err) == "" {
			t.Errorf("zoom signs %q: %v", token, a)
		}
	}
	twitter := lookup(t, "twitter")
	for _, query := range []string{"crc_token=%7B%7D", "crc_token=a+b", "crc_token=" + strings.Repeat("a", 257)} {
		req := &signature.Request{Method: "GET", URL: "https://h.example.com/?" + query}
		if a, err := twitter.Greet(req, []signature.Key{signature.Token("k")}, nil, noon); reason(err) == "" {
			t.Errorf("twitter signs %q: %v", query, a)
		}
	}
}

func TestMetasTokenIsCompared(t *testing.T) {
	t.Parallel()
	s := lookup(t, "meta")
	for _, c := range []struct {
		query  string
		tokens []signature.Key
		want   signature.Reason
	}{
		{"hub.verify_token=right&hub.challenge=1", []signature.Key{signature.Token("right")}, ""},
		{"hub.verify_token=wrong&hub.challenge=1", []signature.Key{signature.Token("right")}, signature.Mismatch},
		{"hub.verify_token=right&hub.challenge=1", []signature.Key{signature.Token("right").Until(noon)}, signature.Mismatch},
		{"hub.verify_token=&hub.challenge=1", []signature.Key{signature.Token("")}, signature.Mismatch},
		{"hub.verify_token=right&hub.verify_token=right&hub.challenge=1", []signature.Key{signature.Token("right")}, signature.Mismatch},
		{"hub.challenge=1", nil, signature.Mismatch},
		{"hub.verify_token=right", []signature.Key{signature.Token("right")}, signature.Missing},
		{"hub.verify_token=right&hub.challenge=" + strings.Repeat("1", 1025), []signature.Key{signature.Token("right")}, signature.Malformed},
	} {
		req := &signature.Request{Method: "GET", URL: "https://h.example.com/?hub.mode=subscribe&" + c.query}
		if _, err := s.Greet(req, nil, c.tokens, noon); reason(err) != c.want {
			t.Errorf("%.80s: got %v, want %q", c.query, err, c.want)
		}
	}
}

func TestAnEventIsNoHandshake(t *testing.T) {
	t.Parallel()
	for _, name := range signature.Names() {
		s := lookup(t, name)
		for _, body := range []string{"", "{}", `{"type":2,"event":"url_verification is a word"}`, "url_verification", `{"type":["1","0"]}`} {
			for _, method := range []string{"POST", "GET"} {
				req := &signature.Request{Method: method, URL: "https://h.example.com/?a=b", Body: []byte(body)}
				if a, err := s.Greet(req, nil, nil, time.Time{}); a != nil || err != nil {
					t.Errorf("%s: %s %s: got %v, %v", name, method, body, a, err)
				}
			}
		}
	}
}
