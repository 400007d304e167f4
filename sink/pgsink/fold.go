package pgsink

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/sink"
)

// A fold without windows has the window -infinity.
const foldDDL = ` (key text, window_start timestamptz, state jsonb, PRIMARY KEY (key, window_start))`

func foldArgs(keys []sink.FoldKey) *args {
	a := newArgs()
	a.array(pgtype.TextArrayOID, pgtype.TextOID, len(keys), false)
	for i := range keys {
		a.buf = append(appendInt32(a.buf, int32(len(keys[i].Key))), keys[i].Key...)
	}
	a.array(pgtype.TimestamptzArrayOID, pgtype.TimestamptzOID, len(keys), false)
	for i := range keys {
		a.elem8(instant(keys[i].Window))
	}
	return a
}

// Load implements [sink.DB]. Rows are made first and then locked: locking alone misses a key that two transactions see
// for the first time. Both go key by key in the order given, so that two transactions do not wait for each other.
func (d *db) Load(ctx context.Context, tx pgx.Tx, fold string, keys []sink.FoldKey) ([][]byte, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	a := foldArgs(keys)
	defer a.free()
	table := d.ident(fold)
	results, err := execAll(ctx, tx, a,
		`INSERT INTO `+table+` (key, window_start) SELECT * FROM unnest($1, $2) ON CONFLICT DO NOTHING`,
		`SELECT f.state FROM unnest($1, $2) WITH ORDINALITY AS k(key, window_start, n)
CROSS JOIN LATERAL (SELECT state FROM `+table+` AS t WHERE t.key = k.key AND t.window_start = k.window_start FOR UPDATE) AS f ORDER BY k.n`)
	if err != nil {
		return nil, fmt.Errorf("load the states of %s: %w", fold, err)
	}
	rows := results[1].Rows
	if len(rows) != len(keys) {
		return nil, fmt.Errorf("load the states of %s: %w: %d rows for %d keys", fold, errResult, len(rows), len(keys))
	}
	states := make([][]byte, len(keys))
	for i, row := range rows {
		if len(row) != 1 {
			return nil, errResult
		}
		states[i] = bytes.TrimPrefix(row[0], []byte{1}) // the version of jsonb's format
	}
	return states, nil
}

// Store implements [sink.DB]. By ON CONFLICT, which always goes by the index: what an UPDATE does with an array
// depends on how well the planner knows a table that has just been made.
func (d *db) Store(ctx context.Context, tx pgx.Tx, fold string, keys []sink.FoldKey, states [][]byte) error {
	if len(keys) == 0 {
		return nil
	}
	a := foldArgs(keys)
	defer a.free()
	a.array(pgtype.JSONBArrayOID, pgtype.JSONBOID, len(states), false)
	for _, s := range states {
		a.buf = append(append(appendInt32(a.buf, int32(len(s)+1)), 1), s...)
	}
	_, err := exec(ctx, tx, `INSERT INTO `+d.ident(fold)+` (key, window_start, state) SELECT * FROM unnest($1, $2, $3)
ON CONFLICT (key, window_start) DO UPDATE SET state = excluded.state`, a)
	if err != nil {
		return fmt.Errorf("store the states of %s: %w", fold, err)
	}
	return nil
}
