package metrics

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
)

const (
	lookEvery   = 15 * time.Second
	lookSoon    = 2 * time.Second // after a rebalance: by then what is new to the group is committed
	lookTimeout = 10 * time.Second
	lookAges    = 10 // partitions whose oldest event is read at most, a look
)

// Watch looks at the groups of the consumers every 15 seconds, and soon after a rebalance, until ctx ends: for their
// lag in offsets, their members and their state, which a consumer cannot tell by itself, and for what lies in their dead
// letters. It takes the permission Describe on the groups and their topics, which Read includes, and on the dead letters,
// which Write includes. What fails goes to c's log once, and to millrace_collect_failed.
func (m *Metrics) Watch(ctx context.Context, c kafka.Cluster) {
	log := c.Log
	if log == nil {
		log = zap.NewNop()
	}
	wait := time.NewTimer(lookSoon)
	defer wait.Stop()
	soon := true // it is, already: assignments without end must not put the look off without end
	for failed := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			if !soon {
				soon = true
				wait.Reset(lookSoon)
			}
			continue
		case <-wait.C:
			soon = false
			wait.Reset(lookEvery)
		}
		err := m.look(ctx, c)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failed {
			log.Warn("metrics: lag, members or dead letters are not known", zap.Error(err))
		}
		failed = err != nil
	}
}

// lookSoon wakes Watch.
func (m *Metrics) lookSoon() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// look asks once.
func (m *Metrics) look(ctx context.Context, c kafka.Cluster) error {
	return errors.Join(m.lookAtGroups(ctx, c), m.lookAtLetters(ctx, c))
}

func (m *Metrics) lookAtGroups(ctx context.Context, c kafka.Cluster) error {
	all := m.watched()
	if len(all) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var (
		errs  []error
		found []groups.Group
	)
	for _, g := range all {
		switch described, err := groups.Describe(ctx, c, g.name); {
		case errors.Is(err, groups.ErrNotFound): // nobody has joined yet
		case err != nil:
			errs = append(errs, fmt.Errorf("look at group %s: %w", g.name, err))
		default:
			found = append(found, described...)
			errs = append(errs, g.look(ctx, c, described[0]))
		}
	}
	m.looking.Lock()
	states := m.tracker.Observe(m.now(), found)
	m.looking.Unlock()
	for _, g := range all {
		g.judge(states[g.name])
	}
	err := errors.Join(errs...)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed["groups"] = err != nil
	return err
}

// look keeps what is to be known of the group.
func (g *group) look(ctx context.Context, c kafka.Cluster, whole groups.Group) error {
	whole.Partitions = g.note(whole)
	if len(whole.Partitions) == 0 {
		return nil
	}
	ages, err := groups.Ages(ctx, c, []groups.Group{whole}, lookAges)
	if err != nil {
		return fmt.Errorf("look at the oldest events of group %s: %w", g.name, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, t := range ages {
		if s := g.held[place{key.Topic, key.Partition}]; s != nil && s.head.IsZero() {
			s.next = t
		}
	}
	return nil
}

// judge keeps the state of the whole group; "" where it is not known.
func (g *group) judge(state groups.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = state
}

// note keeps the lag of the partitions that are held. It returns those that are behind although no handler has an event
// of them, because they cannot be read, or are not read yet: nobody but the log knows how old their oldest event is.
func (g *group) note(whole groups.Group) (unread []groups.Partition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = len(whole.Members)
	for _, p := range whole.Partitions {
		s := g.held[place{p.Topic, p.Partition}]
		if s == nil || p.Gone {
			continue
		}
		s.looked = true
		if s.lag, s.committed = p.Lag(); s.lag == 0 {
			s.next = time.Time{}
		} else if s.head.IsZero() {
			unread = append(unread, p)
		}
	}
	return unread
}
