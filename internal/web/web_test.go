package web_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/millrace/millrace/internal/web"
)

// serve runs h until the test or stop ends it, and gives its address. The channel has Serve's error.
func serve(t *testing.T, h http.HandlerFunc, cfg web.Config) (addr string, stop func(), done <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(ctx, l, h, cfg) }()
	return l.Addr().String(), cancel, ended
}

// ask sends a request of one header and one body on a connection of its own.
func ask(addr, method, header, body string) (status int, text string, err error) {
	req, err := http.NewRequest(method, "http://"+addr, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X", header)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func mustAsk(t *testing.T, addr, method, body string) (status int, text string) {
	t.Helper()
	status, text, err := ask(addr, method, "", body)
	if err != nil {
		t.Fatal(err)
	}
	return status, text
}

// hear reads one answer from a connection.
func hear(t *testing.T, c net.Conn) (status int, text string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestStopLetsRequestsEnd(t *testing.T) {
	t.Parallel()
	entered, finish := make(chan struct{}), make(chan struct{})
	addr, stop, done := serve(t, func(w http.ResponseWriter, req *http.Request) {
		close(entered)
		<-finish
		if req.Context().Err() != nil {
			t.Error("the request's context ended with the server's")
		}
		fmt.Fprint(w, "whole")
	}, web.Config{})
	answer := make(chan string, 1)
	go func() {
		_, text, err := ask(addr, http.MethodGet, "", "")
		answer <- fmt.Sprint(text, err)
	}()
	<-entered
	stop()
	awaitRefusal(t, addr)
	close(finish)
	if got := <-answer; got != "whole<nil>" {
		t.Errorf("got %q", got)
	}
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// awaitRefusal waits until nothing is accepted any more.
func awaitRefusal(t *testing.T, addr string) {
	t.Helper()
	for range 10_000 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		_ = c.Close()
	}
	t.Error("the server still accepts connections")
}

func TestStopCutsOffWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	addr, stop, done := serve(t, func(_ http.ResponseWriter, req *http.Request) {
		close(entered)
		<-req.Context().Done()
	}, web.Config{Drain: 50 * time.Millisecond})
	go func() { _, _, _ = ask(addr, http.MethodGet, "", "") }()
	<-entered
	stop()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("got %v", err)
	}
}

func TestPanicIsLoggedAndTellsNothing(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.ErrorLevel)
	addr, _, _ := serve(t, func(http.ResponseWriter, *http.Request) { panic("the secret") }, web.Config{Log: zap.New(core)})
	if status, text := mustAsk(t, addr, http.MethodGet, ""); status != 500 || text != "{\"error\":\"internal error\"}\n" {
		t.Errorf("got %d %s", status, text)
	}
	entries := logs.FilterMessage("HTTP handler panicked").All()
	if len(entries) != 1 || entries[0].ContextMap()["panic"] != "the secret" || !strings.Contains(fmt.Sprint(entries[0].ContextMap()["stack"]), "web_test.go") {
		t.Errorf("logged %v", entries)
	}
}

func TestLargeBodyIsRefused(t *testing.T) {
	t.Parallel()
	addr, _, _ := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if _, err := io.ReadAll(req.Body); err != nil {
			web.ReadError(w, err)
		}
	}, web.Config{MaxBody: 10})
	for n, want := range map[int]int{10: 200, 11: 413} {
		status, text := mustAsk(t, addr, http.MethodPost, strings.Repeat("x", n))
		if status != want || want == 413 && text != "{\"error\":\"the body is larger than 10 bytes\"}\n" {
			t.Errorf("%d bytes: got %d %s", n, status, text)
		}
	}
}

func TestSlowBodyIsRefused(t *testing.T) {
	t.Parallel()
	got := make(chan error, 1)
	addr, _, _ := serve(t, func(w http.ResponseWriter, req *http.Request) {
		_, err := io.ReadAll(req.Body)
		got <- err
		web.ReadError(w, err)
	}, web.Config{ReadTimeout: 50 * time.Millisecond})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
	if status, text := hear(t, c); status != http.StatusRequestTimeout {
		t.Errorf("got %d %s", status, text)
	}
	var slow net.Error
	if err := <-got; !errors.As(err, &slow) || !slow.Timeout() {
		t.Errorf("got %v", err)
	}
}

func TestHalfAnAnswerDoesNotLookWhole(t *testing.T) {
	t.Parallel()
	addr, _, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		panic("the secret")
	}, web.Config{})
	if _, text, err := ask(addr, http.MethodGet, "", ""); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestLargeHeaderIsRefused(t *testing.T) {
	t.Parallel()
	addr, _, _ := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if n := len(req.Header.Get("X")); n > 16<<10 {
			t.Errorf("a header of %d bytes came through", n)
		}
		fmt.Fprint(w, "in")
	}, web.Config{})
	for n, want := range map[int]bool{8 << 10: true, 64 << 10: false} {
		// The server hangs up on a client that is still sending: it sees an error, or the 431.
		_, text, err := ask(addr, http.MethodGet, strings.Repeat("x", n), "")
		if in := err == nil && text == "in"; in != want {
			t.Errorf("a header of %d bytes: served %v, want %v", n, in, want)
		}
	}
}

// With one connection allowed, the second is served when the first is closed, and not before.
func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	addr, _, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hi") }, web.Config{MaxConns: 1})
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	dial := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	first, second := dial(), dial()
	fmt.Fprint(first, get)
	hear(t, first)
	fmt.Fprint(second, get)
	if err := second.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := second.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("the second was served beside the first: %v", err)
	}
	_ = first.Close()
	if err := second.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, text := hear(t, second); text != "hi" {
		t.Errorf("got %q", text)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]web.Config{"ReadTimeout": {ReadTimeout: -1}, "MaxBody": {MaxBody: -1}, "MaxConns": {MaxConns: -1}, "Drain": {Drain: -1}} {
		_, _, done := serve(t, nil, cfg)
		if err := <-done; err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := web.Serve(t.Context(), l, http.NotFoundHandler(), web.Config{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
