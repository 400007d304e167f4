package pgsink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// Prepare implements [sink.DB], in one transaction: all of the plan or nothing.
func (d *db) Prepare(ctx context.Context, p sink.Plan) error {
	if err := d.checkRoom(p); err != nil {
		return fmt.Errorf("prepare the tables of sink %s: %w", p.Sink, err)
	}
	err := d.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := d.alone(ctx, tx); err != nil {
			return err
		}
		if err := d.makeSchema(ctx, tx); err != nil {
			return err
		}
		if err := d.make(ctx, tx, offsetsTable, offsetsDDL); err != nil {
			return err
		}
		if p.Dedupe {
			if err := d.make(ctx, tx, seenTable, seenDDL); err != nil {
				return err
			}
			if err := d.partitions(ctx, tx); err != nil {
				return err
			}
		}
		if err := d.whole(ctx, tx, p); err != nil {
			return err
		}
		for _, name := range slices.Sorted(slices.Values(p.Folds)) {
			if err := d.prepareFold(ctx, tx, name); err != nil {
				return err
			}
		}
		var wrong []error
		for _, l := range p.Tables {
			err := d.prepareTable(ctx, tx, l, p.Evolve)
			if err != nil && !errors.Is(err, errWrong) {
				return err
			}
			wrong = append(wrong, err)
		}
		return errors.Join(wrong...)
	})
	if err != nil {
		return fmt.Errorf("prepare the tables of sink %s: %w", p.Sink, err)
	}
	return nil
}

// whole refuses a rebuild that has positions and lacks a table.
func (d *db) whole(ctx context.Context, tx pgx.Tx, p sink.Plan) error {
	if !p.Rebuild {
		return nil
	}
	var began bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+d.offsets+` WHERE sink = $1)`, pgx.QueryExecModeExec, p.Sink).Scan(&began); err != nil || !began {
		return err
	}
	for _, name := range tablesOf(p) {
		if there, err := d.exists(ctx, tx, name); err != nil {
			return err
		} else if !there {
			return fmt.Errorf("%w: %w: table %s", errWrong, sink.ErrHalfRebuild, d.ident(name))
		}
	}
	return nil
}

// alone has the members of all sinks make and change tables one after the other, until the transaction ends.
func (d *db) alone(ctx context.Context, tx pgx.Tx) error {
	const lock = "0x6d696c6c72616365" // "millrace"
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(x'"+strings.TrimPrefix(lock, "0x")+"'::bigint)")
	return err
}

// makeSchema asks first: CREATE SCHEMA IF NOT EXISTS needs a right that the sink's user may not have.
func (d *db) makeSchema(ctx context.Context, tx pgx.Tx) error {
	var there bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, pgx.QueryExecModeExec, d.cfg.Schema).Scan(&there); err != nil || there {
		return err
	}
	_, err := tx.Exec(ctx, "CREATE SCHEMA "+quote(d.cfg.Schema))
	return err
}

func (d *db) exists(ctx context.Context, tx pgx.Tx, table string) (there bool, err error) {
	err = tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, pgx.QueryExecModeExec, d.ident(table)).Scan(&there)
	return there, err
}

func (d *db) make(ctx context.Context, tx pgx.Tx, table, ddl string) error {
	there, err := d.exists(ctx, tx, table)
	if err != nil || there {
		return err
	}
	if _, err := tx.Exec(ctx, "CREATE TABLE "+d.ident(table)+ddl); err != nil {
		return fmt.Errorf("create table %s: %w", d.ident(table), err)
	}
	return nil
}

func (d *db) prepareFold(ctx context.Context, tx pgx.Tx, name string) error {
	if err := d.checkName(name); err != nil {
		return err
	}
	if err := d.make(ctx, tx, name, foldDDL); err != nil {
		return err
	}
	have, err := d.columns(ctx, tx, name)
	if err != nil {
		return err
	}
	for column, want := range map[string]string{"key": "text", "window_start": "timestamp with time zone", "state": "jsonb"} {
		if got := have[column].Type; got != want {
			return fmt.Errorf("%w: table %s is not one of a fold: it needs a column %s of type %s, and has %q: give the fold another name", errWrong, d.ident(name), column, want, got)
		}
	}
	return nil
}

// checkRoom refuses names that leave no room for what a rebuild calls the table that it replaces.
func (d *db) checkRoom(p sink.Plan) error {
	if p.Shadow {
		return nil
	}
	for _, table := range tablesOf(p) {
		_, name := d.split(table)
		if live := strings.TrimSuffix(name, sink.RebuildSuffix); len(live) > maxName-len(oldSuffix) {
			return fmt.Errorf("%w: %q is too long a name: PostgreSQL has names of at most %d bytes, and a rebuild calls the old table %s%s", errWrong, live, maxName, live, oldSuffix)
		}
	}
	return nil
}

// tablesOf are the names of a plan's folds and tables.
func tablesOf(p sink.Plan) []string {
	names := slices.Clone(p.Folds)
	for _, l := range p.Tables {
		names = append(names, l.Name)
	}
	return names
}

// checkName refuses names that PostgreSQL would cut off in silence.
func (d *db) checkName(names ...string) error {
	for _, name := range names {
		_, name := d.split(name)
		if name == "" || len(name) > maxName {
			return fmt.Errorf("%w: %q is no name: PostgreSQL has names of 1 to %d bytes", errWrong, name, maxName)
		}
	}
	return nil
}

// have is a column that exists.
type have struct {
	Type              string
	NotNull, Supplied bool // Supplied: the database makes a value itself
}

func (d *db) columns(ctx context.Context, tx pgx.Tx, table string) (map[string]have, error) {
	rows, err := tx.Query(ctx, `SELECT attname::text, format_type(atttypid, atttypmod), attnotnull, atthasdef OR attidentity <> ''
FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`, pgx.QueryExecModeExec, d.ident(table))
	if err != nil {
		return nil, err
	}
	columns := map[string]have{}
	var name string
	var h have
	_, err = pgx.ForEachRow(rows, []any{&name, &h.Type, &h.NotNull, &h.Supplied}, func() error {
		columns[name] = h
		return nil
	})
	return columns, err
}

// keyOf are the columns that are unique in a table: nil where none are.
func keyOf(t *sink.Table) []string {
	switch {
	case !t.Append:
		return t.Key
	case !t.NoDedupe:
		return []string{eventID}
	default:
		return nil
	}
}

// eventID is the column that makes an appended row unique.
const eventID = "event_id"

// tableDDL is the statement that creates a table.
func (d *db) tableDDL(l sink.Layout) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s (", d.ident(l.Name))
	for i, c := range l.Columns.Columns() {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "\n  %s", columnDDL(c))
		if !c.Nullable {
			b.WriteString(" NOT NULL")
		}
	}
	if key := keyOf(l.Table); len(key) > 0 {
		fmt.Fprintf(&b, ",\n  PRIMARY KEY (%s)", list(key, itself))
	}
	b.WriteString("\n)")
	if !l.Append {
		// Room in each page for the next version of its rows: an update then touches no index.
		b.WriteString(" WITH (fillfactor = 85)")
	}
	return b.String()
}

func columnDDL(c schemas.Column) string { return quote(c.Name) + " " + typeOf(c).name }

// prepareTable creates a table, or compares it and adds what it lacks.
func (d *db) prepareTable(ctx context.Context, tx pgx.Tx, l sink.Layout, evolve bool) error {
	key := keyOf(l.Table)
	names := []string{l.Name}
	for _, c := range l.Columns.Columns() {
		names = append(names, c.Name)
	}
	if err := d.checkName(names[0]); err != nil {
		return err
	}
	for _, c := range l.Columns.Columns() {
		if len(c.Name) > maxName {
			return fmt.Errorf("%w: column %q of table %s: PostgreSQL has names of at most %d bytes", errWrong, c.Name, l.Name, maxName)
		}
	}
	for _, k := range key {
		if !slices.Contains(names[1:], k) {
			return fmt.Errorf("%w: the key of table %s is %s, and there is no column %s", errWrong, l.Name, strings.Join(key, ", "), k)
		}
	}
	there, err := d.exists(ctx, tx, l.Name)
	if err != nil {
		return err
	}
	if !there {
		if _, err := tx.Exec(ctx, d.tableDDL(l)); err != nil {
			return fmt.Errorf("create table %s: %w", d.ident(l.Name), err)
		}
		return nil
	}
	columns, err := d.columns(ctx, tx, l.Name)
	if err != nil {
		return err
	}
	add, wrong := d.compare(l, columns, evolve)
	if len(wrong) == 0 && len(add) > 0 {
		if _, err := tx.Exec(ctx, "ALTER TABLE "+d.ident(l.Name)+" "+strings.Join(add, ", ")); err != nil {
			return fmt.Errorf("add columns to table %s: %w", d.ident(l.Name), err)
		}
	}
	unique, err := d.unique(ctx, tx, l.Name, key)
	if err != nil {
		return err
	}
	if !unique {
		wrong = append(wrong, fmt.Sprintf("the sink's key is (%s), and the table has no unique index on it, or a deferrable one: ALTER TABLE %s ADD UNIQUE (%s)", strings.Join(key, ", "), d.ident(l.Name), list(key, itself)))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: table %s:\n  %s", errWrong, d.ident(l.Name), strings.Join(wrong, "\n  "))
	}
	return nil
}

// compare says what to add to a table, and what is wrong with it.
func (d *db) compare(l sink.Layout, columns map[string]have, evolve bool) (add, wrong []string) {
	table := d.ident(l.Name)
	ours := map[string]bool{}
	for _, c := range l.Columns.Columns() {
		ours[c.Name] = true
		h, there := columns[c.Name]
		t := typeOf(c)
		switch {
		case !there && evolve && c.Nullable:
			add = append(add, "ADD COLUMN "+columnDDL(c))
		case !there && c.Nullable:
			wrong = append(wrong, fmt.Sprintf("events have %s (%s), the table has not: let the sink evolve it, or ALTER TABLE %s ADD COLUMN %s", c.Name, t.name, table, columnDDL(c)))
		case !there:
			wrong = append(wrong, fmt.Sprintf("events have %s (%s, never null), the table has not, and its rows have no value for it: ALTER TABLE %s ADD COLUMN %s, or rebuild it", c.Name, t.name, table, columnDDL(c)))
		case !takes(h.Type, t):
			wrong = append(wrong, fmt.Sprintf("%s is %s in the table and %s in the events: ALTER TABLE %s ALTER COLUMN %s TYPE %s, or rebuild it", c.Name, h.Type, t.name, table, quote(c.Name), t.name))
		case h.NotNull && c.Nullable:
			wrong = append(wrong, fmt.Sprintf("%s is NOT NULL in the table and may be null in the events: ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL", c.Name, table, quote(c.Name)))
		}
	}
	for name, h := range columns {
		if !ours[name] && h.NotNull && !h.Supplied {
			wrong = append(wrong, fmt.Sprintf("%s is NOT NULL in the table and the sink does not write it: ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL", name, table, quote(name)))
		}
	}
	slices.Sort(wrong)
	return add, wrong
}

// unique reports whether the table has a unique index on exactly the columns of key.
func (d *db) unique(ctx context.Context, tx pgx.Tx, table string, key []string) (found bool, err error) {
	if len(key) == 0 {
		return true, nil
	}
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C") FROM pg_attribute AS a WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts-1])) = $2::text[])`,
		pgx.QueryExecModeExec, d.ident(table), slices.Sorted(slices.Values(key))).Scan(&found)
	return found, err
}
