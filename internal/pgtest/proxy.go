package pgtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Proxy passes PostgreSQL's protocol through, and can cut a connection at COMMIT: where the client cannot know what
// became of its transaction. Its methods may be called by any goroutine.
type Proxy struct {
	dsn      *url.URL
	server   string
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	conns   map[net.Conn]struct{}
	commits int
	before  int // the number of the COMMIT that is not passed on; 0 = none
	after   int // the number of the COMMIT whose answer is not passed on; 0 = none
}

// NewProxy listens on a loopback port and passes what it hears to the server of dsn, until the test ends. The DSN
// must be one of [Server.DSN]: without TLS.
func NewProxy(tb testing.TB, dsn string) *Proxy {
	tb.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // local
	if err != nil {
		tb.Fatalf("listen for the proxy: %v", err)
	}
	p := &Proxy{dsn: u, server: u.Host, listener: l, conns: map[net.Conn]struct{}{}}
	p.running.Go(p.accept)
	tb.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Cut()
		p.running.Wait()
	})
	return p
}

// DSN is the database by way of the proxy.
func (p *Proxy) DSN() string {
	u := *p.dsn
	u.Host = p.listener.Addr().String()
	return u.String()
}

// Commits is how many COMMITs clients have sent.
func (p *Proxy) Commits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commits
}

// CutBefore cuts the connection that sends the n-th COMMIT from now (1 = the next), before the server hears of it: the
// transaction is rolled back.
func (p *Proxy) CutBefore(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = p.commits + n
}

// CutAfter cuts the connection that sends the n-th COMMIT from now (1 = the next), once the server has committed and
// before the client hears of it.
func (p *Proxy) CutAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = p.commits + n
}

// Cut cuts every connection now.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// keep notes a connection for Cut, and reports false once the proxy has ended.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	return !p.closed
}

func (p *Proxy) serve(client net.Conn) {
	var d net.Dialer
	server, err := d.DialContext(context.Background(), "tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	cut := sync.OnceFunc(func() {
		_, _ = client.Close(), server.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	})
	defer cut()
	if !p.keep(client) || !p.keep(server) {
		return
	}
	s := &session{proxy: p, client: client, server: server}
	var both sync.WaitGroup
	both.Go(func() { _ = s.forth(); cut() })
	both.Go(func() { _ = s.back(); cut() })
	both.Wait()
}

// session is one client's connection.
type session struct {
	proxy          *Proxy
	client, server net.Conn

	mu      sync.Mutex
	swallow bool // the next thing the server says is the answer that nobody hears
}

var errCut = errors.New("cut here")

// forth passes the client's messages on one by one: a startup message without a type, then typed ones.
func (s *session) forth() error {
	in := make([]byte, 5)
	typed := false
	for {
		head := in[:4]
		if typed {
			head = in[:5]
		}
		if _, err := io.ReadFull(s.client, head); err != nil {
			return err
		}
		length := int(binary.BigEndian.Uint32(head[len(head)-4:])) - 4
		if length < 0 || length > 1<<30 {
			return fmt.Errorf("a message of %d bytes", length)
		}
		if !typed || head[0] != 'Q' {
			if _, err := s.server.Write(head); err != nil {
				return err
			}
			if _, err := io.CopyN(s.server, s.client, int64(length)); err != nil {
				return err
			}
			typed = true
			continue
		}
		message := append(bytes.Clone(head), make([]byte, length)...)
		if _, err := io.ReadFull(s.client, message[5:]); err != nil {
			return err
		}
		if isCommit(message[5:]) && s.commit() {
			return errCut
		}
		if _, err := s.server.Write(message); err != nil {
			return err
		}
	}
}

// isCommit reports whether the text of a simple query is a COMMIT, as pgx and psql send it.
func isCommit(text []byte) bool {
	text = bytes.TrimRight(bytes.TrimSpace(bytes.TrimRight(text, "\x00")), ";")
	return bytes.EqualFold(text, []byte("commit"))
}

// commit counts a COMMIT, and reports whether it is the one that does not reach the server.
func (s *session) commit() (cut bool) {
	p := s.proxy
	p.mu.Lock()
	p.commits++
	cut, swallow := p.commits == p.before, p.commits == p.after
	p.mu.Unlock()
	if swallow {
		s.mu.Lock()
		s.swallow = true
		s.mu.Unlock()
	}
	return cut
}

func (s *session) back() error {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.server.Read(buf)
		if err != nil {
			return err
		}
		s.mu.Lock()
		swallow := s.swallow
		s.mu.Unlock()
		if swallow {
			return errCut
		}
		if _, err := s.client.Write(buf[:n]); err != nil {
			return err
		}
	}
}
