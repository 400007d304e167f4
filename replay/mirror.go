package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
)

// A topic that was made a moment ago is not known to every broker yet.
const (
	newTopicLooks = 20
	newTopicWait  = 250 * time.Millisecond
)

// Mirror is a target that writes records to a topic as they were: key, value, headers and timestamp. Where the topic has
// as many partitions as the source, each record keeps its own; else its key picks one, as the producer's would.
type Mirror struct {
	topic   string
	cluster kafka.Cluster
	client  *kgo.Client
	carrier *Carrier
	same    bool
	stamped bool
}

// OpenMirror returns a Mirror into topic of c for a source with so many partitions. A carrier makes values speak of the
// schemas of another registry; nil leaves them as they are. The topic must exist. Close the Mirror.
func OpenMirror(ctx context.Context, c kafka.Cluster, topic string, partitions int, carrier *Carrier) (*Mirror, error) {
	m := &Mirror{topic: topic, cluster: c, carrier: carrier}
	if err := m.look(ctx, partitions); err != nil {
		return nil, err
	}
	partitioner := kgo.UniformBytesPartitioner(64<<10, true, true, nil)
	if m.same {
		partitioner = kgo.ManualPartitioner()
	}
	client, err := c.Client(kgo.RecordPartitioner(partitioner), kgo.UnknownTopicRetries(2), kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return nil, fmt.Errorf("copy into %s: %w", topic, err)
	}
	m.client = client
	return m, nil
}

// look learns what the topic is like.
func (m *Mirror) look(ctx context.Context, partitions int) error {
	client, err := m.cluster.Client()
	if err != nil {
		return fmt.Errorf("copy into %s: %w", m.topic, err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	details, err := adm.ListTopicsWithInternal(ctx, m.topic)
	for range newTopicLooks {
		if err != nil || !errors.Is(details[m.topic].Err, kerr.UnknownTopicOrPartition) || !sleep(ctx, newTopicWait) {
			break
		}
		details, err = adm.ListTopicsWithInternal(ctx, m.topic)
	}
	if err == nil {
		err = details[m.topic].Err
	}
	if err != nil {
		return fmt.Errorf("copy into %s: %w", m.topic, m.cluster.Explain(err, "Describe", "topic "+m.topic))
	}
	m.same = len(details[m.topic].Partitions) == partitions
	configs, err := adm.DescribeTopicConfigs(ctx, m.topic)
	if err != nil {
		return nil // without the right to see it, what the cluster does by default is assumed
	}
	for _, topic := range configs {
		for _, kv := range topic.Configs {
			m.stamped = m.stamped || kv.Key == "message.timestamp.type" && kv.Value != nil && *kv.Value == "LogAppendTime"
		}
	}
	return nil
}

// KeepsPartitions reports whether records keep their partitions, and so a partition's order is that of its source.
func (m *Mirror) KeepsPartitions() bool { return m.same }

// KeepsTimes reports whether records keep their timestamps. A topic with message.timestamp.type=LogAppendTime gives them
// those of the copy.
func (m *Mirror) KeepsTimes() bool { return !m.stamped }

// Close waits for what is on its way and closes the connections.
func (m *Mirror) Close(ctx context.Context) error {
	err := m.client.Flush(ctx)
	m.client.Close()
	if err != nil {
		return fmt.Errorf("close the copy into %s: %w", m.topic, err)
	}
	return nil
}

func (m *Mirror) writes() string { return m.topic }

// Send implements [Pipelined]. The end of ctx fails what is buffered: nobody else's records share its batches.
func (m *Mirror) Send(ctx context.Context, e event.Event, done func(event.Event, error)) {
	r, err := m.record(ctx, &e)
	if err != nil {
		done(e, err)
		return
	}
	m.client.Produce(ctx, r, func(_ *kgo.Record, err error) { done(event.Event{}, err) })
}

// Deliver implements [Target].
func (m *Mirror) Deliver(ctx context.Context, e event.Event) error {
	r, err := m.record(ctx, &e)
	if err != nil {
		return err
	}
	err = m.client.ProduceSync(ctx, r).FirstErr()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.MessageTooLarge):
		return consumer.DeadLetter(err)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kafka.ErrReadOnly):
		return consumer.Stop(m.cluster.Explain(err, "Write", "topic "+m.topic))
	}
	return fmt.Errorf("write to %s: %w", m.topic, err)
}

func (m *Mirror) record(ctx context.Context, e *event.Event) (*kgo.Record, error) {
	value, headers := e.Value, e.Headers
	if m.carrier != nil {
		var err error
		if value, headers, err = m.carrier.carry(ctx, e); err != nil {
			return nil, err
		}
	}
	return &kgo.Record{
		Topic: m.topic, Partition: e.Partition, Key: e.Key, Value: value, Headers: wire.RecordHeaders(headers), Timestamp: e.Published,
	}, nil
}

// Mapped is a place in a log, and the places in a copy from which nothing behind it is missed.
type Mapped struct {
	Source reader.Place
	// Time is the timestamp of the last event before Source, by which the copy was asked; zero where Source is at the end
	// of an empty log.
	Time   time.Time
	Target []reader.Place
}

// MapOffsets finds the places in topic of to that correspond to places in a log of from: offsets are not copied, so they
// are mapped by time. In each partition of the copy it is the first record that is not older than the last one before
// the place: whoever goes on from there misses nothing and gets a few again. With same, a place is mapped to the partition
// of the same number; else to the earliest of all, in every partition.
func MapOffsets(ctx context.Context, from, to kafka.Cluster, topic string, same bool, places ...reader.Place) ([]Mapped, error) {
	if len(places) == 0 {
		return nil, nil
	}
	before := make([]reader.Place, len(places))
	for i, p := range places {
		before[i] = p
		before[i].Offset = max(0, p.Offset-1)
	}
	events, err := reader.Peek(ctx, from, before...)
	if err != nil {
		return nil, fmt.Errorf("map offsets: %w", err)
	}
	client, err := to.Client()
	if err != nil {
		return nil, fmt.Errorf("map offsets: %w", err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	out := make([]Mapped, len(places))
	var earliest time.Time
	for i, p := range places {
		out[i].Source = p
		if e, ok := events[before[i]]; ok {
			out[i].Time = e.Published
			if earliest.IsZero() || e.Published.Before(earliest) {
				earliest = e.Published
			}
		}
	}
	for i := range out {
		m := &out[i]
		at := m.Time
		if !same {
			at = earliest
		}
		var found kadm.ListedOffsets
		if at.IsZero() {
			found, err = adm.ListEndOffsets(ctx, topic)
		} else {
			found, err = adm.ListOffsetsAfterMilli(ctx, at.UnixMilli(), topic)
		}
		if err == nil {
			err = found.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("map offsets: %w", to.Explain(err, "Describe", "topic "+topic))
		}
		for _, o := range found.Offsets().Sorted() {
			if !same || o.Partition == m.Source.Partition {
				m.Target = append(m.Target, reader.Place{Topic: topic, Partition: o.Partition, Offset: o.At})
			}
		}
	}
	return out, nil
}
