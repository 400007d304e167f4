package integration_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/kafkatest"
)

// The doctor on a healthy cluster of one broker sees all there is, finds nothing bad, and writes nothing.
func TestRealDoctor(t *testing.T) {
	t.Parallel()
	s := newShell(t, kafkatest.Plain(t))
	kafkatest.Topic(t, s.cluster, 3)
	s.env = append(s.env, "MILLRACE_REGISTRY=http://127.0.0.1:1") // nobody
	began := time.Now()
	out, said := s.run(t, 1, "bin/millrace doctor", "")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	for _, want := range []string{
		"ok    broker        the broker answers: " + s.cluster.Seeds[0], "ok    cluster       id ", "ok    versions      Kafka v4", "ok    partitions",
		"warn  topics        the cluster is one broker", "ok    permissions   without a login: of ", "  disk  ", "ok    machine",
		"bad   registry      http://127.0.0.1:1 does not answer",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s%s", want, out, said)
		}
	}
	if strings.Contains(out, "transaction.version") || strings.Contains(out, "KIP-848") {
		t.Errorf("this Kafka can do both:\n%s", out)
	}
	out, _ = s.run(t, 1, "bin/millrace doctor -o json", "")
	var doc struct {
		Millrace int
		Findings []struct{ Check, State string }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.Millrace != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, f := range doc.Findings {
		if f.State == "bad" && f.Check != "registry" && f.Check != "disk" { // how full this machine is, is its own affair
			t.Errorf("got %+v", f)
		}
	}
}
