package consumer

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/schemas"
)

// Handler handles one event; its error is a verdict. Before a typed handler, as a middleware sees it, e.Data is a
// *T; for [Mux.OnType] it is a generic record; for [Mux.OnTombstone] and [Mux.Otherwise] it is nil and e.Value holds
// the record's bytes.
type Handler func(ctx context.Context, e event.Event) error

// Middleware wraps a handler. It runs after decoding, once per attempt, and is built once, not per event. It does
// not see batches.
type Middleware = func(Handler) Handler

// Mux sends events to handlers. An event goes to the first of: the tombstone handler of its topic, the handler of
// its topic, the handler of its type, Otherwise. The type is the full name of the schema the event was written
// with, else its ce_type.
//
// Fill it before it is used: registering twice for one name, or after the first event, panics. A Mux is safe for
// use by any number of goroutines then.
type Mux struct {
	tombstones map[string]*route // by topic
	topics     map[string]*route
	types      map[string]*route
	otherwise  *route
	middleware []Middleware
	routes     []*route
	used       atomic.Bool
}

// route is one registration.
type route struct {
	name   string                      // of the handler, in dead letters, logs and metrics
	names  []string                    // types: the name and its aliases
	target func() any                  // what to decode into; nil: do not decode
	handle Handler                     // nil for a batch route
	once   sync.Once                   // builds chain
	chain  Handler                     // handle inside the middleware
	batch  func(es []event.Event) work // nil for a single route
}

// work is a batch that decodes its events, as far as they decode, and hands them over.
type work interface {
	decode(ctx context.Context, dec Decoder) (n int, err error)
	call(ctx context.Context, from, to int) error
}

// ErrUnhandled says that no handler takes the event. [Mux.Handle] returns it as a Dropped verdict.
var ErrUnhandled = errors.New("no handler for the event")

// PanicError is a panic of a handler. It is tried again like any error.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v", e.Value) }

// Unwrap returns the value where it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// decodeError is an error of the decoder, not of a handler.
type decodeError struct{ err error }

func (e *decodeError) Error() string { return e.err.Error() }
func (e *decodeError) Unwrap() error { return e.err }

// NewMux returns an empty mux.
func NewMux() *Mux {
	return &Mux{tombstones: map[string]*route{}, topics: map[string]*route{}, types: map[string]*route{}}
}

// On calls h for every event of T's type: the name that schemas.NameOf gives T, or an alias in T's schema.
func On[T any](m *Mux, h func(context.Context, event.Of[T]) error) {
	t := reflect.TypeFor[T]()
	m.addType(typed(schemas.NameOf(t), h), schemas.AliasesOf(t)...)
}

// OnTopic calls h for every event of topic, whatever its type says: for topics of one type whose records name
// none, as plain JSON does. The handlers of types do not see the topic then.
func OnTopic[T any](m *Mux, topic string, h func(context.Context, event.Of[T]) error) {
	m.add(m.topics, topic, "topic", typed("topic "+topic, h))
}

// OnBatch calls h with the events of T's type as they come, in order, at most [Config.Batch] at once and of one
// partition; a batch is cut where the type changes. It is the fast path: no middleware, one call for many events.
//
// h returns nil when all are done, [Each] for a verdict per event, or one error for all. When a batch has used up
// its attempts with one error for all, its events are handed over one by one, so that only the guilty are
// dead-lettered. The slice is the handler's to keep.
func OnBatch[T any](m *Mux, h func(context.Context, []event.Of[T]) error) {
	t := reflect.TypeFor[T]()
	r := &route{name: schemas.NameOf(t), batch: func(es []event.Event) work { return &batch[T]{events: es, handle: h} }}
	m.addType(r, schemas.AliasesOf(t)...)
}

// OnType calls h for every event of the type with this full name, with e.Data as a generic record.
func (m *Mux) OnType(name string, h Handler) {
	m.addType(&route{name: name, target: func() any { return new(any) }, handle: func(ctx context.Context, e event.Event) error {
		if p, ok := e.Data.(*any); ok {
			e.Data = *p
		}
		return h(ctx, e)
	}})
}

// OnTombstone calls h for every null value of topic: the key was deleted.
func (m *Mux) OnTombstone(topic string, h Handler) {
	m.add(m.tombstones, topic, "tombstones of topic", &route{name: "tombstone " + topic, handle: h})
}

// Otherwise calls h for every event that no other handler takes, undecoded.
func (m *Mux) Otherwise(h Handler) {
	m.mustBeNew()
	if m.otherwise != nil {
		panic("consumer: Otherwise is registered twice")
	}
	m.otherwise = &route{name: "otherwise", handle: h}
	m.routes = append(m.routes, m.otherwise)
}

// Use puts every handler, those registered before included, inside mw. The first is outermost. Batch handlers
// have no middleware.
func (m *Mux) Use(mw ...Middleware) {
	m.mustBeNew()
	m.middleware = append(m.middleware, mw...)
}

// Handle makes one attempt at e: it finds the handler, decodes, and calls it inside the middleware. A batch handler
// gets a batch of one. [VerdictOf] reads the error: poison is DeadLettered, an incompatible schema is Stopped,
// a registry that does not answer is Paused, an event that nobody handles is Dropped with [ErrUnhandled].
//
// It is what Run, replays and tests have in common. The context of the attempt remembers what is published in it:
// see event.WithAttempt.
func (m *Mux) Handle(ctx context.Context, dec Decoder, e event.Event) error {
	m.used.Store(true)
	if e.Attempt == 0 {
		e.Attempt = 1
	}
	r, err := m.route(ctx, dec, &e)
	if err != nil {
		return err
	}
	if r.batch != nil {
		w := r.batch([]event.Event{e})
		if _, err := w.decode(ctx, dec); err != nil {
			return err
		}
		return one(guard(event.WithAttempt(ctx), func(ctx context.Context) error { return w.call(ctx, 0, 1) }))
	}
	return m.single(ctx, dec, r, &e)
}

// one is the verdict of a batch of one.
func one(err error) error {
	if each, ok := err.(verdict.Each); ok && len(each) == 1 { //nolint:errorlint // only as it is: see Each
		return each[0]
	}
	return err
}

// route finds the handler of e and sets e.Type where the record names none.
func (m *Mux) route(ctx context.Context, dec Decoder, e *event.Event) (*route, error) {
	if e.IsTombstone() {
		if r := m.tombstones[e.Topic]; r != nil {
			return r, nil
		}
		return m.rest(e)
	}
	if r := m.topics[e.Topic]; r != nil {
		return r, nil
	}
	if len(m.types) == 0 {
		return m.rest(e) // no question to the registry: its outage is nothing to us
	}
	name, err := dec.TypeOf(ctx, e)
	if err != nil {
		return nil, undecodable(err)
	}
	if e.Type == "" {
		e.Type = name
	}
	if r := m.types[name]; r != nil {
		return r, nil
	}
	return m.rest(e)
}

func (m *Mux) rest(e *event.Event) (*route, error) {
	if m.otherwise != nil {
		return m.otherwise, nil
	}
	what := "a value without a type"
	switch {
	case e.IsTombstone():
		what = "a tombstone"
	case e.Type != "":
		what = "type " + e.Type
	}
	return nil, Drop(fmt.Errorf("handle %s of topic %s: %w", what, e.Topic, ErrUnhandled))
}

// single decodes e for a single route and calls its handler.
func (m *Mux) single(ctx context.Context, dec Decoder, r *route, e *event.Event) error {
	if r.target != nil {
		target := r.target()
		if err := dec.Decode(ctx, e, target); err != nil {
			return undecodable(err)
		}
		e.Data = target
	}
	return call(event.WithAttempt(ctx), m.chain(r), e)
}

// chain is r's handler inside the middleware, built at the first event.
func (m *Mux) chain(r *route) Handler {
	r.once.Do(func() {
		r.chain = r.handle
		for _, mw := range slices.Backward(m.middleware) {
			r.chain = mw(r.chain)
		}
	})
	return r.chain
}

func call(ctx context.Context, h Handler, e *event.Event) (err error) {
	defer recovered(&err)
	return h(ctx, *e)
}

func guard(ctx context.Context, f func(context.Context) error) (err error) {
	defer recovered(&err)
	return f(ctx)
}

func recovered(err *error) {
	if v := recover(); v != nil {
		*err = &PanicError{Value: v, Stack: debug.Stack()}
	}
}

// undecodable gives an error of the decoder its verdict. What is none of the three is poison: the same bytes would
// give the same error again.
func undecodable(err error) error {
	kind := verdict.DeadLetter
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, schemas.ErrUnavailable):
		kind = verdict.Pause
	case errors.Is(err, schemas.ErrIncompatible):
		kind = verdict.Stop
	}
	return with(kind, 0, &decodeError{err})
}

func (m *Mux) mustBeNew() {
	if m.used.Load() {
		panic("consumer: the mux is in use: register every handler before the first event")
	}
}

func (m *Mux) add(to map[string]*route, name, what string, r *route) {
	m.mustBeNew()
	if name == "" {
		panic("consumer: a handler for " + what + ` ""`)
	}
	if to[name] != nil {
		panic("consumer: two handlers for " + what + " " + name)
	}
	to[name] = r
	if !slices.Contains(m.routes, r) {
		m.routes = append(m.routes, r)
	}
}

func (m *Mux) addType(r *route, aliases ...string) {
	r.names = append([]string{r.name}, aliases...)
	for _, name := range r.names {
		m.add(m.types, name, "type", r)
	}
}

func typed[T any](name string, h func(context.Context, event.Of[T]) error) *route {
	return &route{name: name, target: func() any { return new(T) }, handle: func(ctx context.Context, e event.Event) error {
		t, ok := e.Data.(*T)
		if !ok {
			return Stop(fmt.Errorf("handle %s: a middleware replaced the data with a %T", name, e.Data))
		}
		return h(ctx, event.Of[T]{Meta: e.Meta, Data: *t})
	}}
}

// batch is the events of one type, decoded into one slice.
type batch[T any] struct {
	events []event.Event
	of     []event.Of[T]
	handle func(context.Context, []event.Of[T]) error
}

func (b *batch[T]) decode(ctx context.Context, dec Decoder) (int, error) {
	b.of = make([]event.Of[T], len(b.events))
	for i := range b.events {
		b.of[i].Meta = b.events[i].Meta
		if err := dec.Decode(ctx, &b.events[i], &b.of[i].Data); err != nil {
			return i, undecodable(err)
		}
	}
	return len(b.of), nil
}

func (b *batch[T]) call(ctx context.Context, from, to int) error {
	return b.handle(ctx, b.of[from:to:to])
}
