package replay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
)

const (
	maxAnswer     = 512 // bytes of an answer that are looked at
	maxRetryAfter = 10 * time.Minute
)

// HTTP posts each event to a URL. The status of the answer is the verdict: 2xx is delivered, 408, 425, 429 and 5xx are
// tried again, after Retry-After where the answer says so, and any other fails for good: no further attempt would help.
// Redirects are not followed.
type HTTP struct {
	// Header is sent with each request, and wins over what an event says.
	Header http.Header
	// Request makes the request of an event: method, headers and body. Nil is [NewRequest].
	Request func(ctx context.Context, url string, e *event.Event) (*http.Request, error)

	client  *http.Client
	address string
}

// idleConns are kept for the next events, of more workers than anybody has.
const idleConns = 256

// URL returns a target that posts to address, with http or https. A nil client is a plain one. An error says what is
// wrong with address.
func URL(client *http.Client, address string) (*HTTP, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("replay into %q: it is no http or https URL", address)
	}
	if client == nil {
		client = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: idleConns, IdleConnTimeout: time.Minute,
		}}
	}
	own := *client
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &HTTP{client: &own, address: address}, nil
}

// NewRequest is a POST of the event's value as it is, in the CloudEvents HTTP binding, binary mode: attributes are the
// headers ce-id, ce-type, ce-source, ce-time and Content-Type; the key is ce-partitionkey, other headers of the record
// that are text go by their own names behind "millrace-header-". Millrace-Origin says the topic, partition and offset, Millrace-Replay
// the replay. A tombstone is an empty body with Millrace-Tombstone: true.
func NewRequest(ctx context.Context, address string, e *event.Event) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(e.Value))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	set := func(name, value string) {
		if value != "" {
			req.Header.Set(name, percent(value))
		}
	}
	set("Ce-Specversion", "1.0")
	set("Ce-Id", e.ID)
	set("Ce-Type", e.Type)
	set("Ce-Source", e.Source)
	set("Ce-Tenant", e.Tenant)
	set("Ce-Time", e.Time.UTC().Format(time.RFC3339Nano))
	set("Ce-Partitionkey", string(e.Key))
	for i := range e.Headers {
		h := &e.Headers[i]
		if known(h.Key) || h.Value == nil || !token(h.Key) || !utf8.Valid(h.Value) {
			continue
		}
		req.Header.Add("Millrace-Header-"+h.Key, percent(string(h.Value)))
	}
	content := e.ContentType
	if content == "" {
		content = "application/octet-stream"
	}
	req.Header.Set("Content-Type", percent(content))
	set("Millrace-Origin", fmt.Sprintf("%s/%d@%d", e.Topic, e.Partition, e.Offset))
	if r, ok := event.InReplay(ctx); ok {
		set("Millrace-Replay", r.ID)
	}
	if e.IsTombstone() {
		set("Millrace-Tombstone", "true")
	}
	return req, nil
}

// known reports headers that are sent as attributes, or that belong to the trace in which the event was published.
func known(name string) bool {
	switch name {
	case event.HeaderSpecVersion, event.HeaderID, event.HeaderType, event.HeaderSource, event.HeaderTime, event.HeaderTenant,
		event.HeaderContentType, event.HeaderTraceParent, "tracestate", "baggage":
		return true
	}
	return false
}

// token reports whether s may be a part of a header's name.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return s != ""
}

// percent encodes what a header cannot hold, as the binding says: all but printable ASCII, and also " and %.
func percent(s string) string {
	clean := true
	for i := range len(s) {
		clean = clean && s[i] >= ' ' && s[i] < 0x7f && s[i] != '"' && s[i] != '%'
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Deliver implements [Target].
func (t *HTTP) Deliver(ctx context.Context, e event.Event) error {
	build := t.Request
	if build == nil {
		build = NewRequest
	}
	req, err := build(ctx, t.address, &e)
	if err != nil {
		return consumer.DeadLetter(err)
	}
	maps.Copy(req.Header, t.Header)
	res, err := t.client.Do(req)
	if err != nil {
		return fmt.Errorf("post to %s: %w", req.URL.Redacted(), err)
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // of use for the message alone
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 == 2 {
		return nil
	}
	err = fmt.Errorf("post to %s: %s: %q", req.URL.Redacted(), res.Status, text)
	switch {
	case res.StatusCode/100 == 5, res.StatusCode == http.StatusRequestTimeout, res.StatusCode == http.StatusTooEarly,
		res.StatusCode == http.StatusTooManyRequests:
		if after := retryAfter(res.Header.Get("Retry-After")); after > 0 {
			return consumer.RetryAfter(after, err)
		}
		return err
	}
	return consumer.DeadLetter(err)
}

// retryAfter is in seconds or a date, and bounded; 0 is none.
func retryAfter(s string) time.Duration {
	var d time.Duration
	if n, err := strconv.Atoi(s); err == nil {
		d = time.Duration(min(n, 1<<20)) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), maxRetryAfter)
}
