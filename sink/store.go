package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/engine"
)

// logs is what a sink asks of Kafka beside records, and tells it.
type logs interface {
	// LogStarts returns the offsets that the logs of partitions start at.
	LogStarts(ctx context.Context, ids []cursor.ID) (map[cursor.ID]int64, error)
	// Report commits positions with metadata that says that they are kept elsewhere.
	Report(ctx context.Context, at map[cursor.ID]cursor.Claimed, metadata string) (map[cursor.ID]error, error)
}

// store is the engine's view of the target: claims go there, and commits to Kafka, for information only.
type store struct {
	name   string
	feed   engine.Feed
	logs   logs
	target Writer
	places *places

	plant struct {
		fromKafka map[cursor.ID]int64 // resume from these, the group's commits
	}
}

var _ cursor.Store = (*store)(nil)

// claimTimeout bounds one claim. A rebalance waits for it.
const claimTimeout = 20 * time.Second

// Claim implements [cursor.Store]. The position is that of the target, never one that was committed to Kafka.
func (s *store) Claim(ctx context.Context, ids []cursor.ID) (map[cursor.ID]cursor.Claimed, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	start, err := s.feed.Starts(ctx, ids)
	if err != nil {
		return nil, err
	}
	logStart, err := s.logs.LogStarts(ctx, ids)
	if err != nil {
		return nil, err
	}
	claimed, err := s.target.Claim(ctx, ids, start)
	if err != nil {
		return nil, err
	}
	out := make(map[cursor.ID]cursor.Claimed, len(ids))
	for _, id := range ids {
		c, ok := claimed[id]
		switch {
		case !ok:
			return nil, fmt.Errorf("claim %s: the target did not answer for it", id)
		case errors.Is(c.Err, ErrOtherTopic):
			return nil, consumer.Stop(fmt.Errorf("claim %s: %w, and the position of the old one means nothing in it; its log starts at offset %d: %s",
				id, c.Err, logStart[id], rewind(s.name)))
		case c.Err != nil:
			return nil, fmt.Errorf("claim %s: %w", id, c.Err)
		case c.Position < logStart[id]:
			return nil, consumer.Stop(fmt.Errorf("claim %s: its position is offset %d and the log starts at %d: retention has removed what lies between: %s",
				id, c.Position, logStart[id], rewind(s.name)))
		}
		if at, ok := s.plant.fromKafka[id]; ok {
			c.Position = at
		}
		out[id] = c.Claimed
	}
	for _, id := range ids {
		s.places.set(id, Place{ID: id, Lease: claimed[id].Lease, Next: claimed[id].Position, Watermark: claimed[id].Watermark})
	}
	return out, nil
}

// Commit implements [cursor.Store]: it reports positions.
func (s *store) Commit(ctx context.Context, cs map[cursor.ID]cursor.Claimed) (map[cursor.ID]error, error) {
	return s.logs.Report(ctx, cs, keptElsewhere(s.name))
}

// Room implements [cursor.Store].
func (s *store) Room(cursor.ID) int { return cursor.MaxRoom }

// places are where the partitions of this member stand.
type places struct {
	mu sync.Mutex
	of map[cursor.ID]*place
}

// place is what is remembered of a partition between batches. One goroutine at a time uses it.
type place struct {
	Place
	burst  consumer.BurstCount
	waited time.Time // since when the partition waits for the target; zero when it does not
	pauses int       // in a row
	events []event.Event
}

// set makes a new place: that of an older lease may still be in use by a batch that does not know it yet.
func (p *places) set(id cursor.ID, at Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of[id] = &place{Place: at}
}

// get is the place of a lease, nil when there is a newer one.
func (p *places) get(id cursor.ID, lease cursor.Lease) *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.of[id]; at != nil && at.Lease == lease {
		return at
	}
	return nil
}
