package replay

import (
	"cmp"
	"slices"
	"sync"

	"github.com/millrace/millrace/event"
)

// outcome is what became of one event.
type outcome uint8

const (
	open outcome = iota
	delivered
	dropped
	failed
	filtered
	undecodable
	unanswered
	passed // not one of the replay: nothing to count
)

func (c *Counts) count(o outcome) {
	switch o {
	case delivered:
		c.Delivered++
	case dropped:
		c.Dropped++
	case failed:
		c.Failed++
	case filtered:
		c.Filtered++
	case undecodable:
		c.Undecodable++
	case unanswered:
		c.Unanswered++
	case open, passed:
	}
}

type partition struct {
	topic string
	n     int32
}

// part is a partition's span and what is on its way in it.
type part struct {
	Span
	entries   []entry // from the first that is open
	base      uint64  // the number of entries[0]
	committed int64   // the position of the last commit
}

// entry is an event on its way, and what lies between it and the next one.
type entry struct {
	next   int64 // the position once all up to here is behind
	result outcome
	skips  Counts
}

// tracker knows which events are on their way and how far each partition is: all below its position is behind it, and
// is counted exactly once, when the position passes it.
type tracker struct {
	mu     sync.Mutex
	change *sync.Cond // a commit made room, or the run ends
	parts  []*part
	byKey  map[partition]*part
	last   *part // the one that was asked for last: events come in runs

	counts  Counts
	gone    int64
	begun   int64 // events handed out, of this run
	covered int64 // of those, the ones that positions have passed
	safe    int64 // of those, the ones that the last commit covers
	grant   int64 // how many may be begun past safe
	dirty   bool
	ended   bool
	// unbounded is set where nothing is committed, so that nothing can wait for it.
	unbounded bool
	plant     plant

	kick chan struct{} // half of the grant is covered: commit
}

func bySpan(a, b Span) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// newTracker returns a tracker that hands out up to window events past a commit, 0 is without bound.
func newTracker(spans []Span, counts Counts, window int64, p plant) *tracker {
	t := &tracker{
		counts: counts, byKey: map[partition]*part{}, kick: make(chan struct{}, 1), grant: min(minGrant, window),
		unbounded: window == 0 || p.noWindow, plant: p,
	}
	t.change = sync.NewCond(&t.mu)
	for _, s := range spans {
		pt := &part{Span: s, committed: s.Position}
		t.parts = append(t.parts, pt)
		t.byKey[partition{s.Topic, s.Partition}] = pt
	}
	slices.SortFunc(t.parts, func(a, b *part) int { return bySpan(a.Span, b.Span) })
	return t
}

// part is the event's. t.mu is held.
func (t *tracker) part(e *event.Event) *part {
	if t.last == nil || t.last.Partition != e.Partition || t.last.Topic != e.Topic {
		t.last = t.byKey[partition{e.Topic, e.Partition}]
	}
	return t.last
}

// begin hands out the event at an offset, once there is room past the last commit. It reports false when the run ends.
func (t *tracker) begin(e *event.Event) (p *part, n uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.ended && t.begun-t.safe >= t.grant && !t.unbounded {
		t.change.Wait()
	}
	if t.ended {
		return nil, 0, false
	}
	p = t.part(e)
	n = p.base + uint64(len(p.entries))
	p.entries = append(p.entries, entry{next: e.Offset + 1})
	t.begun++
	if t.plant.commitFirst {
		p.Position, t.dirty = e.Offset+1, true
	}
	return p, n, true
}

// takeBack forgets the event that was handed out last: nobody took it.
func (t *tracker) takeBack(p *part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.entries = p.entries[:len(p.entries)-1]
	t.begun--
}

// skip passes an event that is not handed out.
func (t *tracker) skip(e *event.Event, o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.part(e)
	t.dirty = true
	if n := len(p.entries); n > 0 {
		p.entries[n-1].next = e.Offset + 1
		p.entries[n-1].skips.count(o)
		return
	}
	p.Position = e.Offset + 1
	t.counts.count(o)
}

// lost passes offsets that were deleted before they were read.
func (t *tracker) lost(topic string, n int32, from int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.byKey[partition{topic, n}]; from > p.Position {
		t.gone += from - p.Position
		p.Position, t.dirty = from, true
	}
}

// resolve says what became of event n of p.
func (t *tracker) resolve(p *part, n uint64, o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := n - p.base
	p.entries[i].result = o
	if i > 0 {
		return
	}
	k := 0
	for ; k < len(p.entries) && p.entries[k].result != open; k++ {
		x := &p.entries[k]
		t.counts.count(x.result)
		t.counts.add(x.skips)
		p.Position = max(p.Position, x.next)
	}
	p.entries = p.entries[k:]
	p.base += uint64(k)
	t.covered += int64(k)
	t.dirty = true
	if t.covered-t.safe >= max(1, t.grant/2) {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

// finish moves every partition with nothing on its way to its end: the offsets that are left hold no events.
func (t *tracker) finish() (whole bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	whole = true
	for _, p := range t.parts {
		if len(p.entries) > 0 {
			whole = false
			continue
		}
		if p.Position != p.Until {
			p.Position, t.dirty = p.Until, true
		}
	}
	return whole
}

// end wakes whoever waits for room.
func (t *tracker) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.change.Broadcast()
}

// minGrant is what a run begins with, and what the slowest target is given.
const minGrant = 1000

// cut is what is committed: positions, counts, and how far the run may go until the next commit.
type cut struct {
	moved   []Span
	all     []Span
	counts  Counts
	gone    int64
	covered int64
	grant   int64
}

// cut takes a snapshot. The grant is twice what was covered since the last one, and never so small that it would
// forbid what was begun meanwhile: it is written with the commit, as the bound of what may follow it.
func (t *tracker) cut(window int64) cut {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := cut{counts: t.counts, gone: t.gone, covered: t.covered}
	c.grant = min(max(2*(t.covered-t.safe), min(minGrant, window)), window)
	c.grant = max(c.grant, t.safe+t.grant-t.covered)
	for _, p := range t.parts {
		c.all = append(c.all, p.Span)
		if p.Position != p.committed {
			c.moved = append(c.moved, p.Span)
		}
	}
	t.dirty = false
	return c
}

// committed makes room for what follows.
func (t *tracker) committed(c cut) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range c.moved {
		p := t.byKey[partition{s.Topic, s.Partition}]
		p.committed = s.Position
	}
	t.safe, t.grant = c.covered, c.grant
	t.change.Broadcast()
}

func (t *tracker) isDirty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dirty
}

func (t *tracker) snapshot() (spans []Span, counts Counts, gone int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	spans = make([]Span, len(t.parts))
	for i, p := range t.parts {
		spans[i] = p.Span
	}
	return spans, t.counts, t.gone
}

// onTheWay is how many events are handed out that no position has passed.
func (t *tracker) onTheWay() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.begun - t.covered
}
