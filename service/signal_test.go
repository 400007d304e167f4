package service_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/service"
)

const childEnv = "MILLRACE_SERVICE_TEST_CHILD"

// TestMain makes this test binary a service when a test below starts it as one.
func TestMain(m *testing.M) {
	kind := os.Getenv(childEnv)
	if kind == "" {
		m.Run()
		return
	}
	os.Args = os.Args[:1]
	service.Main("child", func(_ context.Context, s *service.Service) error {
		s.Go(kind, func(ctx context.Context) error {
			s.Log.Info("ready")
			<-ctx.Done()
			if kind == "stubborn" {
				select {}
			}
			return nil
		})
		return nil
	})
}

// child starts this binary as a service and returns it with a function that reads its log up to a text.
func child(t *testing.T, kind string) (cmd *exec.Cmd, until func(text string)) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+kind, "MILLRACE_BROKERS="+broker(t), "MILLRACE_REGISTRY=http://127.0.0.1:1")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(log)
	return cmd, func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the log ended without %q: %v", text, lines.Err())
	}
}

func TestASignalStopsInOrder(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		cmd, until := child(t, "obedient")
		until("ready")
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		until("the service ended")
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
	}
}

// timeout(1) sends SIGTERM to its child and to the child's group. The service ended at the second, its member stayed in
// the group for the whole session timeout, and the next instance got no partition until then. Two kinds of signal here:
// two of a kind become one.
func TestASignalThatComesTwiceStopsInOrder(t *testing.T) {
	t.Parallel()
	cmd, until := child(t, "obedient")
	until("ready")
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	until("the service ended")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	cmd, until := child(t, "stubborn")
	until("ready")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until("stopping")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	var err error
	for wait := true; wait; {
		select {
		case <-again.C:
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		case err = <-ended:
			wait = false
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("ended with %v, want exit code 130", err)
	}
}
