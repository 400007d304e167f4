package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/internal/registry"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
)

// parcel is an event of the pipeline; firstParcel is how its type began.
type parcel struct {
	ID   string `avro:"id"`
	Note string `avro:"note,default="`
}

func (parcel) AvroName() string { return "pipeline.Parcel" }

type firstParcel struct {
	ID string `avro:"id"`
}

func (firstParcel) AvroName() string { return "pipeline.Parcel" }

// pipeline is a topic, the dead letters of one group, and a registry over HTTP whose records are in Kafka too. Those who
// write and those who read know the registry apart from each other, as two processes do.
type pipeline struct {
	t             *testing.T
	cluster       kafka.Cluster
	topic, group  string
	registry      *registryServer
	writes, reads *schemas.Registry
	observed      *observed
	mu            sync.Mutex
	handled       []string // what handlers were given, in order
	written       int      // by write
}

func newPipeline(t *testing.T, partitions int32) *pipeline {
	t.Helper()
	p := &pipeline{t: t, cluster: kafkatest.Plain(t), observed: newObserved()}
	p.topic = kafkatest.Topic(t, p.cluster, partitions)
	p.group = p.topic[len(p.topic)-8:] // which no other test has, and short enough for the dead letters' topic
	p.registry = serveRegistry(t, p.cluster)
	var err error
	if p.writes, err = schemas.New(schemas.Config{URLs: []string{p.registry.url()}}); err != nil {
		t.Fatal(err)
	}
	if p.reads, err = schemas.New(schemas.Config{URLs: []string{p.registry.url()}}); err != nil {
		t.Fatal(err)
	}
	return p
}

// register makes text the newest schema of a topic.
func register(t *testing.T, reg *schemas.Registry, topic, text string) {
	t.Helper()
	if _, err := reg.Register(t.Context(), topic+"-value", text); err != nil {
		t.Fatal(err)
	}
}

// registryServer is a registry that can be away.
type registryServer struct {
	t       *testing.T
	address string
	reg     *registry.Registry
	server  *http.Server
}

func serveRegistry(t *testing.T, c kafka.Cluster) *registryServer {
	t.Helper()
	reg, err := registry.New(registry.Kafka(c, registry.KafkaConfig{Topic: kafkatest.Topic(t, c, 1, "cleanup.policy=compact")}), registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	s := &registryServer{t: t, address: "127.0.0.1:0", reg: reg}
	t.Cleanup(func() {
		s.away()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("registry: %v", err)
		}
	})
	s.back()
	wait, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if err := reg.AwaitReady(wait); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *registryServer) url() string { return "http://" + s.address }

// away closes the port and every connection.
func (s *registryServer) away() { _ = s.server.Close() }

// back serves again, at the same address.
func (s *registryServer) back() {
	s.t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(s.t.Context(), "tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.address = ln.Addr().String()
	s.server = &http.Server{Handler: s.reg, ReadHeaderTimeout: patience}
	go func() { _ = s.server.Serve(ln) }() // ends with away
}

// observed counts what a consumer tells its observer.
type observed struct {
	consumer.Silent

	mu       sync.Mutex
	kinds    map[consumer.Kind]int
	start    map[int32]int64 // of the partitions assigned last
	problems []error
}

func newObserved() *observed {
	return &observed{kinds: map[consumer.Kind]int{}, start: map[int32]int64{}}
}

func (o *observed) Attempted(_ cursor.ID, _ string, kind consumer.Kind, n int, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kinds[kind] += n
}

func (o *observed) Assigned(start map[cursor.ID]int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, at := range start {
		o.start[id.Partition] = at
	}
}

func (o *observed) Problem(_ cursor.ID, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.problems = append(o.problems, err)
}

func (o *observed) count(kind consumer.Kind) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kinds[kind]
}

// forget what was assigned.
func (o *observed) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.start)
}

func (o *observed) assigned() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.start)
}

// replaced is how often a stranger's commit was found.
func (o *observed) replaced() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, err := range o.problems {
		if errors.Is(err, cursor.ErrReplaced) {
			n++
		}
	}
	return n
}

// note remembers that a handler was given something.
func (p *pipeline) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handled = append(p.handled, what)
}

func (p *pipeline) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.handled)
}

// await waits until handlers were given n things.
func (p *pipeline) await(n int) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("%d events are handled", n), func() bool { return len(p.seen()) >= n })
}

// consume runs a consumer until stop, which fails the test where it does not end in order.
func (p *pipeline) consume(mux *consumer.Mux, cfg consumer.Config) (stop func()) {
	p.t.Helper()
	cfg.Group, cfg.CreateTopics, cfg.CommitEvery = p.group, true, 50*time.Millisecond
	if cfg.Topics == nil {
		cfg.Topics = []string{p.topic}
	}
	if cfg.Observer == nil {
		cfg.Observer = p.observed
	}
	cfg.Retry.Backoff = time.Millisecond
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.t.Context()))
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx, p.cluster, p.reads, mux, cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				p.t.Errorf("consume: %v", err)
			}
		case <-time.After(patience):
			p.t.Error("the consumer does not end")
		}
	})
	p.t.Cleanup(stop)
	return stop
}

// values is a mux that notes each event's value as it is.
func (p *pipeline) values() *consumer.Mux {
	mux := consumer.NewMux()
	mux.Otherwise(func(_ context.Context, e event.Event) error {
		p.note(string(e.Value))
		return nil
	})
	return mux
}

// write appends n records to partition 0, numbered on from those before.
func (p *pipeline) write(n int) {
	p.t.Helper()
	cl := kafkatest.Client(p.t, p.cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var records []*kgo.Record
	for range n {
		records = append(records, &kgo.Record{Topic: p.topic, Value: []byte(strconv.Itoa(p.written)), Timestamp: base.Add(time.Duration(p.written) * time.Second)})
		p.written++
	}
	if err := cl.ProduceSync(p.t.Context(), records...).FirstErr(); err != nil {
		p.t.Fatal(err)
	}
}

// base is the time of the first record of write; each is a second later than the one before.
var base = time.Now().Add(-time.Hour).Truncate(time.Millisecond)

// numbers are the values of write, from ≤ n < until.
func numbers(from, until int) (out []string) {
	for n := from; n < until; n++ {
		out = append(out, strconv.Itoa(n))
	}
	return out
}

func (p *pipeline) admin() *kadm.Client {
	p.t.Helper()
	return kadm.NewClient(kafkatest.Client(p.t, p.cluster))
}

// committed reports whether the group's commits are at the ends of the topics.
func (p *pipeline) committed(adm *kadm.Client, topics ...string) bool {
	p.t.Helper()
	commits, err := adm.FetchOffsetsForTopics(p.t.Context(), p.group, topics...)
	if err != nil {
		return false // of a young cluster the coordinator is not there yet
	}
	ends, err := adm.ListEndOffsets(p.t.Context(), topics...)
	if err != nil {
		p.t.Fatal(err)
	}
	done := true
	ends.Each(func(end kadm.ListedOffset) {
		commit, _ := commits.Lookup(end.Topic, end.Partition)
		done = done && end.Err == nil && commit.At == end.Offset
	})
	return done
}

// length is how many offsets a topic has.
func length(t *testing.T, adm *kadm.Client, topic string) (n int64) {
	t.Helper()
	ends, err := adm.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(end kadm.ListedOffset) { n += end.Offset })
	return n
}
