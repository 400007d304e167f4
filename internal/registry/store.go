package registry

import (
	"context"
	"slices"
	"sync"
)

// Store is where the registry's records are kept: an append-only log with compaction by key.
type Store interface {
	// Open readies the log for reading from its start. An error ends the registry's Run.
	Open(ctx context.Context) (Log, error)
}

// Log is an open store. Append may be called while Next waits; Next is called by one goroutine.
type Log interface {
	// Append writes one record and returns its offset when it cannot be lost any more. A nil value deletes the key.
	// An error leaves open whether the record was written.
	Append(ctx context.Context, key, value []byte) (int64, error)
	// Next returns the records that follow those it returned last, and waits for at least one.
	Next(ctx context.Context) ([]Record, error)
	// End is the offset that follows the last record written by anyone.
	End(ctx context.Context) (int64, error)
	// Close gives up the connections. The records stay.
	Close()
}

// Record is a record of the log. A nil Value deletes the key.
type Record struct {
	Offset     int64
	Key, Value []byte
}

// Memory is a store that ends with the process: for tests, and for a registry that a program carries with it.
func Memory() Store { return &memory{grown: make(chan struct{})} }

type memory struct {
	mu      sync.Mutex
	records []Record
	grown   chan struct{} // closed when records grows, then replaced
}

func (m *memory) Open(context.Context) (Log, error) { return &memoryLog{memory: m}, nil }

type memoryLog struct {
	*memory
	next int
}

func (l *memoryLog) Append(ctx context.Context, key, value []byte) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	offset := int64(len(l.records))
	l.records = append(l.records, Record{offset, slices.Clone(key), slices.Clone(value)})
	close(l.grown)
	l.grown = make(chan struct{})
	return offset, nil
}

func (l *memoryLog) Next(ctx context.Context) ([]Record, error) {
	for {
		l.mu.Lock()
		fresh, grown := l.records[l.next:len(l.records):len(l.records)], l.grown
		l.mu.Unlock()
		if len(fresh) > 0 {
			l.next += len(fresh)
			return fresh, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-grown:
		}
	}
}

func (l *memoryLog) End(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.records)), nil
}

func (l *memoryLog) Close() {}
