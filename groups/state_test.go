package groups_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/groups"
)

// commits are samples ten seconds apart, the last of them at epoch, from pairs of offset and lag.
func commits(pairs ...int64) []groups.Sample {
	n := len(pairs) / 2
	out := make([]groups.Sample, n)
	for i := range out {
		out[i] = groups.Sample{At: epoch.Add(time.Duration(i-n+1) * 10 * time.Second), Offset: pairs[2*i], Lag: pairs[2*i+1]}
	}
	return out
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		window []groups.Sample
		lag    int64
		after  time.Duration // since the last commit
		want   groups.State
	}{
		{"nothing was seen", nil, 5, 0, groups.OK},
		{"caught up", commits(5, 0, 6, 0, 7, 0), 0, 0, groups.OK},
		{"caught up, and quiet for a day", commits(5, 0, 6, 0, 7, 0), 0, 24 * time.Hour, groups.OK},
		{"one commit is too few", commits(5, 9), 9, 0, groups.OK},
		{"two commits are too few", commits(5, 9, 5, 9), 9, 0, groups.OK},
		{"lag falls", commits(5, 9, 10, 7, 15, 5), 5, 0, groups.OK},
		{"lag falls once in between", commits(5, 9, 10, 7, 15, 12), 12, 0, groups.OK},
		{"lag was 0 in the window", commits(5, 9, 14, 0, 15, 9), 9, 0, groups.OK},
		{"fixed, and lag was 0 in the window", commits(5, 0, 5, 1, 5, 2), 3, 0, groups.OK},
		{"moves, lag grows", commits(5, 9, 6, 10, 7, 11, 8, 12, 9, 13, 10, 14), 14, 0, groups.Warn},
		{"moves, lag stays", commits(5, 9, 6, 9, 7, 9, 8, 9, 9, 9, 10, 9), 9, 0, groups.Warn},
		{"moves once, lag stays", commits(5, 9, 5, 9, 5, 9, 5, 9, 5, 9, 6, 9), 9, 0, groups.Warn},
		{"keeps up under load, by chance not falling", commits(5, 4, 30, 5, 55, 5, 80, 6, 105, 7), 7, 0, groups.OK},
		{"fixed, lag stays", commits(5, 9, 5, 9, 5, 9), 9, 0, groups.Stall},
		{"fixed, lag grows", commits(5, 9, 5, 12, 5, 19), 20, 0, groups.Stall},
		{"went back", commits(50, 9, 20, 40, 25, 38), 38, 0, groups.Rewind},
		{"went back and stays", commits(50, 9, 20, 40, 20, 40), 40, 0, groups.Rewind},
		{"went back and stopped", commits(50, 9, 20, 40), 40, time.Hour, groups.Rewind},
		{"went back and has recovered", commits(50, 9, 20, 40, 50, 8), 8, 0, groups.OK},
		{"no commit for longer than the window", commits(5, 9, 6, 9, 7, 9), 30, 31 * time.Second, groups.Stop},
		{"no commit, but not for longer than quiet", commits(5, 9, 6, 9, 7, 9, 8, 9, 9, 9, 10, 9), 30, 29 * time.Second, groups.Warn},
		{"no commit, but not for longer than a long window", commits(5, 9, 5, 9, 5, 9, 5, 9, 5, 9, 5, 9), 30, 49 * time.Second, groups.Stall},
		{"died when it was caught up", commits(5, 0, 6, 0, 7, 0), 30, time.Hour, groups.Stop},
		{"one commit, long ago", commits(5, 9), 9, time.Hour, groups.Stop},
		{"fixed where lag was 0, the window moved on", commits(5, 1, 5, 2, 5, 3), 3, 0, groups.Stall},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := groups.Judge(tt.window, tt.lag, epoch.Add(tt.after), 30*time.Second); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestWorst(t *testing.T) {
	t.Parallel()
	if got := groups.Worst(); got != groups.OK {
		t.Errorf("of none: got %s", got)
	}
	if got := groups.Worst(groups.Warn, groups.Stop, groups.Stall); got != groups.Stop {
		t.Errorf("got %s, want stop", got)
	}
}

// What a tracker is told every ten seconds, and what it makes of it.
func TestTracker(t *testing.T) {
	t.Parallel()
	type look struct {
		commit, end int64
		member      string
	}
	for _, tt := range []struct {
		name  string
		looks []look
		want  []groups.State
	}{
		{"keeps up", []look{{5, 5, "m"}, {9, 9, "m"}, {12, 12, "m"}, {20, 21, "m"}}, []groups.State{"ok", "ok", "ok", "ok"}},
		{"a member that hangs", []look{{5, 9, "m"}, {5, 9, "m"}, {5, 12, "m"}, {9, 12, "m"}}, []groups.State{"ok", "ok", "stall", "ok"}},
		{"nobody is there", []look{{5, 9, ""}, {5, 9, ""}, {5, 9, ""}, {5, 9, ""}, {5, 9, ""}}, []groups.State{"ok", "ok", "ok", "ok", "stop"}},
		{"a replay commits and is no member", []look{{1, 9, ""}, {2, 9, ""}, {3, 9, ""}, {4, 9, ""}}, []groups.State{"ok", "ok", "ok", "ok"}},
		{"too slow", []look{{1, 9, "m"}, {2, 19, "m"}, {3, 29, "m"}, {4, 39, "m"}, {5, 49, "m"}, {6, 59, "m"}}, []groups.State{"ok", "ok", "ok", "ok", "ok", "warn"}},
		{"reset while nobody was there", []look{{8, 9, ""}, {0, 9, ""}}, []groups.State{"ok", "rewind"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := groups.NewTracker(groups.TrackerConfig{Window: 6})
			for i, l := range tt.looks {
				g := groups.Group{Summary: groups.Summary{ID: "g"}, Partitions: []groups.Partition{
					{Topic: "t", End: l.end, Member: l.member, Commit: &groups.Commit{Offset: l.commit}},
					{Topic: "t", Partition: 1, End: 5},
				}}
				got := tr.Observe(epoch.Add(time.Duration(i)*10*time.Second), []groups.Group{g})
				if got["g"] != tt.want[i] || tr.State(groups.Key{Group: "g", Topic: "t"}) != tt.want[i] {
					t.Errorf("look %d: got %s, want %s", i, got["g"], tt.want[i])
				}
			}
			tr.Observe(epoch.Add(time.Hour), nil)
			if got := tr.State(groups.Key{Group: "g", Topic: "t"}); got != groups.OK {
				t.Errorf("a group that is gone is forgotten: got %s", got)
			}
		})
	}
}
