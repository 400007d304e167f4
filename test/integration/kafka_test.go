package integration_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/kafka"
)

func TestRealKafkaPlainBoots(t *testing.T) {
	t.Parallel()
	c := kafkatest.Plain(t)
	kafkatest.RoundTrip(t, c, kafkatest.Topic(t, c, 3, "retention.ms=3600000"), kafkatest.Name(t))
}

// The oldest Kafka that Millrace supports.
func TestRealKafka39Boots(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Boot(t, kafkatest.Config{Version: "3.9.1"})
	c := cluster.Cluster("")
	kafkatest.RoundTrip(t, c, kafkatest.Topic(t, c, 3), kafkatest.Name(t))
}

// A read-only client reads a real Kafka with every request that reading takes, and changes nothing.
func TestRealKafkaReadOnly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := kafkatest.Plain(t)
	topic := kafkatest.Topic(t, c, 1)
	if err := kafkatest.Client(t, c).ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.ReadOnly = true
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	cl := kafkatest.Client(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if got := cl.PollFetches(ctx); got.Err() != nil || got.NumRecords() != 1 {
		t.Fatalf("%d records, %v", got.NumRecords(), got.Err())
	}
	if _, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, topic); err != nil {
		t.Error(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(); !errors.Is(err, kafka.ErrReadOnly) {
		t.Errorf("produce: %v, want ErrReadOnly", err)
	}
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if end, _ := ends.Lookup(topic, 0); err != nil || end.Offset != 1 {
		t.Errorf("end %d, %v: want 1", end.Offset, err)
	}
}
