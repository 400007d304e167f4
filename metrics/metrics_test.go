package metrics_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/metrics"
	"github.com/millrace/millrace/producer"
)

func id(topic string, partition int32) cursor.ID {
	return cursor.ID{Reader: "shipping", Topic: topic, Partition: partition}
}

func create(t *testing.T) *metrics.Metrics {
	t.Helper()
	m, err := metrics.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// live is a Metrics in which everything has happened once.
func live(t *testing.T) (*metrics.Metrics, consumer.Observer) {
	t.Helper()
	m := create(t)
	clock := time.Now()
	m.SetNow(func() time.Time { return clock })
	p := m.Producer()
	p.Published("shop.shipments", producer.Acked, 100, 3*time.Millisecond)
	p.Published("shop.shipments", producer.Unknown, 100, time.Second)
	c := m.Consumer("shipping")
	c.Assigned(map[cursor.ID]int64{id("shop.orders", 0): 0, id("shop.orders", 1): 7})
	c.Attempted(id("shop.orders", 0), "shop.OrderPlaced", consumer.Done, 40, time.Millisecond)
	c.Attempted(id("shop.orders", 0), "shop.OrderPlaced", consumer.Retried, 1, time.Millisecond)
	c.Attempted(id("shop.orders", 0), "shop.OrderPlaced", consumer.DeadLettered, 1, time.Millisecond)
	c.DeadLettered(id("shop.orders", 0), "shop.OrderPlaced", "handler")
	c.Handled(id("shop.orders", 0), 41, 1, time.Millisecond)
	c.Committed(2, time.Millisecond, nil)
	c.Committed(2, time.Millisecond, errors.New("no answer"))
	c.Problem(id("shop.orders", 0), errors.New("no answer"))
	for range 2 {
		c.Lag(id("shop.orders", 0), 12, 90*time.Second)
		c.Lag(id("shop.orders", 1), 0, 0)
	}
	return m, c
}

func TestWhatObserversHearIsWhatIsServed(t *testing.T) {
	t.Parallel()
	m, c := live(t)
	s := read(t, m.Handler())
	for name, want := range map[string]map[string]float64{
		"messaging_client_sent_messages_total": {
			"messaging_destination_name=shop.shipments messaging_operation_name=publish":                    1,
			"error_type=unknown messaging_destination_name=shop.shipments messaging_operation_name=publish": 1,
		},
		"messaging_client_consumed_messages_total": {
			"messaging_consumer_group_name=shipping messaging_destination_name=shop.orders messaging_operation_name=process": 41,
		},
		"messaging_process_duration_seconds": {
			"messaging_consumer_group_name=shipping messaging_destination_name=shop.orders messaging_operation_name=process":                        1,
			"error_type=retry messaging_consumer_group_name=shipping messaging_destination_name=shop.orders messaging_operation_name=process":       1,
			"error_type=dead_letter messaging_consumer_group_name=shipping messaging_destination_name=shop.orders messaging_operation_name=process": 1,
		},
		"millrace_handler_events_total": {
			"consumergroup=shipping handler=shop.OrderPlaced topic=shop.orders verdict=done":        40,
			"consumergroup=shipping handler=shop.OrderPlaced topic=shop.orders verdict=retry":       1,
			"consumergroup=shipping handler=shop.OrderPlaced topic=shop.orders verdict=dead_letter": 1,
		},
		"millrace_dlq_messages_total":               {"consumergroup=shipping error_class=handler source_topic=shop.orders": 1},
		"millrace_consumergroup_rebalances_total":   {"consumergroup=shipping event=assigned": 1},
		"millrace_consumergroup_problems_total":     {"consumergroup=shipping": 1},
		"millrace_consumergroup_partitions":         {"consumergroup=shipping": 2},
		"kafka_consumergroup_group_lag_seconds":     {"consumergroup=shipping partition=0 topic=shop.orders": 90, "consumergroup=shipping partition=1 topic=shop.orders": 0},
		"kafka_consumergroup_group_max_lag_seconds": {"consumergroup=shipping": 90},
		// Nobody has looked at the group: absent, not 0 and not -1.
		"kafka_consumergroup_lag": {}, "kafka_consumergroup_lag_sum": {}, "kafka_consumergroup_members": {}, "millrace_collect_failed": {},
	} {
		s.want(t, name, want)
	}
	if got := s.series(t, "messaging_client_operation_duration_seconds"); got["messaging_consumer_group_name=shipping messaging_operation_name=commit"] != 1 ||
		got["error_type=failed messaging_consumer_group_name=shipping messaging_operation_name=commit"] != 1 {
		t.Errorf("commits are %v", got)
	}
	if got := s.series(t, "millrace_dlq_messages_total"); len(got) != 7 {
		t.Errorf("every error class begins at 0, got %v", got)
	}

	c.Revoked([]cursor.ID{id("shop.orders", 0)}, true)
	c.Lag(id("shop.orders", 0), 12, time.Hour) // too late
	s = read(t, m.Handler())
	s.want(t, "kafka_consumergroup_group_lag_seconds", map[string]float64{"consumergroup=shipping partition=1 topic=shop.orders": 0})
	s.want(t, "kafka_consumergroup_group_max_lag_seconds", map[string]float64{"consumergroup=shipping": 0})
	s.want(t, "millrace_consumergroup_rebalances_total", map[string]float64{"consumergroup=shipping event=assigned": 1, "consumergroup=shipping event=lost": 1})
	c.Revoked([]cursor.ID{id("shop.orders", 1)}, false)
	read(t, m.Handler()).want(t, "kafka_consumergroup_group_max_lag_seconds", map[string]float64{})
}

func TestThereIsNoLagBeforeTheFirstCommit(t *testing.T) {
	t.Parallel()
	m := create(t)
	c := m.Consumer("shipping")
	c.Assigned(map[cursor.ID]int64{id("shop.orders", 0): 0})
	for range 3 { // the engine tells the lag, then commits what is new to the group
		c.Lag(id("shop.orders", 0), 5, 0)
		c.Committed(1, time.Second, errors.New("no answer"))
	}
	s := read(t, m.Handler())
	s.want(t, "kafka_consumergroup_group_lag_seconds", map[string]float64{})
	s.want(t, "kafka_consumergroup_group_max_lag_seconds", map[string]float64{})
	c.Lag(id("shop.orders", 0), 5, 0)
	c.Committed(1, time.Second, nil)
	c.Lag(id("shop.orders", 0), 5, 0)
	c.Committed(1, time.Second, errors.New("no answer")) // it has a position from now on
	read(t, m.Handler()).want(t, "kafka_consumergroup_group_lag_seconds", map[string]float64{"consumergroup=shipping partition=0 topic=shop.orders": 0})
}

// The age that the engine tells once a second grows until the next time: a commit that hangs must not stop the clock.
func TestLagSecondsGrowBetweenTheEnginesWords(t *testing.T) {
	t.Parallel()
	m := create(t)
	clock := time.Now()
	m.SetNow(func() time.Time { return clock })
	c := m.Consumer("shipping")
	c.Assigned(map[cursor.ID]int64{id("shop.orders", 0): 0})
	for range 2 {
		c.Lag(id("shop.orders", 0), 5, 10*time.Second)
	}
	clock = clock.Add(7 * time.Second)
	read(t, m.Handler()).want(t, "kafka_consumergroup_group_max_lag_seconds", map[string]float64{"consumergroup=shipping": 17})
}

// Ten thousand values in every place where a name comes from outside are as many series as the bounds allow.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	m := create(t)
	p, c := m.Producer(), m.Consumer("shipping")
	registry := m.Registry(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) }))
	const hostile = 10_000
	for i := range hostile {
		name := fmt.Sprintf("name-%d", i)
		switch i % 4 {
		case 1:
			name += "\xff\"\n" // no UTF-8
		case 2:
			name = strings.Repeat("x", 300) + name
		}
		p.Published(name, producer.Rejected, 0, 0)
		c.Attempted(id(name, 0), name, consumer.Kind(i%100), 1, 0)
		c.DeadLettered(id(name, 0), name, name)
		c.Handled(id(name, 0), 1, 0, 0)
		c.Problem(cursor.ID{Topic: name}, errors.New(name))
		if i < 300 {
			c.Assigned(map[cursor.ID]int64{id(name, 0): 0})
			c.Lag(id(name, 0), 1, 0)
			c.Lag(id(name, 0), 1, 0)
			m.Consumer(name).Problem(cursor.ID{}, nil)
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/subjects/x/versions", nil)
		req.Method, req.URL.Path = name, "/subjects/"+name+"/versions"
		registry.ServeHTTP(httptest.NewRecorder(), req)
		req.Method = http.MethodPost
		registry.ServeHTTP(httptest.NewRecorder(), req)
	}
	s := read(t, m.Handler())
	bounds := map[string]int{
		"topic": metrics.MaxTopics, "source_topic": metrics.MaxTopics, "messaging_destination_name": metrics.MaxTopics, "handler": metrics.MaxHandlers,
		"consumergroup": metrics.MaxGroups, "messaging_consumer_group_name": metrics.MaxGroups, "subject": metrics.MaxSubjects, "verdict": 6,
		"error_class": 7, "method": 10, "code": 3, "error_type": 8,
	}
	values := map[string]map[string]bool{}
	for name, f := range s.families {
		s.series(t, name) // nothing twice
		for _, metric := range f.GetMetric() {
			for _, l := range metric.GetLabel() {
				if values[l.GetName()] == nil {
					values[l.GetName()] = map[string]bool{}
				}
				if l.GetValue() != "" { // absent
					values[l.GetName()][l.GetValue()] = true
				}
			}
		}
	}
	for label, most := range bounds {
		if got := len(values[label]); got == 0 || got > most+1 {
			t.Errorf("%s has %d values, want at most %d and %q", label, got, most, metrics.Other)
		}
	}
	var sent, dead float64
	for _, v := range s.series(t, "messaging_client_sent_messages_total") {
		sent += v
	}
	for _, v := range s.series(t, "millrace_dlq_messages_total") {
		dead += v
	}
	if sent != hostile || dead != hostile {
		t.Errorf("%v sent, %v dead: nothing is lost by a bound, want %d", sent, dead, hostile)
	}
	if size := len(s.text); size > 8<<20 {
		t.Errorf("one scrape is %d bytes", size)
	}
}

// The names, types and labels are a contract with dashboards and rules: deploy/prometheus.
func TestTheContract(t *testing.T) {
	t.Parallel()
	m, _ := live(t)
	s := read(t, m.Handler())
	want := map[string]string{
		"messaging_client_sent_messages_total":        "COUNTER error_type messaging_destination_name messaging_operation_name messaging_system",
		"messaging_client_consumed_messages_total":    "COUNTER messaging_consumer_group_name messaging_destination_name messaging_operation_name messaging_system",
		"messaging_client_operation_duration_seconds": "HISTOGRAM error_type messaging_consumer_group_name messaging_destination_name messaging_operation_name messaging_system",
		"messaging_process_duration_seconds":          "HISTOGRAM error_type messaging_consumer_group_name messaging_destination_name messaging_operation_name messaging_system",
		"millrace_handler_events_total":               "COUNTER consumergroup handler topic verdict",
		"millrace_dlq_messages_total":                 "COUNTER consumergroup error_class source_topic",
		"millrace_consumergroup_rebalances_total":     "COUNTER consumergroup event",
		"millrace_consumergroup_problems_total":       "COUNTER consumergroup",
		"millrace_consumergroup_partitions":           "GAUGE consumergroup",
		"kafka_consumergroup_group_lag_seconds":       "GAUGE consumergroup partition topic",
		"kafka_consumergroup_group_max_lag_seconds":   "GAUGE consumergroup",
		"millrace_build_info":                         "GAUGE goversion version",
	}
	for name, shape := range want {
		f := s.families[name]
		if f == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		for _, metric := range f.GetMetric() {
			labels := map[string]bool{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = true
			}
			if got := strings.Join(append([]string{f.GetType().String()}, slices.Sorted(maps.Keys(labels))...), " "); got != shape {
				t.Errorf("%s is %s, want %s", name, got, shape)
			}
		}
	}
	for name := range s.families {
		if _, known := want[name]; !known && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") &&
			!strings.HasPrefix(name, "millrace_kafka_client_") {
			t.Errorf("%s is not in the contract", name)
		}
	}
	checkText(t, s.text)
}

// checkText runs promtool check metrics. Its one complaint is about a name that kafka_exporter has made, and dashboards know.
func checkText(t *testing.T, text []byte) {
	t.Helper()
	out, err := promtool(t, text, "check", "metrics")
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "kafka_consumergroup_lag_sum ") {
			t.Errorf("promtool check metrics: %s", line)
		}
	}
	if err != nil && out == "" {
		t.Error(err)
	}
}

func TestARegistryThatHasSuchMetricsIsRefused(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	m, err := metrics.New(reg)
	if err != nil {
		t.Fatal(err)
	}
	m.Producer().Published("t", producer.Acked, 1, 0)
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
	if _, err := metrics.New(reg); err == nil {
		t.Error("a second Metrics in one registry is accepted")
	}
}

func TestRefusedSchemasAreCounted(t *testing.T) {
	t.Parallel()
	m := create(t)
	h := m.Registry(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Query().Get("as") {
		case "incompatible":
			w.WriteHeader(http.StatusConflict)
		case "invalid":
			w.WriteHeader(http.StatusUnprocessableEntity)
		default:
			fmt.Fprintln(w, `{"id":1}`)
		}
	}))
	for _, r := range []struct{ method, path string }{
		{http.MethodPost, "/subjects/orders-value/versions?as=incompatible"},
		{http.MethodPost, "/subjects/orders-value/versions?as=invalid"},
		{http.MethodPost, "/subjects/orders-value/versions"},
		{http.MethodPost, "/subjects/orders-value?as=invalid"},             // a look-up
		{http.MethodGet, "/subjects/orders-value/versions?as=invalid"},     // a list
		{http.MethodPost, "/compatibility/subjects/x/versions?as=invalid"}, // a question
	} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), r.method, r.path, nil))
	}
	s := read(t, m.Handler())
	s.want(t, "millrace_schema_rejections_total", map[string]float64{"reason=incompatible subject=orders-value": 1, "reason=invalid subject=orders-value": 1})
	s.want(t, "millrace_registry_requests_total", map[string]float64{
		"code=409 method=post": 1, "code=422 method=post": 3, "code=200 method=post": 1, "code=422 method=get": 1,
	})
	checkText(t, s.text)
}
