package integration_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/kafkatest"
)

// tables runs the sink of a file, which is the rest of a command line, until nothing is left to write.
func (s *shell) tables(t *testing.T, line, file string) {
	t.Helper()
	sink := s.start(t, "bin/millrace "+line)
	deadline := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-sink.ended:
			t.Fatalf("%s: ended\n%s", line, sink.err)
		case <-deadline:
			t.Fatalf("%s: never gets to the end\n%s", line, sink.err)
		case <-tick.C:
		}
		var at struct {
			Partitions []struct{ Lag int64 }
		}
		cmd := s.command(t.Context(), "bin/millrace sink describe -f "+file+" -o json")
		out, err := cmd.Output()
		if err != nil || json.Unmarshal(out, &at) != nil || len(at.Partitions) == 0 {
			continue // it has not begun
		}
		left := int64(0)
		for _, p := range at.Partitions {
			left += p.Lag
		}
		if left == 0 {
			break
		}
	}
	if code := sink.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("%s: stopped, it exits %d\n%s", line, code, sink.err)
	}
}

// sinkNeedsNoCode follows the README's lines on sinks, on what the steps before have published.
func sinkNeedsNoCode(s *shell) {
	t := s.step
	const file = "examples/shop/sink.yaml"
	s.tables(t, "sink -f "+file+" --create-topics", file)
	out, _ := s.run(t, 0, "bin/millrace sink describe -f "+file, "")
	has(t, "describe", out, "TOPIC", "shop.orders", "LAG", "WATERMARK")
}

// Every command of the guide on sinks does what the guide says, one after the other.
func TestRealCommandsOfTheSinkGuide(t *testing.T) {
	t.Parallel()
	s := newShell(t, kafkatest.Boot(t, kafkatest.Config{}).Cluster(""))
	s.env = append(s.env, "MILLRACE_REGISTRY="+serveRegistry(t, s.cluster).url())
	s.run(t, 0, "bin/millrace topics apply examples/shop/topics --yes", "")
	s.run(t, 0, "bin/millrace schemas register examples/shop/schemas", "")
	orders, _ := orderLines("guide", 9)
	s.run(t, 0, "bin/millrace produce shop.orders --key-field order_id", orders)

	guide, err := os.ReadFile("../../docs/sinks.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^millrace ([^#\n]+)`).FindAllStringSubmatch(string(guide), -1)
	if len(lines) < 7 {
		t.Fatalf("docs/sinks.md shows %d command lines: they are written in another way now", len(lines))
	}
	for _, l := range lines {
		line := strings.TrimSpace(l[1])
		_, file, _ := strings.Cut(line, "-f ")
		file, _, _ = strings.Cut(file, " ")
		switch {
		case strings.HasPrefix(line, "sink -f "):
			s.tables(t, line, file)
		case strings.HasPrefix(line, "serve sink "):
			s.tables(t, line+" --metrics 127.0.0.1:0", file)
		case strings.Contains(line, " plan "):
			out, _ := s.run(t, 3, "bin/millrace "+line, "")
			has(t, line, out, "shop-tables on cluster", "shop.orders")
		default:
			s.run(t, 0, "bin/millrace "+line, "")
		}
	}
	for _, word := range regexp.MustCompile("`millrace ([^`]+)`").FindAllStringSubmatch(string(guide), -1) {
		if args := strings.Fields(word[1]); args[0] != "sink" && args[0] != "groups" {
			t.Errorf("the guide names millrace %s, which this test knows nothing of", word[1])
		}
	}
	_, errs := s.run(t, 5, "bin/millrace groups offsets plan shop-tables --at start", "")
	has(t, "the offsets of its group", errs, "by sink shop-tables", "millrace sink rewind plan -f sink.yaml")
}
