package producer

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
)

// call is one Publish: its events and their ends.
type call struct {
	producer *Producer
	events   []event.Event // the caller's, not changed
	slots    []slot        // one per event
	now      time.Time     // the time of events that have none
	began    time.Time     // set when an observer wants to know

	pending atomic.Int64
	failed  atomic.Bool
	done    chan struct{} // closed when pending is 0
}

// slot is an event of a call. A Publish whose context ends reads it while answers still arrive: err and the record
// are read only where settled is set.
type slot struct {
	item
	call    *call
	promise promise
	err     error
	settled atomic.Bool
}

func (p *Producer) newCall(events []event.Event, slots []slot) *call {
	c := &call{producer: p, events: events, slots: slots, done: make(chan struct{})}
	for i := range slots {
		s := &slots[i]
		s.item, s.call, s.err = item{}, c, nil
		s.settled.Store(false)
		if s.promise == nil {
			s.promise = s.answer
		}
	}
	c.pending.Store(int64(len(events)))
	if p.cfg.Observer != nil {
		c.began = time.Now()
	}
	return c
}

// answer is the record's promise: the client calls it once.
func (s *slot) answer(_ *kgo.Record, err error) {
	l, size := s.call.producer.limit, s.size // when the last one is settled, the slot may be used again
	s.settle(err)
	l.release(size)
}

// settle is called once.
func (s *slot) settle(err error) {
	c := s.call
	if err != nil {
		s.err = err
		c.failed.Store(true)
	}
	s.settled.Store(true)
	if c.pending.Add(-1) == 0 {
		close(c.done)
	}
}

// refuse settles all slots with err.
func (c *call) refuse(err error) {
	for i := range c.slots {
		s := &c.slots[i]
		s.record.Topic, s.record.Partition = c.events[i].Topic, -1
		s.settle(err)
	}
}

// end is the call's result. What has no answer yet is unknown.
func (c *call) end(ctx context.Context) error {
	p := c.producer
	if c.pending.Load() == 0 && !c.failed.Load() {
		if p.cfg.Observer != nil {
			took := time.Since(c.began)
			for i := range c.slots {
				p.cfg.Observer.Published(c.slots[i].record.Topic, Acked, int(c.slots[i].size), took)
			}
		}
		return nil
	}
	results := make([]Result, len(c.slots))
	good := 0
	for i := range c.slots {
		s, r := &c.slots[i], &results[i]
		*r = Result{Event: c.events[i], Topic: s.record.Topic, Partition: -1, Offset: -1}
		if r.Event.Time.IsZero() {
			r.Event.Time = c.now
		}
		if r.Event.Source == "" {
			r.Event.Source = p.cfg.Source
		}
		if s.settled.Load() {
			r.Err = p.judge(&s.item, s.err)
		} else {
			r.Err = p.unanswered(ctx)
		}
		switch r.Outcome = outcomeOf(r.Err); {
		case r.Outcome != Acked && s.claimed:
			event.Unclaim(ctx, &r.Event)
		case r.Outcome == Acked && r.Topic != "":
			r.Partition, r.Offset = s.record.Partition, s.record.Offset
		}
		if r.Outcome == Acked {
			good++
		}
		if p.cfg.Observer != nil {
			p.cfg.Observer.Published(r.Topic, r.Outcome, int(s.size), time.Since(c.began))
		}
	}
	if good == len(results) {
		return nil // the last answers came meanwhile
	}
	return &Error{Results: results}
}

// asyncItem is an event of PublishAsync.
type asyncItem struct {
	item
	slab     *slab
	promise  promise
	producer *Producer
	event    event.Event
	done     func(event.Event, error)
	began    time.Time // set when an observer wants to know
}

// answer is the record's promise: the client calls it once.
func (a *asyncItem) answer(r *kgo.Record, err error) {
	p, size := a.producer, a.size // after its end the item may be used again
	a.end(r.Context, err)
	p.limit.release(size)
}

// end judges the item and tells its publisher. ctx carries the attempt that claimed the id.
func (a *asyncItem) end(ctx context.Context, err error) {
	p := a.producer
	err = p.judge(&a.item, err)
	if err == nil && a.record.Topic != "" {
		a.event.Partition, a.event.Offset = a.record.Partition, a.record.Offset
	}
	if err != nil && a.claimed {
		event.Unclaim(ctx, &a.event)
	}
	if p.cfg.Observer != nil {
		p.cfg.Observer.Published(a.record.Topic, outcomeOf(err), int(a.size), time.Since(a.began))
	}
	if a.done != nil {
		a.done(a.event, err)
	}
	if err == nil {
		p.leave(a.slab)
	}
}

// reset makes a used item a new one.
func (a *asyncItem) reset(p *Producer, e event.Event, done func(event.Event, error)) {
	a.item, a.producer, a.event, a.done = item{}, p, e, done
}

// refuse ends an event of PublishAsync that never became an item.
func (p *Producer) refuse(e event.Event, done func(event.Event, error), err error) {
	if p.cfg.Observer != nil {
		p.cfg.Observer.Published(e.Topic, Rejected, 0, 0)
	}
	if done != nil {
		done(e, err)
	}
}
