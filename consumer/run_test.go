package consumer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
)

// order and shipped are typed events with real Avro schemas.
type order struct {
	ID string `avro:"id"`
	N  int64  `avro:"n"`
}

func (order) AvroName() string   { return "shop.Order" }
func (order) AvroSchema() string { return orderSchema }

var orderSchema = schemas.MustFor[order]()

// cluster is a broker in memory with a registry beside it.
type cluster struct {
	kafka.Cluster
	fake *kfake.Cluster
	reg  *schemas.Registry
	cl   *kgo.Client
}

func newCluster(t *testing.T, topics ...string) *cluster {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := &cluster{Cluster: kafka.Cluster{Seeds: fake.ListenAddrs()}, fake: fake, reg: schemas.Memory()}
	if c.cl, err = c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.cl.Close)
	return c
}

// publish writes n orders, numbered from, to partition 0.
func (c *cluster) publish(t *testing.T, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		e := event.New("shop.orders", fmt.Sprintf("o%d", i), order{ID: fmt.Sprintf("o%d", i), N: int64(i)})
		value, err := c.reg.Encode(t.Context(), nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		c.write(t, wire.Record(&e, value))
	}
}

func (c *cluster) write(t *testing.T, r *kgo.Record) {
	t.Helper()
	if err := c.cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// committed is the group's position in partition 0 of shop.orders, -1 where there is none.
func (c *cluster) committed(t *testing.T, group string) int64 {
	t.Helper()
	offsets, err := kadm.NewClient(c.cl).FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := offsets.Lookup("shop.orders", 0); ok {
		return o.At
	}
	return -1
}

// all reads partition 0 of topic.
func (c *cluster) all(t *testing.T, topic string) []*kgo.Record {
	t.Helper()
	ends, err := kadm.NewClient(c.cl).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := c.Client(kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var want int64
	ends.Each(func(o kadm.ListedOffset) { want += o.Offset })
	var out []*kgo.Record
	for int64(len(out)) < want {
		out = append(out, cl.PollFetches(t.Context()).Records()...)
	}
	return out
}

func config() consumer.Config {
	return consumer.Config{Group: "shipping", Topics: []string{"shop.orders"}, CreateTopics: true}
}

// handled collects the numbers of orders, and calls back with how many there are.
type handled struct {
	mu   sync.Mutex
	ns   []int64
	call func(n int)
}

func (h *handled) order(_ context.Context, e event.Of[order]) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ns = append(h.ns, e.Data.N)
	if h.call != nil {
		h.call(len(h.ns))
	}
	return nil
}

func TestPublishedIsHandledAndCommittedAndARestartGoesOn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "shop.orders")
	c.publish(t, 0, 10)
	for run := range 2 {
		ctx, stop := context.WithCancel(t.Context())
		h := &handled{call: func(n int) {
			if n == 10 {
				stop()
			}
		}}
		mux := consumer.NewMux()
		consumer.On(mux, h.order)
		if err := consumer.Run(ctx, c.Cluster, c.reg, mux, config()); err != nil {
			t.Fatal(err)
		}
		stop()
		want := []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
		for i := range want {
			want[i] += int64(10 * run)
		}
		if !slices.Equal(h.ns, want) {
			t.Errorf("run %d handled %v, want %v", run, h.ns, want)
		}
		if got := c.committed(t, "shipping"); got != int64(10*(run+1)) {
			t.Errorf("run %d committed %d", run, got)
		}
		c.publish(t, 10, 10)
	}
}

func TestADeadLetterIsTheRecordByteForByte(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "shop.orders")
	poison := &kgo.Record{
		Topic: "shop.orders", Key: []byte{0xff, 0}, Value: []byte{0, 0, 42}, // the frame ends in the schema's id
		Headers: []kgo.RecordHeader{{Key: event.HeaderType, Value: []byte("shop.Order")}, {Key: "x", Value: nil}, {Key: "x", Value: []byte("2")}},
	}
	c.publish(t, 0, 1)
	c.write(t, poison)
	c.publish(t, 1, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	h := &handled{call: func(n int) {
		if n == 2 {
			stop()
		}
	}}
	mux := consumer.NewMux()
	consumer.On(mux, h.order)
	if err := consumer.Run(ctx, c.Cluster, c.reg, mux, config()); err != nil {
		t.Fatal(err)
	}
	if got := c.committed(t, "shipping"); got != 3 {
		t.Errorf("committed %d", got)
	}
	letters := c.all(t, "shop.orders.shipping.dlq")
	if len(letters) != 1 {
		t.Fatalf("%d dead letters", len(letters))
	}
	l := letters[0]
	if !bytes.Equal(l.Key, poison.Key) || !bytes.Equal(l.Value, poison.Value) {
		t.Errorf("key %x and value %x are changed", l.Key, l.Value)
	}
	headers := wire.Headers(l.Headers)
	for key, want := range map[string]string{
		event.HeaderOriginTopic: "shop.orders", event.HeaderOriginPartition: "0", event.HeaderOriginOffset: "1",
		event.HeaderGroup: "shipping", event.HeaderErrorClass: "poison", event.HeaderAttempts: "1", event.HeaderType: "shop.Order", "x": "2",
	} {
		if got := string(headers.Get(key)); got != want {
			t.Errorf("header %s is %q, want %q", key, got, want)
		}
	}
}

func TestStopCommitsWhatIsDone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "shop.orders")
	c.publish(t, 0, 5)
	mux := consumer.NewMux()
	consumer.On(mux, func(_ context.Context, e event.Of[order]) error {
		if e.Data.N == 3 {
			return consumer.Stop(errBoom)
		}
		return nil
	})
	if err := consumer.Run(t.Context(), c.Cluster, c.reg, mux, config()); !errors.Is(err, errBoom) {
		t.Fatalf("run ended with %v", err)
	}
	if got := c.committed(t, "shipping"); got != 3 {
		t.Errorf("committed %d, want 3", got)
	}
}

func TestWhatIsDoneIsCommittedWhileTheNextIsInTheHandlersHands(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "shop.orders")
	c.publish(t, 0, 5)
	commits := make(chan int64, 1000)
	c.fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		if commit, ok := req.(*kmsg.OffsetCommitRequest); ok {
			for _, topic := range commit.Topics {
				for _, p := range topic.Partitions {
					if p.Partition == 0 {
						commits <- p.Offset
					}
				}
			}
		}
		return nil, nil, false
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	mux := consumer.NewMux()
	consumer.On(mux, func(_ context.Context, e event.Of[order]) error {
		if e.Data.N == 3 { // 0 to 2 are done, 3 is in hand
			for at := int64(-1); at != 3; {
				select {
				case at = <-commits:
					if at > 3 {
						t.Errorf("committed %d while 3 is in the handler's hands", at)
					}
				case <-time.After(20 * time.Second):
					t.Error("what is done is not committed")
					at = 3
				}
			}
		}
		if e.Data.N == 4 {
			stop()
		}
		return nil
	})
	cfg := config()
	cfg.CommitEvery = time.Millisecond
	if err := consumer.Run(ctx, c.Cluster, c.reg, mux, cfg); err != nil {
		t.Fatal(err)
	}
}

func TestATypeThatCannotOccurIsSaidAtStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "shop.orders")
	c.publish(t, 0, 1) // registers shop.Order
	run := func(strict bool) (warnings int, err error) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		mux := consumer.NewMux()
		consumer.On(mux, func(context.Context, event.Of[placed]) error { return nil })
		mux.Otherwise(func(context.Context, event.Event) error { stop(); return nil })
		core, logs := observer.New(zap.WarnLevel)
		cfg := config()
		cfg.Strict, cfg.Log = strict, zap.New(core)
		err = consumer.Run(ctx, c.Cluster, c.reg, mux, cfg)
		return logs.FilterMessageSnippet("no subject").Len(), err
	}
	if warned, err := run(false); err != nil || warned != 1 {
		t.Errorf("ended with %v after %d warnings", err, warned)
	}
	if _, err := run(true); err == nil || !strings.Contains(err.Error(), "shop.Placed") || !strings.Contains(err.Error(), "shop.Order") {
		t.Errorf("strict: got %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*consumer.Config)
		want string
	}{
		{"no group", func(c *consumer.Config) { c.Group = "" }, "Config.Group"},
		{"a bad group", func(c *consumer.Config) { c.Group = "a b" }, "Config.Group"},
		{"no topic", func(c *consumer.Config) { c.Topics = nil }, "Config.Topics"},
		{"a topic twice", func(c *consumer.Config) { c.Topics = []string{"a", "a"} }, "Config.Topics"},
		{"names that are too long together", func(c *consumer.Config) { c.Group = strings.Repeat("g", 225) }, "230"},
		{"by key", func(c *consumer.Config) { c.Order = consumer.ByKey }, "ByKey is not available in this version"},
		{"unordered", func(c *consumer.Config) { c.Order = consumer.Unordered }, "Unordered is not available in this version"},
		{"no such order", func(c *consumer.Config) { c.Order = 7 }, "Order(7)"},
		{"deferred", func(c *consumer.Config) { c.Retry.Deferred = append(c.Retry.Deferred, 1) }, "Retry.Deferred is not available in this version"},
		{"a negative time", func(c *consumer.Config) { c.Timeout = -1 }, "Config.Timeout"},
		{"a negative number", func(c *consumer.Config) { c.Batch = -1 }, "Config.Batch"},
		{"a ratio above one", func(c *consumer.Config) { c.Burst.Ratio = 2 }, "Config.Burst"},
		{"a strange choice", func(c *consumer.Config) { c.Incompatible = consumer.Retried }, "Config.Incompatible"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := config()
			tt.edit(&cfg)
			mux := consumer.NewMux()
			mux.Otherwise(func(context.Context, event.Event) error { return nil })
			err := consumer.Run(t.Context(), kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}, nil, mux, cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to name %s", err, tt.want)
			}
		})
	}
}

func TestAnEmptyMuxIsAnError(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "shop.orders")
	if err := consumer.Run(t.Context(), c.Cluster, c.reg, consumer.NewMux(), config()); err == nil || !strings.Contains(err.Error(), "no handler") {
		t.Errorf("got %v", err)
	}
}
