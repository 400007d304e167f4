// Package registry is a schema registry for Avro that clients of Confluent's take for theirs: the same REST interface,
// and the same records in the topic _schemas, so that one may follow the other. It is an edge: producers and consumers,
// in any language, ask it which schema an id stands for and whether a new version gets along with the old ones.
//
//	reg, err := registry.New(registry.Kafka(cluster, registry.KafkaConfig{Create: true}), registry.Config{})
//	go reg.Run(ctx)                              // reads the topic and follows it
//	err = web.Serve(ctx, listener, reg, web.Config{})
//
// # The log is the truth
//
// The state is what the records of the topic amount to. A write is answered when its own record has been read back, so
// whoever gets an id finds it everywhere. Before a write the log is read to its end. Two processes that write at the same
// moment may still choose one id: then the record that is first in the log has it, everyone refuses the second alike,
// and its writer, who finds its own record refused, puts the log right and tries again with another id. What is refused
// is logged. There is no election of a leader yet: writes of several processes are safe, and slower.
//
// # Not there yet
//
// Client-chosen ids (mode IMPORT), contexts in paths, JSON and Protobuf schemas (kept and served when another registry
// wrote them, refused when sent here), GUIDs, and forwarding to a leader.
//
// # Concurrency
//
// A Registry serves any number of requests at once; writes go one at a time.
package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/schemas"
)

// Config is how a registry behaves. The zero value works.
type Config struct {
	// Compatibility is the level where neither the subject nor the registry has one set. Defaults to BACKWARD.
	Compatibility Level
	// Timeout bounds a write, from its request to its answer. Defaults to 30 seconds.
	Timeout time.Duration
	// Limits bound the schemas that may be registered; see [schemas.Limits]. Defaults to its defaults, 1 MiB of text.
	Limits schemas.Limits
	// Log gets refused records and failed writes. Nil is silent.
	Log *zap.Logger
}

func (c Config) withDefaults() Config {
	if c.Compatibility == "" {
		c.Compatibility = LevelBackward
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	if !known(c.Compatibility) {
		return fmt.Errorf("config: Compatibility is %q: one of %v is allowed", c.Compatibility, levels)
	}
	if c.Timeout < 0 {
		return fmt.Errorf("config: Timeout is %v: a positive time is allowed", c.Timeout)
	}
	return nil
}

// Registry is a schema registry over a store. It is an http.Handler.
type Registry struct {
	store   Store
	cfg     Config
	handler http.Handler
	writing chan struct{} // holds a token while someone writes

	mu    sync.RWMutex
	state *state
	next  int64         // the offset after the last record that is in state
	moved chan struct{} // closed when next moves, then replaced
	log   Log           // nil until Run has opened the store
	ready bool          // the log has been read to where its end was when Run began
	swept bool          // what crashed writers have left is put right
}

// New returns a registry that keeps its records in store. It answers 503 until Run has read them.
func New(store Store, cfg Config) (*Registry, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("make a registry: %w", err)
	}
	r := &Registry{store: store, cfg: cfg, writing: make(chan struct{}, 1), state: newState(), moved: make(chan struct{})}
	r.handler = r.routes()
	return r, nil
}

// ServeHTTP answers one request.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.handler.ServeHTTP(w, req) }

// Ready reports whether the registry has read its records and answers requests.
func (r *Registry) Ready() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ready
}

// AwaitReady waits until the registry is ready. Its error is ctx's.
func (r *Registry) AwaitReady(ctx context.Context) error {
	for {
		r.mu.RLock()
		ready, moved := r.ready, r.moved
		r.mu.RUnlock()
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the registry's records: %w", ctx.Err())
		case <-moved:
		}
	}
}

// Run opens the store, reads it and follows it until ctx ends; then it returns nil, wherever it is. An error of the store
// ends it, and the registry answers 503 until Run is called again. One Run at a time.
func (r *Registry) Run(ctx context.Context) error {
	err := r.run(ctx)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // asked to stop
	}
	return err
}

func (r *Registry) run(ctx context.Context) error {
	log, err := r.store.Open(ctx)
	if err != nil {
		return fmt.Errorf("open the registry's store: %w", err)
	}
	defer log.Close()
	// Our own record is the one that surely comes: a topic's end may be an offset that compaction has emptied.
	end, err := log.Append(ctx, key{kind: keyNoop}.bytes(), nil)
	if err != nil {
		return fmt.Errorf("find the end of the registry's log: %w", err)
	}
	r.start(log)
	defer r.stop()
	for {
		records, err := log.Next(ctx)
		if err != nil {
			return fmt.Errorf("follow the registry's log: %w", err)
		}
		r.take(records, end)
	}
}

func (r *Registry) start(log Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state, r.next, r.log, r.ready, r.swept = newState(), 0, log, false, false
}

func (r *Registry) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log, r.ready = nil, false
	r.wake()
}

// take brings records into the state.
func (r *Registry) take(records []Record, end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		if err := r.state.apply(rec); err != nil {
			r.cfg.Log.Warn("record of the registry's log skipped", zap.Int64("offset", rec.Offset), zap.Error(err))
		}
		r.next = rec.Offset + 1
	}
	r.ready = r.ready || r.next > end
	r.wake()
}

func (r *Registry) wake() {
	close(r.moved)
	r.moved = make(chan struct{})
}

var errNotReady = errors.New("the registry has not read its records yet: try again in a moment")

// await waits until the record at offset is in the state.
func (r *Registry) await(ctx context.Context, offset int64) error {
	for {
		r.mu.RLock()
		done, running, moved := r.next > offset, r.log != nil, r.moved
		r.mu.RUnlock()
		switch {
		case done:
			return nil
		case !running:
			return errNotReady
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the own record: %w", ctx.Err())
		case <-moved:
		}
	}
}

// write runs do as the only writer of this process, with a state that holds every record written before, by anyone.
func (r *Registry) write(ctx context.Context, do func(context.Context, *writer) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	select {
	case r.writing <- struct{}{}:
		defer func() { <-r.writing }()
	case <-ctx.Done():
		return fmt.Errorf("wait for other writes: %w", ctx.Err())
	}
	w, err := r.writer()
	if err != nil {
		return err
	}
	if err := w.catchUp(ctx); err != nil {
		return err
	}
	return do(ctx, w)
}

func (r *Registry) writer() (*writer, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.ready {
		return nil, errNotReady
	}
	return &writer{Registry: r, log: r.log}, nil
}

// view runs read over the state while it does not change.
func (r *Registry) view(read func(*state)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	read(r.state)
}

func known(l Level) bool {
	return slices.Contains(levels, l)
}
