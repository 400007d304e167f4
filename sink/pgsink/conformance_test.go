package pgsink_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/internal/pgtest"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/pgsink"
	"github.com/millrace/millrace/sink/sinktest"
)

func pool(tb testing.TB, dsn string) *pgxpool.Pool {
	tb.Helper()
	p, err := pgxpool.New(tb.Context(), dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

func TestRealConformance(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) sinktest.Harness[pgx.Tx] {
		t.Helper()
		dsn := pgtest.DB(t)
		dump := pool(t, dsn)
		return sinktest.Harness[pgx.Tx]{
			Open: func() sink.DB[pgx.Tx] { return pgsink.NewDB(pool(t, dsn), pgsink.Config{}) },
			Dump: func(t *testing.T, table string, columns []string) [][]string {
				t.Helper()
				return contents(t, dump, table, columns)
			},
			Cut: func(t *testing.T, took bool) sink.DB[pgx.Tx] {
				t.Helper()
				proxy := pgtest.NewProxy(t, dsn)
				if took {
					proxy.CutAfter(1)
				} else {
					proxy.CutBefore(1)
				}
				return pgsink.NewDB(pool(t, proxy.DSN()), pgsink.Config{})
			},
			Data: func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "SELECT 'x'::integer")
				return err
			},
			Wrong: func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "SELECT * FROM nowhere")
				return err
			},
		}
	})
}

// contents are the rows of a table as text.
func contents(t *testing.T, p *pgxpool.Pool, table string, columns []string) [][]string {
	t.Helper()
	texts := make([]string, len(columns))
	for i, c := range columns {
		texts[i] = fmt.Sprintf("coalesce(%s::text, 'null')", pgx.Identifier{c}.Sanitize())
	}
	rows, err := p.Query(t.Context(), "SELECT ARRAY["+strings.Join(texts, ", ")+"] FROM "+pgx.Identifier(strings.Split(table, ".")).Sanitize())
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}
