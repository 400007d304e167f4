package sqlitesink

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/sink"
)

// Seen is in seconds since 1970. Its index finds what is old.
const seenDDL = `CREATE TABLE IF NOT EXISTS ` + seenTable + ` (sink TEXT, event_id TEXT, seen INTEGER NOT NULL, PRIMARY KEY (sink, event_id)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ` + seenTable + `_by_time ON ` + seenTable + ` (sink, seen)`

// perStatement is how many rows or keys a statement has: fewer pay for their statements, more for its size.
const perStatement = 100

// marks is n times what stands for one row, between commas: (?,?),(?,?).
func marks(row string, n int) string {
	return strings.TrimSuffix(strings.Repeat(row+",", n), ",")
}

// pieces calls f for at most perStatement of n at a time.
func pieces(n int, f func(from, to int) error) error {
	for from := 0; from < n; from += perStatement {
		if err := f(from, min(from+perStatement, n)); err != nil {
			return err
		}
	}
	return nil
}

// prepared keeps the statements of one call, one for each number of rows: nearly always two.
type prepared struct {
	tx    *sql.Tx
	text  func(n int) string
	stmts map[int]*sql.Stmt
}

func (p *prepared) close() {
	for _, stmt := range p.stmts {
		_ = stmt.Close() // the transaction ends it as well
	}
}

// of is the statement for n rows.
func (p *prepared) of(ctx context.Context, n int) (*sql.Stmt, error) {
	if stmt, ok := p.stmts[n]; ok {
		return stmt, nil
	}
	stmt, err := p.tx.PrepareContext(ctx, p.text(n))
	if err != nil {
		return nil, err
	}
	if p.stmts == nil {
		p.stmts = map[int]*sql.Stmt{}
	}
	p.stmts[n] = stmt
	return stmt, nil
}

// query calls row for each row of the answer to the statement for n rows.
func (p *prepared) query(ctx context.Context, n int, args []any, row func(*sql.Rows) error) error {
	stmt, err := p.of(ctx, n) //nolint:sqlclosecheck // close does
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// exec runs the statement for n rows.
func (p *prepared) exec(ctx context.Context, n int, args []any) (int64, error) {
	stmt, err := p.of(ctx, n) //nolint:sqlclosecheck // close does
	if err != nil {
		return 0, err
	}
	r, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Seen implements [sink.DB]. What is older than keep is forgotten on the way, twice as many ids as come, so that no
// transaction has much to do.
func (d *db) Seen(ctx context.Context, tx *sql.Tx, name string, ids []string, keep time.Duration) ([]bool, error) {
	now := d.now().Unix()
	since := d.now().Add(-keep).Unix()
	out := make([]bool, len(ids))
	err := d.lookAndNote(ctx, tx, name, ids, now, since, out)
	if err == nil && len(ids) > 0 {
		_, err = tx.ExecContext(ctx, `DELETE FROM `+seenTable+` WHERE (sink, event_id) IN (SELECT sink, event_id FROM `+seenTable+` WHERE sink = ? AND seen <= ? LIMIT ?)`, name, since, 2*len(ids))
	}
	if err != nil {
		return nil, fmt.Errorf("note event ids: %w", err)
	}
	return out, nil
}

func (d *db) lookAndNote(ctx context.Context, tx *sql.Tx, name string, ids []string, now, since int64, out []bool) error {
	// The + keeps SQLite from looking through all that is new.
	look := prepared{tx: tx, text: func(n int) string {
		return `SELECT event_id FROM ` + seenTable + ` WHERE sink = ? AND +seen > ? AND event_id IN (` + marks("?", n) + `)`
	}}
	defer look.close()
	note := prepared{tx: tx, text: func(n int) string {
		return `INSERT INTO ` + seenTable + ` (sink, event_id, seen) SELECT ?, column1, ? FROM (VALUES ` + marks("(?)", n) + `) WHERE true ON CONFLICT (sink, event_id) DO UPDATE SET seen = excluded.seen`
	}}
	defer note.close()
	args := make([]any, 0, perStatement+2)
	place := make(map[string]int, perStatement)
	return pieces(len(ids), func(from, to int) error {
		clear(place)
		args = append(args[:0], name, since)
		for i := from; i < to; i++ {
			place[ids[i]] = i
			args = append(args, ids[i])
		}
		err := look.query(ctx, to-from, args, func(rows *sql.Rows) error {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			out[place[id]] = true
			return nil
		})
		if err != nil {
			return err
		}
		args = append(args[:0], name, now)
		for i := from; i < to; i++ {
			if !out[i] {
				args = append(args, ids[i])
			}
		}
		if len(args) == 2 {
			return nil
		}
		_, err = note.exec(ctx, len(args)-2, args)
		return err
	})
}

// A fold without windows has the window ”.
const foldDDL = ` (key TEXT, window_start TEXT, state TEXT NOT NULL, PRIMARY KEY (key, window_start)) STRICT, WITHOUT ROWID`

// window is the column's form of a window.
func window(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return string(appendTimestamp(nil, t.UnixMicro()))
}

// Load implements [sink.DB]. There is one writer: what is not there cannot be made by another before this one stores it.
func (d *db) Load(ctx context.Context, tx *sql.Tx, fold string, keys []sink.FoldKey) ([][]byte, error) {
	load := prepared{tx: tx, text: func(n int) string {
		return `WITH k(n, key, window_start) AS (VALUES ` + marks("(?,?,?)", n) + `)
SELECT k.n, f.state FROM k CROSS JOIN ` + ident(fold) + ` AS f ON f.key = k.key AND f.window_start = k.window_start`
	}}
	defer load.close()
	out := make([][]byte, len(keys))
	args := make([]any, 0, 3*perStatement)
	err := pieces(len(keys), func(from, to int) error {
		args = args[:0]
		for i := from; i < to; i++ {
			args = append(args, i, keys[i].Key, window(keys[i].Window))
		}
		return load.query(ctx, to-from, args, func(rows *sql.Rows) error {
			var i int
			var state []byte
			if err := rows.Scan(&i, &state); err != nil {
				return err
			}
			out[i] = state
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("load the states of %s: %w", fold, err)
	}
	return out, nil
}

// Store implements [sink.DB].
func (d *db) Store(ctx context.Context, tx *sql.Tx, fold string, keys []sink.FoldKey, states [][]byte) error {
	store := prepared{tx: tx, text: func(n int) string {
		return `INSERT INTO ` + ident(fold) + ` (key, window_start, state) VALUES ` + marks("(?,?,?)", n) + ` ON CONFLICT (key, window_start) DO UPDATE SET state = excluded.state`
	}}
	defer store.close()
	args := make([]any, 0, 3*perStatement)
	err := pieces(len(keys), func(from, to int) error {
		args = args[:0]
		for i := from; i < to; i++ {
			args = append(args, keys[i].Key, window(keys[i].Window), string(states[i]))
		}
		_, err := store.exec(ctx, to-from, args)
		return err
	})
	if err != nil {
		return fmt.Errorf("store the states of %s: %w", fold, err)
	}
	return nil
}
