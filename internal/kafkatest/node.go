package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a broker may take to leave in order before it is killed.
const stopTimeout = 15 * time.Second

// Node is one broker and controller of a cluster. Its methods may be called by any goroutine.
type Node struct {
	// ID is the broker's id, from 1.
	ID int
	// Address is where clients reach it, host:port.
	Address string

	controller string // host:port
	dir        string
	log        string
	java       []string // the command line

	mu   sync.Mutex
	proc *process // nil when it does not run
}

func (n *Node) data() string     { return filepath.Join(n.dir, "data") }
func (n *Node) config() string   { return filepath.Join(n.dir, "server.properties") }
func (n *Node) keystore() string { return filepath.Join(n.dir, "keystore.pem") }

// Start starts the broker and returns at once; Running.Wait waits until it serves.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc != nil && !n.proc.ended() {
		return fmt.Errorf("start broker %d: it runs", n.ID)
	}
	p, err := start(n.java, n.log)
	if err != nil {
		return fmt.Errorf("start broker %d: %w", n.ID, err)
	}
	n.proc = p
	return nil
}

// Kill ends the broker as a power cut would (SIGKILL), and returns when it is gone.
func (n *Node) Kill() error { return n.end(syscall.SIGKILL, stopTimeout) }

// Stop asks the broker to leave in order (SIGTERM): it hands its leaderships over first. One that takes longer
// than 15 s, as the last of a cluster does, is killed.
func (n *Node) Stop() error {
	if err := n.end(syscall.SIGTERM, stopTimeout); err == nil {
		return nil
	}
	return n.Kill()
}

// Pause freezes the broker (SIGSTOP): its connections stay open and nothing answers.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Resume ends Pause (SIGCONT).
func (n *Node) Resume() error { return n.signal(syscall.SIGCONT) }

// PID is the broker's process: for people who end one by hand. 0 when it does not run.
func (n *Node) PID() int {
	if p := n.running(); p != nil && !p.ended() {
		return p.cmd.Process.Pid
	}
	return 0
}

// Wait waits until the broker's process ends, or ctx, and returns how it did, with the last lines of its log.
func (n *Node) Wait(ctx context.Context) (End, error) {
	p := n.running()
	if p == nil {
		return End{}, fmt.Errorf("wait for broker %d: it was not started", n.ID)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return End{}, ctx.Err()
	}
	raw, err := os.ReadFile(n.log)
	if err != nil {
		return End{}, fmt.Errorf("read why broker %d ended: %w", n.ID, err)
	}
	lines := strings.Split(tail(raw), "\n")
	return End{PID: p.cmd.Process.Pid, State: p.cmd.ProcessState.String(), Words: lines[max(len(lines)-lastLines, 0):], Log: n.log}, nil
}

// End is how a broker ended.
type End struct {
	PID   int
	State string   // "signal: killed", "exit status 1"
	Words []string // the last lines of its log
	Log   string   // the file
}

// lastLines is how many lines of a log tell how a broker ended.
const lastLines = 5

func (n *Node) running() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

func (n *Node) signal(s syscall.Signal) error {
	p := n.running()
	if p == nil || p.ended() {
		return fmt.Errorf("send broker %d %s: it does not run", n.ID, s)
	}
	return p.cmd.Process.Signal(s)
}

func (n *Node) end(s syscall.Signal, limit time.Duration) error {
	p := n.running()
	if p == nil || p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end broker %d: %w", n.ID, err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("end broker %d: it still runs after %s", n.ID, limit)
	}
}

// process is a child that dies with us.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// start runs argv with its output appended to the file log.
//
// The kernel kills the child when the thread that made it ends, which in Go is any time. So one goroutine holds a
// thread of its own from the start to the end of the child.
func start(argv []string, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer func() { _ = out.Close() }()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// runTool runs one of Kafka's command line tools to its end.
func runTool(ctx context.Context, classpath, class string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	argv := append([]string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classpath, class}, args...)
	cmd := exec.CommandContext(ctx, "java", argv...)
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", class[strings.LastIndex(class, ".")+1:], err, tail(out))
	}
	return nil
}
