package devbroker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// StatusFD is the file descriptor on which a child tells its parent how it stands, in lines.
const StatusFD = 3

const (
	maxStatus   = 64 << 10 // bytes of a status line
	statusDrain = time.Second
	backoffMax  = 5 * time.Second
	healthy     = 10 * time.Second // a child that lived this long starts over with the shortest backoff
	maxCrashes  = 10               // in a row, none of them healthy
)

// Process is a child process that is kept running: when it ends by itself it is started again, after a growing wait.
//
// The child is in a process group of its own, so that Ctrl-C reaches only the parent, which stops its children in
// order. Its standard input is a pipe that nobody writes to: when the parent is gone, however it went, the child
// reads the end of it and must end ([WithLifeline]). PR_SET_PDEATHSIG would not do: it fires when the parent's thread
// ends, which Go may do at any time.
type Process struct {
	// Name is what the child is called in errors. Required.
	Name string
	// Command makes the child, anew for each start, with exec.CommandContext of its ctx. Run sets its standard
	// streams, its group and descriptor [StatusFD]. Required.
	Command func(ctx context.Context) *exec.Cmd
	// Output gets what the child writes to its standard output and error. Nil discards it.
	Output io.Writer
	// Started is called after each start. Nil = nobody is told.
	Started func(pid int)
	// Status is called for each line that the child writes to StatusFD; the line is valid during the call. Nil
	// discards them.
	Status func(line []byte)
	// Ended is called when the child ended by itself; an error ends Run with it instead of another start. Nil = start
	// again.
	Ended func(Exit) error
	// Grace is how long the child may take to end when it is told to, before it is killed. Defaults to 3 s.
	Grace time.Duration
	// Backoff is the first wait before another start; it doubles up to 5 s. Defaults to 200 ms.
	Backoff time.Duration
}

// Exit is how a child ended.
type Exit struct {
	PID     int
	State   string        // "exit status 2", "signal: killed"
	Crashes int           // in a row, this one included
	Wait    time.Duration // until the next start
}

// Run keeps the child running until ctx ends, then ends it and returns nil. The error says that the child could not be
// started, or crashed ten times in a row within ten seconds of its start, or is what Ended returned.
func (p Process) Run(ctx context.Context) error {
	if p.Grace == 0 {
		p.Grace = 3 * time.Second
	}
	if p.Backoff == 0 {
		p.Backoff = 200 * time.Millisecond
	}
	crashes := 0
	for {
		began := time.Now()
		pid, state, err := p.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the child was told to end, however it took it
		case err != nil:
			return err
		}
		if time.Since(began) > healthy {
			crashes = 0
		}
		crashes++
		exit := Exit{PID: pid, State: state, Crashes: crashes, Wait: min(p.Backoff<<(crashes-1), backoffMax)}
		if p.Ended != nil {
			if err := p.Ended(exit); err != nil {
				return err
			}
		}
		if crashes >= maxCrashes {
			return fmt.Errorf("%s ended %d times in a row, at last with %s: not started again", p.Name, crashes, state)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(exit.Wait):
		}
	}
}

// once runs the child to its end.
func (p Process) once(ctx context.Context) (pid int, state string, err error) {
	cmd := p.Command(ctx)
	cmd.Stdout, cmd.Stderr = p.Output, p.Output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = p.Grace
	detach(cmd)
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return 0, "", fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer func() { _ = lifeline.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, "", fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer func() { _ = r.Close() }()
	cmd.ExtraFiles = []*os.File{w} // descriptor 3
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return 0, "", fmt.Errorf("start %s: %w", p.Name, err)
	}
	if p.Started != nil {
		p.Started(cmd.Process.Pid)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.readStatus(r)
	}()
	err = cmd.Wait()
	_ = r.SetReadDeadline(time.Now().Add(statusDrain)) // a grandchild may hold the other end
	<-read
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && cmd.ProcessState == nil {
		return 0, "", fmt.Errorf("wait for %s: %w", p.Name, err)
	}
	return cmd.Process.Pid, cmd.ProcessState.String(), nil
}

func (p Process) readStatus(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxStatus)
	for lines.Scan() {
		if p.Status != nil {
			p.Status(lines.Bytes())
		}
	}
	// A line that is too long: the rest must still be read, or the child blocks on its next one.
	_, _ = io.Copy(io.Discard, r)
}

// WithLifeline is a context that also ends when lifeline does: the standard input of a child of [Process], whose end
// says that the parent is gone. Its goroutine stays with a lifeline that never ends, up to the end of the process.
func WithLifeline(ctx context.Context, lifeline io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, lifeline)
		cancel(errors.New("the parent process has ended"))
	}()
	return ctx, func() { cancel(context.Canceled) }
}
