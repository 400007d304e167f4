package kafka_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/kafka"
)

// A client of a read-only cluster reads, and whatever else is asked of it is refused at once: nothing is written
// and nothing waits. What makes a producer give up, instead of trying for ever, hangs on the text of an error
// inside the Kafka client; this test is its guard.
func TestReadOnlyRefusesWritesAtOnce(t *testing.T) {
	t.Parallel()
	fake := cluster(t, kfake.SeedTopics(1, "t"))
	rw := kafka.Cluster{Seeds: fake.ListenAddrs()}
	produce(t, client(t, rw), "t", "before")

	c := kafka.Cluster{Seeds: fake.ListenAddrs(), ReadOnly: true}
	write := kmsg.NewPtrOffsetCommitRequest()
	write.Group = "g"
	autoCreate := kmsg.NewPtrMetadataRequest()
	autoCreate.AllowAutoTopicCreation = true
	tests := []struct {
		name string
		opts []kgo.Opt
		do   func(ctx context.Context, cl *kgo.Client) error
	}{
		{"produce", nil, func(ctx context.Context, cl *kgo.Client) error {
			return cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr()
		}},
		{"produce without idempotence", []kgo.Opt{kgo.DisableIdempotentWrite()}, func(ctx context.Context, cl *kgo.Client) error {
			return cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr()
		}},
		{"produce without acks", []kgo.Opt{kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck())}, func(ctx context.Context, cl *kgo.Client) error {
			return cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr()
		}},
		{"produce past a dialer of the caller", []kgo.Opt{kgo.Dialer(nil)}, func(ctx context.Context, cl *kgo.Client) error {
			return cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr()
		}},
		{"consume in a group", []kgo.Opt{kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t")}, func(ctx context.Context, cl *kgo.Client) error {
			return cl.PollFetches(ctx).Err0()
		}},
		{"consume in a group that the broker assigns", []kgo.Opt{kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.ServerSideBalancer()}, func(ctx context.Context, cl *kgo.Client) error {
			return cl.PollFetches(ctx).Err0()
		}},
		{"commit", nil, func(ctx context.Context, cl *kgo.Client) error {
			_, err := write.RequestWith(ctx, cl)
			return err
		}},
		{"create a topic", nil, func(ctx context.Context, cl *kgo.Client) error {
			_, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "made")
			return err
		}},
		{"create a topic by asking for it", nil, func(ctx context.Context, cl *kgo.Client) error {
			_, err := autoCreate.RequestWith(ctx, cl)
			return err
		}},
		{"delete a topic", nil, func(ctx context.Context, cl *kgo.Client) error {
			_, err := kadm.NewClient(cl).DeleteTopic(ctx, "t")
			return err
		}},
		{"delete a group", nil, func(ctx context.Context, cl *kgo.Client) error {
			_, err := kadm.NewClient(cl).DeleteGroup(ctx, "g")
			return err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			cl := client(t, c, tt.opts...)
			if err := tt.do(ctx, cl); !errors.Is(err, kafka.ErrReadOnly) {
				t.Errorf("got %v, want ErrReadOnly", err)
			}
		})
	}
	t.Run("reading works, and finds nothing written", func(t *testing.T) {
		cl := client(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if got := cl.PollFetches(ctx).Records(); len(got) != 1 || string(got[0].Value) != "before" {
			t.Errorf("read %v", got)
		}
		admin := kadm.NewClient(cl)
		topics, err := admin.ListTopics(ctx)
		if err != nil || len(topics) != 1 || !topics.Has("t") {
			t.Errorf("topics %v, %v", topics.Names(), err)
		}
		groups, err := admin.ListGroups(ctx)
		if err != nil || len(groups) != 0 {
			t.Errorf("groups %v, %v", groups.Groups(), err)
		}
		ends, err := admin.ListEndOffsets(ctx, "t")
		if end, ok := ends.Lookup("t", 0); err != nil || !ok || end.Offset != 1 {
			t.Errorf("end %+v, %v: want offset 1", end, err)
		}
		if _, err := admin.DescribeTopicConfigs(ctx, "t"); err != nil {
			t.Errorf("configs: %v", err)
		}
	})
}
