package kafkatest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/kafka"
)

// RoundTrip produces ten records and consumes them in the group, with a bare client.
func RoundTrip(tb testing.TB, c kafka.Cluster, topic, group string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	if err := c.Ping(ctx); err != nil {
		tb.Fatal(err)
	}
	cl, err := c.Client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		tb.Fatal(err)
	}
	defer cl.Close() // leaves the group: the next round trip is alone in it
	for i := range 10 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")}).FirstErr(); err != nil {
			tb.Fatal(err)
		}
	}
	for got := 0; got < 10; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			tb.Fatal(err)
		}
		got += fetches.NumRecords()
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		tb.Fatal(err)
	}
}

// Client is a bare client of the cluster, closed after the test.
func Client(tb testing.TB, c kafka.Cluster, opts ...kgo.Opt) *kgo.Client {
	tb.Helper()
	cl, err := c.Client(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cl.Close)
	return cl
}
