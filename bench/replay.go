package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
)

// rawCopy reads the source and writes its records to another topic, as they are, with the options of package producer
// and no progress that anything could go on from.
func (w *work) rawCopy(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	return w.copyLoop(ctx, c, topic, n, k, func(r *kgo.Record) []kgo.RecordHeader { return r.Headers })
}

// rawStamped is rawCopy with the headers that a replay adds: the records it writes are a replay's, with the same headers.
func (w *work) rawStamped(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	replay, from := []byte("20261122-090000-abcdef"), []byte(topic)
	return w.copyLoop(ctx, c, topic, n, k, func(r *kgo.Record) []kgo.RecordHeader {
		h := append(make([]kgo.RecordHeader, 0, len(r.Headers)+6), r.Headers...)
		return append(h,
			kgo.RecordHeader{Key: event.HeaderReplay, Value: replay},
			kgo.RecordHeader{Key: event.HeaderReplayCount, Value: []byte("1")},
			kgo.RecordHeader{Key: event.HeaderOriginTopic, Value: from},
			kgo.RecordHeader{Key: event.HeaderOriginPartition, Value: strconv.AppendInt(nil, int64(r.Partition), 10)},
			kgo.RecordHeader{Key: event.HeaderOriginOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
			kgo.RecordHeader{Key: event.HeaderOriginTimestamp, Value: strconv.AppendInt(nil, r.Timestamp.UnixMilli(), 10)})
	})
}

// copyLoop is a loop of the client alone that writes each record with the headers it is told.
func (w *work) copyLoop(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock, headers func(*kgo.Record) []kgo.RecordHeader) error {
	return w.into(ctx, c, topic, func(target string) error {
		starts := map[string]map[int32]kgo.Offset{topic: {}}
		client, err := c.Client()
		if err != nil {
			return err
		}
		details, err := kadm.NewClient(client).ListTopics(ctx, topic)
		client.Close()
		if err != nil {
			return err
		}
		for p := range details[topic].Partitions {
			starts[topic][p] = kgo.NewOffset().AtStart()
		}
		in, err := c.Client(kgo.ConsumePartitions(starts), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := c.Client(
			kgo.RecordPartitioner(kgo.UniformBytesPartitioner(64<<10, true, true, nil)), kgo.ProducerLinger(5*time.Millisecond),
			kgo.MaxBufferedRecords(50_000), kgo.ProducerBatchCompression(kgo.NoCompression()),
		)
		if err != nil {
			return err
		}
		defer out.Close()
		var acked atomic.Int64
		promise := func(_ *kgo.Record, err error) {
			if err == nil {
				acked.Add(1)
			}
		}
		k.start()
		for seen := 0; seen < n; {
			fs := in.PollFetches(ctx)
			if err := fs.Err(); err != nil {
				return err
			}
			fs.EachRecord(func(r *kgo.Record) {
				seen++
				out.Produce(ctx, &kgo.Record{Topic: target, Key: r.Key, Value: r.Value, Headers: headers(r)}, promise)
			})
		}
		err = out.Flush(ctx)
		k.stop()
		return all(n, acked.Load(), err)
	})
}

// replayed is the same by a replay: with headers that say where each record was read, and progress in a group.
func (w *work) replayed(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	return w.into(ctx, c, topic, func(target string) error {
		p, err := producer.New(c, nil, producer.Config{})
		if err != nil {
			return err
		}
		defer func() { _ = p.Close(ctx) }()
		k.start()
		s, err := replay.Run(ctx, c, replay.Topic(p, target), replay.Config{Read: reader.Config{Topics: []string{topic}}})
		k.stop()
		return all(n, s.Delivered, err)
	})
}

// mirrored is the same by a copy: records as they are, and progress in a group.
func (w *work) mirrored(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	return w.into(ctx, c, topic, func(target string) error {
		m, err := replay.OpenMirror(ctx, c, target, 0, nil) // by key, as the raw loop
		if err != nil {
			return err
		}
		defer func() { _ = m.Close(ctx) }()
		k.start()
		s, err := replay.Run(ctx, c, m, replay.Config{Read: reader.Config{Topics: []string{topic}}})
		k.stop()
		return all(n, s.Delivered, err)
	})
}

// into makes a topic like source for do, and deletes it.
func (w *work) into(ctx context.Context, c kafka.Cluster, source string, do func(target string) error) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	details, err := adm.ListTopics(ctx, source)
	if err != nil {
		return err
	}
	target, err := makeTopic(ctx, adm, "bench-copy", len(details[source].Partitions))
	if err != nil {
		return fmt.Errorf("make the target: %w", err)
	}
	defer func() { _, _ = adm.DeleteTopics(context.WithoutCancel(ctx), target) }()
	return do(target)
}
