package devbroker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/devbroker"
)

// childDir is the variable that makes the test binary a broker, as the hidden command makes the real one.
const childDir = "DEVBROKER_TEST_DIR"

const deadline = 30 * time.Second

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		m.Run()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	cfg := devbroker.Config{Dir: dir, Addr: os.Args[1]}
	err := devbroker.Child(ctx, cfg, os.Stdin, os.NewFile(devbroker.StatusFD, "status"))
	stop()
	if err != nil {
		panic(err)
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// serve runs a broker in this process until the returned function stops it.
func serve(t *testing.T, cfg devbroker.Config) (addr string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan string, 1), make(chan error, 1)
	cfg.Ready = func(addr string) { ready <- addr }
	go func() { ended <- devbroker.Serve(ctx, cfg) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case addr = <-ready:
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(deadline):
		t.Fatal("the broker did not come up")
	}
	return addr, stop
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.DisableClientMetrics()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func publish(ctx context.Context, t *testing.T, addr, topic string, values ...string) {
	t.Helper()
	c := client(t, addr, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for _, v := range values {
		if err := c.ProduceSync(ctx, kgo.StringRecord(v)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func read(ctx context.Context, t *testing.T, addr, topic string, n int) []string {
	t.Helper()
	c := client(t, addr, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var got []string
	for len(got) < n {
		fs := c.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

func TestRestartKeepsRecordsGroupsAndAddress(t *testing.T) {
	t.Parallel()
	ctx, dir := testContext(t), filepath.Join(t.TempDir(), "broker")
	addr, stop := serve(t, devbroker.Config{Dir: dir, Addr: "127.0.0.1:0", SyncWrites: true})
	adm := kadm.NewClient(client(t, addr))
	if _, err := adm.CreateTopic(ctx, 1, -1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, addr, "orders", "a", "b", "c")
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: "orders", Partition: 0, At: 2, LeaderEpoch: -1})
	if err := adm.CommitAllOffsets(ctx, "billing", offsets); err != nil {
		t.Fatal(err)
	}
	before, err := adm.BrokerMetadata(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	again, _ := serve(t, devbroker.Config{Dir: dir})
	if again != addr {
		t.Errorf("address after the restart: got %s, want %s", again, addr)
	}
	adm = kadm.NewClient(client(t, again))
	if got := read(ctx, t, again, "orders", 3); strings.Join(got, "") != "abc" {
		t.Errorf("records: got %v, want a b c", got)
	}
	fetched, err := adm.FetchOffsets(ctx, "billing")
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := fetched.Lookup("orders", 0); !ok || o.At != 2 {
		t.Errorf("position: got %v %v, want 2", o.At, ok)
	}
	after, err := adm.BrokerMetadata(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if before.Cluster != after.Cluster || len(before.Cluster) != 22 {
		t.Errorf("cluster id: got %q, want %q", after.Cluster, before.Cluster)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory: got %v, want 0700", info.Mode().Perm())
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	fresh := func(meta string) string {
		dir := t.TempDir()
		if meta == "" {
			return dir
		}
		if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "data", "meta.json"), []byte(meta), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	tests := []struct {
		name string
		cfg  devbroker.Config
		want string
	}{
		{"no directory", devbroker.Config{}, "Config.Dir"},
		{"every interface", devbroker.Config{Dir: fresh(""), Addr: "0.0.0.0:9092"}, "not a loopback address"},
		{"every interface, unnamed", devbroker.Config{Dir: fresh(""), Addr: ":9092"}, "not a loopback address"},
		{"a public address", devbroker.Config{Dir: fresh(""), Addr: "192.0.2.1:9092"}, "not a loopback address"},
		{"a name", devbroker.Config{Dir: fresh(""), Addr: "localhost.example:9092"}, "not a loopback address"},
		{"a taken port", devbroker.Config{Dir: fresh(""), Addr: taken.Addr().String()}, "taken by another program"},
		{"a newer format", devbroker.Config{Dir: fresh(`{"version":2}`), Addr: "127.0.0.1:0"}, "format 2"},
		{"a damaged format", devbroker.Config{Dir: fresh(`{"ver`), Addr: "127.0.0.1:0"}, "damaged"},
		{"too much data", devbroker.Config{Dir: fresh(`{"version":1}`), Addr: "127.0.0.1:0", MaxSize: 4}, "loads"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := devbroker.Serve(testContext(t), tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestOneBrokerADirectory(t *testing.T) {
	t.Parallel()
	ctx, dir := testContext(t), t.TempDir()
	addr, stop := serve(t, devbroker.Config{Dir: dir, Addr: "127.0.0.1:0"})
	_, err := devbroker.Acquire(dir)
	var held *devbroker.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("got %v, want a *HeldError", err)
	}
	if held.Holder.PID != os.Getpid() || held.Holder.Broker != addr || held.Holder.Since.IsZero() {
		t.Errorf("holder: got %+v, want process %d with broker %s", held.Holder, os.Getpid(), addr)
	}
	waited := make(chan error, 1)
	go func() {
		l, err := devbroker.AcquireWithin(ctx, dir, deadline)
		if err == nil {
			err = l.Release()
		}
		waited <- err
	}()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("a lock that is waited for: %v", err)
	}
}

// hostile is what has no business on a broker's port. Each one ends its connection and nothing else.
var hostile = []struct {
	name string
	sent []byte
}{
	{"HTTP", []byte("GET / HTTP/1.1\r\nHost: localhost:9092\r\n\r\n")},
	{"TLS", []byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03}},
	{"2 GiB", frame(1<<31-1, 3, 9)},
	{"4 GiB", frame(1<<32-1, 3, 9)},
	{"nothing in it", frame(0, 0, 0)},
	{"too short for a header", frame(7, 3, 0)},
	{"unknown key", append(frame(10, 0x7fff, 0), make([]byte, 6)...)},
	{"negative key", append(frame(10, 0xffff, 0), make([]byte, 6)...)},
	{"unknown version", append(frame(10, 3, 900), make([]byte, 6)...)},
	{"negative version", append(frame(10, 3, 0xffff), make([]byte, 6)...)},
	{"a body that does not parse", append(frame(40, 3, 9), []byte(strings.Repeat("\xff", 36))...)},
}

func frame(size uint32, key, version uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	b = binary.BigEndian.AppendUint16(b, key)
	return binary.BigEndian.AppendUint16(b, version)
}

func TestHostileBytesEndTheirConnectionAlone(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	addr, _ := serve(t, devbroker.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"})
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := conn.Write(tt.sent); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
				t.Fatal(err)
			}
			var timeout net.Error
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("read %d bytes, %v: want the connection closed", n, err)
			}
			if _, err := kadm.NewClient(client(t, addr)).BrokerMetadata(ctx); err != nil {
				t.Errorf("the broker afterwards: %v", err)
			}
		})
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	addr, _ := serve(t, devbroker.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0", MaxConns: 2})
	var open []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		open = append(open, conn)
	}
	if err := open[2].SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := open[2].Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("the third connection: got %v, want it closed", err)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	if _, err := kadm.NewClient(client(t, addr)).BrokerMetadata(ctx); err != nil {
		t.Errorf("after the others are gone: %v", err)
	}
}

// Two thousand connections that say nothing leave room for one that does.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	s := supervise(t, t.TempDir(), "127.0.0.1:0")
	up := wait(t, "the broker", s.up)
	for range 2_000 {
		conn, err := net.Dial("tcp", up.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	if _, err := kadm.NewClient(client(t, up.Addr)).CreateTopic(ctx, 1, -1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, up.Addr, "orders", "a")
	if got := read(ctx, t, up.Addr, "orders", 1); got[0] != "a" {
		t.Errorf("got %v, want a", got)
	}
}

// supervised runs a broker in child processes of the test binary.
type supervised struct {
	up    chan devbroker.Up
	down  chan devbroker.Down
	ended chan error
	stop  context.CancelFunc
}

func supervise(t *testing.T, dir, addr string) *supervised {
	t.Helper()
	log, err := devbroker.OpenLog(filepath.Join(dir, "logs", "broker.log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &supervised{up: make(chan devbroker.Up, 8), down: make(chan devbroker.Down, 8), ended: make(chan error, 1), stop: cancel}
	go func() {
		defer close(s.ended)
		s.ended <- devbroker.Supervise(ctx, devbroker.Supervisor{
			Command: func(ctx context.Context, addr string) *exec.Cmd {
				cmd := exec.CommandContext(ctx, os.Args[0], addr)
				cmd.Env = append(os.Environ(), childDir+"="+filepath.Join(dir, "broker"))
				return cmd
			},
			Addr: addr, Log: log,
			Up:   func(up devbroker.Up) { s.up <- up },
			Down: func(down devbroker.Down) { s.down <- down },
		})
	}()
	t.Cleanup(func() {
		cancel()
		for range s.ended { // until the child is gone
		}
		_ = log.Close()
	})
	return s
}

func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(deadline):
		t.Fatal("waited in vain for", what)
		panic("unreachable")
	}
}

func TestCrashedBrokerIsRestartedAndNamed(t *testing.T) {
	t.Parallel()
	ctx, dir := testContext(t), t.TempDir()
	s := supervise(t, dir, "127.0.0.1:0")
	first := wait(t, "the broker", s.up)
	if _, err := kadm.NewClient(client(t, first.Addr)).CreateTopic(ctx, 1, -1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, first.Addr, "orders", "acknowledged")
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	down := wait(t, "the crash", s.down)
	if down.PID != first.PID || down.State != "signal: killed" || down.Log == "" || down.Crashes != 1 {
		t.Errorf("crash: got %+v, want process %d, signal: killed and a log", down, first.PID)
	}
	second := wait(t, "the restart", s.up)
	if second.PID == first.PID || second.Addr != first.Addr {
		t.Errorf("restart: got %+v, want another process at %s", second, first.Addr)
	}
	if got := read(ctx, t, second.Addr, "orders", 1); got[0] != "acknowledged" {
		t.Errorf("got %v, want the acknowledged record", got)
	}
	began := time.Now()
	s.stop()
	if err := wait(t, "the end", s.ended); err != nil {
		t.Errorf("end: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	if err := syscall.Kill(second.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child after the end: got %v, want no such process", err)
	}
}

func TestFirstStartSaysWhyNot(t *testing.T) {
	t.Parallel()
	s := supervise(t, t.TempDir(), "192.0.2.1:9092")
	err := wait(t, "the refusal", s.ended)
	if err == nil || !strings.Contains(err.Error(), "not a loopback address") {
		t.Errorf("got %v, want the child's own reason", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	s = supervise(t, t.TempDir(), taken.Addr().String())
	if err := wait(t, "the refusal", s.ended); !errors.Is(err, devbroker.ErrTaken) {
		t.Errorf("got %v, want ErrTaken", err)
	}
}

// The parent's death is the end of the child's standard input, whatever killed it.
func TestChildEndsWithItsParent(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(testContext(t), os.Args[0], "127.0.0.1:0")
	cmd.Env = append(os.Environ(), childDir+"="+t.TempDir())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{w}
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := r.Read(make([]byte, 256)); err != nil { // it answers
		t.Fatal(err)
	}
	if err := lifeline.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("got %v, want a clean end", err)
	}
}
