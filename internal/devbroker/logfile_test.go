package devbroker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/devbroker"
)

func TestLogFileIsBoundedAndKeepsOneOldGeneration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, err := devbroker.OpenLog(filepath.Join(dir, "broker.log"))
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 1<<16) + "\n"
	for range 300 { // 19 MiB
		if _, err := log.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if len(files) != 2 || total > 8<<20 {
		t.Errorf("%d files with %d bytes: want 2 with 8 MiB at most", len(files), total)
	}
}

func TestLastWords(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, written, want string }{
		{"none", "", "no last words"},
		{"the last line", "first\nlast\n\n", "last"},
		{"a panic before its stack", "fine\npanic: nil map\n\ngoroutine 1 [running]:\nmain.go:1\n", "panic: nil map"},
		{"a fatal error", "fatal error: out of memory\nstack\n", "fatal error: out of memory"},
		{"a long line is cut", strings.Repeat("a", 1000) + "\n", strings.Repeat("a", 200)},
		{"information is no complaint", "t\tWARN\tdisk is slow\t{}\nt\tINFO\tconsuming\t{}\nt\tDEBUG\tpolled\n", "t WARN disk is slow {}"},
		{"nothing but information", "t\tINFO\tconsuming\t{}\n", "no last words"},
		{"a panic after a complaint", "t\tERROR\tno\npanic: x\n", "panic: x"},
		{"bytes that are no text", "a\xffb\n", "a?b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log, err := devbroker.OpenLog(filepath.Join(t.TempDir(), "x.log"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = log.Close() })
			for _, b := range []byte(tt.written) { // in pieces, as pipes do
				if _, err := log.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			if got := log.LastWords(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What was wrong a while ago is not why it ends now.
func TestLastWordsAreOfTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, err := devbroker.OpenLog(filepath.Join(t.TempDir(), "x.log"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		if _, err := log.Write([]byte("t\tWARN\tthe broker is away\n")); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if got := log.LastWords(); got != "no last words" {
			t.Errorf("got %q a minute later, want none", got)
		}
	})
}
