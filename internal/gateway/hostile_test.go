package gateway_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

// listening is a gateway on a port before a fake log.
func listening(tb testing.TB, l *lab) (address string) {
	tb.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, ln) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil { // connections that hang are cut off
			tb.Log(err)
		}
	})
	<-l.Up()
	return ln.Addr().String()
}

// hostile is a request as bytes, and the statuses that are right for it; 0 is a connection that is closed.
type hostile struct {
	name string
	raw  string
	want []int
}

const head = "Host: x\r\nContent-Type: application/json\r\n"

// withBody is a well-formed request.
func withBody(path, headers, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s", path, head, headers, len(body), body)
}

func chunked(rest string) string {
	return "POST /in/open HTTP/1.1\r\n" + head + "Transfer-Encoding: chunked\r\n\r\n" + rest
}

func zipped(tb testing.TB, n int) string {
	tb.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<16)
	for ; n > 0; n -= len(zeros) {
		if _, err := z.Write(zeros[:min(n, len(zeros))]); err != nil {
			tb.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.String()
}

// onTheWire are requests that break HTTP, or stretch it.
func onTheWire() (all []hostile) {
	add := func(name, raw string, want ...int) { all = append(all, hostile{name, raw, want}) }
	for _, line := range []string{
		"", " ", "POST", "POST /in/open", "POST  /in/open HTTP/1.1", "POST /in/open HTTP/1.1 x", "POST /in/open HTTP/9.9", "POST /in/open HTTQ/1.1",
		"P\x00ST /in/open HTTP/1.1", "POST /in/\x00open HTTP/1.1", "POST \\in\\open HTTP/1.1", "POST http:// HTTP/1.1", "(POST) /in/open HTTP/1.1",
		"POST /in/%zz HTTP/1.1", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-x", "POST /in/open HTTP/1.1\rX: y",
	} {
		add(fmt.Sprintf("request line %.40q", line), line+"\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 0, 400, 404, 505, 431)
	}
	for _, path := range []string{"/", "/in/", "/in/none", "/in/open/", "/in//open", "/in/../in/open", "/in/%6fpen", "/in/open%00", "/in/open%2f..", "/IN/open", "/in/open;x", "*", "/metrics", "/sources", "/healthz", "/debug/pprof/", "/in/" + strings.Repeat("a", 8000)} {
		add(fmt.Sprintf("path %.40q", path), withBody(path, "", "x"), 404, 400)
	}
	for _, m := range []string{"GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "POSTX", "post"} {
		add("method "+m, m+" /in/open HTTP/1.1\r\n"+head+"Content-Length: 0\r\n\r\n", 405, 400, 404)
	}
	for _, length := range []string{"-1", "+1", "0x1", "1e3", "1,1", "1 1", "", "99999999999999999999", "9223372036854775807", "1073741824", "65537", "\x001"} {
		add(fmt.Sprintf("length %q", length), "POST /in/open HTTP/1.1\r\n"+head+"Content-Length: "+length+"\r\n\r\nx", 400, 413)
	}
	add("two lengths", "POST /in/open HTTP/1.1\r\n"+head+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400)
	add("no length", "POST /in/open HTTP/1.1\r\n"+head+"\r\n", 200)
	for _, te := range []string{"gzip", "gzip, chunked", "chunked, chunked", "chunked, identity", "identity", "xchunked", "\x0bchunked", "chunked;q=1", "cow"} {
		add(fmt.Sprintf("transfer encoding %q", te), "POST /in/open HTTP/1.1\r\n"+head+"Transfer-Encoding: "+te+"\r\n\r\n1\r\nx\r\n0\r\n\r\n", 400, 501)
	}
	add("two transfer encodings", "POST /in/open HTTP/1.1\r\n"+head+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, 501)
	for _, c := range []string{
		"x\r\n", "-1\r\nx\r\n0\r\n\r\n", "ffffffffffffffffff\r\nx", "1\r\nxx\r\n0\r\n\r\n", "1\nx\n0\n\n", "0x1\r\nx\r\n0\r\n\r\n", "1 \r\nxx0\r\n\r\n", " 1\r\nxx",
		strings.Repeat("0", 5000) + "1\r\nx\r\n0\r\n\r\n", "1;" + strings.Repeat("a", 5000) + "\r\nx\r\n0\r\n\r\n", "\r\n\r\n", "1\r\nx", "g\r\n",
	} {
		add(fmt.Sprintf("chunk %.30q", c), chunked(c), 400, 408)
	}
	add("many small chunks with extensions", chunked(strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 1000)+"0\r\n\r\n"), 400)
	add("chunks without end", chunked(strings.Repeat("1000\r\n"+strings.Repeat("x", 0x1000)+"\r\n", 40)), 413)
	add("a trailer of a megabyte", chunked("1\r\nx\r\n0\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n"), 400, 413, 431)
	for _, h := range []string{
		"X: " + strings.Repeat("x", 32<<10) + "\r\n", strings.Repeat("X: y\r\n", 8000), strings.Repeat("x", 32<<10) + ": y\r\n",
		"Cookie: " + strings.Repeat("a=b; ", 10_000) + "\r\n",
	} {
		add(fmt.Sprintf("header bomb %.20q", h), withBody("/in/open", h, "x"), 431, 400, 0)
	}
	for _, h := range []string{"X\r\n", ": y\r\n", "X : y\r\n", " X: y\r\n", "X: a\r\n b\r\n", "X: \x00\r\n", "X: \x7f\x01\r\n", "X\x00: y\r\n", "X: y\n\n\r\n", "Host: y\r\n", "H\xc3\xb6st: y\r\n"} {
		add(fmt.Sprintf("header %q", h), withBody("/in/open", h, "x"), 400, 200) // 200: obsolete folding
	}
	add("no host", "POST /in/open HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 400)
	add("a host that is none", "POST /in/open HTTP/1.1\r\nHost: x y\r\nContent-Length: 1\r\n\r\nx", 400)
	add("expectation", withBody("/in/open", "Expect: 200-maybe\r\n", "x"), 417)
	add("upgrade", withBody("/in/none", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "x"), 404)
	add("upgrade to h2c", withBody("/in/none", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "x"), 404)
	add("HTTP/2 preface and rubbish", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+strings.Repeat("\xff", 100), 0, 400)
	return all
}

// inTheRules are well-formed requests that break our rules.
func inTheRules(tb testing.TB) (all []hostile) {
	tb.Helper()
	add := func(name, raw string, want ...int) { all = append(all, hostile{name, raw, want}) }
	add("a gigabyte promised", "POST /in/open HTTP/1.1\r\n"+head+"Content-Length: 1073741824\r\n\r\n"+strings.Repeat("x", 1<<16), 413)
	add("a gigabyte promised, signed source", "POST /in/acme HTTP/1.1\r\n"+head+"Content-Length: 1073741824\r\n\r\n", 413)
	for _, e := range []string{"br", "deflate", "zstd", "gzip, gzip", "gzip,identity", "x-gzip", "compress", "*", "gzip\r\nContent-Encoding: gzip", ","} {
		add(fmt.Sprintf("encoding %q", e), withBody("/in/open", "Content-Encoding: "+e+"\r\n", "x"), 415)
	}
	add("a gzip bomb", withBody("/in/open", "Content-Encoding: gzip\r\n", zipped(tb, 32<<20)), 413)
	add("a gzip bomb in a bomb", withBody("/in/open", "Content-Encoding: gzip\r\n", zipped(tb, 64<<20)[:60<<10]), 413, 400)
	for _, cut := range []int{0, 1, 9, 20} {
		add(fmt.Sprintf("gzip cut at %d", cut), withBody("/in/open", "Content-Encoding: gzip\r\n", zipped(tb, 1000)[:cut]), 400)
	}
	add("gzip with a tail", withBody("/in/open", "Content-Encoding: gzip\r\n", zipped(tb, 1000)+"tail"), 400)
	add("gzip that is none", withBody("/in/open", "Content-Encoding: gzip\r\n", "not gzip"), 400)
	add("gzip where it is not allowed", withBody("/in/acme", "Content-Encoding: gzip\r\n", zipped(tb, 10)), 415)
	add("no signature", withBody("/in/acme", "", "{}"), 401)
	good := "Webhook-Id: m\r\nWebhook-Timestamp: " + fmt.Sprint(time.Now().Unix()) + "\r\n"
	for _, s := range []string{
		"", "v1,", ",", "v1", "v1,AAAA", "v2,AAAA", "v1a,AAAA", strings.Repeat("v1,AAAA ", 1000), "v1,\xff", strings.Repeat("x", 8000),
		"v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=\r\nWebhook-Signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
	} {
		add(fmt.Sprintf("signature %.30q", s), withBody("/in/acme", good+"Webhook-Signature: "+s+"\r\n", "{}"), 401)
	}
	for _, ts := range []string{"", "0", "-1", "1e9", "99999999999999999999999", "1.5", "now", "0x5", " 1 "} {
		add(fmt.Sprintf("time %q", ts), withBody("/in/acme", "Webhook-Id: m\r\nWebhook-Timestamp: "+ts+"\r\nWebhook-Signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=\r\n", "{}"), 401)
	}
	for _, id := range []string{"", "a.b", strings.Repeat("i", 9000), "a\r\nWebhook-Id: b"} {
		add(fmt.Sprintf("id %.20q", id), withBody("/in/acme", "Webhook-Id: "+id+"\r\nWebhook-Timestamp: "+fmt.Sprint(time.Now().Unix())+"\r\nWebhook-Signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=\r\n", "{}"), 401)
	}
	add("a body that never comes", "POST /in/open HTTP/1.1\r\n"+head+"Content-Length: 100\r\n\r\n", 408)
	add("half a body", "POST /in/open HTTP/1.1\r\n"+head+"Content-Length: 100\r\n\r\nhalf", 408)
	add("a header that never ends", "POST /in/open HTTP/1.1\r\nHost: x\r\n", 0, 408)
	add("nothing at all", "", 0)
	add("continue, and nothing", "POST /in/open HTTP/1.1\r\n"+head+"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n", 408, 100)
	return all
}

// status sends raw bytes and returns the status of the first answer.
func status(tb testing.TB, address, raw string) int {
	tb.Helper()
	c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		_, _ = io.WriteString(c, raw) // the server may hang up meanwhile
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		tb.Errorf("no answer within 15 s")
	}
	_ = c.Close()
	<-wrote
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestHostileRequests(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{ConnsPerIP: 1000}, map[string]string{
		"acme.yaml": acme + "limits: {body: 64KiB}\n", "open.yaml": "verify: none\ntopic: webhooks.open\ngzip: true\nlimits: {body: 64KiB}\n",
	})
	address := listening(t, l)
	all := append(onTheWire(), inTheRules(t)...)
	if len(all) < 120 {
		t.Fatalf("%d requests, want at least 120", len(all))
	}
	var group sync.WaitGroup
	for _, h := range all {
		group.Go(func() {
			if got := status(t, address, h.raw); !slices.Contains(h.want, got) {
				t.Errorf("%s: got %d, want one of %v", h.name, got, h.want)
			}
		})
	}
	group.Wait()
	if l.seen.count("failed") > 0 {
		t.Errorf("%d panics", l.seen.count("failed"))
	}
	if n := len(l.log.in("webhooks.acme")); n != 0 {
		t.Errorf("%d forged events are in the log", n)
	}
	if read, produce, flights := l.InMemory(); read != 0 || produce != 0 || flights != 0 {
		t.Errorf("something is left: %d, %d, %d", read, produce, flights)
	}
	l.want(signed(t, "msg_1", body), http.StatusOK)
}

// A request that is smuggled past one server's idea of where a body ends is still not signed, and what comes behind it
// is another request or none: it never takes the place of the first one's body.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme, "open.yaml": "verify: none\ntopic: webhooks.open\n"})
	address := listening(t, l)
	const hidden = "POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhidden"
	for _, raw := range []string{
		"POST /in/acme HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"POST /in/acme HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
		"POST /in/acme HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + hidden,
		"POST /in/acme HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\tchunked\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + hidden,
		"POST /in/acme HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: " + fmt.Sprint(len(hidden)) + "\r\n\r\n" + hidden,
		"POST /in/acme HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
	} {
		if got := status(t, address, raw); got != http.StatusUnauthorized && got != http.StatusBadRequest && got != http.StatusNotImplemented {
			t.Errorf("%.80q: got %d", raw, got)
		}
	}
	for _, e := range l.log.in("webhooks.open") {
		t.Errorf("a hidden request was taken: %v", l.received(e))
	}
}

// A thousand connections that send slowly, to one source and from one address, leave another source and another address
// alone; they are cut off, and what they held is given back.
func TestSlowConnectionsHarmNobodyElse(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{
		"acme.yaml": acme, "open.yaml": "verify: none\ntopic: webhooks.open\nlimits: {requests: 100}\n",
	})
	address := listening(t, l)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	var slow []net.Conn
	for range 1000 {
		c, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Skipf("no second address on this machine: %v", err)
		}
		slow = append(slow, c)
		_, _ = io.WriteString(c, "POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx") // past the bound it is closed
	}
	began := time.Now()
	for i := range 200 {
		if got := status(t, address, rawSigned(t, fmt.Sprint("msg_", i))); got != http.StatusOK {
			t.Fatalf("another source: got %d", got)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("200 requests took %v", took)
	}
	ended := 0
	for _, c := range slow {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(c); !errors.Is(err, os.ErrDeadlineExceeded) {
			ended++
		}
		_ = c.Close()
	}
	if ended != 1000 {
		t.Errorf("%d of 1000 slow connections were cut off", ended)
	}
	if l.seen.count("rejected/slow") == 0 || l.seen.count("unavailable/requests") == 0 || l.seen.count("accepted") != 200 {
		t.Errorf("got %v", l.seen.results)
	}
	if read, _, _ := l.InMemory(); read != 0 {
		t.Errorf("%d bytes are still held", read)
	}
}

// rawSigned is a signed request of acme as bytes.
func rawSigned(tb testing.TB, id string) string {
	tb.Helper()
	var b strings.Builder
	for name, values := range signed(tb, id, body).Header {
		fmt.Fprintf(&b, "%s: %s\r\n", name, values[0])
	}
	return fmt.Sprintf("POST /in/acme HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", b.String(), len(body), body)
}
