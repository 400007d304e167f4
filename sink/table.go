package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// Table declares a table: one row per event or per key, its columns from the events' schema. It is created where it does
// not exist.
type Table struct {
	// Name is the table, with or without a schema: "orders", "analytics.orders". Required.
	Name string
	// Event is the full name of the event type whose events become rows. Required.
	Event string
	// Topics are those that the rows come from. With a key, a tombstone there deletes the row of its key: the record's
	// key is then the text of the column in Key. Defaults to all topics of the sink.
	Topics []string
	// Key are the columns of the primary key. Required unless Append.
	Key []string
	// Columns are what to take of the event. Defaults to all of its fields, those of records within it as customer_country, in
	// the newest schema when Run begins: what a later schema adds is passed over until the sink is started anew.
	Columns []Column
	// Append makes one row of each event instead of one of each key; a unique event_id keeps a producer's repeat out.
	Append bool
	// NoDedupe leaves event_id out of an appended table and lets rows be copied in bulk: a producer's repeat is two rows.
	NoDedupe bool
	// KeepDeleted lets tombstones pass. Without it, one of a topic that may not be the table's, or for a table with
	// several columns in Key, stops the sink.
	KeepDeleted bool
}

// Column is one column of a [Table].
type Column struct {
	// Name in the table. Required.
	Name string
	// From is the path to the field, dotted: "customer.country"; what begins with $ is an attribute: "$key", "$time", "$id", "$topic",
	// "$partition", "$offset" and what else schemas.Attribute knows. Defaults to Name.
	From string
}

// eventID is the column of an appended table that is unique.
const eventID = "event_id"

func (t *Table) validate() error {
	switch {
	case t.Name == "" || t.Event == "":
		return errors.New("a table needs a Name and an Event")
	case reserved(t.Name):
		return fmt.Errorf("table %s: names that end in %s or %s are those of rebuilds", t.Name, RebuildSuffix, oldSuffix)
	case t.Append && len(t.Key) > 0:
		return fmt.Errorf("table %s: an appended table has no Key", t.Name)
	case !t.Append && len(t.Key) == 0:
		return fmt.Errorf("table %s: name the columns of its Key, or set Append", t.Name)
	case t.NoDedupe && !t.Append:
		return fmt.Errorf("table %s: NoDedupe is for appended tables: a key keeps a repeat out by itself", t.Name)
	}
	for _, c := range t.Columns {
		if c.Name == "" {
			return fmt.Errorf("table %s: a column without a name", t.Name)
		}
	}
	return nil
}

// lookup is what tables need of a decoder beside decoding: *schemas.Registry has it.
type lookup interface {
	NewRows(columns ...schemas.Column) (*schemas.Rows, error)
	Subjects(ctx context.Context) ([]string, error)
	Latest(ctx context.Context, subject string) (schemas.Schema, error)
}

// table is a [Table] with its columns, in one run of a sink.
type table struct {
	*Table
	empty *schemas.Rows // the columns; no rows are ever put into it
	key   []int         // columns
	from  []string      // topics; empty is all, and then nobody can tell which
}

// layOut finds the columns of the mux's tables.
func (w *writer[Tx]) layOut(ctx context.Context) error {
	if len(w.Mux.tables) == 0 {
		return nil
	}
	reg, ok := w.dec.(lookup)
	if !ok {
		return fmt.Errorf("open the target of sink %s: tables take their columns from schemas: a schema registry is needed, not a %T", w.setup.Sink, w.dec)
	}
	found, err := w.find(ctx, reg)
	if err != nil {
		return fmt.Errorf("open the target of sink %s: %w", w.setup.Sink, err)
	}
	for i, t := range w.Mux.tables {
		schema, ok := found[t.Event]
		if !ok {
			return fmt.Errorf("open the target of sink %s: table %s: no subject of the topics %s has the type %s: check its namespace, or register it first",
				w.setup.Sink, t.Name, strings.Join(w.setup.Topics, ", "), t.Event)
		}
		laid, err := t.layOut(reg, schema, w.setup)
		if err != nil {
			return fmt.Errorf("open the target of sink %s: table %s: %w", w.setup.Sink, t.Name, err)
		}
		w.tables = append(w.tables, laid)
		u := w.types[t.Event]
		if u == nil {
			u = &uses{}
			w.types[t.Event] = u
		}
		u.tables = append(u.tables, i)
	}
	return nil
}

// find returns the newest schema of each type that the topics' subjects hold.
func (w *writer[Tx]) find(ctx context.Context, reg lookup) (map[string]schemas.Schema, error) {
	subjects, err := reg.Subjects(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the subjects: %w", err)
	}
	// A topic's subject is named after it alone, after it and the type, or after the type. What else begins with its name and
	// a hyphen is of another topic.
	ours := make(map[string]bool)
	for _, topic := range w.setup.Topics {
		ours[topic+"-value"] = true
		for _, t := range w.Mux.tables {
			ours[t.Event], ours[topic+"-"+t.Event] = true, true
		}
	}
	found := make(map[string]schemas.Schema)
	for _, s := range subjects {
		if !ours[s] {
			continue
		}
		schema, err := reg.Latest(ctx, s)
		if err != nil {
			return nil, err
		}
		if old, ok := found[schema.Name]; !ok || old.ID < schema.ID {
			found[schema.Name] = schema
		}
	}
	return found, nil
}

func (t *Table) layOut(reg lookup, schema schemas.Schema, s Setup) (*table, error) {
	columns, err := t.columns(schema)
	if err != nil {
		return nil, err
	}
	own := *t
	own.Name += s.Suffix
	out := &table{Table: &own, from: t.Topics}
	if len(out.from) == 0 && len(s.Topics) == 1 {
		out.from = s.Topics
	}
	for _, name := range t.Key {
		i := slices.IndexFunc(columns, func(c schemas.Column) bool { return c.Name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("its Key %s is none of its columns", name)
		case columns[i].Kind == schemas.KindFloat:
			return nil, fmt.Errorf("its Key %s is a float, which is equal to no other: choose another column", name)
		}
		columns[i].Nullable = false
		columns[i].Key = len(t.Key) == 1
		out.key = append(out.key, i)
	}
	out.empty, err = reg.NewRows(columns...)
	return out, err
}

func (t *Table) columns(schema schemas.Schema) (columns []schemas.Column, err error) {
	if len(t.Columns) == 0 {
		columns, err = schema.Columns()
		if err != nil {
			return nil, err
		}
	}
	for _, c := range t.Columns {
		from := c.From
		var column schemas.Column
		if from == "" {
			from = c.Name
		}
		if strings.HasPrefix(from, "$") {
			column, err = schemas.Attribute(from)
		} else {
			column, err = schema.Column(strings.Split(from, ".")...)
		}
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		column.Name = c.Name
		columns = append(columns, column)
	}
	if !t.Append || t.NoDedupe || slices.ContainsFunc(columns, func(c schemas.Column) bool { return c.Name == eventID }) {
		return columns, nil
	}
	id, err := schemas.Attribute("$id")
	id.Name = eventID
	return append(columns, id), err
}

// deletes says what a tombstone of a topic does to the table: an error where nobody can tell.
func (t *table) deletes(topic string) (bool, error) {
	switch {
	case t.Append || t.KeepDeleted || len(t.from) > 0 && !slices.Contains(t.from, topic):
		return false, nil
	case len(t.from) == 0:
		return false, fmt.Errorf("a tombstone of topic %s may or may not delete a row of table %s: name the table's Topics, or set KeepDeleted", topic, t.Name)
	case len(t.key) > 1:
		return false, fmt.Errorf("a tombstone of topic %s has one key, and table %s has %d columns in its Key: set KeepDeleted", topic, t.Name, len(t.key))
	}
	return true, nil
}

// takes reports whether events of a topic become rows.
func (t *table) takes(topic string) bool { return len(t.from) == 0 || slices.Contains(t.from, topic) }

// rows are the rows of one table in a batch.
type rows struct {
	*table
	all     *schemas.Rows // those of the whole batch, decoded before the transaction
	at      []int         // by row: its event's index
	used    bool          // all was reduced: what is needed once more is decoded again
	again   *schemas.Rows
	deleted *schemas.Rows
}

func (r *rows) add(ctx context.Context, e *event.Event, i int) error {
	if err := r.all.Append(ctx, e); err != nil {
		return err
	}
	r.at = append(r.at, i)
	return nil
}

func (r *rows) reset() {
	r.all.Reset()
	r.again.Reset()
	r.deleted.Reset()
	r.at, r.used = r.at[:0], false
}

// take returns the rows to write and those to delete for a span, one per key and in key order. The first call takes what
// was decoded; when a part is needed, or all once more, it is decoded again.
func (r *rows) take(ctx context.Context, sp span, events []event.Event) (write, deleted *schemas.Rows, err error) {
	write = r.all
	if r.used || !sp.whole(r.at) {
		write = r.again
		write.Reset()
		for _, i := range r.at {
			if i < sp.from || i >= sp.to || sp.skip[i] {
				continue
			}
			if err := write.Append(ctx, &events[i]); err != nil {
				return nil, nil, err
			}
		}
	} else {
		r.used = true
	}
	if r.Append {
		return write, nil, nil
	}
	write.Reduce(r.key...)
	return write, r.deleted, write.Part(r.deleted)
}

func (t *table) rows() *rows {
	return &rows{table: t, all: t.empty.Fresh(), again: t.empty.Fresh(), deleted: t.empty.Fresh()}
}

var _ lookup = (*schemas.Registry)(nil)
