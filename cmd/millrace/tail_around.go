package main

import (
	"bytes"
	linked "container/list"
	"strings"

	"github.com/millrace/millrace/event"
)

// What --context-by says.
const (
	byPartition = "partition"
	byKey       = "key"
)

const (
	contextMost = 1_000   // events before or after a match
	heldMost    = 100_000 // events that are held because a match may follow, and streams
)

// around knows what stands before and after matches, in streams: the events of a partition, or of a key in all topics.
// It holds the last events of each stream, for a match may follow. Where it would hold too many, the stream that was
// quiet for the longest is forgotten.
type around struct {
	before, after int
	byKey         bool

	streams map[string]*linked.Element
	recent  linked.List // of *stream, the one used last in front
	held    int         // events in all streams
	pending int         // streams with events after a match still to come
	cut     bool        // a stream was forgotten
}

type stream struct {
	name  string
	last  []event.Event // what stands before a match that may follow, oldest first
	after int           // events after the last match still to be shown
}

func newAround(before, after int, byKey bool) *around {
	return &around{before: before, after: after, byKey: byKey, streams: map[string]*linked.Element{}}
}

// add takes the next event. Of a match it returns what stands before it, and whether a new block begins; of another
// event, whether it is shown because it follows a match.
func (x *around) add(e *event.Event, hit bool) (earlier []event.Event, begins, follows bool) {
	if x.byKey && e.Key == nil { // belongs to no stream
		return nil, hit, false
	}
	s := x.stream(e)
	switch {
	case hit:
		earlier, begins = s.last, s.after == 0
		x.held -= len(s.last)
		s.last = nil
		x.await(s, x.after)
	case s.after > 0:
		x.await(s, s.after-1)
		follows = true
	case x.before > 0:
		if len(s.last) == x.before {
			s.last = append(s.last[:0], s.last[1:]...)
			x.held--
		}
		s.last = append(s.last, x.keep(e))
		x.held++
	}
	if s.after == 0 && len(s.last) == 0 {
		x.forget(s)
	}
	for x.held > heldMost || len(x.streams) > heldMost {
		x.forget(x.recent.Back().Value.(*stream)) //nolint:forcetypeassert // nothing else is in it
		x.cut = true
	}
	return earlier, begins, follows
}

func (x *around) await(s *stream, n int) {
	switch {
	case s.after == 0 && n > 0:
		x.pending++
	case s.after > 0 && n == 0:
		x.pending--
	}
	s.after = n
}

func (x *around) stream(e *event.Event) *stream {
	name := string(e.Key)
	if !x.byKey {
		name = place(e.Topic, e.Partition)
	}
	if at, ok := x.streams[name]; ok {
		x.recent.MoveToFront(at)
		return at.Value.(*stream) //nolint:forcetypeassert // nothing else is in it
	}
	s := &stream{name: name}
	x.streams[name] = x.recent.PushFront(s)
	return s
}

func (x *around) forget(s *stream) {
	x.await(s, 0)
	x.held -= len(s.last)
	x.recent.Remove(x.streams[s.name])
	delete(x.streams, s.name)
}

// keep is e for later. The events of a partition come and go together with their batch; one of a rare key would keep a
// whole batch in memory, so it gets memory of its own.
func (x *around) keep(e *event.Event) event.Event {
	k := *e
	if x.byKey {
		k = cloneEvent(e)
	}
	return k
}

// cloneEvent is e without a share in the memory of its batch.
func cloneEvent(e *event.Event) event.Event {
	k := *e
	k.Key, k.Value = bytes.Clone(e.Key), bytes.Clone(e.Value)
	h := make(event.Headers, len(e.Headers))
	for i, x := range e.Headers {
		h[i] = event.Header{Key: strings.Clone(x.Key), Value: bytes.Clone(x.Value)}
	}
	event.ParseHeaders(&k.Meta, h) // its attributes are of the new memory
	return k
}
