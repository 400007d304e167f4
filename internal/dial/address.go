package dial

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// special4 is every IPv4 network that is not the public internet, by the registry of IANA. What the standard library
// calls private is a third of it.
var special4 = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4",
)

// public6 is what of IPv6 is the internet, and special6 what of that leads elsewhere: into IPv4 (Teredo, 6to4), or
// nowhere. All else is not public: loopback, NAT64, unique local with the metadata services of clouds, link-local, multicast.
var (
	public6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		out[i] = netip.MustParsePrefix(t)
	}
	return out
}

// plain is an address without what hides it from a prefix: ::ffff:10.0.0.1 and fe80::1%eth0 are in no prefix.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// check decides about an address that is about to be dialled.
func (l *Lists) check(addr netip.Addr, port uint16) error {
	a := plain(addr)
	switch {
	case slices.ContainsFunc(l.Own, func(own netip.AddrPort) bool { return plain(own.Addr()) == a && own.Port() == port }):
		return blocked("%s:%d is our own", a, port)
	case within(l.Deny, a):
		return blocked("%s is denied", a)
	case within(l.Allow, a):
		return nil
	case a.Is4() && within(special4, a), a.Is6() && (!public6.Contains(a) || within(special6, a)), !a.IsValid():
		return blocked("%s is not public", a)
	}
	return nil
}

// checkURL decides about a URL as far as its text goes.
func (g *Guard) checkURL(u *url.URL) error {
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || !g.cfg.HTTP):
		return blocked("scheme %q", u.Scheme)
	case u.Opaque != "" || u.Host == "":
		return blocked("the URL has no host")
	case u.User != nil:
		return blocked("the URL has credentials in it")
	}
	for _, part := range []string{u.Fragment, u.RawQuery} {
		// Parsers disagree about where the host of http://127.0.0.1#@8.8.8.8/ ends.
		if u.Path == "" && strings.Contains(part, "@") {
			return blocked("the URL has an @ behind its host")
		}
	}
	host, port, err := split(u)
	if err != nil {
		return err
	}
	if !g.port(port, u.Scheme == "http") {
		return blocked("port %d", port)
	}
	return g.checkHost(host, port, strings.HasPrefix(u.Host, "["))
}

// split is a URL's host and port, the latter by its scheme where it says none.
func split(u *url.URL) (host string, port uint16, err error) {
	host = u.Hostname()
	if !strings.HasPrefix(u.Host, "[") && strings.Count(u.Host, ":") > 1 {
		return "", 0, blocked("an IPv6 address has no brackets")
	}
	text := u.Port()
	if text == "" {
		if strings.HasSuffix(u.Host, ":") {
			return "", 0, blocked("the URL has an empty port")
		}
		return host, map[string]uint16{"http": 80, "https": 443}[u.Scheme], nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return "", 0, blocked("port %q", text)
	}
	return host, uint16(n), nil
}

// checkHost decides about an address in the URL, and about names that are never public.
func (g *Guard) checkHost(host string, port uint16, brackets bool) error {
	for _, r := range host {
		if r >= 0x80 || r == '%' {
			return blocked("the host has %q in it: write a name of other letters as xn--…, and an address without a zone", r)
		}
	}
	lists := g.lists.Load()
	if a, err := netip.ParseAddr(host); err == nil {
		if brackets != a.Is6() {
			return blocked("only an IPv6 address has brackets")
		}
		return lists.check(a, port)
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if !isName(name) || brackets {
		return blocked("%q is no host", host)
	}
	if len(lists.Allow) > 0 {
		return nil // the operator's own networks have names too
	}
	if !strings.Contains(name, ".") {
		return blocked("%q is a name of a private network", host)
	}
	for _, zone := range []string{"localhost", "localdomain", "local", "internal", "home.arpa"} {
		if strings.HasSuffix(name, "."+zone) {
			return blocked("%q is a name of a private network", host)
		}
	}
	return nil
}

// isName reports whether a host is a name of DNS. One whose last label is a number is read as an IPv4 address by some
// (127.1, 2130706433, 0x7f.1), and so is none.
func isName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return false
		}
		for _, r := range l {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	if strings.Trim(last, "0123456789") == "" {
		return false
	}
	hex, isHex := strings.CutPrefix(last, "0x")
	return !isHex || strings.Trim(hex, "0123456789abcdef") != ""
}
