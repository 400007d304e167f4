package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// visit gets a page of the service; status 0 while nothing answers.
func visit(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// until asks done again and again.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	late := time.After(30 * time.Second)
	for !done() {
		select {
		case <-ticker.C:
		case <-late:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

var served = regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`)

// address waits until the log says where the service answers.
func address(t *testing.T, log *buffer) string {
	t.Helper()
	var url string
	until(t, "metrics are served", func() bool { url = served.FindString(log.String()); return url != "" })
	return strings.TrimSuffix(url, "/metrics")
}

func TestAServiceShowsWhatItDoes(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "ticks", "ticks.ticker.dlq"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	var (
		log      buffer
		code     = make(chan int, 1)
		wire     = make(chan struct{})
		stopping = make(chan struct{})
		own      = prometheus.NewCounter(prometheus.CounterOpts{Name: "ticker_ticks_total", Help: "Ticks."})
		spans    = tracetest.NewSpanRecorder()
	)
	go func() {
		code <- service.Run(ctx, "ticker", []string{"--metrics", "127.0.0.1:0"}, at(fake.ListenAddrs()[0]), &log, func(ctx context.Context, s *service.Service) error {
			<-wire
			s.Schemas = schemas.Memory()
			s.Trace(trace.NewTracerProvider(trace.WithSpanProcessor(spans)))
			if err := s.Collect(own); err != nil {
				return err
			}
			p, err := s.Producer(producer.Config{})
			if err != nil {
				return err
			}
			mux := consumer.NewMux()
			consumer.On(mux, func(_ context.Context, e event.Of[tick]) error {
				own.Inc()
				switch {
				case e.Data.N == 3 && e.Attempt == 1:
					return errors.New("once more")
				case e.Data.N == 7:
					return consumer.DeadLetter(errors.New("never"))
				}
				return nil
			})
			s.Consume(mux, consumer.Config{Topics: []string{"ticks"}, Retry: consumer.Retry{Backoff: time.Millisecond}})
			s.Go("publish", func(ctx context.Context) error {
				for n := range int64(20) {
					if err := p.Publish(ctx, event.New("ticks", fmt.Sprint(n), tick{n})); err != nil {
						return err
					}
				}
				<-ctx.Done()
				<-stopping
				return nil
			})
			return nil
		})
	}()
	base := address(t, &log)
	if status, _ := visit(t, base+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz is %d while the service starts", status)
	}
	if status, body := visit(t, base+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "starting") {
		t.Errorf("/readyz is %d while the service starts: %s", status, body)
	}
	close(wire)
	until(t, "ready", func() bool { status, _ := visit(t, base+"/readyz"); return status == http.StatusOK })
	want := []string{
		`ticker_ticks_total 21`,
		`messaging_client_consumed_messages_total{messaging_consumer_group_name="ticker",messaging_destination_name="ticks",messaging_operation_name="process",messaging_system="kafka"} 20`,
		`messaging_client_sent_messages_total{error_type="",messaging_destination_name="ticks",messaging_operation_name="publish",messaging_system="kafka"} 20`,
		`millrace_handler_events_total{consumergroup="ticker",handler="test.Tick",topic="ticks",verdict="done"} 19`,
		`millrace_handler_events_total{consumergroup="ticker",handler="test.Tick",topic="ticks",verdict="retry"} 1`,
		`millrace_handler_events_total{consumergroup="ticker",handler="test.Tick",topic="ticks",verdict="dead_letter"} 1`,
		`millrace_dlq_messages_total{consumergroup="ticker",error_class="rejected",source_topic="ticks"} 1`,
		`kafka_consumergroup_lag_sum{consumergroup="ticker",topic="ticks"} 0`,
		`kafka_consumergroup_lag{consumergroup="ticker",partition="1",topic="ticks"} 0`,
		`kafka_consumergroup_group_lag_seconds{consumergroup="ticker",partition="0",topic="ticks"} 0`,
		`kafka_consumergroup_members{consumergroup="ticker"} 1`,
		`millrace_consumergroup_state{consumergroup="ticker",state="ok"} 1`,
		`millrace_collect_failed{collector="groups"} 0`,
	}
	var page string
	until(t, "the numbers", func() bool {
		_, page = visit(t, base+"/metrics")
		for _, line := range want {
			if !strings.Contains(page, line+"\n") {
				return false
			}
		}
		return true
	})
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go_goroutines", "process_start_time_seconds", "millrace_build_info", "millrace_kafka_client_connects_total"} {
		if families[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	if n := len(spans.Ended()); n < 40 {
		t.Errorf("%d spans, want at least those of 20 events published and received", n)
	}

	signal()
	until(t, "not ready", func() bool {
		status, body := visit(t, base+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "stopping")
	})
	if status, _ := visit(t, base+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz is %d while the service stops", status)
	}
	close(stopping)
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, &log)
	}
	if status, _ := visit(t, base+"/healthz"); status != 0 {
		t.Error("it answers after its end")
	}
}

// A partition that this login may not read ends the service: from then on it is not ready, and it exits with the right
// that it lacks. Started with that right it is ready.
func TestAPartitionThatMayNotBeReadEndsTheService(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "ticks"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	start := func(ctx context.Context, log *buffer, hold <-chan struct{}) <-chan int {
		code := make(chan int, 1)
		go func() {
			code <- service.Run(ctx, "ticker", []string{"--metrics", "127.0.0.1:0"}, at(fake.ListenAddrs()[0]), log, func(_ context.Context, s *service.Service) error {
				mux := consumer.NewMux()
				mux.Otherwise(func(context.Context, event.Event) error { return nil })
				s.Schemas = schemas.Memory()
				s.Consume(mux, consumer.Config{Topics: []string{"ticks"}, CreateTopics: true})
				s.Go("hold", func(context.Context) error { <-hold; return nil })
				return nil
			})
		}()
		return code
	}
	var log buffer
	hold := make(chan struct{})
	code := start(t.Context(), &log, hold)
	base := address(t, &log)
	ready := func() bool { status, _ := visit(t, base+"/readyz"); return status == http.StatusOK }
	until(t, "ready", ready)
	denial := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "ticks", Partitions: []int32{1}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	until(t, "not ready", func() bool {
		status, body := visit(t, base+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "stopping")
	})
	close(hold)
	if got := <-code; got != 1 || !strings.Contains(log.String(), "ticks") || !strings.Contains(log.String(), "Read") {
		t.Errorf("exit code %d: %s", got, &log)
	}

	denial.Remove()
	ctx, signal := context.WithCancel(t.Context())
	var again buffer
	code = start(ctx, &again, hold)
	base = address(t, &again)
	until(t, "ready", ready)
	signal()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, &again)
	}
}

func TestAnAddressThatIsTakenIsAnError(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	var log buffer
	code := service.Run(t.Context(), "s", nil, at("127.0.0.1:1", "MILLRACE_METRICS", ln.Addr().String()), &log, nothing)
	if code != 1 || !strings.Contains(log.String(), "--metrics (MILLRACE_METRICS)") {
		t.Errorf("exit code %d: %s", code, &log)
	}
}

func TestNothingIsServedWithoutTheFlag(t *testing.T) {
	t.Parallel()
	var log buffer
	code := service.Run(t.Context(), "s", nil, at(broker(t)), &log, func(_ context.Context, s *service.Service) error {
		return s.Collect(prometheus.NewCounter(prometheus.CounterOpts{Name: "x_total", Help: "X."}))
	})
	if code != 0 || strings.Contains(log.String(), "/metrics") {
		t.Errorf("exit code %d: %s", code, &log)
	}
}
