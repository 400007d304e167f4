package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/signature"
)

// fakeLog is a publisher whose answers a test decides.
type fakeLog struct {
	mu     sync.Mutex
	acked  []event.Event
	asked  []event.Event
	held   []func(error)
	hold   bool                       // answers wait for release
	refuse func(e *event.Event) error // nil acks
	panics bool
}

func (f *fakeLog) PublishAsync(_ context.Context, e event.Event, done func(event.Event, error)) {
	if f.panics {
		panic("a bug")
	}
	f.mu.Lock()
	f.asked = append(f.asked, e)
	offset := int64(len(f.asked) - 1)
	end := func(err error) {
		if err == nil {
			e.Partition, e.Offset = 0, offset
			f.mu.Lock()
			f.acked = append(f.acked, e)
			f.mu.Unlock()
		}
		done(e, err)
	}
	if f.hold {
		f.held = append(f.held, end)
		f.mu.Unlock()
		return
	}
	refuse := f.refuse
	f.mu.Unlock()
	var err error
	if refuse != nil {
		err = refuse(&e)
	}
	go end(err)
}

func (f *fakeLog) Publish(ctx context.Context, events ...event.Event) error {
	for _, e := range events {
		done := make(chan error, 1)
		f.PublishAsync(ctx, e, func(_ event.Event, err error) { done <- err })
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}

// release answers what is held.
func (f *fakeLog) release(err error) {
	f.mu.Lock()
	held := f.held
	f.held, f.hold = nil, false
	f.mu.Unlock()
	for _, end := range held {
		end(err)
	}
}

func (f *fakeLog) stall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = true
}

// in are the acknowledged events of a topic.
func (f *fakeLog) in(topic string) []event.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []event.Event
	for _, e := range f.acked {
		if e.Topic == topic {
			out = append(out, e)
		}
	}
	return out
}

func (f *fakeLog) attempts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

var errRefused = fmt.Errorf("%w: a leader is elected", producer.ErrUnknown)

// watcher counts what an observer hears.
type watcher struct {
	mu      sync.Mutex
	results map[string]int // result, and result/reason
}

func (w *watcher) Inbound(_ string, result gateway.Result, reason string, _ time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.results == nil {
		w.results = map[string]int{}
	}
	w.results[string(result)]++
	if reason != "" {
		w.results[string(result)+"/"+reason]++
	}
}
func (w *watcher) DeadLettered(_, class string) { w.Inbound("", "dead", class, 0) }
func (w *watcher) Evicted(string, int)          {}
func (w *watcher) Reloaded(bool)                {}

func (w *watcher) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.results[what]
}

// lab is a gateway with a folder of sources and a fake log.
type lab struct {
	*gateway.Gateway

	tb   testing.TB
	dir  string
	log  *fakeLog
	reg  *schemas.Registry
	seen *watcher
	env  map[string]string
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// acme is a source that the tests sign for.
const acme = "scheme: standard\nsecrets: [env:ACME]\ntopic: webhooks.acme\nkey: {json: customer}\n"

func newLab(tb testing.TB, cfg gateway.Config, files map[string]string) *lab {
	tb.Helper()
	return newLabOn(tb, schemas.Memory(), cfg, files)
}

// newLabOn is newLab with a registry.
func newLabOn(tb testing.TB, reg *schemas.Registry, cfg gateway.Config, files map[string]string) *lab {
	tb.Helper()
	l := &lab{tb: tb, dir: tb.TempDir(), log: &fakeLog{}, reg: reg, seen: &watcher{}, env: map[string]string{"ACME": secret}}
	for name, text := range files {
		l.write(name, text)
	}
	cfg.Folder = gateway.Folder{Dir: l.dir, Getenv: func(name string) string { return l.env[name] }}
	cfg.Observer = l.seen
	var err error
	if l.Gateway, err = gateway.New(l.log, l.reg, cfg); err != nil {
		tb.Fatal(err)
	}
	return l
}

func (l *lab) load() {
	l.tb.Helper()
	if _, err := l.Reload(context.Background()); err != nil {
		l.tb.Fatal(err)
	}
}

func (l *lab) write(name, text string) {
	l.tb.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600); err != nil {
		l.tb.Fatal(err)
	}
}

// signed is a request of acme with an id.
func signed(tb testing.TB, id, body string) *http.Request {
	tb.Helper()
	scheme, ok := signature.Lookup("standard")
	if !ok {
		tb.Fatal("there is no standard")
	}
	key, err := scheme.ParseKey(secret)
	if err != nil {
		tb.Fatal(err)
	}
	req, err := scheme.Sign(&signature.Request{Method: http.MethodPost, URL: "https://x.example/in/acme", Body: []byte(body)}, []signature.Key{key}, id, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, "/in/acme", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for name, values := range req.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	return r
}

// ask sends a request and returns the answer.
func (l *lab) ask(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	l.ServeHTTP(w, r)
	return w
}

func (l *lab) want(r *http.Request, status int) *httptest.ResponseRecorder {
	l.tb.Helper()
	resp := l.ask(r)
	if resp.Code != status {
		l.tb.Errorf("%s %s: got %d %s, want %d", r.Method, r.URL.Path, resp.Code, resp.Body, status)
	}
	return resp
}

// received decodes an envelope.
func (l *lab) received(e event.Event) map[string]any {
	l.tb.Helper()
	var v any
	if err := l.reg.Decode(context.Background(), &e, &v); err != nil {
		l.tb.Fatal(err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		l.tb.Fatal(errors.New("it is no record"))
	}
	return m
}

// nowhere is a listener that nobody calls.
type nowhere struct{ closed chan struct{} }

func newNowhere() *nowhere { return &nowhere{make(chan struct{})} }

func (n *nowhere) Accept() (net.Conn, error) {
	<-n.closed
	return nil, net.ErrClosed
}

func (n *nowhere) Close() error {
	select {
	case <-n.closed:
	default:
		close(n.closed)
	}
	return nil
}

func (n *nowhere) Addr() net.Addr { return &net.TCPAddr{} }
