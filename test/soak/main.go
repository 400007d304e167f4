// Command soak kills the embedded broker under load and prints what it came to as JSON, a line for each kind of load.
// It ends with 1 when anything that the broker promises did not hold, and with 2 when the run itself failed.
//
//	make soak-dev ARGS="-kills 120"
//	make soak-dev ARGS="-sync -out test/soak/results"   # and keeps it there, with the date and the machine
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/internal/devbroker/soak"
)

// The variables that make this program the broker, and one that flushes its writes.
const (
	childDir  = "MILLRACE_SOAK_DIR"
	childSync = "MILLRACE_SOAK_SYNC"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		code = 2
	}
	os.Exit(code) //nolint:gocritic // the signals end with the process
}

func run(ctx context.Context) (int, error) {
	if dir := os.Getenv(childDir); dir != "" {
		cfg := devbroker.Config{Dir: dir, Addr: os.Args[1], SyncWrites: os.Getenv(childSync) != ""}
		return 0, devbroker.Child(ctx, cfg, os.Stdin, os.NewFile(soak.StatusFD, "status"))
	}
	kills := flag.Int("kills", 120, "how often the broker is killed under each load")
	every := flag.Duration("every", 300*time.Millisecond, "mean time between a start and a kill")
	seed := flag.Uint64("seed", 1, "makes the times of the kills")
	sync := flag.Bool("sync", false, "the broker flushes each write to the disk before it acknowledges it")
	out := flag.String("out", "", "a `folder` for the result as JSON, named by date")
	note := flag.String("note", "", "what to know about the machine during the run, kept with the result")
	flag.Parse()
	dir, err := os.MkdirTemp("", "millrace-soak-")
	if err != nil {
		return 2, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	self, err := os.Executable()
	if err != nil {
		return 2, err
	}
	r, code := newResult(), 0
	r.Note, r.Sync = *note, *sync
	r.Command = fmt.Sprintf("go run ./test/soak -kills %d -every %v -seed %d -sync=%t", *kills, *every, *seed, *sync)
	for _, transactions := range []bool{false, true} {
		data := filepath.Join(dir, fmt.Sprint(transactions))
		report, err := soak.Run(ctx, soak.Config{
			Kills: *kills, Every: *every, Seed: *seed, Transactions: transactions,
			Command: func(ctx context.Context, addr string) *exec.Cmd {
				if addr == "" {
					addr = "127.0.0.1:0"
				}
				cmd := exec.CommandContext(ctx, self, addr)
				cmd.Env = append(os.Environ(), childDir+"="+data)
				if *sync {
					cmd.Env = append(cmd.Env, childSync+"=1")
				}
				cmd.Stderr = os.Stderr
				return cmd
			},
		})
		if err != nil {
			return 2, err
		}
		if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
			return 2, err
		}
		if report.Violations() > 0 {
			code = 1
		}
		r.Loads = append(r.Loads, report)
	}
	if *out == "" {
		return code, nil
	}
	if err := r.save(*out); err != nil {
		return 2, err
	}
	return code, nil
}

// result is what is kept of a run.
type result struct {
	Date    time.Time `json:"date"`
	Command string    `json:"command"`
	Machine machine   `json:"machine"`
	Note    string    `json:"note,omitempty"`
	Sync    bool      `json:"sync"` // each write was flushed to the disk before it was acknowledged

	Loads []soak.Report `json:"loads"`
}

// machine is where a run took place. Loads are the average number of runnable processes in the last minute: many
// more than there are CPUs say that others were at work too.
type machine struct {
	OS         string `json:"os"`
	Go         string `json:"go"`
	Kfake      string `json:"kfake"` // its version
	CPUs       int    `json:"cpus"`
	LoadBefore string `json:"load_before,omitempty"`
	LoadAfter  string `json:"load_after,omitempty"`
}

func newResult() *result {
	r := &result{
		Date:    time.Now().UTC(),
		Machine: machine{OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), CPUs: runtime.NumCPU(), LoadBefore: load()},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if strings.HasSuffix(dep.Path, "/kfake") {
				r.Machine.Kfake = dep.Version
			}
		}
	}
	return r
}

// load is the system's load of the last minute, "" where the system does not say.
func load() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	minute, _, _ := strings.Cut(string(raw), " ")
	return minute
}

// save writes the result to a file of dir that is named by the date.
func (r *result) save(dir string) error {
	r.Machine.LoadAfter = load()
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	name := filepath.Join(dir, r.Date.Format("2006-01-02T150405Z")+".json")
	if err := os.WriteFile(name, append(raw, '\n'), 0o600); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "kept in", name)
	return nil
}
