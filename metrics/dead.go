package metrics

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/kafka"
)

// flow is a topic as a group reads it: both are labels of their own.
type flow struct{ group, topic string }

// letters collects what lies in the dead letters of the groups, as the last look saw it: a scrape asks nobody.
type letters struct{ m *Metrics }

var (
	descDepth = prometheus.NewDesc("millrace_dlq_depth",
		"Dead letters that lie in <topic>.<group>.dlq, of all members: take max. Absent where there is no such topic.",
		[]string{labelSource, labelGroup}, nil)
	descOldest = prometheus.NewDesc("millrace_dlq_oldest_message_age_seconds",
		"Age of the oldest of them, 0 when there is none.",
		[]string{labelSource, labelGroup}, nil)
)

// Describe implements [prometheus.Collector].
func (l *letters) Describe(ch chan<- *prometheus.Desc) {
	ch <- descDepth
	ch <- descOldest
}

// Collect implements [prometheus.Collector].
func (l *letters) Collect(ch chan<- prometheus.Metric) {
	now := l.m.now()
	l.m.mu.Lock()
	depths := l.m.depths // replaced as a whole
	l.m.mu.Unlock()
	for f, d := range depths {
		oldest := time.Duration(0)
		if !d.Oldest.IsZero() {
			oldest = max(0, now.Sub(d.Oldest))
		}
		gauge(ch, descDepth, float64(d.Letters), f.topic, f.group)
		gauge(ch, descOldest, oldest.Seconds(), f.topic, f.group)
	}
}

// lookAtLetters measures the dead letters of every topic that a group of this process was assigned partitions of: a
// member that has none at the moment, or is paused, still tells of them. What fails keeps what was seen before.
func (m *Metrics) lookAtLetters(ctx context.Context, c kafka.Cluster) error {
	flows := map[string]flow{}
	for _, g := range m.watched() {
		for _, topic := range g.sourcesOf() {
			if deadletter.Check(topic, g.name) == nil { // else it is no name of a topic
				flows[deadletter.Topic(topic, g.name)] = flow{g.label, topic}
			}
		}
	}
	if len(flows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	found, err := deadletter.Depths(ctx, c, slices.Sorted(maps.Keys(flows))...)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed["dlq"] = err != nil
	depths := map[flow]deadletter.Depth{}
	if err != nil {
		maps.Copy(depths, m.depths)
	}
	for topic, d := range found {
		depths[flows[topic]] = d
	}
	m.depths = depths
	return err
}

// sourcesOf are the topics that the group was assigned partitions of, those that have a label.
func (g *group) sourcesOf() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.sources))
}
