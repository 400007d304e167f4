package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/internal/ledger"
	"github.com/millrace/millrace/internal/pgtest"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// What make soak-sink sets.
var (
	soakRounds = flag.Int("rounds", 1, "how often all the faults of the sink's run are gone through, with as many events each time")
	soakSeed   = flag.Uint64("seed", 1, "makes the load of the sink's run")
	soakOut    = flag.String("out", "", "a `folder` for what the sink's run came to, as JSON named by date; a path from the root of the repository")
	soakNote   = flag.String("note", "", "what to know about the machine during the run, kept with the result")
)

const (
	sinkEvents     = 200_000 // a round
	sinkRate       = 6_000   // a second, at most
	sinkBehind     = 15_000  // the most events that wait for the sink: each fault finds it at work
	sinkPartitions = 6
	sinkSleep      = sinkSession + 3*time.Second
)

// Two hundred thousand events, with repeats planted among them, go from a secured cluster of three into PostgreSQL by a
// function, two tables and a fold, all at once, while the members of the sink are killed ten times, PostgreSQL three times
// and a broker once, connections are cut on both sides of COMMIT, and a member sleeps past its session: every table is the
// one that is computed from the log. What the sleeper writes when it wakes is attempted and rolled back.
func TestRealSinkUnderFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("two minutes")
	}
	r := newSinkRun(t)
	r.began = time.Now()
	r.static, r.dynamic, r.sleeper = r.member(t, "static", "one"), r.member(t, "dynamic", ""), r.member(t, "sleeper", "")
	published := make(chan error, 1)
	go func() { published <- r.publish(t.Context()) }()
	for round := range *soakRounds {
		for _, f := range r.round() {
			r.reached(t, (float64(round)+f.share)/float64(*soakRounds))
			f.do(t)
		}
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	r.reached(t, 1)
	for _, m := range []*member{r.static, r.dynamic, r.sleeper} {
		m.stop(t)
	}
	r.report.Seconds = time.Since(r.began).Seconds()
	r.judge(t)
	if took := time.Since(r.began); *soakRounds == 1 && took > 2*time.Minute {
		t.Errorf("the run took %s, want at most two minutes", took.Round(time.Second))
	}
	if *soakOut != "" {
		r.report.save(t, filepath.Join("..", "..", *soakOut))
	}
}

// sinkRun is the run's shared state: where everything is, and who takes part.
type sinkRun struct {
	cluster     *kafkatest.Cluster
	server      *pgtest.Server
	proxy       *pgtest.Proxy
	pool        *pgxpool.Pool // past the proxy
	topic, name string
	records     []*kgo.Record
	dir         string // journals, one file a member
	env         []string
	began       time.Time
	seen        atomic.Int64 // events written, when it was last asked
	report      *sinkReport

	members                  int
	static, dynamic, sleeper *member
	victim                   int // the broker that is down
	asleep                   time.Time
}

func newSinkRun(t *testing.T) *sinkRun {
	t.Helper()
	r := &sinkRun{report: newSinkReport(), dir: t.TempDir(), cluster: kafkatest.Secured(t), server: pgtest.Start(t, pgtest.Config{Fsync: true})}
	admin := r.cluster.Cluster(kafkatest.AdminUser)
	r.topic = kafkatest.Topic(t, admin, sinkPartitions)
	r.name = "ledger-" + r.topic[len(r.topic)-8:]
	if err := deadletter.Create(t.Context(), admin, r.name, r.topic); err != nil {
		t.Fatal(err)
	}
	r.cluster.Grant("orders", "topic "+r.topic, "Write")
	r.cluster.Grant("shipping", "topic "+r.topic, "Read")
	r.cluster.Grant("shipping", "group "+r.name, "Read")
	r.cluster.Grant("shipping", "topic "+deadletter.Topic(r.topic, r.name), "Write")

	url := serveRegistry(t)
	reg, err := schemas.New(schemas.Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	schema, err := reg.Register(t.Context(), r.topic+"-value", ledger.Moved{}.AvroSchema())
	if err != nil {
		t.Fatal(err)
	}
	r.records = ledger.Plan(ledger.Load{
		Events: sinkEvents * *soakRounds, Partitions: sinkPartitions, Topic: r.topic, SchemaID: int(schema.ID), Seed: *soakSeed,
		From: time.Now().Add(-24 * time.Hour).Truncate(time.Minute),
	})

	dsn := r.server.Fresh(t)
	r.proxy = pgtest.NewProxy(t, dsn)
	if r.pool, err = pgxpool.New(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.pool.Close)
	if _, err := r.pool.Exec(t.Context(), byHandTable); err != nil {
		t.Fatal(err)
	}
	r.env = append(os.Environ(),
		service.Env("brokers")+"="+strings.Join(r.cluster.Cluster("shipping").Seeds, ","), service.Env("tls-ca")+"="+r.cluster.CA(),
		service.Env("sasl-user")+"=shipping", service.Env("sasl-password")+"="+r.cluster.Password("shipping"),
		service.Env("registry")+"="+url, sinkTopic+"="+r.topic, sinkName+"="+r.name, sinkDSN+"="+r.proxy.DSN()+"&connect_timeout=5")
	return r
}

// member starts a process of the sink.
func (r *sinkRun) member(t *testing.T, kind, instance string) *member {
	t.Helper()
	r.members++
	name := fmt.Sprintf("%s-%d", kind, r.members)
	return spawn(t, name, append(slices.Clone(r.env), sinkJournal+"="+r.journal(name), sinkInstance+"="+instance))
}

func (r *sinkRun) journal(member string) string { return filepath.Join(r.dir, member+".journal") }

func (r *sinkRun) publish(ctx context.Context) error {
	client, err := r.cluster.Cluster("orders").Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(100 * time.Second / sinkRate)
	defer tick.Stop()
	return ledger.Publish(ctx, client, r.records, func(ctx context.Context, published int) {
		for wait := true; wait; wait = published > int(r.seen.Load())+sinkBehind {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// fault is what happens once a share of the events is written.
type sinkFault struct {
	share float64
	do    func(t *testing.T)
}

// round is every fault once, in an order in which none hides another.
func (r *sinkRun) round() []sinkFault {
	return []sinkFault{
		{0.04, r.killStatic},
		{0.09, r.cutBefore},
		{0.13, r.killDynamic},
		{0.19, r.killStatic},
		{0.23, r.cutAfter},
		{0.27, r.killPostgres},
		{0.32, r.killDynamic},
		{0.36, r.killBroker},
		{0.42, r.killStatic},
		{0.46, r.putToSleep},
		{0.52, r.cutBefore},
		{0.54, r.killStatic},
		{0.56, r.wake},
		{0.58, r.startBroker},
		{0.62, r.killPostgres},
		{0.68, r.killDynamic},
		{0.73, r.cutAfter},
		{0.78, r.killStatic},
		{0.84, r.killDynamic},
		{0.88, r.killPostgres},
		{0.92, r.cutAfter},
		{0.95, r.killStatic},
	}
}

// killStatic kills a member that comes back under its name: its partitions stay its own.
func (r *sinkRun) killStatic(t *testing.T) {
	t.Helper()
	r.supervise(t)
	r.note(t, "kill member", r.static.name)
	r.static.kill(t)
	r.static = r.member(t, "static", "one")
}

// killDynamic kills a member whose partitions go to others when its session has ended.
func (r *sinkRun) killDynamic(t *testing.T) {
	t.Helper()
	r.supervise(t)
	r.note(t, "kill member", r.dynamic.name)
	r.dynamic.kill(t)
	r.dynamic = r.member(t, "dynamic", "")
}

func (r *sinkRun) killPostgres(t *testing.T) {
	t.Helper()
	r.note(t, "kill PostgreSQL", "")
	if err := errors.Join(r.server.Kill(), r.server.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func (r *sinkRun) killBroker(t *testing.T) {
	t.Helper()
	r.victim = r.cluster.Leader(r.topic, 0)
	r.note(t, "kill broker", fmt.Sprint(r.victim))
	r.cluster.Kill(r.victim)
}

func (r *sinkRun) startBroker(t *testing.T) {
	t.Helper()
	r.note(t, "start broker", fmt.Sprint(r.victim))
	r.cluster.Start(r.victim)
}

func (r *sinkRun) cutBefore(t *testing.T) {
	t.Helper()
	r.cut(t, "cut before COMMIT", r.proxy.CutBefore)
}

func (r *sinkRun) cutAfter(t *testing.T) { t.Helper(); r.cut(t, "cut after COMMIT", r.proxy.CutAfter) }

// cuts is how many connections are cut in a row.
const cuts = 3

func (r *sinkRun) cut(t *testing.T, what string, next func(n int)) {
	t.Helper()
	for range cuts {
		r.note(t, what, "")
		until := r.proxy.Commits() + 2
		next(1)
		r.await(t, what, func() bool { return r.proxy.Commits() >= until })
	}
}

// putToSleep stops a member in front of a transaction that has all of its events.
func (r *sinkRun) putToSleep(t *testing.T) {
	t.Helper()
	r.note(t, "stop member", r.sleeper.name)
	r.sleeper.signal(t, syscall.SIGUSR1)
	r.await(t, r.sleeper.name+" asleep", func() bool { return r.said(t, r.sleeper, "asleep") > 0 })
	r.asleep = time.Now()
}

// wake wakes it when others have had its partitions, and waits until its transaction was refused.
func (r *sinkRun) wake(t *testing.T) {
	t.Helper()
	<-time.After(time.Until(r.asleep.Add(sinkSleep)))
	r.await(t, "others with the sleeper's partitions", func() bool {
		var left int
		err := r.pool.QueryRow(t.Context(), `SELECT count(*) FROM millrace_sink_offsets WHERE sink = $1 AND owner LIKE '%/' || $2`,
			r.name, strconv.Itoa(r.sleeper.cmd.Process.Pid)).Scan(&left)
		return err == nil && left == 0
	})
	before := r.said(t, r.sleeper, "fenced")
	r.note(t, "wake member", r.sleeper.name)
	r.sleeper.signal(t, syscall.SIGCONT)
	r.await(t, "the sleeper's late transaction, attempted and rolled back", func() bool { return r.said(t, r.sleeper, "fenced") > before })
	r.report.SleeperFenced += r.said(t, r.sleeper, "fenced") - before
}

func (r *sinkRun) note(t *testing.T, what, whom string) {
	t.Helper()
	at := time.Since(r.began)
	r.report.Faults = append(r.report.Faults, sinkFaultAt{At: float64(at.Milliseconds()) / 1000, What: what, Whom: whom})
	t.Logf("%5.1f s: %s %s", at.Seconds(), what, whom)
}

// said is how many lines of the member's journal start with word.
func (r *sinkRun) said(t *testing.T, m *member, word string) int {
	t.Helper()
	raw, err := os.ReadFile(r.journal(m.name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(append([]byte("\n"), raw...), []byte("\n"+word))
}

// written is how far the positions have come, over all partitions; what it was last while the database does not say.
func (r *sinkRun) written(ctx context.Context) (sum int64) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := r.pool.QueryRow(ctx, `SELECT coalesce(sum(next_offset), 0) FROM millrace_sink_offsets WHERE sink = $1`, r.name).Scan(&sum)
	if err != nil {
		return r.seen.Load()
	}
	r.seen.Store(sum)
	return sum
}

// supervise starts a member again that could not start because the database was away just then. Any other end of its own is
// a failure.
func (r *sinkRun) supervise(t *testing.T) {
	t.Helper()
	for _, at := range []**member{&r.static, &r.dynamic, &r.sleeper} {
		m := *at
		select {
		case err := <-m.done:
			if !strings.Contains(m.log.String(), "member: prepare the target of sink") {
				t.Fatalf("%s ended by itself: %v", m.name, err)
			}
			kind, _, _ := strings.Cut(m.name, "-")
			r.note(t, "start member again", m.name)
			*at = r.member(t, kind, map[string]string{"static": "one"}[kind])
		default:
		}
	}
}

// reached waits until a share of all events is written.
func (r *sinkRun) reached(t *testing.T, share float64) {
	t.Helper()
	n := int64(share * float64(len(r.records)))
	r.await(t, fmt.Sprintf("%d of %d events are written", n, len(r.records)), func() bool { return r.written(t.Context()) >= n })
}

func (r *sinkRun) await(t *testing.T, what string, fact func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !fact(); <-tick.C {
		r.supervise(t)
		r.written(t.Context())
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for: %s; %d are written", what, r.written(t.Context()))
		}
	}
}

// judge compares the tables and the dead letters with the log, and then shows that it would have found a row that is
// missing and one that is there twice.
func (r *sinkRun) judge(t *testing.T) {
	t.Helper()
	admin := r.cluster.Cluster(kafkatest.AdminUser)
	log, err := ledger.Read(t.Context(), admin, r.topic)
	if err != nil {
		t.Fatal(err)
	}
	if len(log) != len(r.records) {
		t.Errorf("the log has %d records, and %d were published", len(log), len(r.records))
	}
	want, err := ledger.Expect(log, ledger.Takes{})
	if err != nil {
		t.Fatal(err)
	}
	got := r.tables(t)
	letters, err := ledger.Read(t.Context(), admin, deadletter.Topic(r.topic, r.name))
	if err != nil {
		t.Fatal(err)
	}
	if got.Letters, err = ledger.Letters(letters); err != nil {
		t.Fatal(err)
	}
	r.report.sum(t, r.dir)
	r.report.Records, r.report.Events, r.report.Planted = want.Records, want.Moves(), want.Repeats
	r.report.DeadLetters, r.report.DeadLettersRepeated = want.Letters(), len(letters)-want.Letters()
	r.report.Violations = append(r.report.Violations, want.Differ(got)...)
	for _, wrong := range r.report.Violations {
		t.Error(wrong)
	}
	t.Log(r.report)
	r.report.check(t)

	for _, plant := range []string{
		`DELETE FROM by_hand WHERE n = (SELECT n FROM by_hand OFFSET 1000 LIMIT 1)`,
		`INSERT INTO by_hand (event_id, part, at, account, seq) SELECT event_id, part, at, account, seq FROM by_hand OFFSET 2000 LIMIT 1`,
	} {
		if _, err := r.pool.Exec(t.Context(), plant); err != nil {
			t.Fatal(err)
		}
	}
	broken := r.tables(t)
	broken.Letters = got.Letters
	found := strings.Join(want.Differ(broken), "\n")
	if !strings.Contains(found, "by_hand, missing: event ") || !strings.Contains(found, "by_hand, twice: event ") {
		t.Errorf("a row was taken away and one was doubled, and the judge says: %q", found)
	}
}

func (r *sinkRun) tables(t *testing.T) *ledger.Got {
	t.Helper()
	got, err := ledger.Tables(t.Context(), func(ctx context.Context, sql string, row func(scan func(...any) error) error) error {
		rows, err := r.pool.Query(ctx, sql)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := row(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	}, ledger.PostgresWindow, true)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
