package kafkatest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAbandonedDirectories(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		age          time.Duration
		held, failed bool
		want         bool
	}{
		{"its process is gone", time.Hour, false, false, true},
		{"its process runs", time.Hour, true, false, false},
		{"it was made just now", time.Second, false, false, false},
		{"a test failed in it today", time.Hour, false, true, false},
		{"a test failed in it the day before", 25 * time.Hour, false, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			unlock, err := lock(t.Context(), filepath.Join(dir, "lock"))
			if err != nil {
				t.Fatal(err)
			}
			if tt.held {
				t.Cleanup(unlock)
			} else {
				unlock()
			}
			if tt.failed {
				if err := os.WriteFile(filepath.Join(dir, failedMark), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			then := time.Now().Add(-tt.age)
			if err := os.Chtimes(dir, then, then); err != nil {
				t.Fatal(err)
			}
			if got := abandoned(dir); got != tt.want {
				t.Errorf("abandoned: %t, want %t", got, tt.want)
			}
		})
	}
}

func TestADirectoryBelongsToOneProcessAndOneVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := &Running{Dir: dir, cfg: Config{Version: "4.3.1"}.withDefaults()}
	if err := first.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.remember(); err != nil {
		t.Fatal(err)
	}
	second := &Running{Dir: dir, cfg: Config{Version: "4.3.1"}.withDefaults()}
	if err := second.open(t.Context()); err == nil || !strings.Contains(err.Error(), "which another process holds") {
		t.Errorf("a second one: %v", err)
	}
	first.unlock()
	third := &Running{Dir: dir, cfg: Config{Version: "3.9.1"}.withDefaults()}
	if err := third.open(t.Context()); err == nil || !strings.Contains(err.Error(), "holds a cluster of Kafka 4.3.1") {
		t.Errorf("another version: %v", err)
	}
	fourth := &Running{Dir: dir, cfg: Config{Version: "4.3.1"}.withDefaults()}
	if err := fourth.open(t.Context()); err != nil || fourth.state.ID != first.state.ID {
		t.Errorf("the same again: %v", err)
	}
	fourth.unlock()
}
