package devbroker

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// script is a connection that says what it holds, a few bytes at a time, and then ends.
type script struct {
	net.Conn
	r     io.Reader
	chunk int
}

func (s *script) Read(p []byte) (int, error)    { return s.r.Read(p[:min(len(p), s.chunk)]) }
func (*script) SetReadDeadline(time.Time) error { return nil }
func (*script) RemoteAddr() net.Addr            { return &net.TCPAddr{} }
func (*script) Close() error                    { return nil }

func scripted(b []byte, chunk int) (*guard, *guarded) {
	g := newGuard(nil, 1, zap.NewNop())
	g.slots <- struct{}{}
	return g, &guarded{Conn: &script{r: bytes.NewReader(b), chunk: chunk}, guard: g}
}

// FuzzGuard reads a connection as kfake does. Whatever was sent, kfake sees only frames that it can allocate and whose
// key it knows, and sees their bytes unchanged; the budget is whole again when the connection is closed.
func FuzzGuard(f *testing.F) {
	valid := []byte{0, 0, 0, 10, 0, 3, 0, 9, 0, 0, 0, 1, 0, 0}
	f.Add(valid, 1)
	f.Add(append(valid, valid...), 3)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 100)
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}, 8)
	f.Add([]byte{0, 0, 0, 8, 0, 18, 0x7f, 0xff, 0, 0, 0, 1}, 5)
	f.Add([]byte{0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0, 0}, 64)
	f.Add([]byte{6, 0x3f, 0xff, 0xff, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0}, 64) // just below the largest, never finished
	f.Fuzz(func(t *testing.T, sent []byte, chunk int) {
		g, conn := scripted(sent, max(1, chunk&0xff))
		at := 0
		for {
			var size [4]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				break
			}
			n := binary.BigEndian.Uint32(size[:])
			if n < minFrame || n > maxFrame {
				t.Fatalf("a frame of %d bytes came through", n)
			}
			body := make([]byte, min(int(n), len(sent))) // kfake makes all of it
			got, err := io.ReadFull(conn, body)
			if got >= 2 && kmsg.RequestForKey(int16(binary.BigEndian.Uint16(body))) == nil {
				t.Fatalf("a frame with the unknown key %d came through", binary.BigEndian.Uint16(body))
			}
			if want := append(size[:], body[:got]...); !bytes.Equal(want, sent[at:at+4+got]) {
				t.Fatalf("bytes changed at %d: got %x, want %x", at, want, sent[at:at+4+got])
			}
			if err != nil {
				break
			}
			at += 4 + got
		}
		_ = conn.Close()
		_ = conn.Close()
		if left := g.budget.Load(); left != frameBudget {
			t.Errorf("the budget is %d after the end, want %d", left, frameBudget)
		}
	})
}

func TestLargeFramesShareABudget(t *testing.T) {
	t.Parallel()
	g := newGuard(nil, 8, zap.NewNop())
	head := binary.BigEndian.AppendUint32(nil, maxFrame)
	head = append(head, 0, 0, 0, 3)
	open := func() *guarded {
		g.slots <- struct{}{}
		return &guarded{Conn: &script{r: bytes.NewReader(head), chunk: 64}, guard: g}
	}
	var conns []*guarded
	for range 2 {
		c := open()
		if _, err := c.Read(make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	third := open()
	if _, err := third.Read(make([]byte, 4)); err == nil {
		t.Error("a third frame of 100 MiB was admitted")
	}
	_ = conns[0].Close()
	fourth := open()
	if _, err := fourth.Read(make([]byte, 4)); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
}
