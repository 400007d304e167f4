package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/schemas"
)

// running is a gateway on a port, before a broker in memory.
type running struct {
	*gateway.Gateway

	url  string
	stop func()
	seen *watcher
}

// run starts one, as the role does.
func run(t *testing.T, c kafka.Cluster, reg *schemas.Registry, dir string, cfg gateway.Config) *running {
	t.Helper()
	p, err := producer.New(c, nil, producer.Config{Linger: -1, BatchBytes: gateway.DefaultRecordBytes})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{seen: &watcher{}}
	cfg.Folder = gateway.Folder{Dir: dir, Getenv: func(string) string { return secret }, MaxBody: gateway.DefaultRecordBytes - gateway.RecordRoom}
	cfg.Prepare = gateway.Topics{Cluster: c, Registry: reg, Create: true, RecordBytes: gateway.DefaultRecordBytes}.Prepare
	if cfg.Seen == nil {
		cfg.Seen = gateway.KafkaSeen(c, p)
	}
	cfg.Observer = r.seen
	if r.Gateway, err = gateway.New(p, reg, cfg); err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, ln) }()
	var stopped atomic.Bool
	r.stop = func() {
		if !stopped.CompareAndSwap(false, true) {
			return
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the end: %v", err)
		}
		end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.Close(end); err != nil {
			t.Error(err)
		}
		if err := p.Close(end); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(r.stop)
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(time.Millisecond); !r.Ready(); {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("it ended with %v", err)
		case <-deadline:
			t.Fatal("it does not get ready")
		}
	}
	return r
}

// post sends a request of acme over the wire.
func (r *running) post(t *testing.T, id, body string) int {
	t.Helper()
	s := signed(t, id, body)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/in/acme", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = s.Header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func fakeCluster(t *testing.T) kafka.Cluster {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return kafka.Cluster{Seeds: fake.ListenAddrs()}
}

func count(t *testing.T, c kafka.Cluster, topic string) (n int) {
	t.Helper()
	r, err := reader.Open(t.Context(), c, reader.Config{Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range r.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// The whole way, twice: what one gateway has acknowledged, the next one knows.
func TestRepeatsAreKnownAfterARestart(t *testing.T) {
	t.Parallel()
	c, reg, dir := fakeCluster(t), schemas.Memory(), t.TempDir()
	l := &lab{tb: t, dir: dir}
	l.write("acme.yaml", acme)
	first := run(t, c, reg, dir, gateway.Config{})
	large := strings.Repeat("x", 983_052)
	for i := range 20 {
		if got := first.post(t, fmt.Sprint("msg_", i), body); got != http.StatusOK {
			t.Fatalf("got %d", got)
		}
	}
	if got := first.post(t, "large", large); got != http.StatusOK {
		t.Fatalf("the largest body: got %d", got)
	}
	if got := first.post(t, "larger", large+"x"); got != http.StatusRequestEntityTooLarge {
		t.Fatalf("a larger body: got %d", got)
	}
	first.stop()
	second := run(t, c, reg, dir, gateway.Config{})
	known := func() int { return second.Status()[0].Remembered }
	for tick := time.NewTicker(time.Millisecond); known() < 21; {
		select {
		case <-tick.C:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d ids are known", known())
		}
	}
	if got := second.post(t, "msg_7", body); got != http.StatusOK {
		t.Errorf("a repeat got %d", got)
	}
	if got := second.post(t, "msg_new", body); got != http.StatusOK {
		t.Errorf("a new one got %d", got)
	}
	if second.seen.count("duplicate") != 1 || second.seen.count("accepted") != 1 {
		t.Errorf("got %v", second.seen.results)
	}
	if n := count(t, c, "webhooks.acme"); n != 22 {
		t.Errorf("%d events, want 22", n)
	}
}

// past is a log with three days of 500 ids a second behind it.
type past struct {
	entered, read chan struct{}
	snapshots     atomic.Int64
}

func (p *past) Append(context.Context, string, []byte) error { return nil }

func (p *past) Read(ctx context.Context, from, until time.Time) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		select {
		case p.entered <- struct{}{}:
		default:
		}
		for at := from.Truncate(time.Minute); at.Before(until) && ctx.Err() == nil; at = at.Add(time.Minute) {
			p.snapshots.Add(1)
			if !yield(gateway.Snapshot(at, "acme", 30_000, func(i int) string { return fmt.Sprintf("%d-%d", at.Unix(), i) }), nil) {
				return
			}
		}
		if time.Since(until) > time.Minute {
			close(p.read)
		}
	}
}

// Three days of 500 a second are behind it: it is ready before it has read them, and answers while it does.
func TestReadyAtOnceWithThreeDaysBehind(t *testing.T) {
	t.Parallel()
	c, reg, dir := fakeCluster(t), schemas.Memory(), t.TempDir()
	l := &lab{tb: t, dir: dir}
	l.write("acme.yaml", acme)
	p := &past{entered: make(chan struct{}, 1), read: make(chan struct{})}
	began := time.Now()
	r := run(t, c, reg, dir, gateway.Config{Seen: p})
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("ready after %v", took)
	}
	<-p.entered
	for i := range 50 {
		if got := r.post(t, fmt.Sprint("msg_", i), body); got != http.StatusOK {
			t.Fatalf("got %d", got)
		}
	}
	select {
	case <-p.read:
		t.Error("all was read already: the test shows nothing")
	default:
	}
	if r.seen.count("accepted") != 50 {
		t.Errorf("got %v", r.seen.results)
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	c, reg, dir := fakeCluster(t), schemas.Memory(), t.TempDir()
	l := &lab{tb: t, dir: dir}
	l.write("acme.yaml", acme)
	r := run(t, c, reg, dir, gateway.Config{})
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/in/acme", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = signed(t, "msg_1", body).Header
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("got %s %s", resp.Proto, resp.Status)
	}
}

func TestTopicsAreChecked(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "small"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c, reg := kafka.Cluster{Seeds: fake.ListenAddrs()}, schemas.Memory()
	withPayments(t, reg)
	tests := []struct {
		name, file string
		topics     gateway.Topics
		want       string
	}{
		{"a topic is missing", acme, gateway.Topics{}, "topic _millrace.seen does not exist"},
		{"a topic of typed events is never made", settled, gateway.Topics{Create: true}, "topic payments of a typed event does not exist"},
		{"a topic is too small", "verify: none\ntopic: small\n", gateway.Topics{Create: true, RecordBytes: 1_114_112}, "topic small takes records up to 1048588 bytes"},
		{"a topic that says nothing", "verify: none\ntopic: small\n", gateway.Topics{Create: true}, ""},
		{"a smaller record", "verify: none\ntopic: small\n", gateway.Topics{Create: true, RecordBytes: 1_000_012}, ""},
		{"now it is there", "verify: none\ntopic: small\n", gateway.Topics{RecordBytes: 1_000_012}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			(&lab{tb: t, dir: dir}).write("a.yaml", tt.file)
			sources, err := gateway.Folder{Dir: dir, Getenv: func(string) string { return secret }}.Load(t.Context(), reg)
			if err != nil {
				t.Fatal(err)
			}
			tt.topics.Cluster, tt.topics.Registry = c, reg
			if tt.topics.RecordBytes == 0 {
				tt.topics.RecordBytes = gateway.DefaultRecordBytes
			}
			err = tt.topics.Prepare(t.Context(), sources)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add(gateway.Snapshot(time.Unix(1_790_000_000, 0), "acme", 3, func(i int) string { return fmt.Sprint(i) }))
	f.Add(gateway.Snapshot(time.Unix(0, 0), "", 0, nil))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(_ *testing.T, src []byte) { _ = gateway.ReadSnapshot(bytes.Clone(src)) })
}
