package gateway

import (
	"context"
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
	chainLife   = 12 * time.Hour
	chainBroken = 10 * time.Second
)

// certificates are the certificates that senders sign with, by URL.
type certificates struct {
	client *http.Client
	mu     sync.Mutex
	byURL  map[string]*certificate
}

type certificate struct {
	ready chan struct{}
	chain *signature.Chain
	err   error
	until time.Time
}

func newCertificates(client *http.Client) *certificates {
	return &certificates{client: client, byURL: map[string]*certificate{}}
}

// get returns the chain behind a URL that was checked to be the sender's. Requests that need the same one share a fetch.
func (c *certificates) get(ctx context.Context, u string) (*signature.Chain, error) {
	now := time.Now()
	c.mu.Lock()
	cert := c.byURL[u]
	if cert == nil || !cert.until.IsZero() && now.After(cert.until) {
		cert = &certificate{ready: make(chan struct{})}
		if len(c.byURL) >= maxChains {
			for old := range c.byURL {
				delete(c.byURL, old)
				break
			}
		}
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

func (c *certificates) fetch(ctx context.Context, cert *certificate, u string) {
	chain, err := c.download(ctx, u)
	life := chainLife
	if err != nil {
		life = chainBroken
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cert.chain, cert.err, cert.until = chain, err, time.Now().Add(life)
	close(cert.ready)
}

func (c *certificates) download(ctx context.Context, u string) (*signature.Chain, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch the sender's certificate: %w", err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch the sender's certificate: %w", err)
	}
	pem, err := io.ReadAll(resp.Body) // the client bounds it
	_ = resp.Body.Close()
	switch {
	case err != nil:
		return nil, fmt.Errorf("fetch the sender's certificate: %w", err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("fetch the sender's certificate: status %d", resp.StatusCode)
	}
	chain, err := signature.ParseChain(pem, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch the sender's certificate: %w", err)
	}
	return chain, nil
}
