package engine_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/kafka"
)

// pipes is a network in memory: in a bubble of testing/synctest its waits are durable, so that time passes only when
// nobody has anything to do, and a busy machine makes no test late. After cut, nothing arrives any more and nobody says
// so.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	lost   chan struct{}
	cutter sync.Once
}

func newPipes() *pipes {
	return &pipes{accept: make(chan net.Conn), closed: make(chan struct{}), lost: make(chan struct{})}
}

// start starts a broker on the network with a topic "orders" of four partitions; it ends with the test.
func (p *pipes) start(t *testing.T) (*kfake.Cluster, kafka.Cluster) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "orders"),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return p, nil }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return fake, kafka.Cluster{Seeds: []string{p.Addr().String()}, Dial: p.dial}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9092} }

func (p *pipes) cut() { p.cutter.Do(func() { close(p.lost) }) }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	select { // first, so that a cut line is never a closed one
	case <-p.lost:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
	}
	near, far := net.Pipe()
	select {
	case p.accept <- far:
		return &line{Conn: near, lost: p.lost}, nil
	case <-p.closed:
		return nil, errors.New("connection refused")
	case <-p.lost:
		<-ctx.Done()
	case <-ctx.Done():
	}
	return nil, ctx.Err()
}

// line swallows what is written and delivers nothing once its network is cut.
type line struct {
	net.Conn
	lost <-chan struct{}
}

func (l *line) Write(b []byte) (int, error) {
	select {
	case <-l.lost:
		return len(b), nil
	default:
		return l.Conn.Write(b)
	}
}

func (l *line) Read(b []byte) (int, error) {
	for {
		n, err := l.Conn.Read(b)
		select {
		case <-l.lost:
			if err != nil {
				return 0, err
			}
		default:
			return n, err
		}
	}
}
