package gateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

func hexMAC(key, text string) string {
	m := hmac.New(sha256.New, []byte(key))
	_, _ = io.WriteString(m, text)
	return hex.EncodeToString(m.Sum(nil))
}

// Handshakes are answered as their senders want it, and nothing of them is in the log.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	now := fmt.Sprint(time.Now().Unix())
	const slackBody, zoomBody = `{"type":"url_verification","challenge":"c-1"}`, `{"event":"endpoint.url_validation","payload":{"plainToken":"p-1"}}`
	tests := []struct {
		name, source, method, query, body string
		header                            map[string]string
		status                            int
		want                              string
	}{
		{"meta", "scheme: meta\ntokens: [env:TOKEN]\n", http.MethodGet, "hub.mode=subscribe&hub.verify_token=tok&hub.challenge=123", "", nil, 200, "123"},
		{"meta, another token", "scheme: meta\ntokens: [env:TOKEN]\n", http.MethodGet, "hub.mode=subscribe&hub.verify_token=other&hub.challenge=123", "", nil, 401, "not verified"},
		{"slack", "scheme: slack\n", http.MethodPost, "", slackBody, map[string]string{"X-Slack-Request-Timestamp": now, "X-Slack-Signature": "v0=" + hexMAC("s3cret", "v0:"+now+":"+slackBody)}, 200, "c-1"},
		{"slack, unsigned", "scheme: slack\n", http.MethodPost, "", slackBody, map[string]string{"X-Slack-Request-Timestamp": now, "X-Slack-Signature": "v0=00"}, 401, "not verified"},
		{"zoom", "scheme: zoom\n", http.MethodPost, "", zoomBody, map[string]string{"X-Zm-Request-Timestamp": now, "X-Zm-Signature": "v0=" + hexMAC("s3cret", "v0:"+now+":"+zoomBody)}, 200, `"encryptedToken":"` + hexMAC("s3cret", "p-1")},
		{"twitter", "scheme: twitter\n", http.MethodGet, "crc_token=abc", "", nil, 200, `"response_token":"sha256=`},
		{"twitter, an oracle", "scheme: twitter\n", http.MethodGet, "crc_token=%7B%22a%22%3A1%7D", "", nil, 401, "not verified"},
		{"a look at it", "scheme: twitter\n", http.MethodGet, "", "", nil, 405, "method"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, gateway.Config{}, map[string]string{"s.yaml": tt.source + "secrets: [env:SECRET]\ntopic: webhooks.s\n"})
			l.env["SECRET"], l.env["TOKEN"] = "s3cret", "tok"
			l.load()
			r := httptest.NewRequestWithContext(t.Context(), tt.method, "/in/s?"+tt.query, strings.NewReader(tt.body))
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			resp := l.want(r, tt.status)
			if !strings.Contains(resp.Body.String(), tt.want) {
				t.Errorf("got %s, want %s", resp.Body, tt.want)
			}
			if l.log.attempts() != 0 {
				t.Error("it was published")
			}
			if tt.status == http.StatusOK && l.seen.count("handshake") != 1 {
				t.Errorf("got %v", l.seen.results)
			}
		})
	}
}

// GitHub's delivery id is not signed: a body that was seen is a repeat under any id.
func TestIDsThatAreNotSigned(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"hub.yaml": "scheme: github\nsecrets: [env:SECRET]\ntopic: webhooks.hub\n"})
	l.env["SECRET"] = "s3cret"
	l.load()
	send := func(id, body string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/hub", strings.NewReader(body))
		r.Header.Set("X-Hub-Signature-256", "sha256="+hexMAC("s3cret", body))
		r.Header.Set("X-GitHub-Delivery", id)
		l.want(r, http.StatusOK)
	}
	send("1", "one")
	send("2", "one") // replayed with another id
	send("1", "one") // redelivered
	send("3", "two")
	if got := len(l.log.in("webhooks.hub")); got != 2 {
		t.Errorf("%d events, want 2", got)
	}
}

// Who replays a request with Svix's headers and adds the standard's own id, which nothing signs, sends a repeat.
func TestAnIDThatIsNotSignedMakesNoEvent(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
	l.load()
	for _, forged := range []string{"", "forged_1", "forged_2"} {
		r := signed(t, "msg_1", body)
		for _, name := range []string{"Id", "Timestamp", "Signature"} {
			r.Header.Set("Svix-"+name, r.Header.Get("Webhook-"+name))
			r.Header.Del("Webhook-" + name)
		}
		if forged != "" {
			r.Header.Set("Webhook-Id", forged)
		}
		l.want(r, http.StatusOK)
	}
	if n := len(l.log.in("webhooks.acme")); n != 1 {
		t.Errorf("published %d times", n)
	}
}

func TestGzipIsKeptAsItCame(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme + "gzip: true\n"})
	l.load()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, body)
	_ = z.Close()
	r := signed(t, "msg_1", b.String()) // what is signed is what is sent
	r.Header.Set("Content-Encoding", "gzip")
	l.want(r, http.StatusOK)
	events := l.log.in("webhooks.acme")
	if len(events) != 1 || string(events[0].Key) != "c-7" {
		t.Fatalf("got %v", events)
	}
	if got, _ := l.received(events[0])["body"].([]byte); !bytes.Equal(got, b.Bytes()) {
		t.Error("the body is not as it came")
	}
}

func TestRepeatsThatArePassed(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
	l.load()
	if l.PassRepeats("other", 1) || !l.PassRepeats("acme", 1) {
		t.Error("a source that is not there")
	}
	for range 4 {
		l.want(signed(t, "msg_1", body), http.StatusOK)
	}
	events := l.log.in("webhooks.acme")
	if len(events) != 2 || events[0].ID != events[1].ID {
		t.Errorf("%d events, want two with one id", len(events))
	}
}

func TestOldKeysHoldUntilTheirEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": "scheme: standard\nsecrets: [env:NEW, {from: env:ACME, until: " + until + "}]\ntopic: webhooks.acme\n"})
		l.env["NEW"] = "whsec_" + strings.Repeat("A", 40)
		l.load()
		l.want(signed(t, "msg_1", body), http.StatusOK)
		if key := l.received(l.log.in("webhooks.acme")[0])["key"]; key != int32(1) {
			t.Errorf("the key is %v", key)
		}
		time.Sleep(2 * time.Hour) //nolint:forbidigo // the bubble's clock
		l.want(signed(t, "msg_2", body), http.StatusUnauthorized)
	})
}

// Behind a proxy the address is the one that the proxy names, and what a caller writes before it counts for nothing.
func TestAddressesBehindProxies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{ConnsPerIP: 1, Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, map[string]string{"acme.yaml": acme})
		l.load()
		from := func(peer, forwarded string) *http.Request {
			r := signed(t, "msg_"+hexMAC(peer, forwarded), body)
			r.RemoteAddr = peer + ":1000"
			r.Header.Set("X-Forwarded-For", forwarded)
			return r
		}
		l.log.stall()
		done := make(chan int, 1)
		go func() { done <- l.ask(from("10.0.0.1", "1.2.3.4, 10.0.0.9")).Code }()
		synctest.Wait()
		l.want(from("10.0.0.2", "9.9.9.9, 1.2.3.4"), http.StatusTooManyRequests)
		l.want(from("10.0.0.2", "9.9.9.9, 1.2.3.4:4711"), http.StatusTooManyRequests)
		l.log.release(nil)
		if status := <-done; status != http.StatusOK {
			t.Errorf("the first got %d", status)
		}
		for _, r := range []*http.Request{from("10.0.0.2", "1.2.3.4"), from("10.0.0.2", "5.6.7.8"), from("10.0.0.2", "no address"), from("8.8.8.8", "1.2.3.4")} {
			l.want(r, http.StatusOK)
		}
	})
}

// answering is a client whose every answer a test decides.
type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A certificate that cannot be fetched is our trouble and no verdict about the request: the sender comes again. It is
// fetched once for many.
func TestCertificatesThatCannotBeFetched(t *testing.T) {
	t.Parallel()
	var fetched atomic.Int64
	l := newLab(t, gateway.Config{Client: &http.Client{Transport: answering(func(*http.Request) (*http.Response, error) {
		fetched.Add(1)
		return nil, errors.New("no route")
	})}}, map[string]string{"paypal.yaml": "scheme: paypal\nsecrets: [env:SECRET]\ntopic: webhooks.paypal\n"})
	l.env["SECRET"] = "1JE4291016473214C"
	l.load()
	send := func(certificate string, status int) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/paypal", strings.NewReader("{}"))
		r.Header.Set("Paypal-Transmission-Id", "id")
		r.Header.Set("Paypal-Transmission-Time", time.Now().UTC().Format(time.RFC3339))
		r.Header.Set("Paypal-Transmission-Sig", "AAAA")
		r.Header.Set("Paypal-Auth-Algo", "SHA256withRSA")
		r.Header.Set("Paypal-Cert-Url", certificate)
		l.want(r, status)
	}
	for range 3 {
		send("https://api.paypal.com/v1/notifications/certs/a", http.StatusServiceUnavailable)
	}
	if fetched.Load() != 1 {
		t.Errorf("fetched %d times", fetched.Load())
	}
	send("https://paypal.com.evil.example/a", http.StatusUnauthorized)
	if fetched.Load() != 1 {
		t.Error("a stranger's certificate was fetched")
	}
}

// keeper is a log of snapshots that can be away.
type keeper struct {
	away atomic.Bool
	kept atomic.Int64
}

func (k *keeper) Append(context.Context, string, []byte) error {
	if k.away.Load() {
		return errRefused
	}
	k.kept.Add(1)
	return nil
}

func (*keeper) Read(context.Context, time.Time, time.Time) iter.Seq2[[]byte, error] {
	return func(func([]byte, error) bool) {}
}

// The loops of a running gateway: a changed folder is found, a bad one is told, snapshots are written and tried again,
// and one that nobody calls because it is not ready gets ready again by itself.
func TestRunLooksAfterItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		l := newLab(t, gateway.Config{Seen: k}, map[string]string{"acme.yaml": acme})
		ctx, cancel := context.WithCancel(t.Context())
		ln := newNowhere()
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx, ln) }()
		<-l.Up()
		l.write("b.yaml", "verify: none\ntopic: webhooks.b\n")
		time.Sleep(3 * time.Second) //nolint:forbidigo // the bubble's clock
		l.want(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/b", strings.NewReader("x")), http.StatusOK)
		l.write("b.yaml", "verify: some\n")
		time.Sleep(3 * time.Second) //nolint:forbidigo // the bubble's clock
		if !strings.Contains(l.Broken(), "b.yaml:1") {
			t.Errorf("got %q", l.Broken())
		}
		k.away.Store(true)
		time.Sleep(2 * time.Minute) //nolint:forbidigo // the bubble's clock
		k.away.Store(false)
		if k.kept.Load() != 0 {
			t.Error("something was kept of nothing")
		}
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
		if k.kept.Load() != 1 {
			t.Errorf("%d snapshots, want the one that failed before", k.kept.Load())
		}
		k.away.Store(true)
		l.log.stall()
		l.want(signed(t, "msg_1", body), http.StatusServiceUnavailable)
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
		if l.Ready() {
			t.Error("ready although nothing gets through")
		}
		k.away.Store(false)
		time.Sleep(10 * time.Second) //nolint:forbidigo // the bubble's clock
		if !l.Ready() {
			t.Error("not ready although Kafka is back")
		}
		l.log.release(nil)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
