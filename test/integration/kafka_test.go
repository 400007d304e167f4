package integration_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	roundTrip(t, c, kafkatest.Topic(t, c, 3, "retention.ms=3600000"), kafkatest.Name(t))
}

// The oldest Kafka that Millrace supports.
func TestRealKafka39Boots(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Boot(t, kafkatest.Config{Version: "3.9.1"})
	c := cluster.Cluster("")
	roundTrip(t, c, kafkatest.Topic(t, c, 3), kafkatest.Name(t))
}

// A read-only client reads a real Kafka with every request that reading takes, and changes nothing.
func TestRealKafkaReadOnly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := kafkatest.Plain(t)
	topic := kafkatest.Topic(t, c, 1)
	if err := client(t, c).ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.ReadOnly = true
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	cl := client(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
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

// A principal without rights is told within ten seconds what it lacks, whatever it tries; with the rights it works.
func TestRealKafkaSecured(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Secured(t)
	admin := cluster.Cluster(kafkatest.AdminUser)
	topic, group := kafkatest.Topic(t, admin, 3), kafkatest.Name(t)

	t.Run("a wrong password is refused at once", func(t *testing.T) {
		c := cluster.Cluster("orders")
		c.Auth = kafka.SCRAM512("orders", "wrong")
		within(t, func(ctx context.Context) {
			err := c.Ping(ctx)
			wantText(t, err, "the login was refused (SCRAM-SHA-512 as orders)")
		})
	})
	t.Run("no login, or no TLS, is told as such", func(t *testing.T) {
		c := cluster.Cluster("orders")
		c.Auth = kafka.Auth{}
		within(t, func(ctx context.Context) { wantText(t, c.Ping(ctx), "login (set Auth)") })
		c.TLS = nil
		within(t, func(ctx context.Context) { wantText(t, c.Ping(ctx), "the port speaks TLS and we do not") })
		c = kafkatest.Plain(t)
		c.TLS = cluster.Cluster("orders").TLS
		within(t, func(ctx context.Context) { wantText(t, c.Ping(ctx), "the port speaks plain text and we speak TLS") })
		c.TLS, c.Auth = nil, kafka.SCRAM512("orders", "password")
		within(t, func(ctx context.Context) { wantText(t, c.Ping(ctx), "the broker takes no login on this port") })
	})

	nobody := cluster.Cluster("nobody")
	cluster.Grant("shipping", "topic "+topic, "Read")
	reader := cluster.Cluster("shipping")
	denials := []struct {
		name, principal, operation, resource string
		do                                   func(ctx context.Context) error
	}{
		{"produce", "User:nobody", "Write", "topic " + topic, func(ctx context.Context) error {
			return nobody.Explain(client(t, nobody).ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(), "Write", "topic "+topic)
		}},
		{"produce with Read alone", "User:shipping", "Write", "topic " + topic, func(ctx context.Context) error {
			return reader.Explain(client(t, reader).ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(), "Write", "topic "+topic)
		}},
		{"consume", "User:nobody", "Read", "topic " + topic, func(ctx context.Context) error {
			cl := client(t, nobody, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
			return nobody.Explain(cl.PollFetches(ctx).Err(), "Read", "topic "+topic, "group "+group)
		}},
		{"join a group", "User:shipping", "Read", "group " + group, func(ctx context.Context) error {
			cl := client(t, reader, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic))
			return reader.Explain(cl.PollFetches(ctx).Err(), "Read", "topic "+topic, "group "+group)
		}},
		{"create a topic", "User:nobody", "Create", "topic made", func(ctx context.Context) error {
			resp, err := kadm.NewClient(client(t, nobody)).CreateTopic(ctx, 1, -1, nil, "made")
			return nobody.Explain(errors.Join(err, resp.Err), "Create", "topic made", "cluster")
		}},
		{"open a transaction", "User:nobody", "Write", "transactional id sink-0", func(ctx context.Context) error {
			cl := client(t, nobody, kgo.TransactionalID("sink-0"))
			err := cl.BeginTransaction()
			if err == nil {
				err = cl.ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr()
			}
			return nobody.Explain(err, "Write", "transactional id sink-0")
		}},
		{"change configs", "User:nobody", "AlterConfigs", "topic " + topic, func(ctx context.Context) error {
			resp, err := kadm.NewClient(client(t, nobody)).AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: new("1")}}, topic)
			for _, r := range resp {
				err = errors.Join(err, r.Err)
			}
			return nobody.Explain(err, "AlterConfigs", "topic "+topic)
		}},
	}
	for _, d := range denials {
		t.Run(d.name, func(t *testing.T) {
			within(t, func(ctx context.Context) {
				err := d.do(ctx)
				denied, ok := errors.AsType[*kafka.PermissionError](err)
				if !ok {
					t.Fatalf("got %v, want a PermissionError", err)
				}
				if denied.Principal != d.principal || denied.Operation != d.operation || denied.Resource != d.resource {
					t.Errorf("got %q, want %s, %s, %s", denied, d.principal, d.operation, d.resource)
				}
			})
		})
	}
	t.Run("with the rights it works, also without a leader for a while", func(t *testing.T) {
		cluster.Grant("orders", "topic "+topic, "Read", "Write", "Describe")
		cluster.Grant("orders", "group "+group, "Read")
		orders := cluster.Cluster("orders")
		roundTrip(t, orders, topic, group)
		leader := cluster.Leader(topic, 0)
		cluster.Kill(leader)
		roundTrip(t, orders, topic, group)
		cluster.Start(leader)
	})
	t.Run("a paused broker answers nobody, a stopped one is not missed", func(t *testing.T) {
		alone := cluster.Cluster("orders")
		alone.Seeds = []string{cluster.Node(1).Address}
		cluster.Pause(1)
		within(t, func(ctx context.Context) { wantText(t, alone.Ping(ctx), "no answer") })
		cluster.Resume(1)
		within(t, func(ctx context.Context) {
			if err := alone.Ping(ctx); err != nil {
				t.Error(err)
			}
		})
		cluster.Stop(2)
		roundTrip(t, cluster.Cluster("orders"), topic, group)
		cluster.Start(2)
	})
}

// roundTrip produces ten records and consumes them in the group.
func roundTrip(t *testing.T, c kafka.Cluster, topic, group string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	cl, err := c.Client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close() // leaves the group: the next round trip is alone in it
	for i := range 10 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for got := 0; got < 10; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		got += fetches.NumRecords()
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, c kafka.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := c.Client(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// within fails the test when fn takes ten seconds.
func within(t *testing.T, fn func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	fn(ctx)
	if ctx.Err() != nil {
		t.Error("took more than ten seconds")
	}
}

func wantText(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
