package metrics_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape is what Prometheus reads: families by name, from its own parser.
type scrape struct {
	families map[string]*dto.MetricFamily
	text     []byte
}

func read(t *testing.T, h http.Handler) scrape {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	text := bytes.Clone(w.Body.Bytes())
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, text)
	}
	return scrape{families, text}
}

// key is a series: its labels in alphabetical order, those that are empty left out, as Prometheus sees it.
func key(m *dto.Metric) string {
	var parts []string
	for _, l := range m.GetLabel() {
		if l.GetValue() != "" && l.GetName() != "messaging_system" {
			parts = append(parts, l.GetName()+"="+l.GetValue())
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// series are the values of a family; of a histogram the number of observations.
func (s scrape) series(t *testing.T, name string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, m := range s.families[name].GetMetric() {
		k := key(m)
		if _, twice := out[k]; twice {
			t.Errorf("%s{%s} is there twice", name, k)
		}
		switch {
		case m.Counter != nil:
			out[k] = m.GetCounter().GetValue()
		case m.Histogram != nil:
			out[k] = float64(m.GetHistogram().GetSampleCount())
		default:
			out[k] = m.GetGauge().GetValue()
		}
	}
	return out
}

// want compares a family's series, those that are 0 and not wanted aside where it counts.
func (s scrape) want(t *testing.T, name string, want map[string]float64) {
	t.Helper()
	got := s.series(t, name)
	if s.families[name].GetType() == dto.MetricType_COUNTER {
		maps.DeleteFunc(got, func(k string, v float64) bool { _, wanted := want[k]; return v == 0 && !wanted })
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s is\n%s\nwant\n%s", name, lines(got), lines(want))
	}
}

func lines(series map[string]float64) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(series)) {
		fmt.Fprintf(&b, "\t{%s} %v\n", k, series[k])
	}
	return b.String()
}

// promtool runs Prometheus' own tool, which CI has. Elsewhere the test is skipped without it.
func promtool(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing: apt-get install prometheus")
		}
		t.Skip("promtool is missing: apt-get install prometheus")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
