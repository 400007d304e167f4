package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/registry"
	"github.com/millrace/millrace/kafka"
)

// world is a cluster and a registry in memory, a working directory, and command lines run in it.
type world struct {
	fake    *kfake.Cluster
	cluster kafka.Cluster
	client  *kgo.Client
	admin   *kadm.Client
	dir     string
	env     map[string]string
}

const (
	ordersYAML = "name: shop.orders\nowner: team-orders\ndescription: Orders as customers place them.\npartitions: 3\nreplicas: 1\nretention: 7d\nkey: the order's id\nevents: [shop.OrderPlaced]\n"
	ordersAVSC = `{"type":"record","name":"OrderPlaced","namespace":"shop","fields":[{"name":"order_id","type":"string"},{"name":"cents","type":"long"}]}`
)

func newWorld(t *testing.T) *world {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	w := &world{fake: fake, cluster: kafka.Cluster{Seeds: fake.ListenAddrs()}, dir: t.TempDir()}
	if w.client, err = w.cluster.Client(kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	w.admin = kadm.NewClient(w.client)
	w.env = map[string]string{"MILLRACE_BROKERS": fake.ListenAddrs()[0], "MILLRACE_REGISTRY": newRegistry(t), "HOME": t.TempDir()}
	w.write(t, ".git/HEAD", "")
	return w
}

// newRegistry serves a registry in memory and returns its URL.
func newRegistry(t *testing.T) string {
	t.Helper()
	reg, err := registry.New(registry.Memory(), registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- reg.Run(ctx) }()
	server := httptest.NewServer(reg)
	t.Cleanup(func() {
		server.Close()
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the registry ended with %v", err)
		}
	})
	for tick := time.NewTicker(time.Millisecond); !reg.Ready(); {
		select {
		case <-tick.C:
		case <-time.After(10 * time.Second):
			t.Fatal("the registry does not get ready")
		}
	}
	return server.URL
}

// write makes a file in the working directory.
func (w *world) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// shop makes the topic shop.orders and registers its schema.
func (w *world) shop(t *testing.T) {
	t.Helper()
	w.write(t, "topics/orders.yaml", ordersYAML)
	w.write(t, "schemas/order_placed.avsc", ordersAVSC)
	w.want(t, codeDone, "topics", "apply", "--yes")
	w.want(t, codeDone, "schemas", "register", "schemas")
}

type result struct {
	code     int
	out, err string
}

func (w *world) app(in io.Reader, out, err io.Writer) *app {
	return &app{in: in, out: out, err: err, getenv: func(k string) string { return w.env[k] }, dir: w.dir, now: time.Now}
}

// run runs a command line, without a terminal, and fails the test when it takes longer than a minute.
func (w *world) run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	code := run(ctx, w.app(strings.NewReader(stdin), &out, &err), args)
	if ctx.Err() != nil {
		t.Fatalf("millrace %s does not end\n%s%s", strings.Join(args, " "), out.String(), err.String())
	}
	return result{code, out.String(), err.String()}
}

// want runs a command line and checks its exit code.
func (w *world) want(t *testing.T, code int, args ...string) result {
	t.Helper()
	r := w.run(t, "", args...)
	if r.code != code {
		t.Fatalf("millrace %s exits %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	return r
}

// has fails the test when text lacks one of parts.
func has(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q:\n%s", what, p, text)
		}
	}
}

// records appends plain records to a partition.
func (w *world) records(t *testing.T, topic string, values ...string) {
	t.Helper()
	for i, v := range values {
		r := &kgo.Record{Topic: topic, Key: fmt.Append(nil, "k", i), Value: []byte(v)}
		if err := w.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// topic makes a topic with one partition.
func (w *world) topic(t *testing.T, name string) {
	t.Helper()
	if _, err := w.admin.CreateTopic(t.Context(), 1, 1, nil, name); err != nil {
		t.Fatal(err)
	}
}

// buffer is a writer that tests read while a command writes to it. It signals each write.
type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{}
}

func newBuffer() *buffer { return &buffer{written: make(chan struct{}, 1)} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.written <- struct{}{}:
	default:
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await waits until the buffer holds text.
func (b *buffer) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(b.String(), text) {
		select {
		case <-b.written:
		case <-deadline:
			t.Fatalf("%q never came:\n%s", text, b.String())
		}
	}
}
