package integration_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/internal/filter"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/schemas"
)

// Other tools read one record too many, one too few, or for ever, on topics like those made here, and some of them
// only in some runs. So every kind of read is repeated, with ranges drawn anew, and each must return exactly the
// records that it is defined to return, in their order.
const repetitions = 300

// writers are the clients that make the topics.
var writers = map[string]writer{"kgo": writeGo, "Java": writeJava}

// The embedded broker as millrace dev runs it, which does not compact, and the library beneath it, which does.
func TestReadsAreExactOnTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exactReads(t, site{cluster: embedded(t), small: true}, write)
		})
		t.Run(name+", compacted", func(t *testing.T) {
			t.Parallel()
			fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"transaction.max.timeout.ms": "900000"}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(fake.Close)
			exactReads(t, site{kafka.Cluster{Seeds: fake.ListenAddrs()}, true, func(*log) { fake.Compact() }}, write)
		})
	}
}

// embedded is the broker of millrace dev, in this process.
func embedded(t *testing.T) kafka.Cluster {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- devbroker.Serve(ctx, devbroker.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0", Ready: func(addr string) { ready <- addr }})
	}()
	select {
	case addr := <-ready:
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		return kafka.Cluster{Seeds: []string{addr}}
	case err := <-ended:
		cancel()
		t.Fatal(err)
		return kafka.Cluster{}
	}
}

func TestRealReadsAreExact(t *testing.T) {
	t.Parallel()
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exactReads(t, site{cluster: kafkatest.Plain(t), compact: func(l *log) { l.rollUntilCompacted(t) }}, write)
		})
	}
}

// exactReads makes the topics and reads them in every way.
func exactReads(t *testing.T, at site, write writer) {
	t.Helper()
	l := newLog(t, at)
	write(t, at.cluster, l.script)
	if l.compact != nil {
		l.compact(l)
	}
	l.expire(t, l.topics["expired"])
	l.look(t)
	for _, kind := range []string{"bounded", "timestamped", "filtered"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var g errgroup.Group
			g.SetLimit(4)
			for i := range repetitions {
				g.Go(func() error {
					q := l.question(rand.New(rand.NewPCG(uint64(i), 7)), kind)
					if err := l.ask(t.Context(), q); err != nil {
						return fmt.Errorf("repetition %d, %s: %w", i, q, err)
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// spot names a partition.
type spot struct {
	topic     string
	partition int32
}

// place is a partition's log as it lies.
type place struct {
	spot

	lo, hi  int64 // lo ≤ offset < hi
	stable  int64 // the end of what is read committed: the first record of an open transaction, else hi
	records []written
}

// written is a record as the script says it and a bare client sees it.
type written struct {
	spot

	offset int64
	at     time.Time
	key    []byte
	n      int64  // 0 for a tombstone
	fate   string // plain, committed, aborted, open
}

// question is one read.
type question struct {
	topics             []string
	span               position.Range
	merge, uncommitted bool
	filter             string
	match              func(written) bool
}

func (q question) String() string {
	return fmt.Sprintf("topics %v, range %+v, merge %v, uncommitted %v, filter %q", q.topics, q.span, q.merge, q.uncommitted, q.filter)
}

// question draws a read of a kind.
func (l *log) question(rng *rand.Rand, kind string) question {
	all := slices.Sorted(maps.Values(l.topics))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	q := question{topics: all[:1+rng.IntN(2)], merge: rng.IntN(2) == 0, uncommitted: rng.IntN(3) == 0}
	if kind == "timestamped" || kind == "filtered" && rng.IntN(2) == 0 {
		q.span = l.times(rng, q.topics)
	} else {
		q.span = offsets(rng)
	}
	if kind == "filtered" {
		f := filters[rng.IntN(len(filters))]
		q.filter, q.match = f.expr, f.match
	}
	return q
}

var filters = []struct {
	expr  string
	match func(written) bool
}{
	{`key == "k3"`, func(w written) bool { return string(w.key) == "k3" }},
	{`key == null && partition == 1`, func(w written) bool { return w.key == nil && w.partition == 1 }},
	{`value != null && value.n % 3 == 0`, func(w written) bool { return w.n > 0 && w.n%3 == 0 }},
	{`value != null && value.fate == "committed" && key in ["k1", "k2"]`, func(w written) bool {
		return w.n > 0 && w.fate == "committed" && (string(w.key) == "k1" || string(w.key) == "k2")
	}},
	{`value == null || offset < 10`, func(w written) bool { return w.n == 0 || w.offset < 10 }},
	{`topic == "no.such"`, func(written) bool { return false }},
}

// times is a range whose ends lie at, just before, or just after records.
func (l *log) times(rng *rand.Rand, topics []string) position.Range {
	var at []time.Time
	for _, p := range l.places {
		if slices.Contains(topics, p.topic) {
			for _, r := range p.records {
				at = append(at, r.at)
			}
		}
	}
	draw := func() time.Time {
		return at[rng.IntN(len(at))].Add(time.Duration(rng.IntN(3)-1) * time.Millisecond)
	}
	a, b := draw(), draw()
	if b.Before(a) {
		a, b = b, a
	}
	r := position.Range{From: position.Point{Kind: position.Time, At: a}, Until: position.Point{Kind: position.Time, At: b.Add(time.Millisecond)}}
	switch rng.IntN(4) {
	case 0:
		r.From = position.Point{}
	case 1:
		r.Until = position.Point{Kind: position.End}
	}
	return r
}

// offsets is a range by offsets and distances, inside of the log and out of it.
func offsets(rng *rand.Rand) position.Range {
	n := func() int64 { return rng.Int64N(70) }
	a, b := n(), n()
	if b <= a {
		a, b = b, a+1
	}
	end := position.Point{Kind: position.End}
	switch rng.IntN(6) {
	case 0:
		return position.Range{Until: end}
	case 1:
		return position.Range{From: position.Point{Kind: position.Start, N: a}, Until: end}
	case 2:
		return position.Range{From: position.Point{Kind: position.End, N: b}, Until: position.Point{Kind: position.End, N: a}}
	case 3:
		return position.Range{From: position.Point{Kind: position.End, N: b}, Until: end}
	case 4:
		return position.Range{Until: position.Point{Kind: position.Offset, N: b}}
	default:
		return position.Range{From: position.Point{Kind: position.Offset, N: a}, Until: position.Point{Kind: position.Offset, N: b}}
	}
}

// answer is what a read must return, by partition: what the range covers, and what of it matches.
func (l *log) answer(q question) (covered int64, matches map[spot][]written) {
	matches = map[spot][]written{}
	for _, p := range l.places {
		if !slices.Contains(q.topics, p.topic) {
			continue
		}
		hi := p.stable
		if q.uncommitted {
			hi = p.hi
		}
		at := func(point position.Point, none int64) int64 {
			switch point.Kind {
			case position.Offset:
				return point.N
			case position.End:
				return max(p.lo, hi-point.N)
			case position.Start:
				return p.lo + point.N
			default:
				return none
			}
		}
		from, until := at(q.span.From, p.lo), at(q.span.Until, hi)
		for _, r := range p.records {
			if r.offset < from || r.offset >= until || r.offset >= hi || !q.uncommitted && (r.fate == "aborted" || r.fate == "open") {
				continue
			}
			if q.span.From.Kind == position.Time && r.at.Before(q.span.From.At) || q.span.Until.Kind == position.Time && !r.at.Before(q.span.Until.At) {
				continue
			}
			covered++
			if q.match == nil || q.match(r) {
				matches[p.spot] = append(matches[p.spot], r)
			}
		}
	}
	return covered, matches
}

// merged is the order of a merge: the oldest of the partitions' next records, ties by topic and partition.
func merged(matches, all map[spot][]written) []written {
	heads := map[spot][]written{}
	for k, rs := range all {
		heads[k] = slices.Clone(rs)
	}
	wanted := map[spot]map[int64]bool{}
	for k, rs := range matches {
		wanted[k] = map[int64]bool{}
		for _, r := range rs {
			wanted[k][r.offset] = true
		}
	}
	var out []written
	for {
		var first *written
		for _, rs := range heads {
			if len(rs) > 0 && (first == nil || cmp.Or(rs[0].at.Compare(first.at), cmp.Compare(rs[0].topic, first.topic), cmp.Compare(rs[0].partition, first.partition)) < 0) {
				first = &rs[0]
			}
		}
		if first == nil {
			return out
		}
		if wanted[first.spot][first.offset] {
			out = append(out, *first)
		}
		heads[first.spot] = heads[first.spot][1:]
	}
}

// ask reads, and compares.
func (l *log) ask(ctx context.Context, q question) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cfg := reader.Config{Topics: q.topics, Range: q.span, Merge: q.merge, Uncommitted: q.uncommitted, Late: -1}
	if q.filter != "" {
		f, err := filter.New(q.filter, schemas.Memory())
		if err != nil {
			return err
		}
		cfg.Match = f.Match
	}
	r, err := reader.Open(ctx, l.cluster, cfg)
	if err != nil {
		return err
	}
	got := map[spot][]int64{}
	var order []spot
	for e, err := range r.Events(ctx) {
		if err != nil {
			return err
		}
		at := spot{e.Topic, e.Partition}
		got[at], order = append(got[at], e.Offset), append(order, at)
	}
	covered, matches := l.answer(q)
	for _, p := range l.places {
		var want []int64
		for _, w := range matches[p.spot] {
			want = append(want, w.offset)
		}
		if !slices.Equal(got[p.spot], want) {
			return fmt.Errorf("%s/%d: got offsets %v, want %v: %+v of %+v", p.topic, p.partition, got[p.spot], want, r.Complete(), r.Spans())
		}
	}
	c := r.Complete()
	if !c.Done || c.Passed != c.Total || c.Matched != int64(len(order)) || c.Scanned < covered || c.Undecodable+c.Failed > 0 {
		return fmt.Errorf("the reading says %+v of %d events in %d records", c, len(order), covered)
	}
	if !q.merge {
		return nil
	}
	for i, w := range merged(matches, l.scanned(r, q)) {
		if order[i] != w.spot {
			return fmt.Errorf("event %d comes from %v, want %v", i, order[i], w.spot)
		}
	}
	return nil
}

// scanned is what the reading looks at: by its own spans, times and filters aside.
func (l *log) scanned(r *reader.Reading, q question) map[spot][]written {
	out := map[spot][]written{}
	for _, s := range r.Spans() {
		for _, p := range l.places {
			if p.topic != s.Topic || p.partition != s.Partition {
				continue
			}
			for _, w := range p.records {
				if w.offset >= s.From && w.offset < s.Until && (q.uncommitted || w.fate != "aborted" && w.fate != "open") {
					out[p.spot] = append(out[p.spot], w)
				}
			}
		}
	}
	return out
}
