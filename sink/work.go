package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/schemas"
)

// work is one batch on its way into the database. Its memory is used again for the next.
type work[Tx any] struct {
	*writer[Tx]
	Batch

	sheets     []sheet
	folders    []folder
	rows       []*rows
	used       []bool      // by event: it goes somewhere
	watermarks []time.Time // by event: the newest event time before it; only with folds
	gone       []bool      // by event: it is to change nothing, in any transaction of this Write
	skip       []bool      // gone, and repeats, in the transaction at hand
	guilty     []guilty
	buried     int // of guilty
	late       []lateEvent
	lateBuried map[lateEvent]bool
	changes    []Change // in a shadow: of the transaction at hand
	order      []int    // events by id
	ids        []string

	passedBy int // events that go nowhere
	did      Written
	careful  bool // look for the events that fail
	progress bool // the transaction that failed will not fail in the same way again
}

// guilty is an event that is dead-lettered.
type guilty struct {
	i       int
	handler string
	err     error
}

// lateEvent is an event that came too late for a fold.
type lateEvent struct{ i, fold int }

func (w *writer[Tx]) newWork() *work[Tx] {
	k := &work[Tx]{writer: w, lateBuried: make(map[lateEvent]bool)}
	for _, fresh := range w.sheets {
		k.sheets = append(k.sheets, fresh())
	}
	for _, f := range w.folds {
		k.folders = append(k.folders, f.start())
	}
	for _, t := range w.tables {
		k.rows = append(k.rows, t.rows())
	}
	return k
}

func (k *work[Tx]) begin(b Batch) {
	k.Batch = b
	n := len(b.Events)
	k.used, k.gone, k.skip = cleared(k.used, n), cleared(k.gone, n), cleared(k.skip, n)
	k.watermarks = k.watermarks[:0]
	if len(k.folds) == 0 {
		return
	}
	newest := b.From.Watermark
	for i := range b.Events {
		k.watermarks = append(k.watermarks, newest)
		newest = later(newest, &b.Events[i].Meta)
	}
}

func cleared(s []bool, n int) []bool {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// later is the watermark behind an event. Nothing happens after its record was written.
func later(watermark time.Time, m *event.Meta) time.Time {
	t := eventTime(m)
	if !m.Published.IsZero() && t.After(m.Published) {
		t = m.Published
	}
	if t = t.Truncate(time.Microsecond); t.After(watermark) {
		return t.UTC()
	}
	return watermark
}

// reset forgets the events.
func (k *work[Tx]) reset() {
	for _, s := range k.sheets {
		s.reset()
	}
	for _, f := range k.folders {
		f.reset()
	}
	for _, r := range k.rows {
		r.reset()
	}
	clear(k.guilty)
	clear(k.ids)
	clear(k.lateBuried)
	k.changes = nil
	k.guilty, k.buried, k.late = k.guilty[:0], 0, k.late[:0]
	k.careful, k.passedBy, k.Batch = false, 0, Batch{}
}

// decode decodes each event for whatever takes it. What does not decode is set aside.
func (k *work[Tx]) decode(ctx context.Context) error {
	for i := range k.Events {
		e := &k.Events[i]
		handler, err := k.route(ctx, e, i)
		if err == nil {
			continue
		}
		if _, bad := errors.AsType[*poison](err); !bad {
			return fmt.Errorf("event %s at offset %d: %w", e.ID, e.Offset, err)
		}
		k.setAside(i, handler, err)
	}
	return nil
}

// route decodes event i. It returns for whom that failed.
func (k *work[Tx]) route(ctx context.Context, e *event.Event, i int) (handler string, err error) {
	if e.IsTombstone() {
		return k.tombstone(ctx, e, i)
	}
	name, err := k.dec.TypeOf(ctx, e)
	if err != nil {
		return "", undecodable(err)
	}
	if e.Type == "" {
		e.Type = name
	}
	u := k.types[name]
	if u == nil {
		k.nobody(e.Topic, name, e.ID)
		k.passedBy++
		return "", nil
	}
	for n, s := range u.sheets {
		if err := k.sheets[s].add(ctx, k.dec, e, i); err != nil {
			return u.handlers[n], undecodable(err)
		}
	}
	for _, t := range u.tables {
		if !k.rows[t].takes(e.Topic) {
			continue
		}
		if err := k.rows[t].add(ctx, e, i); err != nil {
			return "table " + k.rows[t].Name, undecodable(err)
		}
	}
	k.used[i] = true
	return "", nil
}

// tombstone deletes the key's row in the tables of the topic.
func (k *work[Tx]) tombstone(ctx context.Context, e *event.Event, i int) (handler string, err error) {
	for _, r := range k.rows {
		yes, err := r.deletes(e.Topic)
		if err != nil {
			return "table " + r.Name, consumer.Stop(err)
		}
		if !yes {
			continue
		}
		if err := r.add(ctx, e, i); err != nil {
			return "table " + r.Name, undecodable(err)
		}
		k.used[i] = true
	}
	return "", nil
}

// setAside takes event i out of what is written, and dead-letters it unless err is a Drop.
func (k *work[Tx]) setAside(i int, handler string, err error) {
	if k.gone[i] {
		return
	}
	k.gone[i], k.progress = true, true
	if consumer.VerdictOf(err).Kind != verdict.Dropped {
		k.guilty = append(k.guilty, guilty{i, handler, err})
	}
}

// bury copies what was set aside to the dead letters, and late events whose fold says so. Each is copied once in a
// Write, whatever becomes of its transactions.
func (k *work[Tx]) bury(ctx context.Context) error {
	for ; k.buried < len(k.guilty); k.buried++ {
		g := k.guilty[k.buried]
		if err := k.Bury(ctx, g.i, g.handler, g.err); err != nil {
			return &passed{err}
		}
	}
	for _, l := range k.late {
		f := &k.folds[l.fold]
		err := fmt.Errorf("it happened at %s, and its window has closed: the newest event before it is of %s",
			eventTime(&k.Events[l.i].Meta).UTC().Format(time.RFC3339), k.watermarks[l.i].Format(time.RFC3339))
		switch {
		case f.late == consumer.Stopped:
			return &passed{consumer.Stop(fmt.Errorf("event %s is late for fold %s: %w", k.Events[l.i].ID, f.name, err))}
		case f.late != consumer.DeadLettered || k.lateBuried[l]:
			continue
		}
		if err := k.Bury(ctx, l.i, "fold "+f.name, consumer.DeadLetter(err)); err != nil {
			return &passed{err}
		}
		k.lateBuried[l] = true
	}
	k.did.Late, k.did.Buried = len(k.late), len(k.guilty)
	return nil
}

// search writes the events from ≤ i < to in parts, down to the single event that fails, which is set aside.
func (k *work[Tx]) search(ctx context.Context, tx Tx, from, to int) error {
	did, late, changes := k.did, len(k.late), len(k.changes)
	err := k.db.Try(ctx, tx, func(ctx context.Context) error { return k.apply(ctx, tx, from, to) })
	if err == nil {
		return nil
	}
	k.did, k.late, k.changes = did, k.late[:late], k.changes[:changes]
	if !k.blamable(ctx, err) {
		return err
	}
	if to-from == 1 {
		handler := "target"
		data := k.db.Fault(err) == Data
		if f, ok := errors.AsType[*funcError](err); ok {
			handler, err = f.name, f.err
			if each := consumer.VerdictOf(err).Each; len(each) == 1 {
				err = each[0]
			}
		}
		if data {
			err = &refusedError{err}
		}
		k.setAside(from, handler, err)
		return nil
	}
	mid := from + (to-from)/2
	if err := k.search(ctx, tx, from, mid); err != nil {
		return err
	}
	return k.search(ctx, tx, mid, to)
}

// blamable reports whether err may be the fault of an event.
func (k *work[Tx]) blamable(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if _, ok := errors.AsType[*passed](err); ok {
		return false
	}
	f, ok := errors.AsType[*funcError](err)
	if fault := k.db.Fault(err); fault != Foreign || !ok {
		return fault == Data
	}
	v := consumer.VerdictOf(f.err)
	switch v.Kind {
	case verdict.DeadLetter, verdict.Dropped:
		return true
	case verdict.Retry:
		return k.Last
	default:
		return false
	}
}

// apply writes the events from ≤ i < to but those that are gone: what the doc comment of [Mux] lists, in its order.
func (k *work[Tx]) apply(ctx context.Context, tx Tx, from, to int) error {
	copy(k.skip[from:to], k.gone[from:to])
	sp := span{from: from, to: to, skip: k.skip}
	if k.setup.Dedupe > 0 {
		if err := k.skipRepeats(ctx, tx, from, to); err != nil {
			return err
		}
	}
	for i := range k.funcs {
		f := &k.funcs[i]
		if err := k.call(ctx, tx, f, sp); err != nil {
			return err
		}
	}
	if k.plant.foldTwice {
		copy(k.skip[from:to], k.gone[from:to])
	}
	for i := range k.folds {
		if err := k.fold(ctx, tx, i, sp); err != nil {
			return err
		}
	}
	for _, r := range k.rows {
		write, deleted, err := r.take(ctx, sp, k.Events)
		switch {
		case errors.Is(err, schemas.ErrFull):
			return &passed{consumer.Stop(err)}
		case err != nil:
			return &passed{undecodable(err)}
		case write.Len() == 0 && (deleted == nil || deleted.Len() == 0):
			continue
		}
		n, err := k.db.Write(ctx, tx, r.Table, write, deleted)
		if err != nil {
			return fmt.Errorf("write %d rows of table %s: %w", write.Len(), r.Name, err)
		}
		if k.setup.Shadow != nil {
			k.changedRows(r, write, deleted)
		}
		k.did.Rows += int(n)
	}
	return nil
}

// call calls a function. In a shadow what it wrote is undone.
func (k *work[Tx]) call(ctx context.Context, tx Tx, f *function[Tx], sp span) error {
	do := func(ctx context.Context) error {
		if at, err := f.call(ctx, tx, k.sheets[f.sheet], sp); err != nil {
			return &funcError{name: f.name, at: at, err: err}
		}
		return nil
	}
	if k.setup.Shadow == nil || k.plant.keepFunctions {
		return do(ctx)
	}
	return k.undone(ctx, tx, do)
}

// skipRepeats skips the events whose ids were seen before, also in this batch.
func (k *work[Tx]) skipRepeats(ctx context.Context, tx Tx, from, to int) error {
	if k.plant.byTime {
		for i := from; i < to; i++ {
			k.skip[i] = k.skip[i] || !eventTime(&k.Events[i].Meta).After(k.From.Watermark)
		}
		return nil
	}
	k.order, k.ids = k.order[:0], k.ids[:0]
	for i := from; i < to; i++ {
		if k.used[i] && !k.skip[i] {
			k.order = append(k.order, i)
		}
	}
	slices.SortFunc(k.order, func(a, b int) int {
		return cmp.Or(cmp.Compare(k.Events[a].ID, k.Events[b].ID), cmp.Compare(a, b))
	})
	first := k.order[:0]
	for n, i := range k.order {
		if n > 0 && k.Events[i].ID == k.ids[len(k.ids)-1] {
			k.skip[i] = true
			k.did.Repeats++
			continue
		}
		first = append(first, i)
		k.ids = append(k.ids, k.Events[i].ID)
	}
	if len(k.ids) == 0 {
		return nil
	}
	seen, err := k.db.Seen(ctx, tx, k.setup.Sink, k.ids, k.setup.Dedupe)
	if err != nil {
		return fmt.Errorf("note %d event ids: %w", len(k.ids), err)
	}
	if len(seen) != len(first) {
		return fmt.Errorf("note %d event ids: got %d answers", len(first), len(seen))
	}
	for n, i := range first {
		if seen[n] {
			k.skip[i] = true
			k.did.Repeats++
		}
	}
	return nil
}

// fold moves the states of one fold on.
func (k *work[Tx]) fold(ctx context.Context, tx Tx, n int, sp span) error {
	f := &k.folds[n]
	blame := func(err error) error {
		return &funcError{name: "fold " + f.name, err: err}
	}
	keys, late, err := k.folders[n].keys(k.sheets[f.sheet], sp, k.watermarks)
	if err != nil {
		return blame(err)
	}
	for _, i := range late {
		k.late = append(k.late, lateEvent{i, n})
	}
	if len(keys) == 0 {
		return nil
	}
	name := f.name + k.setup.Suffix
	old, err := k.db.Load(ctx, tx, name, keys)
	if err != nil {
		return fmt.Errorf("load %d states of fold %s: %w", len(keys), name, err)
	}
	states, err := k.folders[n].run(old)
	if err != nil {
		return blame(err)
	}
	if err := k.db.Store(ctx, tx, name, keys, states); err != nil {
		return fmt.Errorf("store %d states of fold %s: %w", len(keys), name, err)
	}
	if k.setup.Shadow != nil {
		k.changedStates(f.name, keys, states)
	}
	k.did.States += len(keys)
	return nil
}
