package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
)

// group is what the gateway calls itself where it gives something up: <topic>.gateway.dlq.
const group = "gateway"

// recordCost is what a record costs of the producing budget at least: so its records are bounded with its bytes.
const recordCost = 4 << 10

// envelopeRoom is what an envelope usually has besides the body.
const envelopeRoom = 1 << 10

// letterWriter writes dead letters; *deadletter.Writer is one.
type letterWriter interface {
	Write(ctx context.Context, e event.Event, f deadletter.Failure) error
}

func newLetterWriter(pub event.Publisher) letterWriter {
	return deadletter.New(pub, group, deadletter.Config{})
}

// The outcomes of what the producer never had, or never will.
var (
	errPanicked = errors.New("publish: a panic")
	errClosed   = errors.New("publish: the gateway is closed")
)

// valueMost is the longest key or type in bytes that is kept as it is: a record has room for both besides the body.
const valueMost = 1 << 10

// bounded is a value that a sender chose, as it is or hashed: equal ones stay equal.
func bounded(s string) string {
	if len(s) <= valueMost {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// publication is what one request publishes: the envelope, and what was made of it.
type publication struct {
	g    *Gateway
	src  *served
	f    *flight
	cost int64
	at   time.Time

	mu       sync.Mutex
	left     int
	acked    uint64 // by index: bit 0 is the envelope
	err      error
	envelope event.Event
	misfits  []misfit
}

// publish hands what came in to the producer, and settles f when its outcome is known: perhaps long after ctx.
func (g *Gateway) publish(ctx context.Context, r *request, f *flight) {
	if g.cfg.plant.markEarly {
		r.mu.Lock()
		r.mark(f.keys, time.Now())
		r.mu.Unlock()
	}
	f.half = f.half.among(r.Events)
	p := &publication{g: g, src: r.served, f: f, at: r.at, acked: f.half.acked}
	handed := false
	defer func() {
		if !handed { // an expression panicked: nobody may wait for an outcome that never comes
			r.settle(f, f.half.acked, errPanicked, time.Now())
		}
	}()
	events, err := p.events(ctx, r)
	if err == nil {
		err = g.producing.acquire(ctx, r.Name, p.cost)
	}
	handed = true
	if err != nil {
		r.settle(f, f.half.acked, fmt.Errorf("publish: %w", err), time.Now())
		return
	}
	if !g.tasks.begin() {
		g.producing.release(r.Name, p.cost)
		r.settle(f, f.half.acked, errClosed, time.Now())
		return
	}
	for i, e := range events {
		if e != nil && p.acked&(1<<i) == 0 {
			p.left++
		}
	}
	after := context.WithoutCancel(ctx) // outcomes come when the sender has gone
	if p.left == 0 {                    // an earlier attempt got all through but the dead letters
		p.end(after)
		return
	}
	f.sent.Store(true)
	for i, e := range events {
		if e != nil && f.half.acked&(1<<i) == 0 {
			p.send(ctx, after, i, e)
		}
	}
}

// send hands one event to the producer. A panic there is the event's end: others wait for its outcome.
func (p *publication) send(ctx, after context.Context, i int, e *event.Event) {
	var once sync.Once
	done := func(e event.Event, err error) { once.Do(func() { p.done(after, i, e, err) }) }
	defer func() {
		if v := recover(); v != nil {
			p.g.panicked("publish a webhook", v)
			done(*e, errPanicked)
		}
	}()
	p.g.pub.PublishAsync(ctx, *e, done)
}

// panicked tells of a panic that ends neither a request nor the process.
func (g *Gateway) panicked(where string, v any) {
	g.log.Error(where+": a panic", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
}

// events makes the envelope and the typed events; one that a mapping did not make is nil.
func (p *publication) events(ctx context.Context, r *request) ([]*event.Event, error) {
	name := p.f.keys.name()
	e := event.New(r.Topic, []byte(nil), nil)
	e.ID = event.DeriveID("webhook", r.Name, name)
	e.Source = "webhook/" + r.Name
	e.Time = r.at.UTC().Truncate(time.Microsecond)
	if key := bounded(r.Key.find(r.header, r.decoded)); key != "" {
		e.Key = []byte(key)
	}
	e.Data = &Received{
		Source: r.Name, ReceivedAt: e.Time, Scheme: r.schemeName(), Key: int32(r.key), ID: p.f.keys.id,
		Type: bounded(r.Type.find(r.header, r.decoded)), Method: r.method, Path: r.http.URL.EscapedPath(), Query: r.http.URL.RawQuery,
		Headers: r.keep(r.header), Body: r.body,
	}
	var err error
	if e.Value, err = p.g.reg.Encode(ctx, make([]byte, 0, len(r.body)+envelopeRoom), &e); err != nil {
		return nil, err
	}
	e.Data = nil
	p.envelope = e
	events := make([]*event.Event, 1+len(r.Events))
	events[0] = &e
	p.cost = max(recordCost, int64(len(e.Value)))
	if len(r.Events) == 0 {
		return events, nil
	}
	seen := seenBy(r, &e)
	for i, m := range r.Events {
		typed, misfit, err := m.make(ctx, p.g.reg, &e, seen)
		switch {
		case err != nil:
			return nil, err
		case misfit != nil:
			p.misfits = append(p.misfits, *misfit)
		case typed != nil:
			events[1+i] = typed
			p.cost += max(recordCost, int64(len(typed.Value)))
		}
	}
	return events, nil
}

// done hears of one event's end. It is called by the goroutine that serves all answers: it must not wait.
func (p *publication) done(ctx context.Context, i int, e event.Event, err error) {
	p.mu.Lock()
	switch {
	case err == nil:
		p.acked |= 1 << i
		if i == 0 {
			p.envelope.Partition, p.envelope.Offset = e.Partition, e.Offset
		}
		p.g.through()
	case i > 0 && hopeless(err):
		// What came in is in the log; what was made of it has no room there. The sender can do nothing about that.
		p.misfits = append(p.misfits, misfit{deadletter.Rejected, e.Type, err})
	default:
		p.err = errors.Join(p.err, err)
	}
	p.left--
	last := p.left == 0
	p.mu.Unlock()
	if last {
		p.end(ctx)
	}
}

// hopeless reports whether to publish an event again would end the same way.
func hopeless(err error) bool {
	return errors.Is(err, producer.ErrTooLarge) || errors.Is(err, producer.ErrUnknownTopic) || errors.Is(err, producer.ErrNotAuthorized)
}

// end settles the flight. Where something did not fit, its dead letter is written first.
func (p *publication) end(ctx context.Context) {
	if p.err != nil || len(p.misfits) == 0 {
		p.settle()
		return
	}
	go func() {
		defer p.settle()
		defer func() {
			if v := recover(); v != nil {
				p.g.panicked("write a dead letter", v)
			}
		}()
		for _, m := range p.misfits {
			p.letter(ctx, m)
		}
	}()
}

func (p *publication) settle() {
	p.g.producing.release(p.src.Name, p.cost)
	p.src.settle(p.f, p.acked, p.err, time.Now())
	p.g.tasks.end()
}

// letter writes the dead letter of something that did not fit: the envelope, with why. When it cannot be written that is
// told, and no more: what came in is in the log.
func (p *publication) letter(ctx context.Context, m misfit) {
	ctx, cancel := context.WithTimeout(ctx, letterTimeout)
	defer cancel()
	e := p.envelope
	e.Headers = event.AppendHeaders(nil, e.Meta)
	e.Published = p.at
	err := p.g.letters.Write(ctx, e, deadletter.Failure{Class: m.class, Err: fmt.Errorf("event %s: %w", m.kind, m.err), Handler: m.kind, Attempts: 1, First: p.at, Last: p.at})
	p.g.cfg.Observer.DeadLettered(p.src.Name, string(m.class))
	fields := []zap.Field{zap.String("source", p.src.Name), zap.String("event", e.ID), zap.String("type", m.kind), zap.NamedError("why", m.err)}
	if err != nil {
		p.g.log.Error("a webhook is no event of its type, and the dead letter could not be written; the webhook itself is kept", append(fields, zap.Error(err))...)
		return
	}
	p.g.log.Warn("a webhook is no event of its type: see the dead letters", fields...)
}
