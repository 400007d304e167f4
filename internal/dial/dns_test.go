package dial_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// dns is a name server in memory: answers gives a name's addresses at each question in turn, the last one for ever.
type dns struct {
	mu      sync.Mutex
	answers map[string][][]netip.Addr // by lower-case name
	asked   map[string]int
}

func (d *dns) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go d.serve(server)
		return client, nil
	}}
}

// serve answers one question after the other, framed as DNS over TCP is.
func (d *dns) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		answer := d.answer(query)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (d *dns) answer(query []byte) []byte {
	end := 12
	var labels []string
	for query[end] != 0 {
		n := int(query[end])
		labels = append(labels, string(query[end+1:end+1+n]))
		end += 1 + n
	}
	end++
	kind := binary.BigEndian.Uint16(query[end:])
	question := query[12 : end+4]
	addrs := d.next(strings.ToLower(strings.Join(labels, ".")), kind)
	out := append([]byte{}, query[:2]...)
	out = append(out, 0x84, 0, 0, 1, 0, byte(len(addrs)), 0, 0, 0, 0)
	out = append(out, question...)
	for _, a := range addrs {
		raw := a.AsSlice()
		out = append(out, 0xc0, 12, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(raw)))
		out = append(out, raw...)
	}
	return out
}

// next is what a name answers now: for A (1) the IPv4 addresses, for AAAA (28) the others.
func (d *dns) next(name string, kind uint16) []netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	turns := d.answers[name]
	if len(turns) == 0 {
		return nil
	}
	if d.asked == nil {
		d.asked = map[string]int{}
	}
	// A look-up asks for A and AAAA: both belong to one turn.
	turn := min(d.asked[name]/2, len(turns)-1)
	d.asked[name]++
	var out []netip.Addr
	for _, a := range turns[turn] {
		if a.Is4() == (kind == 1) {
			out = append(out, a)
		}
	}
	return out
}

func addrs(tb testing.TB, texts ...string) []netip.Addr {
	tb.Helper()
	var out []netip.Addr
	for _, t := range texts {
		a, err := netip.ParseAddr(t)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}
