package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/groups"
)

// tenPast is when the last of the records of newShop was published.
var tenPast = time.Date(2026, 11, 22, 9, 10, 0, 0, time.UTC)

// newShop is a world with the topic t: ten records in partition 0, a minute apart, and an empty partition 1; and the group
// shipping at offset 4 of partition 0, with an epoch and metadata, and at 0 of partition 1.
func newShop(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	if _, err := w.admin.CreateTopic(t.Context(), 2, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		r := &kgo.Record{Topic: "t", Timestamp: tenPast.Add(time.Duration(i-9) * time.Minute), Key: []byte{'k', byte('0' + i)}, Value: []byte(`{"n":1}`)}
		if err := w.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: "t", At: 4, LeaderEpoch: 3, Metadata: "written by somebody"})
	os.Add(kadm.Offset{Topic: "t", Partition: 1, At: 0, LeaderEpoch: -1})
	if err := w.admin.CommitAllOffsets(t.Context(), "shipping", os); err != nil {
		t.Fatal(err)
	}
	return w
}

// stands are the commits of shipping as the coordinator has them, to the byte.
func (w *world) stands(t *testing.T) []kadm.Offset {
	t.Helper()
	client, err := w.cluster.Client() // one that remembers no topic's id
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fetched, err := kadm.NewClient(client).FetchOffsets(t.Context(), "shipping")
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		t.Fatal(err)
	}
	var out []kadm.Offset
	for _, o := range fetched.Sorted() {
		o.TopicID = kadm.TopicID{}
		out = append(out, o.Offset)
	}
	return out
}

// at are the offsets of shipping.
func (w *world) at(t *testing.T) []int64 {
	t.Helper()
	var out []int64
	for _, o := range w.stands(t) {
		out = append(out, o.At)
	}
	return out
}

func TestOffsetsPlan(t *testing.T) {
	t.Parallel()
	w := newShop(t)
	before := w.stands(t)
	r := w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--at", "2026-11-22T09:02Z")
	want := `shipping on cluster kfake: empty

TOPIC   PARTITION   NOW   NEW   MESSAGES   TIME    NEXT-RECORD            NOTE
t       0           4     1     -3         -3m0s   2026-11-22 09:02:00Z   -
t       1           0     0     0          -       -                      left alone
`
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	has(t, "stderr", r.err, "from 2026-11-22 09:02:00Z", "1 partition would change")
	r = w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--at", "now")
	has(t, "stdout", r.out, "+6", "end", "no record is that late: the end")
	r = w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--shift", "-9")
	has(t, "stdout", r.out, "-5 is before the log, which starts at 0")
	r = w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--at", "p0=7")
	if strings.Count(r.out, "\n") != 4 {
		t.Errorf("one partition is asked for: got\n%s", r.out)
	}
	r = w.want(t, codeDone, "groups", "offsets", "plan", "shipping", "--at", "offset:4", "--partition", "0")
	has(t, "stderr", r.err, "nothing to change")
	r = w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--at", "end", "-o", "json")
	var p groups.Plan
	if err := json.Unmarshal([]byte(r.out), &p); err != nil || p.Millrace != 1 || p.ClusterID != "kfake" || len(p.Changes()) != 1 || p.Moves[0].From.Metadata != "written by somebody" {
		t.Errorf("got %s, %v", r.out, err)
	}
	if after := w.stands(t); !slices.Equal(before, after) {
		t.Errorf("a plan changed something: %v, %v", before, after)
	}
}

func TestOffsetsApplyAndUndo(t *testing.T) {
	t.Parallel()
	w := newShop(t)
	before := w.stands(t)
	r := w.want(t, codeDone, "groups", "offsets", "apply", "shipping", "--at", "end", "--yes")
	has(t, "stdout", r.out, "t       0           4     10    +6")
	has(t, "stderr", r.err, "1 partition of shipping changed", "millrace groups offsets undo shipping")
	if got := w.at(t); !slices.Equal(got, []int64{10, 0}) {
		t.Errorf("got %v", got)
	}
	files, err := filepath.Glob(filepath.Join(w.env["HOME"], ".local/state/millrace/offsets/*/*/*.json"))
	if err != nil || len(files) != 1 {
		t.Errorf("backups: %v, %v", files, err)
	}
	w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--undo")
	w.want(t, codeDone, "groups", "offsets", "undo", "shipping", "--yes")
	if after := w.stands(t); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}

	plan := w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--at", "start", "-o", "json")
	w.write(t, "plan.json", plan.out)
	w.want(t, codeDone, "groups", "offsets", "apply", "plan.json", "--yes")
	if got := w.at(t); !slices.Equal(got, []int64{0, 0}) {
		t.Errorf("got %v", got)
	}
	w.want(t, codeDone, "groups", "offsets", "undo", "shipping", "--yes", "-o", "jsonl")
	if r := w.run(t, plan.out, "groups", "offsets", "apply", "-", "--yes"); r.code != codeDone {
		t.Errorf("from stdin: exits %d: %s", r.code, r.err)
	}

	export := w.want(t, codeDone, "groups", "offsets", "export", "shipping")
	w.write(t, "shipping.json", export.out)
	w.want(t, codeDone, "groups", "offsets", "apply", "shipping", "--at", "end", "--yes")
	w.want(t, codeDone, "groups", "offsets", "import", "shipping", "shipping.json", "--yes")
	if got := w.at(t); !slices.Equal(got, []int64{0, 0}) {
		t.Errorf("got %v", got)
	}
	w.want(t, codeDone, "groups", "offsets", "apply", "audit", "--like", "shipping", "--yes")
	w.want(t, codeDone, "groups", "offsets", "apply", "shipping", "--shift", "+2", "--yes")
	if got := w.at(t); !slices.Equal(got, []int64{2, 0}) {
		t.Errorf("got %v", got)
	}
	w.want(t, codeDone, "groups", "offsets", "apply", "shipping", "--like", "audit", "--yes")
	if got := w.at(t); !slices.Equal(got, []int64{0, 0}) {
		t.Errorf("got %v", got)
	}
}

// What could hurt is refused or moved into the log, with the exit code that the help says; what is refused changes nothing,
// to the byte.
func TestOffsetsMatrix(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		before string // a command line that is run before
		change func(t *testing.T, w *world)
		args   string
		code   int
		says   string
		want   []int64 // the offsets afterwards; nil: as before
	}{
		{"an active group", "", member, "apply shipping --at end --yes", codeRefused, "the group is active", nil},
		{"an active group, by a plan of before", "plan shipping --at end -o json", member, "apply plan.json --yes", codeRefused, "the group is active", nil},
		{"undo of an active group", "apply shipping --at end --yes", member, "undo shipping --yes", codeRefused, "the group is active", nil},
		{"a plan of an active group", "", member, "plan shipping --at end", codePending, "shipping is active", nil},
		{"the wrong cluster", "plan shipping --at end -o json", func(t *testing.T, w *world) {
			t.Helper()
			w.write(t, "plan.json", strings.ReplaceAll(w.read(t, "plan.json"), `"kfake"`, `"prod"`))
		}, "apply plan.json --yes", codeRefused, "it belongs to another cluster", nil},
		{"a file of another cluster", "export shipping", func(t *testing.T, w *world) {
			t.Helper()
			w.write(t, "plan.json", strings.ReplaceAll(w.read(t, "plan.json"), `"kfake"`, `"prod"`))
		}, "import shipping plan.json --yes", codeRefused, "it belongs to another cluster", nil},
		{"a context of another cluster", "", settings("contexts:\n  prod:\n    brokers: [BROKERS]\n    clusterID: other\n"), "apply shipping --at end --yes -c prod", codeRefused, "another cluster", nil},
		{"read-only", "", nil, "apply shipping --at end --yes --read-only", codeRefused, "read-only", nil},
		{"a read-only context", "", settings("contexts:\n  prod:\n    brokers: [BROKERS]\n    readOnly: true\n"), "apply shipping --at end --yes -c prod", codeRefused, "read-only", nil},
		{"a production context", "", settings("contexts:\n  prod:\n    brokers: [BROKERS]\n    production: true\n"), "apply shipping --at end --yes -c prod", codeRefused, "production", nil},
		{"a production context, named", "", settings("contexts:\n  prod:\n    brokers: [BROKERS]\n    production: true\n"), "apply shipping --at end --yes -c prod --confirm prod", codeDone, "1 partition of shipping changed", []int64{10, 0}},
		{"an empty partition", "", nil, "apply shipping --at offset:3 --partition 1 --topic t --yes", codeDone, "", []int64{4, 0}},
		{"an expired offset", "", expire, "apply shipping --at end-1 --yes", codeDone, "2 offsets were deleted before the group came to them", []int64{9, 0}},
		{"before the log", "", expire, "apply shipping --at offset:1 --yes", codeDone, "1 is before the log, which starts at 6", []int64{6, 0}},
		{"a time after the end", "", nil, "apply shipping --at 2030-01-01 --yes", codeDone, "no record is that late: the end", []int64{10, 0}},
		{"past the end", "", nil, "apply shipping --at offset:99 --yes", codeDone, "99 is past the end of the log, 10", []int64{10, 0}},
		{"far back", "", nil, "apply shipping --shift -99 --yes", codeDone, "-95 is before the log", []int64{0, 0}},
		{"an unknown topic", "", nil, "apply shipping --at end --topic nope --yes", codeFailed, "there is no topic nope", nil},
		{"an unknown group", "", nil, "apply nobody --at end --yes", codeFailed, "no such group", nil},
		{"an unknown partition", "", nil, "apply shipping --at end --partition 9 --yes", codeFailed, "there is no t partition 9", nil},
		{"an unknown partition by offset", "", nil, "apply shipping --at p9=1 --yes", codeFailed, "there is no t partition 9", nil},
		{"a plan gone stale", "plan shipping --at end -o json", func(t *testing.T, w *world) {
			t.Helper()
			w.commits(t, "shipping", "", 5)
		}, "apply plan.json --yes", codeRefused, "is at 5, and was at 4", nil},
		{"a topic that was created again", "plan shipping --at end -o json", func(t *testing.T, w *world) {
			t.Helper()
			if _, err := w.admin.DeleteTopics(t.Context(), "t"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.admin.CreateTopic(t.Context(), 2, 1, nil, "t"); err != nil {
				t.Fatal(err)
			}
		}, "apply plan.json --yes", codeRefused, "created again", nil},
		{"no terminal", "", nil, "apply shipping --at end", codeRefused, "no terminal to confirm on", nil},
		{"no terminal for a plan", "plan shipping --at end -o json", nil, "apply plan.json", codeRefused, "no terminal to confirm on", nil},
		{"no terminal for an undo", "apply shipping --at end --yes", nil, "undo shipping", codeRefused, "no terminal to confirm on", nil},
		{"nothing to undo", "", nil, "undo shipping --yes", codeFailed, "there is nothing to undo", nil},
		{"a position that is kept elsewhere", "", func(t *testing.T, w *world) {
			t.Helper()
			w.commits(t, "shipping", groups.KeptElsewhere+"sink orders-pg", 4)
		}, "apply shipping --at end --yes", codeRefused, "by sink orders-pg", nil},
		{"nowhere to keep a backup", "", func(_ *testing.T, w *world) { w.env["HOME"] = "" }, "apply shipping --at end --yes", codeRefused, "no directory for a backup", nil},
		{"no goal", "", nil, "plan shipping", codeUsage, "say one way", nil},
		{"two goals", "", nil, "plan shipping --at end --shift 1", codeUsage, "say one way", nil},
		{"no position", "", nil, "plan shipping --at 5", codeUsage, "offset:5", nil},
		{"no such zone", "", nil, "plan shipping --at end --tz Mars", codeUsage, "no such zone", nil},
		{"a negative partition", "", nil, "plan shipping --at end --partition -1", codeUsage, "count from 0", nil},
		{"no plan", "", nil, "apply plan.txt --yes", codeUsage, "there is no file plan.txt", nil},
		{"a file that is no plan", "export shipping", nil, "apply plan.json --yes", codeUsage, "plan.json is no plan", nil},
		{"a plan and a topic", "", nil, "apply plan.json --topic t", codeUsage, "a plan says by itself", nil},
		{"-o raw", "", nil, "plan shipping --at end -o raw", codeUsage, "allowed are", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newShop(t)
			if tt.before != "" {
				r := w.run(t, "", append([]string{"groups", "offsets"}, strings.Fields(tt.before)...)...)
				if r.code != codeDone && r.code != codePending {
					t.Fatalf("%s: exits %d: %s", tt.before, r.code, r.err)
				}
				w.write(t, "plan.json", r.out)
			}
			if tt.change != nil {
				tt.change(t, w)
			}
			before := w.stands(t)
			r := w.want(t, tt.code, append([]string{"groups", "offsets"}, strings.Fields(tt.args)...)...)
			has(t, "output", r.out+r.err, tt.says)
			if strings.Contains(r.out+r.err, "-1 ") && strings.Contains(tt.args, "--at") && tt.code == codeDone {
				t.Errorf("a code of the wire is shown as an offset:\n%s", r.out)
			}
			if tt.want == nil {
				if after := w.stands(t); !slices.Equal(before, after) {
					t.Errorf("before %+v, after %+v", before, after)
				}
			} else if got := w.at(t); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if tt.code != codeDone && tt.code != codePending {
				has(t, "stderr", r.err, "→")
			}
		})
	}
}

func (w *world) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// settings writes the project's file, with the cluster's addresses in place of BROKERS.
func settings(text string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		t.Helper()
		w.write(t, ".millrace.yaml", strings.ReplaceAll(text, "BROKERS", w.env["MILLRACE_BROKERS"]))
	}
}

// member joins the group, and stays until the test ends.
func member(t *testing.T, w *world) {
	t.Helper()
	assigned := make(chan struct{})
	client, err := w.cluster.Client(kgo.ConsumerGroup("shipping"), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { close(assigned) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	go client.PollFetches(t.Context())
	select {
	case <-assigned:
	case <-time.After(20 * time.Second):
		t.Fatal("the member got no partitions")
	}
}

// expire deletes the first six records of partition 0.
func expire(t *testing.T, w *world) {
	t.Helper()
	del := kadm.Offsets{}
	del.AddOffset("t", 0, 6, -1)
	if _, err := w.admin.DeleteRecords(t.Context(), del); err != nil {
		t.Fatal(err)
	}
}

// Ctrl-C ends a watch with the code for it, and until then each look is a line for each group.
func TestLagWatch(t *testing.T) {
	t.Parallel()
	w := newShop(t)
	w.write(t, "topics/t.yaml", "name: t\nowner: team-t\npartitions: 2\n")
	for _, tt := range []struct {
		args, says string
	}{
		{"", "Z shipping status=ok state=Empty members=0 lag=6 behind="},
		{"-o jsonl --owners topics", `"status":"ok"`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			ctx, stop := contextOf(t)
			out, errs := newBuffer(), newBuffer()
			ended := make(chan int, 1)
			go func() {
				ended <- run(ctx, w.app(strings.NewReader(""), out, errs), append([]string{"groups", "lag", "--watch", "--interval", "100ms"}, strings.Fields(tt.args)...))
			}()
			out.await(t, tt.says)
			out.await(t, "shipping")
			for strings.Count(out.String(), "\n") < 3 {
				<-out.written
			}
			stop()
			select {
			case code := <-ended:
				if code != codeInterrupted {
					t.Errorf("exits %d: %s", code, errs.String())
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it does not end")
			}
		})
	}
	has(t, "stdout", w.want(t, codeDone, "groups", "lag", "--owners", "topics").out, "OWNERS", "team-t")
	has(t, "stderr", w.want(t, codeUsage, "groups", "lag", "--watch", "-o", "json").err, "jsonl")
	has(t, "stderr", w.want(t, codeUsage, "groups", "lag", "--watch", "--interval", "1ms").err, "or more")
	has(t, "stderr", w.want(t, codeFailed, "groups", "lag", "nobody", "--watch").err, "no such group")
}

// The screen has room for what it shows, and says what it leaves out.
func TestLagScreen(t *testing.T) {
	t.Parallel()
	a := (&world{}).app(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	a.output = "table"
	var rows []lagRow
	for i := range 50 {
		rows = append(rows, lagRow{Group: "a-group-with-a-name-that-is-longer-than-usual", Status: groups.OK, Lag: int64(i)})
	}
	for _, size := range [][2]int{{80, 24}, {200, 50}, {10, 4}} {
		lines, err := (&lagScreen{app: a}).block(rows, size[0], size[1])
		if err != nil || len(lines) > size[1]-1 {
			t.Errorf("%v: %d lines, %v", size, len(lines), err)
		}
		for _, l := range lines {
			if len([]rune(l)) >= size[0] {
				t.Errorf("%v: too wide: %s", size, l)
			}
		}
	}
	lines, err := (&lagScreen{app: a}).block(rows, 200, 24)
	if err != nil || !strings.Contains(strings.Join(lines, "\n"), "and 31 more") {
		t.Errorf("got %s, %v", strings.Join(lines, "\n"), err)
	}
}
