package integration_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/kafka"
)

// patience is how long a command, or a fact, may take on a machine that is busy with other tests.
const patience = 60 * time.Second

// shell is a person at a terminal: a working directory with bin/millrace in it, an environment, and the command lines
// typed so far.
type shell struct {
	whole   *testing.T // what is started may outlive a step
	step    *testing.T // that is being walked
	cluster kafka.Cluster
	dir     string
	env     []string
	typed   []string
	// registry is the one that serves the later steps.
	registry *running
}

// newShell builds the command into a directory that holds the demo's declarations too, as the repository does.
func newShell(t *testing.T, c kafka.Cluster) *shell {
	t.Helper()
	s := &shell{whole: t, cluster: c, dir: t.TempDir()}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(s.dir, "bin", "millrace"), "../../cmd/millrace")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	if err := os.CopyFS(filepath.Join(s.dir, "examples", "shop"), os.DirFS("../../examples/shop")); err != nil {
		t.Fatal(err)
	}
	s.write(t, ".git/HEAD", "") // settings are looked for up to here
	s.env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "MILLRACE_BROKERS=" + strings.Join(c.Seeds, ",")}
	return s
}

func (s *shell) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *shell) command(ctx context.Context, line string) *exec.Cmd {
	s.typed = append(s.typed, line)
	args := strings.Fields(line)
	for i, a := range args { // README quotes expressions, which have no blanks
		args[i] = strings.Trim(a, "'")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, args[0]), args[1:]...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = s.dir, s.env, time.Second
	return cmd
}

// run types a command line, waits for its end and checks its exit code.
func (s *shell) run(t *testing.T, code int, line, stdin string) (stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := s.command(ctx, line)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ctx.Err() != nil || exit == nil && code != 0 || exit != nil && exit.ExitCode() != code {
		t.Fatalf("%s: ends with %v, want the exit code %d\nstdout: %s\nstderr: %s", line, err, code, &out, &errs)
	}
	return out.String(), errs.String()
}

// start types a command line that goes on until it is told to stop.
func (s *shell) start(t *testing.T, line string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.whole.Context()))
	r := &running{line: line, cmd: s.command(ctx, line), out: newScreen(), err: newScreen(), ended: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.err
	if err := r.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait()
	}()
	s.whole.Cleanup(func() { cancel(); <-r.ended })
	return r
}

// running is a command that goes on.
type running struct {
	line     string
	cmd      *exec.Cmd
	out, err *screen
	ended    chan struct{}
}

// stop sends a signal and returns the exit code, -1 where the signal itself was the end.
func (r *running) stop(t *testing.T, sig os.Signal) int {
	t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("%s: %v\n%s", r.line, err, r.err)
	}
	return r.wait(t)
}

// wait waits for the command's end and returns its exit code.
func (r *running) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatalf("%s: does not end\n%s", r.line, r.err)
	}
	return r.cmd.ProcessState.ExitCode()
}

// screen is what a command has written so far.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	written chan struct{}
}

func newScreen() *screen { return &screen{written: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.written <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until text is on the screen.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(patience)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.written:
		case <-late:
			t.Fatalf("%q never came:\n%s", text, s)
		}
	}
}

// await waits until done says so.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// has fails the test when text lacks one of parts.
func has(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q:\n%s", what, p, text)
		}
	}
}

// freeAddress is a loopback address on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}
