package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

// Order is the event that is moved: some 200 bytes in Avro, twelve fields.
type Order struct {
	OrderID    string  `avro:"order_id"`
	CustomerID string  `avro:"customer_id"`
	Country    string  `avro:"country"`
	Currency   string  `avro:"currency"`
	Status     string  `avro:"status"`
	Street     string  `avro:"street"`
	City       string  `avro:"city"`
	Coupon     string  `avro:"coupon"`
	Cents      int64   `avro:"cents"`
	Items      int32   `avro:"items"`
	Weight     float64 `avro:"weight"`
	Express    bool    `avro:"express"`
}

// AvroName is the event's type.
func (Order) AvroName() string { return "bench.Order" }

// AvroSchema is its schema.
func (Order) AvroSchema() string { return orderSchema }

var orderSchema = schemas.MustFor[Order]()

const (
	distinct = 4096 // records that differ: keys, values and ids
	source   = "bench"

	// callers is how many goroutines publish: the handlers of a service are several, and a layer's work must not be
	// serial where the raw client's is small.
	callers = 2
	// A Publish waits for its answer, so more callers keep the client busy.
	batchCallers = 16
	batch        = 500 // events of one Publish
)

// work is the records to move, in the forms that the arms take.
type work struct {
	registry    *schemas.Registry
	compression string
	orders      []Order
	keys        []string
	records     []kgo.Record // the same, encoded: a raw client has nothing left to do
	sinks       sinks
}

func newWork(ctx context.Context, compression string) (*work, error) {
	w := &work{registry: schemas.Memory(), compression: compression}
	for i := range distinct {
		id := fmt.Sprintf("order-%08d", i*7919)
		o := Order{
			OrderID: id, CustomerID: fmt.Sprintf("customer-%06d-of-the-shop", i%1000), Country: "PT", Currency: "EUR", Status: "PLACED",
			Street: fmt.Sprintf("Rua do Moinho da Ribeira %d, Apartamento %d", i%300, i%12), City: "Vila Nova de Famalicão, Braga",
			Coupon: "SPRING-2026-FIRST-ORDER-" + strconv.Itoa(i%10), Cents: int64(i) * 137, Items: int32(i % 9), Weight: float64(i) / 7, Express: i%2 == 0,
		}
		w.orders, w.keys = append(w.orders, o), append(w.keys, id)
		// One topic's name stands for all: the schema's id, and so the bytes, are the same in each.
		e := event.New("bench", id, &o)
		value, err := w.registry.Encode(ctx, nil, &e)
		if err != nil {
			return nil, err
		}
		e.Source, e.Time = source, time.Now()
		w.records = append(w.records, *wire.Record(&e, value))
	}
	return w, nil
}

// arms in the order of a round: each raw arm before those that are compared with it.
func (w *work) arms() []arm {
	return append([]arm{
		{"publish raw", "", w.rawPublish},
		{"publish async", "publish raw", w.publishAsync},
		{"publish batches", "publish raw", w.publishBatches},
		{"consume raw", "", w.rawConsume},
		{"consume typed", "consume raw", w.consume},
		{"copy raw", "", w.rawCopy},
		{"copy raw, stamped", "", w.rawStamped}, // the same records as a replay's
		{"replay to a topic", "copy raw, stamped", w.replayed},
		{"replay as a copy", "copy raw", w.mirrored},
	}, append(w.gatewayArms(), w.sinkArms()...)...)
}

// rawPublish is the client alone, with the options of package producer.
func (w *work) rawPublish(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	codec := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[w.compression]
	client, err := c.Client(
		kgo.RecordPartitioner(kgo.UniformBytesPartitioner(64<<10, true, true, nil)),
		kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(50_000),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(); err != nil { // connects and learns the topic
		return err
	}
	var acked atomic.Int64
	promise := func(_ *kgo.Record, err error) {
		if err == nil {
			acked.Add(1)
		}
	}
	k.start()
	share(callers, n, func(from, to int) {
		for i := from; i < to; i++ {
			r := w.records[i%distinct]
			r.Topic = topic
			client.Produce(ctx, &r, promise)
		}
	})
	err = client.Flush(ctx)
	k.stop()
	return all(n, acked.Load(), err)
}

func (w *work) open(ctx context.Context, c kafka.Cluster, topic string) (*producer.Producer, error) {
	p, err := producer.New(c, w.registry, producer.Config{Source: source, Compression: w.compression})
	if err != nil {
		return nil, err
	}
	return p, p.Publish(ctx, event.Tombstone(topic, "")) // connects and learns the topic
}

func (w *work) publishAsync(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	p, err := w.open(ctx, c, topic)
	if err != nil {
		return err
	}
	var acked atomic.Int64
	done := func(_ event.Event, err error) {
		if err == nil {
			acked.Add(1)
		}
	}
	k.start()
	share(callers, n, func(from, to int) {
		for i := from; i < to; i++ {
			p.PublishAsync(ctx, event.New(topic, w.keys[i%distinct], &w.orders[i%distinct]), done)
		}
	})
	err = p.Close(ctx)
	k.stop()
	return all(n, acked.Load(), err)
}

// publishBatches is a service that hands over what it has, and waits for the answer.
func (w *work) publishBatches(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	p, err := w.open(ctx, c, topic)
	if err != nil {
		return err
	}
	var acked atomic.Int64
	var failed atomic.Pointer[error]
	k.start()
	share(batchCallers, n, func(from, to int) {
		events := make([]event.Event, 0, batch)
		for from < to && failed.Load() == nil {
			events = events[:0]
			for ; from < to && len(events) < batch; from++ {
				events = append(events, event.New(topic, w.keys[from%distinct], &w.orders[from%distinct]))
			}
			if err := p.Publish(ctx, events...); err != nil {
				failed.Store(&err)
				return
			}
			acked.Add(int64(len(events)))
		}
	})
	k.stop()
	if f := failed.Load(); f != nil {
		err = *f
	}
	return all(n, acked.Load(), errors.Join(err, p.Close(ctx)))
}

// share divides n records among goroutines, and waits for them.
func share(goroutines, n int, do func(from, to int)) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() { do(g*n/goroutines, (g+1)*n/goroutines) })
	}
	wg.Wait()
}

// rawConsume is a group of one member that commits every second and at its end, and does nothing with the records.
func (w *work) rawConsume(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	client, err := c.Client(
		kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group("raw")), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitInterval(time.Second), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	seen := 0
	for seen < n {
		fs := client.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return err
		}
		if seen == 0 {
			k.start() // joining the group is not measured
		}
		fs.EachRecord(func(*kgo.Record) { seen++ })
	}
	err = client.CommitUncommittedOffsets(ctx)
	k.stop()
	return err
}

func (w *work) consume(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen atomic.Int64
	mux := consumer.NewMux()
	consumer.On(mux, func(_ context.Context, e event.Of[Order]) error {
		switch s := seen.Add(1); {
		case s == 1:
			k.start()
		case s == int64(n):
			cancel() // Run drains and commits, which is measured too
		}
		return nil
	})
	mux.OnTombstone(topic, func(context.Context, event.Event) error { return nil }) // the record that opened the topic
	err := consumer.Run(ctx, c, w.registry, mux, consumer.Config{Group: group("typed"), Topics: []string{topic}, CreateTopics: true})
	k.stop()
	return all(n, seen.Load(), err)
}

func group(name string) string { return fmt.Sprintf("bench-%s-%d", name, time.Now().UnixNano()) }

func all(want int, got int64, err error) error {
	if err == nil && got < int64(want) {
		err = fmt.Errorf("%d of %d records were acknowledged", got, want)
	}
	return err
}
