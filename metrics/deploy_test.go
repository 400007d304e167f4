package metrics_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	rules     = "../deploy/prometheus/rules.yml"
	dashboard = "../deploy/grafana/millrace.json"
)

func TestTheAlertsFireWhenTheyShould(t *testing.T) {
	t.Parallel()
	if out, err := promtool(t, nil, "test", "rules", "../deploy/prometheus/rules_test.yml", "../deploy/prometheus/rules_week_test.yml"); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// expressions are the queries of the dashboard.
func expressions(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			out = append(out, target.Expr)
		}
	}
	return out
}

// A rule or panel about a metric that nobody serves never fires, and looks as if all were well.
func TestRulesAndDashboardNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	descs := make(chan *prometheus.Desc)
	go func() { create(t).Describe(descs); close(descs) }()
	fqName := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range descs {
		name := fqName.FindStringSubmatch(d.String())[1]
		known[name], known[name+"_bucket"] = true, true
	}
	raw, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	var alerts strings.Builder
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "#") {
			alerts.WriteString(line)
		}
	}
	labels := map[string]bool{"messaging_consumer_group_name": true, "messaging_destination_name": true, "messaging_operation_name": true}
	used := 0
	for _, text := range append(expressions(t), alerts.String()) {
		for _, name := range regexp.MustCompile(`\b(?:millrace|kafka|messaging)_[a-z0-9_]+`).FindAllString(text, -1) {
			if used++; !known[name] && !labels[name] {
				t.Errorf("%s is used, and not served", name)
			}
		}
	}
	if used < 40 {
		t.Errorf("only %d names were found", used)
	}
}

// promtool reads PromQL in rules only, so each query of the dashboard becomes one.
func TestTheDashboardsQueriesAreWellFormed(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for i, e := range expressions(t) {
		e = strings.NewReplacer("$__rate_interval", "5m", "$group", ".*").Replace(e)
		quoted, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "      - record: panel_%d\n        expr: %s\n", i, quoted)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, nil, "check", "rules", file); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}
