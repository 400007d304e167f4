package main

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
)

// tracedMost bounds how many records a trace holds.
const tracedMost = 10_000

// spot is a record, and where the groups that read its topic stand.
type spot struct {
	topic     string
	partition int32
	offset    int64
	published time.Time
	groups    []groupState
}

func (s spot) order(o spot) int {
	return cmp.Or(s.published.Compare(o.published), cmp.Compare(s.topic, o.topic), cmp.Compare(s.partition, o.partition), cmp.Compare(s.offset, o.offset))
}

// traced is one event of a chain.
type traced struct {
	spot
	seen    bool // false: it was not read, and only a dead letter tells of it
	id      string
	cause   string // id of the event that led to it, "" for the first of a chain
	typ     string
	key     []byte
	copies  []spot // further records with the same id: published twice, put back, copied
	letters []letter
	depth   int // in the tree, from 0
}

// letter is where a group gave a record up.
type letter struct {
	spot
	origin             deadletter.Origin
	group, class, text string
}

// chain is what is known of one correlation while it is read.
type chain struct {
	asked string // the id that somebody wants to know about
	root  string // the first event of its chain: asked itself, until it is known to be another
	byID  map[string]*traced
	count int // records, copies and dead letters included
}

func newChain(asked, root string) *chain {
	return &chain{asked: asked, root: root, byID: map[string]*traced{}}
}

// match chooses the records of the chain. Nothing is decoded.
func (c *chain) match(e *event.Event) (bool, error) {
	if e.ID == c.root || e.ID == c.asked {
		return true, nil
	}
	for _, h := range e.Headers {
		if h.Key == event.HeaderCorrelation && string(h.Value) == c.root || h.Key == event.HeaderCause && string(h.Value) == c.asked {
			return true, nil
		}
	}
	return false, nil
}

// otherRoot is the correlation that a record of the chain names instead of the root: the event that was asked for is
// no first one, and the chain is to be read again from there.
func (c *chain) otherRoot(e *event.Event) (string, bool) {
	root := string(e.Headers.Get(event.HeaderCorrelation))
	return root, c.root == c.asked && root != "" && root != c.root
}

// add takes a record that matches, without what would keep its batch in memory.
func (c *chain) add(e *event.Event) {
	c.count++
	at := spot{topic: e.Topic, partition: e.Partition, offset: e.Offset, published: e.Published}
	t := c.byID[e.ID]
	if t == nil {
		t = &traced{
			id: strings.Clone(e.ID), cause: string(e.Headers.Get(event.HeaderCause)), typ: strings.Clone(e.Type), key: bytes.Clone(e.Key),
		}
		c.byID[t.id] = t
	}
	dead, ok := deadletter.Parse(*e)
	switch {
	case ok:
		l := letter{spot: at, origin: dead.Origin, group: strings.Clone(dead.Group), class: strings.Clone(string(dead.Class))}
		l.origin.Topic = strings.Clone(l.origin.Topic)
		if dead.Err != nil {
			l.text = strings.Clone(dead.Err.Error())
		}
		t.letters = append(t.letters, l)
		if !t.seen { // it stands where the letter says, until it is read itself
			t.spot = spot{topic: l.origin.Topic, partition: l.origin.Partition, offset: l.origin.Offset, published: l.origin.Published}
		}
	case !t.seen:
		t.spot, t.seen = at, true
	default: // the first by time is the event: partitions are read side by side
		if at.order(t.spot) < 0 {
			at, t.spot = t.spot, at
		}
		t.copies = append(t.copies, at)
		slices.SortFunc(t.copies, spot.order)
	}
}

// tree is every event behind the one that led to it, each level by time.
func (c *chain) tree() []*traced {
	var first []*traced
	effects := map[string][]*traced{}
	for _, t := range c.byID {
		if _, known := c.byID[t.cause]; known && t.cause != t.id {
			effects[t.cause] = append(effects[t.cause], t)
		} else {
			first = append(first, t)
		}
	}
	early := func(a, b *traced) int { return a.order(b.spot) }
	for _, of := range effects {
		slices.SortFunc(of, early)
	}
	slices.SortFunc(first, early)
	var out []*traced
	placed := map[string]bool{}
	grow := func(roots []*traced) {
		stack := slices.Clone(roots)
		slices.Reverse(stack)
		for len(stack) > 0 {
			t := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if placed[t.id] {
				continue
			}
			placed[t.id] = true
			out = append(out, t)
			for _, e := range slices.Backward(effects[t.id]) {
				e.depth = t.depth + 1
				stack = append(stack, e)
			}
		}
	}
	grow(first)
	if len(out) < len(c.byID) { // headers can say that two events led to each other
		var rest []*traced
		for _, t := range c.byID {
			if !placed[t.id] {
				t.depth = 0
				rest = append(rest, t)
			}
		}
		slices.SortFunc(rest, early)
		grow(rest)
	}
	return out
}
