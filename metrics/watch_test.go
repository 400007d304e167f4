package metrics_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/kafka"
)

func broker(t *testing.T, topics ...string) kafka.Cluster {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return kafka.Cluster{Seeds: fake.ListenAddrs()}
}

func client(t *testing.T, c kafka.Cluster) *kgo.Client {
	t.Helper()
	cl, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// A partition without a commit is in no lag: not with -1, and not with the whole log.
func TestLagComesFromTheLogAndTheCommits(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cluster := broker(t, "shop.orders")
	cl := client(t, cluster)
	began := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for i := range 10 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "shop.orders", Partition: int32(i % 2), Timestamp: began.Add(time.Duration(i) * time.Minute)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	m := create(t)
	m.SetNow(func() time.Time { return began.Add(time.Hour) })
	c := m.Consumer("shipping")
	c.Assigned(map[cursor.ID]int64{id("shop.orders", 0): 0, id("shop.orders", 1): 0, id("shop.deleted", 0): 0})
	for range 2 {
		c.Lag(id("shop.orders", 0), 0, 0)
		c.Lag(id("shop.orders", 1), 0, 0)
	}
	if err := m.Look(ctx, cluster); err != nil {
		t.Fatalf("a group that nobody has joined yet: %v", err)
	}
	if _, err := kadm.NewClient(cl).CommitOffsets(ctx, "shipping", kadm.Offsets{"shop.orders": {0: {Topic: "shop.orders", Partition: 0, At: 2, LeaderEpoch: -1}}}); err != nil {
		t.Fatal(err)
	}
	if err := m.Look(ctx, cluster); err != nil {
		t.Fatal(err)
	}
	s := read(t, m.Handler())
	for name, want := range map[string]map[string]float64{
		"kafka_consumergroup_lag":                       {"consumergroup=shipping partition=0 topic=shop.orders": 3},
		"kafka_consumergroup_lag_sum":                   {"consumergroup=shipping topic=shop.orders": 3},
		"millrace_consumergroup_uncommitted_partitions": {"consumergroup=shipping topic=shop.orders": 1},
		"kafka_consumergroup_members":                   {"consumergroup=shipping": 0},
		"millrace_collect_failed":                       {"collector=dlq": 0, "collector=groups": 0},
		"millrace_consumergroup_state": {
			"consumergroup=shipping state=ok": 1, "consumergroup=shipping state=warn": 0, "consumergroup=shipping state=stall": 0,
			"consumergroup=shipping state=stop": 0, "consumergroup=shipping state=rewind": 0,
		},
		// Nothing of it is in a handler's hands, so its age is read from the log: the third record of the partition.
		"kafka_consumergroup_group_lag_seconds": {"consumergroup=shipping partition=0 topic=shop.orders": (time.Hour - 4*time.Minute).Seconds()},
	} {
		s.want(t, name, want)
	}
	checkText(t, s.text)

	// Nobody is in the group, and there is more: after a while that is a stop.
	m.SetNow(func() time.Time { return began.Add(2 * time.Hour) })
	if err := m.Look(ctx, cluster); err != nil {
		t.Fatal(err)
	}
	if got := read(t, m.Handler()).series(t, "millrace_consumergroup_state")["consumergroup=shipping state=stop"]; got != 1 {
		t.Error("a group without members that is behind has not stopped")
	}

	c.Handled(id("shop.orders", 0), 3, 0, 0)
	read(t, m.Handler()).want(t, "kafka_consumergroup_group_lag_seconds", map[string]float64{"consumergroup=shipping partition=0 topic=shop.orders": 0})
	c.Revoked([]cursor.ID{id("shop.orders", 0)}, false)
	s = read(t, m.Handler())
	for _, name := range []string{"kafka_consumergroup_lag", "kafka_consumergroup_lag_sum", "kafka_consumergroup_group_lag_seconds"} {
		s.want(t, name, map[string]float64{})
	}
}

func TestALookThatFailsIsSeen(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	m := create(t)
	m.Consumer("shipping")
	if err := m.Look(ctx, kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}); err == nil {
		t.Error("no error")
	}
	read(t, m.Handler()).want(t, "millrace_collect_failed", map[string]float64{"collector=groups": 1})
}

// kprom is made for one client, and panics or forgets with several: here they share its metrics.
func TestSeveralClientsAreCountedTogether(t *testing.T) {
	t.Parallel()
	cluster := broker(t, "t")
	m := create(t)
	cluster.Hooks = m.Hooks()
	for range 3 {
		cl, err := cluster.Client()
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		cl.Close()
	}
	s := read(t, m.Handler())
	var records float64
	for _, v := range s.series(t, "millrace_kafka_client_produce_records_total") {
		records += v
	}
	if records != 3 {
		t.Errorf("%v records produced, want 3", records)
	}
	s.want(t, "millrace_kafka_client_buffered_produce_records", map[string]float64{"": 0})
	for _, name := range []string{"connects_total", "read_bytes_total", "request_duration_e2e_seconds"} {
		if len(s.series(t, "millrace_kafka_client_"+name)) == 0 {
			t.Errorf("%s has no series", name)
		}
	}
	checkText(t, s.text)
}

// A group that rebalances all the time is the one to look at.
func TestRebalancesDoNotPutTheLookOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		m := create(t)
		c := m.Consumer("shipping")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			m.Watch(ctx, kafka.Cluster{}) // without seeds: a look fails at once
		}()
		for range 5 {
			c.Assigned(nil)
			<-time.After(time.Second) // by the bubble's clock
			synctest.Wait()
		}
		read(t, m.Handler()).want(t, "millrace_collect_failed", map[string]float64{"collector=groups": 1})
		end()
		<-ended
	})
}
