package devbroker_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/devbroker"
)

func shell(script string) func(ctx context.Context) *exec.Cmd {
	return func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, "sh", "-c", script) }
}

func TestProcessIsStartedAgainAndInTheEndGivenUp(t *testing.T) {
	t.Parallel()
	var waits []time.Duration
	starts := 0
	err := devbroker.Process{
		Name: "miller", Command: shell("exit 3"), Backoff: time.Millisecond,
		Started: func(int) { starts++ },
		Ended: func(e devbroker.Exit) error {
			if e.State != "exit status 3" || e.Crashes != starts {
				t.Errorf("got %+v at start %d, want exit status 3", e, starts)
			}
			waits = append(waits, e.Wait)
			return nil
		},
	}.Run(testContext(t))
	if err == nil || !strings.Contains(err.Error(), "miller ended 10 times in a row, at last with exit status 3") {
		t.Errorf("got %v, want that it was given up", err)
	}
	if len(waits) != 10 || waits[0] != time.Millisecond || waits[9] != 512*time.Millisecond {
		t.Errorf("waits: got %v, want 10 that double from 1 ms", waits)
	}
}

func TestProcessEndsWithTheErrorOfEnded(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	err := devbroker.Process{
		Name: "miller", Command: shell("exit 0"), Ended: func(devbroker.Exit) error { return enough },
	}.Run(testContext(t))
	if !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
}

func TestProcessThatDoesNotExist(t *testing.T) {
	t.Parallel()
	err := devbroker.Process{
		Name: "miller", Command: func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, "/nowhere/miller") },
	}.Run(testContext(t))
	if err == nil || !strings.Contains(err.Error(), "start miller") {
		t.Errorf("got %v, want that it cannot be started", err)
	}
}

// A child that ignores being told to end is killed after Grace; what it said on its status descriptor before has come.
func TestProcessThatDoesNotEndIsKilled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(testContext(t))
	var said []string
	began := time.Now()
	err := devbroker.Process{
		Name: "miller", Command: shell(`trap "" TERM; echo one >&3; echo two >&3; while :; do sleep 0.05; done`), Grace: 200 * time.Millisecond,
		Status: func(line []byte) {
			if said = append(said, string(line)); len(said) == 2 {
				cancel()
			}
		},
	}.Run(ctx)
	if err != nil || strings.Join(said, " ") != "one two" {
		t.Errorf("got %v and %v, want nil after one two", err, said)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
