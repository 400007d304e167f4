package replay_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
)

// fake is a cluster in memory.
type fake struct {
	kafka.Cluster
	client *kgo.Client
	admin  *kadm.Client
}

func newFake(t *testing.T, partitions int32, topics ...string) *fake {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	f := &fake{Cluster: kafka.Cluster{Seeds: k.ListenAddrs()}}
	if f.client, err = f.Client(kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.client.Close)
	f.admin = kadm.NewClient(f.client)
	return f
}

// fill writes events as they are.
func (f *fake) fill(t *testing.T, events []event.Event) {
	t.Helper()
	var records []*kgo.Record
	for _, e := range events {
		r := &kgo.Record{Topic: e.Topic, Partition: e.Partition, Key: e.Key, Value: e.Value, Timestamp: e.Published}
		for _, h := range e.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		records = append(records, r)
	}
	if err := f.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// all is what a topic holds.
func (f *fake) all(t *testing.T, topic string) []event.Event {
	t.Helper()
	in, err := reader.Open(t.Context(), f.Cluster, reader.Config{Topics: []string{topic}, Merge: true})
	if err != nil {
		t.Fatal(err)
	}
	var out []event.Event
	for e, err := range in.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func (f *fake) producer(t *testing.T) *producer.Producer {
	t.Helper()
	p, err := producer.New(f.Cluster, nil, producer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func of(topics ...string) reader.Config { return reader.Config{Topics: topics} }

func TestIntoATopic(t *testing.T) {
	t.Parallel()
	f := newFake(t, 3, "orders", "fixed")
	events := recorded(500)
	for i := range events {
		events[i].Headers = event.Headers{
			{Key: "ce_id", Value: fmt.Append(nil, "id", i)}, {Key: "x", Value: nil}, {Key: "traceparent", Value: []byte("00-1")}, {Key: "x", Value: []byte("2")},
		}
	}
	events[7].Value = nil // a tombstone
	f.fill(t, events)
	s, err := replay.Run(t.Context(), f.Cluster, replay.Topic(f.producer(t), "fixed"), replay.Config{ID: "r1", Read: of("orders")})
	if err != nil || s.Delivered != 500 || !s.Done {
		t.Fatalf("%v, %+v", err, s)
	}
	got := f.all(t, "fixed")
	if len(got) != 500 {
		t.Fatalf("%d events", len(got))
	}
	slices.SortFunc(got, func(a, b event.Event) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(events, func(a, b event.Event) int {
		return strings.Compare(string(a.Headers.Get("ce_id")), string(b.Headers.Get("ce_id")))
	})
	for i, e := range got {
		want := events[i]
		h := event.Headers{
			{Key: "ce_id", Value: want.Headers.Get("ce_id")},
			{Key: "x", Value: nil},
			{Key: "x", Value: []byte("2")},
			{Key: "millrace_replay_id", Value: []byte("r1")},
			{Key: "millrace_replay_count", Value: []byte("1")},
			{Key: "millrace_origin_topic", Value: []byte("orders")},
			{Key: "millrace_origin_partition", Value: fmt.Append(nil, want.Partition)},
			{Key: "millrace_origin_offset", Value: fmt.Append(nil, want.Offset)},
			{Key: "millrace_origin_timestamp", Value: fmt.Append(nil, want.Published.UnixMilli())},
		}
		if !reflect.DeepEqual(e.Headers, h) || string(e.Key) != string(want.Key) || !reflect.DeepEqual(e.Value, want.Value) {
			t.Fatalf("got %q %q %v\nwant %q %q %v", e.Key, e.Value, e.Headers, want.Key, want.Value, h)
		}
	}
	// A copy of a copy counts, and a loop ends.
	for n := 2; n <= 17; n++ {
		at := position.Point{Kind: position.End, N: 1}
		s, err := replay.Run(t.Context(), f.Cluster, replay.Topic(f.producer(t), "fixed"), replay.Config{
			Read: reader.Config{Topics: []string{"fixed"}, Partitions: []int32{got[0].Partition}, Range: position.Range{From: at}}, AllowLoop: true, SkipFailed: true,
		})
		if want := (map[bool]replay.Counts{true: {Delivered: 1}, false: {Failed: 1}})[n <= 16]; err != nil || s.Counts != want {
			t.Fatalf("copy %d: %v, %+v", n, err, s.Counts)
		}
	}
}

func TestALoopIsRefused(t *testing.T) {
	t.Parallel()
	f := newFake(t, 1, "orders")
	f.fill(t, []event.Event{{Meta: event.Meta{Topic: "orders"}}})
	_, err := replay.Run(t.Context(), f.Cluster, replay.Topic(f.producer(t), "orders"), replay.Config{ID: "r", Read: of("orders")})
	if !errors.Is(err, replay.ErrLoop) || len(f.all(t, "orders")) != 1 {
		t.Errorf("%v", err)
	}
	if s, err := replay.Run(t.Context(), f.Cluster, replay.Topic(f.producer(t), "orders"), replay.Config{ID: "r", Read: of("orders"), AllowLoop: true}); err != nil || s.Delivered != 1 {
		t.Errorf("%v, %+v: the refusal left a lock, or nothing ended it", err, s)
	}
}

// The progress is an ordinary group: its offsets, and with them the range as it was frozen. A later run goes on in that
// range, whatever came meanwhile.
func TestProgressIsAGroup(t *testing.T) {
	t.Parallel()
	f := newFake(t, 3, "orders", "payments")
	events := recorded(900)
	f.fill(t, events)
	other := slices.Clone(recorded(600))
	for i := range other {
		other[i].Topic = "payments"
	}
	f.fill(t, other)
	live := kadm.Offsets{}
	live.Add(kadm.Offset{Topic: "orders", Partition: 0, At: 5, LeaderEpoch: -1, Metadata: "theirs"})
	if err := f.admin.CommitAllOffsets(t.Context(), "shipping", live); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	to := &sink{}
	to.before = func(context.Context, event.Event) error {
		if len(to.got) == 400 {
			stop()
		}
		return nil
	}
	cfg := replay.Config{ID: "r", Read: of("orders", "payments"), Note: "why", Speed: 1e6}
	first, err := replay.Run(ctx, f.Cluster, to, cfg)
	if !errors.Is(err, context.Canceled) || first.Delivered < 400 || first.Done {
		t.Fatalf("%v, %+v", err, first)
	}
	commits, err := f.admin.FetchOffsets(t.Context(), "_millrace.replay.r")
	if err != nil || len(commits["orders"])+len(commits["payments"]) != 6 {
		t.Fatalf("%v, %v", err, commits)
	}
	f.fill(t, recorded(30)) // later events are not of the range
	p, err := replay.Find(t.Context(), f.Cluster, "r")
	if err != nil || p.Note != "why" || p.Running || p.Delivered != first.Delivered || !slices.Equal(p.Topics(), []string{"orders", "payments"}) || p.Repeats != 0 {
		t.Errorf("%v, %+v", err, p)
	}
	to.before = nil
	s, err := replay.Run(t.Context(), f.Cluster, to, cfg)
	if err != nil || s.Delivered != 1500 || !s.Done || !s.Resumed || len(to.got) != 1500 {
		t.Errorf("%v, %+v, %d events", err, s, len(to.got))
	}
	for i := 1; i < len(to.got); i++ { // merged by time, over both topics
		if to.got[i].Published.Before(to.got[i-1].Published) {
			t.Fatalf("event %d is older than the one before", i)
		}
	}
	all, err := replay.List(t.Context(), f.Cluster)
	if err != nil || len(all) != 1 || !all[0].Done {
		t.Errorf("%v, %+v", err, all)
	}
	theirs, err := f.admin.FetchOffsets(t.Context(), "shipping")
	if o, _ := theirs.Lookup("orders", 0); err != nil || o.At != 5 || o.Metadata != "theirs" || len(theirs) != 1 {
		t.Errorf("the live group moved: %v, %+v", err, theirs)
	}
	if _, err := replay.Find(t.Context(), f.Cluster, "nobody"); !errors.Is(err, replay.ErrNotFound) {
		t.Errorf("%v", err)
	}
	cfg.Read = of("orders")
	if _, err := replay.Run(t.Context(), f.Cluster, to, cfg); !errors.Is(err, replay.ErrMismatch) {
		t.Errorf("other topics: %v", err)
	}
	moved := kadm.Offsets{}
	moved.Add(kadm.Offset{Topic: "orders", Partition: 1, At: 3, LeaderEpoch: -1, Metadata: "by hand"})
	if err := f.admin.CommitAllOffsets(t.Context(), "_millrace.replay.r", moved); err != nil {
		t.Fatal(err)
	}
	if _, err := replay.Run(t.Context(), f.Cluster, to, replay.Config{ID: "r", Read: of("orders", "payments"), Note: "why"}); err == nil || !strings.Contains(err.Error(), "another tool") {
		t.Errorf("a group that another tool moved: %v", err)
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	f := newFake(t, 3, "orders")
	events := recorded(900)
	f.fill(t, events)
	commit := kadm.Offsets{}
	for p := range int32(2) {
		commit.Add(kadm.Offset{Topic: "orders", Partition: p, At: 100, LeaderEpoch: -1})
	}
	if err := f.admin.CommitAllOffsets(t.Context(), "shipping", commit); err != nil {
		t.Fatal(err)
	}
	point := func(text string) position.Point {
		p, err := position.Parse(text, origin.Add(45*time.Second)) // the events are over then
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	count := func(keep func(e event.Event) bool) (n int64) {
		for _, e := range events {
			if keep(e) {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct {
		name string
		cfg  replay.Config
		want int64
	}{
		{"all", replay.Config{Read: of("orders")}, 900},
		{"from a time, until a time", replay.Config{Read: reader.Config{Topics: []string{"orders"}, Range: position.Range{From: point("-30s"), Until: point("-10s")}}}, 400},
		{"by offset", replay.Config{Read: reader.Config{Topics: []string{"orders"}, Range: position.Range{From: point("offset:10"), Until: point("offset:15")}}}, 15},
		{"per partition", replay.Config{Read: reader.Config{Topics: []string{"orders"}, Range: position.Range{From: point("p0=10,p2=5"), Until: point("p0=15,p2=6")}}}, 6},
		{"one partition", replay.Config{Read: reader.Config{Topics: []string{"orders"}, Partitions: []int32{1}}}, count(func(e event.Event) bool { return e.Partition == 1 })},
		{"where a group stands", replay.Config{Read: of("orders"), Group: "shipping"}, count(func(e event.Event) bool { return e.Partition == 2 || e.Offset >= 100 })},
		{"nothing", replay.Config{Read: reader.Config{Topics: []string{"orders"}, Range: position.Range{From: point("end")}}}, 0},
	} {
		plan, err := replay.Plan(t.Context(), f.Cluster, tt.cfg)
		if err != nil || plan.Matched != tt.want {
			t.Errorf("%s: planned %d, %v, want %d", tt.name, plan.Matched, err, tt.want)
		}
		to := &sink{}
		s, err := replay.Run(t.Context(), f.Cluster, to, tt.cfg)
		if err != nil || s.Delivered != tt.want || int64(len(to.ids())) != tt.want || !s.Done {
			t.Errorf("%s: %v, %d of %d", tt.name, err, s.Delivered, tt.want)
		}
		if passed, total := s.Progress(); passed != total {
			t.Errorf("%s: %d of %d offsets are behind", tt.name, passed, total)
		}
	}
	if _, err := replay.Run(t.Context(), f.Cluster, &sink{}, replay.Config{Read: of("orders"), Group: "nobody"}); err == nil || !strings.Contains(err.Error(), "committed nothing") {
		t.Errorf("%v", err)
	}
	if _, err := replay.Plan(t.Context(), f.Cluster, replay.Config{Read: of("nowhere")}); err == nil {
		t.Error("there is no such topic")
	}
}

// What was deleted between two runs is counted, and the rest is delivered.
func TestWhatIsGoneIsCounted(t *testing.T) {
	t.Parallel()
	f := newFake(t, 1, "orders")
	events := make([]event.Event, 300)
	for i := range events {
		events[i] = event.Event{Meta: event.Meta{Topic: "orders", Published: origin}, Value: fmt.Append(nil, i)}
	}
	f.fill(t, events)
	ctx, stop := context.WithCancel(t.Context())
	to := &sink{before: func(context.Context, event.Event) error { stop(); return nil }}
	s, err := replay.Run(ctx, f.Cluster, to, replay.Config{ID: "r", Read: of("orders")})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	cut := kadm.Offsets{}
	cut.AddOffset("orders", 0, 200, -1)
	if _, err := f.admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	s2, err := replay.Run(t.Context(), f.Cluster, to, replay.Config{ID: "r", Read: of("orders")})
	if err != nil || s2.Gone != 200-s.Delivered || s2.Delivered != s.Delivered+100 {
		t.Errorf("%v, %+v after %+v", err, s2, s.Counts)
	}
}

// A dead process of this machine holds nothing up.
func TestADeadOwnerIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t, 1, "orders")
	f.fill(t, []event.Event{{Meta: event.Meta{Topic: "orders", Published: origin}}, {Meta: event.Meta{Topic: "orders", Published: origin}}})
	if err := replay.LeaveDead(t.Context(), f.Cluster, "r", "orders", 2); err != nil {
		t.Fatal(err)
	}
	s, err := replay.Run(t.Context(), f.Cluster, &sink{}, replay.Config{ID: "r", Read: of("orders")})
	if err != nil || s.Delivered != 2 || s.Repeats != 2 || !s.Resumed {
		t.Errorf("%v, %+v", err, s)
	}
}
