package replay

import (
	"context"
	"time"
)

const (
	// maxLag is how far the pace may fall behind and still catch up. What is more is lost for good: a target that stood
	// still for an hour is not given an hour's events at once.
	maxLag = time.Second
	// rateCredit is how much of Rate that was not used may be used later: less than anybody would call a burst, and
	// more than a timer is late.
	rateCredit = 20 * time.Millisecond
)

// pacer makes a schedule of events, counted from the first. It sleeps to the schedule and not from event to event, so
// that what each sleep is late does not add up.
type pacer struct {
	speed float64
	slot  time.Duration // between two events by Rate, 0 is none

	began   bool
	latest  time.Time     // of the events so far: time runs once
	at      time.Duration // when the latest event was due by its time
	next    time.Duration // when the next one may begin by Rate
	start   time.Time
	slipped time.Duration
	timer   *time.Timer
}

func newPacer(cfg Config) *pacer {
	p := &pacer{speed: cfg.Speed}
	if cfg.Rate > 0 {
		p.slot = time.Duration(float64(time.Second) / cfg.Rate)
	}
	return p
}

// paced reports whether there is anything to wait for.
func (p *pacer) paced() bool { return p.speed > 0 || p.slot > 0 }

// due is when an event of time t is to begin, after the first one.
func (p *pacer) due(t time.Time) time.Duration {
	if !p.began {
		p.began, p.latest = true, t
	}
	if p.speed > 0 && t.After(p.latest) {
		p.at += time.Duration(float64(t.Sub(p.latest)) / p.speed)
		p.latest = t
	}
	due := p.at
	if p.slot > 0 {
		due = max(due, p.next)
		p.next = due + p.slot
	}
	return due
}

// wait returns when an event of time t is due, or when ctx ends.
func (p *pacer) wait(ctx context.Context, t time.Time) error {
	if p.start.IsZero() {
		p.start = time.Now()
	}
	now := time.Since(p.start)
	if p.slot > 0 {
		p.next = max(p.next, now-rateCredit)
	}
	due := p.due(t)
	if lag := now - due; lag > maxLag && p.speed > 0 {
		p.start = p.start.Add(lag)
		p.next = max(0, p.next-lag)
		p.slipped += lag
	}
	if due <= now {
		return nil
	}
	if p.timer == nil {
		p.timer = time.NewTimer(due - now)
	} else {
		p.timer.Reset(due - now)
	}
	select {
	case <-p.timer.C:
		return nil
	case <-ctx.Done():
		p.timer.Stop()
		return ctx.Err() //nolint:wrapcheck // the end of a wait
	}
}
