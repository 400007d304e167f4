package shop_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/internal/pgtest"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/sink/sqlitesink"
)

// orders publishes the orders from to until-1, and again what it is told to, as a producer does that did not hear the answer.
func (m *mall) orders(t *testing.T, from, until int64, again ...event.Event) (events []event.Event, sum shop.Cell) {
	t.Helper()
	p, err := producer.New(kafka.Cluster{Seeds: m.fake.ListenAddrs()}, m.reg, producer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for n := from; n < until; n++ {
		o := order(n)
		e := event.New(shop.Orders, o.OrderID, o)
		events = append(events, e)
		sum = shop.Cell{Orders: sum.Orders + 1, Cents: sum.Cents + o.Cents}
	}
	for _, e := range append(events, again...) {
		if err := p.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return events, sum
}

// Orders that are published twice, a process that ends in the middle, and another that goes on: the table is the sum of the
// orders.
func TestAnalyticsIsTheSumOfTheOrders(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		where func(t *testing.T) (where string, read func(ctx context.Context) (shop.Revenue, error))
	}{
		{"SQLite", func(t *testing.T) (string, func(ctx context.Context) (shop.Revenue, error)) {
			t.Helper()
			file := filepath.Join(t.TempDir(), "analytics.db")
			db, err := sqlitesink.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			return file, func(ctx context.Context) (shop.Revenue, error) { return shop.SQLiteRevenue(ctx, db) }
		}},
		{"PostgreSQL", func(t *testing.T) (string, func(ctx context.Context) (shop.Revenue, error)) {
			t.Helper()
			dsn := pgtest.DB(t)
			pool, err := pgxpool.New(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			return dsn, func(ctx context.Context) (shop.Revenue, error) { return shop.PostgresRevenue(ctx, pool) }
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMall(t)
			where, read := tt.where(t)
			analytics := func() (stop func() (int, string)) {
				wired, stop := m.open(t, "analytics", func(ctx context.Context, s *service.Service) error { return shop.Analyse(ctx, s, where) })
				wired()
				return stop
			}
			var want shop.Cell
			check := func(when string, more shop.Cell) {
				t.Helper()
				want = shop.Cell{Orders: want.Orders + more.Orders, Cents: want.Cents + more.Cents}
				var got shop.Revenue
				wait(t, fmt.Sprintf("%s: %d orders", when, want.Orders), func() (ok bool) {
					var err error
					got, err = read(t.Context())
					return err == nil && got.Total.Orders >= want.Orders
				})
				if got.Total != want {
					t.Errorf("%s: got %+v, want %+v", when, got.Total, want)
				}
			}

			events, sum := m.orders(t, 0, 40)
			stop := analytics()
			check("first", sum)
			_, sum = m.orders(t, 40, 60, events[3], events[39], events[3])
			check("first, later", sum)
			stop()
			_, sum = m.orders(t, 60, 70, events[7])
			stop = analytics()
			check("second", sum)
			_, sum = m.orders(t, 70, 80)
			check("second, later", sum)
			code, log := stop()
			if code != 0 {
				t.Errorf("exit code %d: %s", code, log)
			}
			line, err := read(t.Context())
			if err != nil || !strings.Contains(line.String(), "80 orders") || !strings.Contains(line.String(), " leads with ") {
				t.Errorf("it says %q, %v", line, err)
			}
		})
	}
}

func TestAnEmptyTableSaysSo(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE revenue (key TEXT, window_start TEXT, state TEXT)"); err != nil {
		t.Fatal(err)
	}
	r, err := shop.SQLiteRevenue(t.Context(), db)
	if err != nil || r.String() != "0 orders, 0.00 EUR" {
		t.Errorf("got %q, %v", r, err)
	}
}
