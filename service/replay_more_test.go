package service

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sqlitesink"
)

func TestReplayFlags(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	parse := func(args ...string) (*replaying, error) {
		var f replayFlags
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		f.register(fs, func(name string) string { return map[string]string{"HOME": "/h", "MILLRACE_REPLAY_SPEED": "2x"}[name] })
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		return f.parse(now)
	}
	r, err := parse("--replay", "auto", "--replay-from", "-1h", "--replay-clock", "event", "--replay-parallel", "4")
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "r20260102t030405006" || r.speed != 2 || r.parallel != 4 || r.clock != replay.EventClock || r.Mode != modeShadow ||
		!r.span.From.At.Equal(now.Add(-time.Hour)) || r.Backups != "/h/.local/state/millrace/offsets" {
		t.Errorf("got %+v", r)
	}
	r, err = parse("--replay", "x", "--replay-allow-idempotent", "true")
	if err != nil {
		t.Fatal(err)
	}
	q := httptest.NewRequest(http.MethodPost, "http://pay.example/", nil)
	if r.allowed(q) {
		t.Error("a request without a key is let out")
	}
	if q.Header.Set("Idempotency-Key", "k"); !r.allowed(q) {
		t.Error("a request with an Idempotency-Key is refused")
	}
	for name, args := range map[string][]string{
		"no replay":          {"--replay-from", "-1h"},
		"an id":              {"--replay", "a/b"},
		"an id, too long":    {"--replay", strings.Repeat("x", maxReplayID+1)},
		"a position":         {"--replay", "x", "--replay-from", "soon"},
		"an end":             {"--replay", "x", "--replay-until", "later"},
		"a mode":             {"--replay", "x", "--replay-mode", "live"},
		"a clock":            {"--replay", "x", "--replay-clock", "wall"},
		"a speed":            {"--replay", "x", "--replay-speed", "0x"},
		"parallel":           {"--replay", "x", "--replay-parallel", "0"},
		"where to publish":   {"--replay", "x", "--replay-publish", "live"},
		"neither":            {"--replay", "x", "--replay-allow-idempotent", "perhaps"},
		"rewind to nowhere":  {"--replay", "x", "--replay-mode", "rewind"},
		"rewind with an end": {"--replay", "x", "--replay-mode", "rewind", "--replay-from", "start", "--replay-until", "now"},
	} {
		if _, err := parse(args...); err == nil || !strings.Contains(err.Error(), "--replay") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestReplaysThatLookAlikeHaveTablesOfTheirOwn(t *testing.T) {
	t.Parallel()
	if got := tableSuffix("after_2"); got != "__after_2" {
		t.Errorf("got %s", got)
	}
	seen := map[string]string{}
	for _, id := range []string{"a.b", "a-b", "a_b", "A_b", "A.B"} {
		s := tableSuffix(id)
		if other, ok := seen[s]; ok {
			t.Errorf("%s and %s have the tables of each other: %s", id, other, s)
		}
		seen[s] = id
	}
}

func TestAReplayRefusesWhatNobodySpeaksFor(t *testing.T) {
	t.Parallel()
	const theirs = "example.com/shipping"
	for _, tt := range []struct {
		name    string
		program string
		deps    []string
		safe    []string
		sinks   bool
		want    string
	}{
		{"nothing but ours", theirs, []string{"github.com/twmb/franz-go", module}, nil, false, ""},
		{"a database", theirs, []string{"github.com/lib/pq"}, nil, false, "github.com/lib/pq"},
		{"a broker, by its major version", theirs, []string{"github.com/confluentinc/confluent-kafka-go/v2"}, nil, false, "confluent-kafka-go/v2"},
		{"a name that begins alike", theirs, []string{"github.com/lib/pqx"}, nil, false, ""},
		{"declared safe", theirs, []string{"github.com/lib/pq"}, []string{"reads only"}, false, ""},
		{"a sink's driver without a sink", theirs, []string{"github.com/jackc/pgx/v5"}, nil, false, "pgx"},
		{"a sink's driver with one", theirs, []string{"github.com/jackc/pgx/v5", "modernc.org/sqlite"}, nil, true, ""},
		{"another driver beside a sink", theirs, []string{"modernc.org/sqlite", "github.com/redis/go-redis/v9"}, nil, true, "go-redis/v9,"},
		{"in the millrace command", module, []string{"github.com/jackc/pgx/v5"}, nil, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &replaying{safe: tt.safe, sinks: tt.sinks, deps: func() (string, []string) { return tt.program, tt.deps }}
			err := r.refuseUnguarded()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error()+",", tt.want) || !strings.Contains(err.Error(), "ReplaySafe")) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// heart is a service with one consumer, which publishes.
func heart(handled *int, plant func(s *Service)) func(context.Context, *Service) error {
	return func(_ context.Context, s *Service) error {
		plant(s)
		p, err := s.Producer(producer.Config{})
		if err != nil {
			return err
		}
		mux := consumer.NewMux()
		consumer.On(mux, func(ctx context.Context, e event.Of[beat]) error {
			*handled++
			return p.Publish(ctx, event.After(e.Meta, "out", e.Key, e.Data))
		})
		s.Consume(mux, consumer.Config{Topics: []string{"beats"}})
		return nil
	}
}

func TestAShadowMayPublishNowhere(t *testing.T) { //nolint:paralleltest // it replaces http.DefaultTransport
	st := newStage(t)
	st.extra = []string{"--replay-from", "start", "--replay-publish", "capture"}
	n := 0
	if code, log := st.run(t, heart(&n, func(*Service) {})); code != 0 || n != beats || len(st.effects(t)["publish out"]) != beats {
		t.Errorf("exit code %d, %d handled, %d captured\n%s", code, n, len(st.effects(t)["publish out"]), log)
	}
	topics, err := st.adm.ListTopics(t.Context())
	if err != nil || topics.Has("replay.try.out") {
		t.Errorf("a topic was made, %v", err)
	}
	for _, fault := range st.untouched(t) {
		t.Error(fault)
	}
}

// A shadow that ends in the middle goes on behind what it has done, the shadow of its sink too.
func TestAShadowGoesOnWhereItWas(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	st.extra = []string{"--replay-from", "start"}
	n, fail := 0, true
	wire := func(_ context.Context, s *Service) error {
		out := sqlitesink.New(st.db, sqlitesink.Config{})
		sink.OnFold(out, sink.Fold[beat]{Name: "sums", By: func(event.Of[beat]) string { return "all" }}, func(sum int64, e event.Of[beat]) int64 { return sum + e.Data.N })
		sink.On(out, func(_ context.Context, _ *sql.Tx, es []event.Of[beat]) error {
			if n++; fail && n > 12 {
				return consumer.Stop(errors.New("the database is moved"))
			}
			return nil
		})
		return s.Sink(out, sink.Config{Name: "board", Topics: []string{"beats"}})
	}
	if code, log := st.run(t, wire); code != 1 || !strings.Contains(log, "go on with the same --replay try") || !strings.Contains(log, `"handled": 12`) {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	fail, st.extra = false, nil
	if code, log := st.run(t, wire); code != 0 || !strings.Contains(log, `"handled": 8`) {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	if got := state(t, st.db, "sums__try"); got != "190" || len(st.effects(t)["fold sums"]) != beats {
		t.Errorf("the shadow has %s, and %d effects were captured", got, len(st.effects(t)["fold sums"]))
	}
	for _, fault := range st.untouched(t) {
		t.Error(fault)
	}
}

// What a replay measures is told apart from what lives.
func TestMetricsOfAReplayAreMarked(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	st.extra = []string{"--replay-from", "start", "--metrics", "127.0.0.1:0"}
	var page string
	code, log := st.run(t, func(_ context.Context, s *Service) error {
		mux := consumer.NewMux()
		consumer.On(mux, func(context.Context, event.Of[beat]) error {
			w := httptest.NewRecorder()
			s.watching.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			page = w.Body.String()
			return nil
		})
		s.Consume(mux, consumer.Config{Topics: []string{"beats"}})
		return nil
	})
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	found := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "millrace_handler_events_total") {
			found = true
			if !strings.Contains(line, `replay="try"`) {
				t.Errorf("not marked: %s", line)
			}
		}
	}
	if !found {
		t.Errorf("no events are counted:\n%s", page)
	}
}

func TestAReplayThatWasNeverBegunSaysFromWhere(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	n := 0
	if code, log := st.run(t, heart(&n, func(*Service) {})); code != 1 || n != 0 || !strings.Contains(log, "--replay-from") {
		t.Errorf("exit code %d, %d handled\n%s", code, n, log)
	}
}

func TestAReplayRefusesAServiceWithADriver(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	st.extra = []string{"--replay-from", "start"}
	linked := func(s *Service) {
		s.replaying.deps = func() (string, []string) { return "", []string{"github.com/lib/pq"} }
	}
	n := 0
	if code, log := st.run(t, heart(&n, linked)); code != 1 || n != 0 || !strings.Contains(log, "s.ReplaySafe") {
		t.Errorf("exit code %d, %d handled\n%s", code, n, log)
	}
	if code, log := st.run(t, heart(&n, func(s *Service) { linked(s); s.ReplaySafe("it reads only") })); code != 0 || n != beats {
		t.Errorf("exit code %d, %d handled\n%s", code, n, log)
	}
}

func TestARewindMovesTheGroupAndKeepsABackup(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	backups := t.TempDir()
	st.extra = []string{"--replay-from", "start", "--replay-mode", "rewind", "--replay-backups", backups}
	n := 0
	code, log := st.run(t, heart(&n, func(*Service) {}))
	if code != 0 || n != 0 || !strings.Contains(log, "groups offsets undo heart") {
		t.Fatalf("exit code %d, %d handled\n%s", code, n, log)
	}
	commits, err := st.adm.FetchOffsets(t.Context(), "heart")
	if err != nil {
		t.Fatal(err)
	}
	commits.Each(func(o kadm.OffsetResponse) {
		if o.At != 0 {
			t.Errorf("%s/%d is at %d", o.Topic, o.Partition, o.At)
		}
	})
	if found, err := filepath.Glob(filepath.Join(backups, "*", "*", "*.json")); err != nil || len(found) != 1 {
		t.Errorf("backups: %v, %v", found, err)
	}
}

// A rewind beside a live member: it pauses, and then handles everything once more.
func TestARewindLetsLiveMembersPause(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	handled := make(chan string, 4*beats)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	env := func(name string) string {
		return map[string]string{"MILLRACE_BROKERS": strings.Join(st.cluster.Seeds, ","), "MILLRACE_REGISTRY": "http://127.0.0.1:1"}[name]
	}
	go func() {
		ended <- Run(ctx, "heart", nil, env, io.Discard, func(_ context.Context, s *Service) error {
			s.Schemas = st.reg
			mux := consumer.NewMux()
			consumer.On(mux, func(_ context.Context, e event.Of[beat]) error {
				handled <- e.ID
				return nil
			})
			s.Consume(mux, consumer.Config{Topics: []string{"beats"}})
			return nil
		})
	}()
	late := time.After(30 * time.Second)
	all := func(seen map[string]bool, want int) {
		t.Helper()
		for len(seen) < want {
			select {
			case id := <-handled:
				seen[id] = true
			case <-late:
				t.Fatalf("%d of %d events are handled", len(seen), want)
			}
		}
	}
	first, _ := st.adm.ListEndOffsets(t.Context(), "beats")
	skipped, _ := first.Lookup("beats", 1)
	all(map[string]bool{}, beats-int(min(3, skipped.Offset))) // from where the group stands
	st.extra = []string{"--replay-from", "start", "--replay-mode", "rewind", "--replay-backups", t.TempDir()}
	n := 0
	if code, log := st.run(t, heart(&n, func(*Service) {})); code != 0 || !strings.Contains(log, "rewound") {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	all(map[string]bool{}, beats)
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("the live service exits %d", code)
	}
}

func TestARebuildReplacesTheTable(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	st.extra = []string{"--replay-mode", "rebuild"}
	for _, q := range []string{
		`CREATE TABLE sums (key TEXT NOT NULL, window_start TEXT NOT NULL, state TEXT, PRIMARY KEY (key, window_start))`,
		`INSERT INTO sums VALUES ('all', '', '1')`,
	} {
		if _, err := st.db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	code, log := st.run(t, func(_ context.Context, s *Service) error {
		out := sqlitesink.New(st.db, sqlitesink.Config{})
		sink.OnFold(out, sink.Fold[beat]{Name: "sums", By: func(event.Of[beat]) string { return "all" }}, func(sum int64, e event.Of[beat]) int64 { return sum + e.Data.N })
		return s.Sink(out, sink.Config{Name: "board", Topics: []string{"beats"}})
	})
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	if got := state(t, st.db, "sums"); got != "190" {
		t.Errorf("the table has %s, want 190", got)
	}
	if got := state(t, st.db, "sums__old"); got != "1" {
		t.Errorf("the old table has %s, want 1", got)
	}
}

func state(t *testing.T, db *sql.DB, table string) (s string) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), `SELECT state FROM `+table).Scan(&s); err != nil {
		t.Error(err)
	}
	return s
}
