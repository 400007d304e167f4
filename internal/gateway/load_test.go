package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/schemas"
)

const paymentSchema = `{"type":"record","name":"payments.Settled","fields":[{"name":"id","type":"string"},{"name":"cents","type":"long"},{"name":"kind","type":"string"}]}`

func withPayments(tb testing.TB, reg *schemas.Registry) {
	tb.Helper()
	if _, err := reg.Register(tb.Context(), "payments-value", paymentSchema); err != nil {
		tb.Fatal(err)
	}
}

// every field there is.
const full = `name: shop
scheme: github
secrets:
  - env:ACME
  - {from: file:old-secret, until: 2030-01-01T00:00:00Z}
public_url: https://hooks.example.com/in/shop
topic: webhooks.shop
key: {json: "data.items[0].id"}
type: {header: X-GitHub-Event}
headers: [X-GitHub-Event]
limits: {body: 64KiB, requests: 10}
gzip: true
confirm: false
dedupe: {window: 24h, body: true, body_window: 1m, header: X-GitHub-Delivery}
event:
  - type: payments.Settled
    topic: payments
    when: headers["x-github-event"] == "payment"
    key: value.id
    fields: {id: value.id, cents: value.cents, kind: '"card"'}
`

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reg := schemas.Memory()
	withPayments(t, reg)
	for name, text := range map[string]string{"full.yaml": full, "old-secret": "shh\n", "open.yaml": "verify: none\ntopic: t\n", ".hidden.yaml": "bad", "notes.txt": "bad"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sources, err := gateway.Folder{Dir: dir, Getenv: func(string) string { return "hush-hush" }}.Load(t.Context(), reg)
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) != 2 || sources[0].Name != "open" || sources[1].Name != "shop" {
		t.Fatalf("got %v", sources)
	}
	s := sources[1]
	if len(s.Keys) != 2 || s.Keys[1].Expires().Year() != 2030 || s.MaxBody != 64<<10 || s.MaxRequests != 10 || len(s.Events) != 1 || s.Scheme.Name != "github" || sources[0].MaxBody != 1<<20 {
		t.Errorf("got %+v", s)
	}
	if strings.Join(s.Secrets, " ") != "env:ACME file:old-secret" {
		t.Errorf("the secrets are in %v", s.Secrets)
	}
	if text := fmt.Sprintf("%+v %#v", *s, *s); strings.Contains(text, "shh") || strings.Contains(text, "hush") {
		t.Error("a secret is printed")
	}
}

func TestLoadSaysWhereItIsWrong(t *testing.T) {
	t.Parallel()
	const ok = "scheme: stripe\nsecrets: env:S\ntopic: t\n"
	tests := []struct{ name, file, want string }{
		{"empty", "", "a.yaml: the file is empty"},
		{"no YAML", "a: [", "a.yaml:1: "},
		{"a list", "- a", "a.yaml:1: a source is fields"},
		{"two documents", ok + "---\n" + ok, "a second document"},
		{"unknown field", ok + "colour: red\n", `a.yaml:4: unknown field "colour": allowed are name, scheme`},
		{"twice", ok + "topic: u\n", "a.yaml:4: topic is set twice: also on line 3"},
		{"an alias", "scheme: &x stripe\nsecrets: env:S\ntopic: *x\n", "a.yaml:3: an alias"},
		{"no scheme", "topic: t\n", "or write verify: none"},
		{"unknown scheme", "scheme: strype\nsecrets: env:S\ntopic: t\n", `a.yaml:1: there is no scheme "strype": known are`},
		{"verify false", "verify: false\ntopic: t\n", "only none is allowed"},
		{"both", ok + "verify: none\n", "one of them"},
		{"no topic", "scheme: stripe\nsecrets: env:S\n", "topic is missing"},
		{"a bad topic", "scheme: stripe\nsecrets: env:S\ntopic: a b\n", "a.yaml:3: topic is"},
		{"no secrets", "scheme: stripe\ntopic: t\n", "secrets is missing"},
		{"a secret in the file", "scheme: stripe\nsecrets: [whsec_abc]\ntopic: t\n", "a secret does not stand in this file"},
		{"an empty variable", "scheme: stripe\nsecrets: [env:NONE]\ntopic: t\n", "a.yaml:2: the variable NONE is empty"},
		{"no such file", "scheme: stripe\nsecrets: [file:none]\ntopic: t\n", "a.yaml:2: read the secret"},
		{"an end that is none", "scheme: stripe\nsecrets: [{from: env:S, until: soon}]\ntopic: t\n", "a.yaml:2: until is no time"},
		{"a key of another form", "scheme: adyen\nsecrets: [env:S]\ntopic: t\n", "a.yaml:2: the secret"},
		{"no public URL", "scheme: twilio\nsecrets: env:S\ntopic: t\n", "a.yaml:1: public_url is missing"},
		{"a URL that is none", ok + "public_url: hooks\n", "a.yaml:4: public_url"},
		{"a large body", ok + "limits: {body: 17MiB}\n", "up to 16MiB"},
		{"a size that is none", ok + "limits: {body: 1GB}\n", "a.yaml:4: body is"},
		{"a path", ok + "key: {json: a..b}\n", "is no path"},
		{"a path and a header", ok + "key: {json: a, header: b}\n", "one of them"},
		{"an own scheme", "scheme: {name: x, colour: red}\nsecrets: env:S\ntopic: t\n", "a.yaml:1: read the scheme"},
		{"a scheme's file", "scheme: schemes/none.yaml\nsecrets: env:S\ntopic: t\n", "read the scheme"},
		{"out of the folder", "scheme: ../x.yaml\nsecrets: env:S\ntopic: t\n", "read the scheme"},
		{"a window", ok + "dedupe: {window: 1ms}\n", "1s to 720h"},
		{"an event without fields", ok + "event: {type: payments.Settled, topic: payments}\n", "an event needs"},
		{"an event of no schema", ok + "event: {type: a.B, topic: b, fields: {a: value.a}}\n", "look up the schema of a.B"},
		{"an event of another schema", ok + "event: {type: a.B, topic: payments, fields: {a: value.a}}\n", "holds the schema of payments.Settled"},
		{"an expression", ok + "event: {type: payments.Settled, topic: payments, fields: {id: valu.a}}\n", "field id"},
		{"a key's expression", ok + "event: {type: payments.Settled, topic: payments, key: valu.a, fields: {id: value.a}}\n", "key: "},
		{"a condition", ok + "event: {type: payments.Settled, topic: payments, when: key, fields: {id: value.a}}\n", "when: "},
		{"a name", ok + "name: A/B\n", "a.yaml:4: the name is"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			reg := schemas.Memory()
			withPayments(t, reg)
			_, err := gateway.Folder{Dir: dir, Getenv: func(n string) string { return map[string]string{"S": "not hex"}[n] }}.Load(t.Context(), reg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q in it", err, tt.want)
			}
			if _, ok := errors.AsType[*gateway.FileError](err); !ok {
				t.Errorf("got a %T", err)
			}
		})
	}
}

func TestReloadKeepsTheOldWhenTheNewIsBad(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
	l.load()
	if changed, err := l.Reload(t.Context()); changed || err != nil {
		t.Errorf("nothing has changed: got %v, %v", changed, err)
	}
	l.write("other.yaml", "scheme: none\n")
	if _, err := l.Reload(t.Context()); err == nil || l.Broken() == "" {
		t.Error("a bad file was taken")
	}
	l.want(signed(t, "msg_1", body), http.StatusOK)
	l.write("other.yaml", "verify: none\ntopic: webhooks.other\n")
	if changed, err := l.Reload(t.Context()); !changed || err != nil || l.Broken() != "" {
		t.Errorf("got %v, %v, %q", changed, err, l.Broken())
	}
	l.want(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/other", strings.NewReader("x")), http.StatusOK)
	l.want(signed(t, "msg_1", body), http.StatusOK)
	if l.seen.count("duplicate") != 1 {
		t.Error("a reload forgot what was seen")
	}
	l.env["ACME"] = "whsec_" + strings.Repeat("A", 40)
	if changed, err := l.Reload(t.Context()); !changed || err != nil {
		t.Errorf("a secret has changed: got %v, %v", changed, err)
	}
	l.want(signed(t, "msg_2", body), http.StatusUnauthorized)
}

// Sources change under load, and while a request is held: none is lost, and none is refused that was signed.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
		l.load()
		l.log.stall()
		held := make(chan int, 1)
		go func() { held <- l.ask(signed(t, "held", body)).Code }()
		synctest.Wait()
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() { l.want(signed(t, fmt.Sprint("msg_", i), body), http.StatusOK) })
			if i%10 == 0 {
				l.write("acme.yaml", acme+fmt.Sprintf("limits: {requests: %d}\n", 1000+i))
				if _, err := l.Reload(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			}
		}
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		l.log.release(nil)
		all.Wait()
		if status := <-held; status != http.StatusOK || len(l.log.in("webhooks.acme")) != 201 {
			t.Errorf("the held one got %d; %d events", status, len(l.log.in("webhooks.acme")))
		}
	})
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{full, acme, "verify: none\ntopic: t\n", "scheme: {name: x}\n", "a: &a [*a]", "secrets: [{from: env:A, until: 2}]"} {
		f.Add(s)
	}
	reg := schemas.Memory()
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sources, err := gateway.Folder{Dir: dir, Getenv: func(string) string { return "s" }}.Load(context.Background(), reg)
		if err == nil && (len(sources) != 1 || sources[0].Topic == "") {
			t.Fatalf("%q was taken: %v", text, sources)
		}
	})
}
