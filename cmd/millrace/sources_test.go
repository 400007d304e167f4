package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/signature"
)

const acmeSource = "scheme: stripe\nsecrets: [env:STRIPE_SECRET]\ntopic: webhooks.acme\nkey: {json: id}\n"

// takeIn runs a gateway on the sources of w, and returns where senders post and where its metrics are.
func (w *world) takeIn(t *testing.T) (url, side string) {
	t.Helper()
	reg, err := schemas.New(schemas.Config{URLs: []string{w.env["MILLRACE_REGISTRY"]}})
	if err != nil {
		t.Fatal(err)
	}
	f := serveFlags{create: true, gateway: gatewayFlags{recordBytes: gateway.DefaultRecordBytes}}
	role, err := newGatewayRole(kafka.Cluster{Seeds: []string{w.env["MILLRACE_BROKERS"]}}, reg, w.dir+"/sources", f, nil, func(k string) string { return w.env[k] }, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := role.gateway.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	senders, operators := httptest.NewServer(role.gateway), httptest.NewServer(role.handler())
	t.Cleanup(func() {
		senders.Close()
		operators.Close()
		_ = role.producer.Close(t.Context())
	})
	return senders.URL, operators.URL
}

func (w *world) sources(t *testing.T) {
	t.Helper()
	w.env["STRIPE_SECRET"] = stripeKey
	w.write(t, "sources/acme.yaml", acmeSource)
}

func TestSourcesFromCheckToTest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.sources(t)
	w.write(t, "sources/typed.yaml", `verify: none
topic: webhooks.typed
event: {type: shop.OrderPlaced, topic: shop.orders, key: value.id, when: value.kind == "order", fields: {order_id: value.id, cents: value.cents}}
`)
	r := w.want(t, codeFailed, "sources", "check", "--record-bytes", "1114112")
	has(t, "check", r.out, "topic shop.orders takes records up to", "+ topic webhooks.acme: it does not exist", "+ topic webhooks.typed.gateway.dlq", "--create-topics")
	r = w.want(t, codePending, "sources", "check")
	has(t, "check", r.out, "+ topic _millrace.seen", "+ the schema of millrace.webhook.Received is not registered under webhooks.acme-value")

	w.want(t, codeDone, "topics", "apply", "--yes")
	url, side := w.takeIn(t)
	r = w.want(t, codeDone, "sources", "check")
	has(t, "check", r.err, "2 sources are in order")

	r = w.want(t, codeDone, "sources", "test", "acme", "--url", url)
	has(t, "test", r.out, "200 OK", "webhooks.acme/", "millrace.webhook.Received", "key millrace-test-", "request ")
	w.write(t, "order.json", `{"id":"o-17","kind":"order","cents":1999}`)
	r = w.want(t, codeDone, "sources", "test", "typed", "--url", url, "--body", "order.json", "-o", "json")
	var doc tryDoc
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Record == nil || len(doc.Events) != 1 || doc.Events[0].Type != "shop.OrderPlaced" || doc.Events[0].Key != "o-17" {
		t.Errorf("%v\n%s", err, r.out)
	}
	r = w.want(t, codeDone, "sources", "test", "typed", "--url", url)
	has(t, "a sample that is none", r.out, "no typed event")
	w.env["STRIPE_SECRET"] = "another"
	r = w.want(t, codeFailed, "sources", "test", "acme", "--url", url)
	has(t, "another secret", r.out, "401 Unauthorized")

	r = w.want(t, codeDone, "sources", "ls")
	has(t, "ls", r.out, "/in/acme", "env:STRIPE_SECRET", "comes again, for 3 days", "shop.OrderPlaced → shop.orders", "72h0m0s")
	if strings.Contains(r.out, "another") {
		t.Error("a secret is printed")
	}
	r = w.want(t, codeDone, "sources", "ls", "--gateway", side)
	has(t, "ls", r.out, "1 accepted, 0 duplicate, 1 rejected (1 mismatch), p99 ≤ ", "2 accepted")
	r = w.want(t, codeDone, "sources", "ls", "--gateway", side, "-o", "json")
	has(t, "ls", r.out, `"millrace": 1`, `"rejected_by_reason": {`, `"mismatch": 1`, `"refused": `)

	// The envelope is found by what is in the bytes of its body.
	r = w.want(t, codeDone, "find", "webhooks.typed", "--where", `json(value.body).id == "o-17"`, "-o", "jsonl")
	if n := strings.Count(r.out, "\n"); n != 1 {
		t.Errorf("%d events\n%s", n, r.out)
	}
	r = w.want(t, codeDone, "find", "webhooks.acme", "--where", `value.source == "acme" && value.headers.exists(h, h.name == "Stripe-Signature")`, "-o", "jsonl")
	if n := strings.Count(r.out, "\n"); n != 1 {
		t.Errorf("%d events\n%s", n, r.out)
	}
}

// What a gateway could not publish is listed with the sender's id, until it comes again.
func TestSourcesListWhatWasToldToComeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sources(t)
	side := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sources" {
			_ = json.NewEncoder(rw).Encode(map[string]any{"broken": "acme.yaml:1: colour", "sources": []gateway.SourceStatus{
				{Name: "acme", Refused: []gateway.Refusal{{ID: "evt_7", At: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC), Request: "r1"}}}, {Name: "gone"},
			}})
		}
	}))
	defer side.Close()
	r := w.want(t, codeDone, "sources", "ls", "--gateway", side.URL, "--refused")
	has(t, "refused", r.out, "acme", "evt_7", "2026-11-24T09:00:00Z", "stripe events resend")
	has(t, "refused", r.err, "older state of the files: acme.yaml:1", "gone that is not in sources")
	r = w.want(t, codeDone, "sources", "ls", "--gateway", side.URL)
	has(t, "ls", r.out, "0 accepted")
}

// A list is for those who have no secrets: what is not set here may be where the gateway runs. A check is strict.
func TestSourcesAreListedWithoutTheirSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "sources/acme.yaml", "scheme: stripe\nsecrets: [env:STRIPE_SECRET, file:not-here]\ntopic: webhooks.acme\n")
	r := w.want(t, codeDone, "sources", "ls")
	has(t, "ls", r.out, "env:STRIPE_SECRET (not set), file:not-here (not set)")
	r = w.want(t, codeFailed, "sources", "check")
	has(t, "check", r.out, "acme.yaml:2: the variable STRIPE_SECRET is empty", "acme.yaml:2: read the secret")
	has(t, "test", w.want(t, codeFailed, "sources", "test", "acme").err, "the variable STRIPE_SECRET is empty")
}

func TestNoSourceIsAFlaw(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "sources/notes.txt", "x")
	has(t, "check", w.want(t, codeFailed, "sources", "check").out, "there is no source in sources")
	w.want(t, codeDone, "sources", "ls")
}

func TestSourcesUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		line, want string
		code       int
	}{
		{"sources ls", "there is no folder sources", codeUsage},
		{"sources ls --refused", "--gateway host:port", codeUsage},
		{"sources check --record-bytes 1", "is allowed", codeUsage},
		{"sources test", "name one source", codeUsage},
	} {
		has(t, tt.line, w.want(t, tt.code, strings.Fields(tt.line)...).err, tt.want)
	}
	w.sources(t)
	has(t, "test", w.want(t, codeUsage, "sources", "test", "nobody").err, "there is no source nobody")
	has(t, "test", w.want(t, codeUsage, "sources", "test", "acme", "--url", "x").err, "write it as")
	has(t, "ls", w.want(t, codeFailed, "sources", "ls", "--gateway", w.env["MILLRACE_REGISTRY"]).err, "is it the address of")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	has(t, "ls", w.want(t, codeFailed, "sources", "ls", "--gateway", ln.Addr().String()).err, "ask the gateway")
	w.write(t, "sources/bad.yaml", "scheme: strype\ncolour: red\n")
	w.write(t, "sources/worse.yaml", "")
	r := w.want(t, codeFailed, "sources", "check")
	has(t, "check", r.out, `✗ bad.yaml:2: unknown field "colour"`, "✗ worse.yaml: the file is empty")
	w.want(t, codeFailed, "sources", "ls")
	delete(w.env, "STRIPE_SECRET")
	has(t, "check", w.want(t, codeFailed, "sources", "check", "-o", "json").out, "the variable STRIPE_SECRET is empty", `"line": 2`)
}

func TestReadCounts(t *testing.T) {
	t.Parallel()
	const text = `# HELP x
millrace_webhook_inbound_total{result="accepted",source="a"} 97
millrace_webhook_inbound_total{result="failed",source="a"} 1
millrace_webhook_inbound_total{result="unavailable",source="a"} 2
millrace_webhook_inbound_total{result="handshake",source="b"} 3
millrace_webhook_inbound_rejected_total{reason="stale",source="b"} 4
millrace_webhook_inbound_total{result="rejected",source="b"} 4
millrace_webhook_inbound_dead_letters_total{error_class="poison",source="b"} 5
millrace_webhook_inbound_duration_seconds_bucket{result="accepted",source="a",le="0.005"} 90
millrace_webhook_inbound_duration_seconds_bucket{result="accepted",source="a",le="0.025"} 97
millrace_webhook_inbound_duration_seconds_bucket{result="accepted",source="a",le="+Inf"} 97
millrace_webhook_inbound_total{result="accepted",source="a"} many
`
	all := readCounts(text)
	if got, want := sum(all).String(), "97 accepted, 0 duplicate, 4 rejected (4 stale), 2 told to come again, 1 failed, 5 dead letters, p99 ≤ 25ms"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if all["a"].P99 != 0.025 || all["b"].Handshake != 3 || all["b"].P99 != 0 {
		t.Errorf("got %+v", all)
	}
}

// A webhook that came in is sent again as it came: with the signature that it had, or a fresh one, and its own id.
func TestReplaySignsWebhooksAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sources(t)
	w.write(t, "event.json", eventJSON)
	url, _ := w.takeIn(t)
	w.want(t, codeDone, "sources", "test", "acme", "--url", url, "--body", "event.json")
	type request struct {
		header http.Header
		body   string
	}
	got := make(chan request, 4)
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- request{r.Header, string(body)}
	}))
	defer receiver.Close()
	replay := []string{"replay", "webhooks.acme", "--from", "start", "--into", receiver.URL + "/in/acme"}
	w.want(t, codeDone, append(replay, "--sign", "original")...)
	original := <-got
	w.env["NEW_SECRET"] = "whsec_new"
	w.want(t, codeDone, append(replay, "--sign", "stripe", "--secret", "env:NEW_SECRET")...)
	fresh := <-got
	stripe, _ := signature.Lookup("stripe")
	for secret, r := range map[string]request{stripeKey: original, "whsec_new": fresh} {
		key, err := stripe.ParseKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		req := &signature.Request{Method: http.MethodPost, URL: receiver.URL, Header: r.header, Body: []byte(r.body)}
		if _, err := stripe.Verify(req, []signature.Key{key}, time.Now()); err != nil || r.body != eventJSON || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("%v: %q with %v", err, r.body, r.header)
		}
	}
	// An event that is no webhook is signed too, and has no signature of its own.
	w.shop(t)
	w.write(t, "orders.jsonl", `{"order_id":"o-17","cents":1999}`+"\n")
	w.want(t, codeDone, "produce", "shop.orders", "--from", "orders.jsonl", "--key-field", "order_id")
	orders := []string{"replay", "shop.orders", "--from", "start", "--into", receiver.URL}
	w.want(t, codeDone, append(orders, "--sign", "github", "--secret", "env:NEW_SECRET")...)
	if h := (<-got).header; h.Get("X-Hub-Signature-256") == "" || h.Get("X-Github-Delivery") == "" {
		t.Errorf("got %v", h)
	}
	has(t, "no webhook", w.want(t, codeFailed, append(orders, "--sign", "original")...).err, "is no webhook that came in")
	for line, want := range map[string]string{
		"--sign original --secret env:NEW_SECRET": "leave out --secret", "--secret env:NEW_SECRET": "without --sign", "--sign nobody --secret env:NEW_SECRET": "there is no scheme", "--sign stripe": "there is no key",
	} {
		has(t, line, w.want(t, codeUsage, append(orders, strings.Fields(line)...)...).err, want)
	}
	has(t, "a topic", w.want(t, codeUsage, "replay", "shop.orders", "--from", "start", "--into", "topic:x", "--sign", "original").err, "are for --into a URL")
}
