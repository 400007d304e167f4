package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
)

// Memory is a feed of records in memory with an end: for tests without a broker. Its partitions are those of the
// records, all assigned from the start, and its reader is "memory".
type Memory struct {
	mu     sync.Mutex
	logs   map[topicPartition][]*kgo.Record
	next   map[topicPartition]int // index of the next record
	paused map[topicPartition]bool
	wake   chan struct{}
	ended  chan struct{}
	ready  bool
}

// NewMemory returns a feed of records, each with its topic, partition and offset set; offsets may have gaps. Run
// ends when all were polled.
func NewMemory(records ...*kgo.Record) *Memory {
	m := &Memory{
		logs: make(map[topicPartition][]*kgo.Record), next: make(map[topicPartition]int),
		paused: make(map[topicPartition]bool), wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	for _, r := range records {
		p := topicPartition{r.Topic, r.Partition}
		m.logs[p] = append(m.logs[p], r)
	}
	for _, log := range m.logs {
		slices.SortStableFunc(log, func(a, b *kgo.Record) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	return m
}

// ID returns the name of the cursor of a partition in this feed.
func (m *Memory) ID(topic string, partition int32) cursor.ID {
	return cursor.ID{Reader: "memory", Topic: topic, Partition: partition}
}

// Run implements [Feed].
func (m *Memory) Run(ctx context.Context, o Owner) error {
	m.mu.Lock()
	ids := make([]cursor.ID, 0, len(m.logs))
	for p := range m.logs {
		ids = append(ids, m.ID(p.topic, p.partition))
	}
	m.mu.Unlock()
	start, err := o.Assigned(ctx, ids)
	if err != nil {
		return fmt.Errorf("assign partitions: %w", err)
	}
	for id, at := range start {
		if err := m.Seek(id, at); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.ready = true
	m.mu.Unlock()
	m.signal()
	select {
	case <-m.ended:
		return nil
	case <-ctx.Done():
		o.Revoked(context.WithoutCancel(ctx), ids)
		return ctx.Err()
	}
}

// Poll implements [Feed].
func (m *Memory) Poll(ctx context.Context, limit int) kgo.Fetches {
	for {
		if fetch, ok := m.poll(limit); ok {
			return kgo.Fetches{fetch}
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
			return kgo.NewErrFetch(ctx.Err())
		}
	}
}

func (m *Memory) poll(limit int) (fetch kgo.Fetch, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ready {
		return fetch, false
	}
	left := false
	for p, log := range m.logs {
		i := m.next[p]
		if m.paused[p] {
			left = left || i < len(log)
			continue
		}
		n := min(limit, len(log)-i)
		if n > 0 {
			limit -= n
			m.next[p] = i + n
			fetch.Topics = append(fetch.Topics, kgo.FetchTopic{Topic: p.topic, Partitions: []kgo.FetchPartition{{
				Partition: p.partition, HighWatermark: log[len(log)-1].Offset + 1, LastStableOffset: -1,
				Records: slices.Clone(log[i : i+n]),
			}}})
		}
		left = left || m.next[p] < len(log)
	}
	if !left {
		m.end()
	}
	return fetch, len(fetch.Topics) > 0
}

func (m *Memory) end() {
	select {
	case <-m.ended:
	default:
		close(m.ended)
	}
}

// Release implements [Feed].
func (m *Memory) Release() {}

// Starts implements [Feed]: every partition starts with its first record.
func (m *Memory) Starts(_ context.Context, ids []cursor.ID) (map[cursor.ID]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	start := make(map[cursor.ID]int64, len(ids))
	for _, id := range ids {
		if log := m.logs[topicPartition{id.Topic, id.Partition}]; len(log) > 0 {
			start[id] = log[0].Offset
		}
	}
	return start, nil
}

// Seek implements [Feed].
func (m *Memory) Seek(id cursor.ID, offset int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := topicPartition{id.Topic, id.Partition}
	log, ok := m.logs[p]
	if !ok {
		return fmt.Errorf("seek %s: it is not of this feed", id)
	}
	m.next[p], _ = slices.BinarySearchFunc(log, offset, func(r *kgo.Record, at int64) int { return cmp.Compare(r.Offset, at) })
	return nil
}

// Pause implements [Feed].
func (m *Memory) Pause(id cursor.ID, paused bool) {
	m.mu.Lock()
	m.paused[topicPartition{id.Topic, id.Partition}] = paused
	m.mu.Unlock()
	m.signal()
}

func (m *Memory) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
