package groups_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

// stands are the commits of a group as the coordinator has them, to the byte.
func stands(t *testing.T, adm *kadm.Client, group string) []kadm.Offset {
	t.Helper()
	fetched, err := adm.FetchOffsets(t.Context(), group)
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

func newPlan(t *testing.T, c kafka.Cluster, group string, g groups.Goal) groups.Plan {
	t.Helper()
	p, err := groups.NewPlan(t.Context(), c, group, g, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func apply(t *testing.T, c kafka.Cluster, p groups.Plan, b groups.Backups) []groups.Move {
	t.Helper()
	made, err := groups.Apply(t.Context(), c, p, b)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// seed makes the group g, with a commit that has epoch and metadata on partition 0, a bare one on 2, and none on 1.
func seed(t *testing.T, adm *kadm.Client) {
	t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: "t", Partition: 0, At: 4, LeaderEpoch: 2, Metadata: "written by somebody"})
	os.Add(kadm.Offset{Topic: "t", Partition: 2, At: 0, LeaderEpoch: -1})
	if err := adm.CommitAllOffsets(t.Context(), "g", os); err != nil {
		t.Fatal(err)
	}
}

func TestPlanApplyUndo(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	seed(t, adm)
	before := stands(t, adm, "g")
	b := groups.Backups{Dir: t.TempDir()}

	p := newPlan(t, c, "g", groups.Goal{At: &position.Point{Kind: position.Time, At: epoch.Add(3 * time.Second)}})
	if len(p.Moves) != 3 || p.State != "Empty" || p.ClusterID == "" || !p.Created.Equal(epoch) {
		t.Fatalf("got %+v", p)
	}
	m := p.Moves[0]
	if d, ok := m.Delta(); d != -1 || !ok {
		t.Errorf("got a delta of %d", d)
	}
	if d, ok := m.Span(); d != -time.Second || !ok {
		t.Errorf("got a span of %s, %v", d, ok)
	}
	if p.Moves[1].From != nil || p.Moves[1].To.Offset != 3 || !p.Moves[2].Left {
		t.Errorf("got %+v", p.Moves)
	}
	if !slices.Equal(stands(t, adm, "g"), before) {
		t.Fatal("a plan changed something")
	}
	if made := apply(t, c, p, b); len(made) != 2 {
		t.Errorf("made %+v", made)
	}
	want := []kadm.Offset{
		{Topic: "t", Partition: 0, At: 3, LeaderEpoch: -1, Metadata: bare(t, 3)},
		{Topic: "t", Partition: 1, At: 3, LeaderEpoch: -1, Metadata: bare(t, 3)},
		{Topic: "t", Partition: 2, At: 0, LeaderEpoch: -1},
	}
	after := stands(t, adm, "g")
	if !slices.Equal(after, want) {
		t.Errorf("got %+v, want %+v", after, want)
	}
	if cur := describe(t, c, "g").Partitions[0].Commit.Cursor; cur == nil || cur.Floor != 3 {
		t.Errorf("a Millrace consumer takes the commit for a stranger's: got %+v", cur)
	}
	if p := newPlan(t, c, "g", groups.Goal{At: &position.Point{Kind: position.Time, At: epoch.Add(3 * time.Second)}}); len(p.Changes()) != 0 {
		t.Errorf("a plan made after it was applied is empty: got %+v", p.Changes())
	}

	last, file, err := b.Latest(p.ClusterID, "g")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	undo := newPlan(t, c, "g", groups.Goal{Undo: &last})
	apply(t, c, undo, b)
	if got := stands(t, adm, "g"); !slices.Equal(got, before) {
		t.Errorf("undo: got %+v, want %+v", got, before)
	}

	last, _, err = b.Latest(p.ClusterID, "g")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, c, newPlan(t, c, "g", groups.Goal{Undo: &last}), b)
	if got := stands(t, adm, "g"); !slices.Equal(got, after) {
		t.Errorf("undo of undo: got %+v, want %+v", got, after)
	}
}

// Undo restores a commit to the byte, though the log no longer reaches back to it, and the deferred records in its metadata.
func TestUndoRestoresWhatHasExpired(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	meta, _, err := cursor.Encode(cursor.Cursor{Position: 2, Epoch: -1, Floor: 1, Open: []cursor.Open{{Offset: 1, Attempt: 1, First: epoch, Due: epoch}}}, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, adm, "g", map[int32]int64{0: 2}, meta)
	before := stands(t, adm, "g")
	b := groups.Backups{Dir: t.TempDir()}
	p := newPlan(t, c, "g", groups.Goal{At: at(position.Offset, 8), Partitions: []int32{0}})
	apply(t, c, p, b)
	del := kadm.Offsets{}
	del.AddOffset("t", 0, 5, -1)
	if _, err := adm.DeleteRecords(t.Context(), del); err != nil {
		t.Fatal(err)
	}
	last, _, err := b.Latest(p.ClusterID, "g")
	if err != nil {
		t.Fatal(err)
	}
	undo := newPlan(t, c, "g", groups.Goal{Undo: &last})
	if !strings.Contains(undo.Moves[0].Note, "the log starts at 5 now") {
		t.Errorf("got %+v", undo.Moves[0])
	}
	apply(t, c, undo, b)
	if got := stands(t, adm, "g"); !slices.Equal(got, before) {
		t.Errorf("got %+v, want %+v", got, before)
	}
}

// A group may be set up before its first member starts, and undoing that leaves nothing behind.
func TestGroupThatDoesNotExistYet(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	if _, err := groups.NewPlan(t.Context(), c, "new", groups.Goal{At: at(position.End, 0)}, epoch); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("without topics: got %v", err)
	}
	b := groups.Backups{Dir: t.TempDir()}
	p := newPlan(t, c, "new", groups.Goal{At: at(position.End, 0), Topics: []string{"t"}})
	if made := apply(t, c, p, b); len(made) != 3 {
		t.Errorf("made %+v", made)
	}
	last, _, err := b.Latest(p.ClusterID, "new")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, c, newPlan(t, c, "new", groups.Goal{Undo: &last}), b)
	if got := stands(t, adm, "new"); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestExportAndAnotherGroup(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	seed(t, adm)
	e, err := groups.NewExport(t.Context(), c, "g", epoch)
	if err != nil || len(e.Positions) != 2 {
		t.Fatalf("got %+v, %v", e, err)
	}
	goal, err := e.Goal(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	p := newPlan(t, c, "h", goal)
	if made := apply(t, c, p, groups.Backups{Dir: t.TempDir()}); len(made) != 2 || made[0].To.Offset != 4 || made[0].To.Metadata != bare(t, 4) {
		t.Errorf("made %+v", made)
	}
	e.ClusterID = "elsewhere"
	if _, err := e.Goal(t.Context(), c); !errors.Is(err, groups.ErrCluster) {
		t.Errorf("of another cluster: got %v", err)
	}
	if _, err := (groups.Export{}).Goal(t.Context(), c); err == nil {
		t.Error("an empty file is no export")
	}
}

// join makes a member of the group g, that stays until the test ends or leave is called.
func join(t *testing.T, c kafka.Cluster, opts ...kgo.Opt) (leave func()) {
	t.Helper()
	assigned := make(chan struct{})
	client, err := c.Client(append(opts, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { close(assigned) }))...)
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
	return client.Close
}

// onceMore is a client that remembers no topic's id.
func onceMore(t *testing.T, c kafka.Cluster) *kadm.Client {
	t.Helper()
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// scene is what happens between plan and apply: it may change the plan, and the cluster that it is applied to.
type scene struct {
	t    *testing.T
	c    kafka.Cluster
	adm  *kadm.Client
	plan groups.Plan
}

// What must not be applied changes nothing, to the byte, and leaves no backup.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	toEnd := groups.Goal{At: at(position.End, 0)}
	for _, tt := range []struct {
		name    string
		between func(s *scene)
		want    error
		says    string
	}{
		{"an active group", func(s *scene) {
			join(s.t, s.c)
		}, groups.ErrActive, "1 members"},
		{"an active group of the new protocol", func(s *scene) {
			join(s.t, s.c, kgo.ServerSideBalancer())
		}, groups.ErrActive, "1 members"},
		{"a plan of an active group", func(s *scene) {
			leave := join(s.t, s.c)
			s.plan = newPlan(s.t, s.c, "g", toEnd)
			leave()
		}, groups.ErrChanged, "while the group was active"},
		{"another cluster", func(s *scene) {
			s.plan.ClusterID = "other"
		}, groups.ErrCluster, "cluster other"},
		{"a read-only cluster", func(s *scene) {
			s.c.ReadOnly = true
		}, kafka.ErrReadOnly, ""},
		{"an offset that moved", func(s *scene) {
			commit(s.t, s.adm, "g", map[int32]int64{0: 5}, "written by somebody")
		}, groups.ErrChanged, "is at 5, and was at 4"},
		{"metadata that changed", func(s *scene) {
			commit(s.t, s.adm, "g", map[int32]int64{0: 4}, "written by somebody else")
		}, groups.ErrChanged, ""},
		{"a commit where there was none", func(s *scene) {
			commit(s.t, s.adm, "g", map[int32]int64{1: 0}, "")
		}, groups.ErrChanged, "was at no commit"},
		{"commits that expired", func(s *scene) {
			if _, err := s.adm.DeleteGroups(s.t.Context(), "g"); err != nil {
				s.t.Fatal(err)
			}
		}, groups.ErrChanged, "is at no commit"},
		{"a topic that was created again", func(s *scene) {
			if _, err := s.adm.DeleteTopics(s.t.Context(), "t"); err != nil {
				s.t.Fatal(err)
			}
			if _, err := s.adm.CreateTopic(s.t.Context(), 3, 1, nil, "t"); err != nil {
				s.t.Fatal(err)
			}
			seed(s.t, onceMore(s.t, s.c))
		}, groups.ErrChanged, "created again"},
		{"a target that was deleted", func(s *scene) {
			s.plan = newPlan(s.t, s.c, "g", groups.Goal{At: at(position.Offset, 1)})
			del := kadm.Offsets{}
			del.AddOffset("t", 0, 6, -1)
			if _, err := s.adm.DeleteRecords(s.t.Context(), del); err != nil {
				s.t.Fatal(err)
			}
		}, groups.ErrChanged, "holds 6 to 10 now"},
		{"a position that is kept elsewhere", func(s *scene) {
			commit(s.t, s.adm, "g", map[int32]int64{1: 2}, groups.KeptElsewhere+"sink pg")
		}, groups.ErrElsewhere, "sink pg"},
		{"a negative target", func(s *scene) {
			s.plan.Moves[0].To.Offset = -1
		}, nil, "offset -1"},
		{"a partition twice", func(s *scene) {
			s.plan.Moves = append(s.plan.Moves, s.plan.Moves[0])
		}, nil, "twice"},
		{"a plan of another version", func(s *scene) {
			s.plan.Millrace = 2
		}, nil, "version 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, adm := newLog(t)
			seed(t, adm)
			s := &scene{t, c, adm, newPlan(t, c, "g", toEnd)}
			tt.between(s)
			adm = onceMore(t, c)
			before := stands(t, adm, "g")
			dir := t.TempDir()
			made, err := groups.Apply(t.Context(), s.c, s.plan, groups.Backups{Dir: dir})
			if err == nil || len(made) != 0 || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v (%+v), want %v: %s", err, made, tt.want, tt.says)
			}
			if after := stands(t, adm, "g"); !slices.Equal(before, after) {
				t.Errorf("before %+v, after %+v", before, after)
			}
			if files := backupFiles(t, dir); len(files) != 0 {
				t.Errorf("a backup of nothing: %v", files)
			}
		})
	}
}

func backupFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Between the last look and the commit a member may come: the coordinator refuses, and so is it reported.
func TestMemberThatComesAtTheLastMoment(t *testing.T) {
	t.Parallel()
	c, adm, fake := newFake(t)
	seed(t, adm)
	p := newPlan(t, c, "g", groups.Goal{At: at(position.End, 0)})
	before := stands(t, adm, "g")
	fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.DropControl()
		fake.SleepControl(func() { join(t, c) })
		return nil, nil, false
	})
	dir := t.TempDir()
	made, err := groups.Apply(t.Context(), c, p, groups.Backups{Dir: dir})
	if !errors.Is(err, groups.ErrActive) || len(made) != 0 {
		t.Errorf("got %v, %+v", err, made)
	}
	if after := stands(t, adm, "g"); !slices.Equal(before, after) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if files := backupFiles(t, dir); len(files) != 0 {
		t.Errorf("a backup of nothing: %v", files)
	}
}

// A partition that is refused does not hide those that are written, and the backup stays.
func TestApplyReportsEachPartition(t *testing.T) {
	t.Parallel()
	c, adm, fake := newFake(t)
	seed(t, adm)
	before := stands(t, adm, "g")
	p := newPlan(t, c, "g", groups.Goal{At: at(position.End, 0)})
	fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		ask, _ := req.(*kmsg.OffsetCommitRequest)
		resp, _ := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		if len(ask.Topics) != 1 || len(ask.Topics[0].Partitions) != 2 {
			return nil, nil, false
		}
		// one is written, by a commit of our own, the other is too large
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = ask.Topics[0].Topic, ask.Topics[0].TopicID
		for _, q := range ask.Topics[0].Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			if rp.Partition = q.Partition; q.Partition == 1 {
				rp.ErrorCode = 12 // offset metadata too large
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	b := groups.Backups{Dir: t.TempDir()}
	made, err := groups.Apply(t.Context(), c, p, b)
	if err == nil || len(made) != 0 {
		t.Fatalf("got %+v, %v", made, err)
	}
	for _, says := range []string{"t partition 0: it was written as 10 and is 4", "t partition 1: OFFSET_METADATA_TOO_LARGE"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %s", err, says)
		}
	}
	if after := stands(t, adm, "g"); !slices.Equal(before, after) {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestMissingPermission(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(3, "t"),
		kfake.Superuser("SCRAM-SHA-512", "admin", "secret"), kfake.User("SCRAM-SHA-512", "looker", "secret",
			kfake.ACL{Resource: kmsg.ACLResourceTypeGroup, Name: "g", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true},
			kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "t", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	admin := kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.SCRAM512("admin", "secret")}
	client, err := admin.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	adm := kadm.NewClient(client)
	seed(t, adm)
	before := stands(t, adm, "g")
	looker := kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.SCRAM512("looker", "secret")}
	p, err := groups.NewPlan(t.Context(), looker, "g", groups.Goal{At: at(position.End, 0)}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if p := newPlan(t, admin, "g", groups.Goal{At: at(position.End, 0), Partitions: []int32{1}}); len(p.Changes()) != 1 {
		t.Errorf("got %+v", p)
	}
	dir := t.TempDir()
	made, err := groups.Apply(t.Context(), looker, p, groups.Backups{Dir: dir})
	if _, denied := errors.AsType[*kafka.PermissionError](err); !denied || len(made) != 0 {
		t.Errorf("got %v, %+v", err, made)
	}
	if after := stands(t, adm, "g"); !slices.Equal(before, after) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if files := backupFiles(t, dir); len(files) != 0 {
		t.Errorf("a backup of nothing: %v", files)
	}
}

func TestUnknownTopic(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	seed(t, adm)
	_, err := groups.NewPlan(t.Context(), c, "g", groups.Goal{At: at(position.End, 0), Topics: []string{"nope"}}, epoch)
	if err == nil || !strings.Contains(err.Error(), "there is no topic nope") {
		t.Errorf("got %v", err)
	}
}

func TestBackups(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	b := groups.Backups{Dir: t.TempDir(), Now: func() time.Time { return epoch }} // a clock that stands
	if _, _, err := b.Latest("c", "g"); !errors.Is(err, groups.ErrNoBackup) {
		t.Errorf("got %v", err)
	}
	const names = "../../etc/passwd"
	var id string
	for i := range int64(60) {
		p := newPlan(t, c, names, groups.Goal{At: at(position.Offset, 1+i%2), Topics: []string{"t"}, Partitions: []int32{0}})
		id = p.ClusterID
		apply(t, c, p, b)
	}
	if got := stands(t, adm, names); len(got) != 1 || got[0].At != 2 {
		t.Errorf("got %+v", got)
	}
	last, file, err := b.Latest(id, names)
	if err != nil || last.Changes()[0].To.Offset != 2 || last.Changes()[0].From.Offset != 1 {
		t.Errorf("got %+v, %v", last, err)
	}
	if n := len(backupFiles(t, b.Dir)); n != 50 {
		t.Errorf("%d backups are kept, want 50", n)
	}
	if err := os.WriteFile(file, []byte(`{"millrace":1,"group":"g","moves":[{"topic":"t","to":{"offset":-1}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Latest(id, names); err == nil {
		t.Error("a damaged backup is believed")
	}
}
