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
	lookSoon    = 2 * time.Second // after an assignment: by then what is new to the group is committed
	lookTimeout = 10 * time.Second
	lookAges    = 10 // partitions whose oldest event is read at most, a look
)

// Watch looks at the groups of the consumers every 15 seconds, and soon after an assignment, until ctx ends: for their
// lag in offsets and their members, which a consumer cannot tell by itself. It takes the permission Describe on the
// groups and their topics, which Read includes. What fails goes to c's log once, and to millrace_collect_failed.
func (m *Metrics) Watch(ctx context.Context, c kafka.Cluster) {
	log := c.Log
	if log == nil {
		log = zap.NewNop()
	}
	wait := time.NewTimer(lookSoon)
	defer wait.Stop()
	for failed := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			wait.Reset(lookSoon)
			continue
		case <-wait.C:
			wait.Reset(lookEvery)
		}
		err := m.look(ctx, c)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failed {
			log.Warn("metrics: lag and members are not known", zap.Error(err))
		}
		failed = err != nil
	}
}

// look asks once.
func (m *Metrics) look(ctx context.Context, c kafka.Cluster) error {
	all := m.watched()
	if len(all) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var errs []error
	for _, g := range all {
		if err := g.look(ctx, c); err != nil {
			errs = append(errs, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looked, m.failed = true, len(errs) > 0
	return errors.Join(errs...)
}

func (g *group) look(ctx context.Context, c kafka.Cluster) error {
	described, err := groups.Describe(ctx, c, g.name)
	switch {
	case errors.Is(err, groups.ErrNotFound):
		return nil // nobody has joined yet
	case err != nil:
		return fmt.Errorf("look at group %s: %w", g.name, err)
	}
	whole := described[0]
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
