package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/cursor"
)

// Report commits positions that are kept elsewhere, for whoever looks at the group's lag, with metadata that says so.
// The coordinator refuses it from a member that has lost its membership. Nothing reads it back. The first error is by
// partition, the second about all of them.
func (g *Group) Report(ctx context.Context, at map[cursor.ID]cursor.Claimed, metadata string) (map[cursor.ID]error, error) {
	client := g.client.Load()
	if client == nil {
		return nil, errors.New("report positions: the group is not running")
	}
	offsets := make(map[string]map[int32]kgo.EpochOffset)
	ids := make(map[topicPartition]cursor.ID, len(at))
	for id, c := range at {
		if offsets[id.Topic] == nil {
			offsets[id.Topic] = make(map[int32]kgo.EpochOffset)
		}
		offsets[id.Topic][id.Partition] = kgo.EpochOffset{Epoch: c.Epoch, Offset: c.Position}
		ids[topicPartition{id.Topic, id.Partition}] = id
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				req.Topics[i].Partitions[j].Metadata = &metadata
			}
		}
		return nil
	})
	refused := make(map[cursor.ID]error)
	var failed error
	client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err != nil {
			return
		}
		names := make(map[[16]byte]string, len(req.Topics)) // from version 10 on the answer has ids only
		for _, t := range req.Topics {
			names[t.TopicID] = t.Topic
		}
		for _, t := range resp.Topics {
			if t.Topic == "" {
				t.Topic = names[t.TopicID]
			}
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					refused[ids[topicPartition{t.Topic, p.Partition}]] = err
				}
			}
		}
	})
	if failed != nil {
		return nil, fmt.Errorf("report positions of group %s: %w", g.cfg.Group, failed)
	}
	return refused, nil
}

// LogStarts returns the offsets that the logs of partitions start at.
func (g *Group) LogStarts(ctx context.Context, ids []cursor.ID) (map[cursor.ID]int64, error) {
	admin := g.admin.Load()
	if admin == nil {
		return nil, errors.New("list offsets: the group is not running")
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, id.Topic)
	}
	starts, err := admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", g.explain(err, "Describe", names...))
	}
	out := make(map[cursor.ID]int64, len(ids))
	for _, id := range ids {
		o, ok := starts.Lookup(id.Topic, id.Partition)
		if !ok {
			return nil, fmt.Errorf("list the start offset of %s: the broker did not answer for it", id)
		}
		if o.Err != nil {
			return nil, fmt.Errorf("list the start offset of %s: %w", id, g.explain(o.Err, "Describe", id.Topic))
		}
		out[id] = o.Offset
	}
	return out, nil
}
