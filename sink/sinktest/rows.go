package sinktest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// layout is what a [Memory] knows of a table.
type layout struct {
	columns []schemas.Column
}

// Prepare implements [sink.DB].
func (m *Memory) Prepare(ctx context.Context, p sink.Plan) error {
	return m.quiet(ctx, func(tx *Tx) error {
		if err := tx.make(p); err != nil {
			return err
		}
		for _, t := range p.Tables {
			if err := tx.prepare(t, p.Evolve); err != nil {
				return fmt.Errorf("prepare table %s: %w", t.Name, err)
			}
		}
		return nil
	})
}

// make notes which tables and folds there are.
func (tx *Tx) make(p sink.Plan) error {
	names := slices.Clone(p.Folds)
	for _, t := range p.Tables {
		names = append(names, t.Name)
	}
	began := p.Rebuild && tx.m.began(p.Sink)
	for _, name := range names {
		if _, there := tx.get("made/" + name); began && !there {
			return fmt.Errorf("%w: %s", sink.ErrHalfRebuild, name)
		}
		tx.set("made/"+name, true)
	}
	return nil
}

func (tx *Tx) prepare(t sink.Layout, evolve bool) error {
	v, ok := tx.get("layout/" + t.Name)
	if !ok {
		tx.set("layout/"+t.Name, layout{t.Columns.Columns()})
		return nil
	}
	have := slices.Clone(v.(layout).columns) //nolint:forcetypeassert // nothing else has that name
	for _, c := range t.Columns.Columns() {
		i := slices.IndexFunc(have, func(h schemas.Column) bool { return h.Name == c.Name })
		switch {
		case i < 0 && evolve && c.Nullable:
			have = append(have, c)
		case i < 0:
			return fmt.Errorf("it lacks the column %s", c.Name)
		case have[i].Kind != c.Kind:
			return fmt.Errorf("its column %s is a %s, not a %s", c.Name, have[i].Kind, c.Kind)
		}
	}
	tx.set("layout/"+t.Name, layout{have})
	return nil
}

// Write implements [sink.DB].
func (m *Memory) Write(ctx context.Context, tx *Tx, t *sink.Table, rows, deleted *schemas.Rows) (changed int64, err error) {
	unlock, err := m.step(ctx, Write, tx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if _, ok := tx.get("layout/" + t.Name); !ok {
		return 0, tx.abort(fmt.Errorf("table %s: %w", t.Name, ErrWrong))
	}
	before := ""
	for row := range rows.Len() {
		values := make(map[string]string)
		for i, c := range rows.Columns() {
			values[c.Name] = text(rows, i, row)
		}
		key := m.rowKey(t, values)
		if !t.Append && before >= key && row > 0 {
			return 0, tx.abort(fmt.Errorf("table %s: rows %q and %q are not in order: %w", t.Name, before, key, ErrWrong))
		}
		before = key
		if err := tx.lock(ctx, key); err != nil {
			return 0, err
		}
		if _, ok := tx.get(key); ok && t.Append {
			continue
		}
		tx.set(key, values)
		changed++
	}
	if deleted == nil {
		return changed, nil
	}
	for row := range deleted.Len() {
		values := make(map[string]string)
		for i, c := range deleted.Columns() {
			values[c.Name] = text(deleted, i, row)
		}
		key := m.rowKey(t, values)
		if err := tx.lock(ctx, key); err != nil {
			return 0, err
		}
		if _, ok := tx.get(key); ok {
			tx.set(key, nil)
			changed++
		}
	}
	return changed, nil
}

// rowKey is the name of a row. The keys that tests use have one order as texts and in [schemas.Rows.Compare].
func (m *Memory) rowKey(t *sink.Table, values map[string]string) string {
	switch {
	case t.NoDedupe:
		m.copies++
		return fmt.Sprintf("table/%s/%d", t.Name, m.copies)
	case t.Append:
		return "table/" + t.Name + "/" + values["event_id"]
	}
	var parts []string
	for _, name := range t.Key {
		v := values[name]
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			v = fmt.Sprintf("%020d", uint64(n)^1<<63) // keeps the order of negative numbers
		}
		parts = append(parts, v)
	}
	return "table/" + t.Name + "/" + strings.Join(parts, "\x00")
}

// text is a value as text, "null" where there is none.
func text(r *schemas.Rows, column, row int) string {
	if nulls := r.Nulls(column); nulls != nil && nulls[row] {
		return "null"
	}
	switch r.Columns()[column].Kind {
	case schemas.KindBool, schemas.KindInt, schemas.KindDate, schemas.KindTime, schemas.KindTimestamp:
		return strconv.FormatInt(r.Ints(column)[row], 10)
	case schemas.KindFloat:
		return strconv.FormatFloat(r.Floats(column)[row], 'g', -1, 64)
	case schemas.KindDecimal, schemas.KindUUID:
		return r.Texts(column)[row]
	default:
		return string(r.Bytes(column, row))
	}
}

// Rows returns the rows of a table that are committed, as text by column.
func (m *Memory) Rows(table string) []map[string]string {
	var out []map[string]string
	each(m, "table/"+table+"/", func(_ string, v any) { out = append(out, v.(map[string]string)) }) //nolint:forcetypeassert // nothing else has that name
	return out
}

// Dump is [Harness.Dump].
func (m *Memory) Dump(table string, columns []string) [][]string {
	var out [][]string
	for _, row := range m.Rows(table) {
		values := make([]string, len(columns))
		for i, c := range columns {
			if v, ok := row[c]; ok {
				values[i] = v
			} else {
				values[i] = "null"
			}
		}
		out = append(out, values)
	}
	return out
}
