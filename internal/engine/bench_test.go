package engine_test

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
)

// BenchmarkEngine is a record's whole way through the engine, with a handler that does nothing.
func BenchmarkEngine(b *testing.B) {
	const partitions = 6
	rs := make([]*kgo.Record, b.N)
	slab := make([]kgo.Record, b.N)
	value := make([]byte, 200)
	for i := range rs {
		slab[i] = kgo.Record{Topic: "orders", Partition: int32(i % partitions), Offset: int64(i / partitions), Value: value}
		rs[i] = &slab[i]
	}
	feed := engine.NewMemory(rs...)
	h := handlerFunc(func(context.Context, engine.Batch) []verdict.Verdict { return nil })
	b.ReportAllocs()
	b.ResetTimer()
	if err := engine.Run(b.Context(), feed, cursor.NewMemory(), h, engine.Config{}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/record")
}
