package cursor

import (
	"context"
	"errors"
)

// Memory is a store in memory, fenced by lease: for tests and for readers that keep nothing.
type Memory struct{}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{} }

// Claim implements [Store].
func (m *Memory) Claim(ctx context.Context, ids []ID) (map[ID]Claimed, error) {
	return nil, errors.ErrUnsupported
}

// Commit implements [Store].
func (m *Memory) Commit(ctx context.Context, cs map[ID]Claimed) (map[ID]error, error) {
	return nil, errors.ErrUnsupported
}

// Room implements [Store].
func (m *Memory) Room(ID) int { return 4096 }

// Group keeps cursors in the commits of a consumer group that has members. engine.NewGroup makes it.
type Group struct{ Memory }

// NewGroup returns the store of the group name.
func NewGroup(name string) *Group { return &Group{} }
