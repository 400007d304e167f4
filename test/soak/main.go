// Command soak kills the embedded broker under load and prints what it came to as JSON, a line for each kind of load.
// It ends with 1 when anything that the broker promises did not hold, and with 2 when the run itself failed.
//
//	make soak-dev ARGS="-kills 120"
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
	"syscall"
	"time"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/internal/devbroker/soak"
)

// childDir is the variable that makes this program the broker.
const childDir = "MILLRACE_SOAK_DIR"

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
		cfg := devbroker.Config{Dir: dir, Addr: os.Args[1]}
		return 0, devbroker.Child(ctx, cfg, os.Stdin, os.NewFile(soak.StatusFD, "status"))
	}
	kills := flag.Int("kills", 120, "how often the broker is killed under each load")
	every := flag.Duration("every", 300*time.Millisecond, "mean time between a start and a kill")
	seed := flag.Uint64("seed", 1, "makes the times of the kills")
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
	code := 0
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
	}
	return code, nil
}
