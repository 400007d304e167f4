package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/millrace/millrace/signature"
)

// The life of a fetched certificate, and of the knowledge that it cannot be fetched.
const (
	maxChains   = 64
	maxFetches  = 8 // at once: a forger chooses the path on the sender's host, and so how many there are
	maxIssuers  = 2
	chainLife   = 12 * time.Hour
	chainBroken = 10 * time.Second
)

// errFetches says that others are being fetched: it is no verdict about the one that was asked for.
var errFetches = errors.New("fetch the sender's certificate: too many are being fetched")

// certificates are the certificates that senders sign with, by URL.
type certificates struct {
	client  *http.Client
	issuers *http.Client   // authorities publish theirs by http: what it brings is judged as part of the chain
	roots   *x509.CertPool // nil is the system's
	mu      sync.Mutex
	fetches int
	byURL   map[string]*certificate
}

type certificate struct {
	ready chan struct{}
	chain *signature.Chain
	err   error
	until time.Time
}

func newCertificates(client, issuers *http.Client, roots *x509.CertPool) *certificates {
	return &certificates{client: client, issuers: issuers, roots: roots, byURL: map[string]*certificate{}}
}

// get returns the chain behind a URL that was checked to be the sender's. Requests that need the same one share a fetch.
func (c *certificates) get(ctx context.Context, u string) (*signature.Chain, error) {
	now := time.Now()
	c.mu.Lock()
	cert := c.byURL[u]
	if cert == nil || !cert.until.IsZero() && now.After(cert.until) {
		if c.fetches >= maxFetches {
			c.mu.Unlock()
			return nil, errFetches
		}
		c.fetches++
		c.makeRoom(now)
		cert = &certificate{ready: make(chan struct{})}
		c.byURL[u] = cert
		go c.fetch(context.WithoutCancel(ctx), cert, u) // the client has a deadline of its own
	}
	c.mu.Unlock()
	select {
	case <-cert.ready:
		return cert.chain, cert.err
	case <-ctx.Done():
		return nil, fmt.Errorf("fetch the sender's certificate: %w", ctx.Err())
	}
}

// makeRoom forgets one where there are too many: what could not be fetched first, so that no forger's URLs drive out the
// sender's own. The caller holds mu.
func (c *certificates) makeRoom(now time.Time) {
	if len(c.byURL) < maxChains {
		return
	}
	victim := ""
	for u, cert := range c.byURL {
		if cert.err != nil || !cert.until.IsZero() && now.After(cert.until) {
			victim = u
			break
		}
		if !cert.until.IsZero() {
			victim = u
		}
	}
	delete(c.byURL, victim)
}

func (c *certificates) fetch(ctx context.Context, cert *certificate, u string) {
	chain, err := c.guarded(ctx, u)
	life := chainLife
	if err != nil {
		life = chainBroken
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetches--
	cert.chain, cert.err, cert.until = chain, err, time.Now().Add(life)
	close(cert.ready)
}

// guarded is download where no request is that would recover from a panic: what is parsed is a stranger's.
func (c *certificates) guarded(ctx context.Context, u string) (chain *signature.Chain, err error) {
	defer func() {
		if v := recover(); v != nil {
			chain, err = nil, fmt.Errorf("fetch the sender's certificate: a panic: %v", v)
		}
	}()
	return c.download(ctx, u)
}

// download fetches a chain, and of one that does not reach a root what is above it.
func (c *certificates) download(ctx context.Context, u string) (*signature.Chain, error) {
	text, err := fetch(ctx, c.client, u)
	if err != nil {
		return nil, fmt.Errorf("fetch the sender's certificate: %w", err)
	}
	chain, err := signature.ParseChain(text, c.roots)
	if err != nil {
		return nil, fmt.Errorf("fetch the sender's certificate: %w", err)
	}
	for range maxIssuers {
		above := chain.Issuer(time.Now())
		if above == "" {
			break
		}
		if text, err = fetch(ctx, c.issuers, above); err != nil {
			return nil, fmt.Errorf("fetch the certificate above the sender's: %w", err)
		}
		if chain, err = chain.With(text); err != nil {
			return nil, fmt.Errorf("fetch the certificate above the sender's: %w", err)
		}
	}
	return chain, nil
}

// fetch returns what is behind a URL. The client bounds its size and its time.
func fetch(ctx context.Context, client *http.Client, u string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read only
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("GET %s: status %d", u, resp.StatusCode)
	}
	return text, nil
}
