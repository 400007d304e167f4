package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

const (
	eventJSON  = `{"id":"evt_1","type":"order.paid"}` + "\n"
	stripeKey  = "whsec_test_5f3b1c9d2e7a4860"
	acmeScheme = `name: acme
signature: {headers: [Acme-Signature], format: pairs, accept: [{label: v1, algorithm: hmac-sha256}], encoding: hex}
clock: {param: t, unit: s, past: 5m, future: 5m}
signed: "{ts}.{body}"
key: utf8
dedupe: {json: [id], window: 72h}
sender: {deadline: 10s, retries: {on_5xx: true, for: 24h}}
handshakes: [{method: POST, match: [{json: type, value: hello}], signed: true, challenge: {json: challenge}, answer: "{challenge}"}]
`
)

// webhooks writes what the examples of "millrace webhook" name: an event, a key, a scheme, a captured request.
func (w *world) webhooks(t *testing.T) {
	t.Helper()
	if w.env == nil {
		w.env = map[string]string{}
	}
	w.env["STRIPE_SECRET"] = stripeKey
	w.write(t, "event.json", eventJSON)
	w.write(t, "key.txt", "a secret in a file\n")
	w.write(t, "acme.yaml", acmeScheme)
	w.write(t, "captured.http", w.want(t, codeDone, "webhook", "sign", "stripe", "--secret", "env:STRIPE_SECRET", "--body", "event.json", "--at", "2026-11-24T09:00:00Z").out)
}

// verifier is a receiver of one scheme's webhooks; it writes what it took to got.
func verifier(t *testing.T, scheme, key string, got chan<- http.Header) *httptest.Server {
	t.Helper()
	s, ok := signature.Lookup(scheme)
	if !ok {
		t.Fatalf("there is no scheme %s", scheme)
	}
	k, err := s.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		req := &signature.Request{Method: r.Method, URL: "http://" + r.Host + r.URL.RequestURI(), Header: r.Header, Body: body}
		if _, err := s.Verify(req, []signature.Key{k}, time.Now()); err != nil {
			w.Header().Set("Retry-After", "7")
			http.Error(w, "no\x1b[31m", http.StatusUnauthorized)
			return
		}
		got <- r.Header
		_, _ = io.WriteString(w, "thanks")
	}))
	t.Cleanup(server.Close)
	return server
}

func TestWebhookSignedVerifies(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	w.webhooks(t)
	for _, scheme := range []string{"stripe", "github", "slack", "twilio", "paddle", "square", "hubspot-v3", "twitch", "acme.yaml"} {
		signed := w.want(t, codeDone, "webhook", "sign", scheme, "--secret", "env:STRIPE_SECRET", "--secret", "file:key.txt", "--body", "event.json", "--url", "https://hooks.example.com/in/x?a=1")
		r := w.run(t, signed.out, "webhook", "verify", scheme, "--secret", "env:STRIPE_SECRET")
		if r.code != codeDone || !strings.HasPrefix(r.out, "verified as ") || r.err != "" {
			t.Errorf("%s: exits %d\n%s%s", scheme, r.code, r.out, r.err)
		}
	}
	r := w.want(t, codeDone, "webhook", "verify", "stripe", "--secret", "file:key.txt", "--secret", "env:STRIPE_SECRET", "-r", "captured.http", "--at", "2026-11-24T09:00:03Z")
	if want := "verified as stripe by key 2 of 2, signed at 2026-11-24T09:00:00Z (3s ago), id evt_1\n"; r.out != want {
		t.Errorf("got %q, want %q", r.out, want)
	}
}

// Whoever asks why learns what happened to the request, and scripts by the exit code.
func TestWebhookVerifySaysWhy(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	w.webhooks(t)
	signed := w.want(t, codeDone, "webhook", "sign", "stripe", "--secret", "env:STRIPE_SECRET", "--body", "event.json", "--at", "2026-11-24T09:00:00Z").out
	grown := regexp.MustCompile("Content-Length.*\r\n").ReplaceAllString(signed, "") // to be changed to another length
	at := []string{"--secret", "env:STRIPE_SECRET", "--at", "2026-11-24T09:00:00Z"}
	for _, c := range []struct {
		name, in string
		args     []string
		want     []string
	}{
		{"written anew", strings.Replace(grown, `":"`, `" : "`, 1), at, []string{"mismatch", "proved  body-reserialised"}},
		{"an hour later", signed, append(at[:2:2], "--at", "2026-11-24T10:00:00Z"), []string{"stale", "proved  clock", "1h0m0s ago"}},
		{"another key", signed, append([]string{"--secret", "file:key.txt"}, at[2:]...), []string{"mismatch", "guess   unknown"}},
		{"no signature", "POST / HTTP/1.1\nHost: x\n\n{}", at, []string{"missing", "there is no header Stripe-Signature"}},
		{"cut", strings.Replace(signed, "paid", "pai", 1), at, []string{"mismatch", "body-length"}},
	} {
		r := w.run(t, c.in, append([]string{"webhook", "verify", "stripe"}, c.args...)...)
		if r.code != codeFailed {
			t.Errorf("%s: exits %d\n%s%s", c.name, r.code, r.out, r.err)
		}
		has(t, c.name, r.out, append(c.want, "not verified as stripe")...)
		if strings.Contains(r.out+r.err, stripeKey) {
			t.Errorf("%s: the key is shown\n%s%s", c.name, r.out, r.err)
		}
	}
	r := w.run(t, strings.Replace(grown, `":"`, `": "`, 1), append([]string{"webhook", "verify", "stripe", "-o", "json"}, at...)...)
	var doc struct {
		Verified bool
		Findings []signature.Finding
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Verified || len(doc.Findings) == 0 || !doc.Findings[0].Proved || r.code != codeFailed {
		t.Errorf("exits %d: %v\n%s", r.code, err, r.out)
	}
}

func TestWebhookSend(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	w.webhooks(t)
	for _, scheme := range []string{"stripe", "github", "twilio", "square"} {
		got := make(chan http.Header, 1)
		to := verifier(t, scheme, stripeKey, got).URL + "/in/x"
		r := w.want(t, codeDone, "webhook", "send", scheme, to, "--secret", "env:STRIPE_SECRET", "--body", "event.json", "--header", "X-Kind=paid", "--id", "72d3162e")
		has(t, scheme, r.out, "200 OK", "thanks")
		if h := <-got; h.Get("X-Kind") != "paid" || scheme == "github" && h.Get("X-GitHub-Delivery") != "72d3162e" {
			t.Errorf("%s: got the headers %v", scheme, h)
		}
		r = w.want(t, codeFailed, "webhook", "send", scheme, to, "--secret", "file:key.txt", "--body", "event.json")
		has(t, scheme, r.out, "401 Unauthorized", "no␛[31m")
		r = w.want(t, codeFailed, "webhook", "send", scheme, to, "--secret", "file:key.txt", "--body", "event.json", "-o", "json")
		has(t, scheme, r.out, `"status": 401`, `"retry_after": "7"`)
	}
	gone := httptest.NewServer(http.RedirectHandler("https://example.com/", http.StatusFound))
	r := w.want(t, codeFailed, "webhook", "send", "stripe", gone.URL, "--secret", "env:STRIPE_SECRET", "--body", "event.json")
	has(t, "a redirect", r.out, "302 Found")
	gone.Close()
	r = w.want(t, codeFailed, "webhook", "send", "stripe", gone.URL, "--secret", "env:STRIPE_SECRET", "--body", "event.json")
	has(t, "nobody there", r.err, "send: ", "curl -v")
}

func TestWebhookSendWaitsAsLongAsTheSender(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	w.webhooks(t)
	done := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-done:
		}
	}))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(done) })
	r := w.want(t, codeFailed, "webhook", "send", "stripe", slow.URL, "--secret", "env:STRIPE_SECRET", "--body", "event.json", "--timeout", "20ms")
	has(t, "stderr", r.err, "gave no answer in 20ms", "--timeout 1m")
}

// A key on the command line is in the shell's history and in everybody's list of processes.
func TestWebhookKeysAreNeverTyped(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	w.webhooks(t)
	w.write(t, "open.txt", "secret")
	if err := os.Chmod(filepath.Join(w.dir, "open.txt"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{codeUsage, []string{"--secret", "hunter22"}, "env:NAME or file:PATH"},
		{codeUsage, []string{"--secret", "env:"}, "env:NAME or file:PATH"},
		{codeUsage, []string{"--secret", "env:NOBODY"}, "NOBODY, which holds the key, is not set"},
		{codeUsage, []string{"--secret", "file:nowhere.txt"}, "read the key"},
		{codeRefused, []string{"--secret", "file:open.txt"}, "chmod 600"},
		{codeUsage, nil, "there is no key"},
		{codeUsage, []string{"--secret-from-stdin", "--body", "-"}, "cannot both come from stdin"},
		{codeUsage, []string{"--secret-from-stdin"}, "it is empty"},
	} {
		r := w.run(t, "", append([]string{"webhook", "sign", "stripe", "--body", "event.json"}, c.args...)...)
		if r.code != c.code || strings.Contains(r.err, "hunter22") || r.out != "" {
			t.Errorf("%v: exits %d, want %d\n%s%s", c.args, r.code, c.code, r.out, r.err)
		}
		has(t, strings.Join(c.args, " "), r.err, c.want)
	}
	r := w.run(t, stripeKey+"\n", "webhook", "verify", "stripe", "--secret-from-stdin", "-r", "captured.http", "--at", "2026-11-24T09:00:00Z")
	if r.code != codeDone {
		t.Errorf("exits %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestWebhookUsage(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	w.webhooks(t)
	w.write(t, "bad.yaml", strings.Replace(acmeScheme, "dedupe:", "dedoop:", 1))
	w.write(t, "worse.yaml", strings.Replace(acmeScheme, "{body}", "{boddy}", 1))
	w.write(t, "acme.json", "{}")
	for line, want := range map[string]string{
		"sign nobody": "there is no scheme",
		"sign":        "name one scheme",
		"sign no.yaml --secret env:STRIPE_SECRET":                                         "read the scheme",
		"sign bad.yaml --secret env:STRIPE_SECRET":                                        "dedoop",
		"sign worse.yaml --secret env:STRIPE_SECRET":                                      "{boddy}",
		"sign acme.json --secret env:STRIPE_SECRET":                                       "lower-case letters",
		"sign stripe --secret env:STRIPE_SECRET --body none.json":                         "read the body",
		"sign stripe --secret env:STRIPE_SECRET --at noon":                                "write it as 2026",
		"sign stripe --secret env:STRIPE_SECRET --body event.json --header x":             "write name=value",
		"sign paypal --secret env:STRIPE_SECRET --body event.json":                        "only the sender has the key",
		"sign stripe --secret env:STRIPE_SECRET -o jsonl":                                 "allowed are",
		"sign discord --secret env:STRIPE_SECRET --body event.json":                       "no hex",
		"verify stripe --secret env:STRIPE_SECRET -r event.json":                          "does not begin with a line like",
		"verify stripe --secret env:STRIPE_SECRET -r none":                                "read the request",
		"verify sns --secret env:STRIPE_SECRET -r captured.http --certificate event.json": "there is none in the text",
		"send stripe ftp://x --secret env:STRIPE_SECRET":                                  "is no URL like",
		"send stripe http://x --secret env:STRIPE_SECRET --timeout 1h":                    "up to 5m",
	} {
		r := w.want(t, codeUsage, append([]string{"webhook"}, strings.Fields(line)...)...)
		has(t, line, r.err, want)
	}
}

func TestReadMessage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, body, url, err string }{
		{"plain line ends", "POST /a?b=c HTTP/1.1\nHost: h.example.com\n\n{}\n", "{}\n", "https://h.example.com/a?b=c", ""},
		{"a length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}\r\n", "{}", "https://h/", ""},
		{"a whole URL", "GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n", "", "http://h/x", ""},
		{"nothing", "", "", "", "does not begin"},
		{"a body alone", "{}\n", "", "", "does not begin"},
		{"no empty line", "POST / HTTP/1.1\r\nHost: h", "", "", "without an empty line"},
		{"no header", "POST / HTTP/1.1\r\nhello\r\n\r\n", "", "", "no name: value"},
		{"chunks", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "", "", "in chunks"},
	} {
		req, err := readMessage([]byte(c.text), "")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || string(req.Body) != c.body || req.URL != c.url {
			t.Errorf("%s: got %+v, %v", c.name, req, err)
		}
	}
}

// A captured request is whatever somebody saved.
func FuzzReadMessage(f *testing.F) {
	for _, text := range []string{
		"", "{}", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}\r\n", "POST / HTTP/1.1\nContent-Length: -1\n\nx",
		"GET http://h/ HTTP/1.1\n\n", "POST / HTTP/1.1\n : \n\n", "POST  HTTP/\n\n", "POST / HTTP/1.1\nA: b\n c\n\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		req, err := readMessage(text, "")
		if err != nil {
			return
		}
		if !bytes.Contains(text, req.Body) {
			t.Errorf("the body %q is not in %q", req.Body, text)
		}
	})
}
