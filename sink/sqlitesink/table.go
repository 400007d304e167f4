package sqlitesink

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// eventID is the column that keeps a producer's repeat out of an appended table.
const eventID = "event_id"

// ident is a table's name as SQL. What stands before a dot is an attached database.
func ident(table string) string {
	if schema, name, ok := strings.Cut(table, "."); ok {
		return quote(schema) + "." + quote(name)
	}
	return quote(table)
}

// bare is a table's name without its database.
func bare(table string) string {
	if _, name, ok := strings.Cut(table, "."); ok {
		return name
	}
	return table
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func list(names []string, f func(quoted string) string) string {
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f(quote(name)))
	}
	return b.String()
}

func typeOf(c *schemas.Column) string {
	switch c.Kind {
	case schemas.KindBool, schemas.KindInt:
		return "INTEGER"
	case schemas.KindFloat:
		return "REAL"
	case schemas.KindBytes:
		return "BLOB"
	default:
		return "TEXT"
	}
}

// column is one that a table has.
type column struct {
	name, kind string
	notNull    bool
	given      bool // has a default
	key        int  // its place in the primary key, from 1
}

// columnsOf are a table's columns, none where there is no such table.
func columnsOf(ctx context.Context, tx *sql.Tx, table string) ([]column, error) {
	schema := "main"
	if s, _, ok := strings.Cut(table, "."); ok {
		schema = s
	}
	rows, err := tx.QueryContext(ctx, `SELECT name, type, "notnull", dflt_value IS NOT NULL, pk FROM pragma_table_info(?, ?)`, bare(table), schema)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var out []column
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.name, &c.kind, &c.notNull, &c.given, &c.key); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// Prepare implements [sink.DB].
func (d *db) Prepare(ctx context.Context, p sink.Plan) error {
	var mode string
	if err := d.pool.QueryRowContext(ctx, `PRAGMA journal_mode=WAL`).Scan(&mode); err != nil {
		return fmt.Errorf("set the journal mode: %w", err)
	}
	if mode != "wal" {
		return fmt.Errorf("%w: its journal mode is %s and cannot be WAL: put the database into a file on a local disk", errPlan, mode)
	}
	return d.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, offsetsDDL+";"+seenDDL); err != nil {
			return fmt.Errorf("create the sink's own tables: %w", err)
		}
		if err := whole(ctx, tx, p); err != nil {
			return err
		}
		for _, fold := range p.Folds {
			if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+ident(fold)+foldDDL); err != nil {
				return fmt.Errorf("create the fold %s: %w", fold, err)
			}
		}
		for _, l := range p.Tables {
			if err := prepareTable(ctx, tx, l, p.Evolve); err != nil {
				return fmt.Errorf("prepare the table %s: %w", l.Name, err)
			}
		}
		return nil
	})
}

// whole refuses a rebuild that has positions and lacks a table.
func whole(ctx context.Context, tx *sql.Tx, p sink.Plan) error {
	if !p.Rebuild {
		return nil
	}
	var began bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM `+offsetsTable+` WHERE sink = ?)`, p.Sink).Scan(&began); err != nil || !began {
		return err
	}
	names := slices.Clone(p.Folds)
	for _, l := range p.Tables {
		names = append(names, l.Name)
	}
	for _, name := range names {
		if columns, err := columnsOf(ctx, tx, name); err != nil {
			return err
		} else if len(columns) == 0 {
			return fmt.Errorf("%w: %w: table %s", errPlan, sink.ErrHalfRebuild, name)
		}
	}
	return nil
}

func prepareTable(ctx context.Context, tx *sql.Tx, l sink.Layout, evolve bool) error {
	unique := l.Key
	if l.Append {
		unique = nil
		if !l.NoDedupe {
			unique = []string{eventID}
		}
	}
	names := namesOf(l.Columns)
	for _, name := range unique {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%w: it has no column %s", errPlan, name)
		}
	}
	have, err := columnsOf(ctx, tx, l.Name)
	if err != nil {
		return err
	}
	if len(have) == 0 {
		_, err := tx.ExecContext(ctx, createTable(l, unique))
		return err
	}
	missing, err := compare(l, unique, have)
	if err != nil {
		return err
	}
	if len(missing) > 0 && !evolve {
		return fmt.Errorf("%w: it lacks the column %s: add it, or allow Evolve (--evolve) to do that", errPlan, missing[0].Name)
	}
	for i := range missing {
		c := &missing[i]
		if !c.Nullable {
			return fmt.Errorf("%w: it lacks the column %s, which takes no null: rebuild the table", errPlan, c.Name)
		}
		if _, err := tx.ExecContext(ctx, `ALTER TABLE `+ident(l.Name)+` ADD COLUMN `+quote(c.Name)+` `+typeOf(c)); err != nil {
			return fmt.Errorf("add the column %s: %w", c.Name, err)
		}
	}
	return nil
}

func namesOf(r *schemas.Rows) []string {
	var names []string
	for _, c := range r.Columns() {
		names = append(names, c.Name)
	}
	return names
}

// createTable is DDL. A table with a key is ordered by it and has no other order; one that is appended to is in the
// order of its rows.
func createTable(l sink.Layout, unique []string) string {
	var b strings.Builder
	b.WriteString(`CREATE TABLE ` + ident(l.Name) + ` (`)
	columns := l.Columns.Columns()
	for i := range columns {
		c := &columns[i]
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(c.Name) + ` ` + typeOf(c))
		if !c.Nullable || slices.Contains(unique, c.Name) {
			b.WriteString(` NOT NULL`)
		}
	}
	switch {
	case l.Append && len(unique) > 0:
		b.WriteString(`, UNIQUE (` + list(unique, itself) + `)) STRICT`)
	case l.Append:
		b.WriteString(`) STRICT`)
	default:
		b.WriteString(`, PRIMARY KEY (` + list(unique, itself) + `)) STRICT, WITHOUT ROWID`)
	}
	return b.String()
}

func itself(quoted string) string { return quoted }

// compare returns the columns that a table lacks, or says what is different otherwise.
func compare(l sink.Layout, unique []string, have []column) (missing []schemas.Column, err error) {
	byName := map[string]column{}
	for _, h := range have {
		byName[strings.ToLower(h.name)] = h
	}
	key := map[int]string{}
	for _, c := range l.Columns.Columns() {
		h, ok := byName[strings.ToLower(c.Name)]
		switch {
		case !ok:
			missing = append(missing, c)
			continue
		case h.kind != typeOf(&c) && h.kind != "ANY":
			return nil, fmt.Errorf("%w: its column %s is %s, and the events' is %s: rebuild it", errPlan, c.Name, h.kind, typeOf(&c))
		case h.notNull && c.Nullable && !slices.Contains(unique, c.Name):
			return nil, fmt.Errorf("%w: its column %s takes no null, and the events have some: rebuild it", errPlan, c.Name)
		}
		delete(byName, strings.ToLower(c.Name))
		if h.key > 0 {
			key[h.key] = c.Name
		}
	}
	for _, h := range byName {
		if h.notNull && !h.given || h.key > 0 {
			return nil, fmt.Errorf("%w: its column %s has no value in the events: give it a default, or let it be null", errPlan, h.name)
		}
	}
	if !l.Append {
		for i, name := range unique {
			if len(key) != len(unique) || !strings.EqualFold(key[i+1], name) {
				return nil, fmt.Errorf("%w: its primary key is another than (%s): rebuild it", errPlan, strings.Join(unique, ", "))
			}
		}
	}
	return missing, nil
}

// maxParameters is how many values a statement had when it was fastest.
const maxParameters = 1000

// Write implements [sink.DB].
func (d *db) Write(ctx context.Context, tx *sql.Tx, t *sink.Table, rows, deleted *schemas.Rows) (changed int64, err error) {
	if deleted != nil && deleted.Len() > 0 {
		n, err := writeAll(ctx, tx, deleted, t.Key, func(n int) string {
			return `DELETE FROM ` + ident(t.Name) + ` WHERE (` + list(t.Key, itself) + `) IN (VALUES ` + marks("("+marks("?", len(t.Key))+")", n) + `)`
		})
		if err != nil {
			return 0, fmt.Errorf("delete from %s: %w", t.Name, err)
		}
		changed += n
	}
	if rows != nil && rows.Len() > 0 {
		names := namesOf(rows)
		head := `INSERT INTO ` + ident(t.Name) + ` (` + list(names, itself) + `) VALUES `
		tail := onConflict(t, names)
		n, err := writeAll(ctx, tx, rows, names, func(n int) string { return head + marks("("+marks("?", len(names))+")", n) + tail })
		if err != nil {
			return 0, fmt.Errorf("write to %s: %w", t.Name, err)
		}
		changed += n
	}
	return changed, nil
}

func onConflict(t *sink.Table, names []string) string {
	if t.Append {
		if t.NoDedupe {
			return ""
		}
		return ` ON CONFLICT (` + eventID + `) DO NOTHING`
	}
	rest := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(t.Key, name) })
	head := ` ON CONFLICT (` + list(t.Key, itself) + `) DO `
	if len(rest) == 0 {
		return head + `NOTHING`
	}
	return head + `UPDATE SET ` + list(rest, func(quoted string) string { return quoted + ` = excluded.` + quoted })
}

// writeAll runs the statements that text makes for the rows, with the columns that names names.
func writeAll(ctx context.Context, tx *sql.Tx, rows *schemas.Rows, names []string, text func(n int) string) (changed int64, err error) {
	cells := make([]cells, len(names))
	have := namesOf(rows)
	for i, name := range names {
		at := slices.Index(have, name)
		if at < 0 {
			return 0, fmt.Errorf("%w: the rows have no column %s", errPlan, name)
		}
		cells[i] = cellsOf(rows, at)
	}
	p := prepared{tx: tx, text: text}
	defer p.close()
	whole := max(1, maxParameters/len(names))
	args := make([]any, 0, whole*len(names))
	for from := 0; from < rows.Len(); from += whole {
		to := min(from+whole, rows.Len())
		args = args[:0]
		for row := from; row < to; row++ {
			for i := range cells {
				args = append(args, cells[i].at(row))
			}
		}
		n, err := p.exec(ctx, to-from, args)
		if err != nil {
			return 0, err
		}
		changed += n
	}
	return changed, nil
}

// cells are the values of a column as parameters.
type cells struct {
	nulls  []bool
	ints   []int64
	floats []float64
	texts  []string
	bytes  func(row int) []byte
	buf    []byte
	format func(dst []byte, v int64) []byte
}

func cellsOf(r *schemas.Rows, i int) cells {
	c := cells{nulls: r.Nulls(i)}
	switch r.Columns()[i].Kind {
	case schemas.KindBool, schemas.KindInt:
		c.ints = r.Ints(i)
	case schemas.KindDate:
		c.ints, c.format = r.Ints(i), appendDate
	case schemas.KindTime:
		c.ints, c.format = r.Ints(i), appendClock
	case schemas.KindTimestamp:
		c.ints, c.format = r.Ints(i), appendTimestamp
	case schemas.KindFloat:
		c.floats = r.Floats(i)
	case schemas.KindBytes:
		c.bytes = func(row int) []byte { return r.Bytes(i, row) }
	default:
		c.texts = r.Texts(i)
	}
	return c
}

func (c *cells) at(row int) any {
	switch {
	case c.nulls != nil && c.nulls[row]:
		return nil
	case c.format != nil:
		c.buf = c.format(c.buf[:0], c.ints[row])
		return string(c.buf)
	case c.ints != nil:
		return c.ints[row]
	case c.floats != nil:
		return c.floats[row]
	case c.texts != nil:
		return c.texts[row]
	default:
		return c.bytes(row)
	}
}

func appendTimestamp(dst []byte, micros int64) []byte {
	return time.UnixMicro(micros).UTC().AppendFormat(dst, "2006-01-02 15:04:05.000000")
}

func appendDate(dst []byte, days int64) []byte {
	return time.Unix(days*86_400, 0).UTC().AppendFormat(dst, time.DateOnly)
}

func appendClock(dst []byte, micros int64) []byte {
	return time.UnixMicro(micros).UTC().AppendFormat(dst, "15:04:05.000000")
}

var _ sink.DB[*sql.Tx] = (*db)(nil)
