package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
)

// What readiness is judged by.
const (
	checkEvery   = 10 * time.Second // between two questions to the cluster and the registry
	checkTimeout = 5 * time.Second
	awayAfter    = 30 * time.Second // what fails for so long is away; before that it is a hiccup
	forgetAfter  = time.Minute      // a problem that is not heard of again is over
	spareAfter   = 15 * time.Second // in the group and without a partition for so long: there are more members than partitions
)

// health knows whether the service can do its work.
type health struct {
	now   func() time.Time
	phase func() string // of Status.State
	// paused reports whether a group was told to pause: what it lacks then, it is not to have. Nil is never.
	paused func(group string) bool

	mu     sync.Mutex
	checks map[string]*failing // by what is asked: the cluster, the registry
	roles  []*membership
}

// failing is a row of failures without a success between them.
type failing struct{ since, last time.Time }

func (f *failing) again(now time.Time) {
	if f.since.IsZero() || now.Sub(f.last) > forgetAfter {
		f.since = now
	}
	f.last = now
}

// away reports whether the row is long, and goes on.
func (f *failing) away(now time.Time) bool {
	return !f.since.IsZero() && now.Sub(f.since) >= awayAfter && now.Sub(f.last) <= forgetAfter
}

func newHealth(now func() time.Time, phase func() string) *health {
	return &health{now: now, phase: phase, checks: map[string]*failing{}}
}

// missing is why the service is not ready, nothing when it is. It names no cause: that is in the log.
func (h *health) missing() []string {
	if phase := h.phase(); phase != "running" {
		return []string{"the service is " + phase}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	var out []string
	for name, f := range h.checks {
		if f.away(now) {
			out = append(out, fmt.Sprintf("%s does not answer since %s", name, f.since.UTC().Format(time.RFC3339)))
		}
	}
	slices.Sort(out)
	for _, m := range h.roles {
		if h.paused != nil && h.paused(m.group) {
			continue
		}
		out = append(out, m.missing(now)...)
	}
	return out
}

// asked notes what a check said.
func (h *health) asked(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.checks, name)
		return
	}
	if h.checks[name] == nil {
		h.checks[name] = &failing{}
	}
	h.checks[name].again(h.now())
}

// consumer returns the health of a consumer of group, to be made an observer of it and a hook of its clients.
func (h *health) consumer(group string) *membership {
	m := &membership{h: h, group: group, problems: map[cursor.ID]*failing{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.roles = append(h.roles, m)
	return m
}

// membership is what a consumer tells of its health. It is under the lock of h.
type membership struct {
	consumer.Silent
	h     *health
	group string

	assigned bool // partitions, once
	first    time.Time
	last     time.Time // heartbeat that the group's coordinator answered
	commits  failing
	problems map[cursor.ID]*failing
}

var (
	_ consumer.Observer = (*membership)(nil)
	_ kgo.HookBrokerE2E = (*membership)(nil)
)

func (m *membership) missing(now time.Time) []string {
	var out []string
	spare := !m.first.IsZero() && m.last.Sub(m.first) >= spareAfter && now.Sub(m.last) < spareAfter
	if !m.assigned && !spare {
		out = append(out, fmt.Sprintf("group %s has assigned no partitions yet", m.group))
	}
	if m.commits.away(now) {
		out = append(out, fmt.Sprintf("group %s takes no commits since %s", m.group, m.commits.since.UTC().Format(time.RFC3339)))
	}
	var places []string
	for id, f := range m.problems {
		if f.away(now) {
			places = append(places, fmt.Sprintf("%s stands still since %s", m.place(id), f.since.UTC().Format(time.RFC3339)))
		}
	}
	slices.Sort(places)
	return append(out, places...)
}

func (m *membership) place(id cursor.ID) string {
	if id.Topic == "" {
		return "group " + m.group
	}
	return fmt.Sprintf("%s/%d", id.Topic, id.Partition)
}

// Assigned implements [consumer.Observer].
func (m *membership) Assigned(map[cursor.ID]int64) {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	m.assigned = true
}

// Revoked implements [consumer.Observer].
func (m *membership) Revoked(ids []cursor.ID, _ bool) {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	for _, id := range ids {
		delete(m.problems, id)
	}
}

// Handled implements [consumer.Observer].
func (m *membership) Handled(id cursor.ID, resolved, _ int, _ time.Duration) {
	if resolved == 0 {
		return
	}
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	delete(m.problems, id)
}

// Committed implements [consumer.Observer].
func (m *membership) Committed(_ int, _ time.Duration, err error) {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	if err == nil {
		m.commits = failing{}
		return
	}
	m.commits.again(m.h.now())
}

// Problem implements [consumer.Observer].
func (m *membership) Problem(id cursor.ID, _ error) {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	if m.problems[id] == nil {
		m.problems[id] = &failing{}
	}
	m.problems[id].again(m.h.now())
}

// OnBrokerE2E implements [kgo.HookBrokerE2E]: only a member sends heartbeats, also one that was assigned nothing, of
// which the engine hears nothing.
func (m *membership) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	const heartbeat, consumerGroupHeartbeat = 12, 68
	if key != heartbeat && key != consumerGroupHeartbeat || e2e.Err() != nil {
		return
	}
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	now := m.h.now()
	if m.first.IsZero() || now.Sub(m.last) > spareAfter {
		m.first = now
	}
	m.last = now
}

// watch asks the cluster and the registry until ctx ends, and logs when readiness changes.
func (h *health) watch(ctx context.Context, c kafka.Cluster, reg func() *schemas.Registry, log *zap.Logger) {
	c.Log, c.Hooks = nil, nil // what goes wrong here is said once, below
	client, err := c.Client()
	if err != nil {
		log.Error("the cluster's health is not watched", zap.Error(err))
		return
	}
	defer client.Close()
	ready, began := true, h.now() // to begin with, the service may take its time
	ask := func(name string, question func(ctx context.Context) error) error {
		asking, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		err := question(asking)
		if ctx.Err() == nil {
			h.asked(name, err)
		}
		return err
	}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		var away, unknown error
		var wg sync.WaitGroup
		wg.Go(func() { away = ask("the cluster", client.Ping) })
		wg.Go(func() { unknown = ask("the registry", func(ctx context.Context) error { return answers(ctx, reg()) }) })
		wg.Wait()
		if h.phase() == "running" {
			missing := h.missing()
			switch now := len(missing) == 0; {
			case now && !ready:
				log.Info("the service is ready again")
				ready = true
			case !now && ready && h.now().Sub(began) >= awayAfter:
				log.Warn("the service is not ready", zap.Strings("because", missing), zap.Error(errors.Join(away, unknown)))
				ready = false
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// answers is nil when the registry answers, whatever it says: a subject that is not there is an answer, and a short one.
func answers(ctx context.Context, reg *schemas.Registry) error {
	if _, err := reg.Versions(ctx, "millrace-health"); errors.Is(err, schemas.ErrUnavailable) {
		return err
	}
	return nil
}
