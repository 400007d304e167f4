package groups_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/position"
)

const idOfT = groups.TopicID("AAAAAAAAAAAAAAAAAAAAAQ")

// bare is the metadata of a cursor that is its position and nothing else.
func bare(t *testing.T, at int64) string {
	t.Helper()
	meta, _, err := cursor.Encode(cursor.Cursor{Position: at, Epoch: -1, Floor: at}, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	return meta
}

func at(kind position.Kind, n int64) *position.Point { return &position.Point{Kind: kind, N: n} }

func committed(at int64) *groups.Commit {
	return &groups.Commit{Offset: at, Epoch: 3, Metadata: "member"}
}

// snapshot is a group on the topic t: partition 0 holds 10 to 100 and is committed at 50, partition 1 is empty at 5 and
// committed there, partition 2 holds 0 to 20 without a commit, partition 3 holds 30 to 40 and its commit at 7 has expired.
func snapshot() groups.Snapshot {
	return groups.Snapshot{
		ClusterID: "c", At: epoch, TopicIDs: map[string]groups.TopicID{"t": idOfT},
		Found: map[string]map[int32]int64{"t": {0: 60, 3: 45}},
		Group: groups.Group{Summary: groups.Summary{ID: "g", State: "Empty"}, Partitions: []groups.Partition{
			{Topic: "t", Partition: 0, Start: 10, End: 100, Commit: committed(50)},
			{Topic: "t", Partition: 1, Start: 5, End: 5, Commit: committed(5)},
			{Topic: "t", Partition: 2, Start: 0, End: 20},
			{Topic: "t", Partition: 3, Start: 30, End: 40, Commit: committed(7)},
		}},
	}
}

func TestCompute(t *testing.T) {
	t.Parallel()
	const left, absent = -1, -2 // in want
	for _, tt := range []struct {
		name string
		goal groups.Goal
		want [4]int64
		note [4]string // what a note says; "" for none
	}{
		{"start", groups.Goal{At: at(position.Start, 0)}, [4]int64{10, left, 0, 30}, [4]string{3: "23 offsets were deleted"}},
		{"past the start, clamped at the end", groups.Goal{At: at(position.Start, 15)}, [4]int64{25, left, 15, 40}, [4]string{3: "deleted"}},
		{"end", groups.Goal{At: at(position.End, 0)}, [4]int64{100, left, 20, 40}, [4]string{3: "deleted"}},
		{"before the end", groups.Goal{At: at(position.End, 15)}, [4]int64{85, left, 5, 30}, [4]string{3: "deleted"}},
		{"before the end, without end", groups.Goal{At: at(position.End, math.MaxInt64)}, [4]int64{10, left, 0, 30}, [4]string{3: "deleted"}},
		{"an offset, moved into the log", groups.Goal{At: at(position.Offset, 25)}, [4]int64{25, left, 20, 30}, [4]string{"", "25 is past the end of the log, 5", "past the end of the log, 20", "25 is before the log, which starts at 30"}},
		{"a time, past the last record of some", groups.Goal{At: &position.Point{Kind: position.Time, At: epoch}}, [4]int64{60, left, 20, 40}, [4]string{"", "", "no record is that late: the end", "deleted"}},
		{"some partitions by offset", groups.Goal{At: &position.Point{Kind: position.Each, Offsets: "p0=70,p2=3"}}, [4]int64{70, absent, 3, absent}, [4]string{}},
		{"back", groups.Goal{Shift: -20}, [4]int64{30, left, left, 30}, [4]string{"", "-15 is before the log", "without a commit there is nothing to shift", "before the log"}},
		{"forth", groups.Goal{Shift: 25}, [4]int64{75, left, left, 32}, [4]string{"", "30 is past the end", "nothing to shift", "deleted"}},
		{"forth without end", groups.Goal{Shift: math.MaxInt64}, [4]int64{100, left, left, 40}, [4]string{2: "nothing to shift", 3: "deleted"}},
		{"back without end", groups.Goal{Shift: math.MinInt64}, [4]int64{10, left, left, 30}, [4]string{"before the log", "before the log", "nothing to shift", "before the log"}},
		{"as elsewhere", groups.Goal{Positions: []groups.Position{{Topic: "t", Offset: 40}, {Topic: "t", Partition: 2, Offset: 99}}}, [4]int64{40, absent, 20, absent}, [4]string{2: "99 is past the end"}},
		{"one partition", groups.Goal{At: at(position.End, 0), Partitions: []int32{2}}, [4]int64{absent, absent, 20, absent}, [4]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := groups.Compute(snapshot(), tt.goal)
			if err != nil {
				t.Fatal(err)
			}
			got, notes := [4]int64{absent, absent, absent, absent}, [4]string{}
			for _, m := range p.Moves {
				notes[m.Partition] = m.Note
				if got[m.Partition] = left; m.Left {
					continue
				}
				got[m.Partition] = m.To.Offset
				if m.To.Metadata != bare(t, m.To.Offset) || m.To.Epoch != -1 || m.TopicID != idOfT {
					t.Errorf("partition %d: got %+v", m.Partition, m.To)
				}
			}
			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			for i, n := range notes {
				if !strings.Contains(n, tt.note[i]) || tt.note[i] == "" && n != "" && n != "the partition is empty" {
					t.Errorf("partition %d: got note %q, want %q", i, n, tt.note[i])
				}
			}
		})
	}
}

func TestComputeRefuses(t *testing.T) {
	t.Parallel()
	start := at(position.Start, 0)
	kept := snapshot()
	kept.Group.Partitions[0].Commit = &groups.Commit{Offset: 50, Metadata: groups.KeptElsewhere + "sink orders-pg"}
	bare := snapshot()
	bare.Group.Partitions = bare.Group.Partitions[2:3]
	two := snapshot()
	two.Group.Partitions = append(two.Group.Partitions, groups.Partition{Topic: "u"})
	for _, tt := range []struct {
		name string
		in   groups.Snapshot
		goal groups.Goal
		want error // nil: any
		says string
	}{
		{"no goal", snapshot(), groups.Goal{}, nil, "say one way"},
		{"two goals", snapshot(), groups.Goal{At: start, Shift: 1}, nil, "say one way"},
		{"a position that is kept elsewhere", kept, groups.Goal{At: start}, groups.ErrElsewhere, "by sink orders-pg"},
		{"nothing to shift", bare, groups.Goal{Shift: 5}, groups.ErrNothing, "without a commit"},
		{"positions of other topics", snapshot(), groups.Goal{Positions: []groups.Position{{Topic: "u"}}}, groups.ErrNothing, ""},
		{"a partition that is not there", snapshot(), groups.Goal{At: start, Partitions: []int32{9}}, kerr.UnknownTopicOrPartition, "t partition 9"},
		{"an offset for a partition that is not there", snapshot(), groups.Goal{At: &position.Point{Kind: position.Each, Offsets: "p0=1,p9=1"}}, kerr.UnknownTopicOrPartition, "t partition 9"},
		{"offsets of partitions of which topic?", two, groups.Goal{At: &position.Point{Kind: position.Each, Offsets: "p0=1"}}, nil, "reads 2 topics"},
		{"a position of a partition that is not there", snapshot(), groups.Goal{Positions: []groups.Position{{Topic: "t", Partition: 9}}}, kerr.UnknownTopicOrPartition, "t partition 9"},
		{"a position twice", snapshot(), groups.Goal{Positions: []groups.Position{{Topic: "t"}, {Topic: "t"}}}, nil, "two positions"},
		{"a negative position", snapshot(), groups.Goal{Positions: []groups.Position{{Topic: "t", Offset: -1}}}, nil, "never negative"},
		{"an undo from another cluster", snapshot(), groups.Goal{Undo: &groups.Plan{ClusterID: "d", Group: "g"}}, groups.ErrCluster, "cluster d"},
		{"an undo of another group", snapshot(), groups.Goal{Undo: &groups.Plan{ClusterID: "c", Group: "h"}}, nil, "group h"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := groups.Compute(tt.in, tt.goal)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v (%+v), want %v: %s", err, p, tt.want, tt.says)
			}
		})
	}
}

// Whatever the log looks like and is asked for, a target lies in the log.
func TestComputeStaysInTheLog(t *testing.T) {
	t.Parallel()
	for _, start := range []int64{0, 7, 100} {
		for _, size := range []int64{0, 1, 50} {
			for _, n := range []int64{0, 1, 7, 8, 60, 107, math.MaxInt64} {
				s := snapshot()
				s.Group.Partitions = []groups.Partition{{Topic: "t", Start: start, End: start + size, Commit: committed(3)}}
				goals := []groups.Goal{{Positions: []groups.Position{{Topic: "t", Offset: n}}}}
				for _, kind := range []position.Kind{position.Start, position.End, position.Offset, position.Time} {
					goals = append(goals, groups.Goal{At: at(kind, n)})
				}
				if n != 0 {
					goals = append(goals, groups.Goal{Shift: n}, groups.Goal{Shift: -n})
				}
				for _, g := range goals {
					p, err := groups.Compute(s, g)
					if err != nil {
						t.Fatal(err)
					}
					if to := p.Moves[0].To.Offset; !p.Moves[0].Left && (to < start || to > start+size) {
						t.Errorf("%+v of %d to %d: got %d", g, start, start+size, to)
					}
				}
			}
		}
	}
}

// A cursor with deferred records is more than its offset: it is taken along as a whole, and given up only with a word.
func TestComputeKnowsCursors(t *testing.T) {
	t.Parallel()
	open := cursor.Cursor{Position: 50, Epoch: -1, Floor: 40, Open: []cursor.Open{{Offset: 40, Attempt: 1, First: epoch, Due: epoch}}}
	meta, _, err := cursor.Encode(open, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot()
	s.Group.Partitions[0].Commit = &groups.Commit{Offset: 50, Metadata: meta, Cursor: &open}
	p, err := groups.Compute(s, groups.Goal{At: at(position.Offset, 50), Partitions: []int32{0}})
	if err != nil {
		t.Fatal(err)
	}
	if m := p.Moves[0]; m.Left || m.To.Metadata != bare(t, 50) || !strings.Contains(m.Note, "its 1 deferred records are forgotten: the oldest is 40") {
		t.Errorf("to its own offset: got %+v", m)
	}
	p, err = groups.Compute(snapshot(), groups.Goal{Positions: []groups.Position{{Topic: "t", Offset: 50, Metadata: meta}}})
	if err != nil {
		t.Fatal(err)
	}
	if m := p.Moves[0]; m.Left || m.To.Metadata != meta {
		t.Errorf("of another group: got %+v", m)
	}
	p, err = groups.Compute(snapshot(), groups.Goal{Positions: []groups.Position{{Topic: "t", Offset: 51, Metadata: meta}}})
	if err != nil {
		t.Fatal(err)
	}
	if m := p.Moves[0]; m.To.Metadata != bare(t, 51) {
		t.Errorf("metadata of another offset is not believed: got %+v", m)
	}
}

func TestPlanSurvivesJSON(t *testing.T) {
	t.Parallel()
	p, err := groups.Compute(snapshot(), groups.Goal{At: at(position.Start, 0)})
	if err != nil {
		t.Fatal(err)
	}
	p.Moves[0].From.Time = &epoch
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back groups.Plan
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != string(text) {
		t.Errorf("got %s, want %s", again, text)
	}
	if d, ok := back.Moves[0].Delta(); d != -40 || !ok {
		t.Errorf("got a delta of %d", d)
	}
	later := epoch.Add(-time.Hour)
	back.Moves[0].To.Time = &later
	if d, ok := back.Moves[0].Span(); d != -time.Hour || !ok {
		t.Errorf("got a span of %s", d)
	}
	if _, ok := back.Moves[2].Delta(); ok {
		t.Error("from no commit there is no delta")
	}
}
