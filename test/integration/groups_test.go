package integration_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/internal/kafkatest"
)

// The rows of the matrix of what could hurt that only a real coordinator proves: what is refused leaves offsets, epochs and
// metadata as they were, to the byte, and undo brings them back.
func TestRealOffsets(t *testing.T) {
	t.Parallel()
	s := newShell(t, kafkatest.Plain(t))
	for _, tt := range []struct {
		name string
		do   func(*stand)
	}{
		{"apply and undo, of commits with epochs, metadata and none", (*stand).applyAndUndo},
		{"a group that did not exist", (*stand).newGroup},
		{"members of the classic protocol", func(st *stand) { st.active() }},
		{"members of the new protocol", func(st *stand) { st.active(kgo.ServerSideBalancer()) }},
		{"a member that comes at the last moment", (*stand).lastMoment},
		{"a plan gone stale", (*stand).stale},
		{"a topic that was created again", (*stand).recreated},
		{"records that expired", (*stand).expired},
		{"a time after the end", (*stand).afterTheEnd},
		{"-1 is never committed", (*stand).negative},
		{"no terminal, and read-only", (*stand).unconfirmed},
		{"a group of the new protocol whose members have left", (*stand).leftBehind},
		{"a Millrace consumer takes the commit for its own", (*stand).consumed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.do(newStand(t, s))
		})
	}
}

// stand is a topic with 100 records, a second apart, in partition 0, ten in partition 1 and none in 2, and a group on it.
type stand struct {
	*testing.T
	sh           *shell
	adm          *kadm.Client
	topic, group string
	first        time.Time // when the first record was published
}

func newStand(t *testing.T, s *shell) *stand {
	t.Helper()
	client := kafkatest.Client(t, s.cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	own := *s // steps run side by side: what each types is its own
	own.dir = s.dir
	st := &stand{T: t, sh: &own, adm: kadm.NewClient(client), topic: kafkatest.Topic(t, s.cluster, 3), group: kafkatest.Name(t), first: time.Now().Add(-time.Hour).Truncate(time.Second)}
	own.env = slices.Clone(s.env)
	own.env = append(own.env, "XDG_STATE_HOME="+t.TempDir())
	var records []*kgo.Record
	for p, n := range []int{100, 10} {
		for i := range n {
			records = append(records, &kgo.Record{Topic: st.topic, Partition: int32(p), Timestamp: st.first.Add(time.Duration(i) * time.Second), Value: fmt.Append(nil, i)})
		}
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: st.topic, At: 40, LeaderEpoch: 0, Metadata: "written by somebody, ä"})
	os.Add(kadm.Offset{Topic: st.topic, Partition: 1, At: 10, LeaderEpoch: -1})
	if err := st.adm.CommitAllOffsets(t.Context(), st.group, os); err != nil {
		t.Fatal(err)
	}
	return st
}

// commits are the group's, as the coordinator has them.
func (st *stand) commits() []kadm.Offset {
	st.Helper()
	adm := kadm.NewClient(kafkatest.Client(st.T, st.sh.cluster)) // it remembers no topic's id
	fetched, err := adm.FetchOffsets(st.Context(), st.group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		st.Fatal(err)
	}
	var out []kadm.Offset
	for _, o := range fetched.Sorted() {
		o.TopicID = kadm.TopicID{}
		out = append(out, o.Offset)
	}
	return out
}

func (st *stand) offsets(code int, line string) (stdout, stderr string) {
	st.Helper()
	return st.sh.run(st.T, code, "bin/millrace groups offsets "+line, "")
}

// same fails the test unless the group has these commits.
func (st *stand) same(want []kadm.Offset) {
	st.Helper()
	if got := st.commits(); !slices.Equal(got, want) {
		st.Errorf("got %+v, want %+v", got, want)
	}
}

func (st *stand) says(text string, parts ...string) {
	st.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			st.Errorf("%q is not said:\n%s", p, text)
		}
	}
}

// join makes a member of the group.
func (st *stand) join(opts ...kgo.Opt) *kgo.Client {
	st.Helper()
	assigned := make(chan struct{})
	client := kafkatest.Client(st.T, st.sh.cluster, append(opts, kgo.ConsumerGroup(st.group), kgo.ConsumeTopics(st.topic), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			if len(got) > 0 {
				close(assigned)
			}
		}))...)
	go client.PollFetches(st.Context())
	select {
	case <-assigned:
	case <-time.After(patience):
		st.Fatal("the member got no partitions")
	}
	return client
}

func (st *stand) applyAndUndo() {
	before := st.commits()
	out, _ := st.offsets(3, "plan "+st.group+" --at "+st.first.Add(10*time.Second).UTC().Format(time.RFC3339))
	st.says(out, "-30", "end")
	st.same(before)
	st.offsets(0, "apply "+st.group+" --at "+st.first.Add(10*time.Second).UTC().Format(time.RFC3339)+" --yes")
	after := st.commits()
	var at []int64
	for _, o := range after {
		at = append(at, o.At)
		if !strings.HasPrefix(o.Metadata, "mill:") && o.Partition != 1 {
			st.Errorf("got %+v", o)
		}
	}
	if !slices.Equal(at, []int64{10, 10, 0}) {
		st.Errorf("got %v", at)
	}
	st.offsets(0, "undo "+st.group+" --yes")
	st.same(before)
	st.offsets(0, "undo "+st.group+" --yes")
	st.same(after)
}

func (st *stand) newGroup() {
	st.group += "-new"
	st.offsets(1, "apply "+st.group+" --at end --yes")
	st.offsets(0, "apply "+st.group+" --at end --topic "+st.topic+" --yes")
	if got := st.commits(); len(got) != 3 || got[0].At != 100 || got[1].At != 10 || got[2].At != 0 {
		st.Errorf("got %+v", got)
	}
	st.offsets(0, "undo "+st.group+" --yes")
	st.same(nil)
}

func (st *stand) active(opts ...kgo.Opt) {
	plan, _ := st.offsets(3, "plan "+st.group+" --at end -o json")
	st.sh.write(st.T, st.group+".json", plan)
	st.join(opts...)
	before := st.commits()
	for _, line := range []string{"apply " + st.group + " --at end --yes", "apply " + st.group + ".json --yes"} {
		_, errs := st.offsets(5, line)
		st.says(errs, "the group is active", "→")
		st.same(before)
	}
}

// Between the last look and the commit a member comes: the coordinator refuses.
func (st *stand) lastMoment() {
	before := st.commits()
	st.join()
	details, err := st.adm.ListTopics(st.Context(), st.topic)
	if err != nil {
		st.Fatal(err)
	}
	byID := kadm.OffsetsByID{}
	byID.Add(kadm.Offset{Topic: st.topic, TopicID: details[st.topic].ID, At: 99, LeaderEpoch: -1})
	if err := st.adm.CommitAllOffsetsByID(st.Context(), st.group, byID); !errors.Is(err, kerr.UnknownMemberID) {
		st.Errorf("a commit beside a member: got %v", err)
	}
	st.same(before)
}

func (st *stand) stale() {
	plan, _ := st.offsets(3, "plan "+st.group+" --at end -o json")
	st.sh.write(st.T, st.group+".json", plan)
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: st.topic, At: 41, LeaderEpoch: -1})
	if err := st.adm.CommitAllOffsets(st.Context(), st.group, os); err != nil {
		st.Fatal(err)
	}
	before := st.commits()
	_, errs := st.offsets(5, "apply "+st.group+".json --yes")
	st.says(errs, "is at 41, and was at 40")
	st.same(before)
}

// A commit by name would store the offset on the new, empty topic.
func (st *stand) recreated() {
	plan, _ := st.offsets(3, "plan "+st.group+" --at end -o json")
	st.sh.write(st.T, st.group+".json", plan)
	if _, err := st.adm.DeleteTopics(st.Context(), st.topic); err != nil {
		st.Fatal(err)
	}
	create := func() error { _, err := st.adm.CreateTopic(st.Context(), 3, 1, nil, st.topic); return err }
	deadline := time.Now().Add(patience)
	for err := create(); err != nil; err = create() {
		if !errors.Is(err, kerr.TopicAlreadyExists) || time.Now().After(deadline) {
			st.Fatal(err)
		}
	}
	before := st.commits()
	_, errs := st.offsets(5, "apply "+st.group+".json --yes")
	st.says(errs, "plan again")
	st.same(before)

	var p groups.Plan
	if err := json.Unmarshal([]byte(plan), &p); err != nil {
		st.Fatal(err)
	}
	old := kadm.OffsetsByID{}
	raw, err := base64.RawURLEncoding.DecodeString(string(p.Moves[0].TopicID))
	if err != nil {
		st.Fatal(err)
	}
	old.Add(kadm.Offset{Topic: st.topic, TopicID: kadm.TopicID(raw), At: 100, LeaderEpoch: -1})
	if err := st.adm.CommitAllOffsetsByID(st.Context(), st.group, old); err == nil {
		st.Error("a commit for the old topic is taken")
	}
	st.same(before)
}

func (st *stand) expired() {
	before := st.commits()
	del := kadm.Offsets{}
	del.AddOffset(st.topic, 0, 60, -1)
	if _, err := st.adm.DeleteRecords(st.Context(), del); err != nil {
		st.Fatal(err)
	}
	out, _ := st.offsets(0, "apply "+st.group+" --at offset:5 --partition 0 --yes")
	st.says(out, "5 is before the log, which starts at 60", "20 offsets were deleted before the group came to them")
	if got := st.commits(); got[0].At != 60 {
		st.Errorf("got %+v", got)
	}
	st.offsets(0, "undo "+st.group+" --yes") // exactly, though the log no longer reaches there
	st.same(before)
}

func (st *stand) afterTheEnd() {
	out, _ := st.offsets(0, "apply "+st.group+" --at 2099-01-01 --yes")
	st.says(out, "no record is that late: the end")
	if got := st.commits(); len(got) != 3 || got[0].At != 100 || got[1].At != 10 || got[2].At != 0 {
		st.Errorf("got %+v", got)
	}
}

// What kafkactl commits for a time after the end, and what it does: the position is gone.
func (st *stand) negative() {
	plan, _ := st.offsets(3, "plan "+st.group+" --at end -o json")
	st.sh.write(st.T, st.group+".json", strings.Replace(plan, `"offset": 100`, `"offset": -1`, 1))
	before := st.commits()
	st.offsets(1, "apply "+st.group+".json --yes")
	st.same(before)
	for _, n := range []int64{1, 1000, math.MaxInt64} {
		st.offsets(0, fmt.Sprintf("apply %s --shift -%d --partition 0 --yes", st.group, n))
		if at := st.commits()[0].At; at < 0 {
			st.Errorf("shifted back by %d: at %d", n, at)
		}
	}
}

func (st *stand) unconfirmed() {
	before := st.commits()
	st.offsets(5, "apply "+st.group+" --at end")
	st.offsets(5, "apply "+st.group+" --at end --yes --read-only")
	st.offsets(1, "undo "+st.group+" --yes")
	st.same(before)
}

func (st *stand) leftBehind() {
	st.group += "-new"
	client := st.join(kgo.ServerSideBalancer())
	var failed error
	client.CommitOffsetsSync(st.Context(), map[string]map[int32]kgo.EpochOffset{st.topic: {0: {Epoch: 0, Offset: 7}}},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
			failed = err
		})
	if failed != nil {
		st.Fatal(failed)
	}
	client.Close()
	deadline := time.Now().Add(patience)
	for {
		gs, err := groups.Describe(st.Context(), st.sh.cluster, st.group)
		if err != nil || time.Now().After(deadline) {
			st.Fatalf("the member does not leave: %v", err)
		}
		if len(gs[0].Members) == 0 {
			break
		}
	}
	before := st.commits()
	out, _ := st.offsets(0, "apply "+st.group+" --at end --topic "+st.topic+" --yes")
	st.says(out, "+93")
	if got := st.commits(); len(got) != 3 || got[0].At != 100 {
		st.Errorf("got %+v", got)
	}
	st.offsets(0, "undo "+st.group+" --yes")
	st.same(before)
}

func (st *stand) consumed() {
	st.offsets(0, "apply "+st.group+" --at start --yes")
	details, err := st.adm.ListTopics(st.Context(), st.topic)
	if err != nil {
		st.Fatal(err)
	}
	store := cursor.NewGroup(st.group)
	store.Bind(kafkatest.Client(st.T, st.sh.cluster))
	var ids []cursor.ID
	for p := range int32(2) {
		ids = append(ids, cursor.ID{Reader: st.group, Topic: st.topic, TopicID: details[st.topic].ID, Partition: p})
	}
	claimed, err := store.Claim(st.Context(), ids)
	if err != nil {
		st.Fatal(err)
	}
	for id, c := range claimed {
		if c.Err != nil || c.Fresh || c.Position != 0 || c.Floor != 0 {
			st.Errorf("%s: got %+v", id, c)
		}
	}
}
