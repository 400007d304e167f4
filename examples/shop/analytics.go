package shop

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/pgsink"
	"github.com/millrace/millrace/sink/sqlitesink"
)

// AnalyticsEnv says where analytics keeps its table: postgres://…, or the file of a SQLite. It is analytics.db without.
const AnalyticsEnv = "SHOP_ANALYTICS"

// revenueTable has a row for each country and minute: key, window_start, state.
const revenueTable = "revenue"

// repeatsKept is for how long an order that was published twice, because its producer did not hear the answer, is
// recognised by its id.
const repeatsKept = 24 * time.Hour

// Analytics is the service that keeps revenue per minute and country, in a database.
//
// Its numbers are right whatever crashes, though delivery is at least once: what an order adds and the position behind it
// are one transaction. Any number of processes share the partitions, and the country is not the key of the topic: two that
// meet at a country wait for each other.
func Analytics(ctx context.Context, s *service.Service) error {
	return Analyse(ctx, s, cmp.Or(os.Getenv(AnalyticsEnv), "analytics.db"))
}

// Analyse is [Analytics] with its table where the caller says.
func Analyse(ctx context.Context, s *service.Service, where string) error {
	if strings.HasPrefix(where, "postgres://") || strings.HasPrefix(where, "postgresql://") {
		pool, err := pgxpool.New(ctx, where)
		if err != nil {
			return fmt.Errorf("open the table: %w", err)
		}
		s.AtEnd(func() error { pool.Close(); return nil })
		return keepRevenue(s, pgsink.New(pool, pgsink.Config{}), func(ctx context.Context) (Revenue, error) { return PostgresRevenue(ctx, pool) })
	}
	db, err := sqlitesink.Open(where)
	if err != nil {
		return fmt.Errorf("open the table: %w", err)
	}
	s.AtEnd(db.Close)
	return keepRevenue(s, sqlitesink.New(db, sqlitesink.Config{}), func(ctx context.Context) (Revenue, error) { return SQLiteRevenue(ctx, db) })
}

func keepRevenue[Tx any](s *service.Service, out *sink.Mux[Tx], read func(ctx context.Context) (Revenue, error)) error {
	sink.OnFold(out, sink.Fold[OrderPlaced]{
		Name: revenueTable, Window: time.Minute, Lateness: repeatsKept,
		By: func(e event.Of[OrderPlaced]) string { return e.Data.Country },
	}, Cell.Add)
	watch := &repeats{}
	s.Report(func() string {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r, err := read(ctx)
		if err != nil {
			return "the table cannot be read: " + err.Error()
		}
		return fmt.Sprintf("%s; %s repeats skipped", r, grouped(watch.n.Load()))
	})
	return s.Sink(out, sink.Config{Topics: []string{Orders}, Dedupe: repeatsKept, SessionTimeout: sessionTimeout, Observer: watch})
}

// Cell is what a country bought in a minute.
type Cell struct {
	Orders int64 `json:"orders"`
	Cents  int64 `json:"cents"`
}

// Add is the cell with one order more.
func (c Cell) Add(e event.Of[OrderPlaced]) Cell { return Cell{c.Orders + 1, c.Cents + e.Data.Cents} }

// Revenue is what the table says: the sum of it, and who leads in its last minute.
type Revenue struct {
	Total  Cell
	Minute time.Time // zero in an empty table
	Leader string
	Leads  Cell
}

// String is the revenue in one line.
func (r Revenue) String() string {
	line := fmt.Sprintf("%s orders, %s EUR", grouped(r.Total.Orders), euros(r.Total.Cents))
	if r.Leader != "" {
		line += fmt.Sprintf("; %s UTC: %s leads with %s EUR", r.Minute.UTC().Format("15:04"), r.Leader, euros(r.Leads.Cents))
	}
	return line
}

// SQLiteRevenue reads the table.
func SQLiteRevenue(ctx context.Context, db *sql.DB) (r Revenue, err error) {
	var minute sql.NullString
	err = db.QueryRowContext(ctx, `SELECT coalesce(sum(state->>'orders'), 0), coalesce(sum(state->>'cents'), 0), max(window_start) FROM `+revenueTable).
		Scan(&r.Total.Orders, &r.Total.Cents, &minute)
	if err != nil || !minute.Valid {
		return r, err
	}
	err = db.QueryRowContext(ctx, `SELECT key, state->>'orders', state->>'cents' FROM `+revenueTable+` WHERE window_start = ? ORDER BY state->>'cents' DESC, key LIMIT 1`, minute.String).
		Scan(&r.Leader, &r.Leads.Orders, &r.Leads.Cents)
	if err == nil {
		r.Minute, err = time.Parse(time.DateTime, minute.String[:len(time.DateTime)])
	}
	return r, err
}

// PostgresRevenue reads the table.
func PostgresRevenue(ctx context.Context, pool *pgxpool.Pool) (r Revenue, err error) {
	var minute *time.Time
	err = pool.QueryRow(ctx, `SELECT coalesce(sum((state->>'orders')::bigint), 0)::bigint, coalesce(sum((state->>'cents')::bigint), 0)::bigint, max(window_start) FROM `+revenueTable).
		Scan(&r.Total.Orders, &r.Total.Cents, &minute)
	if err != nil || minute == nil {
		return r, err
	}
	r.Minute = *minute
	err = pool.QueryRow(ctx, `SELECT key, (state->>'orders')::bigint, (state->>'cents')::bigint FROM `+revenueTable+` WHERE window_start = $1 ORDER BY (state->>'cents')::bigint DESC, key LIMIT 1`, *minute).
		Scan(&r.Leader, &r.Leads.Orders, &r.Leads.Cents)
	return r, err
}

// repeats counts the orders that were published twice.
type repeats struct {
	sink.Silent

	n atomic.Int64
}

// Written implements [sink.Observer].
func (r *repeats) Written(_ cursor.ID, w sink.Written, _ time.Duration, err error) {
	if err == nil {
		r.n.Add(int64(w.Repeats))
	}
}
