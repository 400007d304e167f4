// Package producer publishes events. It stands between whoever makes events and the log: an event is encoded with
// its schema, its attributes become headers, its key picks the partition, and the answer comes when every in-sync
// replica has it.
//
//	p, err := producer.New(cluster, registry, producer.Config{Source: "orders"})
//	...
//	defer p.Close(ctx)
//	err = p.Publish(ctx, event.New("shop.orders", order.ID, order))
//
// # Outcomes
//
// An event is [Acked], [Rejected] or [Unknown]; there is no "failed". Rejected events are certainly not in the log:
// they could not be encoded, were refused by the cluster, or never left. Unknown events may be in the log, or may
// still get there. Publish the same values again: their ids stay, so whoever dedupes by id sees one event.
//
// # Order
//
// Events with one key are written in the order in which they were published, by Publish and PublishAsync alike. When
// the cluster refuses a record, the client fails every record that is buffered behind it in that partition, so that
// none overtakes it; what is published after that goes on. An event that cannot be encoded does not hold back those
// after it: a caller that needs all or nothing stops at the first error.
//
// # Errors
//
// Publish returns an [*Error] with one [Result] per event. errors.Is finds [ErrRejected], [ErrUnknown], [ErrClosed],
// [ErrTooLarge], [ErrUnknownTopic] and [ErrNotAuthorized] in it, errors.As a *kafka.PermissionError, and both whatever the
// encoder returned: an incompatible schema, a registry that is away.
//
// # Concurrency
//
// A Producer is used by any number of goroutines; a service needs one.
package producer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
)

// Encoder turns an event's data into bytes. *schemas.Registry is one.
//
// Encode appends the encoded e.Data to dst and returns the longer slice; it may set attributes of e, such as Type and
// ContentType. An error makes the event [Rejected] and is found in the result by errors.Is. Encode is called by many
// goroutines at once.
type Encoder interface {
	Encode(ctx context.Context, dst []byte, e *event.Event) ([]byte, error)
}

// Observer hears of each event's end. Its method is called by many goroutines, also by the one that serves all
// answers of the cluster: it must be fast and must not block.
type Observer interface {
	// Published is called once for each event, with the topic it was sent to, the size of its key, value and headers
	// in bytes before compression (0 for one that was not encoded), and the time since it was handed to the producer.
	Published(topic string, outcome Outcome, size int, took time.Duration)
}

// Config configures a Producer. The zero value works.
type Config struct {
	// Source is written as ce_source into events that have none: the name of the service. Empty writes none.
	Source string
	// Compression of record batches: "none", "gzip", "snappy", "lz4" or "zstd". Defaults to "none".
	Compression string
	// Linger is how long PublishAsync waits for more records to share a batch with, at most a minute. Publish waits
	// for its answer and does not linger, but for the first to a topic. Negative is no linger. Defaults to 5 ms.
	Linger time.Duration
	// MaxRecords is how many records may be on their way at once; past it Publish and PublishAsync wait until a
	// quarter of them is answered, or their context ends. Defaults to 16,384: more is slower, for the
	// records no longer fit the caches of a processor.
	MaxRecords int
	// MaxBytes bounds the same records by their size: keys, values and headers, before compression. An event above
	// it is rejected. Defaults to 64 MiB.
	MaxBytes int64
	// BatchBytes is the size of the largest batch that is sent, and so of the largest record, before compression. The
	// max.message.bytes of every topic that is published to must not be below it. Defaults to 1,000,012, a little less
	// than Kafka's own default.
	BatchBytes int32
	// Redirect names the topic that an event for topic is sent to instead. An error rejects the event; an empty
	// name captures it: it is encoded, sent nowhere and answered as if it had been. Nil redirects nothing.
	Redirect func(topic string) (string, error)
	// Capture is called with each event before it is sent or captured by Redirect, as it goes on the wire: Value is encoded, and
	// Headers are all of the record's. What e refers to is the producer's again when it has returned. Nil is none.
	Capture func(ctx context.Context, e *event.Event)
	// Observer hears of each event's end. Nil is none, and spares two readings of the clock.
	Observer Observer
	// Log hears of records whose outcome was still unknown at Close. Nil is silent.
	Log *zap.Logger
}

const (
	defaultLinger     = 5 * time.Millisecond
	defaultMaxRecords = 16_384
	defaultMaxBytes   = 64 << 20
	defaultBatchBytes = 1_000_012
	minBatchBytes     = 1 << 10
	maxBatchBytes     = 64 << 20 // what kafka.Cluster unpacks
	maxLinger         = time.Minute

	// unknownTopicRetries is how often a topic that the cluster does not know is looked up again. A topic made a
	// moment ago is not known to every broker yet; one that does not exist must be reported within seconds.
	unknownTopicRetries = 2
	// metadataMinAge is the pause between two such looks, and between two looks for new leaders.
	metadataMinAge = 500 * time.Millisecond
)

func (c Config) withDefaults() Config {
	if c.Linger == 0 {
		c.Linger = defaultLinger
	}
	if c.MaxRecords == 0 {
		c.MaxRecords = defaultMaxRecords
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.BatchBytes == 0 {
		c.BatchBytes = defaultBatchBytes
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	if _, ok := codecs[c.Compression]; !ok {
		return fmt.Errorf("producer: Config.Compression: there is no %q: use none, gzip, snappy, lz4 or zstd", c.Compression)
	}
	if c.Linger > maxLinger {
		return fmt.Errorf("producer: Config.Linger: %v is more than %v", c.Linger, maxLinger)
	}
	if c.MaxRecords < 0 || c.MaxRecords > maxRecords || c.MaxBytes < 0 || c.MaxBytes > maxBytes {
		return fmt.Errorf("producer: Config.MaxRecords must be at most %d and Config.MaxBytes at most %d, and neither negative", maxRecords, maxBytes)
	}
	if c.BatchBytes < minBatchBytes || c.BatchBytes > maxBatchBytes {
		return fmt.Errorf("producer: Config.BatchBytes: %d is not between %d and %d", c.BatchBytes, minBatchBytes, maxBatchBytes)
	}
	if len(c.Source) > maxAttribute {
		return fmt.Errorf("producer: Config.Source has %d bytes; at most %d are allowed", len(c.Source), maxAttribute)
	}
	return nil
}

var codecs = map[string]kgo.CompressionCodec{
	"": kgo.NoCompression(), "none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// Producer publishes events. It is opened by [New] and must be closed.
type Producer struct {
	cluster kafka.Cluster
	client  client
	encoder Encoder
	cfg     Config
	watch   watch
	limit   *limit

	memories   sync.Pool // of *memory
	open, free sync.Pool // of *slab: in use, and unused
}

// New returns a Producer for the cluster. It connects when it first publishes. A nil enc publishes only events that
// carry their Value already, such as dead letters. An error says which setting is wrong.
func New(c kafka.Cluster, enc Encoder, cfg Config) (*Producer, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Producer{cluster: c, encoder: enc, cfg: cfg}
	if err := p.client.open(func() (*kgo.Client, error) { return p.connect(c) }); err != nil {
		return nil, fmt.Errorf("open producer: %w", err)
	}
	p.limit = newLimit(int64(cfg.MaxRecords), cfg.MaxBytes, p.hurry)
	return p, nil
}

func (p *Producer) connect(c kafka.Cluster) (*kgo.Client, error) {
	cfg := p.cfg
	return c.Client(
		kgo.RequiredAcks(kgo.AllISRAcks()), // idempotence is on by default, and stays on
		kgo.RecordPartitioner(partitioner()),
		kgo.ProducerBatchCompression(codecs[cfg.Compression]),
		kgo.ProducerBatchMaxBytes(cfg.BatchBytes),
		kgo.ProducerLinger(max(0, cfg.Linger)),
		kgo.UnknownTopicRetries(unknownTopicRetries),
		kgo.MetadataMinAge(metadataMinAge),
		// The bounds are ours (limit). The client counts a record for a moment longer than we do, so its own bound is
		// set where it is never met.
		kgo.MaxBufferedRecords(2*cfg.MaxRecords),
		kgo.WithHooks(&p.watch),
	)
}

// partitioner hashes keys with murmur2 as Kafka's own clients do, so that one key has one partition whoever writes
// it. Records without a key stay on a partition for 64 KiB, then go where the least is waiting.
func partitioner() kgo.Partitioner { return kgo.UniformBytesPartitioner(64<<10, true, true, nil) }

// Publish sends events and waits for their answers: nil means that every in-sync replica has every event. Any other
// end is an [*Error] with the outcome of each. An event with Data set is encoded; one with only a Value is sent as it
// is; one with neither is a tombstone. Source and Time are filled in where they are empty, the latter from [event.Now].
//
// When ctx ends first, or the cluster refuses the login, events that were not yet handed to the client are rejected, and
// the others are unknown: they stay in the buffer and may be written later. The client's own way, to take buffered records back when a context
// ends, would fail those of other callers that share the batch.
//
// Events made by [event.After] are claimed in the attempt that ctx belongs to: see [event.Claim].
func (p *Producer) Publish(ctx context.Context, events ...event.Event) error {
	if len(events) == 0 {
		return nil
	}
	m := p.memory(len(events))
	c := p.newCall(events, m.slots)
	if p.limit.closed.Load() {
		c.refuse(errClosed())
		return c.end(ctx)
	}
	refused := p.watch.refusal()
	uncanceled := withoutCancel(ctx)
	e := &m.event
	for i := range events {
		*e = events[i]
		s := &c.slots[i]
		if c.now.IsZero() && e.Time.IsZero() {
			c.now = stamp(ctx)
		}
		if err := p.send(ctx, &m.buffers, e, c.now, &s.item); err != nil {
			s.settle(err)
		} else if s.record.Topic == "" {
			s.settle(nil) // captured by Redirect
		} else {
			p.client.use(ctx).Produce(uncanceled, &s.record, s.promise)
		}
	}
	p.hurry(ctx)
	select {
	case <-c.done:
	case <-ctx.Done():
	case <-refused:
	}
	if err := c.end(ctx); err != nil {
		return err
	}
	m.event = event.Event{}
	p.reuse(m)
	return nil
}

// PublishAsync sends e and returns without waiting for the answer; it waits only while the producer is full. done is
// called exactly once, with the event as it was sent (Partition and Offset set when err is nil) and nil or an error
// that wraps [ErrRejected] or [ErrUnknown]: before PublishAsync returns where the event is rejected at once, else by
// the goroutine that serves all answers, in order per partition. So done must not block, and must not publish to a
// full producer. A nil done is allowed, and loses the outcome.
//
// ctx bounds the wait and the encoding. Once the event is on its way its end does not matter.
func (p *Producer) PublishAsync(ctx context.Context, e event.Event, done func(event.Event, error)) {
	if p.limit.closed.Load() {
		p.refuse(e, done, errClosed())
		return
	}
	b, a := p.next()
	a.reset(p, e, done)
	if p.cfg.Observer != nil {
		a.began = time.Now()
	}
	var now time.Time
	if e.Time.IsZero() {
		now = stamp(ctx)
	}
	err := p.prepare(ctx, &b.buffers, &a.event, now, &a.item)
	p.fill(b) // before the wait: others may use it meanwhile
	if err == nil {
		err = p.admit(ctx, &a.item)
	}
	switch {
	case err != nil:
		a.end(ctx, err)
	case a.record.Topic == "":
		a.end(ctx, nil)
	default:
		p.client.use(ctx).Produce(withoutCancel(ctx), &a.record, a.promise)
	}
}

// Close waits until what is on its way is answered, or ctx ends, and closes the connections. What is left then is
// unknown: Publish calls return so, and each done was called when Close returns. The error wraps [ErrUnknown]. A
// second Close does nothing.
func (p *Producer) Close(ctx context.Context) error {
	if !p.limit.close() {
		return nil
	}
	last := p.client.end()
	err := last.Flush(ctx)
	left := last.BufferedProduceRecords()
	last.Close()
	<-p.limit.drained // the client has failed what it still held, and each done is called before its room is free
	if err == nil || left == 0 {
		return nil
	}
	p.cfg.Log.Warn("producer closed with records on their way", zap.Int64("records", left), zap.Error(err))
	return fmt.Errorf("close producer: the outcome of %d records is %w: %w", left, ErrUnknown, err)
}

// hurry ends every linger. The client offers it only as a part of Flush, so this is a Flush that does not wait.
func (p *Producer) hurry(ctx context.Context) {
	if p.cfg.Linger < 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_ = p.client.current.Load().Flush(ctx) // it always says that ctx ended
}

// withoutCancel is ctx with its values alone: an end of ctx must not fail records that share a batch with its own.
func withoutCancel(ctx context.Context) context.Context {
	if ctx.Done() == nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}
