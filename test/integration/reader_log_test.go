package integration_test

import (
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
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/kafka"
)

// site is where the topics lie.
type site struct {
	cluster kafka.Cluster
	small   bool       // takes segments of some hundred bytes; Kafka refuses them, and there segments end by time
	compact func(*log) // nil where nothing is compacted
}

// log is what was written, and what is there.
type log struct {
	site
	admin  *kadm.Client
	client *kgo.Client
	topics map[string]string // by what is adverse about them
	script []string
	sent   map[string]int // records of each topic
	next   map[spot]int64 // offset
	fates  map[spot]map[int64]string
	n      int
	rng    *rand.Rand
	places []*place
}

var began = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newLog(t *testing.T, at site) *log {
	t.Helper()
	client := kafkatest.Client(t, at.cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	l := &log{site: at, admin: kadm.NewClient(client), client: client, topics: map[string]string{}, sent: map[string]int{}, next: map[spot]int64{}, fates: map[spot]map[int64]string{}, rng: rand.New(rand.NewPCG(1, 1))}
	compacted := []string{"cleanup.policy=compact", "min.cleanable.dirty.ratio=0", "delete.retention.ms=0", "min.compaction.lag.ms=0", "segment.ms=100"}
	if at.small {
		compacted = append(compacted, "segment.bytes=200")
	}
	for name, configs := range map[string][]string{
		"plain": nil, "transactions": nil, "aborted tail": nil, "open": nil, "expired": nil, "append": {"message.timestamp.type=LogAppendTime"},
		"compacted": compacted, "silent": compacted,
	} {
		l.topics[name] = kafkatest.Topic(t, at.cluster, 3, configs...) // the third partition stays empty
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
		if name == "compacted" || name == "silent" {
			key = fmt.Sprint("k", l.n%7) // Kafka refuses to compact without keys
			if name == "compacted" && l.n%5 == 0 {
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
		if name != "silent" { // whose second partition has nothing but what is aborted
			l.send(name, 1, 7, "plain")
		}
	}
	l.step("open", id+"-a")
	for range 3 {
		l.transaction("committed", transactional...)
		l.transaction("aborted", transactional...)
	}
	l.transaction("committed", "transactions") // its marker is the last of the log
	l.transaction("aborted", "aborted tail", "compacted", "silent")
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

// rollUntilCompacted writes to the compacted topic, a segment each time, until the cleaner has been there and at the
// silent topic, and then keeps it away, so that all reads see the same log. The silent topic ends with the marker of an
// aborted transaction whose records are cleaned away: its end lies behind a gap, and no record is ever read there.
func (l *log) rollUntilCompacted(t *testing.T) {
	t.Helper()
	topic, silent := l.topics["compacted"], l.topics["silent"]
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
		for at, records := range l.bare(ctx, t, 60*time.Millisecond, topic, silent) {
			last := l.fates[at][records[len(records)-1].Offset]
			// both partitions of the first hold seven keys, in more than ten records
			cleaned = cleaned && (at.topic == topic && records[0].Offset > 0 || at.topic == silent && last == "plain")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the log cleaner has not come")
		}
	}
	never, forever := "delete", "-1"
	if _, err := l.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "cleanup.policy", Value: &never}, {Name: "retention.ms", Value: &forever}}, topic, silent); err != nil {
		t.Fatal(err)
	}
}

// expire deletes the beginning of the topic's first partition, and all of its second.
func (l *log) expire(t *testing.T, topic string) {
	t.Helper()
	var o kadm.Offsets
	o.AddOffset(topic, 0, 7, -1)
	o.AddOffset(topic, 1, l.next[spot{topic, 1}], -1)
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
		want := l.sent[topic]
		compacted := l.compact != nil && (topic == l.topics["compacted"] || topic == l.topics["silent"])
		fewer := compacted || topic == l.topics["expired"]
		if !fewer && n != want || fewer && n >= want || n == 0 {
			t.Fatalf("%s holds %d records, %d were written", topic, n, want)
		}
	}
	l.tails(t)
}

// tails makes sure that there are partitions at whose ends no record is: behind the last one of the silent topic, for
// one, at least the records and the marker of a transaction that was aborted. Its second partition has no record at all.
func (l *log) tails(t *testing.T) {
	t.Helper()
	for _, p := range l.places {
		committed := slices.DeleteFunc(slices.Clone(p.records), func(w written) bool { return w.fate == "aborted" || w.fate == "open" })
		end, left := p.lo, p.records
		if l.compact == nil {
			left = committed
		}
		if len(left) > 0 {
			end = left[len(left)-1].offset + 1
		}
		switch {
		case p.topic == l.topics["silent"] && p.partition == 0 && (len(left) == 0 || p.hi-end < 5),
			p.topic == l.topics["silent"] && p.partition == 1 && (len(left) > 0 || p.hi == end),
			p.topic == l.topics["expired"] && p.partition == 1 && (len(p.records) > 0 || p.lo != p.hi || p.hi == 0),
			p.topic == l.topics["transactions"] && p.partition < 2 && p.hi-end != 1:
			t.Errorf("%s/%d is no trap: %d records of the offsets %d to %d, the last at %d", p.topic, p.partition, len(left), p.lo, p.hi, end-1)
		}
	}
}
