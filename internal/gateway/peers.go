package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// peers bounds what one address may have open. An address is a connection's, or where that is a load balancer's, the
// one that it names.
type peers struct {
	most    int
	proxies []netip.Prefix

	mu    sync.Mutex
	conns map[netip.Addr]int
	calls map[netip.Addr]int // requests of addresses behind proxies
}

func newPeers(most int, proxies []netip.Prefix) *peers {
	return &peers{most: most, proxies: proxies, conns: map[netip.Addr]int{}, calls: map[netip.Addr]int{}}
}

func (p *peers) isProxy(a netip.Addr) bool {
	return slices.ContainsFunc(p.proxies, func(n netip.Prefix) bool { return n.Contains(a) })
}

// count takes one of an address's places, unless all are taken.
func (p *peers) count(in map[netip.Addr]int, a netip.Addr) (release func(), ok bool) {
	if a.Is6() {
		if n, err := a.Prefix(64); err == nil {
			a = n.Addr() // a household has so many
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if in[a] >= p.most {
		return nil, false
	}
	in[a]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if in[a]--; in[a] == 0 {
			delete(in, a)
		}
	}), true
}

// enter bounds the requests of an address behind a proxy. Others are bounded by their connections.
func (p *peers) enter(hr *http.Request) (release func(), ok bool) {
	peer := addrOf(hr.RemoteAddr)
	if !p.isProxy(peer) {
		return func() {}, true
	}
	return p.count(p.calls, p.behind(peer, hr.Header.Values("X-Forwarded-For")))
}

// behind is the address that a proxy names: the last one of the list that is no proxy's, for what stands before it
// anybody could have written.
func (p *peers) behind(peer netip.Addr, forwarded []string) netip.Addr {
	list := strings.Split(strings.Join(forwarded, ","), ",")
	for _, text := range slices.Backward(list) {
		text = strings.TrimSpace(text)
		a, err := netip.ParseAddr(text)
		if err != nil { // some proxies write the port too
			with, err := netip.ParseAddrPort(text)
			if err != nil {
				return peer
			}
			a = with.Addr()
		}
		if a = a.Unmap().WithZone(""); !p.isProxy(a) {
			return a
		}
		peer = a
	}
	return peer
}

func addrOf(address string) netip.Addr {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

// listener lets so many connections in, and of one address so many. Those that are too many for an address are closed;
// the others wait in the kernel's queue.
type listener struct {
	net.Listener

	peers  *peers
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newListener(l net.Listener, p *peers, most int) *listener {
	return &listener{Listener: l, peers: p, slots: make(chan struct{}, most), closed: make(chan struct{})}
}

// Accept is part of [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err
		}
		release := func() {}
		if a := addrOf(c.RemoteAddr().String()); !l.peers.isProxy(a) {
			var ok bool
			if release, ok = l.peers.count(l.peers.conns, a); !ok {
				_ = c.Close()
				continue
			}
		}
		return &conn{Conn: c, release: sync.OnceFunc(func() { release(); <-l.slots })}, nil
	}
}

// Close is part of [net.Listener].
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conn gives its places back when it is closed.
type conn struct {
	net.Conn

	release func()
}

// Close is part of [net.Conn].
func (c *conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
