package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
)

// Spot is where a record stands.
type Spot struct {
	Partition int32
	Offset    int64
}

func (s Spot) String() string { return fmt.Sprintf("partition %d, offset %d", s.Partition, s.Offset) }

// Entry is a record as a bare client reads it.
type Entry struct {
	Spot
	ID, Key string
	// Time is when the event happened, Published the record's timestamp.
	Time, Published time.Time
	Value           []byte
	// Headers are those of the record.
	Headers []kgo.RecordHeader
}

// Read reads a topic from its start to where it ends now, each partition in its order.
func Read(ctx context.Context, c kafka.Cluster, topic string) ([]Entry, error) {
	client, err := c.Client()
	if err != nil {
		return nil, err
	}
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	client.Close()
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask where %s ends: %w", topic, err)
	}
	from, left := map[int32]kgo.Offset{}, int64(0)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			from[o.Partition], left = kgo.NewOffset().AtStart(), left+o.Offset
		}
	})
	if left == 0 {
		return nil, nil
	}
	if client, err = c.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})); err != nil {
		return nil, err
	}
	defer client.Close()
	out := make([]Entry, 0, left)
	for int64(len(out)) < left { // nobody deletes or compacts: every offset has its record
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { out = append(out, entry(r)) })
	}
	return out, nil
}

func entry(r *kgo.Record) Entry {
	e := Entry{
		Spot: Spot{r.Partition, r.Offset}, Key: string(r.Key), Time: r.Timestamp, Published: r.Timestamp, Value: r.Value, Headers: r.Headers,
	}
	for _, h := range r.Headers {
		switch h.Key {
		case "ce_id":
			e.ID = string(h.Value)
		case "ce_time":
			if at, err := time.Parse(time.RFC3339Nano, string(h.Value)); err == nil {
				e.Time = at
			}
		}
	}
	return e
}

// Moved is the movement that is in the record. A tombstone has none, and neither has one that does not decode.
func (e *Entry) Moved() (Moved, error) { return decode(e.Value) }

// Letters are the spots of origin of the dead letters in entries.
func Letters(entries []Entry) ([]Spot, error) {
	out := make([]Spot, 0, len(entries))
	for i := range entries {
		s, n := Spot{}, 0
		for _, h := range entries[i].Headers {
			switch h.Key {
			case event.HeaderOriginPartition:
				if _, err := fmt.Sscan(string(h.Value), &s.Partition); err == nil {
					n++
				}
			case event.HeaderOriginOffset:
				if _, err := fmt.Sscan(string(h.Value), &s.Offset); err == nil {
					n++
				}
			}
		}
		if n != 2 {
			return nil, fmt.Errorf("the dead letter at %s does not say where it was read", entries[i].Spot)
		}
		out = append(out, s)
	}
	return out, nil
}
