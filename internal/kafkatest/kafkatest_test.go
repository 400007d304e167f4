package kafkatest_test

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/kafkatest"
)

func TestNameIsOneThatKafkaTakes(t *testing.T) {
	t.Parallel()
	valid := regexp.MustCompile(`^[A-Za-z0-9.-]{1,80}$`)
	for _, name := range []string{"plain", "with spaces/and ümlauts", strings.Repeat("long", 100)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := kafkatest.Name(t), kafkatest.Name(t)
			if !valid.MatchString(a) || a == b {
				t.Errorf("%q, %q", a, b)
			}
		})
	}
}

func TestDurableHoldsEachSettingOnce(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range kafkatest.Durable() {
		if seen[s.Name] || s.Value == "" {
			t.Errorf("%s=%s: twice, or empty", s.Name, s.Value)
		}
		seen[s.Name] = true
	}
}

// Without Java the tests of other packages are skipped, not failed: they look for this error.
func TestWithoutJava(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := kafkatest.Start(t.Context(), kafkatest.Config{}); !errors.Is(err, kafkatest.ErrMissing) {
		t.Errorf("got %v", err)
	}
}

func TestWithoutMavenAndJars(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(bin+"/java", []byte("#!/bin/false\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	if _, err := kafkatest.Start(t.Context(), kafkatest.Config{}); !errors.Is(err, kafkatest.ErrMissing) {
		t.Errorf("got %v", err)
	}
}

// A port that is taken between asking for a free one and using it costs a second start, and a broker that cannot
// start at all is told with the end of its log, at once.
func TestStartTellsWhyABrokerEnded(t *testing.T) {
	bin, cache := t.TempDir(), t.TempDir()
	// A java that formats; as a broker it finds its port taken the first time, and then does not like its settings.
	script := `#!/bin/sh
config=$(echo "$*" | sed 's/.*[ ]\([^ ]*server.properties\).*/\1/')
data=$(sed -n 's/^log.dirs=//p' "$config")
case "$*" in *StorageTool*) touch "$data/bootstrap.checkpoint"; exit 0 ;; esac
mkdir "$data/taken" 2>/dev/null && { echo "BindException: Address already in use"; exit 1; }
echo "no such setting: x"; exit 1
`
	if err := os.WriteFile(bin+"/java", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cache+"/millrace/kafka-9.9.9", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", cache)
	var progress bytes.Buffer
	_, err := kafkatest.Start(t.Context(), kafkatest.Config{Version: "9.9.9", Dir: t.TempDir(), Secured: true, Progress: &progress})
	if err == nil || !strings.Contains(err.Error(), "no such setting: x") || !strings.Contains(err.Error(), "logs in ") {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"formatting its storage\nstarting 3 broker(s)", "a port was taken meanwhile: starting again on others\nstarting 3 broker(s)"} {
		if !strings.Contains(progress.String(), want) {
			t.Errorf("%q is not in what it said:\n%s", want, progress.String())
		}
	}
}
