package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
)

// commits makes a group that stands at the offsets of the topic t, by partition.
func (w *world) commits(t *testing.T, group, metadata string, at ...int64) {
	t.Helper()
	os := kadm.Offsets{}
	for p, o := range at {
		os.Add(kadm.Offset{Topic: "t", Partition: int32(p), At: o, LeaderEpoch: -1, Metadata: metadata})
	}
	if err := w.admin.CommitAllOffsets(t.Context(), group, os); err != nil {
		t.Fatal(err)
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	has(t, "stderr", w.want(t, codeDone, "groups", "ls").err, "no groups yet")
	has(t, "stderr", w.want(t, codeDone, "groups", "lag").err, "no groups yet")
	if _, err := w.admin.CreateTopic(t.Context(), 2, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	for range 1200 {
		w.client.Produce(t.Context(), &kgo.Record{Topic: "t", Timestamp: time.Now().Add(-90 * time.Minute), Value: []byte("x")}, nil)
	}
	if err := w.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	due := time.Now()
	meta, _, err := cursor.Encode(cursor.Cursor{Position: 10, Epoch: -1, Floor: 7, Open: []cursor.Open{{Offset: 7, Attempt: 1, First: due, Due: due}}}, 4096)
	if err != nil {
		t.Fatal(err)
	}
	w.commits(t, "shipping", meta, 10)
	w.commits(t, "audit", "", 1200, 0)

	r := w.want(t, codeDone, "groups", "ls")
	if want := "GROUP      STATE   TYPE\naudit      Empty   classic\nshipping   Empty   classic\n"; r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	r = w.want(t, codeDone, "groups", "lag")
	want := `GROUP      STATE   MEMBERS   LAG     BEHIND   PARTITIONS   WITHOUT-COMMIT   OPEN
audit      Empty   0         0       0s       2            0                0
shipping   Empty   0         1,190   1h30m    2            1                1
`
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	r = w.want(t, codeDone, "groups", "describe", "shipping")
	want = `shipping: empty, 0 members, 1,190 messages behind in 2 partitions, 1 without a commit

TOPIC   PARTITION   COMMITTED   END    LAG    BEHIND   OPEN   OLDEST-OPEN   MEMBER   HOST
t       0           10          1200   1190   1h30m    1      7             -        -
t       1           -           0      -      -        -      -             -        -
`
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	r = w.want(t, codeDone, "groups", "describe", "shipping", "audit", "-o", "jsonl")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	var first, second map[string]any
	if len(lines) != 4 || json.Unmarshal([]byte(lines[0]), &first) != nil || json.Unmarshal([]byte(lines[1]), &second) != nil {
		t.Fatalf("got %s", r.out)
	}
	if first["lag"] != 1190.0 || first["floor"] != 7.0 || first["behind_seconds"] == nil {
		t.Errorf("got %s", lines[0])
	}
	if _, there := second["lag"]; there || second["committed"] != nil {
		t.Errorf("without a commit there is no lag: %s", lines[1])
	}
}
