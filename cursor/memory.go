package cursor

import (
	"context"
	"fmt"
	"maps"
	"sync"
)

// Memory is a store in memory, fenced by lease: for tests, and for readers whose position need not outlive them.
// It keeps cursors in the format of a commit, so what a commit would lose is lost here too. The zero value is
// not ready; use [NewMemory].
type Memory struct {
	mu     sync.Mutex
	kept   map[ID]commit
	leases map[ID]int64
	epoch  int64
}

// commit is what Kafka keeps of a cursor.
type commit struct {
	position int64
	epoch    int32
	meta     string
}

// claimed reads a commit as Claim must: what was found wrong with it is said, and the offset counts.
func (c commit) claimed() Claimed {
	if c.position < 0 {
		return Claimed{Cursor: Cursor{Epoch: -1}, Fresh: true}
	}
	cur, err := Decode(c.position, c.meta)
	cur.Epoch = c.epoch
	return Claimed{Cursor: cur, Err: replaced(err)}
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{kept: make(map[ID]commit), leases: make(map[ID]int64)}
}

// Claim implements [Store].
func (m *Memory) Claim(ctx context.Context, ids []ID) (map[ID]Claimed, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("claim cursors: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[ID]Claimed, len(ids))
	for _, id := range ids {
		kept, ok := m.kept[id]
		if !ok {
			kept.position = -1
		}
		m.epoch++
		m.leases[id] = m.epoch
		c := kept.claimed()
		c.Lease = Lease{Epoch: m.epoch}
		out[id] = c
	}
	return out, nil
}

// Commit implements [Store].
func (m *Memory) Commit(ctx context.Context, cs map[ID]Claimed) (map[ID]error, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("commit cursors: %w", err)
	}
	refused := make(map[ID]error)
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, c := range cs {
		if m.leases[id] != c.Lease.Epoch {
			refused[id] = ErrFenced
			continue
		}
		meta, err := encodeWhole(c.Cursor, m.Room(id))
		if err != nil {
			refused[id] = err
			continue
		}
		m.kept[id] = commit{c.Position, c.Epoch, meta}
	}
	return refused, nil
}

// Room implements [Store].
func (m *Memory) Room(ID) int { return MaxRoom }

// Positions returns the committed position of every cursor.
func (m *Memory) Positions() map[ID]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[ID]int64, len(m.kept))
	for id, c := range maps.All(m.kept) {
		out[id] = c.position
	}
	return out
}

// encodeWhole encodes c where nothing may be spilled.
func encodeWhole(c Cursor, room int) (string, error) {
	meta, spill, err := Encode(c, room)
	if err == nil && len(spill) > 0 {
		err = fmt.Errorf("encode cursor at %d: %d open entries must be spilled first: %w", c.Position, len(spill), ErrRoom)
	}
	return meta, err
}
