package metrics_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/kafka"
)

// What lies in the dead letters is seen by every member that ever had partitions, and a look that fails leaves it standing: an
// alert that ends because nobody could look has ended for the wrong reason.
func TestWhatLiesInTheDeadLettersIsSeen(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cluster := broker(t, "shop.orders", "shop.orders.shipping.dlq", "shop.orders.audit.dlq")
	cl := client(t, cluster)
	began := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for i := range 3 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "shop.orders.shipping.dlq", Partition: int32(i % 2), Timestamp: began.Add(time.Duration(i) * time.Minute)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	m := create(t)
	m.SetNow(func() time.Time { return began.Add(time.Hour) })
	for _, group := range []string{"shipping", "audit", "fraud"} { // nothing was created for fraud
		m.Consumer(group).Assigned(map[cursor.ID]int64{id("shop.orders", 0): 0})
	}
	depth := map[string]float64{"consumergroup=shipping source_topic=shop.orders": 3, "consumergroup=audit source_topic=shop.orders": 0}
	seen := func(what string, age time.Duration, failed float64) {
		t.Helper()
		s := read(t, m.Handler())
		s.want(t, "millrace_dlq_depth", depth)
		s.want(t, "millrace_dlq_oldest_message_age_seconds", map[string]float64{
			"consumergroup=shipping source_topic=shop.orders": age.Seconds(), "consumergroup=audit source_topic=shop.orders": 0,
		})
		if got := s.series(t, "millrace_collect_failed")["collector=dlq"]; got != failed {
			t.Errorf("%s: failed is %v, want %v", what, got, failed)
		}
		checkText(t, s.text)
	}
	look := func() {
		t.Helper()
		if err := m.Look(ctx, cluster); err != nil {
			t.Fatal(err)
		}
	}
	look()
	seen("at work", time.Hour, 0)

	m.Consumer("shipping").Revoked([]cursor.ID{id("shop.orders", 0)}, false)
	look()
	seen("without partitions", time.Hour, 0)

	m.SetNow(func() time.Time { return began.Add(2 * time.Hour) })
	short, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if err := m.Look(short, kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}); err == nil {
		t.Error("a cluster that is not there was looked at")
	}
	seen("the cluster is away", 2*time.Hour, 1)
}

// A scrape waits for no broker: it shows what the last look saw.
func TestAScrapeAsksNobody(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "shop.orders", "shop.orders.shipping.dlq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	m := create(t)
	m.Consumer("shipping").Assigned(map[cursor.ID]int64{id("shop.orders", 0): 0})
	if err := m.Look(ctx, kafka.Cluster{Seeds: fake.ListenAddrs()}); err != nil {
		t.Fatal(err)
	}
	asked, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	fake.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		fake.SleepControl(func() {
			if once.CompareAndSwap(false, true) {
				close(asked)
			}
			<-release
		})
		return nil, nil, false
	})
	looked := make(chan error, 1)
	go func() { looked <- m.Look(ctx, kafka.Cluster{Seeds: fake.ListenAddrs()}) }()
	select {
	case <-asked:
	case <-ctx.Done():
		t.Fatal("the look asks for no offsets")
	}
	read(t, m.Handler()).want(t, "millrace_dlq_depth", map[string]float64{"consumergroup=shipping source_topic=shop.orders": 0})
	close(release)
	if err := <-looked; err != nil {
		t.Error(err)
	}
}
