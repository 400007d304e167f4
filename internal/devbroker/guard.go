package devbroker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

const (
	maxFrame     = 100 << 20 // bytes of one request: Kafka's socket.request.max.bytes
	minFrame     = 8         // key, version, correlation id
	largeFrame   = 1 << 20   // above it, a frame is paid for from the budget
	frameBudget  = 256 << 20 // bytes that large frames may announce at once, over all connections
	idleTimeout  = 10 * time.Minute
	frameTimeout = 30 * time.Second // from a request's first byte to its last
	writeTimeout = 30 * time.Second
	acceptPause  = 50 * time.Millisecond

	apiVersions = 18
)

// guard stands between the network and kfake, which believes what it reads: it allocates whatever length the first
// four bytes name ("GET " is 1.2 GB) and panics at a request key it does not know.
type guard struct {
	net.Listener
	slots    chan struct{} // one for each open connection
	versions map[int16]int16
	budget   atomic.Int64
	log      *zap.Logger
	closed   chan struct{}
	once     sync.Once
}

func newGuard(ln net.Listener, maxConns int, log *zap.Logger) *guard {
	g := &guard{
		Listener: ln, slots: make(chan struct{}, maxConns), versions: knownVersions(), log: log, closed: make(chan struct{}),
	}
	g.budget.Store(frameBudget)
	return g
}

// knownVersions is the highest version of each request key that can be parsed.
func knownVersions() map[int16]int16 {
	known := make(map[int16]int16, kmsg.MaxKey+1)
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		if req := kmsg.RequestForKey(key); req != nil {
			known[key] = req.MaxVersion()
		}
	}
	return known
}

// Accept returns the next connection, guarded. It fails only once the listener is closed: kfake stops listening for
// good at the first error, also when the process is merely out of file descriptors.
func (g *guard) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			g.log.Warn("accept a connection", zap.Error(err))
			select {
			case <-time.After(acceptPause):
			case <-g.closed:
				return nil, net.ErrClosed
			}
			continue
		}
		select {
		case g.slots <- struct{}{}:
			return &guarded{Conn: conn, guard: g}, nil
		default:
			g.log.Warn("refuse a connection: too many are open", zap.Int("open", cap(g.slots)))
			_ = conn.Close()
		}
	}
}

// Close stops listening.
func (g *guard) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Listener.Close()
}

// check says what is wrong with a request's first eight bytes.
func (g *guard) check(size uint32, key, version int16) error {
	if size < minFrame || size > maxFrame {
		return fmt.Errorf("a request of %d bytes: %d to %d are allowed", size, minFrame, maxFrame)
	}
	most, known := g.versions[key]
	if !known {
		return fmt.Errorf("a request with the unknown key %d", key)
	}
	// A client that is too new asks for versions in its own newest version and is answered in the oldest.
	if version < 0 || version > most && key != apiVersions {
		return fmt.Errorf("a request with key %d and the unknown version %d", key, version)
	}
	return nil
}

// guarded is a connection whose reader never sees the start of a frame that check refuses. One goroutine reads and
// one writes at a time.
type guarded struct {
	net.Conn
	guard  *guard
	buf    [8]byte
	head   []byte // what the reader has not taken yet of buf
	left   uint32 // bytes of the frame beyond head
	mu     sync.Mutex
	paid   int64 // taken from the budget
	closed bool
}

func (c *guarded) Read(p []byte) (int, error) {
	if len(c.head) == 0 && c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(len(p), int(c.left))])
	if c.left -= uint32(n); c.left == 0 {
		c.settle()
	}
	return n, err
}

// next reads and checks the start of the next frame.
func (c *guarded) next() error {
	if err := c.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
		return err
	}
	n, err := c.Conn.Read(c.buf[:])
	if err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.Conn, c.buf[n:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(c.buf[:])
	err = c.guard.check(size, int16(binary.BigEndian.Uint16(c.buf[4:])), int16(binary.BigEndian.Uint16(c.buf[6:])))
	if err == nil {
		err = c.pay(size)
	}
	if err != nil {
		c.guard.log.Warn("close a connection", zap.Stringer("from", c.RemoteAddr()), zap.Error(err))
		return err
	}
	c.head, c.left = c.buf[:], size-4
	return nil
}

// pay takes a large frame's bytes from the budget, because they are allocated before they arrive.
func (c *guarded) pay(size uint32) error {
	if size <= largeFrame {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if c.guard.budget.Add(-int64(size)) < 0 {
		c.guard.budget.Add(int64(size))
		return fmt.Errorf("a request of %d bytes, while others of %d are under way", size, frameBudget-c.guard.budget.Load())
	}
	c.paid = int64(size)
	return nil
}

func (c *guarded) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guard.budget.Add(c.paid)
	c.paid = 0
}

func (c *guarded) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *guarded) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if first {
		c.settle()
		<-c.guard.slots
	}
	return c.Conn.Close()
}
