package groups

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
)

// Key names a partition of a group.
type Key struct {
	Group, Topic string
	Partition    int32
}

// Ages tells how far behind groups are in time: the timestamp of the first record at each committed position. It
// reads one batch for each of at most limit partitions, those with the most lag; 0 is no limit. A partition that
// is caught up, has no commit, or was not among them is absent.
func Ages(ctx context.Context, c kafka.Cluster, gs []Group, limit int) (map[Key]time.Time, error) {
	type behind struct {
		place reader.Place
		lag   int64
	}
	places := map[Key]behind{}
	for _, g := range gs {
		for _, p := range g.Partitions {
			if lag, ok := p.Lag(); ok && lag > 0 {
				at := max(p.Commit.Offset, p.Start)
				places[Key{g.ID, p.Topic, p.Partition}] = behind{reader.Place{Topic: p.Topic, Partition: p.Partition, Offset: at}, lag}
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(places), func(a, b Key) int {
		return cmp.Or(cmp.Compare(places[b].lag, places[a].lag), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	if limit > 0 && len(keys) > limit {
		keys = keys[:limit]
	}
	unique := map[reader.Place]bool{}
	for _, k := range keys {
		unique[places[k].place] = true
	}
	found, err := reader.Peek(ctx, c, slices.Collect(maps.Keys(unique))...)
	if err != nil {
		return nil, fmt.Errorf("look up the age of lag: %w", err)
	}
	out := map[Key]time.Time{}
	for _, k := range keys {
		if e, ok := found[places[k].place]; ok {
			out[k] = e.Published
		}
	}
	return out, nil
}
