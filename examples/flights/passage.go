package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

// own starts a broker in this process, on a free port and in a folder that goes with it.
func own(ctx context.Context, stderr io.Writer) (kafka.Cluster, *schemas.Registry, func(), error) {
	none := func() {}
	dir, err := os.MkdirTemp("", "millrace-flights-")
	if err != nil {
		return kafka.Cluster{}, nil, none, fmt.Errorf("make a folder for the broker: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- devbroker.Serve(ctx, devbroker.Config{
			Dir: filepath.Join(dir, "broker"), Addr: "127.0.0.1:0", Ready: func(addr string) { ready <- addr },
		})
	}()
	select {
	case addr := <-ready:
		fmt.Fprintf(stderr, "on an embedded broker of its own, %s\n", addr)
		stop := func() {
			cancel()
			if err := <-ended; err != nil {
				fmt.Fprintln(stderr, "stop the broker:", err)
			}
			_ = os.RemoveAll(dir)
		}
		return kafka.Cluster{Seeds: []string{addr}}, schemas.Memory(), stop, nil
	case err := <-ended:
		cancel()
		_ = os.RemoveAll(dir)
		return kafka.Cluster{}, nil, none, fmt.Errorf("start a broker: %w", err)
	}
}

// passage is one run of all flights through a topic.
type passage struct {
	cluster  kafka.Cluster
	registry *schemas.Registry
	topic    string
	source   string // tells this run's events from those of earlier runs
	total    int64
	started  time.Time
	progress io.Writer
}

// run declares, publishes and consumes; it returns the report of what was consumed.
func (p passage) run(ctx context.Context, data []byte) (report, error) {
	if err := p.declare(ctx); err != nil {
		return nil, err
	}
	if err := p.publish(ctx, data); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	got, err := p.consume(ctx)
	if err != nil {
		return nil, fmt.Errorf("consume: %w", err)
	}
	return got, nil
}

// declare brings the topic and the schema to the cluster, as "millrace topics apply" and "millrace schemas register" do.
func (p passage) declare(ctx context.Context) error {
	specs, err := topics.Load(files)
	if err != nil {
		return err
	}
	specs[0].Name = p.topic
	have, err := topics.Have(ctx, p.cluster, p.topic)
	if err != nil {
		return err
	}
	if _, err := topics.Apply(ctx, p.cluster, topics.Plan(specs, have), false); err != nil {
		return err
	}
	_, err = p.registry.Register(ctx, p.topic+"-value", flightSchema)
	return err
}

// publish sends every flight and waits until all are acknowledged.
func (p passage) publish(ctx context.Context, data []byte) error {
	pub, err := producer.New(p.cluster, p.registry, producer.Config{Source: p.source, Compression: "lz4"})
	if err != nil {
		return err
	}
	var (
		acked  atomic.Int64
		first  atomic.Pointer[error] // nil: none yet
		done   = p.meter("published", &acked)
		failed = func(err error) { first.CompareAndSwap(nil, &err) }
	)
	for f, err := range flights(data) {
		if err != nil {
			failed(err)
			break
		}
		pub.PublishAsync(ctx, f.Event(p.topic), func(_ event.Event, err error) {
			if err != nil {
				failed(err)
				return
			}
			acked.Add(1)
		})
		if first.Load() != nil {
			break
		}
	}
	flush, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = pub.Close(flush)
	done()
	if e := first.Load(); e != nil {
		return *e
	}
	if err == nil && acked.Load() != p.total {
		err = fmt.Errorf("%d of %d were acknowledged", acked.Load(), p.total)
	}
	return err
}

// consume reads the topic as a new group, from the moment this run began, until it has seen every flight of the run.
func (p passage) consume(ctx context.Context) (report, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	var (
		mu   sync.Mutex
		got  = report{}
		next = map[int32]int64{} // by partition: what comes twice, after a rebalance, counts once
		seen atomic.Int64
	)
	mux := consumer.NewMux()
	consumer.OnBatch(mux, func(_ context.Context, es []event.Of[Flight]) error {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range es {
			if e.Source != p.source || e.Offset < next[e.Partition] {
				continue
			}
			next[e.Partition] = e.Offset + 1
			got.add(e.Data)
			if seen.Add(1) == p.total {
				cancel()
			}
		}
		return nil
	})
	done := p.meter("consumed", &seen)
	err := consumer.Run(ctx, p.cluster, p.registry, mux, consumer.Config{
		Group: fmt.Sprintf("flights-%d", p.started.UnixMilli()), Topics: []string{p.topic},
		Start: position.Point{Kind: position.Time, At: p.started.Add(-time.Second).UTC()},
	})
	done()
	if n := seen.Load(); n != p.total {
		return nil, errors.Join(err, fmt.Errorf("%d of %d flights came", n, p.total))
	}
	return got, nil
}

// meter prints how many there are and how fast, until the function it returns is called; then the sum.
func (p passage) meter(what string, n *atomic.Int64) func() {
	began := time.Now()
	stop, ended := make(chan struct{}), make(chan struct{})
	rate := func() float64 { return float64(n.Load()) / time.Since(began).Seconds() }
	go func() {
		defer close(ended)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				fmt.Fprintf(p.progress, "%s %d of %d, %.0f/s\n", what, n.Load(), p.total, rate())
			}
		}
	}()
	return func() {
		close(stop)
		<-ended
		fmt.Fprintf(p.progress, "%s %d in %.1f s, %.0f/s\n", what, n.Load(), time.Since(began).Seconds(), rate())
	}
}
