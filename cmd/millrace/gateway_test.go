package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

// A gateway against a cluster that is already there: it makes its topics, takes a webhook in, loads what changes, and
// stops in order.
func TestServeGateway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	w.write(t, "sources/acme.yaml", "scheme: standard\nsecrets: [file:../acme.secret]\ntopic: webhooks.acme\n")
	w.write(t, "acme.secret", secret+"\n")
	cmd := command(t.Context(), w.dir, "serve", "gateway", "-B", w.env["MILLRACE_BROKERS"], "--registry", w.env["MILLRACE_REGISTRY"],
		"--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--create-topics")
	r, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = stderr.Close()
	d := &devRun{cmd: cmd, lines: make(chan string, 1000)}
	go d.scan(r)
	said := d.await(t, `gateway answers.*"url": "(http://127\.0\.0\.1:\d+)", "metrics": "(http://127\.0\.0\.1:\d+)/metrics"`)
	url, side := said[1], said[2]
	post := func(name, id string) int {
		scheme, _ := signature.Lookup("standard")
		key, err := scheme.ParseKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := scheme.Sign(&signature.Request{Method: http.MethodPost, URL: url, Body: []byte(`{}`)}, []signature.Key{key}, id, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/in/"+name, strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range signed.Header {
			req.Header[http.CanonicalHeaderKey(k)] = v
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := post("acme", "msg_1"); got != http.StatusOK {
		t.Errorf("a webhook got %d", got)
	}
	if got := post("later", "msg_1"); got != http.StatusNotFound {
		t.Errorf("a source that is not there got %d", got)
	}
	w.write(t, "sources/later.yaml", "scheme: standard\nsecrets: [file:../acme.secret]\ntopic: webhooks.later\n")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.await(t, `the sources are loaded.*"sources": 2`)
	if got := post("later", "msg_1"); got != http.StatusOK {
		t.Errorf("a source that came later got %d", got)
	}
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ready", "/sources": `"name":"acme","scheme":"standard","topic":"webhooks.acme","path":"/in/acme"`,
		"/metrics": `millrace_webhook_inbound_total{result="accepted",source="acme"} 1`,
	} {
		resp, err := http.Get(side + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: got %d %q, want 200 and %q", path, resp.StatusCode, body, want)
		}
		resp, err = http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("senders see %s: %d", path, resp.StatusCode)
		}
	}
	for repeats, want := range map[string]int{"1": http.StatusNoContent, "x": http.StatusBadRequest} {
		resp, err := http.Post(side+"/sources/acme/pass?repeats="+repeats, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("pass %s: got %d, want %d", repeats, resp.StatusCode, want)
		}
	}
	if got := post("acme", "msg_1"); got != http.StatusOK {
		t.Errorf("a repeat got %d", got)
	}
	lines := strings.Split(strings.TrimSpace(w.want(t, codeDone, "tail", "webhooks.acme", "--from", "start", "--until", "end", "-o", "jsonl").out), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d events, want the first and the repeat that was let pass: %s", len(lines), lines)
	}
	var event struct {
		ID, Type string
		Data     struct{ Source, ID string }
	}
	if err := json.Unmarshal([]byte(lines[0]), &event); err != nil || event.Type != "millrace.webhook.Received" || event.Data.Source != "acme" || event.Data.ID != "msg_1" {
		t.Errorf("got %v, %s", err, lines[0])
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	d.await(t, regexp.QuoteMeta("gateway stopped"))
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: got %v, want exit code 0", err)
	}
}

func TestServeGatewayUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "sources/acme.yaml", "scheme: acme\ntopic: webhooks.acme\n")
	tests := []struct {
		name string
		args []string
		want string
		code int
	}{
		{"a bad source", nil, "acme.yaml:1: there is no scheme", codeFailed},
		{"no folder", []string{"--sources", "nowhere"}, "open the folder of sources", codeFailed},
		{"a proxy", []string{"--proxies", "10.0.0.1"}, "write a network as 10.0.0.0/8", codeUsage},
		{"a wait", []string{"--drain-wait", "2m"}, "--drain-wait 2m0s", codeUsage},
		{"a record", []string{"--record-bytes", "7"}, "--record-bytes 7", codeUsage},
		{"an address", []string{"--listen", "nowhere:1:2"}, "listen", codeFailed},
		{"another address", []string{"--metrics", "nowhere:1:2"}, "listen for metrics", codeFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := w.want(t, tt.code, append([]string{"serve", "gateway", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, tt.args...)...)
			has(t, "stderr", r.err, tt.want)
		})
	}
}

// What sources/ of the current directory describes is taken in; a fault in it is shown, and corrected while it runs.
func TestDevTakesWebhooksIn(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	w.write(t, "topics/hooks.yaml", "name: webhooks.open\nowner: me\npartitions: 1\n")
	w.write(t, "sources/open.yaml", "verify: all\ntopic: webhooks.open\n")
	d := startDev(t, w.dir, "--port", "0", "--registry-port", "0", "--gateway-port", "0")
	addr := d.await(t, brokerLine)[1]
	url := d.await(t, `webhooks +(http://127\.0\.0\.1:\d+)/in/NAME`)[1]
	d.await(t, `webhooks are not taken in: open\.yaml:1: verify`)
	w.write(t, "sources/open.yaml", "verify: none\ntopic: webhooks.open\n")
	d.await(t, "the sources are corrected")
	resp, err := http.Post(url+"/in/open", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || endOf(t, addr, "webhooks.open") != 1 {
		t.Errorf("got %d, and %d events", resp.StatusCode, endOf(t, addr, "webhooks.open"))
	}
	d.stop(t)
}
