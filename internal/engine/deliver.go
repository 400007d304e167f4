package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
)

// poll is the goroutine that asks the feed for records and hands them to the actors.
func (m *member) poll(ctx context.Context) {
	for {
		limit := m.gate.room(ctx, int(m.partitions.Load()))
		if limit == 0 && ctx.Err() == nil {
			m.unblock()
			continue
		} else if limit == 0 {
			return
		}
		polling, cancel := m.polling(ctx)
		fetches := m.feed.Poll(polling, limit)
		onlyTrouble := fetches.NumRecords() == 0 && len(fetches.Errors()) > 0 && polling.Err() == nil
		cancel()
		fatal := m.deliver(fetches)
		if fatal == nil && len(fetches) > 0 { // without fetches a rebalance may be under way
			fatal = m.resume()
		}
		m.feed.Release() // right after handing over, and after an error too: a poll holds rebalances up
		if fatal != nil {
			m.fail(fatal)
			return
		}
		m.relieve()
		if onlyTrouble {
			m.breathe(ctx)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

const (
	troubleWait  = 200 * time.Millisecond // after a poll that brought nothing but errors
	troubleEvery = time.Second            // between two words on the trouble of a partition
)

// breathe waits before the next poll. A broker that refuses a partition answers at once, and the client asks again at
// once: tens of thousands of times a second, and as many lines in the log.
func (m *member) breathe(ctx context.Context) {
	t := time.NewTimer(troubleWait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// deliver hands over what was polled. It returns an error that must end Run.
func (m *member) deliver(fetches kgo.Fetches) (fatal error) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		m.mu.Lock()
		a := m.actors[topicPartition{p.Topic, p.Partition}]
		m.mu.Unlock()
		if p.Err != nil {
			if err := m.fetchError(a, p); err != nil && fatal == nil {
				fatal = err
			}
		}
		if a == nil { // given up since it was fetched
			return
		}
		if end := endOf(p); end >= 0 {
			a.end.Store(end)
		}
		if len(p.Records) == 0 {
			return
		}
		if first := p.Records[0].Offset; a.notRewound(first, p.LogStartOffset) && fatal == nil {
			fatal = fmt.Errorf("read %s: went back to offset %d and got %d: ending, so that nothing is skipped", a.id, a.next, first)
			return
		}
		m.checkGap(a, p)
		var bytes int64
		for _, r := range p.Records {
			bytes += size(r)
		}
		records := int64(len(p.Records))
		m.gate.add(records, bytes)
		if !a.put(p.Records, bytes) {
			m.gate.release(records, bytes)
		}
	})
	m.balance()
	return fatal
}

// endOf is where the log of p ends for this reader, -1 where the broker did not say. A read_committed reader sees
// nothing past the last stable offset, which is never above the high watermark.
func endOf(p kgo.FetchTopicPartition) int64 {
	if p.LastStableOffset >= 0 {
		return min(p.LastStableOffset, p.HighWatermark)
	}
	return p.HighWatermark
}

// checkGap reports records that retention removed before they were read, and a log that was cut: the first
// offset is then not the one that was waited for. Compaction and transaction markers make gaps above the log start only.
func (m *member) checkGap(a *actor, p kgo.FetchTopicPartition) {
	first := p.Records[0].Offset
	switch {
	case a.next >= 0 && first > a.next && p.LogStartOffset > a.next:
		m.problem(a.id, fmt.Errorf("offsets %d to %d of %s are below the log start: retention removed them before they were read",
			a.next, min(first, p.LogStartOffset)-1, a.id))
	case first < a.next:
		m.problem(a.id, fmt.Errorf("%s starts again at offset %d, %d was expected: the log was cut, or read anew", a.id, first, a.next))
	}
}

// fetchError returns an error that must end Run, and tells of any other, of each partition once a second: beside
// partitions with records, one in trouble is polled as fast as they are.
func (m *member) fetchError(a *actor, p kgo.FetchTopicPartition) error {
	err := p.Err
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed) {
		return nil
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		err = fmt.Errorf("read %s/%d: the topic was deleted while it was read, and one of its name is another log: "+
			"see that it exists, and start again: %w", p.Topic, p.Partition, err)
	case p.Topic != "":
		err = fmt.Errorf("read %s/%d: %w", p.Topic, p.Partition, err)
	}
	if errors.Is(p.Err, kerr.OffsetOutOfRange) { // only where the feed may not start over by itself
		return fmt.Errorf("%w: %w", ErrOutOfLog, err)
	}
	if fatalFetch(p.Err) {
		return err
	}
	key, now := topicPartition{p.Topic, p.Partition}, time.Now()
	if last, ok := m.troubled[key]; ok && now.Sub(last) < troubleEvery {
		return nil
	}
	m.troubled[key] = now
	var id cursor.ID
	switch {
	case a != nil:
		id = a.id
	case p.Topic != "":
		id = cursor.ID{Topic: p.Topic, Partition: p.Partition}
	}
	m.problem(id, err)
	return nil
}

// balance pauses partitions that hold more than their fair share of a gate that fills up, while another that has
// more in its log has nothing to do.
//
// Where all have something to do, not polling is enough, and better: of a paused partition the client throws away
// what it has fetched, and its next fetch waits for the others.
func (m *member) balance() {
	if m.partitions.Load() < 2 || m.gate.load() < loadedFrom {
		m.loaded = time.Time{}
		return
	}
	now := time.Now()
	if m.loaded.IsZero() {
		m.loaded = now
	}
	if now.Sub(m.loaded) < hungryAfter { // for moments every partition is hungry: one's records come after the other's
		return
	}
	actors := m.all()
	if slices.ContainsFunc(actors, func(a *actor) bool { return a.hungry(now) }) {
		for _, a := range actors {
			a.pause(m.fair())
		}
	}
}

// relieve makes room in a gate that one partition fills most of and stands still: the others work, but with little at a
// time. It must not be called between a poll and its release, on which a step back waits.
func (m *member) relieve() {
	if m.loaded.IsZero() {
		return
	}
	now := time.Now()
	if now.Sub(m.loaded) < standsAfter {
		return
	}
	for _, a := range m.all() {
		if a.stands(now, m.fair()) {
			a.giveBack(m.fair())
		}
	}
}

// unblock makes room in a gate that is shut because some partitions stand still: those that hold more than their
// fair share give the rest back, to be fetched again when they move. Otherwise nothing would be polled, and nobody
// would know whether the others have more.
func (m *member) unblock() {
	if m.partitions.Load() < 2 {
		return
	}
	for _, a := range m.all() {
		a.giveBack(m.fair())
	}
}
