package dial_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/dial"
)

type vector struct {
	URL       string   `json:"url"`
	Allow     bool     `json:"allow"`
	Why       string   `json:"why"`
	Kind      string   `json:"kind"`
	Resolves  []string `json:"resolves_to"`
	Then      []string `json:"then_resolves_to"`
	Redirects string   `json:"redirects_to"`
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	text, err := os.ReadFile("testdata/ssrf.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct {
		Cases []vector `json:"cases"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		tb.Fatal(err)
	}
	if len(file.Cases) != 105 {
		tb.Fatalf("%d cases, want all 105", len(file.Cases))
	}
	return file.Cases
}

// lab is a server that a guard reaches under every public address, and what it was asked.
type lab struct {
	guard *dial.Guard
	asked atomic.Int64

	mu      sync.Mutex
	reached []netip.AddrPort
}

func newLab(tb testing.TB, cfg dial.Config, d *dns, h http.HandlerFunc) *lab {
	tb.Helper()
	l := &lab{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		l.asked.Add(1)
		h(w, req)
	})
	server := httptest.NewTLSServer(handler)
	tb.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	cfg.TLS = &tls.Config{RootCAs: roots, ServerName: "example.com"}
	cfg.Resolver = d.resolver()
	l.guard = dial.New(cfg)
	l.guard.Reroute(server.Listener.Addr().String(), func(a netip.AddrPort) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.reached = append(l.reached, a)
	})
	tb.Cleanup(func() { l.guard.SetLists(dial.Lists{}) }) // closes what idles
	return l
}

func (l *lab) get(ctx context.Context, rawURL string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		return nil, err
	}
	return l.guard.Client().Do(req)
}

// fetch gets a URL and reads its body.
func (l *lab) fetch(ctx context.Context, rawURL string) error {
	resp, err := l.get(ctx, rawURL)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		t.Run(v.Kind+" "+strings.ToValidUTF8(v.URL, "?"), func(t *testing.T) {
			t.Parallel()
			switch v.Kind {
			case "resolve", "rebind", "redirect":
				testResolved(t, v)
			default:
				err := dial.Check(v.URL)
				if v.Allow != (err == nil) || !v.Allow && !errors.Is(err, dial.ErrBlocked) {
					t.Fatalf("%s: Check says %v", v.Why, err)
				}
				testSend(t, v)
			}
		})
	}
}

// testSend asks the check at send alone, as if nothing had been checked at create.
func testSend(t *testing.T, v vector) {
	t.Helper()
	u, err := url.Parse(v.URL)
	if err != nil {
		return // no request can be made of it
	}
	var reached atomic.Int64
	g := dial.New(dial.Config{HTTP: true, Resolver: (&dns{}).resolver()})
	g.Reroute("", func(netip.AddrPort) { reached.Add(1) })
	resp, err := g.Client().Transport.RoundTrip((&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}).WithContext(t.Context()))
	if err == nil {
		_ = resp.Body.Close()
		t.Fatal("there is no server and an answer")
	}
	if (reached.Load() > 0) != v.Allow {
		t.Fatalf("%s: %d addresses were reached: %v", v.Why, reached.Load(), err)
	}
}

func testResolved(t *testing.T, v vector) {
	t.Helper()
	u, err := url.Parse(v.URL)
	if err != nil {
		t.Fatal(err)
	}
	d := &dns{answers: map[string][][]netip.Addr{u.Hostname(): {addrs(t, v.Resolves...)}}}
	if v.Then != nil {
		d.answers[u.Hostname()] = append(d.answers[u.Hostname()], addrs(t, v.Then...))
	}
	var followed atomic.Bool
	l := newLab(t, dial.Config{}, d, func(w http.ResponseWriter, req *http.Request) {
		if v.Redirects != "" && strings.HasPrefix(req.URL.Path, "/redirect/") {
			http.Redirect(w, req, v.Redirects, http.StatusFound)
			return
		}
		followed.Store(v.Redirects != "")
	})
	if err := l.guard.Check(v.URL); err != nil {
		t.Fatalf("Check asks no DNS and says %v", err)
	}
	if v.Then != nil { // what checks and then dials sees the first answer, and we dial the second
		if _, err := d.resolver().LookupNetIP(t.Context(), "ip", u.Hostname()); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := l.get(t.Context(), v.URL)
	if err == nil {
		defer func() { _ = resp.Body.Close() }()
	}
	for _, a := range l.reached {
		if !a.Addr().IsGlobalUnicast() || a.Addr().IsPrivate() {
			t.Errorf("%s: %v was reached", v.Why, a)
		}
	}
	switch {
	case v.Redirects != "":
		if err != nil || resp.StatusCode != http.StatusFound || followed.Load() || l.asked.Load() != 1 {
			t.Errorf("%s: got %v, %v, asked %d times", v.Why, resp, err, l.asked.Load())
		}
	case v.Allow && err != nil:
		t.Errorf("%s: %v", v.Why, err)
	case !v.Allow && !slices.Contains(v.Resolves, "8.8.8.8") && !slices.Contains(v.Resolves, "2001:4860:4860::8888") || v.Then != nil:
		if v.Allow != (err == nil) || !v.Allow && !errors.Is(err, dial.ErrBlocked) {
			t.Errorf("%s: got %v", v.Why, err)
		}
	}
}

// A name whose second answer is another address gains nothing: neither by a new connection nor by one that was kept.
func TestRebindingAtEachDial(t *testing.T) {
	t.Parallel()
	d := &dns{answers: map[string][][]netip.Addr{"a.example.com": {addrs(t, "8.8.8.8"), addrs(t, "10.0.0.1")}}}
	l := newLab(t, dial.Config{}, d, func(http.ResponseWriter, *http.Request) {})
	if err := l.fetch(t.Context(), "https://a.example.com/"); err != nil {
		t.Fatal(err)
	}
	l.guard.SetLists(dial.Lists{}) // closes the connection that idles
	if err := l.fetch(t.Context(), "https://a.example.com/"); !errors.Is(err, dial.ErrBlocked) || !strings.Contains(err.Error(), "10.0.0.1") {
		t.Fatalf("got %v, want 10.0.0.1 to be blocked", err)
	}
}

func TestListsChange(t *testing.T) {
	t.Parallel()
	d := &dns{answers: map[string][][]netip.Addr{"a.example.com": {addrs(t, "8.8.8.8")}}}
	arrived, release := make(chan struct{}), make(chan struct{})
	l := newLab(t, dial.Config{}, d, func(_ http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			close(arrived)
			<-release
		}
	})
	slow := make(chan error, 1)
	go func() {
		slow <- l.fetch(context.WithoutCancel(t.Context()), "https://a.example.com/slow")
	}()
	<-arrived
	l.guard.SetLists(dial.Lists{Deny: []netip.Prefix{netip.MustParsePrefix("8.8.8.0/24")}})
	close(release)
	if err := <-slow; err != nil {
		t.Fatalf("the request that was under way: %v", err)
	}
	// The connection of the slow request was checked by the old lists: it must not carry the next one.
	if err := l.fetch(t.Context(), "https://a.example.com/"); !errors.Is(err, dial.ErrBlocked) {
		t.Fatalf("got %v, want a block", err)
	}
}

func TestAllowListAndOwnAddresses(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	var listen net.ListenConfig
	ln, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.NotFoundHandler()}}
	server.Start()
	defer server.Close()
	own := netip.MustParseAddrPort(ln.Addr().String())
	tests := []struct {
		name string
		cfg  dial.Config
		want bool
	}{
		{"nothing is allowed", dial.Config{HTTP: true, AnyPort: true}, false},
		{"the network is allowed", dial.Config{HTTP: true, AnyPort: true, Lists: dial.Lists{Allow: loopback}}, true},
		{"the port is listed", dial.Config{HTTP: true, Ports: []uint16{own.Port()}, Lists: dial.Lists{Allow: loopback}}, true},
		{"the port is not", dial.Config{HTTP: true, Lists: dial.Lists{Allow: loopback}}, false},
		{"no http", dial.Config{AnyPort: true, Lists: dial.Lists{Allow: loopback}}, false},
		{"our own", dial.Config{HTTP: true, AnyPort: true, Lists: dial.Lists{Allow: loopback, Own: []netip.AddrPort{own}}}, false},
		{"our own, on every address", dial.Config{HTTP: true, AnyPort: true, Lists: dial.Lists{Allow: loopback, Own: []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), own.Port())}}}, false},
		{"denied", dial.Config{HTTP: true, AnyPort: true, Lists: dial.Lists{Allow: loopback, Deny: loopback[:1]}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, host := range []string{"127.0.0.1", "localhost"} {
				u := "http://" + net.JoinHostPort(host, ln.Addr().String()[len("127.0.0.1:"):])
				g := dial.New(tt.cfg)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := g.Client().Do(req)
				if err == nil {
					_ = resp.Body.Close()
				}
				if (err == nil) != tt.want || !tt.want && !errors.Is(err, dial.ErrBlocked) {
					t.Errorf("%s: got %v", host, err)
				}
				g.SetLists(dial.Lists{})
			}
		})
	}
}

// The spellings of one address decide alike, whatever hides it from a prefix.
func TestMappedAndZoned(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"[::ffff:8.8.8.8]:443": true, "[::ffff:10.0.0.1]:443": false, "[fe80::1%eth0]:443": false, "[2606:4700::1%eth0]:443": true,
		"8.8.8.8:443": true, "8.8.8.8:22": false, "8.8.8.8:0": false, "no address": false,
	} {
		if err := dial.New(dial.Config{}).Control("tcp4", text); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := dial.New(dial.Config{}).Control("udp4", "8.8.8.8:443"); !errors.Is(err, dial.ErrBlocked) {
		t.Errorf("udp: %v", err)
	}
}

func TestNoProxyOfTheEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	d := &dns{answers: map[string][][]netip.Addr{"a.example.com": {addrs(t, "8.8.8.8")}}}
	l := newLab(t, dial.Config{}, d, func(http.ResponseWriter, *http.Request) {})
	if err := l.fetch(t.Context(), "https://a.example.com/"); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	d := &dns{answers: map[string][][]netip.Addr{"a.example.com": {addrs(t, "8.8.8.8")}}}
	l := newLab(t, dial.Config{MaxBody: 1 << 10, MaxHeader: 4 << 10, Timeout: 300 * time.Millisecond}, d, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/exact":
			_, _ = w.Write(make([]byte, 1<<10))
		case "/large":
			for range 1 << 10 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		case "/header":
			w.Header().Set("X", strings.Repeat("x", 16<<10))
		case "/endless":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-req.Context().Done()
		}
	})
	read := func(path string) (int64, error) {
		resp, err := l.get(t.Context(), "https://a.example.com"+path)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		return io.Copy(io.Discard, resp.Body)
	}
	if n, err := read("/exact"); n != 1<<10 || err != nil {
		t.Errorf("exactly as much: got %d, %v", n, err)
	}
	if n, err := read("/large"); n != 1<<10 || !errors.Is(err, dial.ErrTooLarge) {
		t.Errorf("too much: got %d, %v", n, err)
	}
	if _, err := read("/header"); err == nil {
		t.Error("a header of 16 KiB passed")
	}
	var timeout net.Error
	if _, err := read("/endless"); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a body without end: got %v, want the deadline", err)
	}
}

func FuzzCheck(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.URL)
	}
	g := dial.New(dial.Config{HTTP: true})
	f.Fuzz(func(t *testing.T, rawURL string) {
		if g.Check(rawURL) != nil {
			return
		}
		u, err := url.Parse(rawURL)
		if err != nil || u.User != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			t.Fatalf("%q passed", rawURL)
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && (a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()) {
			t.Fatalf("%q passed", rawURL)
		}
	})
}
