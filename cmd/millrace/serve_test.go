package main

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// A registry against a cluster that is already there: ready when it says so, and stopped in order.
func TestServeRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cmd := command(t.Context(), w.dir, "serve", "registry", "-B", w.env["MILLRACE_BROKERS"], "--listen", "127.0.0.1:0", "--create-topics")
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
	url := d.await(t, `registry answers.*(http://127\.0\.0\.1:\d+)`)[1]
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/subjects": "[]", "/metrics": "millrace_kafka_client_connects_total{"} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: got %d %q, want 200 and %q", path, resp.StatusCode, body, want)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	d.await(t, regexp.QuoteMeta("registry stopped"))
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: got %v, want exit code 0", err)
	}
}
