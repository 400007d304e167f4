// Package metrics shows what producers, consumers and the schema registry do, for Prometheus, and their traces for
// OpenTelemetry. It looks and never touches: nothing imports it but what wires. package service serves it by a flag;
// without package service:
//
//	m, err := metrics.New(registry) // nil: a registry of its own, with the metrics of Go and the process
//	cluster.Hooks = append(cluster.Hooks, m.Hooks()...)
//	p, err := producer.New(cluster, reg, producer.Config{Observer: m.Producer()})
//	go m.Watch(ctx, cluster)
//	err = consumer.Run(ctx, cluster, reg, mux, consumer.Config{Observer: m.Consumer("shipping"), …})
//
// # Names
//
// Where a name is established it is kept, so that dashboards work: messaging_* are those of OpenTelemetry,
// kafka_consumergroup_* those of kafka_exporter and kafka-lag-exporter. Ours begin with millrace_, and those of the
// Kafka client with millrace_kafka_client_.
//
// # Many members, one group
//
// A process tells the lag of the partitions that it holds, and of no others: over all members, sum by
// (consumergroup, topic) is the lag of the group. What concerns the group as a whole every member tells: take max.
//
// # Bounds
//
// Every label is a fixed set or bounded: what comes past the bound is counted under "other". The series of a
// partition go when it is given up.
//
// # Concurrency
//
// A Metrics and its observers are used by any number of goroutines.
package metrics

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/groups"
)

// The labels that several metrics share.
const (
	labelSystem      = "messaging_system"
	labelOperation   = "messaging_operation_name"
	labelDestination = "messaging_destination_name"
	labelConsumers   = "messaging_consumer_group_name"
	labelError       = "error_type"
	labelGroup       = "consumergroup"
	labelTopic       = "topic"
	labelSource      = "source_topic"
	labelPartition   = "partition"
)

// system is the value of labelSystem, for every series.
var system = prometheus.Labels{labelSystem: "kafka"}

// durations are the buckets of OpenTelemetry's messaging histograms, in seconds.
var durations = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}

// Metrics are the metrics of one process.
type Metrics struct {
	registerer prometheus.Registerer
	gatherer   prometheus.Gatherer
	now        func() time.Time
	clients    *clients

	sent, consumed, events, deadLetters *prometheus.CounterVec
	rebalances, problems                *prometheus.CounterVec
	requests, rejections                *prometheus.CounterVec
	operations, processing              *prometheus.HistogramVec
	all                                 []prometheus.Collector

	topics, handlers, subjects *bound

	sinks     sinks
	published table[string, *outcomes]

	mu     sync.Mutex
	groups map[string]*group
	failed map[string]bool           // by collector: whether its last look failed; absent before the first
	depths map[flow]deadletter.Depth // at the last look; never changed in place
	wake   chan struct{}             // look soon

	looking sync.Mutex
	tracker *groups.Tracker
}

// New returns metrics that are registered with reg. Nil is a registry of its own, which [Metrics.Handler] serves
// together with the metrics of Go, of the process and of the build. A registry that has such metrics already is an
// error: make one Metrics for a process.
func New(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		now: time.Now, clients: newClients(),
		topics: newBound(maxTopics), handlers: newBound(maxHandlers), subjects: newBound(maxSubjects),
		groups: map[string]*group{}, failed: map[string]bool{}, wake: make(chan struct{}, 1), tracker: groups.NewTracker(groups.TrackerConfig{}),
	}
	m.declare()
	if reg == nil {
		own := prometheus.NewRegistry()
		own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build())
		reg = own
	}
	if err := reg.Register(m); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	m.registerer = reg
	m.gatherer, _ = reg.(prometheus.Gatherer)
	return m, nil
}

// declare makes every metric.
func (m *Metrics) declare() {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.all = append(m.all, c)
		return c
	}
	messaging := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: system}, labels)
		m.all = append(m.all, c)
		return c
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, ConstLabels: system, Buckets: durations}, labels)
		m.all = append(m.all, h)
		return h
	}
	m.sent = messaging("messaging_client_sent_messages_total",
		"Events whose publishing has ended: acknowledged where error_type is empty, else rejected (certainly not written) or unknown (perhaps written).",
		labelOperation, labelDestination, labelError)
	m.consumed = messaging("messaging_client_consumed_messages_total",
		"Events that are resolved: handled, dropped or dead-lettered.",
		labelOperation, labelDestination, labelConsumers)
	m.operations = histogram("messaging_client_operation_duration_seconds",
		"Time from handing an event to the producer to its end, and of commits.",
		labelOperation, labelDestination, labelConsumers, labelError)
	m.processing = histogram("messaging_process_duration_seconds",
		"Time of one call of a handler, of one event or of a batch, decoding included; error_type is the verdict where it is not done.",
		labelOperation, labelDestination, labelConsumers, labelError)
	m.events = counter("millrace_handler_events_total",
		"Events by the verdict of an attempt: an event that is tried again counts each time.",
		labelGroup, labelTopic, "handler", "verdict")
	m.deadLetters = counter("millrace_dlq_messages_total",
		"Events copied to the dead letters, by the class of their error.",
		labelSource, labelGroup, "error_class")
	m.rebalances = counter("millrace_consumergroup_rebalances_total",
		"Times that this member was assigned partitions, gave some up in order (revoked), or lost some.",
		labelGroup, "event")
	m.problems = counter("millrace_consumergroup_problems_total",
		"Errors that did not end the consumer: failed reads, dependencies and dead letters that do not answer, panics.",
		labelGroup)
	m.requests = counter("millrace_registry_requests_total",
		"Requests that the schema registry answered, by method and status.",
		"method", "code")
	m.rejections = counter("millrace_schema_rejections_total",
		"Schemas that the registry refused to register.",
		"subject", "reason")
	m.all = append(m.all, m.clients, &lags{m}, &letters{m})
}

// Handler serves the metrics in the format that the client asks for. It is for a [Metrics] with a registry of its own
// or one that gathers; with another, serve that registry.
func (m *Metrics) Handler() http.Handler {
	if m.gatherer == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(m.gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true})
}

// Register adds metrics of the program's own to the registry.
func (m *Metrics) Register(c prometheus.Collector) error {
	if err := m.registerer.Register(c); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(ch)
	}
}

// build is which program this is.
func build() prometheus.Collector {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "millrace_build_info", Help: "1, with the version of the program and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}
