package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/gateway"
)

// maxSources is how many sources of webhooks have series of their own.
const maxSources = 256

// inbound is the observer of a gateway, and what it counts.
type inbound struct {
	total, rejected, unavailable, duplicates, letters, evicted, reloads *prometheus.CounterVec
	durations                                                           *prometheus.HistogramVec
	sources                                                             *bound
}

// Gateway returns what watches a gateway. It registers its metrics, and is called once for a Metrics.
func (m *Metrics) Gateway() (gateway.Observer, error) {
	const source = "source"
	i := &inbound{sources: newBound(maxSources)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	i.total = counter("millrace_webhook_inbound_total", "Webhooks that were answered, by how they ended. A source that there is none of is empty.", source, "result")
	i.rejected = counter("millrace_webhook_inbound_rejected_total", "Webhooks that were refused for a fault of their sender, by reason.", source, "reason")
	i.unavailable = counter("millrace_webhook_inbound_unavailable_total", "Webhooks whose sender was told to come again, by what was short.", source, "reason")
	i.duplicates = counter("millrace_webhook_inbound_duplicates_total", "Webhooks that were repeats of one that is in the log: thanked for and not published.", source)
	i.letters = counter("millrace_webhook_inbound_dead_letters_total", "Typed events that could not be made of a webhook, by the class of their dead letter.", source, "error_class")
	i.evicted = counter("millrace_webhook_inbound_evicted_total", "Ids that were forgotten before their window was over, for want of room.", source)
	i.reloads = counter("millrace_webhook_sources_reloads_total", "Times that changed sources were loaded (ok), or could not be used (failed).", "result")
	i.durations = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "millrace_webhook_inbound_duration_seconds", Help: "Time from a webhook's header to its answer.", Buckets: durations,
	}, []string{source, "result"})
	for _, c := range []prometheus.Collector{i.total, i.rejected, i.unavailable, i.duplicates, i.letters, i.evicted, i.reloads, i.durations} {
		if err := m.Register(c); err != nil {
			return nil, err
		}
	}
	i.reloads.WithLabelValues("failed")
	return i, nil
}

// Inbound implements [gateway.Observer].
func (i *inbound) Inbound(source string, result gateway.Result, reason string, took time.Duration) {
	source = i.label(source)
	i.total.WithLabelValues(source, string(result)).Inc()
	i.durations.WithLabelValues(source, string(result)).Observe(took.Seconds())
	switch result {
	case gateway.Rejected:
		i.rejected.WithLabelValues(source, reason).Inc()
	case gateway.Unavailable:
		i.unavailable.WithLabelValues(source, reason).Inc()
	case gateway.Duplicate:
		i.duplicates.WithLabelValues(source).Inc()
	case gateway.Accepted, gateway.Handshake, gateway.Failed:
	}
}

// DeadLettered implements [gateway.Observer].
func (i *inbound) DeadLettered(source, class string) {
	i.letters.WithLabelValues(i.label(source), class).Inc()
}

// Evicted implements [gateway.Observer].
func (i *inbound) Evicted(source string, ids int) {
	i.evicted.WithLabelValues(i.label(source)).Add(float64(ids))
}

// Reloaded implements [gateway.Observer].
func (i *inbound) Reloaded(ok bool) {
	result := "ok"
	if !ok {
		result = "failed"
	}
	i.reloads.WithLabelValues(result).Inc()
}

func (i *inbound) label(source string) string {
	label, _ := i.sources.label(source)
	return label
}
