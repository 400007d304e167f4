package groups

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

// lettersMost are the newest dead letters of a partition that are looked at.
const lettersMost = 1000

// Stuck is a partition that a group is behind on.
type Stuck struct {
	Partition
	Behind int64 // offsets
	// Next is the record that comes next, as it was published: the first one at or after the commit. Nil where there is none
	// that a group could read, as behind the last of a transaction that is still open.
	Next *event.Event
	// Letter is the newest dead letter that the group wrote of this partition, nil if none was found among the last thousand.
	Letter *deadletter.Letter
}

// Why looks at what a group has before it: its partitions with lag, those that are furthest behind first and at most limit of
// them (0 is all), each with the record that comes next and the last failure.
func Why(ctx context.Context, c kafka.Cluster, group string, limit int) (Group, []Stuck, error) {
	gs, err := Describe(ctx, c, group)
	if err != nil {
		return Group{}, nil, err
	}
	g := gs[0]
	var stuck []Stuck
	for _, p := range g.Partitions {
		if lag, ok := p.Lag(); ok && lag > 0 {
			stuck = append(stuck, Stuck{Partition: p, Behind: lag})
		}
	}
	slices.SortStableFunc(stuck, func(a, b Stuck) int { return cmp.Compare(b.Behind, a.Behind) })
	if limit > 0 && len(stuck) > limit {
		stuck = stuck[:limit]
	}
	var places []reader.Place
	for _, s := range stuck {
		places = append(places, s.place())
	}
	found, err := reader.Peek(ctx, c, places...)
	if err != nil {
		return g, nil, fmt.Errorf("look at what group %s comes to next: %w", group, err)
	}
	letters := map[Key]*deadletter.Letter{}
	asked := map[string]bool{}
	for _, s := range stuck {
		if asked[s.Topic] {
			continue
		}
		asked[s.Topic] = true
		if err := lastLetters(ctx, c, group, s.Topic, letters); err != nil {
			return g, nil, fmt.Errorf("look at the dead letters of group %s: %w", group, err)
		}
	}
	for i := range stuck {
		s := &stuck[i]
		if e, ok := found[s.place()]; ok {
			s.Next = &e
		}
		s.Letter = letters[Key{group, s.Topic, s.Partition.Partition}]
	}
	return g, stuck, nil
}

func (s Stuck) place() reader.Place {
	return reader.Place{Topic: s.Topic, Partition: s.Partition.Partition, Offset: max(s.Commit.Offset, s.Start)}
}

// lastLetters adds the newest dead letter of each partition of a topic. A group that never gave an event up has no topic for
// them, and one that may not be read is no reason to say nothing at all.
func lastLetters(ctx context.Context, c kafka.Cluster, group, topic string, out map[Key]*deadletter.Letter) error {
	end := position.Point{Kind: position.End}
	r, err := reader.Open(ctx, c, reader.Config{
		Topics: []string{deadletter.Topic(topic, group)},
		Range:  position.Range{From: position.Point{Kind: position.End, N: lettersMost}, Until: end},
		Merge:  true,
	})
	if _, denied := errors.AsType[*kafka.PermissionError](err); denied || errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.InvalidTopicException) {
		return nil
	}
	if err != nil {
		return err
	}
	for e, err := range r.Events(ctx) {
		if err != nil {
			return err
		}
		if l, ok := deadletter.Parse(e); ok && l.Group == group && l.Origin.Topic == topic {
			out[Key{group, topic, l.Origin.Partition}] = &l
		}
	}
	return nil
}
