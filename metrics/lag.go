package metrics

import (
	"maps"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/groups"
)

// lags collects where the groups stand: from what is known at the moment of the scrape, so that nothing stays of a
// partition that was given up.
type lags struct{ m *Metrics }

var (
	descLag = prometheus.NewDesc("kafka_consumergroup_lag",
		"Offsets that the group's position is behind the end of a partition that this member holds; absent without a commit.",
		[]string{labelGroup, labelTopic, labelPartition}, nil)
	descLagSum = prometheus.NewDesc("kafka_consumergroup_lag_sum",
		"The same, summed over the partitions of a topic that this member holds and the group has a position in.",
		[]string{labelGroup, labelTopic}, nil)
	descUncommitted = prometheus.NewDesc("millrace_consumergroup_uncommitted_partitions",
		"Partitions that this member holds and the group has no position in: they are in no lag.",
		[]string{labelGroup, labelTopic}, nil)
	descSeconds = prometheus.NewDesc("kafka_consumergroup_group_lag_seconds",
		"Age of the oldest event that is not resolved, of a partition that this member holds; 0 when caught up, absent without a commit.",
		[]string{labelGroup, labelTopic, labelPartition}, nil)
	descMaxSeconds = prometheus.NewDesc("kafka_consumergroup_group_max_lag_seconds",
		"The largest of these, over the partitions that this member holds.",
		[]string{labelGroup}, nil)
	descHeld = prometheus.NewDesc("millrace_consumergroup_partitions",
		"Partitions that this member holds.",
		[]string{labelGroup}, nil)
	descMembers = prometheus.NewDesc("kafka_consumergroup_members",
		"Members of the whole group.",
		[]string{labelGroup}, nil)
	descState = prometheus.NewDesc("millrace_consumergroup_state",
		"1 for the state of the whole group, judged by how its commits move: ok, warn (lag never falls), stall (position stands still), stop (no commits), rewind (position went back).",
		[]string{labelGroup, "state"}, nil)
	descFailed = prometheus.NewDesc("millrace_collect_failed",
		"1 when the last look failed, so that what it tells is old or absent: at the groups (lag, members and state), at the dead letters (dlq: depth and age).",
		[]string{"collector"}, nil)
)

// Describe implements [prometheus.Collector].
func (l *lags) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLag, descLagSum, descUncommitted, descSeconds, descMaxSeconds, descHeld, descMembers, descState, descFailed} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (l *lags) Collect(ch chan<- prometheus.Metric) {
	now := l.m.now()
	for _, g := range l.m.watched() {
		g.collect(ch, now)
	}
	l.m.mu.Lock()
	failed := maps.Clone(l.m.failed)
	l.m.mu.Unlock()
	for collector, failed := range failed {
		value := 0.0
		if failed {
			value = 1
		}
		gauge(ch, descFailed, value, collector)
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// watched are the groups that have a label of their own.
func (m *Metrics) watched() []*group {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*group, 0, len(m.groups))
	for _, g := range m.groups {
		out = append(out, g)
	}
	return out
}

func (g *group) collect(ch chan<- prometheus.Metric, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	type sum struct {
		lag                    int64
		committed, uncommitted int
	}
	sums := map[string]*sum{}
	longest, timed := time.Duration(0), false
	for p, s := range g.held {
		if !s.own {
			continue // its topic has no label
		}
		partition := strconv.Itoa(int(p.partition))
		if s.looked {
			t := sums[s.topic]
			if t == nil {
				t = &sum{}
				sums[s.topic] = t
			}
			if s.committed {
				t.committed++
				t.lag += s.lag
				gauge(ch, descLag, float64(s.lag), g.label, s.topic, partition)
			} else {
				t.uncommitted++
			}
		}
		if s.quiet == shown && (!s.looked || s.committed) {
			behind := s.behind(now)
			longest, timed = max(longest, behind), true
			gauge(ch, descSeconds, behind.Seconds(), g.label, s.topic, partition)
		}
	}
	for topic, t := range sums {
		gauge(ch, descUncommitted, float64(t.uncommitted), g.label, topic)
		if t.committed > 0 {
			gauge(ch, descLagSum, float64(t.lag), g.label, topic)
		}
	}
	if timed {
		gauge(ch, descMaxSeconds, longest.Seconds(), g.label)
	}
	gauge(ch, descHeld, float64(len(g.held)), g.label)
	if g.members >= 0 {
		gauge(ch, descMembers, float64(g.members), g.label)
	}
	if g.state != "" {
		for _, state := range states {
			value := 0.0
			if state == g.state {
				value = 1
			}
			gauge(ch, descState, value, g.label, string(state))
		}
	}
}

var states = []groups.State{groups.OK, groups.Warn, groups.Stall, groups.Stop, groups.Rewind}

// behind is how old the oldest event is that is not resolved.
func (s *standing) behind(now time.Time) time.Duration {
	oldest := s.head
	if oldest.IsZero() {
		oldest = s.next
	}
	if oldest.IsZero() {
		return 0
	}
	return max(0, now.Sub(oldest))
}
