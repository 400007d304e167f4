package integration_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/pgtest"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/pgsink"
)

// kilometres is the state of a fold.
type kilometres struct{ Trips, Km int64 }

// settled counts the COMMITs without an answer, by what had become of them.
type settled struct {
	sink.Silent
	took, lost atomic.Int64
}

func (s *settled) Settled(_ cursor.ID, done bool) {
	if done {
		s.took.Add(1)
	} else {
		s.lost.Add(1)
	}
}

// tripSink writes trips in all the ways that a sink has: a function, a fold and two tables.
func tripSink(pool *pgxpool.Pool) *sink.Mux[pgx.Tx] {
	out := pgsink.New(pool, pgsink.Config{Timeout: 20 * time.Second, Idle: 5 * time.Second})
	sink.On(out, func(ctx context.Context, tx pgx.Tx, es []event.Of[trip]) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"by_hand"}, []string{"event_id"}, pgx.CopyFromSlice(len(es), func(i int) ([]any, error) { return []any{es[i].ID}, nil }))
		return err
	})
	sink.OnFold(out, sink.Fold[trip]{Name: "km_per_city", By: func(e event.Of[trip]) string { return e.Data.City }}, func(k kilometres, e event.Of[trip]) kilometres {
		return kilometres{k.Trips + 1, k.Km + e.Data.Km}
	})
	out.Table(sink.Table{Name: "trips", Event: trip{}.AvroName(), Key: []string{"id"}})
	out.Table(sink.Table{Name: "trip_log", Event: trip{}.AvroName(), Append: true})
	return out
}

// Two members write to PostgreSQL while connections are cut at COMMIT, on both sides of it, and the server is killed;
// the producer repeats itself, and some rows do not fit. Every event is there once, in all tables, or a dead letter.
func TestRealPostgresSinkWritesOnce(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, 3)
	register(t, p.writes, p.topic, schemas.MustFor[trip]())
	server := pgtest.Start(t, pgtest.Config{})
	dsn := server.Fresh(t)
	pool := postgres(t, dsn)
	if _, err := pool.Exec(t.Context(), "CREATE TABLE by_hand (event_id text)"); err != nil {
		t.Fatal(err)
	}

	const n, ids, cities = 6000, 500, 7
	var events []event.Event
	want := map[string]kilometres{}
	for i := range n {
		at := trip{ID: fmt.Sprintf("trip-%03d", i%ids), City: "city " + strconv.Itoa(i%cities), Km: int64(i)}
		if i%2000 == 1999 {
			at.ID += "\x00" // no text of PostgreSQL has it
		} else {
			k := want[at.City]
			want[at.City] = kilometres{k.Trips + 1, k.Km + at.Km}
		}
		events = append(events, event.New(p.topic, at.ID, at))
	}
	publish(t, p.cluster, p.writes, events[:n/2]...)

	proxy := pgtest.NewProxy(t, dsn)
	seen := &settled{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	for range 2 {
		out := tripSink(postgres(t, proxy.DSN()))
		go func() {
			ended <- sink.Run(ctx, p.cluster, p.reads, out, sink.Config{
				Name: p.group, Topics: []string{p.topic}, Batch: 100, Wait: 5 * time.Millisecond, Dedupe: time.Hour, CreateTopics: true,
				Retry: consumer.Retry{Attempts: 2, Backoff: 10 * time.Millisecond, Max: 50 * time.Millisecond}, Observer: seen, SessionTimeout: 6 * time.Second,
			})
		}()
	}
	tables := tripSink(pool).Admin()
	written := func() (sum int64) {
		rows, err := tables.Positions(t.Context(), p.group)
		if err != nil {
			return 0 // it is being killed
		}
		for _, r := range rows {
			sum += r.Next
		}
		return sum
	}
	for round := range 6 {
		if round%2 == 0 {
			proxy.CutBefore(3)
		} else {
			proxy.CutAfter(3)
		}
		until := proxy.Commits() + 4
		publish(t, p.cluster, p.writes, events[n/2+round*500:n/2+round*500+500]...)
		await(t, "a cut", func() bool { return proxy.Commits() >= until })
		if round == 3 {
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(t, p.cluster, p.writes, events[:300]...) // the producer's repeat
	await(t, "everything is written", func() bool { return written() == n+300 })
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if seen.took.Load() == 0 || seen.lost.Load() == 0 {
		t.Errorf("of the commits without an answer %d had taken effect and %d had not: the test needs both", seen.took.Load(), seen.lost.Load())
	}
	p.wantTrips(pool, events, want, n-3)
	if got := length(t, p.admin(), p.topic+"."+p.group+".dlq"); got < 3 {
		t.Errorf("%d dead letters, want 3, or more where a transaction failed after them", got)
	}
}

// wantTrips compares the tables of tripSink with what was published.
func (p *pipeline) wantTrips(pool *pgxpool.Pool, events []event.Event, want map[string]kilometres, n int64) {
	p.t.Helper()
	ctx := p.t.Context()
	for _, table := range []string{"by_hand", "trip_log"} {
		var rows, ids int64
		if err := pool.QueryRow(ctx, "SELECT count(*), count(DISTINCT event_id) FROM "+table).Scan(&rows, &ids); err != nil || rows != n || ids != n {
			p.t.Errorf("%s: %d rows of %d events, want %d: %v", table, rows, ids, n, err)
		}
	}
	last := map[string]trip{}
	for _, e := range events {
		if at, ok := e.Data.(trip); ok && at.ID[len(at.ID)-1] != 0 {
			last[at.ID] = at
		}
	}
	rows, err := pool.Query(ctx, "SELECT id, city, km FROM trips")
	if err != nil {
		p.t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[trip])
	if err != nil || len(got) != len(last) {
		p.t.Errorf("%d trips, want %d: %v", len(got), len(last), err)
	}
	for _, at := range got {
		if at != last[at.ID] {
			p.t.Errorf("%+v is there, want %+v", at, last[at.ID])
		}
	}
	rows, err = pool.Query(ctx, "SELECT key, (state->>'Trips')::bigint, (state->>'Km')::bigint FROM km_per_city")
	if err != nil {
		p.t.Fatal(err)
	}
	var city string
	var k kilometres
	found := 0
	_, err = pgx.ForEachRow(rows, []any{&city, &k.Trips, &k.Km}, func() error {
		found++
		if k != want[city] {
			p.t.Errorf("%s: %+v, want %+v", city, k, want[city])
		}
		return nil
	})
	if err != nil || found != len(want) {
		p.t.Errorf("%d cities, want %d: %v", found, len(want), err)
	}
}

func postgres(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
