package cursor_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/cursor"
)

// conform is what every store must do. ids are two cursors of the store that nobody has touched.
func conform(t *testing.T, s cursor.Store, ids [2]cursor.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	claim := func() map[cursor.ID]cursor.Claimed {
		t.Helper()
		got, err := s.Claim(ctx, ids[:])
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			if c, ok := got[id]; !ok || !c.Usable() {
				t.Fatalf("claim %s: %+v, %v", id, c, ok)
			}
		}
		return got
	}
	commit := func(cs map[cursor.ID]cursor.Claimed) map[cursor.ID]error {
		t.Helper()
		refused, err := s.Commit(ctx, cs)
		if err != nil {
			t.Fatal(err)
		}
		return refused
	}

	first := claim()
	for _, id := range ids {
		if !first[id].Fresh {
			t.Errorf("%s is not fresh: %+v", id, first[id])
		}
	}
	want := cursor.Cursor{
		Position: 42, Epoch: 0, Floor: 7, Mark: &cursor.Mark{From: 3, To: 9},
		Open: []cursor.Open{{Offset: 7, Lane: 0xfeed, Attempt: 2, First: time.Unix(1_700_000_000, 0).UTC(), Due: time.Unix(1_700_000_060, 0).UTC()}},
		Done: []cursor.Run{{From: 44, To: 50}},
	}
	refused := commit(map[cursor.ID]cursor.Claimed{ids[0]: {Cursor: want, Lease: first[ids[0]].Lease}})
	if len(refused) > 0 {
		t.Fatalf("refused: %v", refused)
	}
	if refused := commit(nil); len(refused) > 0 {
		t.Errorf("an empty commit was refused: %v", refused)
	}

	second := claim()
	if got := second[ids[0]]; got.Fresh || got.Err != nil || fmt.Sprint(got.Open, got.Done, *got.Mark) != fmt.Sprint(want.Open, want.Done, *want.Mark) ||
		got.Position != 42 || got.Floor != 7 || got.Epoch != 0 {
		t.Errorf("claimed %+v, want %+v", got, want)
	}
	if !second[ids[1]].Fresh {
		t.Errorf("%s was never committed and is not fresh", ids[1])
	}

	// The first lease is old: it writes nothing, while the other partition of the same commit is written.
	old := cursor.Claimed{Cursor: cursor.Cursor{Position: 50}, Lease: first[ids[0]].Lease}
	refused = commit(map[cursor.ID]cursor.Claimed{ids[0]: old, ids[1]: {Cursor: cursor.Cursor{Position: 5}, Lease: second[ids[1]].Lease}})
	if !errors.Is(refused[ids[0]], cursor.ErrFenced) || refused[ids[1]] != nil {
		t.Errorf("refused %v, want %s alone, fenced", refused, ids[0])
	}
	// What does not fit is refused for its partition alone, and the old commit stays.
	big := cursor.Cursor{Position: 5000}
	for i := range int64(1000) {
		big.Open = append(big.Open, cursor.Open{Offset: i, Lane: uint32(i)})
	}
	refused = commit(map[cursor.ID]cursor.Claimed{ids[0]: {Cursor: big, Lease: second[ids[0]].Lease}})
	if !errors.Is(refused[ids[0]], cursor.ErrRoom) {
		t.Errorf("refused %v, want ErrRoom", refused)
	}
	third := claim()
	if third[ids[0]].Position != 42 || third[ids[1]].Position != 5 {
		t.Errorf("claimed %d and %d, want 42 and 5", third[ids[0]].Position, third[ids[1]].Position)
	}
	// Metadata as long as Kafka takes it.
	if room := s.Room(ids[0]); room < cursor.MaxRoom {
		t.Errorf("room for %d bytes, want %d", room, cursor.MaxRoom)
	}
	full := cursor.Cursor{Position: 1 << 40}
	for i := range int64(2000) {
		full.Done = append(full.Done, cursor.Run{From: full.Position + 1 + i*300, To: full.Position + 200 + i*300})
	}
	if refused = commit(map[cursor.ID]cursor.Claimed{ids[0]: {Cursor: full, Lease: third[ids[0]].Lease}}); len(refused) > 0 {
		t.Errorf("a full commit was refused: %v", refused)
	}
	if got := claim()[ids[0]]; got.Position != 1<<40 || len(got.Done) < 500 {
		t.Errorf("claimed position %d and %d runs, want %d and hundreds", got.Position, len(got.Done), int64(1)<<40)
	}

	over, stop := context.WithCancel(ctx)
	stop()
	if _, err := s.Claim(over, ids[:]); !errors.Is(err, context.Canceled) {
		t.Errorf("claim with an ended context: %v", err)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	conform(t, cursor.NewMemory(), [2]cursor.ID{{Reader: "g", Topic: "t"}, {Reader: "g", Topic: "t", Partition: 1}})
}

// member is a group of one with its store.
type member struct {
	store    *cursor.Group
	client   *kgo.Client
	ids      [2]cursor.ID
	assigned chan struct{}
}

func cluster(t *testing.T) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func join(t *testing.T, c *kfake.Cluster) *member {
	t.Helper()
	m := &member{store: cursor.NewGroup("g"), assigned: make(chan struct{}, 10)}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(),
		kgo.OnOffsetsFetched(func(_ context.Context, cl *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
			m.store.Bind(cl)
			m.store.Fetched(resp)
			m.assigned <- struct{}{}
			return nil
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	m.client = client
	select {
	case <-m.assigned:
	case <-time.After(15 * time.Second):
		t.Fatal("no assignment")
	}
	meta, err := kadm.NewClient(client).Metadata(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.ids {
		m.ids[i] = cursor.ID{Reader: "g", Topic: "orders", TopicID: meta.Topics["orders"].ID, Partition: int32(i)}
	}
	return m
}

func TestGroup(t *testing.T) {
	t.Parallel()
	m := join(t, cluster(t))
	conform(t, m.store, m.ids)
}

// A stock client commits its member id as metadata, and an operator's tool commits none.
func TestAStrangersCommitIsToldAndCounts(t *testing.T) {
	t.Parallel()
	m := join(t, cluster(t))
	claimed, err := m.store.Claim(t.Context(), m.ids[:])
	if err != nil {
		t.Fatal(err)
	}
	refused, err := m.store.Commit(t.Context(), map[cursor.ID]cursor.Claimed{
		m.ids[0]: {Cursor: cursor.Cursor{Position: 9}, Lease: claimed[m.ids[0]].Lease},
	})
	if err != nil || len(refused) > 0 {
		t.Fatal(err, refused)
	}
	var failed error
	m.client.CommitOffsetsSync(t.Context(), map[string]map[int32]kgo.EpochOffset{"orders": {0: {Epoch: -1, Offset: 5}}},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
			failed = err
		})
	if failed != nil {
		t.Fatal(failed)
	}
	claimed, err = m.store.Claim(t.Context(), m.ids[:])
	if err != nil {
		t.Fatal(err)
	}
	if c := claimed[m.ids[0]]; !errors.Is(c.Err, cursor.ErrReplaced) || !c.Usable() || c.Position != 5 || c.Fresh {
		t.Errorf("claimed %+v, want the stranger's position 5 and ErrReplaced", c)
	}
	if c := claimed[m.ids[1]]; c.Err != nil || !c.Fresh {
		t.Errorf("claimed %+v, want a fresh one without a word", c)
	}
}

func TestForgottenLeasesCommitNothing(t *testing.T) {
	t.Parallel()
	m := join(t, cluster(t))
	claimed, err := m.store.Claim(t.Context(), m.ids[:])
	if err != nil {
		t.Fatal(err)
	}
	m.store.Forget(m.ids[:1])
	cs := map[cursor.ID]cursor.Claimed{}
	for _, id := range m.ids {
		cs[id] = cursor.Claimed{Cursor: cursor.Cursor{Position: 3}, Lease: claimed[id].Lease}
	}
	refused, err := m.store.Commit(t.Context(), cs)
	if err != nil || !errors.Is(refused[m.ids[0]], cursor.ErrFenced) || refused[m.ids[1]] != nil {
		t.Errorf("refused %v, error %v, want the forgotten one alone", refused, err)
	}
}

func TestPartitionErrorsOfACommit(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		code *kerr.Error
		want error
	}{
		{"the member is not known", kerr.UnknownMemberID, cursor.ErrFenced},
		{"the generation is over", kerr.IllegalGeneration, cursor.ErrFenced},
		{"too large", kerr.OffsetMetadataTooLarge, kerr.OffsetMetadataTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			m := join(t, c)
			claimed, err := m.store.Claim(t.Context(), m.ids[:])
			if err != nil {
				t.Fatal(err)
			}
			c.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
				req, _ := r.(*kmsg.OffsetCommitRequest)
				resp := kmsg.NewPtrOffsetCommitResponse()
				resp.Version = req.Version
				for _, rt := range req.Topics {
					st := kmsg.NewOffsetCommitResponseTopic()
					st.Topic, st.TopicID = rt.Topic, rt.TopicID
					for _, rp := range rt.Partitions {
						sp := kmsg.NewOffsetCommitResponseTopicPartition()
						if sp.Partition = rp.Partition; rp.Partition == 0 {
							sp.ErrorCode = tt.code.Code
						}
						st.Partitions = append(st.Partitions, sp)
					}
					resp.Topics = append(resp.Topics, st)
				}
				return resp, nil, true
			})
			cs := map[cursor.ID]cursor.Claimed{}
			for _, id := range m.ids {
				cs[id] = cursor.Claimed{Cursor: cursor.Cursor{Position: 3}, Lease: claimed[id].Lease}
			}
			refused, err := m.store.Commit(t.Context(), cs)
			if err != nil || len(refused) != 1 || !errors.Is(refused[m.ids[0]], tt.want) || !errors.Is(refused[m.ids[0]], tt.code) {
				t.Errorf("refused %v, error %v, want %v for partition 0 alone", refused, err, tt.want)
			}
		})
	}
}

// A commit without an answer is looked up before anyone goes on: here it was written, and there it was not.
func TestACommitWithoutAnswerIsReadBack(t *testing.T) {
	t.Parallel()
	for _, written := range []bool{true, false} {
		t.Run(fmt.Sprintf("written %v", written), func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			m := join(t, c)
			claimed, err := m.store.Claim(t.Context(), m.ids[:])
			if err != nil {
				t.Fatal(err)
			}
			id := m.ids[0]
			cs := map[cursor.ID]cursor.Claimed{id: {Cursor: cursor.Cursor{Position: 8}, Lease: claimed[id].Lease}}
			if written {
				if _, err := m.store.Commit(t.Context(), cs); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
				cancel() // and the connection is gone
				return nil, errors.New("gone"), true
			})
			refused, err := m.store.Commit(ctx, cs)
			if err != nil {
				t.Fatal(err)
			}
			if got := refused[id]; written && got != nil || !written && !errors.Is(got, cursor.ErrUnknown) {
				t.Errorf("written %v: refused %v", written, got)
			}
		})
	}
}
