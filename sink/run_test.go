package sink_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sinktest"
)

const patience = 30 * time.Second

// cluster is a broker in this process with the topic of the model, and what is behind Run.
type cluster struct {
	kafka.Cluster
	t      *testing.T
	fake   *kfake.Cluster
	client *kgo.Client
	admin  *kadm.Client
	reg    *schemas.Registry
	db     *sinktest.Memory
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topic, topic+".analytics.dlq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := &cluster{Cluster: kafka.Cluster{Seeds: fake.ListenAddrs()}, t: t, fake: fake, reg: schemas.Memory(), db: sinktest.NewMemory()}
	if c.client, err = c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	c.admin = kadm.NewClient(c.client)
	return c
}

// publish writes orders from ≤ i < to, one after the other into both partitions.
func (c *cluster) publish(from, to int) {
	c.t.Helper()
	for i := from; i < to; i++ {
		e := event.New(topic, fmt.Sprintf("o%03d", i), placed{Order: fmt.Sprintf("o%03d", i), Country: "DE", Cents: int64(i)})
		e.Source, e.Time = "test", time.Now()
		value, err := c.reg.Encode(c.t.Context(), nil, &e)
		if err != nil {
			c.t.Fatal(err)
		}
		r := wire.Record(&e, value)
		r.Topic, r.Partition = topic, int32(i%2)
		if err := c.client.ProduceSync(c.t.Context(), r).FirstErr(); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) mux() *sink.Mux[*sinktest.Tx] {
	m := sink.NewMux[*sinktest.Tx](c.db)
	sink.On(m, func(ctx context.Context, tx *sinktest.Tx, es []event.Of[placed]) error {
		for _, e := range es {
			n, err := tx.Get(ctx, e.Data.Order)
			if err != nil {
				return err
			}
			if err := tx.Put(ctx, e.Data.Order, n+"1"); err != nil {
				return err
			}
			if e.Data.Order == "o007" {
				return consumer.DeadLetter(errors.New("refused"))
			}
		}
		return nil
	})
	return m
}

// start runs the sink; stop ends it and returns what Run returned.
func (c *cluster) start() (stop func() error, done <-chan error) {
	cfg := sink.Config{Name: "analytics", Topics: []string{topic}, Wait: time.Millisecond, SessionTimeout: 6 * time.Second}
	ctx, cancel := context.WithCancel(c.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx, c.Cluster, c.reg, c.mux(), cfg) }()
	return func() error {
		cancel()
		return <-ended
	}, ended
}

// until waits for a fact.
func (c *cluster) until(what string, fact func() bool) {
	c.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("waited %s for: %s", patience, what)
		}
	}
}

func (c *cluster) once() (n int) {
	c.t.Helper()
	for order, times := range c.db.Values() {
		if times != "1" {
			c.t.Fatalf("order %s had its effect %d times", order, len(times))
		}
		n++
	}
	return n
}

// Run goes on from the database, whatever is committed to Kafka, and says there that its position is kept elsewhere.
func TestRunGoesOnFromTheTarget(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.publish(0, 20)
	stop, _ := c.start()
	c.until("19 orders", func() bool { return c.once() == 19 })
	var meta string
	c.until("a report", func() bool {
		offsets, err := c.admin.FetchOffsets(t.Context(), "analytics")
		if err != nil {
			t.Fatal(err)
		}
		o, ok := offsets.Lookup(topic, 0)
		meta = o.Metadata
		return ok && o.At == 10
	})
	if want := groups.KeptElsewhere + "sink analytics"; meta != want {
		t.Errorf("the metadata of the report is %q, want %q", meta, want)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var wrong kadm.Offsets
	wrong.AddOffset(topic, 0, 3, -1) // as another tool might
	wrong.AddOffset(topic, 1, 9, -1)
	if err := c.admin.CommitAllOffsets(t.Context(), "analytics", wrong); err != nil {
		t.Fatal(err)
	}
	c.publish(20, 40)
	stop, _ = c.start()
	c.until("39 orders", func() bool { return c.once() == 39 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	ends, err := c.admin.ListEndOffsets(t.Context(), topic+".analytics.dlq")
	if err != nil {
		t.Fatal(err)
	}
	letters := int64(0)
	ends.Each(func(o kadm.ListedOffset) { letters += o.Offset })
	if letters != 1 {
		t.Errorf("%d dead letters, want that of o007", letters)
	}
}

// Another process with the same name in another cluster's group takes the partitions in the database: this one notices,
// changes nothing, and goes on from where the other was once it has them back.
func TestAFencedMemberComesBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.publish(0, 20)
	stop, _ := c.start()
	c.until("19 orders", func() bool { return c.once() == 19 })
	rows, err := c.db.Positions(t.Context(), "analytics")
	if err != nil {
		t.Fatal(err)
	}
	var ids []cursor.ID
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	if _, err := c.db.Claim(t.Context(), "another", ids, nil); err != nil {
		t.Fatal(err)
	}
	c.publish(20, 40)
	c.until("39 orders", func() bool { return c.once() == 39 })
	rows, err = c.db.Positions(t.Context(), "analytics")
	if err != nil || rows[0].Epoch != 3 || rows[1].Epoch != 3 {
		t.Errorf("positions %+v, %v: want epoch 3: claimed, taken, claimed again", rows, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestRunStopsWhereItCannotGoOn(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(c *cluster)
		want  []string
	}{
		"below the log start": {func(c *cluster) {
			var cut kadm.Offsets
			cut.AddOffset(topic, 0, 12, -1)
			if _, err := c.admin.DeleteRecords(c.t.Context(), cut); err != nil {
				c.t.Fatal(err)
			}
		}, []string{"offset 10", "starts at 12", "millrace sink rewind plan -f FILE", "--name analytics"}},
		"past the log end": {func(c *cluster) {
			rows, err := c.db.Positions(c.t.Context(), "analytics")
			if err != nil {
				c.t.Fatal(err)
			}
			if err := c.db.Move(c.t.Context(), []sink.Move{{From: rows[0], To: &sink.Position{Next: 500}}}); err != nil {
				c.t.Fatal(err)
			}
		}, []string{"outside of the log", "millrace sink rewind plan -f FILE", "--name analytics"}},
		"another topic": {func(c *cluster) {
			if _, err := c.admin.DeleteTopics(c.t.Context(), topic); err != nil {
				c.t.Fatal(err)
			}
			if _, err := c.admin.CreateTopics(c.t.Context(), 2, 1, nil, topic); err != nil {
				c.t.Fatal(err)
			}
		}, []string{"created again", "starts at offset 0", "millrace sink rewind plan -f FILE", "--name analytics"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.publish(0, 20)
			stop, _ := c.start()
			c.until("19 orders", func() bool { return c.once() == 19 })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			c.publish(20, 30)
			tt.spoil(c)
			_, ended := c.start()
			select {
			case err := <-ended:
				for _, w := range tt.want {
					if err == nil || !strings.Contains(err.Error(), w) {
						t.Errorf("Run ended with %v, want %q in it", err, w)
					}
				}
			case <-time.After(patience):
				t.Error("Run goes on")
			}
			if n := c.once(); n != 19 {
				t.Errorf("%d orders, want the 19 of before", n)
			}
		})
	}
}

// Retention overtakes a sink that runs and reads too slowly: it stops, and does not go on behind the gap.
func TestRunStopsWhereRetentionOvertakesIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.publish(0, 20)
	_, ended := c.start()
	c.until("19 orders", func() bool { return c.once() == 19 })
	var slow atomic.Bool
	var refused atomic.Int64
	slow.Store(true)
	c.fake.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		if !slow.Load() {
			return nil, nil, false
		}
		refused.Add(1)
		return nil, errors.New("slow"), true
	})
	c.until("a fetch to be refused", func() bool { return refused.Load() > 0 }) // none is under way any more
	c.publish(20, 30)
	var cut kadm.Offsets
	cut.AddOffset(topic, 0, 12, -1)
	if _, err := c.admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	slow.Store(false)
	select {
	case err := <-ended:
		for _, w := range []string{"retention has removed what comes next", "millrace sink rewind plan -f FILE", "--name analytics"} {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("Run ended with %v, want %q in it", err, w)
			}
		}
	case <-time.After(patience):
		t.Error("Run goes on")
	}
	rows, err := c.db.Positions(t.Context(), "analytics")
	if err != nil || len(rows) != 2 || rows[0].Next != 10 {
		t.Errorf("positions %+v, %v: want that of partition 0 at 10, as before", rows, err)
	}
	c.once()
}

func TestConfigIsRefusedByName(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]sink.Config{
		"Name":     {Name: "an alytics", Topics: []string{"t"}},
		"rebuilds": {Name: "a__v2", Topics: []string{"t"}},
		"Topics":   {Name: "a"},
		"repeated": {Name: "a", Topics: []string{"t", "t"}},
		"Batch":    {Name: "a", Topics: []string{"t"}, Batch: -1},
		"Dedupe":   {Name: "a", Topics: []string{"t"}, Dedupe: -1},
		"Deferred": {Name: "a", Topics: []string{"t"}, Retry: consumer.Retry{Deferred: []time.Duration{1}}},
		"Burst":    {Name: "a", Topics: []string{"t"}, Burst: consumer.Burst{Ratio: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := sink.Run(t.Context(), kafka.Cluster{}, schemas.Memory(), sink.NewMux[*sinktest.Tx](sinktest.NewMemory()), cfg)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Run: %v, want an error that names %s", err, name)
			}
		})
	}
}

// asked is a database that notes what it is to prepare, and refuses it.
type asked struct {
	*sinktest.Memory
	plan sink.Plan
}

func (a *asked) Prepare(_ context.Context, p sink.Plan) error {
	a.plan = p
	return errors.New("noted")
}

// The columns of a table are those of its topics, not of a topic whose name goes on behind a hyphen.
func TestTablesTakeTheColumnsOfTheirOwnTopics(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	for _, s := range [][2]string{
		{"orders-value", `{"name":"id","type":"string"}`},
		{"orders-archive-value", `{"name":"id","type":"string"},{"name":"archived","type":"string","default":""}`},
	} {
		if _, err := reg.Register(t.Context(), s[0], `{"type":"record","name":"OrderPlaced","namespace":"shop","fields":[`+s[1]+`]}`); err != nil {
			t.Fatal(err)
		}
	}
	db := &asked{Memory: sinktest.NewMemory()}
	m := sink.NewMux[*sinktest.Tx](db)
	m.Table(sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"id"}})
	feed := logsOf{engine.NewMemory()}
	err := sink.RunOn(t.Context(), feed, feed, reg, m, sink.Config{Name: "a", Topics: []string{"orders"}, Evolve: true}, nil)
	if err == nil || !strings.Contains(err.Error(), "noted") {
		t.Fatalf("Run: %v, want the database asked", err)
	}
	if !db.plan.Evolve {
		t.Error("the database may not evolve its tables")
	}
	if columns := db.plan.Tables[0].Columns.Columns(); len(columns) != 1 || columns[0].Name != "id" {
		t.Errorf("the table has the columns %+v, want id alone", columns)
	}
	err = sink.RunOn(t.Context(), feed, feed, reg, m, sink.Config{Name: "a", Topics: []string{"orders"}, Evolve: true, Rebuild: true}, nil)
	if db.plan.Evolve || !db.plan.Rebuild || err == nil || !strings.Contains(err.Error(), "rebuild -f FILE --afresh") {
		t.Errorf("a rebuild evolves what an earlier one has begun, or does not say how to begin anew: %v", err)
	}
}

// An empty mux, a table without its schema and a registry that is none end Run before it joins.
func TestOpenSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	table := sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"order"}}
	for name, tt := range map[string]struct {
		fill func(m *sink.Mux[*sinktest.Tx])
		dec  consumer.Decoder
	}{
		"empty":           {func(*sink.Mux[*sinktest.Tx]) {}, schemas.Memory()},
		"no subject":      {func(m *sink.Mux[*sinktest.Tx]) { m.Table(table) }, schemas.Memory()},
		"schema registry": {func(m *sink.Mux[*sinktest.Tx]) { m.Table(table) }, down{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := sink.NewMux[*sinktest.Tx](sinktest.NewMemory())
			tt.fill(m)
			feed := logsOf{engine.NewMemory()}
			err := sink.RunOn(t.Context(), feed, feed, tt.dec, m, sink.Config{Name: "a", Topics: []string{topic}}, nil)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Run: %v, want an error that says %q", err, name)
			}
		})
	}
}

// away is a database that is away for its first answers.
type away struct {
	*sinktest.Memory
	errs []error // one for each Prepare
}

func (a *away) Prepare(ctx context.Context, p sink.Plan) error {
	if len(a.errs) == 0 {
		return a.Memory.Prepare(ctx, p)
	}
	err := a.errs[0]
	a.errs = a.errs[1:]
	return err
}

// A database that goes away while a sink begins is waited for; one that is not as it must be ends Run.
func TestRunWaitsForATargetThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, seen := observer.New(zap.InfoLevel)
		db := &away{sinktest.NewMemory(), []error{sinktest.ErrAway, sinktest.ErrDeadlock, sinktest.ErrAway, sinktest.ErrWrong}}
		m := sink.NewMux[*sinktest.Tx](db)
		sink.On(m, func(context.Context, *sinktest.Tx, []event.Of[placed]) error { return nil })
		cfg := sink.Config{Name: "a", Topics: []string{"orders"}, Log: zap.New(log)}
		if err := sink.RunOn(t.Context(), nil, nil, schemas.Memory(), m, cfg, nil); !errors.Is(err, sinktest.ErrWrong) {
			t.Errorf("Run: %v, want the error that no waiting mends", err)
		}
		if len(db.errs) > 0 || seen.Len() != 1 {
			t.Errorf("%d answers are left, and it logged %v: want none, and one line", len(db.errs), seen.All())
		}
		db.errs = slices.Repeat([]error{sinktest.ErrAway}, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := sink.RunOn(ctx, nil, nil, schemas.Memory(), m, cfg, nil); err != nil || len(db.errs) == 1000 {
			t.Errorf("Run that is told to stop while it waits: %v", err)
		}
	})
}

// Names that a rebuild gives are nobody else's.
func TestNamesOfRebuildsAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"orders__v2", "analytics.orders__old"} {
		for what, f := range map[string]func(m *sink.Mux[*sinktest.Tx]){
			"table": func(m *sink.Mux[*sinktest.Tx]) {
				m.Table(sink.Table{Name: name, Event: "shop.OrderPlaced", Append: true})
			},
			"fold": func(m *sink.Mux[*sinktest.Tx]) {
				sink.OnFold(m, sink.Fold[placed]{Name: name, By: func(event.Of[placed]) string { return "" }}, func(n int, _ event.Of[placed]) int { return n })
			},
		} {
			func() {
				defer func() {
					if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "rebuilds") {
						t.Errorf("%s %s: %v, want it refused", what, name, v)
					}
				}()
				f(sink.NewMux[*sinktest.Tx](sinktest.NewMemory()))
			}()
		}
	}
}
