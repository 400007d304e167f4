package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// How slow a body may be. The grace covers a sender far away.
const (
	bodyGrace = 2 * time.Second
	bodyRate  = 8 << 10 // bytes a second
	bodyMost  = 15 * time.Second
)

// The bounds on what a compressed body may become.
const (
	inflateRatio = 100
	inflateMost  = 16 << 20
)

// body reads the body within the source's limits, and undoes its compression. A nil release says that out is the
// answer; otherwise the body's room is held until release.
func (g *Gateway) body(ctx context.Context, w http.ResponseWriter, r *request) (release func(), out outcome) {
	compressed := false
	switch encodings := r.header.Values("Content-Encoding"); {
	case len(encodings) == 0 || len(encodings) == 1 && (encodings[0] == "" || strings.EqualFold(encodings[0], "identity")):
	case len(encodings) == 1 && strings.EqualFold(encodings[0], "gzip") && r.Gzip:
		compressed = true
	default:
		return nil, rejected(http.StatusUnsupportedMediaType, "encoding")
	}
	if r.http.ContentLength > r.MaxBody {
		return nil, rejected(http.StatusRequestEntityTooLarge, "large")
	}
	room := r.http.ContentLength
	if room < 0 {
		room = r.MaxBody // chunked: it may be that much
	}
	if compressed {
		room += min(inflateMost, room*inflateRatio)
		room = min(room, g.reading.share)
	}
	if err := g.reading.acquire(ctx, r.Name, room); err != nil {
		return nil, busy("memory")
	}
	give := func() { g.reading.release(r.Name, room) }
	defer func() {
		if release == nil { // also in a panic
			give()
		}
	}()
	var err error
	if r.body, err = readBody(w, r.http, r.MaxBody); err != nil {
		return nil, unread(err)
	}
	r.decoded = r.body
	if compressed {
		if r.decoded, err = inflate(r.body, room-int64(len(r.body))); err != nil {
			return nil, unread(err)
		}
	}
	// A body in chunks took room for the largest: while the request is held it has room for what came.
	if came := int64(len(r.body)); compressed || came < room {
		if compressed {
			came += int64(len(r.decoded))
		}
		g.reading.release(r.Name, max(0, room-came))
		room = min(room, came)
	}
	return give, outcome{}
}

var (
	errInflated = errors.New("the body unpacks to too much")
	errPacked   = errors.New("the body cannot be unpacked")
)

// unread is the answer to a body that did not arrive.
func unread(err error) outcome {
	var large *http.MaxBytesError
	var timeout net.Error
	out := rejected(http.StatusBadRequest, "body")
	switch {
	case errors.As(err, &large), errors.Is(err, errInflated):
		out = rejected(http.StatusRequestEntityTooLarge, "large")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		out = rejected(http.StatusRequestTimeout, "slow")
	}
	out.err = err
	return out
}

// readBody reads all of the body. Memory grows with what has arrived, not with what was promised, and a body that comes
// slower than bodyRate is cut off.
func readBody(w http.ResponseWriter, hr *http.Request, most int64) ([]byte, error) {
	control := http.NewResponseController(w)
	body := http.MaxBytesReader(w, hr.Body, most)
	began := time.Now()
	// The last Read of a body whose length is known ends it, with one byte of room.
	buf := make([]byte, 0, 1+min(max(hr.ContentLength, 4<<10), 64<<10))
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(int64(2*cap(buf)), max(most, int64(cap(buf)))+1))
			copy(grown, buf)
			buf = grown
		}
		allowed := min(bodyGrace+time.Duration(len(buf))*time.Second/bodyRate, bodyMost)
		// Not every ResponseWriter has deadlines: a test's has none.
		_ = control.SetReadDeadline(began.Add(allowed))
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			// The server goes on reading while the request is held, to see whether the sender is still there.
			_ = control.SetReadDeadline(time.Time{})
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// inflate undoes gzip, up to most bytes.
func inflate(body []byte, most int64) ([]byte, error) {
	most = min(most, inflateMost, int64(len(body))*inflateRatio)
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, errPacked
	}
	out, err := io.ReadAll(io.LimitReader(z, most+1))
	switch {
	case err != nil:
		return nil, errPacked
	case int64(len(out)) > most:
		return nil, errInflated
	}
	return out, nil
}
