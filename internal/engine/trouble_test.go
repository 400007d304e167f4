package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

// brokers is a cluster in this process that the test may break, with a topic "orders" of four partitions.
func brokers(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, kafka.Cluster, *kgo.Client) {
	t.Helper()
	fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(4, "orders")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := kafka.Cluster{Seeds: fake.ListenAddrs()}
	client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return fake, c, client
}

// everywhere reports whether all four partitions are committed at offset n.
func everywhere(t *testing.T, client *kgo.Client, n int64) func() bool {
	t.Helper()
	return func() bool {
		got := committed(t, client)
		return got[0] == n && got[1] == n && got[2] == n && got[3] == n
	}
}

// What a coordinator says while it moves, loads or has forgotten the member: the member goes on, or joins again,
// and nothing is lost or committed wrongly.
func TestTheCoordinatorsTroublesPass(t *testing.T) {
	t.Parallel()
	tests := []struct {
		key  kmsg.Key
		errs []*kerr.Error
	}{
		{kmsg.Heartbeat, []*kerr.Error{kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress}},
		{kmsg.OffsetCommit, []*kerr.Error{kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress}},
		{kmsg.OffsetFetch, []*kerr.Error{kerr.UnstableOffsetCommit, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.UnknownServerError}},
		{kmsg.JoinGroup, []*kerr.Error{kerr.UnknownMemberID, kerr.NotCoordinator, kerr.GroupMaxSizeReached, kerr.RebalanceInProgress}},
		{kmsg.SyncGroup, []*kerr.Error{kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.NotCoordinator}},
		{kmsg.ConsumerGroupHeartbeat, []*kerr.Error{kerr.FencedMemberEpoch, kerr.UnknownMemberID, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress}},
	}
	for _, tt := range tests {
		for _, code := range tt.errs {
			t.Run(tt.key.Name()+" "+code.Message, func(t *testing.T) {
				t.Parallel()
				fake, c, client := brokers(t)
				log := produce(t, client, 50)
				j := &journal{}
				server := tt.key == kmsg.ConsumerGroupHeartbeat
				early := tt.key == kmsg.JoinGroup || tt.key == kmsg.SyncGroup || tt.key == kmsg.OffsetFetch
				fault := kfake.Fault{Keys: []kmsg.Key{tt.key}, TopLevel: tt.key != kmsg.OffsetCommit && tt.key != kmsg.OffsetFetch, Err: code}
				if fault.TopLevel || tt.key == kmsg.OffsetFetch {
					fault.Group = "g"
				}
				var hit *kfake.FaultHandle
				if early {
					hit = fake.Fault(fault)
				}
				m := run(t, c, j, "a", handler{j: j, member: "a"}, engine.Config{}, engine.GroupConfig{ServerAssign: server, SessionTimeout: 6 * time.Second})
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if !early {
					until(t, "all is committed", everywhere(t, client, 50))
					hit = fake.Fault(fault)
				}
				log = append(log, produce(t, client, 50)...)
				if err := hit.Wait(ctx, 1); err != nil {
					t.Fatal(err)
				}
				until(t, "the rest is committed as well", everywhere(t, client, 100))
				m.stop(t)
				j.mustBeClean(t, log)
			})
		}
	}
}

// Leaders and coordinators move while records flow. The broker in memory takes an epoch without records for a log that
// was cut, so records come again here; none may be missing.
func TestLeadersAndCoordinatorsMove(t *testing.T) {
	t.Parallel()
	for _, server := range []bool{false, true} {
		t.Run(fmt.Sprintf("server %v", server), func(t *testing.T) {
			t.Parallel()
			fake, c, client := brokers(t, kfake.NumBrokers(3))
			j := &journal{}
			m := run(t, c, j, "a", handler{j: j, member: "a"}, engine.Config{}, engine.GroupConfig{ServerAssign: server})
			var log []*kgo.Record
			for round := range int64(3) {
				log = append(log, produce(t, client, 50)...)
				node := int32(round)
				for p := range int32(4) {
					if err := fake.MoveTopicPartition("orders", p, (node+1+p%2)%3); err != nil {
						t.Fatal(err)
					}
				}
				fake.RehashCoordinators()
				log = append(log, produce(t, client, 50)...)
				until(t, "all is committed", everywhere(t, client, 100*(round+1)))
			}
			m.stop(t)
			j.mustBeClean(t, log)
		})
	}
}

// Another process runs with this one's InstanceID: this one must end and say so.
func TestAFencedInstanceEndsRun(t *testing.T) {
	t.Parallel()
	_, c, _ := brokers(t)
	j := &journal{}
	a := run(t, c, j, "a", handler{j: j}, engine.Config{}, engine.GroupConfig{InstanceID: "shipping-0"})
	until(t, "a has its partitions", func() bool { return j.count("assigned") >= 4 })
	b := run(t, c, j, "b", handler{j: j}, engine.Config{}, engine.GroupConfig{InstanceID: "shipping-0"})
	select {
	case <-a.done:
	case <-time.After(patience):
		t.Fatal("the fenced member goes on")
	}
	if !errors.Is(a.err, kerr.FencedInstanceID) || !strings.Contains(fmt.Sprint(a.err), "shipping-0") {
		t.Errorf("got %v, want FENCED_INSTANCE_ID and which", a.err)
	}
	b.stop(t)
}

// A static member that is stopped and started again keeps its partitions, and nobody else hears of it.
func TestAStaticMemberComesBack(t *testing.T) {
	t.Parallel()
	for _, server := range []bool{false, true} {
		t.Run(fmt.Sprintf("server %v", server), func(t *testing.T) {
			t.Parallel()
			fake, c, client := brokers(t)
			log := produce(t, client, 50)
			j := &journal{}
			gcfg := engine.GroupConfig{SessionTimeout: 20 * time.Second, ServerAssign: server}
			named := func(name string) engine.GroupConfig {
				g := gcfg
				g.InstanceID = name
				return g
			}
			a := run(t, c, j, "a", handler{j: j, member: "a"}, engine.Config{}, named("i-0"))
			b := run(t, c, j, "b", handler{j: j, member: "b"}, engine.Config{}, named("i-1"))
			until(t, "both have partitions", func() bool {
				g := fake.GroupInfo("g")
				return g != nil && len(g.Members) == 2 && g.Members[0].NumAssigned() == 2 && g.Members[1].NumAssigned() == 2 && everywhere(t, client, 50)()
			})
			a.stop(t)
			if n := len(fake.GroupInfo("g").Members); n != 2 {
				t.Fatalf("%d members after the stop, want 2: a static one does not leave", n)
			}
			assigned := j.count("assigned")
			a = run(t, c, j, "a2", handler{j: j, member: "a2"}, engine.Config{}, named("i-0"))
			log = append(log, produce(t, client, 50)...)
			until(t, "all is committed", everywhere(t, client, 100))
			if n := j.count("assigned") - assigned; n != 2 {
				t.Errorf("%d partitions were assigned, want the 2 of the one that came back", n)
			}
			a.stop(t)
			b.stop(t)
			j.mustBeClean(t, log)
		})
	}
}

// Retention removes records before they are read: told, and the member goes on at the log start.
func TestRetentionOvertakes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		running bool // when the records are deleted
	}{
		{"while it runs", true},
		{"while it is away", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fake, c, client := brokers(t)
			produce(t, client, 10)
			j := &journal{}
			release, entered := make(chan struct{}), make(chan struct{}, 10)
			h := handler{j: j, member: "a", f: func(_ context.Context, b engine.Batch, i int) verdict.Verdict {
				if b.ID.Partition == 0 && b.Items[i].Record.Offset == 9 {
					entered <- struct{}{}
					<-release
				}
				return verdict.Verdict{}
			}}
			m := run(t, c, j, "a", h, engine.Config{InFlight: 1}, engine.GroupConfig{})
			<-entered
			if !tt.running {
				close(release)
				until(t, "all is committed", everywhere(t, client, 10))
				m.stop(t)
			}
			produce(t, client, 2000)
			if err := fake.DeleteRecords("orders", 0, 1900); err != nil {
				t.Fatal(err)
			}
			if tt.running {
				close(release)
			} else {
				m = run(t, c, j, "b", handler{j: j, member: "b"}, engine.Config{}, engine.GroupConfig{})
			}
			until(t, "all is committed", everywhere(t, client, 2010))
			m.stop(t)
			told := 0
			for _, err := range m.witness.seen() {
				if strings.Contains(err.Error(), "retention") {
					told++
				}
			}
			var first int64
			for _, e := range j.all() {
				if first == 0 && e.what == "handled" && e.id.Partition == 0 && e.offset > 9 {
					first = e.offset
				}
			}
			if first != 1900 || told != 1 {
				t.Errorf("went on at offset %d, problems %v: want 1900, and that once", first, m.witness.seen())
			}
		})
	}
}

// The topic is deleted, or deleted and created again, while it is read: another log, which nobody meant.
func TestTheTopicGoesAway(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("created again %v", again), func(t *testing.T) {
			t.Parallel()
			fake, c, client := brokers(t)
			produce(t, client, 10)
			j := &journal{}
			m := run(t, c, j, "a", handler{j: j}, engine.Config{}, engine.GroupConfig{})
			until(t, "all is committed", everywhere(t, client, 10))
			if err := fake.DeleteTopic("orders"); err != nil {
				t.Fatal(err)
			}
			if again {
				if err := fake.CreateTopic("orders", 4, nil); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case <-m.done:
			case <-time.After(patience):
				t.Fatalf("Run goes on; problems %v", m.witness.seen())
			}
			if !errors.Is(m.err, kerr.UnknownTopicID) || !strings.Contains(fmt.Sprint(m.err), "orders/") || !strings.Contains(fmt.Sprint(m.err), "was deleted") {
				t.Errorf("got %v, want an error that says so", m.err)
			}
		})
	}
}

// Partitions that are added while the group runs are read from their start, wherever the group started.
func TestAddedPartitionsAreReadWhole(t *testing.T) {
	t.Parallel()
	for _, server := range []bool{false, true} {
		t.Run(fmt.Sprintf("server %v", server), func(t *testing.T) {
			t.Parallel()
			fake, c, client := brokers(t)
			produce(t, client, 10)
			j := &journal{}
			m := run(t, c, j, "a", handler{j: j}, engine.Config{}, engine.GroupConfig{Start: position.Point{Kind: position.End}, ServerAssign: server})
			until(t, "every partition is committed", everywhere(t, client, 10))
			if _, err := kadm.NewClient(client).UpdatePartitions(t.Context(), 6, "orders"); err != nil {
				t.Fatal(err)
			}
			client.ForceMetadataRefresh()
			until(t, "records are in the new partitions", func() bool {
				err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 4, Value: []byte("new")}).FirstErr()
				return err == nil
			})
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "orders", Err: kerr.NotLeaderForPartition, Count: 4}) // the client looks again now
			until(t, "the new partition's record is handled", func() bool { return j.count("handled") > 0 })
			m.stop(t)
		})
	}
}

// The last offset of a log with transactions is a marker: the position passes it, so that a reader that has read
// everything has no lag, here and in every tool.
func TestNoLagBehindTransactions(t *testing.T) {
	t.Parallel()
	_, c, client := brokers(t)
	writer, err := c.Client(kgo.TransactionalID("tx"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := writer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for p := range int32(4) {
			if err := writer.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: p}, &kgo.Record{Topic: "orders", Partition: p}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	j := &journal{}
	m := run(t, c, j, "a", handler{j: j}, engine.Config{}, engine.GroupConfig{})
	until(t, "all is committed", everywhere(t, client, 6))
	until(t, "there is no lag", func() bool {
		m.witness.mu.Lock()
		defer m.witness.mu.Unlock()
		for _, lag := range m.witness.lag {
			if lag != 0 {
				return false
			}
		}
		return len(m.witness.lag) == 4
	})
	m.stop(t)
	if n := j.count("handled"); n != 8 {
		t.Errorf("handled %d records, want the 8 that were committed: neither markers nor what was aborted", n)
	}
}
