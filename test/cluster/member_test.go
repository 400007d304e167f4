package cluster_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/service"
)

// The variables that make this test binary a member of the fault run's group.
const (
	faultJournal = "MILLRACE_FAULT_JOURNAL"
	faultTopic   = "MILLRACE_FAULT_TOPIC"
	faultGroup   = "MILLRACE_FAULT_GROUP"
)

func TestMain(m *testing.M) {
	for variable, run := range map[string]func(journal string) error{faultJournal: runMember, sinkJournal: runSinkMember} {
		name := os.Getenv(variable)
		if name == "" {
			continue
		}
		if err := run(name); err != nil {
			fmt.Fprintln(os.Stderr, "member:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runMember consumes until SIGTERM and writes to the journal what it handled and what it committed.
func runMember(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var s service.Settings
	if err := s.FromEnv(os.Getenv); err != nil {
		return err
	}
	cluster, err := s.Cluster()
	if err != nil {
		return err
	}
	log, err := s.Logger(zapcore.Lock(os.Stderr))
	if err != nil {
		return err
	}
	reg, err := s.Registry(log)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	j := &journal{out: out}
	nap := newNap(j)
	cluster.Dial = nap.dial
	mux := consumer.NewMux()
	consumer.OnBatch(mux, func(_ context.Context, es []event.Of[step]) error {
		nap.take()
		return j.handled(es)
	})
	return consumer.Run(ctx, cluster, reg, mux, consumer.Config{
		Group: os.Getenv(faultGroup), Topics: []string{os.Getenv(faultTopic)},
		SessionTimeout: sessionTimeout, CommitEvery: 50 * time.Millisecond, Batch: 50, Observer: j, Log: log,
	})
}

// journal writes what a member did, a line each, with one write a batch: what was written survives kill -9.
type journal struct {
	nothing
	mu  sync.Mutex
	out *os.File
	buf []byte
}

func (j *journal) handled(es []event.Of[step]) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = j.buf[:0]
	now := time.Now().UnixNano()
	for i := range es {
		j.buf = fmt.Appendf(j.buf, "handled %d %s %d\n", now, es[i].Data.Key, es[i].Data.Seq)
	}
	_, err := j.out.Write(j.buf)
	return err
}

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = fmt.Fprintf(j.out, format+"\n", args...)
}

// Committed implements [consumer.Observer].
func (j *journal) Committed(_ int, took time.Duration, err error) {
	if err != nil {
		j.note("refused %s: %q", took, err)
		return
	}
	j.note("committed %s", took)
}

// nap stops the process in the middle of a handler when SIGUSR1 asks for it. What brokers say reaches the process only
// half a second after it wakes, so that it finishes its batch and commits before it can hear that it was given up for
// dead: the commit that must be refused.
type nap struct {
	journal *journal
	wanted  chan os.Signal
	awake   atomic.Pointer[chan struct{}] // closed: brokers are heard
}

const deaf = 500 * time.Millisecond

func newNap(j *journal) *nap {
	n := &nap{journal: j, wanted: make(chan os.Signal, 1)}
	open := make(chan struct{})
	close(open)
	n.awake.Store(&open)
	signal.Notify(n.wanted, syscall.SIGUSR1)
	return n
}

func (n *nap) take() {
	select {
	case <-n.wanted:
	default:
		return
	}
	heard := make(chan struct{})
	n.awake.Store(&heard)
	n.journal.note("asleep")
	began := time.Now()
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	for tick := time.NewTicker(time.Millisecond); time.Since(began) < deaf; <-tick.C {
		// The signal stops another thread first, perhaps: this one must not go on before it is stopped as well.
	}
	time.AfterFunc(deaf, func() { close(heard) })
}

func (n *nap) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &napConn{conn, n}, nil
}

type napConn struct {
	net.Conn
	nap *nap
}

func (c *napConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	<-*c.nap.awake.Load()
	return n, err
}

// nothing is an observer that sees nothing.
type nothing struct{}

func (nothing) Attempted(cursor.ID, string, consumer.Kind, int, time.Duration) {}
func (nothing) DeadLettered(cursor.ID, string, string)                         {}
func (nothing) Assigned(map[cursor.ID]int64)                                   {}
func (nothing) Revoked([]cursor.ID, bool)                                      {}
func (nothing) Handled(cursor.ID, int, int, time.Duration)                     {}
func (nothing) Lag(cursor.ID, int64, time.Duration)                            {}
func (nothing) Problem(cursor.ID, error)                                       {}
