package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/groups"
)

// hearMost is how long a consumer waits at start for what it was told before it joins: a member that joins a paused group
// would stand in the way of who paused it. A cluster that is silent for so long must not keep it from its work.
const hearMost = 5 * time.Second

// pauses is what the groups of this service were told last.
type pauses struct {
	now   func() time.Time
	log   *zap.Logger
	stats *stats

	groups []string // those that matter; fixed once the author's function has returned

	mu      sync.Mutex
	told    map[string]groups.Control
	changed chan struct{} // closed at the next change
	heard   chan struct{} // closed once what stood in the topic is known
	once    sync.Once
}

func newPauses(now func() time.Time, log *zap.Logger, stats *stats) *pauses {
	return &pauses{now: now, log: log, stats: stats, told: map[string]groups.Control{}, changed: make(chan struct{}), heard: make(chan struct{})}
}

// pausable is consume for a group that may be told to pause.
func (s *Service) pausable(group string, consume func(context.Context) error) func(context.Context) error {
	if s.pauses == nil {
		s.pauses = newPauses(time.Now, s.Log, s.stats)
	}
	s.pauses.groups = append(s.pauses.groups, group)
	return func(ctx context.Context) error { return s.pauses.run(ctx, group, consume) }
}

// listenForPauses begins to listen, until stop is called.
func (s *Service) listenForPauses(ctx context.Context) (stop func()) {
	if s.pauses == nil {
		return func() {}
	}
	ctx, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { groups.FollowControl(ctx, s.Cluster, s.Log, s.pauses.matters, s.pauses.hear) })
	return func() { end(); wg.Wait() }
}

func (p *pauses) matters(group string) bool { return slices.Contains(p.groups, group) }

// hear takes what was told.
func (p *pauses) hear(news []groups.Control) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, told := range news {
		p.told[told.Group] = told
	}
	if len(news) > 0 {
		close(p.changed)
		p.changed = make(chan struct{})
	}
	p.once.Do(func() { close(p.heard) })
}

// look returns what group was told, and what is closed once that may have changed.
func (p *pauses) look(group string) (groups.Control, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told[group], p.changed
}

// run consumes whenever no pause holds, until ctx ends or consume does by itself.
func (p *pauses) run(ctx context.Context, group string, consume func(context.Context) error) error {
	first := time.NewTimer(hearMost)
	defer first.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-p.heard:
	case <-first.C:
	}
	for {
		if !p.wait(ctx, group) {
			return nil
		}
		stopped, err := p.consume(ctx, group, consume)
		if errors.Is(err, context.Canceled) && stopped {
			err = nil // asked to stop while it was starting
		}
		if err != nil || !stopped {
			return err
		}
	}
}

// wait returns once no pause holds: false when ctx has ended first.
func (p *pauses) wait(ctx context.Context, group string) bool {
	waited := false
	for ctx.Err() == nil {
		told, changed := p.look(group)
		now := p.now()
		if !told.Holds(now) {
			if waited {
				p.log.Info("the group goes on", zap.String("group", group), zap.Bool("told", told.State == groups.Running))
			}
			p.stats.resume(group)
			return true
		}
		waited = true
		p.stats.pause(told)
		end := time.NewTimer(told.Until.Sub(now))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-end.C:
		}
		end.Stop()
	}
	return false
}

// consume runs consume until a pause holds: then it stops it in order, and stopped is true.
func (p *pauses) consume(ctx context.Context, group string, consume func(context.Context) error) (stopped bool, err error) {
	running, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			told, changed := p.look(group)
			if told.Holds(p.now()) {
				p.log.Info("the group is paused", zap.String("group", group), zap.String("by", told.By), zap.Time("until", told.Until))
				p.stats.pause(told)
				stopped = true
				stop()
				return
			}
			select {
			case <-running.Done():
				return
			case <-changed:
			}
		}
	})
	err = consume(running)
	stop()
	watch.Wait()
	return stopped && ctx.Err() == nil, err
}
