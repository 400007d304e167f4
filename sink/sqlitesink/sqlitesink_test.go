package sqlitesink

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sinktest"
)

func open(tb testing.TB, path string) *sql.DB {
	tb.Helper()
	pool, err := Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := pool.Close(); err != nil {
			tb.Error(err)
		}
	})
	return pool
}

// harness is a file for a test, to which each adapter has a handle of its own, as processes have.
func harness(t *testing.T) sinktest.Harness[*sql.Tx] {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a b?%.db")
	return sinktest.Harness[*sql.Tx]{
		Open: func() sink.DB[*sql.Tx] { return newDB(open(t, path), Config{}) },
		Dump: func(t *testing.T, table string, columns []string) [][]string {
			t.Helper()
			return dump(t, open(t, path), table, columns)
		},
		Cut: func(t *testing.T, took bool) sink.DB[*sql.Tx] {
			t.Helper()
			d := newDB(open(t, path), Config{})
			d.commit = func(tx *sql.Tx) error {
				d.commit = (*sql.Tx).Commit
				end := (*sql.Tx).Rollback
				if took {
					end = (*sql.Tx).Commit
				}
				return errors.Join(errors.New("the disk does not answer"), end(tx))
			}
			return d
		},
		Data: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO `+seenTable+` (sink, event_id, seen) VALUES ('s', 'i', 'no number')`)
			return err
		},
		Wrong: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `SELECT * FROM nowhere`)
			return err
		},
	}
}

func dump(t *testing.T, pool *sql.DB, table string, columns []string) [][]string {
	t.Helper()
	rows, err := pool.QueryContext(t.Context(), `SELECT `+list(columns, itself)+` FROM `+ident(table))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var out [][]string
	for rows.Next() {
		row, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		texts := make([]string, len(row))
		for i, v := range row {
			switch v := v.(type) {
			case nil:
				texts[i] = "null"
			case []byte:
				texts[i] = string(v)
			default:
				texts[i] = strings.TrimSpace(fmt.Sprint(v))
			}
		}
		out = append(out, texts)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestConformance(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, harness)
}
