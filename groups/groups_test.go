package groups_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
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
)

var epoch = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// newLog returns a cluster in memory with the topic t: ten records, a second apart, in partition 0, five in 1, and none in 2.
func newLog(t *testing.T) (kafka.Cluster, *kadm.Client) {
	t.Helper()
	c, adm, _ := newFake(t)
	return c, adm
}

// newFake is newLog for a test that meddles with the cluster.
func newFake(t *testing.T) (kafka.Cluster, *kadm.Client, *kfake.Cluster) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(3, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := kafka.Cluster{Seeds: fake.ListenAddrs()}
	client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	for p, n := range []int{10, 5} {
		for i := range n {
			r := &kgo.Record{Topic: "t", Partition: int32(p), Timestamp: epoch.Add(time.Duration(i) * time.Second), Value: []byte("x")}
			if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c, kadm.NewClient(client), fake
}

func commit(t *testing.T, adm *kadm.Client, group string, at map[int32]int64, metadata string) {
	t.Helper()
	os := kadm.Offsets{}
	for p, o := range at {
		os.Add(kadm.Offset{Topic: "t", Partition: p, At: o, LeaderEpoch: -1, Metadata: metadata})
	}
	if err := adm.CommitAllOffsets(t.Context(), group, os); err != nil {
		t.Fatal(err)
	}
}

func describe(t *testing.T, c kafka.Cluster, id string) groups.Group {
	t.Helper()
	gs, err := groups.Describe(t.Context(), c, id)
	if err != nil {
		t.Fatal(err)
	}
	return gs[0]
}

func TestLagIsAbsentWithoutACommitAndNeverNegative(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	commit(t, adm, "g", map[int32]int64{0: 4, 2: 7}, "") // 7 is past the end of an empty partition
	g := describe(t, c, "g")
	type row struct {
		lag int64
		ok  bool
	}
	var got []row
	for _, p := range g.Partitions {
		lag, ok := p.Lag()
		got = append(got, row{lag, ok})
	}
	if want := []row{{6, true}, {0, false}, {0, true}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if want := (groups.Total{Lag: 6, Partitions: 3, Uncommitted: 1}); g.Total() != want {
		t.Errorf("got %+v, want %+v", g.Total(), want)
	}
	if g.State != "Empty" || g.ID != "g" || len(g.Members) != 0 {
		t.Errorf("got %+v", g.Summary)
	}
}

func TestTimeLagIsTheTimestampAtTheCommit(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	commit(t, adm, "g", map[int32]int64{0: 4, 1: 5, 2: 0}, "")
	commit(t, adm, "h", map[int32]int64{0: 4, 1: 1}, "")
	gs, err := groups.Describe(t.Context(), c, "g", "h")
	if err != nil {
		t.Fatal(err)
	}
	got, err := groups.Ages(t.Context(), c, gs, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := map[groups.Key]time.Time{{"g", "t", 0}: epoch.Add(4 * time.Second), {"h", "t", 0}: epoch.Add(4 * time.Second), {"h", "t", 1}: epoch.Add(time.Second)}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for k, at := range want {
		if !got[k].Equal(at) {
			t.Errorf("%v: got %v, want %v", k, got[k], at)
		}
	}
	few, err := groups.Ages(t.Context(), c, gs, 1)
	if _, ok := few[groups.Key{"g", "t", 0}]; err != nil || len(few) != 1 || !ok {
		t.Errorf("with one read allowed, the partition with the most lag is read: got %v, %v", few, err)
	}
}

func TestCommitsOfMillraceAreRecognised(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	meta, _, err := cursor.Encode(cursor.Cursor{
		Position: 8, Epoch: -1, Floor: 3,
		Open: []cursor.Open{{Offset: 3, Lane: 1, Attempt: 1, First: epoch, Due: epoch}, {Offset: 5, Lane: 2, Attempt: 2, First: epoch, Due: epoch}},
	}, 4096)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, adm, "ours", map[int32]int64{0: 8}, meta)
	commit(t, adm, "foreign", map[int32]int64{0: 8}, "written by somebody")
	commit(t, adm, "damaged", map[int32]int64{0: 7}, meta) // another position: the checksum covers it
	p := describe(t, c, "ours").Partitions[0]
	if p.Commit.Cursor == nil || p.Commit.Cursor.Floor != 3 || p.Open() != 2 {
		t.Errorf("ours: got %+v", p.Commit)
	}
	if p := describe(t, c, "foreign").Partitions[0]; p.Commit.Cursor != nil || p.Commit.Damaged || p.Open() != 0 {
		t.Errorf("foreign: got %+v", p.Commit)
	}
	if p := describe(t, c, "damaged").Partitions[0]; p.Commit.Cursor != nil || !p.Commit.Damaged {
		t.Errorf("damaged: got %+v", p.Commit)
	}
}

// The first question about groups finds a new cluster without a coordinator.
func TestANewClusterMakesItsCoordinator(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	var asked atomic.Int32
	fake.ControlKey(int16(kmsg.DescribeGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		if asked.Add(1) > 3 {
			return nil, nil, false
		}
		resp, _ := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
		ask, _ := req.(*kmsg.DescribeGroupsRequest)
		for _, id := range ask.Groups {
			g := kmsg.NewDescribeGroupsResponseGroup()
			g.Group, g.ErrorCode = id, kerr.CoordinatorNotAvailable.Code
			resp.Groups = append(resp.Groups, g)
		}
		return resp, nil, true
	})
	if _, err := groups.Describe(t.Context(), kafka.Cluster{Seeds: fake.ListenAddrs()}, "nobody"); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("got %v after %d questions", err, asked.Load())
	}
}

func TestGroupWithoutMembersAndCommitsIsNotFound(t *testing.T) {
	t.Parallel()
	c, _ := newLog(t)
	if gs, err := groups.Describe(t.Context(), c, "nobody"); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("got %v, %v", gs, err)
	}
}

func TestGoneAndExpired(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	commit(t, adm, "g", map[int32]int64{0: 1}, "")
	del := kadm.Offsets{}
	del.AddOffset("t", 0, 3, -1)
	if _, err := adm.DeleteRecords(t.Context(), del); err != nil {
		t.Fatal(err)
	}
	if p := describe(t, c, "g").Partitions[0]; p.Expired() != 2 || p.Start != 3 {
		t.Errorf("got %+v, expired %d, want 2", p, p.Expired())
	}
	gone := groups.Partition{Topic: "t", Gone: true, Commit: &groups.Commit{Offset: 5}}
	if lag, ok := gone.Lag(); ok || gone.Expired() != 0 {
		t.Errorf("a partition that is gone has no lag: got %d", lag)
	}
}

func TestMembersOfBothProtocols(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			c, _ := newLog(t)
			assigned := make(chan struct{})
			opts := []kgo.Opt{
				kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.InstanceID("one"), kgo.ClientID("tester"),
				kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { close(assigned) }),
			}
			if protocol == "consumer" {
				opts = append(opts, kgo.ServerSideBalancer())
			}
			client, err := c.Client(opts...)
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
			g := describe(t, c, "g")
			if len(g.Members) != 1 || g.Type != protocol || g.Members[0].Instance != "one" || !slices.Equal(g.Members[0].Assigned["t"], []int32{0, 1, 2}) {
				t.Errorf("got %+v", g)
			}
			if len(g.Partitions) != 3 || g.Partitions[0].Member != g.Members[0].ID || g.Total().Uncommitted != 3 {
				t.Errorf("got %+v", g.Partitions)
			}
			list, err := groups.List(t.Context(), c)
			if err != nil || len(list) != 1 || list[0].ID != "g" || list[0].State == "" || list[0].Type != protocol {
				t.Errorf("got %+v, %v", list, err)
			}
		})
	}
}
