// Package dial reaches URLs that someone else chose: a tenant's endpoint, the certificate that a webhook's header names.
// It is a client of HTTP that reaches public addresses and nothing of our own, whatever the URL spells and whatever DNS
// answers. It stands between whoever holds such a URL and the network.
//
//	client := dial.Client(dial.Config{})
//	resp, err := client.Get(certificateURL) // errors.Is(err, dial.ErrBlocked): the URL leads where it must not
//
// # Where the check is
//
// [Check] looks at the text of a URL: when an endpoint is created, it says what is wrong while a person looks on. What
// protects is the check of each address that is dialled, after DNS and before the first packet ([net.Dialer.ControlContext]):
// a name that answers with another address the second time gains nothing. No proxy of the environment is used, for the
// check would see the proxy alone, and no redirect is followed.
//
// # Bounds
//
// One deadline holds over DNS, connect, TLS, header and body of an answer. An answer's header and body are bounded, and
// nothing is decompressed.
package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrBlocked says that a URL, or the address that it leads to, is not allowed. The message names the address and the
// rule: it is for the log, not for whoever chose the URL.
var ErrBlocked = errors.New("the address is not allowed")

// ErrTooLarge is what reading an answer's body past Config.MaxBody returns.
var ErrTooLarge = errors.New("the answer is too large")

// Lists are what the operator says about addresses. A tenant never says any of it.
type Lists struct {
	// Allow are networks that are reached although they are not public. Names of private networks
	// ("orders.internal", "localhost") then pass [Guard.Check]: what they resolve to decides. Empty allows none.
	Allow []netip.Prefix
	// Deny are public networks that are not reached. It comes before Allow.
	Deny []netip.Prefix
	// Own are the addresses that this process listens on, which are not reached even where Allow has them. An
	// unspecified address (0.0.0.0) stands for every address of this machine.
	Own []netip.AddrPort
}

// Config configures a Guard. The zero value works: https on public addresses.
type Config struct {
	Lists
	// HTTP allows http URLs, on port 80.
	HTTP bool
	// Ports are allowed besides 443, 8443 and, with HTTP, 80.
	Ports []uint16
	// AnyPort allows every port: for development, where everything is on one machine.
	AnyPort bool
	// Timeout bounds an exchange from DNS to the end of the answer's body, at most 30 s. Defaults to 15 s.
	Timeout time.Duration
	// MaxBody is how many bytes of an answer's body can be read; then reading returns [ErrTooLarge]. Defaults to 64 KiB.
	MaxBody int64
	// MaxHeader bounds the header of an answer in bytes. Defaults to 64 KiB.
	MaxHeader int64
	// ConnsPerHost is how many connections to a host are kept for the next request. Defaults to 16.
	ConnsPerHost int
	// TLS is for https. Nil trusts the system's certificates.
	TLS *tls.Config
	// Resolver looks names up. Nil is the system's.
	Resolver *net.Resolver
}

const (
	defaultTimeout = 15 * time.Second
	maxTimeout     = 30 * time.Second
	defaultMaxBody = 64 << 10
	defaultHeader  = 64 << 10
	defaultConns   = 16
	idleTimeout    = 60 * time.Second
	maxIdle        = 1024 // connections over all hosts
)

func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	c.Timeout = min(c.Timeout, maxTimeout)
	if c.MaxBody <= 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.MaxHeader <= 0 {
		c.MaxHeader = defaultHeader
	}
	if c.ConnsPerHost <= 0 {
		c.ConnsPerHost = defaultConns
	}
	return c
}

// Guard decides which URLs and addresses are reached. It is safe for concurrent use.
type Guard struct {
	cfg       Config
	lists     atomic.Pointer[Lists]
	transport atomic.Pointer[http.Transport]
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
}

// New returns a Guard. Fields of cfg that are zero or out of range have their defaults.
func New(cfg Config) *Guard {
	g := &Guard{cfg: cfg.withDefaults()}
	dialer := &net.Dialer{Timeout: g.cfg.Timeout, Resolver: g.cfg.Resolver, ControlContext: g.control}
	g.dial = dialer.DialContext
	g.SetLists(cfg.Lists)
	return g
}

// Client returns the client of a new Guard: for lists that never change.
func Client(cfg Config) *http.Client { return New(cfg).Client() }

// Check is [Guard.Check] of a Guard with the zero Config, but that http is allowed.
func Check(rawURL string) error { return New(Config{HTTP: true}).Check(rawURL) }

// Client returns a client that goes through g. It follows no redirect: the answer with the status 3xx is the answer.
// Errors wrap [ErrBlocked] where g refused.
func (g *Guard) Client() *http.Client {
	return &http.Client{
		Transport:     g,
		Timeout:       g.cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// SetLists replaces the lists. Connections are checked when they are dialled, so those that idle are closed, and those
// in use when their request ends.
func (g *Guard) SetLists(l Lists) {
	l.Own = everyInterface(l.Own)
	g.lists.Store(&l)
	// A new pool: in the old one a connection that is in use now would be kept for the next request.
	if old := g.transport.Swap(g.newTransport()); old != nil {
		old.CloseIdleConnections()
	}
}

// everyInterface writes unspecified addresses out.
func everyInterface(own []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range own {
		if !a.Addr().IsUnspecified() {
			out = append(out, a)
			continue
		}
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			continue // the public list still holds
		}
		for _, i := range addrs {
			if p, err := netip.ParsePrefix(i.String()); err == nil {
				out = append(out, netip.AddrPortFrom(plain(p.Addr()), a.Port()))
			}
		}
	}
	return out
}

func (g *Guard) newTransport() *http.Transport {
	return &http.Transport{
		Proxy: nil, // the check would see the proxy's address alone
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return g.dial(ctx, network, address)
		},
		TLSClientConfig:        g.cfg.TLS.Clone(),
		ForceAttemptHTTP2:      true, // an own DialContext turns it off
		DisableCompression:     true,
		TLSHandshakeTimeout:    g.cfg.Timeout,
		ResponseHeaderTimeout:  g.cfg.Timeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: g.cfg.MaxHeader,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    g.cfg.ConnsPerHost,
		IdleConnTimeout:        idleTimeout,
	}
}

// RoundTrip is part of [http.RoundTripper].
func (g *Guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.checkURL(req.URL); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	resp, err := g.transport.Load().RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &bounded{resp.Body, g.cfg.MaxBody}
	return resp, nil
}

// bounded is a body of which only so much is read. Closing it early closes the connection too.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte // perhaps that was exactly all
		n, err := b.ReadCloser.Read(one[:])
		if n > 0 {
			return 0, ErrTooLarge
		}
		return 0, err
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// control is asked about every address before it is connected to.
func (g *Guard) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return blocked("network %s", network)
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return blocked("%q is no address", address)
	}
	if !g.port(a.Port(), g.cfg.HTTP) {
		return blocked("port %d", a.Port())
	}
	return g.lists.Load().check(a.Addr(), a.Port())
}

func blocked(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBlocked, fmt.Sprintf(format, args...))
}

// port reports whether a port is reached; plain is whether http is.
func (g *Guard) port(p uint16, plain bool) bool {
	switch {
	case p == 0:
		return false
	case g.cfg.AnyPort, p == 443, p == 8443, p == 80 && plain:
		return true
	}
	return slices.Contains(g.cfg.Ports, p)
}

// Check says what is wrong with a URL, nil where nothing is: its scheme, its port, credentials in it, an address or a
// name that is not public. It asks no DNS; what a name resolves to is checked whenever it is dialled.
func (g *Guard) Check(rawURL string) error {
	for _, r := range rawURL {
		if r <= ' ' || r == 0x7f || r == '\\' {
			return blocked("the URL has %q in it", r)
		}
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return blocked("the URL cannot be read") // url.Error repeats the URL, and perhaps a password
	}
	return g.checkURL(u)
}
