package metrics

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/groups"
)

// group is the observer of the consumers of a group in this process.
type group struct {
	m     *Metrics
	name  string
	label string
	own   bool // label is name

	commits, failedCommits prometheus.Observer
	problems               prometheus.Counter
	attempts               table[attempt, series]
	consumed               table[string, prometheus.Counter]

	mu      sync.Mutex
	held    map[place]*standing
	sources map[string]bool // topics with a label that partitions were assigned of, and may be given up since
	members int             // of the whole group at the last look, -1 before
	state   groups.State    // the same, "" before
}

// place is a partition. A topic that was made anew has its place: nobody holds both.
type place struct {
	topic     string
	partition int32
}

// standing is where a partition stands that this member holds.
type standing struct {
	topic string // as a label
	own   bool

	quiet int       // how many times its lag was told since it was assigned and no commit failed
	head  time.Time // timestamp of the oldest event in the handler's hands; zero when there is none
	next  time.Time // timestamp of the event at the position, from the last look; zero when that was not needed

	looked    bool  // what follows is known
	committed bool  // the group has a position here
	lag       int64 // in offsets
}

// attempt names what an attempt is counted under.
type attempt struct {
	topic, handler string
	kind           consumer.Kind
}

type series struct {
	events prometheus.Counter
	took   prometheus.Observer
}

// verdicts are the fixed set of verdicts as label values: those of the verdict, and of error_type.
var verdicts = map[consumer.Kind][2]string{
	consumer.Done: {"done", ""}, consumer.Dropped: {"dropped", ""}, consumer.Retried: {"retry", "retry"},
	consumer.DeadLettered: {"dead_letter", "dead_letter"}, consumer.Paused: {"pause", "pause"}, consumer.Stopped: {"stop", "stop"},
}

// Consumer returns what watches the consumers of a group: all of the group in this process share it.
func (m *Metrics) Consumer(name string) consumer.Observer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g, ok := m.groups[name]; ok {
		return g
	}
	g := &group{m: m, name: name, label: name, own: true, held: map[place]*standing{}, sources: map[string]bool{}, members: -1}
	if _, own := (&bound{most: 1, seen: map[string]bool{}}).label(name); !own || len(m.groups) >= maxGroups {
		g.label, g.own = Other, false
	} else {
		m.groups[name] = g
	}
	g.commits = m.operations.WithLabelValues("commit", "", g.label, "")
	g.failedCommits = m.operations.WithLabelValues("commit", "", g.label, "failed")
	g.problems = m.problems.WithLabelValues(g.label)
	for _, event := range []string{"assigned", "revoked", "lost"} {
		m.rebalances.WithLabelValues(g.label, event)
	}
	return g
}

// Attempted implements [consumer.Observer].
func (g *group) Attempted(id cursor.ID, handler string, kind consumer.Kind, n int, took time.Duration) {
	s, ok := g.attempts.get(attempt{id.Topic, handler, kind})
	if !ok {
		s = g.attempted(attempt{id.Topic, handler, kind})
	}
	s.events.Add(float64(n))
	s.took.Observe(took.Seconds())
}

func (g *group) attempted(a attempt) series {
	topic, ownTopic := g.m.topics.label(a.topic)
	handler, ownHandler := g.m.handlers.label(a.handler)
	v, known := verdicts[a.kind]
	if !known {
		v = [2]string{Other, Other}
	}
	s := series{
		g.m.events.WithLabelValues(g.label, topic, handler, v[0]),
		g.m.processing.WithLabelValues("process", topic, g.label, v[1]),
	}
	if !ownTopic || !ownHandler || !known {
		return s
	}
	return g.attempts.put(a, s)
}

// DeadLettered implements [consumer.Observer].
func (g *group) DeadLettered(id cursor.ID, _, class string) {
	topic, _ := g.m.topics.label(id.Topic)
	if !slices.Contains(classes, class) {
		class = Other
	}
	g.m.deadLetters.WithLabelValues(topic, g.label, class).Inc()
}

// classes are the error classes of dead letters.
var classes = []string{
	string(deadletter.Poison), string(deadletter.Incompatible), string(deadletter.Handler), string(deadletter.Panic),
	string(deadletter.Timeout), string(deadletter.Rejected), string(deadletter.Refused),
}

// Assigned implements [consumer.Observer].
func (g *group) Assigned(start map[cursor.ID]int64) {
	g.m.rebalances.WithLabelValues(g.label, "assigned").Inc()
	g.mu.Lock()
	for id := range start {
		topic, own := g.m.topics.label(id.Topic)
		g.held[place{id.Topic, id.Partition}] = &standing{topic: topic, own: own}
		if own {
			g.sources[id.Topic] = true
		}
		for _, class := range classes {
			g.m.deadLetters.WithLabelValues(topic, g.label, class) // from 0: the first dead letter is an increase
		}
	}
	g.mu.Unlock()
	g.m.lookSoon()
}

// Revoked implements [consumer.Observer].
func (g *group) Revoked(ids []cursor.ID, lost bool) {
	event := "revoked"
	if lost {
		event = "lost"
	}
	g.m.rebalances.WithLabelValues(g.label, event).Inc()
	g.mu.Lock()
	for _, id := range ids {
		delete(g.held, place{id.Topic, id.Partition})
	}
	g.mu.Unlock()
	g.m.lookSoon()
}

// Handled implements [consumer.Observer].
func (g *group) Handled(id cursor.ID, resolved, _ int, _ time.Duration) {
	if resolved == 0 {
		return
	}
	c, ok := g.consumed.get(id.Topic)
	if !ok {
		topic, own := g.m.topics.label(id.Topic)
		if c = g.m.consumed.WithLabelValues("process", topic, g.label); own {
			c = g.consumed.put(id.Topic, c)
		}
	}
	c.Add(float64(resolved))
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.held[place{id.Topic, id.Partition}]; s != nil {
		s.next = time.Time{} // the position moves
	}
}

// Committed implements [consumer.Observer].
func (g *group) Committed(_ int, took time.Duration, err error) {
	if err == nil {
		g.commits.Observe(took.Seconds())
		return
	}
	g.failedCommits.Observe(took.Seconds())
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.held {
		if s.quiet < shown {
			s.quiet = 0
		}
	}
}

// shown is how many times in a row a lag must be told, with no commit that fails in between, before there is a series:
// a partition that is new to the group has no commit before, and so no lag.
const shown = 2

// Lag implements [consumer.Observer]. The offsets are not used: they count from the end of the log as the last poll saw
// it, which stands still where the handler does.
func (g *group) Lag(id cursor.ID, _ int64, age time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.held[place{id.Topic, id.Partition}]
	if s == nil {
		return
	}
	s.quiet = min(s.quiet+1, shown)
	s.head = time.Time{}
	if age > 0 {
		s.head = g.m.now().Add(-age)
	}
}

// Problem implements [consumer.Observer].
func (g *group) Problem(cursor.ID, error) { g.problems.Inc() }
