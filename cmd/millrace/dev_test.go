package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// asMillrace is the variable that makes the test binary the command, so that it can be its own child.
const asMillrace = "TEST_AS_MILLRACE"

// factWait is how long a test waits for a fact. A killed member of a group holds its partitions for 45 seconds.
const factWait = 90 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(asMillrace) != "" {
		main()
		return
	}
	m.Run()
}

// devRun is millrace dev in a child process, and what it said so far.
type devRun struct {
	cmd   *exec.Cmd
	lines chan string
	said  []string
	ended bool
	err   strings.Builder
}

// command is a command line in a process of its own, which ends with the test at the latest.
func command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MILLRACE_") })
	cmd.Env = append(cmd.Env, asMillrace+"=1")
	return cmd
}

func startDev(t *testing.T, dir string, args ...string) *devRun {
	t.Helper()
	d := &devRun{cmd: command(t.Context(), dir, append([]string{"dev"}, args...)...), lines: make(chan string, 10_000)}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = &d.err
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go d.scan(out)
	t.Cleanup(func() {
		if !d.ended {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("millrace dev said:\n%s\n%s", strings.Join(d.said, "\n"), d.err.String())
		}
	})
	return d
}

func (d *devRun) scan(r io.Reader) {
	defer close(d.lines)
	for s := bufio.NewScanner(r); s.Scan(); {
		d.lines <- s.Text()
	}
}

// await waits for a line that matches and returns its groups.
func (d *devRun) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.NewTimer(factWait)
	defer late.Stop()
	for {
		select {
		case l, ok := <-d.lines:
			if !ok {
				t.Fatalf("millrace dev ended before %q", pattern)
			}
			d.said = append(d.said, l)
			if m := re.FindStringSubmatch(l); m != nil {
				return m
			}
		case <-late.C:
			t.Fatalf("waited %v in vain for %q", factWait, pattern)
		}
	}
}

// stop presses Ctrl-C, as it were, and returns how long the end took.
func (d *devRun) stop(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for range d.lines { // to the end of its output
	}
	d.ended = true
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("the end: got %v, want exit code 0", err)
	}
	return time.Since(began)
}

func number10(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.ReplaceAll(s, ",", ""))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func endOf(t *testing.T, addr, topic string) int64 {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), factWait)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

const (
	brokerLine = `broker +(127\.0\.0\.1:\d+) +pid (\d+)`
	// a service that runs and has handled something, with its process
	fraudLine = `fraud +running +[1-9][\d.]*/s .* of [\d,]+ +(\d+) +\d+ `
)

// The demo from its first start over the kill of a service and of the broker to a restart that goes on.
func TestDevDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := startDev(t, dir, "--demo", "--port", "0", "--registry-port", "0", "--for", "5m")
	m := d.await(t, brokerLine)
	addr, broker := m[1], number10(t, m[2])
	registry := d.await(t, `registry +(http://127\.0\.0\.1:\d+)`)[1]
	d.await(t, `export MILLRACE_BROKERS=`+addr)
	d.await(t, `export MILLRACE_REGISTRY=`+registry)
	fraud := number10(t, d.await(t, fraudLine)[1])
	d.await(t, `checkout +running +[1-9].* orders paid`)
	d.await(t, `gateway +running +[1-9].* [1-9][\d,]* accepted, [1-9]\d* duplicate, [1-9]\d* rejected \(\d+ mismatch`)

	t.Run("a second one in the directory is refused and told what to do", func(t *testing.T) {
		cmd := command(t.Context(), dir, "dev")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != codeRefused {
			t.Errorf("got %v, want exit code %d", err, codeRefused)
		}
		for _, want := range []string{fmt.Sprintf("process %d", d.cmd.Process.Pid), addr, registry, "kill ", "--data"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("it does not say %q:\n%s", want, out)
			}
		}
	})
	t.Run("the registry has its health", func(t *testing.T) {
		for _, path := range []string{"/healthz", "/readyz", "/subjects/shop.orders-value/versions/1"} {
			resp, err := http.Get(registry + path)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s: got %d, want 200", path, resp.StatusCode)
			}
		}
	})

	if err := syscall.Kill(fraud, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.await(t, fmt.Sprintf(`fraud \(pid %d\) ended with signal: killed and is started again`, fraud))
	if err := syscall.Kill(broker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.await(t, fmt.Sprintf(`the broker \(pid %d\) crashed with signal: killed .*broker\.log`, broker))
	if back := d.await(t, `the broker is back \(pid \d+\) at (\S+)`)[1]; back != addr {
		t.Errorf("the broker is back at %s, want %s", back, addr)
	}
	again := number10(t, d.await(t, fraudLine)[1])
	if again == fraud {
		t.Error("fraud has the process that was killed")
	}
	d.stop(t)
	if !gone(again) {
		t.Error("a service outlived millrace dev")
	}

	d = startDev(t, dir) // the demo's topics stay, its services do not run
	if m := d.await(t, brokerLine); m[1] != addr {
		t.Errorf("the broker after the restart: got %s, want %s", m[1], addr)
	}
	if n := endOf(t, addr, "shop.orders"); n == 0 {
		t.Error("the orders are gone after the restart")
	}
	d.stop(t)
}

// A stop of the whole demo takes five seconds at most, and twice that where other tests want the machine too.
func TestDevStopsInTime(t *testing.T) {
	t.Parallel()
	limit := 10 * time.Second
	if os.Getenv("MILLRACE_ALONE") == "true" { // the tier "alone"
		limit = 5 * time.Second
	}
	d := startDev(t, t.TempDir(), "--demo", "--port", "0", "--registry-port", "0", "--for", "5m")
	d.await(t, brokerLine)
	d.await(t, fraudLine)
	took := d.stop(t)
	t.Logf("stopped after %v", took)
	if took > limit {
		t.Errorf("the stop took %v, want less than %v", took, limit)
	}
}

// What the current directory declares is there when the screen is.
func TestDevDeclaresTheDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"topics/orders.yaml": ordersYAML, "schemas/order_placed.avsc": ordersAVSC,
		"topics/broken.yaml": "name: shop.broken\ncolour: red\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := startDev(t, dir, "--port", "0", "--registry-port", "0")
	d.await(t, `registry +http://`)
	d.await(t, `broken\.yaml:2: .*colour`) // a fault is shown, and the rest goes on
	d.stop(t)

	if err := os.Remove(filepath.Join(dir, "topics/broken.yaml")); err != nil {
		t.Fatal(err)
	}
	d = startDev(t, dir)
	addr := d.await(t, brokerLine)[1]
	registry := d.await(t, `registry +(http://\S+)`)[1]
	d.await(t, `millrace tail shop\.orders`)
	if n := endOf(t, addr, "shop.orders"); n != 0 {
		t.Errorf("%d orders, want an empty topic", n)
	}
	resp, err := http.Get(registry + "/subjects/shop.orders-value/versions/latest")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the schema: got %d, want 200", resp.StatusCode)
	}
	d.stop(t)
}

// A parent that is killed takes its children along.
func TestDevKilledLeavesNoChild(t *testing.T) {
	t.Parallel()
	d := startDev(t, t.TempDir(), "--no-registry", "--port", "0")
	pid := number10(t, d.await(t, brokerLine)[2])
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.ended = true
	_ = d.cmd.Wait()
	late := time.After(factWait)
	for tick := time.NewTicker(20 * time.Millisecond); !gone(pid); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the broker (pid %d) outlived its parent", pid)
		}
	}
}

func TestDevEndsByItself(t *testing.T) {
	t.Parallel()
	d := startDev(t, t.TempDir(), "--no-registry", "--port", "0", "--for", "2s")
	d.await(t, brokerLine)
	for range d.lines { // to its end
	}
	d.ended = true
	if err := d.cmd.Wait(); err != nil || !strings.Contains(d.err.String(), "goes on from here") {
		t.Errorf("got %v and %q, want exit code 0 and what to do next", err, d.err.String())
	}
}

// On data that it does not read it refuses, says what to type, and what it says works.
func TestDevFresh(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, ".millrace", "broker", "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "meta.json"), []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"dev", "--no-registry", "--port", "0", "--for", "1s"}
	ctx, cancel := context.WithTimeout(t.Context(), factWait)
	defer cancel()
	out, err := command(ctx, dir, args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "format 2") || !strings.Contains(string(out), "millrace dev --fresh") {
		t.Fatalf("got %v and %q, want a refusal that says --fresh", err, out)
	}
	out, err = command(ctx, dir, append(args, "--fresh")...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "starts empty") {
		t.Fatalf("--fresh: got %v and %q, want a start", err, out)
	}
	kept, err := filepath.Glob(data + ".*/meta.json")
	if err != nil || len(kept) != 1 {
		t.Errorf("the data that were there: got %v, %v, want one file kept", kept, err)
	}
}

func TestDevUsage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"a port that is none", []string{"dev", "--port", "70000"}, "0 to 65535"},
		{"the demo without a registry", []string{"dev", "--demo", "--no-registry"}, "--demo needs the registry"},
		{"an argument", []string{"dev", "now"}, "takes no argument"},
		{"no role", []string{"serve"}, "registry: a schema registry"},
		{"an unknown role", []string{"serve", "kitchen"}, "registry: a schema registry"},
		{"the broker by hand", []string{"broker"}, "millrace dev"},
		{"an unknown service", []string{"shop", "bakery"}, "storefront"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // one that is not refused would run on
			defer cancel()
			cmd := command(ctx, t.TempDir(), tt.args...)
			cmd.WaitDelay = time.Second
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != codeUsage || !strings.Contains(string(out), tt.want) {
				t.Errorf("got %v and %q, want exit code %d and %q", err, out, codeUsage, tt.want)
			}
		})
	}
}
