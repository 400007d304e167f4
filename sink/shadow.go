package sink

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// Change is a row or a state that a sink in shadow has written beside the live table.
type Change struct {
	// Table is the live table's name.
	Table string
	// Fold says that the table is a fold's.
	Fold bool
	// Key is the row's key columns, or the state's key, as JSON; nil for an appended row.
	Key json.RawMessage
	// Value is the row by column, or the state, as JSON; nil when the row was deleted.
	Value json.RawMessage
}

// ShadowConfig says where a shadow writes and whom it tells.
type ShadowConfig struct {
	// Suffix is put behind the names of tables, folds and the sink: lower case letters, digits and underscores. Required.
	Suffix string
	// Change is told each row and state, once it is committed. Required.
	Change func(ctx context.Context, c Change)
	// Bury is told events that would be dead-lettered. Required.
	Bury func(ctx context.Context, e *event.Event, handler, class string, why error) error
}

// Shadow writes events as the sink of a [Config] would, one transaction for each, and changes nothing live: tables and folds
// are those with the suffix, which are made, as are position rows of their own; what functions write is rolled back to before
// they were called. It is no member of any group: events are given to it. Nothing of it is removed afterwards.
type Shadow struct {
	writer Writer
	cfg    Config
	shadow ShadowConfig

	mu     sync.Mutex
	places map[cursor.ID]*Place
}

// OpenShadow opens a target for a shadow. It must be a [Mux]: a directory of files has no transaction to undo.
func OpenShadow(ctx context.Context, dec consumer.Decoder, t Target, cfg Config, s ShadowConfig) (*Shadow, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if _, ok := t.(interface{ Swap(sink string) Swap }); !ok {
		return nil, fmt.Errorf("open a shadow of sink %s: only databases have one: write files anew into another directory instead", cfg.Name)
	}
	w, err := t.Open(ctx, dec, Setup{
		Sink: cfg.Name + s.Suffix, Owner: owner(), Topics: cfg.Topics, Suffix: s.Suffix, Dedupe: cfg.Dedupe, Evolve: cfg.Evolve,
		Shadow: s.Change, Observer: cfg.Observer, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Shadow{writer: w, cfg: cfg, shadow: s, places: map[cursor.ID]*Place{}}, nil
}

// Write writes one event, and reports false where the shadow had it already. Events of a partition come in order and one at a
// time. The error is a verdict, as [Writer.Write] gives it. last says that no other attempt follows.
func (s *Shadow) Write(ctx context.Context, e event.Event, last bool) (bool, error) {
	p, err := s.place(ctx, cursor.ID{Reader: s.cfg.Name + s.shadow.Suffix, Topic: e.Topic, Partition: e.Partition}, e.Offset)
	if err != nil || e.Offset < p.Next {
		return false, err
	}
	to := *p
	to.Next, to.Watermark = e.Offset+1, later(p.Watermark, &e.Meta)
	err = s.writer.Write(ctx, Batch{
		From: *p, To: to, Events: []event.Event{e}, Attempt: e.Attempt, Last: last,
		Bury: func(ctx context.Context, _ int, handler string, why error) error {
			return s.shadow.Bury(ctx, &e, handler, string(class(why)), why)
		},
	})
	if err != nil {
		return false, err
	}
	*p = to
	return true, nil
}

// place is where the shadow stands on a partition; it begins with the first event it is given.
func (s *Shadow) place(ctx context.Context, id cursor.ID, start int64) (*Place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.places[id]; p != nil {
		return p, nil
	}
	claimed, err := s.writer.Claim(ctx, []cursor.ID{id}, map[cursor.ID]int64{id: start})
	if err == nil {
		err = claimed[id].Err
	}
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", id, err)
	}
	c := claimed[id]
	p := &Place{ID: id, Lease: c.Lease, Next: c.Position, Watermark: c.Watermark}
	s.places[id] = p
	return p, nil
}

var errUndo = errors.New("the shadow is undone")

// undone does do inside a savepoint that is rolled back.
func (k *work[Tx]) undone(ctx context.Context, tx Tx, do func(ctx context.Context) error) error {
	err := k.db.Try(ctx, tx, func(ctx context.Context) error { return cmp.Or(do(ctx), errUndo) })
	if errors.Is(err, errUndo) {
		return nil
	}
	return err
}

// changedStates notes states that were stored.
func (k *work[Tx]) changedStates(fold string, keys []FoldKey, states [][]byte) {
	for i, key := range keys {
		var name any = key.Key
		if !key.Window.IsZero() {
			name = map[string]any{"key": key.Key, "window": key.Window.Format(time.RFC3339)}
		}
		k.changes = append(k.changes, Change{Table: fold, Fold: true, Key: asJSON(name), Value: append(json.RawMessage(nil), states[i]...)})
	}
}

// changedRows notes rows that were written and deleted.
func (k *work[Tx]) changedRows(r *rows, write, deleted *schemas.Rows) {
	name := strings.TrimSuffix(r.Name, k.setup.Suffix)
	note := func(rows *schemas.Rows, gone bool) {
		for row := range rows.Len() {
			key, value := map[string]any{}, map[string]any{}
			for i, c := range rows.Columns() {
				value[c.Name] = cell(rows, i, row)
			}
			for _, i := range r.key {
				key[rows.Columns()[i].Name] = value[rows.Columns()[i].Name]
			}
			c := Change{Table: name}
			if !r.Append {
				c.Key = asJSON(key)
			}
			if !gone {
				c.Value = asJSON(value)
			}
			k.changes = append(k.changes, c)
		}
	}
	note(write, false)
	if deleted != nil {
		note(deleted, true)
	}
}

// cell is one value as JSON has it.
func cell(r *schemas.Rows, column, row int) any {
	if nulls := r.Nulls(column); nulls != nil && nulls[row] {
		return nil
	}
	switch r.Columns()[column].Kind {
	case schemas.KindBool:
		return r.Ints(column)[row] != 0
	case schemas.KindInt:
		return r.Ints(column)[row]
	case schemas.KindDate:
		return time.Unix(r.Ints(column)[row]*86400, 0).UTC().Format(time.DateOnly)
	case schemas.KindTime:
		return time.UnixMicro(r.Ints(column)[row]).UTC().Format("15:04:05.999999")
	case schemas.KindTimestamp:
		return time.UnixMicro(r.Ints(column)[row]).UTC().Format(time.RFC3339Nano)
	case schemas.KindFloat:
		f := r.Floats(column)[row]
		if _, err := json.Marshal(f); err != nil { // no JSON for NaN and the infinite
			return fmt.Sprint(f)
		}
		return f
	case schemas.KindDecimal, schemas.KindUUID:
		return r.Texts(column)[row]
	case schemas.KindJSON:
		return append(json.RawMessage(nil), r.Bytes(column, row)...)
	case schemas.KindBytes:
		return append([]byte(nil), r.Bytes(column, row)...)
	default:
		return string(r.Bytes(column, row))
	}
}

func asJSON(v any) json.RawMessage {
	out, err := json.Marshal(v)
	if err != nil { // a JSON column that is none
		out, _ = json.Marshal(fmt.Sprint(v)) //nolint:errchkjson // a text
	}
	return out
}

// tell tells the changes of a transaction that was committed.
func (k *work[Tx]) tell(ctx context.Context) {
	for _, c := range k.changes {
		k.setup.Shadow(ctx, c)
	}
}
