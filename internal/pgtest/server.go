package pgtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	bootTimeout = time.Minute // recovery after a kill included
	stopTimeout = 15 * time.Second
	superuser   = "millrace"
)

// ErrMissing says that this machine has no PostgreSQL.
var ErrMissing = errors.New("no PostgreSQL on this machine (Debian: apt-get install postgresql)")

// Config says which server to start. The zero value is quick and forgets: a temporary directory, without fsync.
type Config struct {
	// Fsync has every commit wait for the disk, as in production: for benchmarks. Without it a commit survives the end
	// of the server and not that of the machine.
	Fsync bool
	// Dir keeps the data from run to run. Empty is a temporary directory, removed by Close.
	Dir string
	// Settings are added to the server's configuration, "max_connections=20", and win over ours.
	Settings []string
	// Progress is told what happens, a line each. Nil is silent.
	Progress io.Writer
}

// Server is a PostgreSQL that runs, or ran. Its methods may be called by any goroutine.
type Server struct {
	// Version as the server says it: "15.14".
	Version string
	// Address is where it listens, host:port.
	Address string
	// Dir holds the data and the log.
	Dir string

	cfg       Config
	bin       string
	owner     *syscall.Credential // who it runs as; nil = who we are
	temporary bool

	mu   sync.Mutex
	proc *process
}

// Boot starts a server and returns when it serves. The caller closes it; it also ends with this process, however that
// ends. [ErrMissing] is returned where there is no PostgreSQL.
func Boot(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, bin: bin, Dir: cfg.Dir}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare PostgreSQL: %w", err), s.remove())
	}
	for attempt := 1; ; attempt++ {
		if s.Address, err = freeAddress(); err != nil {
			break
		}
		if err = s.Start(ctx); err == nil {
			return s, nil
		}
		if attempt == 3 || !strings.Contains(s.tail(), "Address already in use") {
			err = fmt.Errorf("%w: %s", err, s.tail())
			break
		}
		fmt.Fprintln(cfg.Progress, "a port was taken meanwhile: starting again on another")
	}
	return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), s.Close())
}

// binaries is the folder of the newest PostgreSQL.
func binaries() (string, error) {
	if p, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(p), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", ErrMissing
	}
	version := func(p string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p))))
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) })), nil
}

// prepare makes the data directory, as a user that PostgreSQL agrees to run as.
func (s *Server) prepare(ctx context.Context) error {
	if os.Geteuid() == 0 {
		owner, err := lookup("postgres")
		if err != nil {
			return err
		}
		s.owner = owner
	}
	if s.Dir == "" {
		dir, err := temporary()
		if err != nil {
			return err
		}
		s.Dir, s.temporary = dir, true
	}
	dir, err := filepath.Abs(s.Dir)
	if err != nil {
		return err
	}
	s.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if s.owner != nil {
		if err := os.Chown(dir, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(s.data(), "PG_VERSION")); err == nil {
		return nil
	}
	fmt.Fprintln(s.cfg.Progress, "making a PostgreSQL cluster in", dir)
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = dir, s.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run initdb: %w: %s", err, out)
	}
	return nil
}

func lookup(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (s *Server) data() string    { return filepath.Join(s.Dir, "data") }
func (s *Server) logFile() string { return filepath.Join(s.Dir, "log") }

// attributes has the child run as owner and end with us.
func (s *Server) attributes() *syscall.SysProcAttr {
	attr := endWithParent()
	attr.Credential = s.owner
	return attr
}

// Start starts a server that does not run, on the address it had, and returns when it serves.
func (s *Server) Start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return err
	}
	argv := []string{filepath.Join(s.bin, "postgres"), "-D", s.data(), "-h", host, "-p", port, "-k", "", "-c", "timezone=UTC", "-c", "log_line_prefix=%m %p "}
	if !s.cfg.Fsync {
		argv = append(argv, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	for _, setting := range s.cfg.Settings {
		argv = append(argv, "-c", setting)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && !s.proc.ended() {
		return errors.New("start PostgreSQL: it runs")
	}
	proc, err := start(argv, s.logFile(), s.Dir, s.attributes()) //nolint:contextcheck // a server outlives the context that started it
	if err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	s.proc = proc
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	return s.wait(ctx, proc)
}

// wait returns when the server answers a query.
func (s *Server) wait(ctx context.Context, proc *process) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-proc.done:
			return fmt.Errorf("PostgreSQL ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("wait for PostgreSQL: %w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

func (s *Server) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	s.Version, _, _ = strings.Cut(conn.PgConn().ParameterStatus("server_version"), " ")
	return conn.Close(ctx)
}

// DSN is how to reach a database of the server.
func (s *Server) DSN(database string) string {
	return "postgres://" + superuser + "@" + s.Address + "/" + database + "?sslmode=disable"
}

// PID is the server's process, 0 when it does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || s.proc.ended() {
		return 0
	}
	return s.proc.cmd.Process.Pid
}

// Kill ends the server and its backends as a power cut would (SIGKILL), and returns when they are gone.
func (s *Server) Kill() error {
	pid := s.PID()
	if pid == 0 {
		return nil
	}
	// A postmaster that sees a backend die starts the others anew: it is stopped first.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	backends := children(pid)
	if err := s.end(syscall.SIGKILL); err != nil {
		return err
	}
	for _, b := range backends {
		_ = syscall.Kill(b, syscall.SIGKILL) // it may have ended
	}
	deadline := time.Now().Add(stopTimeout)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(backends, alive) {
		if time.Now().After(deadline) {
			return fmt.Errorf("kill PostgreSQL: backends %v still run after %s", backends, stopTimeout)
		}
		<-tick.C
	}
	return nil
}

// Restart ends the server in order, cutting the sessions (SIGINT), and starts it again.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.end(syscall.SIGINT); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Pause freezes the server and its backends: connections stay open and nothing answers.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	pid := s.PID()
	if pid == 0 {
		return fmt.Errorf("send PostgreSQL %s: it does not run", sig)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("send PostgreSQL %s: %w", sig, err)
	}
	for _, b := range children(pid) {
		_ = syscall.Kill(b, sig) // it may have ended
	}
	return nil
}

func (s *Server) end(sig syscall.Signal) error {
	s.mu.Lock()
	p := s.proc
	s.mu.Unlock()
	if p == nil || p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end PostgreSQL: %w", err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("end PostgreSQL: it still runs after %s", stopTimeout)
	}
}

// Close ends the server: in order where its directory stays, at once where it goes.
func (s *Server) Close() error {
	if pid := s.PID(); pid != 0 {
		_ = s.Resume() // a paused one hears nothing
	}
	sig := syscall.SIGQUIT
	if !s.temporary {
		sig = syscall.SIGINT
	}
	return errors.Join(s.end(sig), s.remove())
}

func (s *Server) remove() error {
	if !s.temporary {
		return nil
	}
	return os.RemoveAll(s.Dir)
}

// tail is the end of the server's log.
func (s *Server) tail() string {
	raw, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(raw[max(0, len(raw)-4096):]))
}

// freeAddress is a loopback address that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // local
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}
