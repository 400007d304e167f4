package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/kafka"
)

// KafkaConfig says where a registry's records are. The zero value works with a cluster that has the topic.
type KafkaConfig struct {
	// Topic holds the records. Defaults to _schemas, where other registries look too.
	Topic string
	// Create makes the topic when it is missing: one partition, compacted, on three brokers or on all if there are fewer.
	Create bool
	// Log gets warnings about the topic. Nil is silent.
	Log *zap.Logger
}

// Kafka is a store in a compacted topic of a cluster. Opening it fails, with what to do, when the topic is missing, has
// more than one partition, or has another cleanup policy than compact: a topic made by auto-creation deletes by time,
// and every schema with it.
func Kafka(c kafka.Cluster, cfg KafkaConfig) Store {
	if cfg.Topic == "" {
		cfg.Topic = "_schemas"
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &kafkaStore{c, cfg}
}

type kafkaStore struct {
	cluster kafka.Cluster
	cfg     KafkaConfig
}

const (
	openTimeout  = 30 * time.Second
	writeTimeout = 30 * time.Second
	pollRecords  = 1_000
	brokersMost  = 3
)

func (s *kafkaStore) Open(ctx context.Context) (Log, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	produce, err := s.cluster.Client(
		kgo.RequiredAcks(kgo.AllISRAcks()), // and idempotent, as by default
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(writeTimeout),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to write %s: %w", s.cfg.Topic, err)
	}
	consume, err := s.cluster.Client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.cfg.Topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.KeepControlRecords(), // another registry's transactions take offsets too
	)
	if err != nil {
		produce.Close()
		return nil, fmt.Errorf("connect to read %s: %w", s.cfg.Topic, err)
	}
	return &kafkaLog{kafkaStore: s, produce: produce, consume: consume}, nil
}

// prepare makes sure that the topic is one that keeps schemas, and creates it where that is allowed.
func (s *kafkaStore) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for created := false; ; created = true {
		err := s.check(ctx, created)
		if !errors.Is(err, errNoTopic) || !s.cfg.Create {
			return err
		}
		select { // brokers learn of a new topic one by one
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

var errNoTopic = errors.New("the topic does not exist: create it with one partition and cleanup.policy=compact, or let the registry do it (--create-topics)")

// check describes the topic, with a client of its own: a client's picture of the cluster is some seconds old.
func (s *kafkaStore) check(ctx context.Context, created bool) error {
	cl, err := s.cluster.Client()
	if err != nil {
		return fmt.Errorf("connect to check %s: %w", s.cfg.Topic, err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	detail, err := s.describe(ctx, adm)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		if s.cfg.Create && !created {
			if err := s.create(ctx, adm); err != nil {
				return err
			}
		}
		return fmt.Errorf("open topic %s: %w", s.cfg.Topic, errNoTopic)
	}
	if err != nil {
		return fmt.Errorf("describe topic %s: %w", s.cfg.Topic, s.cluster.Explain(err, "Describe", "topic "+s.cfg.Topic))
	}
	if n := len(detail.Partitions); n != 1 {
		return fmt.Errorf("topic %s has %d partitions and must have one: its records have one order", s.cfg.Topic, n)
	}
	if len(detail.Partitions[0].Replicas) < 2 {
		s.cfg.Log.Warn("the registry's topic has one replica: a lost disk loses every schema", zap.String("topic", s.cfg.Topic))
	}
	return s.checkPolicy(ctx, adm)
}

func (s *kafkaStore) describe(ctx context.Context, adm *kadm.Client) (kadm.TopicDetail, error) {
	details, err := adm.ListTopics(ctx, s.cfg.Topic)
	if err != nil {
		return kadm.TopicDetail{}, err
	}
	d, ok := details[s.cfg.Topic]
	if !ok {
		return d, kerr.UnknownTopicOrPartition
	}
	return d, d.Err
}

func (s *kafkaStore) create(ctx context.Context, adm *kadm.Client) error {
	brokers, err := adm.ListBrokers(ctx)
	if err != nil {
		return fmt.Errorf("list brokers: %w", s.cluster.Explain(err, "Describe", "cluster"))
	}
	policy := "compact"
	replicas := int16(min(len(brokers), brokersMost))
	_, err = adm.CreateTopic(ctx, 1, replicas, map[string]*string{"cleanup.policy": &policy}, s.cfg.Topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", s.cfg.Topic, s.cluster.Explain(err, "Create", "topic "+s.cfg.Topic, "cluster"))
	}
	return nil
}

func (s *kafkaStore) checkPolicy(ctx context.Context, adm *kadm.Client) error {
	explain := func(err error) error {
		return fmt.Errorf("describe configuration of topic %s: %w", s.cfg.Topic, s.cluster.Explain(err, "DescribeConfigs", "topic "+s.cfg.Topic))
	}
	resources, err := adm.DescribeTopicConfigs(ctx, s.cfg.Topic)
	if err != nil {
		return explain(err)
	}
	resource, err := resources.On(s.cfg.Topic, nil)
	if err = errors.Join(err, resource.Err); err != nil {
		return explain(err)
	}
	policy := "delete"
	for _, c := range resource.Configs {
		if c.Key == "cleanup.policy" {
			policy = strings.TrimSpace(c.MaybeValue())
		}
	}
	if policy != "compact" {
		return fmt.Errorf("topic %s has cleanup.policy=%s, which deletes schemas in time: set it to compact (kafka-configs.sh --alter --topic %s --add-config cleanup.policy=compact)", s.cfg.Topic, policy, s.cfg.Topic)
	}
	return nil
}

type kafkaLog struct {
	*kafkaStore
	produce, consume *kgo.Client
}

func (l *kafkaLog) Append(ctx context.Context, key, value []byte) (int64, error) {
	rec, err := l.produce.ProduceSync(ctx, &kgo.Record{Topic: l.cfg.Topic, Key: key, Value: value}).First()
	switch {
	case errors.Is(err, kerr.MessageTooLarge):
		return 0, fmt.Errorf("%w: %w", errRecordTooLarge, err)
	case err != nil:
		return 0, l.cluster.Explain(err, "Write", "topic "+l.cfg.Topic)
	}
	return rec.Offset, nil
}

func (l *kafkaLog) Next(ctx context.Context) ([]Record, error) {
	for {
		fetches := l.consume.PollRecords(ctx, pollRecords)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var records []Record
		fetches.EachRecord(func(r *kgo.Record) {
			rec := Record{Offset: r.Offset, Key: r.Key, Value: r.Value}
			if r.Attrs.IsControl() {
				rec.Key, rec.Value = key{kind: keyNoop}.bytes(), nil
			}
			records = append(records, rec)
		})
		for _, e := range fetches.Errors() {
			if kerr.IsRetriable(e.Err) {
				continue // the client goes on by itself
			}
			return nil, l.cluster.Explain(e.Err, "Read", "topic "+l.cfg.Topic)
		}
		if len(records) > 0 {
			return records, nil
		}
	}
}

func (l *kafkaLog) End(ctx context.Context) (int64, error) {
	offsets, err := kadm.NewClient(l.produce).ListEndOffsets(ctx, l.cfg.Topic)
	if err != nil {
		return 0, l.cluster.Explain(err, "Describe", "topic "+l.cfg.Topic)
	}
	end, ok := offsets.Lookup(l.cfg.Topic, 0)
	switch {
	case !ok:
		return 0, errors.New("the cluster did not answer for the partition")
	case end.Err != nil:
		return 0, l.cluster.Explain(end.Err, "Describe", "topic "+l.cfg.Topic)
	}
	return end.Offset, nil
}

func (l *kafkaLog) Close() {
	l.produce.Close()
	l.consume.Close()
}
