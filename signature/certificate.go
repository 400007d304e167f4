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

// region is a region of Amazon's, strictly: sns.s3-us-west-2.amazonaws.com is somebody's bucket.
const region = `[a-z]{2}(-[a-z]{2,10}){1,2}-[0-9]{1,2}`

// The hosts that certificates come from, and the names that they are for: SNS's name the service, not always the region's
// host. And the hosts of those who issue them.
var (
	paypalHost = regexp.MustCompile(`^[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,3}\.paypal\.com$`)
	snsHost    = regexp.MustCompile(`^sns\.` + region + `\.amazonaws\.com(\.cn)?$`)
	snsName    = regexp.MustCompile(`^sns(-signing)?([.-]` + region + `)?\.amazonaws\.com(\.cn)?$`)
	issuerHost = regexp.MustCompile(`^(crt|cacerts?)(\.[a-z0-9]{1,16})?\.(amazontrust|digicert)\.com$`)
)

// Issuer returns where the certificate above the chain's last one is, where the chain does not reach a root at now and
// says so; else "". SNS publishes its own certificate alone. The URL is http or https, on a host of the authority that
// issues the sender's; fetch it like the chain and add it by [Chain.With]. Two rounds are enough.
func (c *Chain) Issuer(now time.Time) string {
	if c.verify(now) == nil {
		return ""
	}
	for _, raw := range c.certs[len(c.certs)-1].IssuingCertificateURL {
		u, err := url.Parse(raw)
		if err == nil && len(raw) <= 2048 && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && issuerHost.MatchString(u.Host) {
			return raw
		}
	}
	return ""
}

// With returns the chain with one more certificate at its end, in DER or PEM. It need not be trusted: the whole chain is
// judged at each verification.
func (c *Chain) With(text []byte) (*Chain, error) {
	if block, _ := pem.Decode(text); block != nil {
		text = block.Bytes
	}
	cert, err := x509.ParseCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("read the issuer's certificate: %w", err)
	}
	if len(c.certs) == chainMost {
		return nil, fmt.Errorf("read the issuer's certificate: the chain has %d certificates already", chainMost)
	}
	return &Chain{certs: append(slices.Clone(c.certs), cert), roots: c.roots}, nil
}

// verify returns nil if the chain leads to a root at now.
func (c *Chain) verify(now time.Time) error {
	between := x509.NewCertPool()
	for _, cert := range c.certs[1:] {
		between.AddCert(cert)
	}
	_, err := c.certs[0].Verify(x509.VerifyOptions{
		Roots: c.roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

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
	if err := c.verify(now); err != nil {
		return nil, fmt.Errorf("the certificate does not hold: %w", err)
	}
	leaf := c.certs[0]
	_, name := s.hosts()
	if slices.ContainsFunc(append([]string{leaf.Subject.CommonName}, leaf.DNSNames...), name.MatchString) {
		return c, nil
	}
	return nil, errors.New("the certificate is for another name")
}
