package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
)

const (
	// exitData is EX_DATAERR of sysexits.h.
	exitData = 65

	killWait  = 2 * time.Second // for the output of a command that was killed
	maxStderr = 1 << 10
)

// Command runs a command for each event: a process per event, because an exit code is an answer, and a line that was
// written to a pipe is none. The value is its stdin; EVENT_ID, EVENT_TYPE, EVENT_SOURCE, EVENT_TIME, EVENT_TOPIC, EVENT_PARTITION,
// EVENT_OFFSET, EVENT_TIMESTAMP (milliseconds), EVENT_KEY and EVENT_REPLAY are added to env. It exits with 0 when the event is delivered, with
// 65 (EX_DATAERR) when no further attempt would help, and is run again after any other code. What it prints goes to
// out, nil is nowhere; the end of what it prints to stderr stands in the error.
func Command(out io.Writer, env []string, name string, args ...string) Target {
	if out == nil {
		out = io.Discard
	}
	return &command{name: name, args: args, env: env, out: &sharedWriter{w: out}}
}

type command struct {
	name string
	args []string
	env  []string
	out  io.Writer
}

// Deliver implements [Target].
func (c *command) Deliver(ctx context.Context, e event.Event) error {
	cmd := exec.CommandContext(ctx, c.name, c.args...)
	cmd.Env = append(append([]string(nil), c.env...), environment(ctx, &e)...)
	cmd.Stdin, cmd.Stdout, cmd.WaitDelay = bytes.NewReader(e.Value), c.out, killWait
	var last tail
	cmd.Stderr = &last
	err := cmd.Run()
	if err == nil {
		return nil
	}
	exit, ran := errors.AsType[*exec.ExitError](err)
	if errors.Is(err, syscall.E2BIG) {
		return consumer.DeadLetter(fmt.Errorf("run %s: the event's key or attributes are too long for variables: %w", c.name, err))
	}
	if !ran && cmd.Process == nil {
		return consumer.Stop(fmt.Errorf("run %s: %w", c.name, err))
	}
	err = fmt.Errorf("run %s: %w: %q", c.name, err, strings.TrimSpace(string(last)))
	if ran && exit.ExitCode() == exitData {
		return consumer.DeadLetter(err)
	}
	return err
}

func environment(ctx context.Context, e *event.Event) []string {
	r, _ := event.InReplay(ctx)
	vars := []string{
		"EVENT_ID=" + e.ID, "EVENT_TYPE=" + e.Type, "EVENT_SOURCE=" + e.Source, "EVENT_TIME=" + e.Time.UTC().Format(time.RFC3339Nano),
		"EVENT_TOPIC=" + e.Topic, "EVENT_PARTITION=" + strconv.Itoa(int(e.Partition)), "EVENT_OFFSET=" + strconv.FormatInt(e.Offset, 10),
		"EVENT_TIMESTAMP=" + strconv.FormatInt(e.Published.UnixMilli(), 10), "EVENT_KEY=" + string(e.Key), "EVENT_REPLAY=" + r.ID,
	}
	for i, v := range vars { // a variable ends at its first zero byte
		vars[i], _, _ = strings.Cut(v, "\x00")
	}
	return vars
}

// sharedWriter is written to by the commands of several workers.
type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p) //nolint:wrapcheck // a writer around a writer
}

// tail keeps the last bytes that were written.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if n := len(*t); n > maxStderr {
		*t = append((*t)[:0], (*t)[n-maxStderr:]...)
	}
	return len(p), nil
}
