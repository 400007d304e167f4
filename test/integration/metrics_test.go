package integration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// watched is a service that serves its metrics.
type watched struct {
	t    *testing.T
	base string
	stop func()
}

// watch runs a service that consumes topic as group with handle.
func watch(t *testing.T, brokers []string, registry, group, topic string, handle func(context.Context, event.Of[parcel]) error) *watched {
	t.Helper()
	log := newScreen()
	code := make(chan int, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	args := []string{"--brokers", strings.Join(brokers, ","), "--registry", registry, "--create-topics", "--metrics", "127.0.0.1:0"}
	go func() {
		code <- service.Run(ctx, group, args, func(string) string { return "" }, log, func(_ context.Context, s *service.Service) error {
			mux := consumer.NewMux()
			consumer.On(mux, handle)
			s.Consume(mux, consumer.Config{Topics: []string{topic}})
			return nil
		})
	}()
	w := &watched{t: t, stop: sync.OnceFunc(func() {
		cancel()
		if got := <-code; got != 0 {
			t.Errorf("%s exits %d\n%s", group, got, log.String())
		}
	})}
	t.Cleanup(w.stop)
	served := regexp.MustCompile(`(http://127\.0\.0\.1:\d+)/metrics`)
	await(t, "metrics are served", func() bool {
		found := served.FindStringSubmatch(log.String())
		if found != nil {
			w.base = found[1]
		}
		return found != nil
	})
	return w
}

func (w *watched) get(path string) (status int, body string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.base+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (w *watched) ready() bool { status, _ := w.get("/readyz"); return status == http.StatusOK }

// family is what Prometheus' own parser reads of one metric: its values by the labels that are asked for.
func (w *watched) family(name string, by ...string) map[string]float64 {
	w.t.Helper()
	_, body := w.get("/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]float64{}
	for _, m := range families[name].GetMetric() {
		var key []string
		for _, l := range m.GetLabel() {
			if slices.Contains(by, l.GetName()) {
				key = append(key, l.GetValue())
			}
		}
		v := m.GetGauge().GetValue()
		if families[name].GetType() == dto.MetricType_COUNTER {
			v = m.GetCounter().GetValue()
		}
		out[strings.Join(key, " ")] += v
	}
	return out
}

// A service on a real Kafka shows what its handlers made of the events, how far it is behind while they stand still, and
// the partitions that it has and no others; and it is ready while the cluster and the registry are there.
func TestRealMetricsAndReadiness(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Boot(t, kafkatest.Config{}) // it is paused
	c := cluster.Cluster("")
	topic := kafkatest.Topic(t, c, 4)
	group := topic[len(topic)-8:]
	registry := serveRegistry(t, c)
	reg, err := schemas.New(schemas.Config{URLs: []string{registry.url()}})
	if err != nil {
		t.Fatal(err)
	}
	register(t, reg, topic, schemas.MustFor[parcel]())
	write := func(from, until int) {
		var events []event.Event
		for i := from; i < until; i++ {
			events = append(events, event.New(topic, fmt.Sprint(i), parcel{ID: fmt.Sprint(i)}))
		}
		publish(t, c, reg, events...)
	}
	gate := make(chan struct{})
	handle := func(ctx context.Context, e event.Of[parcel]) error {
		switch {
		case e.Data.ID == "3" && e.Attempt == 1:
			return errors.New("once more")
		case e.Data.ID == "7":
			return consumer.DeadLetter(errors.New("never"))
		case len(e.Data.ID) == 3: // from 100 on
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}
		return ctx.Err()
	}
	first := watch(t, c.Seeds, registry.url(), group, topic, handle)
	await(t, "ready", first.ready)
	write(0, 40)
	verdicts := map[string]float64{"done": 39, "retry": 1, "dead_letter": 1}
	await(t, "40 events are counted", func() bool { return maps.Equal(first.family("millrace_handler_events_total", "verdict"), verdicts) })
	await(t, "they are resolved", func() bool { return first.family("messaging_client_consumed_messages_total")[""] == 40 })
	if got := first.family("millrace_dlq_messages_total", "error_class")["rejected"]; got != 1 {
		t.Errorf("%v dead letters, want 1", got)
	}
	await(t, "all are committed", func() bool {
		lag := first.family("kafka_consumergroup_lag", "partition")
		return len(lag) == 4 && first.family("kafka_consumergroup_lag_sum")[""] == 0
	})

	write(100, 200) // and nothing moves: with room for all of them in flight, only the log knows how many there are
	await(t, "the lag is seen", func() bool { return first.family("kafka_consumergroup_lag_sum")[""] == 100 })
	await(t, "and its age", func() bool { return first.family("kafka_consumergroup_group_max_lag_seconds")[""] > 5 })
	close(gate)
	await(t, "it is worked off", func() bool { return first.family("kafka_consumergroup_lag_sum")[""] == 0 })
	if got := first.family("kafka_consumergroup_group_lag_seconds", "partition"); !maps.Equal(got, map[string]float64{"0": 0, "1": 0, "2": 0, "3": 0}) {
		t.Errorf("caught up, the lag in seconds is %v", got)
	}

	second := watch(t, c.Seeds, registry.url(), group, topic, handle)
	await(t, "the second has its share", func() bool { return len(second.family("kafka_consumergroup_lag", "partition")) == 2 })
	both := first.family("kafka_consumergroup_lag", "partition")
	if len(both) != 2 {
		t.Errorf("the first still shows %v", both)
	}
	for p := range second.family("kafka_consumergroup_lag", "partition") {
		if _, twice := both[p]; twice {
			t.Errorf("both show partition %s", p)
		}
	}
	await(t, "both see each other", func() bool {
		return first.family("kafka_consumergroup_members")[""] == 2 && second.family("kafka_consumergroup_members")[""] == 2
	})
	second.stop()
	await(t, "the first has all again", func() bool { return len(first.family("kafka_consumergroup_lag", "partition")) == 4 })

	registry.away()
	cluster.Pause(1)
	await(t, "not ready while both are away", func() bool {
		_, body := first.get("/readyz")
		return strings.Contains(body, "the cluster does not answer since") && strings.Contains(body, "the registry does not answer since")
	})
	if status, _ := first.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz is %d: a restart would not help", status)
	}
	cluster.Resume(1)
	registry.back()
	await(t, "ready again", first.ready)
	if lag, err := kadm.NewClient(kafkatest.Client(t, c)).Lag(t.Context(), group); err != nil || lag[group].Lag.Total() != 0 {
		t.Errorf("the group's lag is %v, %v", lag[group].Lag.Total(), err)
	}
}
