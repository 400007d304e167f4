package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/producer"
)

// outcomes are the series of a topic that is published to, by producer.Outcome.
type outcomes [3]struct {
	sent prometheus.Counter
	took prometheus.Observer
}

// published is the observer of producers.
type published struct{ m *Metrics }

// Producer returns what watches producers: any number may share it.
func (m *Metrics) Producer() producer.Observer { return published{m} }

// Published implements [producer.Observer].
func (p published) Published(topic string, outcome producer.Outcome, _ int, took time.Duration) {
	series, ok := p.m.published.get(topic)
	if !ok {
		series = p.m.publishedTo(topic)
	}
	s := &series[min(max(outcome, producer.Acked), producer.Unknown)]
	s.sent.Inc()
	s.took.Observe(took.Seconds())
}

// publishedTo makes the series of a topic. Those of topics past the bound are one, which is made for each event: it is
// the path of a mistake.
func (m *Metrics) publishedTo(topic string) *outcomes {
	const operation = "publish"
	label, own := m.topics.label(topic)
	var series outcomes
	for o := range series {
		errorType := ""
		if o := producer.Outcome(o); o != producer.Acked {
			errorType = o.String()
		}
		series[o].sent = m.sent.WithLabelValues(operation, label, errorType)
		series[o].took = m.operations.WithLabelValues(operation, label, "", errorType)
	}
	if !own {
		return &series
	}
	return m.published.put(topic, &series)
}
