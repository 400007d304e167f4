package replay

import (
	"context"
	"sync"

	"github.com/millrace/millrace/event"
)

// pipeline sends events without waiting for each. It remembers, in order, those that are not answered and those behind
// them: when one fails, nothing more is sent until all are answered, and then it and what followed it with the same
// key are delivered one by one.
type pipeline struct {
	r                *runner
	target           Pipelined
	reading, working context.Context //nolint:containedctx // of the run that the pipeline is a part of

	mu       sync.Mutex
	change   *sync.Cond
	sent     []*sent // in order, from the first that is not acknowledged
	waiting  int     // of those, without an answer
	mending  bool
	free     []*sent
	finished sync.WaitGroup
}

// sent is an event that was handed to the target.
type sent struct {
	item
	pipeline *pipeline
	done     func(event.Event, error)
	answered bool
	err      error
}

func newPipeline(reading, working context.Context, r *runner, t Pipelined) *pipeline {
	p := &pipeline{r: r, target: t, reading: reading, working: working}
	p.change = sync.NewCond(&p.mu)
	context.AfterFunc(reading, p.wake)
	context.AfterFunc(working, p.wake)
	return p
}

func (p *pipeline) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change.Broadcast()
}

func (p *pipeline) take(e *event.Event, pt *part, n uint64) bool {
	p.mu.Lock()
	for p.mending && p.reading.Err() == nil {
		p.change.Wait()
	}
	if p.reading.Err() != nil {
		p.mu.Unlock()
		return false
	}
	s := p.next()
	s.event, s.part, s.n = *e, pt, n
	p.sent = append(p.sent, s)
	p.waiting++
	p.mu.Unlock()
	p.target.Send(p.working, *e, s.done)
	return true
}

// next is a sent to fill, with its promise. p.mu is held.
func (p *pipeline) next() *sent {
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		return s
	}
	s := &sent{pipeline: p}
	s.done = s.answer
	return s
}

// answer is the target's, from any goroutine.
func (s *sent) answer(_ event.Event, err error) {
	p := s.pipeline
	if err == nil {
		p.r.track.resolve(s.part, s.n, delivered)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.answered, s.err = true, err
	p.waiting--
	if err != nil && !p.mending && p.working.Err() == nil {
		p.mending = true
		p.finished.Go(p.mend)
	}
	k := 0
	for ; k < len(p.sent) && p.sent[k].answered && p.sent[k].err == nil; k++ {
		x := p.sent[k]
		x.answered, x.event.Value, x.event.Key, x.event.Headers = false, nil, nil, nil
		p.free = append(p.free, x)
	}
	p.sent = p.sent[k:]
	if p.waiting == 0 {
		p.change.Broadcast()
	}
}

// settled waits until everything that was sent is answered, or abandoned.
func (p *pipeline) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.waiting > 0 && p.working.Err() == nil {
		p.change.Wait()
	}
	return p.waiting == 0
}

// mend delivers what failed, and behind it what was sent later with the same key: it has overtaken. What failed counts
// as behind only once all of that is done, so that a run that ends meanwhile is followed by one that begins with it.
func (p *pipeline) mend() {
	if !p.settled() {
		return
	}
	p.mu.Lock()
	left := p.sent
	p.sent = nil
	p.mu.Unlock()
	late := map[uint64]bool{}
	outcomes := make([]outcome, len(left))
	for i, s := range left {
		lane := laneOf(&s.event)
		switch {
		case s.err == nil && (!late[lane] || s.event.Key == nil):
			continue
		case s.err == nil:
			p.r.again.Add(1)
			if p.r.deliver(p.reading, p.working, &s.item, nil, 1) == open {
				return
			}
			continue
		}
		o := p.r.deliver(p.reading, p.working, &s.item, s.err, 1)
		if o == open {
			return
		}
		outcomes[i] = o
		late[lane] = late[lane] || o == delivered
	}
	for i, s := range left {
		if s.err != nil {
			p.r.track.resolve(s.part, s.n, outcomes[i])
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mending = false
	p.change.Broadcast()
}

func (p *pipeline) end() {
	p.settled()
	p.finished.Wait()
}
