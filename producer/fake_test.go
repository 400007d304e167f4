package producer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
)

// text encodes strings as they are and refuses the string "bad" with errBad.
type text struct{}

var errBad = errors.New("does not fit its schema")

func (text) Encode(_ context.Context, dst []byte, e *event.Event) ([]byte, error) {
	s, ok := e.Data.(string)
	if !ok || s == "bad" {
		return nil, fmt.Errorf("encode %T: %w", e.Data, errBad)
	}
	e.Type, e.ContentType = "test.Text", "text/plain"
	return append(dst, s...), nil
}

// newFake is a broker in memory with the topics a and b, six partitions each.
func newFake(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(6, "a", "b")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return fake
}

func open(t *testing.T, c kafka.Cluster, cfg producer.Config) *producer.Producer {
	t.Helper()
	p, err := producer.New(c, text{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		_ = p.Close(ctx)
	})
	return p
}

// soon bounds what must not hang. Tests pass long before it.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// read returns the first n events of the topic, by partition in order.
func read(t *testing.T, fake *kfake.Cluster, topic string, n int) []event.Event {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var events []event.Event
	ctx := soon(t)
	for len(events) < n {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("read %s: %d of %d: %v", topic, len(events), n, err)
		}
		for r := range fs.RecordsAll() {
			var e event.Event
			wire.Read(&e, r, [16]byte{})
			events = append(events, e)
		}
	}
	return events
}

// count is how many records the topic has.
func count(fake *kfake.Cluster, topic string) (n int64) {
	for _, p := range fake.PartitionInfos(topic) {
		n += p.HighWatermark
	}
	return n
}

// hold keeps produce requests unanswered and unwritten until release. arrived is closed with the first.
func hold(t *testing.T, fake *kfake.Cluster) (arrived <-chan struct{}, release func()) {
	t.Helper()
	seen, free := make(chan struct{}), make(chan struct{})
	var first, once sync.Once
	fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		first.Do(func() { close(seen) })
		fake.SleepControl(func() { <-free })
		return nil, nil, false
	})
	release = func() { once.Do(func() { close(free) }) }
	t.Cleanup(release)
	return seen, release
}

// results gives the results of a Publish that must have failed.
func results(t *testing.T, err error) []producer.Result {
	t.Helper()
	var e *producer.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *producer.Error", err)
	}
	return e.Results
}

func wait(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-soon(t).Done():
		t.Fatal("it does not come")
	}
}
