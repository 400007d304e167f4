package pgtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// process is a child that ends with us.
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

// start runs argv in dir with its output appended to the file log.
//
// The kernel ends the child when the thread that made it ends, which in Go is any time. So one goroutine holds a
// thread of its own from the start to the end of the child.
func start(argv []string, log, dir string, attr *syscall.SysProcAttr) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.SysProcAttr = out, out, dir, attr
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

// children are the processes whose parent is pid: a server's backends. Where there is no /proc there are none, and
// backends end by themselves once they miss their parent.
func children(pid int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var found []int
	for _, name := range stats {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …, and the name may hold anything.
		f := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
		if len(f) < 2 || string(f[1]) != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			found = append(found, child)
		}
	}
	return found
}

// alive reports whether a process runs; one that nobody has waited for yet does not.
func alive(pid int) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	f := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	return len(f) > 0 && string(f[0]) != "Z"
}

const prefix = "millrace-postgres-"

// temporary makes a directory for one server, after removing those that earlier processes left behind: a test binary
// ends without a word to us.
func temporary() (string, error) {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		if abandoned(dir) {
			_ = os.RemoveAll(dir) // someone else may be at it too
		}
	}
	return os.MkdirTemp("", prefix)
}

// abandoned reports whether no server runs on the directory: postmaster.pid names its process.
func abandoned(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil || time.Since(info.ModTime()) < 10*time.Minute {
		return false // perhaps it is about to start, or was killed and will start again
	}
	raw, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	pid, err := strconv.Atoi(string(line))
	return err != nil || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
