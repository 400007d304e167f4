package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/kafka"
)

const (
	createTimeout = time.Minute
	// retention of dead letters: someone must have looked by then.
	retention = 90 * 24 * time.Hour
	// headroom is how much larger than its event a dead letter may be: the headers that say why.
	headroom = 64 << 10
)

// Create makes the dead-letter topics of topics in group that the cluster does not have: with as many partitions as
// their topic, the cluster's default of replicas, a retention of 90 days and a little more room per record. A topic that
// exists is left as it is; one whose source does not exist is an error. It takes at most a minute.
func Create(ctx context.Context, c kafka.Cluster, group string, topics ...string) error {
	for _, t := range topics {
		if err := Check(t, group); err != nil {
			return err
		}
	}
	if len(topics) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	client, err := c.Client()
	if err != nil {
		return fmt.Errorf("connect to create dead-letter topics: %w", err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	sources, err := adm.ListTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("look up topics for their dead letters: %w", c.Explain(err, "Describe", "cluster"))
	}
	limits := maxMessages(ctx, adm, topics)
	for _, t := range topics {
		source := sources[t]
		switch {
		case errors.Is(source.Err, kerr.UnknownTopicOrPartition):
			return fmt.Errorf("create dead letters of topic %s: it does not exist: run millrace topics apply: %w", t, source.Err)
		case source.Err != nil:
			return fmt.Errorf("look up topic %s for its dead letters: %w", t, c.Explain(source.Err, "Describe", "topic "+t))
		}
		name := Topic(t, group)
		configs := map[string]*string{"retention.ms": new(strconv.FormatInt(retention.Milliseconds(), 10))}
		if limit, ok := limits[t]; ok {
			configs["max.message.bytes"] = new(strconv.FormatInt(limit+headroom, 10))
		}
		_, err := adm.CreateTopic(ctx, int32(len(source.Partitions)), -1, configs, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create dead-letter topic %s: %w", name, c.Explain(err, "Create", "topic "+name, "cluster"))
		}
	}
	return nil
}

// maxMessages is max.message.bytes of each topic that tells: without the right to see configurations, the cluster's
// default must do.
func maxMessages(ctx context.Context, adm *kadm.Client, topics []string) map[string]int64 {
	const most = 1 << 30
	limits := map[string]int64{}
	configs, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return limits
	}
	for _, topic := range configs {
		for _, kv := range topic.Configs {
			if kv.Key != "max.message.bytes" || kv.Value == nil {
				continue
			}
			if n, err := strconv.ParseInt(*kv.Value, 10, 64); err == nil && n > 0 && n < most {
				limits[topic.Name] = n
			}
		}
	}
	return limits
}
