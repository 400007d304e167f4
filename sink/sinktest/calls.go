package sinktest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/sink"
)

func positionKey(id cursor.ID) string {
	return fmt.Sprintf("position/%s/%s/%d", id.Reader, id.Topic, id.Partition)
}

// Claim implements [sink.DB].
func (m *Memory) Claim(ctx context.Context, owner string, ids []cursor.ID, start map[cursor.ID]int64) (map[cursor.ID]sink.Claimed, error) {
	out := make(map[cursor.ID]sink.Claimed, len(ids))
	if err := m.hook(ctx, Claim, nil); err != nil {
		return nil, err
	}
	ids = slices.SortedFunc(slices.Values(ids), func(a, b cursor.ID) int { return cmp.Compare(positionKey(a), positionKey(b)) })
	err := m.quiet(ctx, func(tx *Tx) error {
		for _, id := range ids {
			if err := tx.lock(ctx, positionKey(id)); err != nil {
				return err
			}
			v, ok := tx.get(positionKey(id))
			row, _ := v.(sink.Position)
			switch {
			case !ok:
				row = sink.Position{ID: id, Next: start[id]}
			case row.ID.TopicID != id.TopicID && id.TopicID != [16]byte{} && row.ID.TopicID != [16]byte{}:
				out[id] = sink.Claimed{Claimed: cursor.Claimed{Err: fmt.Errorf("claim %s: %w", id, sink.ErrOtherTopic)}}
				continue
			}
			row.Epoch++
			row.Owner, row.Updated = owner, m.Now()
			tx.set(positionKey(id), row)
			out[id] = sink.Claimed{
				Claimed: cursor.Claimed{
					Cursor: cursor.Cursor{Position: row.Next, Epoch: -1, Floor: row.Next},
					Lease:  cursor.Lease{Epoch: row.Epoch},
				},
				Watermark: row.Watermark,
			}
		}
		return nil
	})
	return out, err
}

// quiet is a transaction without hooks; the lock of the database is held.
func (m *Memory) quiet(_ context.Context, f func(tx *Tx) error) error {
	tx := &Tx{m: m, writes: make(map[string]any)}
	defer m.end(tx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := f(tx); err != nil {
		return err
	}
	for key, v := range tx.writes {
		if v == nil {
			delete(m.rows, key)
		} else {
			m.rows[key] = v
		}
	}
	return nil
}

// Advance implements [sink.DB].
func (m *Memory) Advance(ctx context.Context, tx *Tx, from, to sink.Place) error {
	unlock, err := m.step(ctx, Advance, tx)
	if err != nil {
		return err
	}
	defer unlock()
	key := positionKey(from.ID)
	if err := tx.lock(ctx, key); err != nil {
		return err
	}
	v, _ := tx.get(key)
	row, _ := v.(sink.Position)
	if (row.Next != from.Next || row.Epoch != from.Lease.Epoch) && m.Bug != NoCompare {
		return tx.abort(fmt.Errorf("move %s from %d to %d: %w", from.ID, from.Next, to.Next, sink.ErrNotOwner))
	}
	row.Next, row.Watermark, row.Updated = to.Next, to.Watermark, m.Now()
	tx.set(key, row)
	return nil
}

// Settle implements [sink.DB].
func (m *Memory) Settle(ctx context.Context, from, to sink.Place) (done bool, err error) {
	if err := m.hook(ctx, Settle, nil); err != nil {
		return false, err
	}
	err = m.quiet(ctx, func(tx *Tx) error {
		if err := tx.lock(ctx, positionKey(from.ID)); err != nil {
			return err
		}
		v, _ := tx.get(positionKey(from.ID))
		row, _ := v.(sink.Position)
		if row.Epoch != from.Lease.Epoch || row.Next != from.Next && row.Next != to.Next {
			return fmt.Errorf("settle %s: %w", from.ID, sink.ErrNotOwner)
		}
		done = row.Next == to.Next
		return nil
	})
	return done, err
}

// Seen implements [sink.DB].
func (m *Memory) Seen(ctx context.Context, tx *Tx, name string, ids []string, keep time.Duration) ([]bool, error) {
	unlock, err := m.step(ctx, Seen, tx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	out := make([]bool, len(ids))
	for i, id := range ids {
		if i > 0 && ids[i-1] >= id {
			return nil, tx.abort(fmt.Errorf("ids %q and %q are not in ascending order: %w", ids[i-1], id, ErrWrong))
		}
		key := "seen/" + name + "/" + id
		if err := tx.lock(ctx, key); err != nil {
			return nil, err
		}
		v, ok := tx.get(key)
		at, _ := v.(time.Time)
		if out[i] = ok && m.Now().Sub(at) < keep; !out[i] {
			tx.set(key, m.Now())
		}
	}
	return out, nil
}

func foldKey(fold string, k sink.FoldKey) string {
	name := "fold/" + fold + "/" + k.Key
	if !k.Window.IsZero() {
		name += "@" + k.Window.UTC().Format(time.RFC3339Nano)
	}
	return name
}

// Load implements [sink.DB].
func (m *Memory) Load(ctx context.Context, tx *Tx, fold string, keys []sink.FoldKey) ([][]byte, error) {
	unlock, err := m.step(ctx, Load, tx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	out := make([][]byte, len(keys))
	for i, k := range keys {
		if i > 0 && cmp.Or(strings.Compare(keys[i-1].Key, k.Key), keys[i-1].Window.Compare(k.Window)) >= 0 {
			return nil, tx.abort(fmt.Errorf("fold keys %v and %v are not in ascending order: %w", keys[i-1], k, ErrWrong))
		}
		name := foldKey(fold, k)
		if _, ok := tx.get(name); !ok {
			if m.Bug == LockOnly {
				continue
			}
			if err := tx.lock(ctx, name); err != nil {
				return nil, err
			}
			if _, ok := tx.get(name); !ok {
				tx.set(name, []byte(nil))
			}
		}
		if err := tx.lock(ctx, name); err != nil {
			return nil, err
		}
		v, _ := tx.get(name)
		state, _ := v.([]byte)
		out[i] = slices.Clone(state)
	}
	return out, nil
}

// Store implements [sink.DB].
func (m *Memory) Store(ctx context.Context, tx *Tx, fold string, keys []sink.FoldKey, states [][]byte) error {
	unlock, err := m.step(ctx, Store, tx)
	if err != nil {
		return err
	}
	defer unlock()
	for i, k := range keys {
		name := foldKey(fold, k)
		if m.locks[name] != tx && m.Bug != LockOnly {
			return tx.abort(fmt.Errorf("store %v, which was not loaded: %w", k, ErrWrong))
		}
		if err := tx.lock(ctx, name); err != nil {
			return err
		}
		tx.set(name, slices.Clone(states[i]))
	}
	return nil
}

// Positions implements [sink.Admin].
func (m *Memory) Positions(_ context.Context, name string) ([]sink.Position, error) {
	var out []sink.Position
	each(m, "position/"+name+"/", func(_ string, v any) { out = append(out, v.(sink.Position)) }) //nolint:forcetypeassert // nothing else has that name
	slices.SortFunc(out, func(a, b sink.Position) int {
		return cmp.Or(strings.Compare(a.ID.Topic, b.ID.Topic), cmp.Compare(a.ID.Partition, b.ID.Partition))
	})
	return out, nil
}

// Move implements [sink.Admin].
func (m *Memory) Move(ctx context.Context, moves []sink.Move) error {
	return m.quiet(ctx, func(tx *Tx) error {
		for _, mv := range moves {
			key := positionKey(mv.From.ID)
			if err := tx.lock(ctx, key); err != nil {
				return err
			}
			v, ok := tx.get(key)
			row, _ := v.(sink.Position)
			if !ok || row.Next != mv.From.Next || row.Epoch != mv.From.Epoch {
				return fmt.Errorf("move %s from %d: %w", mv.From.ID, mv.From.Next, sink.ErrNotOwner)
			}
			if mv.To == nil {
				tx.set(key, nil)
				continue
			}
			row.Next, row.Watermark, row.Updated = mv.To.Next, mv.To.Watermark, m.Now()
			row.Epoch++
			if mv.To.ID.TopicID != [16]byte{} {
				row.ID.TopicID = mv.To.ID.TopicID
			}
			tx.set(key, row)
		}
		return nil
	})
}

// Swap implements [sink.Admin].
func (m *Memory) Swap(ctx context.Context, s sink.Swap) error {
	return m.quiet(ctx, func(tx *Tx) error {
		if !m.began(s.From) {
			return fmt.Errorf("swap %s for %s: it has no positions: there is nothing to put in place", s.From, s.Into)
		}
		for _, from := range []string{s.From, s.Into} { // no owner of either is in a transaction
			for key := range m.rows {
				if strings.HasPrefix(key, "position/"+from+"/") {
					if err := tx.lock(ctx, key); err != nil {
						return err
					}
				}
			}
		}
		for _, t := range s.Tables {
			for _, kind := range []string{"table/", "fold/"} {
				tx.rename(kind+t.Old+"/", "")
				tx.rename(kind+t.Name+"/", kind+t.Old+"/")
				tx.rename(kind+t.New+"/", kind+t.Name+"/")
			}
			for _, kind := range []string{"layout/", "made/"} {
				if v, ok := tx.get(kind + t.New); ok {
					tx.set(kind+t.Name, v)
					tx.set(kind+t.New, nil)
				}
			}
		}
		tx.rename("seen/"+s.Into+"/", "")
		tx.rename("seen/"+s.From+"/", "seen/"+s.Into+"/")
		old := make(map[string]int64)
		for key, v := range m.rows {
			if p, ok := v.(sink.Position); ok && p.ID.Reader == s.Into {
				old[key] = p.Epoch
				tx.set(key, nil)
			}
		}
		for key, v := range m.rows {
			p, ok := v.(sink.Position)
			if !ok || p.ID.Reader != s.From {
				continue
			}
			tx.set(key, nil)
			p.ID.Reader = s.Into
			p.Epoch = max(p.Epoch, old[positionKey(p.ID)]) + 1
			tx.set(positionKey(p.ID), p)
		}
		return nil
	})
}

// began reports whether a sink has positions; m.mu is held.
func (m *Memory) began(name string) bool {
	for key := range m.rows {
		if strings.HasPrefix(key, "position/"+name+"/") {
			return true
		}
	}
	return false
}

// Discard implements [sink.Admin].
func (m *Memory) Discard(ctx context.Context, s sink.Swap) error {
	return m.quiet(ctx, func(tx *Tx) error {
		for key := range m.rows {
			if strings.HasPrefix(key, "position/"+s.From+"/") {
				if err := tx.lock(ctx, key); err != nil {
					return err
				}
			}
		}
		tx.rename("position/"+s.From+"/", "")
		tx.rename("seen/"+s.From+"/", "")
		for _, t := range s.Tables {
			tx.rename("table/"+t.New+"/", "")
			tx.rename("fold/"+t.New+"/", "")
			tx.set("layout/"+t.New, nil)
			tx.set("made/"+t.New, nil)
		}
		return nil
	})
}

// rename gives rows another prefix, or removes them where it is "". It sees the transaction's own renames.
func (tx *Tx) rename(from, to string) {
	all := make(map[string]any)
	for key := range tx.m.rows {
		all[key] = nil
	}
	for key := range tx.writes {
		all[key] = nil
	}
	for key := range all {
		name, ok := strings.CutPrefix(key, from)
		if !ok {
			continue
		}
		v, ok := tx.get(key)
		if !ok {
			continue
		}
		tx.set(key, nil)
		if to != "" {
			tx.set(to+name, v)
		}
	}
}
