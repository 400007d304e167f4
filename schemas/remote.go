package schemas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

// Limits of a conversation with a registry.
const (
	requestTimeout = 5 * time.Second
	maxResponse    = 16 << 20 // bytes
	rounds         = 3        // over all URLs
	firstWait      = 100 * time.Millisecond
)

// remote is a registry behind HTTP.
type remote struct {
	clients []*sr.Client // one a URL, so that a 5xx goes to the next as a refused connection does
}

func newRemote(cfg Config) (*remote, error) {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       cfg.TLS,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   maxPrefetch,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   requestTimeout,
		ResponseHeaderTimeout: requestTimeout,
	}
	client := &http.Client{Transport: bounded{transport}, Timeout: requestTimeout}
	r := &remote{}
	for _, u := range cfg.URLs {
		opts := []sr.ClientOpt{sr.URLs(u), sr.HTTPClient(client), sr.UserAgent("millrace")}
		if cfg.User != "" {
			opts = append(opts, sr.BasicAuth(cfg.User, cfg.Password.Reveal()))
		}
		cl, err := sr.NewClient(opts...)
		if err != nil {
			return nil, fmt.Errorf("make a client for registry %s: %w", u, err)
		}
		r.clients = append(r.clients, cl)
	}
	return r, nil
}

// bounded limits the bodies of responses: whatever answers at the URL is not trusted to be a registry.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err == nil {
		resp.Body = &limitedBody{resp.Body, maxResponse}
	}
	return resp, err
}

type limitedBody struct {
	io.ReadCloser

	left int
}

var errTooLong = fmt.Errorf("the response is longer than %d bytes", maxResponse)

func (l *limitedBody) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLong
	}
	n, err := l.ReadCloser.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// ask tries the URLs in order, some rounds long, for as long as the registry is unavailable. The wait between rounds
// doubles and is anywhere between half and all of itself, so that a fleet of consumers does not return as one.
func ask[T any](ctx context.Context, r *remote, question func(context.Context, *sr.Client) (T, error)) (T, error) {
	var last error
	for round := range rounds {
		if round > 0 {
			wait := firstWait << round
			wait = wait/2 + rand.N(wait/2) //nolint:gosec // jitter, no secret
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				var zero T
				return zero, last
			}
		}
		for _, cl := range r.clients {
			v, err := question(ctx, cl)
			if err == nil {
				return v, nil
			}
			if last = classify(err); !errors.Is(last, ErrUnavailable) {
				return v, last
			}
			if refused, ok := errors.AsType[*sr.ResponseError](err); ok && refused.StatusCode < 500 && refused.StatusCode != http.StatusTooManyRequests {
				return v, last // 401, 403, a wrong path: the next second changes nothing
			}
		}
	}
	var zero T
	return zero, last
}

// classify says what a registry's answer means. Only an answer that carries a registry's own error code counts as
// its word: a proxy's 404 is no proof that a schema does not exist.
func classify(err error) error {
	refused, ok := errors.AsType[*sr.ResponseError](err)
	if !ok {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	switch {
	case refused.StatusCode == http.StatusNotFound && refused.ErrorCode/100 == 404:
		return fmt.Errorf("%w: %s", ErrNotFound, refused.Message)
	case refused.StatusCode == http.StatusConflict, refused.StatusCode == http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %s", ErrIncompatible, refused.Message)
	case refused.StatusCode == http.StatusUnauthorized, refused.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w: it answers %d at %s: check the user and the password of the registry", ErrUnavailable, refused.StatusCode, refused.URL)
	default:
		return fmt.Errorf("%w: it answers %d at %s: %.200s", ErrUnavailable, refused.StatusCode, refused.URL, refused.Error())
	}
}

func recordOf(s sr.SubjectSchema) (record, error) {
	if s.ID < 0 || s.ID > math.MaxInt32 {
		return record{}, fmt.Errorf("%w: it answers with schema id %d, which is no int32", ErrUnavailable, s.ID)
	}
	r := record{id: int32(s.ID), guid: s.GUID, subject: s.Subject, version: s.Version, kind: s.Type.String(), text: s.Schema.Schema}
	for _, ref := range s.References {
		r.refs = append(r.refs, Reference(ref))
	}
	return r, nil
}

func (r record) wire() sr.Schema {
	s := sr.Schema{Schema: r.text, Type: sr.TypeAvro}
	for _, ref := range r.refs {
		s.References = append(s.References, sr.SchemaReference(ref))
	}
	return s
}

func (r *remote) byID(ctx context.Context, id int32) (record, error) {
	s, err := ask(ctx, r, func(ctx context.Context, cl *sr.Client) (sr.Schema, error) { return cl.SchemaByID(ctx, int(id)) })
	if err != nil {
		return record{}, err
	}
	return recordOf(sr.SubjectSchema{ID: int(id), Schema: s})
}

func (r *remote) byGUID(ctx context.Context, guid string) (record, error) {
	s, err := ask(ctx, r, func(ctx context.Context, cl *sr.Client) (sr.SubjectSchema, error) { return cl.SchemaByGUID(ctx, guid) })
	if err != nil {
		return record{}, err
	}
	s.GUID = guid
	return recordOf(s)
}

func (r *remote) version(ctx context.Context, subject string, version int) (record, error) {
	s, err := ask(ctx, r, func(ctx context.Context, cl *sr.Client) (sr.SubjectSchema, error) {
		return cl.SchemaByVersion(ctx, subject, version)
	})
	if err != nil {
		return record{}, err
	}
	return recordOf(s)
}

func (r *remote) lookup(ctx context.Context, subject string, want record) (record, error) {
	s, err := ask(ctx, r, func(ctx context.Context, cl *sr.Client) (sr.SubjectSchema, error) {
		return cl.LookupSchema(ctx, subject, want.wire())
	})
	if err != nil {
		return record{}, err
	}
	return recordOf(s)
}

// register asks for the version that came of it too: the answer to a registration is an id alone.
func (r *remote) register(ctx context.Context, subject string, want record) (record, error) {
	id, err := ask(ctx, r, func(ctx context.Context, cl *sr.Client) (int, error) {
		return cl.RegisterSchema(ctx, subject, want.wire(), -1, -1)
	})
	if err != nil {
		return record{}, err
	}
	got, err := r.lookup(ctx, subject, want)
	if err != nil {
		return record{}, err
	}
	if int(got.id) != id {
		return record{}, fmt.Errorf("%w: it registered schema %d and finds it as %d", ErrUnavailable, id, got.id)
	}
	return got, nil
}

// check asks about a subject that has no version yet too: everything may come first.
func (r *remote) check(ctx context.Context, subject string, want record) ([]string, error) {
	res, err := ask(ctx, r, func(ctx context.Context, cl *sr.Client) (sr.CheckCompatibilityResult, error) {
		return cl.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), subject, -1, want.wire())
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case res.Is:
		return nil, nil
	case len(res.Messages) == 0:
		return []string{"the registry says that it is incompatible, and not why"}, nil
	}
	return res.Messages, nil
}

func (r *remote) subjects(ctx context.Context) ([]string, error) {
	return ask(ctx, r, func(ctx context.Context, cl *sr.Client) ([]string, error) { return cl.Subjects(ctx) })
}

func (r *remote) versions(ctx context.Context, subject string) ([]int, error) {
	vs, err := ask(ctx, r, func(ctx context.Context, cl *sr.Client) ([]int, error) { return cl.SubjectVersions(ctx, subject) })
	return slices.Clone(vs), err
}
