package signature

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"
)

// chainMost bounds the certificates of a chain.
const chainMost = 8

// Chain is a certificate chain that the caller fetched from [Scheme.CertificateURL]. It may be cached by that URL; whether
// it holds is judged at each verification.
type Chain struct {
	certs []*x509.Certificate
	roots *x509.CertPool
}

// ParseChain reads a chain in PEM: the sender's own certificate first, then those between it and a root. roots nil is the
// system's.
func ParseChain(text []byte, roots *x509.CertPool) (*Chain, error) {
	c := &Chain{roots: roots}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if len(c.certs) == chainMost {
			return nil, fmt.Errorf("read the certificate chain: it has more than %d certificates", chainMost)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read the certificate chain: %w", err)
		}
		c.certs = append(c.certs, cert)
	}
	if len(c.certs) == 0 {
		return nil, errors.New("read the certificate chain: there is none in the text")
	}
	return c, nil
}

// The hosts that certificates come from, and the names that they are for. SNS's certificates name the service, not
// always the region's host.
var (
	paypalHost = regexp.MustCompile(`^[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,3}\.paypal\.com$`)
	snsHost    = regexp.MustCompile(`^sns\.[a-z0-9-]{3,32}\.amazonaws\.com(\.cn)?$`)
	snsName    = regexp.MustCompile(`^sns(-signing)?(-[a-z0-9-]{3,32})?(\.[a-z0-9-]{3,32})?\.amazonaws\.com(\.cn)?$`)
)

func (s *Scheme) hosts() (host, name *regexp.Regexp) {
	switch s.code {
	case codePayPal:
		return paypalHost, paypalHost
	case codeSNS:
		return snsHost, snsName
	default:
		return nil, nil
	}
}

// CertificateURL returns where the certificate behind req's signature is, for the schemes that sign with one; for the
// others "". The URL comes from the caller and was checked: https, a host of the sender's own, no port and no user. Fetch
// it all the same with a client that dials no private address and follows no redirect, read at most 64 KiB, hand it to
// [ParseChain] and cache that by the URL. An error is an [*Error].
func (s *Scheme) CertificateURL(req *Request) (string, error) {
	var raw string
	switch s.code {
	case codePayPal:
		v, fail := req.one("Paypal-Cert-Url")
		if fail != nil {
			return "", fail
		}
		raw = v
	case codeSNS:
		m, fail := snsMessage(req.Body)
		if fail != nil {
			return "", fail
		}
		raw = m["SigningCertURL"]
	default:
		return "", nil
	}
	host, _ := s.hosts()
	if !ownURL(raw, host) {
		return "", fault(Malformed, "the certificate's URL is not one of the sender's own")
	}
	return raw, nil
}

// ownURL reports whether raw is https, without port and user, on a host of the sender's.
func ownURL(raw string, host *regexp.Regexp) bool {
	u, err := url.Parse(raw)
	return err == nil && len(raw) <= 2048 && u.Scheme == "https" && u.User == nil && u.Opaque == "" &&
		u.Fragment == "" && host.MatchString(u.Host) // Host with a port does not match
}

// trusted returns the request's chain if it leads to a root at now and is for the sender's name. The chain is that of
// CertificateURL, so a URL which that refuses is refused here too, whatever the caller fetched.
func (s *Scheme) trusted(req *Request, now time.Time) (*Chain, error) {
	if _, err := s.CertificateURL(req); err != nil {
		return nil, errors.New("the certificate's URL is not one of the sender's own")
	}
	c := req.Chain
	if c == nil {
		return nil, errors.New("there is no certificate: fetch that of CertificateURL")
	}
	between := x509.NewCertPool()
	for _, cert := range c.certs[1:] {
		between.AddCert(cert)
	}
	leaf := c.certs[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("the certificate does not hold: %w", err)
	}
	_, name := s.hosts()
	if slices.ContainsFunc(append([]string{leaf.Subject.CommonName}, leaf.DNSNames...), name.MatchString) {
		return c, nil
	}
	return nil, errors.New("the certificate is for another name")
}
