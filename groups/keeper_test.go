package groups_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/position"
)

// keeper has the positions of the group g in memory.
type keeper map[int32]int64

func (k keeper) String() string { return "sink pg" }

func (k keeper) Positions(context.Context) ([]groups.Position, error) {
	var out []groups.Position
	for p, at := range k {
		out = append(out, groups.Position{Topic: "t", Partition: p, Offset: at})
	}
	return out, nil
}

func (k keeper) Move(_ context.Context, moves []groups.Move) error {
	for _, m := range moves {
		if at, ok := k[m.Partition]; m.From == nil && ok || m.From != nil && at != m.From.Offset {
			return fmt.Errorf("partition %d is at %d: %w", m.Partition, at, groups.ErrChanged)
		}
	}
	for _, m := range moves {
		if m.To == nil {
			delete(k, m.Partition)
			continue
		}
		k[m.Partition] = m.To.Offset
	}
	return nil
}

func (k keeper) all() []int64 {
	var out []int64
	for p := range int32(3) {
		at, ok := k[p]
		if !ok {
			at = -1
		}
		out = append(out, at)
	}
	return out
}

// What a keeper has is planned, changed and taken back as commits are; the commits, which only report it, stay.
func TestPositionsOfAKeeperAreMovedWhereTheyAre(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	reports := kadm.Offsets{}
	reports.Add(kadm.Offset{Topic: "t", Partition: 0, At: 1, LeaderEpoch: -1, Metadata: groups.KeptElsewhere + "sink pg"})
	if err := adm.CommitAllOffsets(t.Context(), "g", reports); err != nil {
		t.Fatal(err)
	}
	before := stands(t, adm, "g")
	k, b := keeper{0: 4, 2: 1}, groups.Backups{Dir: t.TempDir()}

	p, err := groups.NewPlanAt(t.Context(), c, k, "g", groups.Goal{At: &position.Point{Kind: position.Start}}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if p.Keeper != "sink pg" || p.Moves[0].From.Offset != 4 || p.Moves[0].To.Metadata != "" {
		t.Fatalf("got a plan of %q with %+v", p.Keeper, p.Moves[0])
	}
	if _, err := groups.Apply(t.Context(), c, p, b); !errors.Is(err, groups.ErrElsewhere) {
		t.Errorf("applied to commits: error %v, want ErrElsewhere", err)
	}
	if _, err := groups.ApplyAt(t.Context(), c, k, p, b); err != nil {
		t.Fatal(err)
	}
	if got := k.all(); !slices.Equal(got, []int64{0, 0, 0}) {
		t.Errorf("positions %v, want those of the log's start", got)
	}
	last, _, err := b.Latest(p.ClusterID, "g")
	if err != nil {
		t.Fatal(err)
	}
	undo, err := groups.NewPlanAt(t.Context(), c, k, "g", groups.Goal{Undo: &last}, epoch.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := groups.ApplyAt(t.Context(), c, k, undo, b); err != nil {
		t.Fatal(err)
	}
	if got := k.all(); !slices.Equal(got, []int64{4, -1, 1}) {
		t.Errorf("positions %v after undo, want 4, none, 1", got)
	}
	if after := stands(t, adm, "g"); !slices.Equal(before, after) {
		t.Errorf("commits %v, want them as they were: %v", after, before)
	}
}

// A group that has committed nothing, and a goal that names the topic: it is one topic all the same.
func TestAKeeperWithoutCommitsIsPlannedOnce(t *testing.T) {
	t.Parallel()
	c, _ := newLog(t)
	k := keeper{0: 4, 1: 0, 2: 0}
	p, err := groups.NewPlanAt(t.Context(), c, k, "fresh", groups.Goal{Topics: []string{"t"}, At: &position.Point{Kind: position.Start}}, epoch)
	if err != nil || len(p.Moves) != 3 {
		t.Fatalf("got %d moves, %v, want one for each partition", len(p.Moves), err)
	}
	if _, err := groups.ApplyAt(t.Context(), c, k, p, groups.Backups{Dir: t.TempDir()}); err != nil || k[0] != 0 {
		t.Errorf("applied: %v, position %d", err, k[0])
	}
}

// A sink that has moved on since the plan was made is not set back by it.
func TestAPlanOfAKeeperGoesStale(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	seed(t, adm)
	k := keeper{0: 4}
	p, err := groups.NewPlanAt(t.Context(), c, k, "g", groups.Goal{At: &position.Point{Kind: position.Start}}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	k[0] = 5
	if _, err := groups.ApplyAt(t.Context(), c, k, p, groups.Backups{Dir: t.TempDir()}); !errors.Is(err, groups.ErrChanged) {
		t.Errorf("error %v, want ErrChanged", err)
	}
	if k[0] != 5 {
		t.Errorf("position %d, want 5 as it was", k[0])
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	c, _ := newLog(t)
	logs, err := groups.Logs(t.Context(), c, "t", "nothing")
	if err != nil {
		t.Fatal(err)
	}
	if len(logs) != 3 {
		t.Fatalf("got %v, want the three partitions of t", logs)
	}
	at := logs[groups.Key{Topic: "t", Partition: 0}]
	if at.TopicID == [16]byte{} || at.Start != 0 || at.End != 10 {
		t.Errorf("got %+v, want the log from 0 to 10, with an id", at)
	}
}
