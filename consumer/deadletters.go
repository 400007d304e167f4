package consumer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
)

// graves copies records to <topic>.<group>.dlq: key and value byte for byte, every header as it was, and behind them
// where the record came from and why it was given up.
type graves struct {
	client *kgo.Client
	group  string
}

const (
	longestError = 1 << 10 // of the message of an error, in bytes
	longestStack = 4 << 10 // of the stack of a panic
)

func (g graves) bury(ctx context.Context, r *kgo.Record, why failure) error {
	text := func(key, value string) event.Header { return event.Header{Key: key, Value: []byte(value)} }
	number := func(key string, n int64) event.Header { return text(key, strconv.FormatInt(n, 10)) }
	h := append(event.Headers(nil), wire.Headers(r.Headers)...)
	h = append(h,
		text(event.HeaderOriginTopic, r.Topic),
		number(event.HeaderOriginPartition, int64(r.Partition)),
		number(event.HeaderOriginOffset, r.Offset),
		number(event.HeaderOriginTimestamp, r.Timestamp.UnixMilli()),
		number(event.HeaderOriginEpoch, int64(r.LeaderEpoch)),
		text(event.HeaderGroup, g.group),
		text(event.HeaderHandler, why.handler),
		number(event.HeaderAttempts, int64(why.attempts)),
		text(event.HeaderFirstFailure, why.first.UTC().Format(time.RFC3339Nano)),
		text(event.HeaderLastFailure, why.last.UTC().Format(time.RFC3339Nano)),
		text(event.HeaderErrorClass, why.class),
		text(event.HeaderError, cut(why.err.Error(), longestError)),
	)
	if s := stack(why.err); s != "" {
		h = append(h, text(event.HeaderStack, cut(s, longestStack)))
	}
	copied := &kgo.Record{Topic: graveOf(r.Topic, g.group), Key: r.Key, Value: r.Value, Headers: wire.RecordHeaders(h)}
	if err := g.client.ProduceSync(ctx, copied).FirstErr(); err != nil {
		return fmt.Errorf("write a dead letter to %s: %w", copied.Topic, err)
	}
	return nil
}

// graveOf is the topic of the dead letters of a topic's events in a group.
func graveOf(topic, group string) string { return topic + "." + group + ".dlq" }

// stack is that of the panic in err, if there was one.
func stack(err error) string {
	if p, ok := errors.AsType[*PanicError](err); ok {
		return string(p.Stack)
	}
	return ""
}

// cut shortens s to n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// digGraves creates the dead-letter topics that are missing, with the cluster's own default of partitions and replicas.
func digGraves(ctx context.Context, c kafka.Cluster, cfg Config) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	topics := make([]string, len(cfg.Topics))
	for i, t := range cfg.Topics {
		topics[i] = graveOf(t, cfg.Group)
	}
	answers, err := kadm.NewClient(client).CreateTopics(ctx, -1, -1, nil, topics...)
	if err != nil {
		return fmt.Errorf("create the dead-letter topics of group %s: %w", cfg.Group, c.Explain(err, "Create", "cluster"))
	}
	for _, t := range topics {
		if err := answers[t].Err; err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create the dead-letter topic %s: %w", t, c.Explain(err, "Create", "topic "+t))
		}
	}
	return nil
}
