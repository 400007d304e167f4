package reader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
)

// Place is an offset of a partition.
type Place struct {
	Topic     string
	Partition int32
	Offset    int64
}

func (p Place) String() string { return fmt.Sprintf("%s/%d@%d", p.Topic, p.Partition, p.Offset) }

var (
	// ErrGone is returned by Fetch for an offset that holds no event any more, or never held one: expired, deleted,
	// compacted away, aborted, or a transaction's marker.
	ErrGone = errors.New("there is no event any more")
	// ErrAhead is returned by Fetch for an offset that no committed event has reached: the end of the log, or a
	// transaction that is open.
	ErrAhead = errors.New("there is no committed event yet")
)

// Fetch returns the committed event at one place. An error wraps [ErrGone] or [ErrAhead] where there is none, and
// kerr.UnknownTopicOrPartition. One event costs its whole batch. Whoever fetches often holds a [Fetcher].
func Fetch(ctx context.Context, c kafka.Cluster, at Place) (event.Event, error) {
	f, err := NewFetcher(c)
	if err != nil {
		return event.Event{}, err
	}
	defer f.Close()
	return f.Fetch(ctx, at)
}

// Peek returns the first committed event at or after each place; a place with nothing after it, or with nothing but a
// long gap, is absent. It reads one batch per place, for an exact age or a look at a record.
func Peek(ctx context.Context, c kafka.Cluster, places ...Place) (map[Place]event.Event, error) {
	if len(places) == 0 {
		return nil, nil
	}
	f, err := NewFetcher(c)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Peek(ctx, places...)
}

// Fetcher fetches single records. It has a client of its own: all fetches of a client share one connection to each
// broker, where a point fetch would wait behind another's long poll. It is safe for concurrent use.
type Fetcher struct {
	cluster kafka.Cluster
	client  *kgo.Client
}

// NewFetcher returns a Fetcher, which connects when it is first asked. Close it.
func NewFetcher(c kafka.Cluster) (*Fetcher, error) {
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("fetch records: %w", err)
	}
	return &Fetcher{c, client}, nil
}

// Close closes the Fetcher's connections.
func (f *Fetcher) Close() { f.client.Close() }

// Fetch is the function [Fetch] with the Fetcher's client.
func (f *Fetcher) Fetch(ctx context.Context, at Place) (event.Event, error) {
	k := key{at.Topic, at.Partition}
	found, nexts, err := f.hop(ctx, map[key]int64{k: at.Offset})
	e, ok := found[k]
	next, looked := nexts[k]
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		return event.Event{}, f.outOfRange(ctx, at)
	case err != nil:
		return event.Event{}, fmt.Errorf("fetch %s: %w", at, f.cluster.Explain(err, "Read", "topic "+at.Topic))
	case !ok && !looked:
		return event.Event{}, f.leaderless(ctx, at)
	case ok && e.Offset == at.Offset:
		return e, nil
	case ok || next > at.Offset:
		return event.Event{}, fmt.Errorf("fetch %s: %w: it was compacted away, aborted, or is a transaction's marker", at, ErrGone)
	default:
		return event.Event{}, fmt.Errorf("fetch %s: %w: the log ends here, or an open transaction begins", at, ErrAhead)
	}
}

// outOfRange says on which side of the log a place is.
func (f *Fetcher) outOfRange(ctx context.Context, at Place) error {
	starts, err := kadm.NewClient(f.client).ListStartOffsets(ctx, at.Topic)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", at, err)
	}
	if start, ok := starts.Lookup(at.Topic, at.Partition); ok && start.Err == nil && at.Offset < start.Offset {
		return fmt.Errorf("fetch %s: %w: the log starts at %d now", at, ErrGone, start.Offset)
	}
	return fmt.Errorf("fetch %s: %w: the log does not reach that far", at, ErrAhead)
}

// leaderless says why nobody can be asked about a place.
func (f *Fetcher) leaderless(ctx context.Context, at Place) error {
	details, err := kadm.NewClient(f.client).ListTopicsWithInternal(ctx, at.Topic)
	if err == nil {
		err = topicError(details, at.Topic, []int32{at.Partition})
	}
	if err == nil {
		err = fmt.Errorf("its partition has no leader: %w", kerr.LeaderNotAvailable)
	}
	return fmt.Errorf("fetch %s: %w", at, err)
}

// Peek is the function [Peek] with the Fetcher's client.
func (f *Fetcher) Peek(ctx context.Context, places ...Place) (map[Place]event.Event, error) {
	out := map[Place]event.Event{}
	for len(places) > 0 {
		// one place of each partition at a time: that is what a Fetch can ask for
		asked, rest := map[key]Place{}, []Place(nil)
		for _, p := range places {
			k := key{p.Topic, p.Partition}
			if _, taken := asked[k]; taken {
				rest = append(rest, p)
			} else {
				asked[k] = p
			}
		}
		at := map[key]int64{}
		for k, p := range asked {
			at[k] = p.Offset
		}
		found, _, err := f.hop(ctx, at)
		if err != nil {
			return nil, fmt.Errorf("peek at records: %w", err)
		}
		for k, e := range found {
			out[asked[k]] = e
		}
		places = rest
	}
	return out, nil
}

const (
	hops       = 8 // over empty batches, markers and aborted records
	retries    = 5 // after a leader has moved
	retryAfter = 200 * time.Millisecond
)

// hop finds the first event at or after each offset, and how far it looked where it found none.
func (f *Fetcher) hop(ctx context.Context, at map[key]int64) (found map[key]event.Event, next map[key]int64, err error) {
	found, next = map[key]event.Event{}, map[key]int64{}
	failures := 0
	for range hops + retries {
		answers, err := fetch(ctx, f.client, kgo.ReadCommitted(), false, at)
		if err != nil {
			return nil, nil, err
		}
		onward := map[key]int64{}
		for k, from := range at {
			a, ok := answers[k]
			switch {
			case !ok: // the partition does not exist, or has no leader
			case a.Err != nil:
				err = fmt.Errorf("partition %d of topic %s, offset %d: %w", k.partition, k.topic, from, a.Err)
				onward[k] = from
			case len(a.Records) > 0:
				var e event.Event
				wire.Read(&e, a.Records[0], a.topicID)
				found[k] = e
			case a.next > from:
				onward[k], next[k] = a.next, a.next
			default:
				next[k] = from
			}
		}
		if err != nil {
			if failures++; failures > retries || !kerr.IsRetriable(err) {
				return nil, nil, err
			}
			if err := pause(ctx, retryAfter); err != nil {
				return nil, nil, err
			}
		}
		if at = onward; len(at) == 0 {
			break
		}
	}
	return found, next, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
