package cluster_test

import (
	"context"
	"errors"
	"testing"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

// What a service does without a right is refused within ten seconds by an error that names who lacks which right on
// what; nothing hangs.
func TestRealRightsThatAreMissing(t *testing.T) {
	cluster := kafkatest.Secured(t)
	topic := kafkatest.Topic(t, cluster.Cluster(kafkatest.AdminUser), 3)
	cluster.Grant("shipping", "topic "+topic, "Read")
	nobody, reads := cluster.Cluster("nobody"), cluster.Cluster("shipping")

	consume := func(ctx context.Context, c kafka.Cluster, cfg consumer.Config) error {
		mux := consumer.NewMux()
		mux.Otherwise(func(context.Context, event.Event) error { return nil })
		cfg.Group, cfg.Topics = "shipping", []string{topic}
		return consumer.Run(ctx, c, schemas.Memory(), mux, cfg)
	}
	tests := []struct {
		name, principal, operation, resource string
		do                                   func(ctx context.Context) error
	}{
		{"publish", "User:nobody", "Write", "topic " + topic, func(ctx context.Context) error {
			p, err := producer.New(nobody, schemas.Memory(), producer.Config{})
			if err != nil {
				return err
			}
			e := event.Tombstone(topic, "k")
			err = p.Publish(ctx, e)
			if !errors.Is(err, producer.ErrRejected) {
				t.Errorf("got %v, want ErrRejected", err)
			}
			return errors.Join(err, p.Close(ctx))
		}},
		{"consume a topic", "User:nobody", "Read", "topic " + topic, func(ctx context.Context) error {
			return consume(ctx, nobody, consumer.Config{})
		}},
		{"join a group", "User:shipping", "Read", "group shipping", func(ctx context.Context) error {
			return consume(ctx, reads, consumer.Config{})
		}},
		{"create dead letters", "User:shipping", "Create", "topic " + topic + ".shipping.dlq", func(ctx context.Context) error {
			return consume(ctx, reads, consumer.Config{CreateTopics: true})
		}},
		{"read", "User:nobody", "Read", "topic " + topic, func(ctx context.Context) error {
			r, err := reader.Open(ctx, nobody, reader.Config{Topics: []string{topic}})
			if err != nil {
				return err
			}
			for _, err := range r.Events(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"apply a new topic", "User:nobody", "Describe", "topic made", func(ctx context.Context) error {
			_, err := topics.Apply(ctx, nobody, topics.Plan([]topics.Spec{{Name: "made", Owner: "o", Partitions: 1}}, nil), false)
			return err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, func(ctx context.Context) {
				err := tt.do(ctx)
				denied, ok := errors.AsType[*kafka.PermissionError](err)
				if !ok {
					t.Fatalf("got %v, want a PermissionError", err)
				}
				if denied.Principal != tt.principal || denied.Operation != tt.operation || denied.Resource != tt.resource {
					t.Errorf("got %q, want %s, %s, %s", denied, tt.principal, tt.operation, tt.resource)
				}
			})
		})
	}
}
