// Package devbroker is the broker of millrace dev: kfake, a Kafka broker in Go, made safe to leave running on a
// developer's machine. It is one broker without replication, for development only.
//
// Two processes share the work. [Serve] is the broker itself, in a child process, because a panic in one of its
// goroutines cannot be recovered. [Supervise] is the parent's side: it starts the child, learns its address, starts
// it again when it crashes, and takes it along when it ends.
//
//	// parent: the same binary again, with a hidden command
//	err := devbroker.Supervise(ctx, devbroker.Supervisor{
//		Command: func(ctx context.Context, addr string) *exec.Cmd { return exec.CommandContext(ctx, self, "broker", "--addr", addr) },
//		Up:      func(up devbroker.Up) { fmt.Println("broker", up.Addr) },
//	})
//
//	// child: the hidden command
//	err := devbroker.Child(ctx, devbroker.Config{Dir: ".millrace/broker"}, os.Stdin, os.NewFile(devbroker.StatusFD, "status"))
//
// # What the wrapper adds
//
// A directory has one broker at a time, by a lock that is taken before anything is read. Only loopback is listened
// on. Every request's size, key and version are checked before kfake sees it, and connections, their idle time and
// the bytes they announce are bounded: see guard.go. Retention runs after a restart too, and the session timeouts are
// short. Data of another format, damaged, or too large to be loaded are refused ([ErrUnreadable]) and never cut;
// [SetAside] makes room for new ones. At the largest size writes are refused.
//
// # What it promises
//
// Every start checks all data, and makes them whole unless the last end was a clean one ([Recover]). So a kill at any
// moment loses nothing acknowledged, an idempotent producer's batches are there once, and a transaction is there as a
// whole or not at all. With SyncWrites that holds for a power failure too.
//
// It does not promise: positions that a transaction commits (a kill in the middle of its commit may lose them, and what
// follows them is read again); a producer that is told INVALID_TXN_STATE after a kill does not know how its commit
// ended; a disk that fails; DeleteRecords, which a kill may undo; and topics are not compacted, because kfake removes a
// partition before it writes what stays of it.
package devbroker

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

const (
	preferredPort   = 9092
	lockWait        = 5 * time.Second // for a predecessor that is writing its last state
	closeWait       = 2 * time.Second // for the state to be saved
	retentionPeriod = 30 * time.Second
	sizePeriod      = time.Second
	retentionShare  = 8        // of MaxSize is what a partition keeps, unless its topic says otherwise
	segmentBytes    = 16 << 20 // retention frees whole segments
	endTxnVersion   = 5        // the first that gives each transaction an epoch of its own
	cleanMark       = "clean"
	// never is how often kfake compacts. It deletes a partition's segments before it writes what stays, so that a kill
	// in between would lose acknowledged records.
	never = 10 * 365 * 24 * time.Hour
	// sessionTimeout is how long a killed consumer holds its partitions under the KIP-848 protocol; 45 s is Kafka's
	// default and too long to look at.
	sessionTimeout = 10 * time.Second
)

// Config says where a broker keeps its data and where it listens.
type Config struct {
	// Dir is the broker's directory; it is made when missing, readable by its owner alone. Required.
	Dir string
	// Addr is host:port; the host must be loopback, and port 0 picks a free port. Defaults to the address that Dir
	// remembers, at the first start to 127.0.0.1:9092, or to a free port when that is taken.
	Addr string
	// SyncWrites flushes every write to the disk before it is acknowledged, so that a power failure loses nothing
	// either. Defaults to false: a kill loses nothing, a power failure may.
	SyncWrites bool
	// MaxSize is how many bytes of data are kept at most, because loading goes through memory. Above it producers get
	// POLICY_VIOLATION until retention has made room; Serve does not start with half as much again. A partition of a
	// topic without retention.bytes keeps an eighth of it. Defaults to 2 GiB.
	MaxSize int64
	// Full is called when writes begin to be refused, and when they are taken again. Nil = nobody is told.
	Full func(full bool)
	// MaxConns bounds the open connections; more are closed at once. Defaults to 4,000.
	MaxConns int
	// Ready is called once the broker answers, with its address. Nil = nobody is told.
	Ready func(addr string)
	// Log gets kfake's warnings and what the guard refused. Nil is silent.
	Log *zap.Logger
}

func (c Config) withDefaults() Config {
	if c.MaxSize == 0 {
		c.MaxSize = 2 << 30
	}
	if c.MaxConns == 0 {
		c.MaxConns = 4_000
	}
	if c.Ready == nil {
		c.Ready = func(string) {}
	}
	if c.Full == nil {
		c.Full = func(bool) {}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return errors.New("devbroker: Config.Dir is empty: name the broker's directory")
	case c.MaxSize < 0:
		return errors.New("devbroker: Config.MaxSize is negative")
	case c.MaxConns < 0:
		return errors.New("devbroker: Config.MaxConns is negative")
	case c.Addr != "":
		return checkLoopback(c.Addr)
	}
	return nil
}

// checkLoopback refuses what other machines could reach: the broker has no logins.
func checkLoopback(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("devbroker: %q is not host:port: %w", addr, err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("devbroker: %q has no port from 0 to 65535", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("devbroker: %s is not a loopback address: the development broker has no logins and listens on 127.0.0.1 only; for others to reach, run a real Kafka (make kafka, docker compose up)", addr)
	}
	return nil
}

// Serve runs a broker until ctx ends; then it saves its state and returns nil. An error names what must be done:
// another process holds the directory ([*HeldError]), the port is taken ([ErrTaken]), the data are of another format or too large.
func Serve(ctx context.Context, cfg Config) (err error) {
	if err := cfg.validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	lock, err := AcquireWithin(ctx, cfg.Dir, lockWait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	data := filepath.Join(cfg.Dir, "data")
	if err := admit(data, cfg.MaxSize+cfg.MaxSize/2); err != nil {
		return err
	}
	if err := recoverData(cfg, data); err != nil {
		return err
	}
	ln, err := Listen(ctx, filepath.Join(cfg.Dir, "address"), cfg.Addr, preferredPort)
	if err != nil {
		return err
	}
	g := newGuard(ln, cfg.MaxConns, cfg.Log)
	words := &logger{log: cfg.Log}
	cluster, err := kfake.NewCluster(options(cfg, data, g, words)...)
	if err != nil {
		_ = ln.Close()
		return fmt.Errorf("open the broker's data in %s: %w: %w", data, ErrUnreadable, err)
	}
	debug.FreeOSMemory() // loading reads every batch once
	addr := ln.Addr().String()
	if err := lock.Describe(Holder{Broker: addr}); err != nil {
		return errors.Join(err, closeCluster(cluster))
	}
	cluster.Fault(kfake.Fault{
		// A recovery tells transactions apart by the epoch, which these versions use again.
		Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnsupportedVersion, Count: -1, TopLevel: true,
		When: func(r kmsg.Request) bool { return r.GetVersion() < endTxnVersion },
	})
	cfg.Ready(addr)
	k := keeper{cluster: cluster, data: data, max: cfg.MaxSize, full: cfg.Full, log: cfg.Log}
	k.keep(ctx)
	if err := closeCluster(cluster); err != nil {
		return err
	}
	if words.failed.Load() {
		return nil // not all of it was saved: the next start finds out from the log
	}
	return markClean(cfg.Dir)
}

// recoverData makes the data what they would be after a clean end. The mark of one goes before the broker starts.
func recoverData(cfg Config, data string) error {
	mark := filepath.Join(cfg.Dir, cleanMark)
	_, err := os.Stat(mark)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the mark of a clean end: %w", err)
	}
	clean := err == nil
	began := time.Now()
	found, err := Recover(data, filepath.Join(cfg.Dir, "damaged"), clean)
	if err != nil {
		return err
	}
	cfg.Log.Info("checked the data", zap.Bool("clean", clean), zap.Duration("took", time.Since(began)), zap.Any("found", found))
	if err := removeIfThere(mark); err != nil {
		return err
	}
	return syncDir(cfg.Dir)
}

func markClean(dir string) error {
	return replace(filepath.Join(dir, cleanMark), []byte("the broker has saved its state\n"))
}

func options(cfg Config, data string, ln net.Listener, words *logger) []kfake.Opt {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.DefaultNumPartitions(1),   // as Kafka's own num.partitions
		kfake.ClusterID(newClusterID()), // the data's own wins
		kfake.DataDir(data),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return ln, nil }),
		kfake.BrokerConfigs(map[string]string{
			"group.consumer.session.timeout.ms": strconv.FormatInt(sessionTimeout.Milliseconds(), 10),
			"log.retention.bytes":               strconv.FormatInt(cfg.MaxSize/retentionShare, 10),
			"log.segment.bytes":                 strconv.Itoa(segmentBytes),
			"log.cleaner.backoff.ms":            strconv.FormatInt(never.Milliseconds(), 10),
		}),
		kfake.WithLogger(words),
	}
	if cfg.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	return opts
}

// ErrTaken is wrapped by the error for an address that another program listens on.
var ErrTaken = errors.New("taken by another program")

// Listen opens addr on loopback and remembers it in the file memory, so that a server is found again where it was. An
// empty addr is what memory says; at the first start it is 127.0.0.1 with the preferred port, or a free one when that is
// taken. A remembered address that is taken is an error, not another port: programs have it in their environment.
func Listen(ctx context.Context, memory, addr string, preferred int) (net.Listener, error) {
	chosen := addr != ""
	if !chosen {
		var err error
		if addr, err = remembered(memory); err != nil {
			return nil, err
		}
		chosen = addr != ""
	}
	if !chosen {
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(preferred))
	}
	if err := checkLoopback(addr); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) && !chosen {
		ln, err = lc.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: %w", addr, ErrTaken)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if err := remember(memory, ln.Addr().String()); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

func closeCluster(cluster *kfake.Cluster) error {
	closed := make(chan struct{})
	go func() {
		cluster.Close()
		close(closed)
	}()
	select {
	case <-closed:
		return nil
	case <-time.After(closeWait):
		return fmt.Errorf("save the broker's state: not done after %v; the next start recovers it from the log", closeWait)
	}
}

// newClusterID looks as Kafka's own do: 16 random bytes in base64.
func newClusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// logger hands kfake's words on. Its info is a line per odd request, which is debugging to us.
type logger struct {
	log    *zap.Logger
	failed atomic.Bool // something could not be saved, which kfake tells nobody else
}

func (l *logger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.failed.Store(true)
		l.log.Sugar().Errorf(format, args...)
	case kfake.LogLevelWarn:
		l.log.Sugar().Warnf(format, args...)
	case kfake.LogLevelInfo, kfake.LogLevelDebug:
		l.log.Sugar().Debugf(format, args...)
	default:
	}
}
