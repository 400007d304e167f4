package integration_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/event"
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

func TestReadsAreExactOnTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"transaction.max.timeout.ms": "900000"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	exactReads(t, kafka.Cluster{Seeds: fake.ListenAddrs()}, writeGo, func(*log) { fake.Compact() })
}

func TestRealReadsAreExact(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]writer{"kgo": writeGo, "Java": writeJava} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := kafkatest.Plain(t)
			exactReads(t, c, write, func(l *log) { l.rollUntilCompacted(t) })
		})
	}
}

// exactReads makes the topics and reads them in every way.
func exactReads(t *testing.T, c kafka.Cluster, write writer, compact func(*log)) {
	t.Helper()
	l := newLog(t, c)
	write(t, c, l.script)
	compact(l)
	l.expire(t, l.topics["expired"], 7)
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

// log is what was written, and what is there.
type log struct {
	cluster kafka.Cluster
	admin   *kadm.Client
	client  *kgo.Client
	topics  map[string]string // by what is adverse about them
	script  []string
	sent    map[string]int // records of each topic
	next    map[spot]int64 // offset
	fates   map[spot]map[int64]string
	n       int
	rng     *rand.Rand
	places  []*place
}

var began = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newLog(t *testing.T, c kafka.Cluster) *log {
	t.Helper()
	client := kafkatest.Client(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	l := &log{cluster: c, admin: kadm.NewClient(client), client: client, topics: map[string]string{}, sent: map[string]int{}, next: map[spot]int64{}, fates: map[spot]map[int64]string{}, rng: rand.New(rand.NewPCG(1, 1))}
	for name, configs := range map[string][]string{
		"plain": nil, "transactions": nil, "aborted tail": nil, "open": nil, "expired": nil, "append": {"message.timestamp.type=LogAppendTime"},
		"compacted": {"cleanup.policy=compact", "min.cleanable.dirty.ratio=0", "delete.retention.ms=0", "min.compaction.lag.ms=0", "segment.ms=100"},
	} {
		if name == "compacted" && !strings.Contains(t.Name(), "Real") {
			configs = append(configs, "segment.bytes=200") // which Kafka refuses: there segments roll by time
		}
		l.topics[name] = kafkatest.Topic(t, c, 3, configs...) // the third partition stays empty
	}
	l.compose(t.Name())
	return l
}

func (l *log) step(words ...string) { l.script = append(l.script, strings.Join(words, "\t")) }

// send writes n records to a partition, their times anywhere within ten minutes.
func (l *log) send(name string, partition, n int, fate string) {
	for range n {
		l.n++
		stamp := began.Add(time.Duration(l.rng.Int64N(120)) * 5 * time.Second) // many are the same
		key, value := fmt.Sprint("k", l.rng.IntN(5)), fmt.Sprintf(`{"n":%d,"fate":%q}`, l.n, fate)
		if l.rng.IntN(6) == 0 {
			key = "-"
		}
		if name == "compacted" {
			key = fmt.Sprint("k", l.n%7)
			if l.n%5 == 0 {
				value = "-"
			}
		}
		l.sent[l.topics[name]]++
		at := spot{l.topics[name], int32(partition)}
		if l.fates[at] == nil {
			l.fates[at] = map[int64]string{}
		}
		l.fates[at][l.next[at]] = fate
		l.next[at]++
		l.step("send", l.topics[name], strconv.Itoa(partition), strconv.FormatInt(stamp.UnixMilli(), 10), key, value)
	}
}

func (l *log) transaction(end string, names ...string) {
	l.step("begin")
	for _, name := range names {
		l.send(name, 0, 4, end)
		l.send(name, 1, 2, end)
	}
	switch end {
	case "committed":
		l.step("commit")
	case "aborted":
		l.step("abort")
	default:
		return // it stays open
	}
	for _, name := range names { // the marker is one offset of each partition
		l.next[spot{l.topics[name], 0}]++
		l.next[spot{l.topics[name], 1}]++
	}
}

// compose writes the script: every topic has something of everything that it can have.
func (l *log) compose(id string) {
	id = strings.NewReplacer("/", "-", "\t", "-").Replace(id) + strconv.FormatUint(rand.Uint64(), 36)
	all := slices.Sorted(maps.Keys(l.topics))
	transactional := []string{"aborted tail", "compacted", "expired", "open", "transactions"}
	l.step("open", "-")
	for _, name := range all {
		l.send(name, 0, 12, "plain")
		l.send(name, 1, 7, "plain")
	}
	l.step("open", id+"-a")
	for range 3 {
		l.transaction("committed", transactional...)
		l.transaction("aborted", transactional...)
	}
	l.transaction("committed", "transactions") // its marker is the last of the log
	l.transaction("aborted", "aborted tail", "compacted")
	l.step("open", id+"-b")
	l.transaction("open", "open")
	l.step("open", "-")
	l.send("open", 0, 5, "plain")
	l.send("plain", 0, 20, "plain")
}

// writer does what a script says: see testdata/Interop.java.
type writer func(t *testing.T, c kafka.Cluster, script []string)

func writeJava(t *testing.T, c kafka.Cluster, script []string) {
	t.Helper()
	javaInterop(t, strings.NewReader(strings.Join(script, "\n")+"\n"), "write", strings.Join(c.Seeds, ","))
}

func writeGo(t *testing.T, c kafka.Cluster, script []string) {
	t.Helper()
	ctx := t.Context()
	var client *kgo.Client
	text := func(s string) []byte {
		if s == "-" {
			return nil
		}
		return []byte(s)
	}
	for _, line := range script {
		step := strings.Split(line, "\t")
		var err error
		switch step[0] {
		case "open":
			opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)}
			if step[1] != "-" {
				opts = append(opts, kgo.TransactionalID(step[1]), kgo.TransactionTimeout(10*time.Minute))
			}
			client = kafkatest.Client(t, c, opts...)
		case "begin":
			err = client.BeginTransaction()
		case "commit":
			err = client.EndTransaction(ctx, kgo.TryCommit)
		case "abort":
			err = client.EndTransaction(ctx, kgo.TryAbort)
		case "send":
			partition, _ := strconv.Atoi(step[2])
			millis, _ := strconv.ParseInt(step[3], 10, 64)
			err = client.ProduceSync(ctx, &kgo.Record{
				Topic: step[1], Partition: int32(partition), Timestamp: time.UnixMilli(millis), Key: text(step[4]), Value: text(step[5]),
				Headers: jsonHeader,
			}).FirstErr()
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
}

var jsonHeader = []kgo.RecordHeader{{Key: event.HeaderContentType, Value: []byte("application/json")}}

// rollUntilCompacted writes to the compacted topic, a segment each time, until the cleaner has been there, and then
// keeps it away, so that all reads see the same log.
func (l *log) rollUntilCompacted(t *testing.T) {
	t.Helper()
	topic := l.topics["compacted"]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for cleaned := false; !cleaned; {
		for p := range int32(2) {
			l.n++
			r := &kgo.Record{
				Topic: topic, Partition: p, Key: []byte("roll"), Value: fmt.Appendf(nil, `{"n":%d,"fate":"plain"}`, l.n), Headers: jsonHeader,
			}
			if err := l.client.ProduceSync(ctx, r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		cleaned = true
		for _, records := range l.bare(ctx, t, 60*time.Millisecond, topic) {
			// both partitions hold seven keys, in more than ten records
			cleaned = cleaned && records[0].Offset > 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the log cleaner has not come")
		}
	}
	never, forever := "delete", "-1"
	if _, err := l.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "cleanup.policy", Value: &never}, {Name: "retention.ms", Value: &forever}}, topic); err != nil {
		t.Fatal(err)
	}
}

func (l *log) expire(t *testing.T, topic string, offset int64) {
	t.Helper()
	var o kadm.Offsets
	o.AddOffset(topic, 0, offset, -1)
	if _, err := l.admin.DeleteRecords(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// bare reads topics with a bare client until nothing has come for a while.
func (l *log) bare(ctx context.Context, t *testing.T, quiet time.Duration, topics ...string) map[spot][]*kgo.Record {
	t.Helper()
	from := map[string]map[int32]kgo.Offset{}
	for _, topic := range topics {
		from[topic] = map[int32]kgo.Offset{}
		for p := range int32(3) {
			from[topic][p] = kgo.NewOffset().AtStart()
		}
	}
	client, err := l.cluster.Client(kgo.ConsumePartitions(from), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	out := map[spot][]*kgo.Record{}
	for {
		wait := quiet
		if len(out) == 0 {
			wait = 20 * time.Second
		}
		polling, cancel := context.WithTimeout(ctx, wait)
		fetches := client.PollFetches(polling)
		cancel()
		if fetches.NumRecords() == 0 {
			return out
		}
		fetches.EachRecord(func(r *kgo.Record) {
			k := spot{r.Topic, r.Partition}
			out[k] = append(out[k], r)
		})
	}
}

// look reads what lies in the topics with a bare client, and holds it against the script.
func (l *log) look(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	topics := slices.Sorted(maps.Values(l.topics))
	starts, err := l.admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := l.admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	found := l.bare(ctx, t, time.Second, topics...)
	for _, topic := range topics {
		n := 0
		for p := range int32(3) {
			lo, _ := starts.Lookup(topic, p)
			hi, _ := ends.Lookup(topic, p)
			at := &place{spot: spot{topic, p}, lo: lo.Offset, hi: hi.Offset, stable: hi.Offset}
			for _, r := range found[at.spot] {
				w := written{spot: at.spot, offset: r.Offset, at: r.Timestamp, key: r.Key, fate: l.fates[at.spot][r.Offset]}
				var data struct {
					N    int64
					Fate string
				}
				if r.Value != nil {
					if err := json.Unmarshal(r.Value, &data); err != nil {
						t.Fatal(err)
					}
					w.n = data.N
				}
				if w.fate == "" { // written after the script, to move the log on
					w.fate = data.Fate
				}
				if r.Value != nil && w.fate != data.Fate {
					t.Fatalf("%s/%d@%d is %s, the script says %s", topic, p, r.Offset, data.Fate, w.fate)
				}
				if w.fate == "open" {
					at.stable = min(at.stable, r.Offset)
				}
				at.records = append(at.records, w)
				n++
			}
			l.places = append(l.places, at)
		}
		want, exact := l.sent[topic], topic != l.topics["compacted"] && topic != l.topics["expired"]
		if exact && n != want || !exact && n >= want || n == 0 {
			t.Fatalf("%s holds %d records, %d were written", topic, n, want)
		}
	}
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
