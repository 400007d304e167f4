package cluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/kafka"
)

// A principal without rights is told within ten seconds what it lacks, whatever it tries; with the rights it works.
func TestRealKafkaSecured(t *testing.T) {
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
			return nobody.Explain(kafkatest.Client(t, nobody).ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(), "Write", "topic "+topic)
		}},
		{"produce with Read alone", "User:shipping", "Write", "topic " + topic, func(ctx context.Context) error {
			return reader.Explain(kafkatest.Client(t, reader).ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(), "Write", "topic "+topic)
		}},
		{"consume", "User:nobody", "Read", "topic " + topic, func(ctx context.Context) error {
			cl := kafkatest.Client(t, nobody, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
			return nobody.Explain(cl.PollFetches(ctx).Err(), "Read", "topic "+topic, "group "+group)
		}},
		{"join a group", "User:shipping", "Read", "group " + group, func(ctx context.Context) error {
			cl := kafkatest.Client(t, reader, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic))
			return reader.Explain(cl.PollFetches(ctx).Err(), "Read", "topic "+topic, "group "+group)
		}},
		{"create a topic", "User:nobody", "Create", "topic made", func(ctx context.Context) error {
			resp, err := kadm.NewClient(kafkatest.Client(t, nobody)).CreateTopic(ctx, 1, -1, nil, "made")
			return nobody.Explain(errors.Join(err, resp.Err), "Create", "topic made", "cluster")
		}},
		{"open a transaction", "User:nobody", "Write", "transactional id sink-0", func(ctx context.Context) error {
			cl := kafkatest.Client(t, nobody, kgo.TransactionalID("sink-0"))
			err := cl.BeginTransaction()
			if err == nil {
				err = cl.ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr()
			}
			return nobody.Explain(err, "Write", "transactional id sink-0")
		}},
		{"change configs", "User:nobody", "AlterConfigs", "topic " + topic, func(ctx context.Context) error {
			resp, err := kadm.NewClient(kafkatest.Client(t, nobody)).AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: new("1")}}, topic)
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
		kafkatest.RoundTrip(t, orders, topic, group)
		leader := cluster.Leader(topic, 0)
		cluster.Kill(leader)
		kafkatest.RoundTrip(t, orders, topic, group)
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
		kafkatest.RoundTrip(t, cluster.Cluster("orders"), topic, group)
		cluster.Start(2)
	})
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
