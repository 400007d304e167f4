// Package web is how every HTTP server of Millrace is run: with limits on what a client may cost, a last-resort recover,
// and a stop that lets requests end. It stands before the handlers of the registry, the gateway and the console.
//
//	listener, err := net.Listen("tcp", "127.0.0.1:8081")
//	err = web.Serve(ctx, listener, registry, web.Config{Log: log})
package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
)

// The limits that are the same for every server.
const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeader         = 16 << 10
)

// Config is what a server allows. The zero value works.
type Config struct {
	// ReadTimeout bounds how long a request may take to arrive, body included. Defaults to 15 seconds.
	ReadTimeout time.Duration
	// WriteTimeout bounds a request from the end of its header to the end of its answer; negative is without bound, for
	// answers that stream. Defaults to 60 seconds.
	WriteTimeout time.Duration
	// MaxBody is the largest request body in bytes; what reads past it gets an error, and the client a 413 from [Error].
	// Defaults to 4 MiB.
	MaxBody int64
	// MaxConns bounds the connections that are open at once; others wait in the kernel's queue. Defaults to 1024.
	MaxConns int
	// Drain is how long requests may go on after ctx has ended; then their connections are closed. Defaults to 10 seconds.
	Drain time.Duration
	// Log gets panics, and what the server has to say. Nil is silent.
	Log *zap.Logger
}

func (c Config) withDefaults() Config {
	if c.ReadTimeout == 0 {
		c.ReadTimeout = 15 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = time.Minute
	}
	if c.MaxBody == 0 {
		c.MaxBody = 4 << 20
	}
	if c.MaxConns == 0 {
		c.MaxConns = 1024
	}
	if c.Drain == 0 {
		c.Drain = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.ReadTimeout < 0:
		return fmt.Errorf("config: ReadTimeout is %v: a positive time is allowed", c.ReadTimeout)
	case c.MaxBody < 0:
		return fmt.Errorf("config: MaxBody is %d: a positive number of bytes is allowed", c.MaxBody)
	case c.MaxConns < 0:
		return fmt.Errorf("config: MaxConns is %d: a positive number is allowed", c.MaxConns)
	case c.Drain < 0:
		return fmt.Errorf("config: Drain is %v: a positive time is allowed", c.Drain)
	}
	return nil
}

// Serve answers requests on l with h until ctx ends; then it takes no new ones, lets the others end within Drain, and
// returns nil, or an error when some had to be cut off. It closes l. The contexts of requests end with their connections
// and with the drain, not with ctx.
func Serve(ctx context.Context, l net.Listener, h http.Handler, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return errors.Join(fmt.Errorf("serve HTTP: %w", err), l.Close())
	}
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv := &http.Server{
		Handler:           guard(h, cfg),
		ReadHeaderTimeout: min(readHeaderTimeout, cfg.ReadTimeout),
		ReadTimeout:       cfg.ReadTimeout,
		WriteTimeout:      max(cfg.WriteTimeout, 0),
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          zap.NewStdLog(cfg.Log),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(limit(l, cfg.MaxConns)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(requests, cfg.Drain)
	defer cancel()
	err := srv.Shutdown(drain)
	if err != nil {
		cut()
		err = errors.Join(fmt.Errorf("stop HTTP on %s: requests were cut off after %v", l.Addr(), cfg.Drain), srv.Close())
	}
	return errors.Join(err, ended(<-served))
}

// ended is Serve's error where it is more than that it was asked to stop.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// guard limits the body and keeps a panic of h from being an empty answer. The panic goes to the log with its stack, and
// nothing of it to the client.
func guard(h http.Handler, cfg Config) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		answer := &begun{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p) // the handler's way to hang up
			}
			cfg.Log.Error("HTTP handler panicked", zap.String("method", req.Method), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			if answer.yes {
				panic(http.ErrAbortHandler) // half an answer must not look whole
			}
			Error(w, http.StatusInternalServerError, "internal error")
		}()
		req.Body = http.MaxBytesReader(w, req.Body, cfg.MaxBody)
		h.ServeHTTP(answer, req)
	})
}

// begun remembers whether the answer has begun. Handlers that flush do it by http.ResponseController.
type begun struct {
	http.ResponseWriter
	yes bool
}

func (b *begun) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func (b *begun) WriteHeader(status int) {
	b.yes = true
	b.ResponseWriter.WriteHeader(status)
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.ResponseWriter.Write(p)
}

// Error answers with a status and {"error": text}, for humans and programs alike. The text goes to strangers: nothing of
// our inside belongs into it.
func Error(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A client that is gone by now needs no answer.
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}

// ReadError answers for an error of reading the request's body: 413 where it was too large, 408 where it took too long,
// else 400.
func ReadError(w http.ResponseWriter, err error) {
	var large *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &large):
		Error(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", large.Limit))
	case errors.As(err, &slow) && slow.Timeout():
		Error(w, http.StatusRequestTimeout, "the body took too long")
	default:
		Error(w, http.StatusBadRequest, "the body did not arrive")
	}
}

// limit is l with at most n connections open at once.
func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// counted gives its slot back when it is closed.
type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}
