package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// errReached stands for a connection to an address that passed the check.
var errReached = errors.New("reached")

// Reroute lets every name and address be looked up and checked as ever, and connects those that pass to a local server;
// reached hears of each. An empty local is no server.
func (g *Guard) Reroute(local string, reached func(netip.AddrPort)) {
	g.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		d := &net.Dialer{Timeout: g.cfg.Timeout, Resolver: g.cfg.Resolver, ControlContext: func(ctx context.Context, network, address string, c syscall.RawConn) error {
			if err := g.control(ctx, network, address, c); err != nil {
				return err
			}
			reached(netip.MustParseAddrPort(address))
			return errReached
		}}
		c, err := d.DialContext(ctx, network, address)
		if errors.Is(err, errReached) && local != "" {
			return (&net.Dialer{}).DialContext(ctx, "tcp", local)
		}
		return c, err
	}
}

// Control asks the check of an address that is dialled.
func (g *Guard) Control(network, address string) error {
	return g.control(context.Background(), network, address, nil)
}
