package replay_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/replay"
)

// stopped runs a replay that ends behind n events.
func stopped(t *testing.T, f *fake, id string, n int) {
	t.Helper()
	full := errors.New("full")
	_, err := replay.Run(t.Context(), f.Cluster, replay.Func(func(context.Context, event.Event) error {
		if n--; n < 0 {
			return consumer.Stop(full)
		}
		return nil
	}), replay.Config{ID: id, Read: of("orders")})
	if !errors.Is(err, full) {
		t.Fatal(err)
	}
}

func TestRetentionOvertakesARange(t *testing.T) {
	t.Parallel()
	f := newFake(t, 1, "orders")
	events := recorded(60)
	for i := range events {
		events[i].Partition = 0
	}
	f.fill(t, events[:30])
	stopped(t, f, "r1", 10)
	f.fill(t, events[30:])
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: "orders", Partition: 0, At: 50})
	if _, err := f.admin.DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	s, err := replay.Run(t.Context(), f.Cluster, replay.Func(func(context.Context, event.Event) error {
		return errors.New("it is not of the range")
	}), replay.Config{ID: "r1", Read: of("orders")})
	if err != nil || !s.Done || s.Gone != 20 || s.Spans[0].Position != 30 {
		t.Fatalf("%v, %+v: 20 of the range's 30 are gone, whatever else is", err, s)
	}
	if _, err := replay.Find(t.Context(), f.Cluster, "r1"); err != nil {
		t.Fatal(err)
	}
}

func TestALogThatWasCutIsNoEnd(t *testing.T) {
	t.Parallel()
	f := newFake(t, 1, "orders")
	events := recorded(30)
	for i := range events {
		events[i].Partition = 0
	}
	f.fill(t, events)
	stopped(t, f, "r1", 10)
	if _, err := f.admin.DeleteTopic(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	client, err := f.Client(kgo.RecordPartitioner(kgo.ManualPartitioner())) // the other one knows the old topic
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	(&fake{client: client}).fill(t, events[:5])
	marked := kadm.Offsets{} // Kafka forgets the offsets of a topic that is deleted, and an election that is unclean does not
	marked.Add(kadm.Offset{Topic: "orders", At: 10, LeaderEpoch: -1, Metadata: `{"millrace_replay":1,"from":0,"until":30,"head":{"begun":"2026-11-22T09:00:00Z","parts":1,"grant":0}}`})
	if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), "_millrace.replay.r1", marked); err != nil {
		t.Fatal(err)
	}
	s, err := replay.Run(t.Context(), f.Cluster, replay.Func(func(context.Context, event.Event) error { return nil }), replay.Config{ID: "r1", Read: of("orders")})
	if err == nil || !strings.Contains(err.Error(), "ends at 5") || s.Done {
		t.Fatalf("%v, %+v: what was to be replayed is no longer there, and nobody said so", err, s)
	}
}

// A cluster whose topic of offsets is being made, or is moving, has no coordinator for a moment.
func TestACoordinatorThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	asked := 0
	k.ControlKey(int16(kmsg.FindCoordinator), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if k.KeepControl(); asked > 4 {
			return nil, nil, false
		}
		asked++
		res := req.ResponseKind().(*kmsg.FindCoordinatorResponse) //nolint:forcetypeassert // by its key
		res.ErrorCode = kerr.CoordinatorNotAvailable.Code
		for _, key := range req.(*kmsg.FindCoordinatorRequest).CoordinatorKeys { //nolint:forcetypeassert // as above
			res.Coordinators = append(res.Coordinators, kmsg.FindCoordinatorResponseCoordinator{Key: key, ErrorCode: kerr.CoordinatorNotAvailable.Code})
		}
		return res, nil, true
	})
	_, err = replay.Find(t.Context(), kafka.Cluster{Seeds: k.ListenAddrs()}, "r1")
	if !errors.Is(err, replay.ErrNotFound) {
		t.Fatal(err)
	}
}
