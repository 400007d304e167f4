package reader_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/schemas"
)

var epoch = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// log is a cluster in memory with one client to write with.
type log struct {
	fake    *kfake.Cluster
	cluster kafka.Cluster
	client  *kgo.Client
	admin   *kadm.Client
}

func newLog(t *testing.T, opts ...kfake.Opt) *log {
	t.Helper()
	fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := kafka.Cluster{Seeds: fake.ListenAddrs()}
	client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &log{fake: fake, cluster: c, client: client, admin: kadm.NewClient(client)}
}

// write appends one record for each second after epoch to a partition, in a batch of its own.
func (l *log) write(t *testing.T, topic string, partition int32, seconds ...int) {
	t.Helper()
	for _, s := range seconds {
		r := &kgo.Record{Topic: topic, Partition: partition, Timestamp: epoch.Add(time.Duration(s) * time.Second), Value: fmt.Append(nil, s)}
		if err := l.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// transaction appends records to topic t in one transaction and ends it, or leaves it open where end is nil.
func (l *log) transaction(t *testing.T, n int, end *kgo.TransactionEndTry) {
	t.Helper()
	client, err := l.cluster.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: fmt.Append(nil, "tx", i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if end != nil {
		if err := client.EndTransaction(t.Context(), *end); err != nil {
			t.Fatal(err)
		}
	}
}

// read reads everything and fails the test if it does not end in time.
func (l *log) read(t *testing.T, cfg reader.Config) ([]event.Event, *reader.Reading) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := reader.Open(ctx, l.cluster, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var es []event.Event
	for e, err := range r.Events(ctx) {
		if err != nil {
			t.Fatalf("after %d events: %v", len(es), err)
		}
		es = append(es, e)
	}
	if c := r.Complete(); !c.Done || c.Passed != c.Total || c.Matched != int64(len(es)) {
		t.Errorf("the reading ended and says %+v after %d events", c, len(es))
	}
	return es, r
}

func values(es []event.Event) string {
	out := make([]string, len(es))
	for i, e := range es {
		out[i] = string(e.Value)
	}
	return strings.Join(out, " ")
}

func parse(t *testing.T, spec string) position.Range {
	t.Helper()
	r, err := position.ParseRange(spec, epoch.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBoundedReadsEnd(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"), kfake.SeedTopics(3, "empty"))
	l.write(t, "t", 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	tests := []struct{ spec, want string }{
		{"start", "0 1 2 3 4 5 6 7 8 9"},
		{"start:end", "0 1 2 3 4 5 6 7 8 9"},
		{"end", ""},
		{"+7", "7 8 9"},
		{"-2", "8 9"},
		{"-20", "0 1 2 3 4 5 6 7 8 9"},
		{"8", "8 9"},
		{"3:5", "3 4"},
		{":2", "0 1"},
		{"0:100", "0 1 2 3 4 5 6 7 8 9"}, // the end past what the log holds hung other readers
		{"9:100", "9"},
		{"50:100", ""},
		{":end-8", "0 1"},
		{"start+3:end-5", "3 4"},
		{"@2026-11-24T12:00:03:2026-11-24T12:00:05", "3 4"},
		{"@2026-11-24T12:00:02.5:2s", "3 4"},
		{"@:2026-11-24T12:00:02", "0 1"},
		{"@2026-11-24T12:00:08", "8 9"},
		{"@2026-11-24T12:00:09.001", ""},
		{"@-1d:end", "0 1 2 3 4 5 6 7 8 9"},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			t.Parallel()
			for _, cfg := range []reader.Config{{}, {Merge: true}, {Uncommitted: true}} {
				cfg.Topics, cfg.Range = []string{"t", "empty"}, parse(t, tt.spec)
				if es, _ := l.read(t, cfg); values(es) != tt.want {
					t.Errorf("got %q, want %q (merge %v, uncommitted %v)", values(es), tt.want, cfg.Merge, cfg.Uncommitted)
				}
			}
		})
	}
}

// A reader that sets its start after the first poll begins at 0 in some runs: partitions not polled yet are
// skipped. Offsets are resolved first here, so it holds every time.
func TestStartByTimeHoldsEveryTime(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(3, "t"))
	for p := range int32(3) {
		l.write(t, "t", p, 0, 10, 20, 20, 20, 30)
	}
	from := epoch.Add(20 * time.Second)
	for run := range 100 {
		es, _ := l.read(t, reader.Config{Topics: []string{"t"}, Range: position.Range{From: position.Point{Kind: position.Time, At: from}}})
		if len(es) != 12 {
			t.Fatalf("run %d: got %d events, want 12", run, len(es))
		}
		for _, e := range es {
			if e.Published.Before(from) {
				t.Fatalf("run %d: an event of %s came, from before %s", run, e.Published, from)
			}
		}
	}
}

func TestTimestampsThatGoBack(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	l.write(t, "t", 0, 10, 30, 20, 5, 40, 25, 200, 26)
	r := position.Range{From: position.Point{Kind: position.Time, At: epoch.Add(10 * time.Second)}, Until: position.Point{Kind: position.Time, At: epoch.Add(30 * time.Second)}}
	es, reading := l.read(t, reader.Config{Topics: []string{"t"}, Range: r})
	if values(es) != "10 20 25" {
		t.Errorf("got %q, want those in time up to a minute late", values(es))
	}
	if c := reading.Complete(); c.Early != 1 {
		t.Errorf("the scan stopped before the end of the log and does not say so: %+v", c)
	}
	es, reading = l.read(t, reader.Config{Topics: []string{"t"}, Range: r, Late: -1})
	if values(es) != "10 20 25 26" || reading.Complete().Early != 0 {
		t.Errorf("to the end: got %q, %+v", values(es), reading.Complete())
	}
}

func TestTransactionMarkersAreNoEventsAndEndNothing(t *testing.T) {
	t.Parallel()
	commit, abort := kgo.TryCommit, kgo.TryAbort
	tests := []struct {
		name                   string
		end                    *kgo.TransactionEndTry
		committed, uncommitted string
	}{
		{"committed", &commit, "0 tx0 tx1", "0 tx0 tx1"},
		{"aborted", &abort, "0", "0 tx0 tx1"},
		{"open", nil, "0", "0 tx0 tx1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLog(t, kfake.SeedTopics(1, "t"))
			l.write(t, "t", 0, 0)
			l.transaction(t, 2, tt.end)
			if es, r := l.read(t, reader.Config{Topics: []string{"t"}}); values(es) != tt.committed || r.Complete().Scanned != int64(len(es)) {
				t.Errorf("committed: got %q, want %q, %+v", values(es), tt.committed, r.Complete())
			}
			if es, _ := l.read(t, reader.Config{Topics: []string{"t"}, Uncommitted: true}); values(es) != tt.uncommitted {
				t.Errorf("uncommitted: got %q, want %q", values(es), tt.uncommitted)
			}
		})
	}
}

func TestCompactionGaps(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	compact, zero, small := "compact", "0", "200"
	_, err := l.admin.CreateTopic(t.Context(), 1, 1, map[string]*string{
		"cleanup.policy": &compact, "min.cleanable.dirty.ratio": &zero, "delete.retention.ms": &zero, "segment.bytes": &small, "min.compaction.lag.ms": &zero,
	}, "t")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		r := &kgo.Record{Topic: "t", Key: fmt.Append(nil, i%3), Value: fmt.Append(nil, i)}
		switch {
		case i == 0:
			r.Key = []byte("kept")
		case i >= 50: // a tail of tombstones, which compaction removes
			r.Value = nil
		}
		if err := l.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	l.fake.Compact()
	es, r := l.read(t, reader.Config{Topics: []string{"t"}})
	if c := r.Complete(); c.Total != 60 || len(es) == 0 || len(es) >= 60 {
		t.Errorf("got %d events of %d offsets, want fewer: the log was compacted", len(es), c.Total)
	}
	if es, _ := l.read(t, reader.Config{Topics: []string{"t"}, Range: parse(t, "0:5")}); slices.ContainsFunc(es, func(e event.Event) bool { return e.Offset >= 5 }) {
		t.Errorf("an event after the end was yielded: %v", es)
	}
}

// A compacted log can end in batches without records. They come back in no poll, so a reader that waits for the
// record before the end waits for ever.
func TestSilentTail(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	abort := kgo.TryAbort
	l.write(t, "t", 0, 1)
	l.transaction(t, 3, &abort)
	// what follows the first record is kept from the client's own fetches: only a probe, which does not wait, sees it
	l.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		l.fake.KeepControl()
		if f, ok := req.(*kmsg.FetchRequest); ok && f.MaxWaitMillis > 0 && len(f.Topics) > 0 && f.Topics[0].Partitions[0].FetchOffset > 0 {
			return f.ResponseKind(), nil, true
		}
		return nil, nil, false
	})
	for _, merge := range []bool{false, true} {
		es, r := l.read(t, reader.Config{Topics: []string{"t"}, Merge: merge, Range: parse(t, "1"), Stall: 5 * time.Second})
		if len(es) != 0 || r.Complete().Total != 4 {
			t.Errorf("got %q of %d offsets, want nothing of 4", values(es), r.Complete().Total)
		}
	}
}

func TestExpiredOffsetsAreClampedAndReported(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	l.write(t, "t", 0, 0, 1, 2, 3, 4, 5)
	var del kadm.Offsets
	del.AddOffset("t", 0, 4, -1)
	if _, err := l.admin.DeleteRecords(t.Context(), del); err != nil {
		t.Fatal(err)
	}
	es, r := l.read(t, reader.Config{Topics: []string{"t"}, Range: parse(t, "1:100")})
	if values(es) != "4 5" {
		t.Errorf("got %q, want 4 5", values(es))
	}
	if s := r.Spans()[0]; s.From != 4 || s.Until != 6 || s.Note == "" {
		t.Errorf("got %+v, want a note about the clamp", s)
	}
	if es, _ := l.read(t, reader.Config{Topics: []string{"t"}, Range: parse(t, "0:3")}); len(es) != 0 {
		t.Errorf("all of it has expired, got %q", values(es))
	}
}

func TestMergeIsByTimeAndKeepsPartitionsInOrder(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(2, "a", "b"))
	l.write(t, "a", 0, 1, 4, 7)
	l.write(t, "a", 1, 2, 9, 3) // goes back: 3 stays behind 9
	l.write(t, "b", 1, 2, 5, 8)
	es, _ := l.read(t, reader.Config{Topics: []string{"b", "a"}, Merge: true})
	if got := values(es); got != "1 2 2 4 5 7 8 9 3" {
		t.Errorf("got %q", got)
	}
	if es[1].Topic != "a" || es[2].Topic != "b" {
		t.Errorf("ties go by topic: got %s then %s", es[1].Topic, es[2].Topic)
	}
}

func TestMergeOfUnevenPartitionsBoundsItsQueues(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(2, "t"))
	const many = 60_000
	for i := range many {
		l.client.Produce(t.Context(), &kgo.Record{Topic: "t", Timestamp: epoch.Add(time.Duration(i) * time.Millisecond), Value: []byte("x")}, nil)
	}
	if err := l.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.write(t, "t", 1, 30, 90)
	es, _ := l.read(t, reader.Config{Topics: []string{"t"}, Merge: true})
	if len(es) != many+2 || string(es[30_001].Value) != "30" || string(es[many+1].Value) != "90" {
		t.Errorf("got %d events, want %d in the order of time", len(es), many+2)
	}
}

func TestOnePartition(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(3, "t"))
	l.write(t, "t", 0, 1)
	l.write(t, "t", 1, 2)
	if es, _ := l.read(t, reader.Config{Topics: []string{"t"}, Partitions: []int32{1}}); values(es) != "2" {
		t.Errorf("got %q, want 2", values(es))
	}
	each, err := position.Parse("p1=0", epoch)
	if err != nil {
		t.Fatal(err)
	}
	if es, _ := l.read(t, reader.Config{Topics: []string{"t"}, Range: position.Range{From: each}}); values(es) != "2" {
		t.Errorf("got %q, want 2: a partition without a place is not read", values(es))
	}
}

func TestPatternsAreResolvedOnce(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "shop.orders", "shop.payments", "other", "_shop.internal"))
	for i, topic := range []string{"shop.orders", "shop.payments", "other", "_shop.internal"} {
		l.write(t, topic, 0, i)
	}
	shop := []*regexp.Regexp{regexp.MustCompile(`^shop\.`), regexp.MustCompile(`orders$`)}
	for name, tt := range map[string]struct {
		cfg  reader.Config
		want string
	}{
		"patterns":           {reader.Config{Patterns: shop}, "0 1"},
		"and a name":         {reader.Config{Patterns: shop, Topics: []string{"_shop.internal"}}, "0 1 3"},
		"a name twice":       {reader.Config{Patterns: shop, Topics: []string{"shop.orders"}}, "0 1"},
		"nothing but a name": {reader.Config{Patterns: []*regexp.Regexp{regexp.MustCompile("^no$")}, Topics: []string{"other"}}, "2"},
	} {
		tt.cfg.Merge = true
		if es, _ := l.read(t, tt.cfg); values(es) != tt.want {
			t.Errorf("%s: got %q, want %q", name, values(es), tt.want)
		}
	}
	if _, err := reader.Open(t.Context(), l.cluster, reader.Config{Patterns: []*regexp.Regexp{regexp.MustCompile("internal")}}); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("no topic matches: got %v", err)
	}
}

func TestUnknownNamesAreErrors(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	for name, cfg := range map[string]reader.Config{
		"unknown topic":     {Topics: []string{"t", "no.such"}},
		"unknown partition": {Topics: []string{"t"}, Partitions: []int32{7}},
	} {
		if _, err := reader.Open(t.Context(), l.cluster, cfg); !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, cfg := range map[string]reader.Config{
		"no topic":           {},
		"negative partition": {Topics: []string{"t"}, Partitions: []int32{-1}},
		"empty range":        {Topics: []string{"t"}, Range: position.Range{From: position.Point{Kind: position.Offset, N: 5}, Until: position.Point{Kind: position.Offset, N: 5}}},
	} {
		if _, err := reader.Open(t.Context(), l.cluster, cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestMatchCountsWhatItCannotAnswer(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	l.write(t, "t", 0, 0, 1, 2, 3, 4)
	es, r := l.read(t, reader.Config{Topics: []string{"t"}, Match: func(e *event.Event) (bool, error) {
		switch e.Offset {
		case 1, 3:
			return true, fmt.Errorf("decode: %w", schemas.ErrPoison)
		case 2:
			return true, errors.New("no such field")
		}
		return e.Offset != 0, nil
	}})
	c := r.Complete()
	if values(es) != "4" || c.Scanned != 5 || c.Undecodable != 2 || c.FirstUndecodable.Offset != 1 || c.FirstUndecodable.Topic != "t" ||
		c.Failed != 1 || c.FirstFailed.Offset != 2 || c.FirstFailed.Err == nil {
		t.Errorf("got %q, %+v", values(es), c)
	}
	if want := "scanned 5 records in 5 of 5 offsets (100 %) of 1 partition, 1 match, 2 undecodable, the first at t/0@1, 1 without an answer, the first at t/0@2"; c.String() != want {
		t.Errorf("got %q, want %q", c, want)
	}
}

func TestRegistryOutageEndsTheReading(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	l.write(t, "t", 0, 0, 1)
	r, err := reader.Open(t.Context(), l.cluster, reader.Config{Topics: []string{"t"}, Match: func(*event.Event) (bool, error) {
		return false, fmt.Errorf("decode: %w", schemas.ErrUnavailable)
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got error
	for _, err := range r.Events(t.Context()) {
		got = err
	}
	if c := r.Complete(); !errors.Is(got, schemas.ErrUnavailable) || c.Done || c.Undecodable != 0 {
		t.Errorf("got %v, %+v", got, c)
	}
}

func TestStoppingAndGoingOn(t *testing.T) {
	t.Parallel()
	for _, merge := range []bool{false, true} {
		l := newLog(t, kfake.SeedTopics(1, "t"))
		l.write(t, "t", 0, 0, 1, 2, 3, 4)
		r, err := reader.Open(t.Context(), l.cluster, reader.Config{Topics: []string{"t"}, Merge: merge})
		if err != nil {
			t.Fatal(err)
		}
		var first, rest []event.Event
		for e, err := range r.Events(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if first = append(first, e); len(first) == 2 {
				break
			}
		}
		if c := r.Complete(); c.Done || c.Passed != 2 || c.Scanned != 2 || !strings.HasSuffix(c.String(), "stopped before the end") {
			t.Errorf("after two of five: %+v %s", c, c)
		}
		for e, err := range r.Events(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			rest = append(rest, e)
		}
		if values(first) != "0 1" || values(rest) != "2 3 4" || !r.Complete().Done {
			t.Errorf("got %q and %q, %+v", values(first), values(rest), r.Complete())
		}
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	for _, merge := range []bool{false, true} {
		l := newLog(t, kfake.SeedTopics(2, "t"))
		l.write(t, "t", 0, 0, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r, err := reader.Open(ctx, l.cluster, reader.Config{Topics: []string{"t"}, Follow: true, Merge: merge})
		if err != nil {
			t.Fatal(err)
		}
		var es []event.Event
		for e, err := range r.Events(ctx) {
			if err != nil {
				t.Fatalf("a reading that follows ends without an error when its context ends: %v", err)
			}
			es = append(es, e)
			switch len(es) {
			case 2:
				l.write(t, "t", 1, 2)
			case 3:
				l.write(t, "t", 0, 3)
			case 4:
				cancel()
			}
		}
		if values(es) != "0 1 2 3" {
			t.Errorf("got %q", values(es))
		}
	}
}

func TestFollowEndsAtItsOwnEnd(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{"start:end": "0", "0:3": "0 1 2", "@:2026-11-24T12:00:03": "0 1 2"} {
		t.Run(spec, func(t *testing.T) {
			t.Parallel()
			l := newLog(t, kfake.SeedTopics(1, "t"))
			l.write(t, "t", 0, 0)
			r, err := reader.Open(t.Context(), l.cluster, reader.Config{Topics: []string{"t"}, Follow: true, Range: parse(t, spec)})
			if err != nil {
				t.Fatal(err)
			}
			l.write(t, "t", 0, 1, 2, 3, 4)
			var es []event.Event
			for e, err := range r.Events(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				es = append(es, e)
			}
			if values(es) != want {
				t.Errorf("got %q, want %q", values(es), want)
			}
		})
	}
}

func TestBrokerThatStopsAnsweringEndsTheReading(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	l.write(t, "t", 0, 0, 1)
	l.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		l.fake.KeepControl()
		return req.ResponseKind(), nil, true
	})
	r, err := reader.Open(t.Context(), l.cluster, reader.Config{Topics: []string{"t"}, Stall: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var got error
	for _, err := range r.Events(t.Context()) {
		got = err
	}
	if got == nil || !strings.Contains(got.Error(), "nothing came for 500ms at offset 0 of 2") {
		t.Errorf("got %v", got)
	}
}

func TestPeek(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(2, "t"))
	l.write(t, "t", 0, 0, 1, 2)
	abort := kgo.TryAbort
	l.transaction(t, 2, &abort) // offsets 3 to 5
	l.write(t, "t", 0, 6)
	got, err := reader.Peek(t.Context(), l.cluster, reader.Place{"t", 0, 1}, reader.Place{"t", 0, 3}, reader.Place{"t", 0, 7}, reader.Place{"t", 1, 0})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[reader.Place{"t", 0, 1}].Offset != 1 || got[reader.Place{"t", 0, 3}].Offset != 6 {
		t.Errorf("got %v, want offsets 1 and 6", got)
	}
}

func TestFetchIsExactAndSaysWhyNot(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(2, "t"))
	l.write(t, "t", 0, 0, 1, 2, 3)
	abort := kgo.TryAbort
	l.transaction(t, 2, &abort) // offsets 4 to 6
	l.write(t, "t", 0, 7)
	var del kadm.Offsets
	del.AddOffset("t", 0, 2, -1)
	if _, err := l.admin.DeleteRecords(t.Context(), del); err != nil {
		t.Fatal(err)
	}
	l.transaction(t, 1, nil) // offset 8, open
	f, err := reader.NewFetcher(l.cluster)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		name string
		at   reader.Place
		want error
	}{
		{"there", reader.Place{"t", 0, 3}, nil},
		{"there after a gap", reader.Place{"t", 0, 7}, nil},
		{"expired", reader.Place{"t", 0, 1}, reader.ErrGone},
		{"aborted", reader.Place{"t", 0, 4}, reader.ErrGone},
		{"a marker", reader.Place{"t", 0, 6}, reader.ErrGone},
		{"in an open transaction", reader.Place{"t", 0, 8}, reader.ErrAhead},
		{"at the end", reader.Place{"t", 1, 0}, reader.ErrAhead},
		{"past the end", reader.Place{"t", 0, 100}, reader.ErrAhead},
		{"no such partition", reader.Place{"t", 7, 0}, kerr.UnknownTopicOrPartition},
		{"no such topic", reader.Place{"no.such", 0, 0}, kerr.UnknownTopicOrPartition},
	} {
		e, err := f.Fetch(t.Context(), tt.at)
		if !errors.Is(err, tt.want) || err == nil && (e.Offset != tt.at.Offset || string(e.Value) != fmt.Sprint(e.Offset)) {
			t.Errorf("%s: got %v, %v, want %v", tt.name, e, err, tt.want)
		}
	}
}

// A leader moves while a record is fetched: the next one is asked.
func TestFetchFollowsTheLeader(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	l.write(t, "t", 0, 0)
	failed := false
	l.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f, ok := req.(*kmsg.FetchRequest)
		if !ok || failed {
			return nil, nil, false
		}
		failed = true
		resp := f.ResponseKind().(*kmsg.FetchResponse) //nolint:forcetypeassert // of a FetchRequest
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic, rt.TopicID = f.Topics[0].Topic, f.Topics[0].TopicID
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.ErrorCode = kerr.NotLeaderForPartition.Code
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	if e, err := reader.Fetch(t.Context(), l.cluster, reader.Place{Topic: "t"}); err != nil || !failed || string(e.Value) != "0" {
		t.Errorf("got %v, %v", e, err)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	l := newLog(t, kfake.SeedTopics(1, "t"))
	l.write(t, "t", 0, 0, 1, 2)
	var last [2]int64
	l.read(t, reader.Config{Topics: []string{"t"}, Progress: func(scanned, total int64) { last = [2]int64{scanned, total} }})
	if last != [2]int64{3, 3} {
		t.Errorf("got %v, want 3 of 3", last)
	}
}
