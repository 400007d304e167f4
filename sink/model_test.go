package sink_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sinktest"
)

// placed is the event of the model: an order, its country and what it costs.
type placed struct {
	Order   string `avro:"order"`
	Country string `avro:"country"`
	Cents   int64  `avro:"cents"`
}

func (placed) AvroName() string   { return "shop.OrderPlaced" }
func (placed) AvroSchema() string { return placedSchema }

var placedSchema = schemas.MustFor[placed]()

const topic = "shop.orders"

// bad is a price that the function refuses, worse one that the database does.
const (
	bad   = -1
	worse = -2
)

type revenue struct{ Orders, Cents int64 }

// model is a log, a database and members that crash, sleep, and lose their partitions.
type model struct {
	t         *testing.T
	mu        sync.Mutex // of what follows
	rng       *rand.Rand
	reg       *schemas.Registry
	logs      [][]*kgo.Record
	db        *sinktest.Memory
	bug       string
	committed map[cursor.ID]int64 // in Kafka
	buried    map[string]int      // by id
	calm      bool                // no more faults
	// dedupe: producers repeat events and the sink skips them. Every other model goes without: what dedupe forgives
	// must not be there.
	dedupe time.Duration
}

const partitions = 3

// start of the model's time.
var epoch = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func newModel(t *testing.T, seed uint64, bug string) *model {
	t.Helper()
	m := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), reg: schemas.Memory(), db: sinktest.NewMemory(), bug: bug,
		committed: map[cursor.ID]int64{}, buried: map[string]int{}, logs: make([][]*kgo.Record, partitions),
	}
	if seed%2 == 0 {
		m.dedupe = time.Hour
	}
	m.db.Bug = sinktest.Bug(bug)
	m.db.Hook = m.fault
	m.fill()
	return m
}

func (m *model) intN(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

// fair reports that faults are over, or that there is none for once.
func (m *model) fair(oneIn int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calm || m.rng.IntN(oneIn) > 0
}

func (m *model) bury(_ context.Context, e event.Event, _ deadletter.Failure) error {
	if !m.fair(20) {
		return errors.New("no broker")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buried[e.ID]++
	return nil
}

// report is what Kafka hears of a position.
func (m *model) report(p int, next int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committed[idOf(p)] = next
}

func (m *model) reported() map[cursor.ID]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.committed)
}

// fill writes the log: gaps between offsets, producers' repeats, bytes that do not decode, events that are refused,
// tombstones, and times that run back.
func (m *model) fill() {
	for p := range m.logs {
		offset, now := int64(m.intN(5)), epoch
		var last event.Event
		for i := range 40 + m.intN(40) {
			offset += 1 + int64(m.intN(3))
			now = now.Add(time.Duration(m.intN(60)) * time.Second)
			e := event.Event{Meta: event.Meta{
				ID: fmt.Sprintf("p%d-%03d", p, i), Topic: topic, Key: fmt.Appendf(nil, "o%d-%d", p, m.intN(8)), Source: "test",
				Time: now.Add(-time.Duration(m.intN(200)) * time.Second),
			}}
			data := placed{Order: string(e.Key), Country: []string{"DE", "FR", "IT", "PL"}[m.intN(4)], Cents: int64(1 + m.intN(1000))}
			e.Data = data
			switch n := m.intN(40); {
			case n < 5 && last.ID != "" && m.dedupe > 0:
				e = last
			case n == 6:
				e.Data, e.Value = nil, m.garbage(e)
			case n == 7:
				data.Cents = bad
				e.Data = data
			case n == 8:
				data.Cents = worse
				e.Data = data
			case n < 11:
				e.Data = nil
			}
			last = e
			m.append(p, offset, now, e)
		}
	}
}

// garbage is a value of e's type that ends too soon.
func (m *model) garbage(e event.Event) []byte {
	m.t.Helper()
	value, err := m.reg.Encode(m.t.Context(), nil, &e)
	if err != nil {
		m.t.Fatal(err)
	}
	return value[:8]
}

func (m *model) append(p int, offset int64, at time.Time, e event.Event) {
	m.t.Helper()
	value := e.Value
	if e.Data != nil {
		var err error
		if value, err = m.reg.Encode(m.t.Context(), nil, &e); err != nil {
			m.t.Fatal(err)
		}
	}
	r := wire.Record(&e, value)
	r.Topic, r.Partition, r.Offset, r.Timestamp, r.LeaderEpoch = topic, int32(p), offset, at, 1
	m.logs[p] = append(m.logs[p], r)
}

func idOf(p int) cursor.ID {
	return cursor.ID{Reader: "analytics", Topic: topic, TopicID: [16]byte{7}, Partition: int32(p)}
}

// errCrash ends a process. To whoever notices it looks like a database that is away: nothing more is done.
var errCrash = &sinktest.Error{Fault: sink.Away, Text: "the process is gone"}

// fault makes calls of the database slow, so that transactions overlap, and some of them fail.
func (m *model) fault(_ context.Context, at sinktest.Step, _ *sinktest.Tx) error {
	<-time.After(time.Duration(1+m.intN(20)) * time.Millisecond)
	if m.fair(25) {
		return nil
	}
	switch n := m.intN(6); {
	case n == 0:
		return errCrash
	case n == 1:
		return sinktest.ErrDeadlock
	case n == 2 && at == sinktest.Commit:
		return fmt.Errorf("cut: %w", sink.ErrUnknownCommit)
	case n < 4 && at == sinktest.Committed:
		return errors.New("cut")
	default:
		return sinktest.ErrAway
	}
}

// mux has all three uses. The function counts how often each event has had an effect.
func (m *model) mux() *sink.Mux[*sinktest.Tx] {
	out := sink.NewMux[*sinktest.Tx](m.db)
	sink.On(out, func(ctx context.Context, tx *sinktest.Tx, es []event.Of[placed]) error {
		for _, e := range es {
			n, err := tx.Get(ctx, e.ID)
			if err != nil {
				return err
			}
			if err := tx.Put(ctx, e.ID, n+"1"); err != nil {
				return err
			}
			switch e.Data.Cents {
			case bad:
				return fmt.Errorf("order %s is refused", e.Data.Order)
			case worse:
				return tx.Refuse(sinktest.ErrData)
			}
		}
		return nil
	})
	sink.OnFold(out, sink.Fold[placed]{Name: "revenue", By: func(e event.Of[placed]) string { return e.Data.Country }}, add)
	sink.OnFold(out, sink.Fold[placed]{
		Name: "per_minute", By: func(e event.Of[placed]) string { return e.Data.Country },
		Window: time.Minute, Lateness: 2 * time.Minute,
	}, add)
	out.Table(sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"order"}})
	out.Table(sink.Table{Name: "history", Event: "shop.OrderPlaced", Append: true})
	return out
}

func add(r revenue, e event.Of[placed]) revenue { return revenue{r.Orders + 1, r.Cents + e.Data.Cents} }

// member is a process that has a partition, or thinks so.
type member struct {
	*sink.Member
	lease   cursor.Lease
	next    int64
	attempt int
}

// logsOf answers for Kafka.
type logsOf struct{ *engine.Memory }

func (logsOf) LogStarts(_ context.Context, ids []cursor.ID) (map[cursor.ID]int64, error) {
	return make(map[cursor.ID]int64, len(ids)), nil
}

func (logsOf) Report(context.Context, map[cursor.ID]cursor.Claimed, string) (map[cursor.ID]error, error) {
	return nil, nil
}

func (logsOf) Starts(_ context.Context, ids []cursor.ID) (map[cursor.ID]int64, error) {
	return make(map[cursor.ID]int64, len(ids)), nil
}

// join makes a process and gives it partition p.
func (m *model) join(p int) *member {
	m.t.Helper()
	joined, err := sink.NewMember(m.t.Context(), logsOf{}, logsOf{}, m.reg, m.mux(), sink.Config{
		Name: "analytics", Topics: []string{topic}, Dedupe: m.dedupe, Retry: consumer.Retry{Attempts: 2},
	}, m.bury, m.bug)
	if err != nil {
		m.t.Fatal(err)
	}
	out := &member{Member: joined}
	if !m.claim(out, p) {
		return nil
	}
	return out
}

func (m *model) claim(who *member, p int) bool {
	claimed, err := who.Claim(m.t.Context(), []cursor.ID{idOf(p)}, m.reported())
	if err != nil {
		return false
	}
	c := claimed[idOf(p)]
	who.lease, who.next, who.attempt = c.Lease, c.Position, 1
	return true
}

// turn hands some records of p to who. It reports false when the process is gone.
func (m *model) turn(who *member, p int) bool {
	log := m.logs[p]
	from, _ := slices.BinarySearchFunc(log, who.next, func(r *kgo.Record, at int64) int { return int(r.Offset - at) })
	n := min(1+m.intN(15), len(log)-from)
	if n == 0 {
		return true
	}
	b := engine.Batch{ID: idOf(p), Lease: who.lease, Next: log[from+n-1].Offset + 1}
	for _, r := range log[from : from+n] {
		b.Items = append(b.Items, engine.Item{Record: r, Attempt: who.attempt})
	}
	verdicts := who.Handle(m.t.Context(), b)
	if verdicts == nil {
		who.next, who.attempt = b.Next, 1
		if m.intN(3) == 0 { // Kafka hears of it, later or never
			m.report(p, b.Next)
		}
		return true
	}
	switch v := verdicts[0]; {
	case errors.Is(v.Err, errCrash):
		return false
	case errors.Is(v.Err, cursor.ErrFenced):
		return m.intN(2) == 0 && m.claim(who, p) // it is ours, as far as we know
	case v.Kind == verdict.Retry:
		who.attempt++
	case v.Kind == verdict.Stop:
		m.t.Logf("partition %d: %v", p, v.Err)
		return false
	}
	return true
}

// run lets members work on one partition until all is written: the owner, and those that do not know that they are it
// no more.
func (m *model) run(p int) (done bool) {
	var members []*member
	for range 400 {
		if len(members) == 0 || m.intN(15) == 0 {
			if who := m.join(p); who != nil {
				members = append(members, who)
			}
			continue
		}
		who := members[len(members)-1]
		if m.intN(5) == 0 {
			who = members[m.intN(len(members))] // a sleeper
		}
		if !m.turn(who, p) {
			members = slices.DeleteFunc(members, func(o *member) bool { return o == who })
		}
	}
	m.mu.Lock()
	m.calm = true
	m.mu.Unlock()
	for range 400 {
		who := m.join(p)
		for range 200 {
			if !m.turn(who, p) {
				break
			}
		}
		if rows, _ := m.db.Positions(m.t.Context(), "analytics"); slices.ContainsFunc(rows, func(r sink.Position) bool {
			return r.ID == idOf(p) && r.Next == m.logs[p][len(m.logs[p])-1].Offset+1
		}) {
			return true
		}
	}
	return false
}

// want is what the log says.
type want struct {
	effects, revenue, perMinute, orders, history map[string]string
	letters                                      map[string]bool
}

func (m *model) want() want {
	w := want{map[string]string{}, nil, nil, map[string]string{}, map[string]string{}, map[string]bool{}}
	all, minutes := map[string]revenue{}, map[string]revenue{}
	for _, log := range m.logs {
		seen := map[string]bool{}
		var watermark time.Time
		for _, r := range log {
			var e event.Event
			wire.Read(&e, r, [16]byte{7})
			before := watermark
			if e.Time.After(watermark) {
				watermark = e.Time
			}
			if e.Value == nil {
				if !seen[e.ID] {
					seen[e.ID] = true
					delete(w.orders, string(e.Key))
				}
				continue
			}
			var data placed
			if err := m.reg.Decode(m.t.Context(), &e, &data); err != nil || data.Cents < 0 {
				w.letters[e.ID] = true
				continue
			}
			if seen[e.ID] {
				continue
			}
			seen[e.ID] = true
			w.effects[e.ID] = "1"
			w.orders[data.Order] = fmt.Sprint(data.Cents)
			w.history[e.ID] = fmt.Sprint(data.Cents)
			all[data.Country] = add(all[data.Country], event.Of[placed]{Data: data})
			window := e.Time.Truncate(time.Minute).UTC()
			if !before.Before(window.Add(3 * time.Minute)) {
				continue
			}
			k := data.Country + "@" + window.Format(time.RFC3339Nano)
			minutes[k] = add(minutes[k], event.Of[placed]{Data: data})
		}
	}
	w.revenue, w.perMinute = texts(all), texts(minutes)
	return w
}

func texts(of map[string]revenue) map[string]string {
	out := map[string]string{}
	for k, r := range of {
		out[k] = `{"Orders":` + strconv.FormatInt(r.Orders, 10) + `,"Cents":` + strconv.FormatInt(r.Cents, 10) + `}`
	}
	return out
}

// check compares the database with what the log says.
func (m *model) check() (wrong []string) {
	w := m.want()
	same := func(what string, got, want map[string]string) {
		if maps.Equal(got, want) {
			return
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got[k] != want[k] {
				wrong = append(wrong, fmt.Sprintf("%s of %s: %q, want %q", what, k, got[k], want[k]))
			}
		}
		for k := range got {
			if _, ok := want[k]; !ok {
				wrong = append(wrong, fmt.Sprintf("%s of %s: %q, want none", what, k, got[k]))
			}
		}
	}
	same("effects", m.db.Values(), w.effects)
	same("revenue", m.db.States("revenue"), w.revenue)
	same("revenue per minute", m.db.States("per_minute"), w.perMinute)
	rows := func(table, key string) map[string]string {
		out := map[string]string{}
		for _, r := range m.db.Rows(table) {
			out[r[key]] = r["cents"]
		}
		return out
	}
	same("row of orders", rows("orders", "order"), w.orders)
	same("row of history", rows("history", "event_id"), w.history)
	for id := range w.letters {
		if m.buried[id] == 0 {
			wrong = append(wrong, "no dead letter of "+id)
		}
	}
	for id := range m.buried {
		if !w.letters[id] {
			wrong = append(wrong, "a dead letter of "+id)
		}
	}
	return wrong
}

// play runs one model to its end and returns what is wrong with the database.
func play(t *testing.T, seed uint64, bug string) (wrong []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, seed, bug)
		done := make(chan string, partitions)
		for p := range partitions {
			go func() {
				if !m.run(p) {
					done <- fmt.Sprintf("partition %d has not come to its end", p)
					return
				}
				done <- ""
			}()
		}
		for range partitions {
			if text := <-done; text != "" {
				wrong = append(wrong, text)
			}
		}
		wrong = append(wrong, m.check()...)
	})
	return wrong
}

// Whatever crashes and whoever sleeps, the database is what the log says.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			if wrong := play(t, seed, ""); len(wrong) > 0 {
				t.Errorf("%d differences:\n%s", len(wrong), strings.Join(wrong[:min(len(wrong), 10)], "\n"))
			}
		})
	}
}

func TestModelFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []string{
		string(sinktest.CommitEarly), string(sinktest.NoCompare), string(sinktest.LockOnly),
		sink.ExpectFirst, sink.FromKafka, sink.ByTime, sink.FoldTwice,
	} {
		t.Run(bug, func(t *testing.T) {
			for seed := range uint64(20) {
				if wrong := play(t, seed, bug); len(wrong) > 0 {
					t.Logf("found with seed %d: %s", seed, wrong[0])
					return
				}
			}
			t.Error("the model has not found it")
		})
	}
}
