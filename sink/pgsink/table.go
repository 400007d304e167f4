package pgsink

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// Write implements [sink.DB]. Rows go as one array per column: one plan for batches of any size, and no limit of
// 65,535 parameters. Rows that need no key go by COPY.
//
// Two partitions may write the same keys. Upserts take their locks in key order; a batch that also deletes takes those
// of all its keys first, in key order too.
func (d *db) Write(ctx context.Context, tx pgx.Tx, t *sink.Table, rows, deleted *schemas.Rows) (changed int64, err error) {
	upserts, deletes := rows != nil && rows.Len() > 0, deleted != nil && deleted.Len() > 0
	if deletes {
		n, err := d.remove(ctx, tx, t, rows, deleted)
		if err != nil {
			return 0, fmt.Errorf("delete from %s: %w", t.Name, err)
		}
		changed += n
	}
	if !upserts {
		return changed, nil
	}
	var n int64
	if t.Append && t.NoDedupe {
		n, err = d.copy(ctx, tx, t, rows)
	} else {
		n, err = d.insert(ctx, tx, t, rows)
	}
	if err != nil {
		return 0, fmt.Errorf("write to %s: %w", t.Name, err)
	}
	return changed + n, nil
}

func (d *db) insert(ctx context.Context, tx pgx.Tx, t *sink.Table, rows *schemas.Rows) (int64, error) {
	a := newArgs()
	defer a.free()
	for i := range rows.Columns() {
		a.column(rows, i)
	}
	r, err := exec(ctx, tx, d.insertSQL(t, rows.Columns()), a)
	return r.CommandTag.RowsAffected(), err
}

func (d *db) insertSQL(t *sink.Table, columns []schemas.Column) string {
	var b strings.Builder
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	fmt.Fprintf(&b, "INSERT INTO %s (%s) SELECT * FROM unnest(", d.ident(t.Name), list(names, itself))
	for i := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(i+1))
	}
	key := keyOf(t)
	fmt.Fprintf(&b, ") ON CONFLICT (%s) DO ", list(key, itself))
	var rest []string
	for _, name := range names {
		if !slices.Contains(key, name) {
			rest = append(rest, name)
		}
	}
	if t.Append || len(rest) == 0 {
		b.WriteString("NOTHING")
		return b.String()
	}
	b.WriteString("UPDATE SET " + list(rest, func(q string) string { return q + " = excluded." + q }))
	return b.String()
}

// remove deletes the rows of deleted, after locking all keys of the batch in their order.
func (d *db) remove(ctx context.Context, tx pgx.Tx, t *sink.Table, rows, deleted *schemas.Rows) (int64, error) {
	a := newArgs()
	defer a.free()
	if err := a.columns(deleted, t.Key); err != nil {
		return 0, err
	}
	both := rows != nil && rows.Len() > 0
	if both {
		if err := a.columns(rows, t.Key); err != nil {
			return 0, err
		}
	}
	lock, remove := d.removeSQL(t, deleted.Columns(), both)
	results, err := execAll(ctx, tx, a, lock, remove)
	if err != nil {
		return 0, err
	}
	return results[1].CommandTag.RowsAffected(), nil
}

// columns are the columns of rows that have the names.
func (a *args) columns(rows *schemas.Rows, names []string) error {
	for _, name := range names {
		i := slices.IndexFunc(rows.Columns(), func(c schemas.Column) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("%w: there is no column %s", errWrong, name)
		}
		a.column(rows, i)
	}
	return nil
}

// removeSQL are the statements that lock the keys of a batch and delete those in the first arguments. Texts are in
// the order of their bytes, as the batch's rows are, whatever the database's own order is.
func (d *db) removeSQL(t *sink.Table, columns []schemas.Column, both bool) (lock, remove string) {
	table, n := d.ident(t.Name), len(t.Key)
	arrays := func(from int) string {
		params := make([]string, n)
		for i := range params {
			params[i] = "$" + strconv.Itoa(from+i+1)
		}
		return "SELECT * FROM unnest(" + strings.Join(params, ", ") + ")"
	}
	names, order, match := make([]string, n), make([]string, n), make([]string, n)
	for i, key := range t.Key {
		names[i] = "k" + strconv.Itoa(i+1)
		order[i], match[i] = names[i], "t."+quote(key)+" = k."+names[i]
		if slices.ContainsFunc(columns, func(c schemas.Column) bool { return c.Name == key && typeOf(c).name == "text" }) {
			order[i] += ` COLLATE "C"`
		}
	}
	keys, matches, all := "k("+strings.Join(names, ", ")+")", strings.Join(match, " AND "), arrays(0)
	if both {
		all += " UNION ALL " + arrays(n)
	}
	lock = "SELECT FROM (SELECT * FROM (" + all + ") AS " + keys + " ORDER BY " + strings.Join(order, ", ") + ") AS k CROSS JOIN LATERAL (SELECT FROM " + table + " AS t WHERE " + matches + " FOR UPDATE) AS f"
	return lock, "DELETE FROM " + table + " AS t USING (" + arrays(0) + ") AS " + keys + " WHERE " + matches
}

// copy appends by COPY.
func (d *db) copy(ctx context.Context, tx pgx.Tx, t *sink.Table, rows *schemas.Rows) (int64, error) {
	a := newArgs()
	defer a.free()
	a.buf = appendCopy(a.buf, rows)
	names := make([]string, len(rows.Columns()))
	for i, c := range rows.Columns() {
		names[i] = c.Name
	}
	tag, err := tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(a.buf), "COPY "+d.ident(t.Name)+" ("+list(names, itself)+") FROM STDIN BINARY")
	return tag.RowsAffected(), err
}

// appendCopy appends rows in COPY's binary format.
func appendCopy(b []byte, rows *schemas.Rows) []byte {
	b = append(b, "PGCOPY\n\xff\r\n\x00"...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // no flags, no extension
	columns := rows.Columns()
	types, nulls := make([]pgType, len(columns)), make([][]bool, len(columns))
	for i, c := range columns {
		types[i], nulls[i] = typeOf(c), rows.Nulls(i)
	}
	for row := range rows.Len() {
		b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
		for i := range columns {
			b = appendValue(b, rows, i, row, types[i], nulls[i])
		}
	}
	return append(b, 0xff, 0xff) // the end
}
