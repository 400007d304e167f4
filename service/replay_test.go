package service

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sqlitesink"
)

type beat struct {
	N int64 `avro:"n"`
}

func (beat) AvroName() string   { return "test.Beat" }
func (beat) AvroSchema() string { return beatSchema }

var beatSchema = schemas.MustFor[beat]()

const beats = 20

// stage is a cluster with a past, and what lives beside it.
type stage struct {
	cluster kafka.Cluster
	reg     *schemas.Registry
	db      *sql.DB
	server  *httptest.Server
	hits    atomic.Int64
	capture string
	adm     *kadm.Client
	extra   []string // arguments
	id      string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "beats", "out", "beats.heart.dlq", "beats.board.dlq"),
		kfake.SeedTopics(1, groups.ControlTopic)) // a service looks for it twice a minute
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	st := &stage{cluster: kafka.Cluster{Seeds: fake.ListenAddrs()}, reg: schemas.Memory(), capture: filepath.Join(t.TempDir(), "effects.jsonl"), id: "try"}
	st.server = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { st.hits.Add(1) }))
	t.Cleanup(st.server.Close)
	if st.db, err = sqlitesink.Open(filepath.Join(t.TempDir(), "board.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.db.Close() })
	if _, err := st.db.ExecContext(t.Context(), `CREATE TABLE audit (id TEXT)`); err != nil {
		t.Fatal(err)
	}
	p, err := producer.New(st.cluster, st.reg, producer.Config{Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range int64(beats) {
		e := event.New("beats", fmt.Sprint(n%4), beat{n})
		e.ID, e.Time = fmt.Sprintf("beat-%d", n), time.Date(2026, 1, 1, 0, 0, int(n), 0, time.UTC)
		if err := p.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := st.cluster.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	st.adm = kadm.NewClient(client)
	live := kadm.Offsets{}
	live.Add(kadm.Offset{Topic: "beats", Partition: 1, At: 3, LeaderEpoch: -1, Metadata: "theirs"})
	if err := st.adm.CommitAllOffsets(t.Context(), "heart", live); err != nil {
		t.Fatal(err)
	}
	return st
}

// run replays the service that wire makes.
func (st *stage) run(t *testing.T, wire func(ctx context.Context, s *Service) error) (int, string) {
	t.Helper()
	var log bytes.Buffer
	var mu sync.Mutex
	env := func(name string) string {
		return map[string]string{
			"MILLRACE_BROKERS": strings.Join(st.cluster.Seeds, ","), "MILLRACE_REGISTRY": "http://127.0.0.1:1",
			"MILLRACE_REPLAY": st.id, "HOME": t.TempDir(),
		}[name]
	}
	args := append([]string{"--replay-capture", st.capture}, st.extra...)
	code := Run(t.Context(), "heart", args, env, writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), func(ctx context.Context, s *Service) error {
		s.Schemas = st.reg
		return wire(ctx, s)
	})
	return code, log.String()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// effects are the captured ones by kind and target.
func (st *stage) effects(t *testing.T) map[string][]replay.Effect {
	t.Helper()
	f, err := os.Open(st.capture)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	out := map[string][]replay.Effect{}
	for e, err := range replay.Effects(f) {
		if err != nil {
			t.Fatal(err)
		}
		out[e.Kind+" "+e.Target] = append(out[e.Kind+" "+e.Target], e)
	}
	return out
}

func (st *stage) length(t *testing.T, topic string) int64 {
	t.Helper()
	ends, err := st.adm.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	ends.Each(func(o kadm.ListedOffset) { n += max(o.Offset, 0) })
	return n
}

// untouched are the differences between what lives and what lived.
func (st *stage) untouched(t *testing.T) (faults []string) {
	t.Helper()
	for topic, want := range map[string]int64{"beats": beats, "out": 0, "beats.heart.dlq": 0, "beats.board.dlq": 0} {
		if got := st.length(t, topic); got != want {
			faults = append(faults, fmt.Sprintf("%s has %d records, want %d", topic, got, want))
		}
	}
	commits, err := st.adm.FetchOffsets(t.Context(), "heart")
	if o, _ := commits.Lookup("beats", 1); err != nil || o.At != 3 || o.Metadata != "theirs" || len(commits["beats"]) != 1 {
		faults = append(faults, fmt.Sprintf("the group stands at %+v, %v", commits, err))
	}
	if n := st.hits.Load(); n > 0 {
		faults = append(faults, fmt.Sprintf("the server was called %d times", n))
	}
	var n int
	if err := st.db.QueryRowContext(t.Context(), `SELECT count(*) FROM audit`).Scan(&n); err != nil || n > 0 {
		faults = append(faults, fmt.Sprintf("audit has %d rows, %v", n, err))
	}
	if err := st.db.QueryRowContext(t.Context(), `SELECT count(*) FROM sqlite_master WHERE name IN ('sums', 'lines')`).Scan(&n); err != nil || n > 0 {
		faults = append(faults, fmt.Sprintf("%d live tables, %v", n, err))
	}
	return faults
}

// fugitive is a handler that tries each way out.
type fugitive struct {
	stage  *stage
	events event.Publisher
	given  *http.Client
	own    *kgo.Client
	looped atomic.Bool
	faults chan string
}

func (f *fugitive) fault(format string, args ...any) {
	select {
	case f.faults <- fmt.Sprintf(format, args...):
	default:
	}
}

func (f *fugitive) beat(ctx context.Context, e event.Of[beat]) error {
	r, ok := event.InReplay(ctx)
	if now := event.Now(ctx); !ok || !r.Shadow || r.ID != f.stage.id || r.Origin.ID != e.ID || !now.Equal(e.Time) {
		f.fault("the context has %+v and the time %v, want %v", r, now, e.Time)
	}
	if err := f.own.ProduceSync(ctx, &kgo.Record{Topic: "out", Value: []byte("x")}).FirstErr(); !errors.Is(err, kafka.ErrReadOnly) {
		f.fault("a client of s.Cluster: %v", err)
	}
	for name, client := range map[string]*http.Client{"given": f.given, "default": http.DefaultClient, "own on the default transport": {}} {
		if err := get(ctx, client, f.stage.server.URL+"/"+strings.ReplaceAll(name, " ", "-")); !errors.Is(err, replay.ErrRefused) {
			f.fault("the %s HTTP client: %v", name, err)
		}
	}
	clone := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // as programs do
	if err := get(ctx, &http.Client{Transport: clone}, f.stage.server.URL); !errors.Is(err, replay.ErrRefused) {
		f.fault("a clone of the default transport: %v", err)
	}
	switch e.Data.N {
	case 2:
		return consumer.DeadLetter(errors.New("no beat"))
	case 3:
		panic("arrhythmia")
	case 4:
		return get(ctx, f.given, f.stage.server.URL+"/needed")
	case 5:
		return consumer.Drop(nil)
	}
	return f.events.Publish(ctx, event.After(e.Meta, "out", e.Key, e.Data), event.Event{Meta: event.Meta{ID: e.ID + "-raw", Topic: "out", Key: e.Key}, Value: []byte("raw")})
}

func get(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// wire makes a service of it, with a sink.
func (f *fugitive) wire(_ context.Context, s *Service) error {
	f.faults = make(chan string, 100)
	p, err := s.Producer(producer.Config{})
	if err != nil {
		return err
	}
	if f.own, err = s.Cluster.Client(); err != nil {
		return err
	}
	s.AtEnd(func() error { f.own.Close(); return nil })
	f.events, f.given = p, s.HTTP()
	mux := consumer.NewMux()
	consumer.On(mux, f.beat)
	s.Consume(mux, consumer.Config{Topics: []string{"beats"}, Retry: consumer.Retry{Attempts: 2, Backoff: time.Millisecond}})
	s.Go("loop", func(context.Context) error { f.looped.Store(true); return nil })

	out := sqlitesink.New(f.stage.db, sqlitesink.Config{})
	sink.On(out, func(ctx context.Context, tx *sql.Tx, es []event.Of[beat]) error {
		for _, e := range es {
			if _, err := tx.ExecContext(ctx, `INSERT INTO audit VALUES (?)`, e.ID); err != nil {
				return err
			}
			if e.Data.N == 7 {
				return consumer.DeadLetter(errors.New("seven"))
			}
		}
		return nil
	})
	sink.OnFold(out, sink.Fold[beat]{Name: "sums", By: func(event.Of[beat]) string { return "all" }}, func(sum int64, e event.Of[beat]) int64 { return sum + e.Data.N })
	out.Table(sink.Table{Name: "lines", Event: "test.Beat", Key: []string{"n"}})
	return s.Sink(out, sink.Config{Name: "board", Topics: []string{"beats"}})
}

// A handler that tries each way out of a shadow finds it shut: what it was given is captured, what it took is refused.
func TestAShadowLetsNothingOut(t *testing.T) { //nolint:paralleltest // it replaces http.DefaultTransport
	st := newStage(t)
	st.extra = []string{"--replay-from", "start", "--replay-clock", "event"}
	was, client := http.DefaultTransport, http.DefaultClient.Transport
	f := &fugitive{stage: st}
	code, log := st.run(t, f.wire)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	close(f.faults)
	for fault := range f.faults {
		t.Error(fault)
	}
	for _, fault := range st.untouched(t) {
		t.Error(fault)
	}
	if f.looped.Load() {
		t.Error("a loop of Service.Go has started")
	}
	if http.DefaultTransport != was || http.DefaultClient.Transport != client {
		t.Error("the default transport was not restored")
	}
	if n := st.length(t, "replay.try.out"); n != 2*(beats-4) {
		t.Errorf("replay.try.out has %d records, want %d", n, 2*(beats-4))
	}
	got := st.effects(t)
	for target, want := range map[string]int{
		"publish out": 2 * (beats - 4), "dlq beats.heart.dlq": 2, "dlq beats.board.dlq": 1, "fold sums": beats - 1, "row lines": beats - 1,
		"http GET " + st.server.URL + "/given": beats, "http GET " + st.server.URL + "/default": beats, "http GET " + st.server.URL + "/needed": 1,
	} {
		if len(got[target]) != want {
			t.Errorf("%d effects %s, want %d", len(got[target]), target, want)
		}
	}
	for _, e := range got["publish out"] {
		switch {
		case e.Cause.Topic != "beats" || e.By != "heart" || e.Refused:
			t.Errorf("captured %+v", e)
		case e.Ordinal == 0 && (!strings.HasPrefix(string(e.Body), `{"n":`) || e.Type != "test.Beat" || e.Headers[event.HeaderCause] != e.Cause.ID):
			t.Errorf("captured %+v, body %s", e, e.Body)
		case e.Ordinal == 1 && (string(e.Body) != `"raw"` || e.ID != e.Cause.ID+"-raw"):
			t.Errorf("captured %+v, body %s", e, e.Body)
		}
	}
	var sum string
	if err := st.db.QueryRowContext(t.Context(), `SELECT state FROM sums__try`).Scan(&sum); err != nil || sum != fmt.Sprint(beats*(beats-1)/2-7) {
		t.Errorf("the shadow of the fold is %s, %v", sum, err)
	}
	if last := got["fold sums"][beats-2]; string(last.Body) != sum || string(last.Key) != `"all"` {
		t.Errorf("the last state captured is %s of %s", last.Body, last.Key)
	}
	for _, want := range []string{"replayed in shadow", `"dead_lettered": 2`, `"refused": 1`, `"handled": 16`, `"dropped": 1`, "a loop does not start"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %s:\n%s", want, log)
		}
	}

	// It is done, and the same name again does nothing.
	st.extra = nil
	before := len(st.effects(t)["publish out"])
	if code, log := st.run(t, f.wire); code != 0 || len(st.effects(t)["publish out"]) != before {
		t.Errorf("again: exit code %d\n%s", code, log)
	}
	// Nor is it taken for another range.
	st.extra = []string{"--replay-from", "-1h"}
	if code, log := st.run(t, f.wire); code != 1 || !strings.Contains(log, "that of another replay") {
		t.Errorf("another range: exit code %d\n%s", code, log)
	}
}

// The test above sees each way out that a bug opens.
func TestWhatAShadowLetsOutIsSeen(t *testing.T) { //nolint:paralleltest // it replaces http.DefaultTransport
	for _, tt := range []struct {
		name  string
		plant func(s *Service, f *fugitive)
		want  string
	}{
		{"the producer is not redirected", func(s *Service, _ *fugitive) { s.replaying.plant.liveTopics = true }, "out has"},
		{"the cluster may write", func(s *Service, _ *fugitive) { s.Cluster.ReadOnly = false }, "out has"},
		{"the client is open", func(s *Service, _ *fugitive) { s.http.Transport = &http.Transport{} }, "the server was called"},
		{"everything is allowed", func(s *Service, _ *fugitive) { s.ReplayAllow(func(*http.Request) bool { return true }) }, "the server was called"},
	} {
		t.Run(tt.name, func(t *testing.T) { //nolint:paralleltest // as above
			st := newStage(t)
			st.extra = []string{"--replay-from", "start"}
			f := &fugitive{stage: st}
			code, log := st.run(t, func(ctx context.Context, s *Service) error {
				tt.plant(s, f)
				return f.wire(ctx, s)
			})
			if code != 0 {
				t.Fatalf("exit code %d\n%s", code, log)
			}
			if faults := strings.Join(st.untouched(t), "; "); !strings.Contains(faults, tt.want) {
				t.Errorf("not seen: %s", faults)
			}
		})
	}
}
