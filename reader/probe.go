package reader

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// pointBytes is what a raw fetch asks of a partition: a leader sends one whole batch however large it is, and more
// only as far as this. Batches that compaction has emptied are 61 bytes.
const pointBytes = 64 << 10

// probe asks the leaders of silent partitions for what follows their position. It is how the end of a compacted log
// is found: empty batches before the end give a client nothing to return, and it would wait for ever.
func (s *scan) probe(ctx context.Context) (err error) {
	silent := map[key]int64{}
	var first *part
	for _, p := range s.parts {
		if !p.reached() && !p.paused {
			silent[key{p.Topic, p.Partition}] = p.next
			if first == nil {
				first = p
			}
		}
	}
	if first == nil {
		return nil
	}
	if time.Since(s.moved) > s.cfg.Stall {
		return fmt.Errorf("read %s partition %d: nothing came for %s at offset %d of %d: is its leader up?",
			first.Topic, first.Partition, s.cfg.Stall, first.next, first.goal)
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.Stall)
	defer cancel()
	if s.points == nil { // on the scan's own client a fetch would stand behind the one that waits for records
		if s.points, err = s.cluster.Client(); err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
	answers, err := fetch(asking, s.points, s.isolation(), true, silent)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("read: %w", ctx.Err())
	case err != nil:
		s.quiet = min(2*s.quiet, quietMost)
		return nil // the stall bound above ends a cluster that never answers
	}
	moved := false
	for k, a := range answers {
		if p := s.byKey[k]; a.Err == nil {
			before := p.next
			s.accept(p, a.Records)
			s.advance(p, min(a.next, p.Until))
			moved = moved || p.next > before
		}
	}
	if !moved {
		s.quiet = min(2*s.quiet, quietMost)
	}
	return nil
}

// answer is what one raw fetch found at a place.
type answer struct {
	kgo.FetchPartition
	next    int64 // the offset after everything in the answer, empty batches included
	topicID [16]byte
}

// fetch sends one Fetch to each leader and returns at once with what is there. A partition whose leader is unknown
// at the moment is left out.
func fetch(ctx context.Context, client *kgo.Client, isolation kgo.IsolationLevel, control bool, at map[key]int64) (map[key]answer, error) {
	topics := map[string]bool{}
	for k := range at {
		topics[k.topic] = true
	}
	details, err := kadm.NewClient(client).ListTopicsWithInternal(ctx, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		return nil, fmt.Errorf("find leaders: %w", err)
	}
	byLeader := map[int32][]key{}
	for k := range at {
		d, ok := details[k.topic].Partitions[k.partition]
		if ok && d.Err == nil && d.Leader >= 0 {
			byLeader[d.Leader] = append(byLeader[d.Leader], k)
		}
	}
	out := map[key]answer{}
	type asking struct {
		leader int32
		keys   []key
	}
	var ask []asking
	for leader, keys := range byLeader {
		ask = append(ask, asking{leader, keys})
	}
	for len(ask) > 0 {
		leader, keys := ask[0].leader, ask[0].keys
		ask = ask[1:]
		req := fetchRequest(isolation, details, keys, at)
		resp, err := req.RequestWith(ctx, client.Broker(int(leader)))
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			return nil, fmt.Errorf("fetch records: %w", err)
		}
		for _, t := range resp.Topics {
			topic := t.Topic
			if topic == "" { // since version 13 a topic is its id
				topic = topicOf(details, t.TopicID)
			}
			for i := range t.Partitions {
				k := key{topic, t.Partitions[i].Partition}
				opts := kgo.ProcessFetchPartitionOpts{
					KeepControlRecords: control, Offset: at[k], IsolationLevel: isolation, Topic: topic, Partition: k.partition,
				}
				fp, next := kgo.ProcessFetchPartition(opts, &t.Partitions[i], kgo.DefaultDecompressor(), nil)
				end := fp.HighWatermark
				if isolation == kgo.ReadCommitted() {
					end = fp.LastStableOffset
				}
				if len(keys) > 1 && fp.Err == nil && len(fp.Records) == 0 && next <= at[k] && at[k] < end {
					ask = append(ask, asking{leader, []key{k}}) // its batch is larger than what is left: only the first one is given whole
					continue
				}
				out[k] = answer{FetchPartition: fp, next: next, topicID: details[topic].ID}
			}
		}
	}
	return out, nil
}

func fetchRequest(isolation kgo.IsolationLevel, details kadm.TopicDetails, keys []key, at map[key]int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 0, 0, fetchBytes
	if isolation == kgo.ReadCommitted() {
		req.IsolationLevel = 1
	}
	topics := map[string]int{}
	for _, k := range keys {
		i, ok := topics[k.topic]
		if !ok {
			i = len(req.Topics)
			topics[k.topic] = i
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = k.topic, details[k.topic].ID
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = k.partition, at[k], pointBytes
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	return req
}

func topicOf(details kadm.TopicDetails, id [16]byte) string {
	for name, d := range details {
		if d.ID == id {
			return name
		}
	}
	return ""
}
