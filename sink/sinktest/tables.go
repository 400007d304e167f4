package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// What each kind of column becomes is the adapter's own business and test; here are a text that is unique, a number and
// a text that may be null.
const (
	orderSchema = `{"type":"record","name":"conformance.Order","fields":[{"name":"id","type":"string"},{"name":"n","type":"long"},{"name":"note","type":["null","string"],"default":null}]}`
	wideSchema  = `{"type":"record","name":"conformance.Order","fields":[{"name":"id","type":"string"},{"name":"n","type":"long"},{"name":"note","type":["null","string"],"default":null},{"name":"extra","type":["null","long"],"default":null}]}`
	otherSchema = `{"type":"record","name":"conformance.Order","fields":[{"name":"id","type":"string"},{"name":"n","type":"string"},{"name":"note","type":["null","string"],"default":null}]}`
)

const tableName = "conformance_orders"

// tables makes rows of a schema.
type tables[Tx any] struct {
	*suite[Tx]
	reg     *schemas.Registry
	columns []schemas.Column
	place   sink.Place
}

func runTables[Tx any](t *testing.T, open func(t *testing.T) Harness[Tx]) {
	t.Helper()
	tests := []struct {
		name  string
		table sink.Table
		test  func(s *tables[Tx], t *sink.Table)
	}{
		{"upsert and delete", sink.Table{Key: []string{"id"}}, (*tables[Tx]).upsert},
		{"key of two columns", sink.Table{Key: []string{"n", "id"}}, (*tables[Tx]).twoKeys},
		{"nothing but a key", sink.Table{Key: []string{"id"}, Columns: []sink.Column{{Name: "id"}}}, (*tables[Tx]).onlyKey},
		{"append", sink.Table{Append: true}, (*tables[Tx]).append},
		{"append repeats", sink.Table{Append: true, NoDedupe: true}, (*tables[Tx]).appendRepeats},
		{"write is undone", sink.Table{Key: []string{"id"}}, (*tables[Tx]).undone},
		{"evolve", sink.Table{Key: []string{"id"}}, (*tables[Tx]).evolve},
		{"many rows", sink.Table{Key: []string{"id"}}, (*tables[Tx]).manyRows},
		{"many appended rows", sink.Table{Append: true, NoDedupe: true}, (*tables[Tx]).manyAppended},
		{"rows of two at once", sink.Table{Key: []string{"id"}}, (*tables[Tx]).rowsAtOnce},
		{"swap of tables", sink.Table{Key: []string{"id"}}, (*tables[Tx]).swapTables},
	}
	for _, tt := range tests {
		t.Run("table "+tt.name, func(t *testing.T) {
			h := open(t)
			if h.Dump == nil {
				t.Skip("the harness shows no tables")
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s := &tables[Tx]{suite: &suite[Tx]{T: t, Harness: h, ctx: ctx}, reg: schemas.Memory()}
			s.a, s.b = s.Open(), s.Open()
			table := tt.table
			table.Name, table.Event = tableName, "conformance.Order"
			s.columns = s.of(orderSchema, &table)
			s.must(s.a.Prepare(ctx, s.plan(&table, s.columns)))
			s.place = s.claimed(s.a, id(0), 0)
			tt.test(s, &table)
		})
	}
}

// of are the columns that t has of a schema.
func (s *tables[Tx]) of(text string, t *sink.Table) []schemas.Column {
	s.Helper()
	schema, err := schemas.Memory().Register(s.ctx, "t-value", text)
	s.must(err)
	all, err := schema.Columns()
	s.must(err)
	if len(t.Columns) > 0 {
		all = slices.DeleteFunc(all, func(c schemas.Column) bool {
			return !slices.ContainsFunc(t.Columns, func(o sink.Column) bool { return o.Name == c.Name })
		})
	}
	for i := range all {
		all[i].Key = len(t.Key) == 1 && t.Key[0] == all[i].Name
	}
	if t.Append && !t.NoDedupe {
		c, err := schemas.Attribute("$id")
		s.must(err)
		c.Name = "event_id"
		all = append(all, c)
	}
	return all
}

func (s *tables[Tx]) rows(columns []schemas.Column) *schemas.Rows {
	s.Helper()
	rows, err := s.reg.NewRows(columns...)
	s.must(err)
	return rows
}

func (s *tables[Tx]) plan(t *sink.Table, columns []schemas.Column) sink.Plan {
	s.Helper()
	return sink.Plan{Sink: sinkName, Tables: []sink.Layout{{Table: t, Columns: s.rows(columns)}}}
}

// order is an event as JSON; "-id" is a tombstone of id.
func order(text string) event.Event {
	if key, gone := strings.CutPrefix(text, "-"); gone {
		return event.Event{Meta: event.Meta{ID: "gone " + key, Topic: "t", Key: []byte(key)}}
	}
	id, n, _ := strings.Cut(text, "=")
	n, note, _ := strings.Cut(n, " ")
	value := fmt.Sprintf(`{"id":%q,"n":%s,"note":null}`, id, n)
	if note != "" {
		value = fmt.Sprintf(`{"id":%q,"n":%s,"note":%q}`, id, n, note)
	}
	return event.Event{Meta: event.Meta{ID: "event " + text, Topic: "t", ContentType: "application/json"}, Value: []byte(value)}
}

// write writes orders in a transaction of its own, reduced as a Mux reduces them.
func (s *tables[Tx]) write(t *sink.Table, orders ...string) (changed int64) {
	s.Helper()
	var err error
	s.place, err = s.move(s.a, s.place, s.place.Next+1, func(ctx context.Context, tx Tx) error {
		changed, err = s.put(ctx, s.a, tx, t, s.columns, orders...)
		return err
	})
	s.must(err)
	return changed
}

func (s *tables[Tx]) put(ctx context.Context, db sink.DB[Tx], tx Tx, t *sink.Table, columns []schemas.Column, orders ...string) (int64, error) {
	rows, deleted := s.rows(columns), s.rows(columns)
	for _, o := range orders {
		e := order(o)
		s.must(rows.Append(ctx, &e))
	}
	if !t.Append {
		var key []int
		for _, name := range t.Key {
			key = append(key, slices.IndexFunc(columns, func(c schemas.Column) bool { return c.Name == name }))
		}
		rows.Reduce(key...)
		s.must(rows.Part(deleted))
	}
	return db.Write(ctx, tx, t, rows, deleted)
}

// is fails unless the table has these rows, each as its columns with spaces between.
func (s *tables[Tx]) is(table, columns string, want ...string) {
	s.Helper()
	var got []string
	for _, row := range s.Dump(s.T, table, strings.Fields(columns)) {
		got = append(got, strings.Join(row, " "))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.Errorf("table %s has %d rows:\n%s\nwant %d:\n%s", table, len(got), head(got), len(want), head(want))
	}
}

func head(rows []string) string { return strings.Join(rows[:min(len(rows), 20)], "\n") }

func (s *tables[Tx]) upsert(t *sink.Table) {
	if n := s.write(t, "b=2 two", "a=1 it's", "c=3"); n != 3 {
		s.Errorf("%d rows changed, want 3", n)
	}
	s.is(t.Name, "id n note", "a 1 it's", "b 2 two", "c 3 null")
	s.write(t, "b=4", "-c", "d=5 \\\"x", "-never there")
	s.is(t.Name, "id n note", "a 1 it's", "b 4 null", `d 5 \"x`)
	s.write(t, "-a", "a=6", "-d") // the last of a key counts
	s.is(t.Name, "id n note", "a 6 null", "b 4 null")
	s.write(t, "-a", "-b")
	s.is(t.Name, "id n note")
	s.write(t, "日本=-9223372036854775808 ß")
	s.is(t.Name, "id n note", "日本 -9223372036854775808 ß")
}

func (s *tables[Tx]) twoKeys(t *sink.Table) {
	s.write(t, "a=1 x", "a=2 x", "b=1 x")
	s.write(t, "a=2 y", "c=-7 y")
	s.is(t.Name, "id n note", "a 1 x", "a 2 y", "b 1 x", "c -7 y")
}

func (s *tables[Tx]) onlyKey(t *sink.Table) {
	s.write(t, "a=1", "b=1")
	s.write(t, "a=2", "c=1", "-b")
	s.is(t.Name, "id", "a", "c")
}

func (s *tables[Tx]) append(t *sink.Table) {
	if n := s.write(t, "a=1", "b=2 x"); n != 2 {
		s.Errorf("%d rows changed, want 2", n)
	}
	if n := s.write(t, "a=1", "b=2 x"); n != 0 {
		s.Errorf("%d rows changed by repeats, want 0", n)
	}
	s.write(t, "a=9", "b=2 x", "c=3", "c=3") // another event of the same key, a repeat, one within the batch
	s.is(t.Name, "id n note", "a 1 null", "a 9 null", "b 2 x", "c 3 null")
	s.is(t.Name, "event_id", "event a=1", "event a=9", "event b=2 x", "event c=3")
}

func (s *tables[Tx]) appendRepeats(t *sink.Table) {
	if n := s.write(t, "a=1", "a=1"); n != 2 {
		s.Errorf("%d rows changed, want 2", n)
	}
	s.write(t, "a=1 x\ty\\nz")
	s.is(t.Name, "id n note", "a 1 null", "a 1 null", "a 1 x\ty\\nz")
}

func (s *tables[Tx]) undone(t *sink.Table) {
	s.write(t, "a=1")
	_, err := s.move(s.a, s.place, s.place.Next+1, func(ctx context.Context, tx Tx) error {
		err := s.a.Try(ctx, tx, func(ctx context.Context) error {
			_, err := s.put(ctx, s.a, tx, t, s.columns, "a=2", "b=2")
			return errors.Join(err, errTest)
		})
		if !errors.Is(err, errTest) {
			return err
		}
		_, err = s.put(ctx, s.a, tx, t, s.columns, "c=3")
		return err
	})
	s.must(err)
	s.is(t.Name, "id n", "a 1", "c 3")
}

func (s *tables[Tx]) evolve(t *sink.Table) {
	s.write(t, "a=1")
	if err := s.a.Prepare(s.ctx, s.plan(t, s.of(otherSchema, t))); err == nil {
		s.Error("a column of another type was accepted")
	}
	wide := s.of(wideSchema, t)
	if err := s.a.Prepare(s.ctx, s.plan(t, wide)); err == nil || !strings.Contains(err.Error(), "extra") {
		s.Errorf("a column that the table lacks, without Evolve: %v, want an error that names it", err)
	}
	p := s.plan(t, wide)
	p.Evolve = true
	s.must(s.a.Prepare(s.ctx, p))
	s.must(s.b.Prepare(s.ctx, p))
	s.columns = wide
	s.write(t, "b=2")
	s.is(t.Name, "id n extra", "a 1 null", "b 2 null")
	s.must(s.b.Prepare(s.ctx, s.plan(t, s.of(orderSchema, t)))) // an older member: the table may have more
	s.must(s.a.Prepare(s.ctx, s.plan(t, wide)))
}

func (s *tables[Tx]) manyRows(t *sink.Table) {
	const n = 5000
	orders := make([]string, n)
	for i := range orders {
		orders[i] = fmt.Sprintf("k%04d=%d", i, i)
	}
	s.write(t, orders...)
	var want []string
	for i := range orders {
		switch i % 3 {
		case 0:
			orders[i] = fmt.Sprintf("k%04d=%d new", i, -i)
			want = append(want, fmt.Sprintf("k%04d %d", i, -i))
		case 1:
			orders[i] = fmt.Sprintf("-k%04d", i)
		case 2:
			orders[i] = fmt.Sprintf("n%04d=%d", i, i)
			want = append(want, fmt.Sprintf("k%04d %d", i, i), fmt.Sprintf("n%04d %d", i, i))
		}
	}
	s.write(t, orders...)
	s.is(t.Name, "id n", want...)
}

func (s *tables[Tx]) manyAppended(t *sink.Table) {
	const n = 5000
	orders, want := make([]string, n), make([]string, n)
	for i := range orders {
		orders[i], want[i] = fmt.Sprintf("k%04d=%d", i, i), fmt.Sprintf("k%04d %d null", i, i)
	}
	s.write(t, orders...)
	s.is(t.Name, "id n note", want...)
}

// rowsAtOnce: two members write the same keys, each sorted, so that no deadlock is left to them.
func (s *tables[Tx]) rowsAtOnce(t *sink.Table) {
	for range 5 {
		s.race(func(db sink.DB[Tx], ctx context.Context, tx Tx) error {
			_, err := s.put(ctx, db, tx, t, s.columns, "c=1", "a=1", "-b", "d=1")
			return err
		})
	}
	s.is(t.Name, "id n", "a 1", "c 1", "d 1")
}

func (s *tables[Tx]) swapTables(t *sink.Table) {
	s.write(t, "a=1", "b=1")
	next := *t
	next.Name += "__v2"
	plan := s.plan(&next, s.columns)
	rebuilt := id(0)
	rebuilt.Reader += "__v2"
	plan.Sink = rebuilt.Reader
	s.must(s.a.Prepare(s.ctx, plan))
	s.place = s.claimed(s.a, rebuilt, 0)
	s.write(&next, "a=2")
	s.must(s.a.Swap(s.ctx, sink.Swap{Into: sinkName, From: rebuilt.Reader, Tables: []sink.Renamed{{Name: t.Name, New: next.Name, Old: t.Name + "__old"}}}))
	s.is(t.Name, "id n", "a 2")
	s.is(t.Name+"__old", "id n", "a 1", "b 1")
	s.must(s.a.Prepare(s.ctx, s.plan(t, s.columns)))
	s.place = s.claimed(s.a, id(0), 0)
	s.write(t, "a=3", "c=3")
	s.is(t.Name, "id n", "a 3", "c 3")
}
