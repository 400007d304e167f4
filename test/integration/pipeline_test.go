package integration_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/schemas"
)

// Typed events through typed handlers, one at a time and in batches, with every verdict: each event ends once, in its
// key's order, and a dead letter is its event byte for byte, with where it came from and why.
func TestRealPipelineVerdicts(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, 3)
	trips := kafkatest.Topic(t, p.cluster, 2)
	register(t, p.writes, p.topic, schemas.MustFor[parcel]())
	register(t, p.writes, trips, schemas.MustFor[trip]())
	fate := func(i int) string {
		if name, ok := map[int]string{3: "flaky", 17: "flaky", 20: "hopeless", 33: "never", 34: "drop", 51: "panic"}[i]; ok {
			return name
		}
		return "fine"
	}
	why := map[string]string{"hopeless": "rejected 1", "never": "handler 3", "panic": "panic 3"}
	letters := map[string]map[string]string{p.topic: {}, trips: {}} // class and attempts by event id
	var sent []event.Event
	for i := range 60 {
		id := fmt.Sprintf("%02d-%s", i, fate(i))
		single := event.New(p.topic, "k"+strconv.Itoa(i%7), parcel{ID: id})
		batched := event.New(trips, "k"+strconv.Itoa(i%7), trip{strings.Replace(id, "panic", "fine", 1), "Ulm", int64(i)}) // a panic is one error for all
		sent = append(sent, single, batched)
		if why, dead := why[fate(i)]; dead {
			letters[p.topic][single.ID] = why
			if fate(i) != "panic" {
				letters[trips][batched.ID] = why
			}
		}
	}
	for i, raw := range [][]byte{{0, 0, 42}, {0, 0x7f, 0, 0, 0, 1}, []byte("no frame")} {
		e := event.New(p.topic, "k"+strconv.Itoa(i), nil)
		e.Value, e.Type, e.Headers = raw, "pipeline.Parcel", event.Headers{{Key: "x", Value: raw}, {Key: "x", Value: nil}}
		sent = append(sent, e)
		letters[p.topic][e.ID] = "poison 1"
	}
	publish(t, p.cluster, p.writes, sent...)

	verdict := func(id string, attempt int) error {
		switch _, fate, _ := strings.Cut(id, "-"); {
		case fate == "flaky" && attempt < 3, fate == "never":
			return errors.New("not now")
		case fate == "hopeless":
			return consumer.DeadLetter(errors.New("not ever"))
		case fate == "drop":
			return consumer.Drop(errors.New("not needed"))
		case fate == "panic":
			panic("mill wheel")
		}
		return nil
	}
	mux := consumer.NewMux()
	consumer.On(mux, func(_ context.Context, e event.Of[parcel]) error {
		err := verdict(e.Data.ID, e.Attempt)
		if err == nil {
			p.note(fmt.Sprintf("%s %s", e.Key, e.Data.ID))
		}
		return err
	})
	consumer.OnBatch(mux, func(_ context.Context, es []event.Of[trip]) error {
		errs := make([]error, len(es))
		for i, e := range es {
			if errs[i] = verdict(e.Data.ID, e.Attempt); errs[i] == nil {
				p.note(fmt.Sprintf("trip %s %s", e.Key, e.Data.ID))
			}
		}
		return consumer.Each(errs)
	})
	stop := p.consume(mux, consumer.Config{Topics: []string{p.topic, trips}, Retry: consumer.Retry{Attempts: 3}})
	adm := p.admin()
	await(t, "everything is committed", func() bool { return p.committed(adm, p.topic, trips) })
	stop()

	last := map[string]string{}
	count := map[string]int{}
	for _, line := range p.seen() {
		count[line]++
		key, id := line[:strings.LastIndexByte(line, ' ')], line[strings.LastIndexByte(line, ' ')+1:]
		batched := strings.HasPrefix(key, "trip") && strings.HasSuffix(id, "-flaky") // those behind it were done at once
		if id <= last[key] && !batched {
			t.Errorf("%s: %s was handled after %s", key, id, last[key])
		}
		last[key] = max(last[key], id)
	}
	for i := range 60 {
		done := map[string]int{"fine": 1, "flaky": 1}[fate(i)]
		single, batched := fmt.Sprintf("k%d %02d-%s", i%7, i, fate(i)), fmt.Sprintf("trip k%d %02d-%s", i%7, i, fate(i))
		if count[single] != done || count[batched] != done && fate(i) != "panic" {
			t.Errorf("%q was done %d times, %q %d times, want %d", single, count[single], batched, count[batched], done)
		}
	}
	if n := p.observed.count(consumer.Dropped); n != 2 {
		t.Errorf("%d events were dropped, want 2", n)
	}
	for topic, want := range letters {
		p.wantLetters(topic, want)
	}
}

// wantLetters compares the dead letters of a topic with the records they are copies of. want has the class and the
// attempts by the event's id.
func (p *pipeline) wantLetters(topic string, want map[string]string) {
	t := p.t
	t.Helper()
	adm := p.admin()
	dead := topic + "." + p.group + ".dlq"
	if n := length(t, adm, dead); int(n) != len(want) {
		t.Errorf("%s has %d dead letters, want %d", topic, n, len(want))
		return
	}
	origin := map[string]*kgo.Record{}
	for _, r := range consumeAll(t, p.cluster, topic, int(length(t, adm, topic))) {
		origin[fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset)] = r
	}
	for _, r := range consumeAll(t, p.cluster, dead, len(want)) {
		h := wire.Headers(r.Headers)
		get := func(name string) string { return string(h.Get(name)) }
		place := fmt.Sprintf("%s/%s@%s", get(event.HeaderOriginTopic), get(event.HeaderOriginPartition), get(event.HeaderOriginOffset))
		from := origin[place]
		if from == nil {
			t.Errorf("a dead letter of %s: there is no such record, or two letters of it", place)
			continue
		}
		delete(origin, place)
		if !bytes.Equal(r.Key, from.Key) || !bytes.Equal(r.Value, from.Value) {
			t.Errorf("%s: key and value are %q %q, and of the dead letter %q %q", place, from.Key, from.Value, r.Key, r.Value)
		}
		if got, want := headersOf(r), headersOf(from); got != want {
			t.Errorf("%s: the headers are %s, and of the dead letter %s", place, want, got)
		}
		if ts := strconv.FormatInt(from.Timestamp.UnixMilli(), 10); get(event.HeaderOriginTimestamp) != ts || get(event.HeaderGroup) != p.group || get(event.HeaderError) == "" {
			t.Errorf("%s: the dead letter has %q", place, r.Headers)
		}
		if got := get(event.HeaderErrorClass) + " " + get(event.HeaderAttempts); got != want[get(event.HeaderID)] {
			t.Errorf("%s: a dead letter by %q, want %q", place, got, want[get(event.HeaderID)])
		}
	}
}

// headersOf are a record's headers in their order, without those that a dead letter adds.
func headersOf(r *kgo.Record) string {
	hs := slices.DeleteFunc(slices.Clone(r.Headers), func(h kgo.RecordHeader) bool { return strings.HasPrefix(h.Key, "millrace_") })
	return fmt.Sprintf("%q", hs)
}

// A registry that is away is nobody's fault: what needs it waits, in its partition alone, and nothing is a dead letter.
func TestRealPipelineWaitsForTheRegistry(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, 2)
	mux := consumer.NewMux()
	consumer.On(mux, func(_ context.Context, e event.Of[parcel]) error {
		p.note(e.Data.ID + e.Data.Note)
		return nil
	})
	p.consume(mux, consumer.Config{})
	old, err := schemas.New(schemas.Config{URLs: []string{p.registry.url()}, TTL: time.Hour}) // of a writer that is not deployed anew
	if err != nil {
		t.Fatal(err)
	}
	register(t, old, p.topic, schemas.MustFor[firstParcel]())
	publish(t, p.cluster, old, event.New(p.topic, "a", firstParcel{"known"}), event.New(p.topic, "b", firstParcel{"known"}))
	p.await(2)
	register(t, p.writes, p.topic, schemas.MustFor[parcel]())
	ahead := event.New(p.topic, "a", parcel{"new", "!"})
	if _, err := p.writes.Encode(t.Context(), nil, &ahead); err != nil { // what it knows it can write without the registry
		t.Fatal(err)
	}

	p.registry.away()
	publish(t, p.cluster, p.writes, ahead)
	await(t, "the partition waits", func() bool { return p.observed.count(consumer.Paused) >= 3 })
	publish(t, p.cluster, old, event.New(p.topic, "a", firstParcel{"behind"}), event.New(p.topic, other(t, p, "a"), firstParcel{"elsewhere"}))
	p.await(3)
	if got := p.seen()[2:]; !slices.Equal(got, []string{"elsewhere"}) {
		t.Errorf("while the registry is away %v were handled, want the event of the other partition", got)
	}

	p.registry.back()
	p.await(5)
	if got := p.seen()[3:]; !slices.Equal(got, []string{"new!", "behind"}) {
		t.Errorf("when the registry is back %v were handled", got)
	}
	if n := length(t, p.admin(), p.topic+"."+p.group+".dlq"); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

// other is a key of another partition than key's.
func other(t *testing.T, p *pipeline, key string) string {
	t.Helper()
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic(p.topic)
	for i := range 100 {
		if k := strconv.Itoa(i); partitioner.Partition(&kgo.Record{Key: []byte(k)}, 2) != partitioner.Partition(&kgo.Record{Key: []byte(key)}, 2) {
			return k
		}
	}
	t.Fatal("all keys have one partition")
	return ""
}

// Each kind of membership shares partitions, commits what is done, and goes on there after a restart.
func TestRealPipelineMembership(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]consumer.Config{
		"classic": {}, "assigned by the server": {ServerAssign: true}, "static": {InstanceID: "shipping-%d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPipeline(t, 4)
			join := func(i int, mux *consumer.Mux) (*observed, func()) {
				cfg := cfg
				cfg.InstanceID = strings.Replace(cfg.InstanceID, "%d", strconv.Itoa(i), 1)
				o := newObserved()
				cfg.Observer = o
				return o, p.consume(mux, cfg)
			}
			first, stopFirst := join(0, p.values())
			await(t, "the first member has all", func() bool { return first.assigned() == 4 })
			second, stopSecond := join(1, p.values())
			await(t, "the second member has a part", func() bool { return second.assigned() == 2 })

			adm := p.admin()
			for round := range 2 {
				var events []event.Event
				for i := range 100 {
					e := event.New(p.topic, strconv.Itoa(i), nil)
					e.Value = fmt.Appendf(nil, "%d-%d", round, i)
					events = append(events, e)
				}
				publish(t, p.cluster, p.writes, events...)
				await(t, "everything is committed", func() bool { return p.committed(adm, p.topic) })
				if round > 0 {
					break
				}
				p.wantMembers(adm, cfg, 2)
				stopFirst()
				stopSecond()
				first, stopFirst = join(0, p.values())
				second, stopSecond = join(1, p.values())
				await(t, "the members are back", func() bool { return first.assigned() > 0 && second.assigned() > 0 })
			}
			stopFirst()
			stopSecond()
			got := p.seen()
			slices.Sort(got)
			if n := len(slices.Compact(slices.Clone(got))); n != 200 || len(got) != 200 {
				t.Errorf("%d events were handled %d times, want 200 once", n, len(got))
			}
		})
	}
}

// wantMembers asks the cluster which members the group has.
func (p *pipeline) wantMembers(adm *kadm.Client, cfg consumer.Config, n int) {
	p.t.Helper()
	if cfg.ServerAssign {
		groups, err := adm.DescribeConsumerGroups(p.t.Context(), p.group)
		if g := groups[p.group]; err != nil || g.Err != nil || len(g.Members) != n {
			p.t.Errorf("the cluster knows %d members of a group of its own protocol, want %d (%v, %v)", len(g.Members), n, err, g.Err)
		}
		return
	}
	groups, err := adm.DescribeGroups(p.t.Context(), p.group)
	g := groups[p.group]
	if err != nil || g.Err != nil || len(g.Members) != n {
		p.t.Errorf("the cluster knows %d members, want %d (%v, %v)", len(g.Members), n, err, g.Err)
	}
	for _, m := range g.Members {
		if (m.InstanceID != nil) != (cfg.InstanceID != "") {
			p.t.Errorf("member %s has the instance %v, configured is %q", m.MemberID, m.InstanceID, cfg.InstanceID)
		}
	}
}

// A group that has no position starts where it is told to, and one that has goes on there whatever it is told.
func TestRealPipelineStarts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		start position.Point
		first int
	}{
		{"at the log's start", position.Point{}, 0},
		{"at its end", position.Point{Kind: position.End}, 10},
		{"before its end", position.Point{Kind: position.End, N: 3}, 7},
		{"at an offset", position.Point{Kind: position.Offset, N: 4}, 4},
		{"at an offset that is none", position.Point{Kind: position.Offset, N: 400}, 10},
		{"at a time", position.Point{Kind: position.Time, At: base.Add(5 * time.Second)}, 5},
		{"between two times", position.Point{Kind: position.Time, At: base.Add(5*time.Second + time.Millisecond)}, 6},
		{"at a time to come", position.Point{Kind: position.Time, At: base.Add(1000 * time.Hour)}, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPipeline(t, 1)
			p.write(10)
			stop := p.consume(p.values(), consumer.Config{Start: tt.start})
			await(t, "the partition is assigned", func() bool { return p.observed.assigned() == 1 })
			p.write(1)
			p.await(11 - tt.first)
			stop()
			p.write(1)
			p.consume(p.values(), consumer.Config{Start: position.Point{Kind: position.End}})
			p.await(12 - tt.first)
			if got, want := p.seen(), numbers(tt.first, 12); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// A group is Kafka's, not ours: another client goes on where we stopped, we go on where it stopped and say that the
// commit is a stranger's.
func TestRealPipelineLeavesAGroupToOthersAndTakesItBack(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, 1)
	ours := func(until, replaced int) {
		t.Helper()
		p.observed.forget()
		stop := p.consume(p.values(), consumer.Config{})
		await(t, "the partition is assigned", func() bool { return p.observed.assigned() == 1 })
		p.await(until)
		stop()
		if n := p.observed.replaced(); n != replaced {
			t.Errorf("a stranger's commit was found %d times, want %d: %v", n, replaced, p.observed.problems)
		}
	}
	p.write(10)
	ours(10, 0)

	p.write(10)
	func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cl, err := p.cluster.Client(kgo.ConsumerGroup(p.group), kgo.ConsumeTopics(p.topic), kgo.DisableAutoCommit())
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close() // leaves the group
		for got := 0; got < 5; {
			fetches := cl.PollRecords(ctx, 5-got)
			if err := fetches.Err(); err != nil {
				t.Fatal(err)
			}
			for _, r := range fetches.Records() {
				p.note(string(r.Value))
				got++
			}
		}
		if err := cl.CommitUncommittedOffsets(ctx); err != nil {
			t.Fatal(err)
		}
	}()
	ours(20, 1)

	p.write(10)
	java := javaInterop(t, nil, "group", strings.Join(p.cluster.Seeds, ","), p.topic, "5", p.group)
	for line := range strings.Lines(java) {
		value, err := strconv.Unquote(`"\x` + strings.Join(pairs(strings.Fields(line)[3]), `\x`) + `"`)
		if err != nil {
			t.Fatal(err)
		}
		p.note(value)
	}
	ours(30, 2)
	ours(30, 2) // and then it is our own again
	if got, want := p.seen(), numbers(0, 30); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// pairs cuts s into pieces of two.
func pairs(s string) (out []string) {
	for c := range slices.Chunk([]byte(s), 2) {
		out = append(out, string(c))
	}
	return out
}

// Events of an aborted transaction reach a handler only where it asks for them; those of an open one wait.
func TestRealPipelineReadsCommittedTransactions(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, 1)
	cl := kafkatest.Client(t, p.cluster, kgo.TransactionalID(p.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	begin := func(values ...string) {
		t.Helper()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: p.topic, Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := func(how kgo.TransactionEndTry) {
		t.Helper()
		if err := cl.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	begin("a", "b")
	end(kgo.TryCommit)
	begin("c", "d")
	end(kgo.TryAbort)
	begin("e", "f")

	dirty := newPipeline(t, 1)
	dirty.topic = p.topic
	dirty.consume(dirty.values(), consumer.Config{Uncommitted: true})
	dirty.await(6)
	if got := strings.Join(dirty.seen(), ""); got != "abcdef" {
		t.Errorf("uncommitted: got %q", got)
	}

	stop := p.consume(p.values(), consumer.Config{})
	p.await(2)
	end(kgo.TryCommit)
	p.await(4)
	stop()
	p.written = 7
	p.write(1) // where the group goes on, behind the markers
	p.consume(p.values(), consumer.Config{})
	p.await(5)
	if got := strings.Join(p.seen(), ""); got != "abef7" {
		t.Errorf("committed: got %q", got)
	}
}
