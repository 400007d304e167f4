package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// gate bounds the records and bytes that were polled and are not resolved, over all partitions. Not polling is
// safe backpressure: heartbeats go on, and what the client has fetched ahead stays where it is.
type gate struct {
	maxRecords, maxBytes int64
	records, bytes       atomic.Int64
	waiting              atomic.Bool
	freed                chan struct{}
}

func newGate(records int, bytes int64) *gate {
	return &gate{maxRecords: int64(records), maxBytes: bytes, freed: make(chan struct{}, 1)}
}

func (g *gate) add(records, bytes int64) {
	g.records.Add(records)
	g.bytes.Add(bytes)
}

func (g *gate) release(records, bytes int64) {
	g.records.Add(-records)
	g.bytes.Add(-bytes)
	if g.waiting.Load() {
		select {
		case g.freed <- struct{}{}:
		default:
		}
	}
}

// load is how full the gate is: 1 at a bound.
func (g *gate) load() float64 { return g.share(g.records.Load(), g.bytes.Load()) }

// share is what part of the gate so many records and bytes are, by the bound that is nearer.
func (g *gate) share(records, bytes int64) float64 {
	return max(float64(records)/float64(g.maxRecords), float64(bytes)/float64(g.maxBytes))
}

// room waits until a poll is allowed and returns for how many records: never 0, which a poll takes for no limit. It
// is 0 when ctx has ended or the gate stayed shut for shutAfter. partitions is how many share the gate.
//
// A poll may bring at most a quarter of a partition's fair share, so that one which is not worked off can't fill
// the gate before it is noticed; and it waits for some room, because polling for one record at a time is slow. A
// record's size is not known before it is polled: the mean of those in the gate stands for it.
func (g *gate) room(ctx context.Context, partitions int) int {
	var shut *time.Timer
	for ctx.Err() == nil {
		g.waiting.Store(true)
		records, bytes := g.records.Load(), g.bytes.Load()
		mean := max(bytes/max(records, 1), 1)
		most := min(g.maxRecords, max(g.maxBytes/mean, 1)) // in the gate
		free := min(g.maxRecords-records, max((g.maxBytes-bytes)/mean, 1))
		part := most / int64(4*max(partitions, 1))
		if bytes < g.maxBytes && free >= max(min(part, minPoll), 1) || records == 0 {
			g.waiting.Store(false)
			return int(min(max(free, 1), max(part, min(most, minPoll))))
		}
		if shut == nil {
			shut = time.NewTimer(shutAfter)
			defer shut.Stop()
		}
		select {
		case <-g.freed:
		case <-shut.C:
			return 0
		case <-ctx.Done():
		}
	}
	return 0
}

const (
	minPoll     = 256 // records
	overhead    = 200 // bytes of a record beside what it carries
	loadedFrom  = 0.5 // of the gate: below, nobody is held back
	resumeAt    = 0.5 // of a fair share
	shutAfter   = 200 * time.Millisecond
	hungryAfter = 50 * time.Millisecond
	standsAfter = 500 * time.Millisecond
)

// size is what a record counts in the gate, in bytes.
func size(r *kgo.Record) int64 {
	n := overhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}
