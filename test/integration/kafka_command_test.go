package integration_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/kafka"
)

// The command behind `make kafka`: what it prints is true, a directory keeps its topics and its address, Ctrl-C stops
// it in order, no broker outlives it, even when it is killed, and the end of a broker is not kept quiet.
func TestRealKafkaCommand(t *testing.T) {
	t.Parallel()
	kafkatest.Plain(t) // or the test is skipped: no Java
	bin := filepath.Join(t.TempDir(), "kafka")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../internal/kafkatest/kafka").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	first, c, _ := command(ctx, t, bin, dir, os.Stderr)
	admin := kadm.NewClient(kafkatest.Client(t, c))
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, "kept"); err != nil {
		t.Fatal(err)
	}
	if err := first.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	gone(ctx, t, c.Seeds[0])

	second, again, _ := command(ctx, t, bin, dir, os.Stderr)
	if again.Seeds[0] != c.Seeds[0] {
		t.Errorf("serves at %s, before at %s", again.Seeds[0], c.Seeds[0])
	}
	topics, err := kadm.NewClient(kafkatest.Client(t, again)).ListTopics(ctx)
	if err != nil || !topics.Has("kept") {
		t.Errorf("topics %v, %v", topics.Names(), err)
	}
	if err := second.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = second.Wait()
	gone(ctx, t, c.Seeds[0])

	var said strings.Builder
	third, _, broker := command(ctx, t, bin, dir, &said)
	if err := syscall.Kill(broker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := third.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("after its only broker was killed: %v, want exit code 1", err)
	}
	for _, want := range []string{fmt.Sprintf("broker 1 (pid %d) ended with signal: killed, 0 of 1 are left", broker), "node-1.log", "Kafka Server started", "no broker is left"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, said.String())
		}
	}
}

// command starts the command and returns when it says what to type next, with the cluster and the broker's process that
// it names.
func command(ctx context.Context, t *testing.T, bin, dir string, stderr io.Writer) (cmd *exec.Cmd, c kafka.Cluster, broker int) {
	t.Helper()
	cmd = exec.CommandContext(ctx, bin, "-dir", dir)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	export, pid := regexp.MustCompile(`export MILLRACE_BROKERS=(\S+)`), regexp.MustCompile(`broker 1 .* pid (\d+)`)
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if m := pid.FindStringSubmatch(lines.Text()); m != nil {
			broker, _ = strconv.Atoi(m[1])
		}
		if m := export.FindStringSubmatch(lines.Text()); m != nil {
			return cmd, kafka.Cluster{Seeds: strings.Split(m[1], ",")}, broker
		}
	}
	t.Fatalf("it ended: %s", said.String())
	return nil, kafka.Cluster{}, 0
}

// gone waits until nobody listens on address.
func gone(ctx context.Context, t *testing.T, address string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		_ = conn.Close()
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s still listens", address)
		}
	}
}
