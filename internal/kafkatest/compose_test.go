package kafkatest_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/internal/kafkatest"
)

// composeFile is what these tests look at of docker-compose.yml.
type composeFile struct {
	Services map[string]struct {
		Image       string
		Environment map[string]any
		Ports       []string
		Volumes     []string
		Healthcheck struct{ Test []string }
	}
	Volumes map[string]any
}

func compose(t *testing.T) composeFile {
	t.Helper()
	raw, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file composeFile
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// The brokers that a person starts keep records as those do that the tests kill.
func TestComposeHasTheSettingsOfTheTestedCluster(t *testing.T) {
	t.Parallel()
	file := compose(t)
	brokers := 0
	for name, service := range file.Services {
		if !strings.HasPrefix(name, "kafka-") {
			continue
		}
		brokers++
		id := strings.TrimPrefix(name, "kafka-")
		if service.Image != "apache/kafka:"+kafkatest.Version {
			t.Errorf("%s runs %s, the tests %s", name, service.Image, kafkatest.Version)
		}
		want := map[string]string{
			"node.id":                  id,
			"process.roles":            "broker,controller",
			"controller.quorum.voters": "1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093",
			"advertised.listeners":     fmt.Sprintf("INTERNAL://%s:19092,HOST://127.0.0.1:2909%s", name, id),
		}
		for _, s := range kafkatest.Durable() {
			want[s.Name] = s.Value
		}
		for setting, value := range want {
			variable := "KAFKA_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
			if got := fmt.Sprint(service.Environment[variable]); got != value {
				t.Errorf("%s: %s is %s, want %s", name, variable, got, value)
			}
		}
		if !slices.Contains(service.Volumes, name+":/var/lib/kafka/data") || service.Environment["KAFKA_LOG_DIRS"] != "/var/lib/kafka/data" {
			t.Errorf("%s keeps its data in %v, mounts %v", name, service.Environment["KAFKA_LOG_DIRS"], service.Volumes)
		}
	}
	if brokers != 3 {
		t.Errorf("%d brokers, want 3", brokers)
	}
}

func TestComposeServicesAreHealthCheckedAndOnLoopback(t *testing.T) {
	t.Parallel()
	file := compose(t)
	taken := map[string]string{}
	for name, service := range file.Services {
		if len(service.Healthcheck.Test) < 2 {
			t.Errorf("%s has no health check", name)
		}
		if len(service.Ports) == 0 {
			t.Errorf("%s publishes no port", name)
		}
		for _, port := range service.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s publishes %s beyond loopback", name, port)
			}
			if other := taken[port]; other != "" {
				t.Errorf("%s and %s publish %s", name, other, port)
			}
			taken[port] = name
		}
		for _, volume := range service.Volumes {
			if source, _, _ := strings.Cut(volume, ":"); !has(file.Volumes, source) {
				t.Errorf("%s mounts %s, which is no named volume", name, volume)
			}
		}
		if !strings.Contains(service.Image, ":") || strings.HasSuffix(service.Image, ":latest") {
			t.Errorf("%s runs %q, which names no version", name, service.Image)
		}
	}
}

func has(m map[string]any, key string) bool { _, ok := m[key]; return ok }
