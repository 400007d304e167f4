package service

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/web"
	"github.com/millrace/millrace/metrics"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

// watching is what a service shows of itself while --metrics is set.
type watching struct {
	metrics *metrics.Metrics
	health  *health
	paused  func() string // who has paused what
}

// Trace sends spans of what is published and received to provider. Call it before Producer and Consume. Without it
// there are none, and no exporter is part of this package: flush and close the provider in a loop of [Service.Go], or
// after [Run].
func (s *Service) Trace(provider trace.TracerProvider) {
	s.Cluster.Hooks = append(s.Cluster.Hooks, metrics.Traces(provider)...)
}

// Collect adds metrics of the service's own to those that --metrics serves; without the flag it does nothing.
func (s *Service) Collect(collectors ...prometheus.Collector) error {
	if s.watching == nil {
		return nil
	}
	for _, c := range collectors {
		if err := s.watching.metrics.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// watch serves /metrics, /healthz and /readyz until stop is called. Without an address it does nothing.
func (s *Service) watch(ctx context.Context) (stop func(), err error) {
	if s.listen == "" {
		return func() {}, nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.listen)
	if err != nil {
		return nil, fault("metrics", fmt.Errorf("listen: %w", err))
	}
	m, err := metrics.New(s.registerer())
	if err != nil {
		return nil, err
	}
	s.watching = &watching{m, newHealth(time.Now, s.stats.state), s.stats.paused}
	s.watching.health.paused = s.stats.isPaused
	s.Cluster.Hooks = append(s.Cluster.Hooks, m.Hooks()...)
	url := "http://" + ln.Addr().String()
	s.stats.serves(url + "/metrics")
	s.Log.Info("metrics", zap.String("url", url+"/metrics"))

	ctx, end := context.WithCancel(context.WithoutCancel(ctx)) // it answers while the service stops
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := web.Serve(ctx, ln, s.watching.handler(), web.Config{
			ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, MaxBody: 1 << 10, MaxConns: 64, Drain: time.Second, Log: s.Log,
		}); err != nil {
			s.Log.Error("metrics are not served any more", zap.Error(err))
		}
	})
	return func() { end(); wg.Wait() }, nil
}

// registerer is where metrics are registered: nil is where they are by default. In a replay each has the label replay.
func (s *Service) registerer() prometheus.Registerer {
	if s.replaying == nil {
		return nil
	}
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return struct {
		prometheus.Registerer
		prometheus.Gatherer
	}{prometheus.WrapRegistererWith(prometheus.Labels{"replay": s.replaying.ID}, own), own}
}

// ask begins to ask the cluster and the registry, for readiness and lag, until stop is called. The author's function
// has returned: what it changed counts.
func (s *Service) ask(ctx context.Context) (stop func()) {
	if s.watching == nil {
		return func() {}
	}
	ctx, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		s.watching.health.watch(ctx, s.Cluster, func() *schemas.Registry { return s.Schemas }, s.Log)
	})
	wg.Go(func() { s.watching.metrics.Watch(ctx, s.Cluster) })
	return func() { end(); wg.Wait() }
}

func (w *watching) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", w.metrics.Handler())
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, "ok") })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		if missing := w.health.missing(); len(missing) > 0 {
			http.Error(rw, "not ready: "+strings.Join(missing, "; "), http.StatusServiceUnavailable)
			return
		}
		if by := w.paused(); by != "" { // to restart it would change nothing
			fmt.Fprintln(rw, "ready: paused:", by)
			return
		}
		fmt.Fprintln(rw, "ready")
	})
	return mux
}

// publishers calls each in turn.
type publishers []producer.Observer

// Published implements [producer.Observer].
func (all publishers) Published(topic string, outcome producer.Outcome, size int, took time.Duration) {
	for _, o := range all {
		o.Published(topic, outcome, size, took)
	}
}

// observers calls each in turn.
type observers []consumer.Observer

var _ consumer.Observer = observers(nil)

func (all observers) Attempted(id cursor.ID, handler string, kind consumer.Kind, n int, took time.Duration) {
	for _, o := range all {
		o.Attempted(id, handler, kind, n, took)
	}
}

func (all observers) DeadLettered(id cursor.ID, handler, class string) {
	for _, o := range all {
		o.DeadLettered(id, handler, class)
	}
}

func (all observers) Assigned(start map[cursor.ID]int64) {
	for _, o := range all {
		o.Assigned(start)
	}
}

func (all observers) Revoked(ids []cursor.ID, lost bool) {
	for _, o := range all {
		o.Revoked(ids, lost)
	}
}

func (all observers) Handled(id cursor.ID, resolved, retried int, took time.Duration) {
	for _, o := range all {
		o.Handled(id, resolved, retried, took)
	}
}

func (all observers) Committed(partitions int, took time.Duration, err error) {
	for _, o := range all {
		o.Committed(partitions, took, err)
	}
}

func (all observers) Lag(id cursor.ID, events int64, age time.Duration) {
	for _, o := range all {
		o.Lag(id, events, age)
	}
}

func (all observers) Problem(id cursor.ID, err error) {
	for _, o := range all {
		o.Problem(id, err)
	}
}
