package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/sink"
)

// sinks are the metrics of sinks, made when the first sink of the process asks for them.
type sinks struct {
	once sync.Once
	err  error

	transactions, written *prometheus.CounterVec
	took                  *prometheus.HistogramVec
}

func (s *sinks) declare(m *Metrics) {
	s.transactions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "millrace_sink_transactions_total",
		Help: "Transactions of the sink's target: committed, failed (and tried again), fenced (rolled back because another owner had moved the position), and those without an answer to COMMIT by what they were found to be: settled or lost.",
	}, []string{labelGroup, labelTopic, "outcome"})
	s.written = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "millrace_sink_written_total",
		Help: "What committed transactions did: events read, rows changed, states of folds stored, repeats (ids seen before) skipped, late events, events buried in the dead letters.",
	}, []string{labelGroup, labelTopic, "what"})
	s.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "millrace_sink_transaction_duration_seconds", Help: "Time of a transaction, from the decoded batch to the answer to COMMIT.", Buckets: durations,
	}, []string{labelGroup})
	for _, c := range []prometheus.Collector{s.transactions, s.written, s.took} {
		if s.err = m.Register(c); s.err != nil {
			return
		}
	}
}

// sinkObserver watches a sink: its group as a consumer's, and its transactions.
type sinkObserver struct {
	consumer.Observer
	m     *Metrics
	s     *sinks
	label string
	took  prometheus.Observer
}

// Sink returns what watches the sink of this name, and the group that has it. A registry that has other metrics by these
// names is an error.
func (m *Metrics) Sink(name string) (sink.Observer, error) {
	m.sinks.once.Do(func() { m.sinks.declare(m) })
	if m.sinks.err != nil {
		return nil, m.sinks.err
	}
	watch := m.Consumer(name)
	label := Other
	if g, ok := watch.(*group); ok {
		label = g.label
	}
	return &sinkObserver{watch, m, &m.sinks, label, m.sinks.took.WithLabelValues(label)}, nil
}

// Written implements [sink.Observer].
func (o *sinkObserver) Written(id cursor.ID, w sink.Written, took time.Duration, err error) {
	topic, _ := o.m.topics.label(id.Topic)
	if err != nil {
		o.s.transactions.WithLabelValues(o.label, topic, "failed").Inc()
		return
	}
	o.s.transactions.WithLabelValues(o.label, topic, "committed").Inc()
	o.took.Observe(took.Seconds())
	for _, n := range []struct {
		what string
		n    int
	}{
		{"events", w.Events}, {"rows", w.Rows}, {"states", w.States}, {"repeats", w.Repeats}, {"late", w.Late}, {"buried", w.Buried},
	} {
		o.s.written.WithLabelValues(o.label, topic, n.what).Add(float64(n.n))
	}
}

// Settled implements [sink.Observer].
func (o *sinkObserver) Settled(id cursor.ID, done bool) {
	topic, _ := o.m.topics.label(id.Topic)
	outcome := "lost"
	if done {
		outcome = "settled"
	}
	o.s.transactions.WithLabelValues(o.label, topic, outcome).Inc()
}

// Fenced implements [sink.Observer].
func (o *sinkObserver) Fenced(id cursor.ID) {
	topic, _ := o.m.topics.label(id.Topic)
	o.s.transactions.WithLabelValues(o.label, topic, "fenced").Inc()
}
