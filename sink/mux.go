package sink

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// Mux writes events to a database by functions, folds and tables, all in one transaction with the position. It is the
// [Target] that adapters return: pgsink.New is a *Mux[pgx.Tx], sqlitesink.New a *Mux[*sql.Tx].
//
// An event goes to every function, fold and table that is registered for its type: the full name of the schema that it
// was written with, else its ce_type. One that goes nowhere is counted and passed.
//
// Fill it before it is used: registering after Run has begun panics. It may then serve any number of runs.
//
// # What is promised
//
// Each event changes the database once, in the order of its partition, whatever crashes, hangs or is cut off: process,
// broker, database, or a COMMIT whose answer is lost. A transaction moves the position by compare-and-set before it
// does anything else, so that an owner that has lost its partition changes nothing, however long it slept.
//
// Not promised: effects of a function outside of tx, which happen once per attempt; one result for events that a
// producer has published twice under one id, unless [Config.Dedupe] is set; the order of events of different partitions;
// and anything about rows that others change.
//
// # Order within a transaction
//
// The position, then the ids of Config.Dedupe in ascending order, the functions as they were registered, the folds by
// name and each one's keys in ascending order, the tables by name and each one's rows by key. Two members that write the same
// keys wait for each other and never in a circle, as long as functions lock in an order too; where they do not, the
// database finds the deadlock and one of them tries again. So it does while failing events are searched for, when parts of
// a batch are written one after the other and each part in this order alone.
//
// # Errors
//
// A function's error is a verdict, as a consumer's is. nil: done. Any plain error or panic: the transaction is rolled back
// and tried again by [Config.Retry]; after the last attempt the events are tried one by one, those that fail alone are
// dead-lettered, and the rest is written. [consumer.DeadLetter] and [consumer.Drop] end the search at once,
// [consumer.Each] spares it. [consumer.RetryAfter] and [consumer.Stop] are what they are to a consumer. An event that is
// dead-lettered or dropped by one function changes nothing anywhere.
//
// An error of the database is never an event's fault unless the database says so: while it is away the partition waits
// and no attempt is counted, a deadlock is tried again at once, a value that does not fit is found and its event dead-lettered,
// and a table that is missing stops the sink.
type Mux[Tx any] struct {
	db     DB[Tx]
	funcs  []function[Tx]
	folds  []folding[Tx]
	tables []*Table
	types  map[string]*uses     // by the name of an event's type
	sheets []func() sheet       // one for each Go type
	byType map[reflect.Type]int // its index
	used   atomic.Bool
}

// function is one registration of [On].
type function[Tx any] struct {
	name  string // for dead letters and logs
	sheet int
	call  func(ctx context.Context, tx Tx, s sheet, sp span) (at []int, err error) // at: the events it was given
}

// uses are where the events of a type go. Decoding fills sheets and tables.
type uses struct {
	sheets, tables []int
	handlers       []string // by sheet: who it is decoded for
}

// NewMux returns a mux that writes to db. Adapters call it.
func NewMux[Tx any](db DB[Tx]) *Mux[Tx] {
	return &Mux[Tx]{db: db, types: map[string]*uses{}, byType: map[reflect.Type]int{}}
}

// On calls h for the events of T's type as they come: at most [Config.Batch], of one partition, in its order, in the
// transaction tx that moves the position. h must not commit tx or roll it back; it may be called several times with the
// same events, each time in a transaction that knows nothing of the last. The slice is the mux's again when h has returned.
//
// T's type is the name that schemas.NameOf gives it, or an alias in its schema.
func On[T, Tx any](m *Mux[Tx], h func(ctx context.Context, tx Tx, es []event.Of[T]) error) {
	name := schemas.NameOf(reflect.TypeFor[T]())
	m.funcs = append(m.funcs, function[Tx]{name: name, sheet: sheetOf[T](m, name), call: func(ctx context.Context, tx Tx, s sheet, sp span) ([]int, error) {
		es, at := s.(*typed[T]).pick(sp) //nolint:forcetypeassert // made by sheetOf
		if len(es) == 0 {
			return nil, nil
		}
		return at, guard(func() error { return h(ctx, tx, es) })
	}})
}

// OnFold keeps a state S per key, in a table of the database that is named after the fold: step makes the next state
// of the one before and an event. The zero S is what a key begins with. step is pure: it has no effects, and changes nothing
// that s or e refer to but what it returns; it is called again when a transaction is tried again. S is kept as JSON.
//
// What is late is told by [Fold.Lateness].
func OnFold[S, T, Tx any](m *Mux[Tx], f Fold[T], step func(s S, e event.Of[T]) S) {
	f.mustBeWhole()
	for _, other := range m.folds {
		if other.name == f.Name {
			panic("sink: two folds have the name " + f.Name)
		}
	}
	m.folds = append(m.folds, folding[Tx]{
		name: f.Name, late: f.Late, sheet: sheetOf[T](m, "fold "+f.Name),
		start: func() folder { return &fold[S, T]{Fold: f, step: step} },
	})
	slices.SortFunc(m.folds, func(a, b folding[Tx]) int { return cmp.Compare(a.name, b.name) })
}

// Table makes rows of the events of one type.
func (m *Mux[Tx]) Table(t Table) {
	m.mustBeNew()
	if err := t.validate(); err != nil {
		panic("sink: " + err.Error())
	}
	for _, other := range m.tables {
		if other.Name == t.Name {
			panic("sink: two tables have the name " + t.Name)
		}
	}
	m.tables = append(m.tables, &t)
}

// sheetOf is the index of T's sheet, which the events of T's type are decoded into from now on.
func sheetOf[T, Tx any](m *Mux[Tx], handler string) int {
	m.mustBeNew()
	t := reflect.TypeFor[T]()
	i, ok := m.byType[t]
	if ok {
		return i
	}
	i = len(m.sheets)
	m.byType[t] = i
	m.sheets = append(m.sheets, func() sheet { return &typed[T]{} })
	for _, name := range append([]string{schemas.NameOf(t)}, schemas.AliasesOf(t)...) {
		u := m.usesOf(name)
		u.sheets, u.handlers = append(u.sheets, i), append(u.handlers, handler)
	}
	return i
}

func (m *Mux[Tx]) usesOf(name string) *uses {
	u := m.types[name]
	if u == nil {
		u = &uses{}
		m.types[name] = u
	}
	return u
}

func (m *Mux[Tx]) mustBeNew() {
	if m.used.Load() {
		panic("sink: the mux is in use: register functions, folds and tables before Run")
	}
}

// Admin is the adapter, for commands.
func (m *Mux[Tx]) Admin() Admin { return m.db }

// Open implements [Target].
func (m *Mux[Tx]) Open(ctx context.Context, dec consumer.Decoder, s Setup) (Writer, error) {
	m.used.Store(true)
	if len(m.funcs)+len(m.folds)+len(m.tables) == 0 {
		return nil, fmt.Errorf("open the target of sink %s: the mux is empty: register a function with On, a fold with OnFold or a Table", s.Sink)
	}
	if s.Suffix != "" && s.Shadow == nil && len(m.funcs) > 0 {
		return nil, fmt.Errorf("rebuild sink %s: its functions write to tables of their own choice, which would be written twice: "+
			"only folds and tables are rebuilt", s.Sink)
	}
	w := &writer[Tx]{Mux: m, dec: dec, setup: s, types: make(map[string]*uses, len(m.types))}
	for name, u := range m.types {
		w.types[name] = &uses{sheets: u.sheets, handlers: u.handlers}
	}
	if err := w.layOut(ctx); err != nil {
		return nil, err
	}
	plan := Plan{Sink: s.Sink, Dedupe: s.Dedupe > 0, Evolve: s.Evolve, Rebuild: s.Suffix == RebuildSuffix, Shadow: s.Shadow != nil}
	for _, f := range m.folds {
		plan.Folds = append(plan.Folds, f.name+s.Suffix)
	}
	for _, t := range w.tables {
		plan.Tables = append(plan.Tables, Layout{Table: t.Table, Columns: t.empty})
	}
	if err := m.db.Prepare(ctx, plan); err != nil {
		wrapped := fmt.Errorf("prepare the target of sink %s: %w", s.Sink, err)
		if f := m.db.Fault(err); f == Away || f == Again {
			return nil, Pause(wrapped)
		}
		return nil, wrapped
	}
	return w, nil
}

// Swap is what puts a rebuild of the sink of this name in place: all of the mux's tables and folds. What was there is
// kept under its name with __old behind, until the next.
func (m *Mux[Tx]) Swap(sink string) Swap {
	s := Swap{Into: sink, From: sink + RebuildSuffix}
	rename := func(name string) {
		s.Tables = append(s.Tables, Renamed{Name: name, New: name + RebuildSuffix, Old: name + oldSuffix})
	}
	for _, f := range m.folds {
		rename(f.name)
	}
	for _, t := range m.tables {
		rename(t.Name)
	}
	return s
}

// oldSuffix is put behind the names of tables that a rebuild has replaced.
const oldSuffix = "__old"
