package devbroker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// Supervisor says how a broker's child process is made, and who is told about it.
type Supervisor struct {
	// Command makes the child: a process that calls [Child]. addr is the address to listen on: Addr at first, then
	// the one the broker had, so that a restart is where clients expect it. Required.
	Command func(ctx context.Context, addr string) *exec.Cmd
	// Addr is handed to the first Command. Defaults to "": what the broker's directory remembers, or a free port.
	Addr string
	// Log is the child's log. It also keeps its last words for Down. Required.
	Log *LogFile
	// Up is called when the broker answers, after each start. Nil = nobody is told.
	Up func(Up)
	// Full is called when the broker begins to refuse writes, because its data have reached their largest size, and
	// when it takes them again. Nil = nobody is told.
	Full func(full bool)
	// Down is called when the broker has crashed. Nil = nobody is told.
	Down func(Down)
}

// Up is a broker that answers.
type Up struct {
	Addr string
	PID  int
}

// Down is a broker that crashed.
type Down struct {
	Exit
	LastWords string // the panic, or the last line that the child wrote
	Log       string // the file with the rest
}

// childError is an error that crossed from the child: its words are there already.
type childError struct {
	reason string
	wraps  error // ErrTaken, ErrUnreadable or nil
}

func (e *childError) Error() string { return e.reason }
func (e *childError) Unwrap() error { return e.wraps }

// status is what the child says on its status descriptor: one of the three.
type status struct {
	Addr  string `json:"addr,omitempty"`
	Error string `json:"error,omitempty"`
	Full  *bool  `json:"full,omitempty"`

	Taken      bool `json:"taken,omitempty"`      // the error wraps ErrTaken
	Unreadable bool `json:"unreadable,omitempty"` // the error wraps ErrUnreadable
}

func (s status) cause() error {
	switch {
	case s.Taken:
		return ErrTaken
	case s.Unreadable:
		return ErrUnreadable
	default:
		return nil
	}
}

// Supervise keeps a broker running in a child process until ctx ends, and returns nil then. A broker that does not
// come up at first is an error with the child's own reason, because a person must act; one that was up and crashed is
// started again at the same address.
func Supervise(ctx context.Context, s Supervisor) error {
	var (
		addr   = s.Addr
		up     bool
		reason string
		cause  error
		pid    int
	)
	p := Process{
		Name:    "the broker",
		Command: func(ctx context.Context) *exec.Cmd { return s.Command(ctx, addr) },
		Output:  s.Log,
		Grace:   closeWait,
		Started: func(id int) { pid, reason, cause = id, "", nil },
		Status: func(line []byte) {
			var st status
			if json.Unmarshal(line, &st) != nil {
				return
			}
			if st.Full != nil && s.Full != nil {
				s.Full(*st.Full)
			}
			if st.Error != "" {
				reason, cause = st.Error, st.cause()
			}
			if st.Addr == "" {
				return
			}
			addr, up = st.Addr, true
			if s.Up != nil {
				s.Up(Up{Addr: addr, PID: pid})
			}
		},
		Ended: func(e Exit) error {
			if !up {
				if reason == "" {
					reason = fmt.Sprintf("%s: %s (%s)", e.State, s.Log.LastWords(), s.Log.Name())
				}
				return &childError{reason, cause}
			}
			if errors.Is(cause, ErrUnreadable) {
				return &childError{reason, cause} // starting again would not help
			}
			if s.Down != nil {
				words := reason
				if words == "" {
					words = s.Log.LastWords()
				}
				s.Down(Down{Exit: e, LastWords: words, Log: s.Log.Name()})
			}
			return nil
		},
	}
	if err := p.Run(ctx); err != nil {
		return fmt.Errorf("run the broker: %w", err)
	}
	return nil
}

// Child is [Serve] as the child of [Supervise]: it says on out that it answers or why not, and ends with lifeline, the
// standard input that its parent holds.
func Child(ctx context.Context, cfg Config, lifeline io.Reader, out io.Writer) error {
	ctx, cancel := WithLifeline(ctx, lifeline)
	defer cancel()
	say := json.NewEncoder(out)
	cfg.Ready = func(addr string) { _ = say.Encode(status{Addr: addr}) } // a parent that is gone ends the lifeline
	cfg.Full = func(full bool) { _ = say.Encode(status{Full: &full}) }
	err := Serve(ctx, cfg)
	if err != nil {
		_ = say.Encode(status{Error: err.Error(), Taken: errors.Is(err, ErrTaken), Unreadable: errors.Is(err, ErrUnreadable)})
	}
	return err
}
