package engine_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/kafka"
)

// BenchmarkGroup reads a topic of 200-byte records from a broker in this process: once as a stock client would,
// once through the engine with a handler that does nothing, commits on. Their ratio is the engine's cost.
func BenchmarkGroup(b *testing.B) {
	const total, partitions = 600_000, 6
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "orders"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(fake.Close)
	c := kafka.Cluster{Seeds: fake.ListenAddrs()}
	client, err := c.Client()
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 200)
	for i := range total {
		client.Produce(b.Context(), &kgo.Record{Topic: "orders", Key: fmt.Appendf(nil, "%d", i%1000), Value: value}, nil)
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	client.Close()

	round := 0
	b.Run("kgo", func(b *testing.B) {
		for b.Loop() {
			round++
			cl, err := c.Client(kgo.ConsumerGroup(fmt.Sprintf("raw%d", round)), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
			if err != nil {
				b.Fatal(err)
			}
			started, n := time.Time{}, 0
			for n < total {
				n += cl.PollRecords(b.Context(), 10_000).NumRecords()
				if started.IsZero() {
					started = time.Now()
				}
			}
			b.ReportMetric(float64(total)/time.Since(started).Seconds(), "records/s")
			cl.Close()
		}
	})
	b.Run("engine", func(b *testing.B) {
		for b.Loop() {
			round++
			g, err := engine.NewGroup(c, engine.GroupConfig{Group: fmt.Sprintf("engine%d", round), Topics: []string{"orders"}})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var n, first atomic.Int64
			h := handlerFunc(func(_ context.Context, batch engine.Batch) []verdict.Verdict {
				first.CompareAndSwap(0, time.Now().UnixNano())
				if n.Add(int64(len(batch.Items))) >= total {
					cancel()
				}
				return nil
			})
			if err := engine.Run(ctx, g, g.Store(), h, engine.Config{}); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(total)/time.Since(time.Unix(0, first.Load())).Seconds(), "records/s")
		}
	})
}
