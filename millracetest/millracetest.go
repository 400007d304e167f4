// Package millracetest tests handlers without a broker. An event goes the whole way a consumer sends it: encoded by
// a registry in memory, written to a record, read back, decoded into the handler's type, and handled inside the
// mux's middleware.
//
//	pub := &millracetest.Publisher{}
//	mux := consumer.NewMux()
//	consumer.On(mux, (&Shipping{Events: pub}).OrderPlaced)
//	v := millracetest.Handle(t, mux, event.New("shop.orders", "o1", shop.OrderPlaced{OrderID: "o1"}))
//	if v.Kind != consumer.Done || len(pub.Sent("shop.shipments")) != 1 {
//		t.Error(v)
//	}
package millracetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/schemas"
)

// Publisher is an event.Publisher that keeps what it is given. Like the real one it encodes, so data that has no
// schema is an error, and it refuses a second effect of one cause that shares an id. The zero value is ready and
// safe for concurrent use.
type Publisher struct {
	// Fail is asked before each event is kept; its error is Publish's. Nil lets everything through.
	Fail func(e event.Event) error

	once sync.Once
	reg  *schemas.Registry
	mu   sync.Mutex
	sent []event.Event
}

var _ event.Publisher = (*Publisher)(nil)

// Publish implements [event.Publisher]. It keeps the events before the first that fails.
func (p *Publisher) Publish(ctx context.Context, events ...event.Event) error {
	p.once.Do(func() { p.reg = registry() })
	for _, e := range events {
		if err := p.publish(ctx, e); err != nil {
			return fmt.Errorf("publish %s to %s: %w", e.ID, e.Topic, err)
		}
	}
	return nil
}

func (p *Publisher) publish(ctx context.Context, e event.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := event.Claim(ctx, &e); err != nil {
		return err
	}
	err := func() error {
		if p.Fail != nil {
			if err := p.Fail(e); err != nil {
				return err
			}
		}
		if e.Data == nil {
			return nil
		}
		_, err := p.reg.Encode(ctx, nil, &e)
		return undescribed(err, e.Data)
	}()
	if err != nil {
		event.Unclaim(ctx, &e)
		return err
	}
	if e.Time.IsZero() {
		e.Time = event.Now(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, e)
	return nil
}

// Sent returns what was published to topic, in order; "" is every topic. Data is as the handler gave it.
func (p *Publisher) Sent(topic string) []event.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	if topic == "" {
		return slices.Clone(p.sent)
	}
	var out []event.Event
	for _, e := range p.sent {
		if e.Topic == topic {
			out = append(out, e)
		}
	}
	return out
}

// Handle makes one attempt at e with mux and returns its verdict: what the consumer would do next, before its
// policy of retries. An event that cannot be encoded fails the test: its data must say its schema (generated types
// do, and schemas.For derives one). To handle bytes as they are, poison for one, set e.Value instead of e.Data.
func Handle(tb testing.TB, mux *consumer.Mux, e event.Event) consumer.Verdict {
	tb.Helper()
	reg := registry()
	return consumer.VerdictOf(mux.Handle(tb.Context(), reg, readBack(tb, reg, e, 0)))
}

// attemptsAtMost bounds [Run]: a policy without end meets a handler that never succeeds.
const attemptsAtMost = 1000

// Run handles events in order, each as often as cfg.Retry says, without waiting, and returns what became of each:
// Done, Dropped, DeadLettered, or Stopped, after which nothing follows. It fails the test after 1,000 attempts
// at one event. Only Retry, Strict and Incompatible of cfg count; batch handlers get batches of one.
func Run(tb testing.TB, mux *consumer.Mux, cfg consumer.Config, events ...event.Event) []consumer.Verdict {
	tb.Helper()
	reg := registry()
	out := make([]consumer.Verdict, 0, len(events))
	for i, e := range events {
		read := readBack(tb, reg, e, int64(i))
		v := settle(tb, mux, cfg, reg, read)
		out = append(out, v)
		if v.Kind == consumer.Stopped {
			break
		}
	}
	return out
}

func settle(tb testing.TB, mux *consumer.Mux, cfg consumer.Config, reg *schemas.Registry, e event.Event) consumer.Verdict {
	tb.Helper()
	e.Attempt = 1
	for range attemptsAtMost {
		v := consumer.VerdictOf(mux.Handle(tb.Context(), reg, e))
		switch {
		case v.Kind == consumer.Paused:
			continue // the dependency is asked again; no attempt counts
		case v.Kind == consumer.Retried:
			if _, again := cfg.Retry.Next(e.Attempt); again {
				e.Attempt++
				continue
			}
			if v.Kind = consumer.DeadLettered; cfg.Retry.Stop {
				v.Kind = consumer.Stopped
			}
		case v.Kind == consumer.Dropped && cfg.Strict && errors.Is(v.Err, consumer.ErrUnhandled):
			v.Kind = consumer.Stopped
		case v.Kind == consumer.Stopped && cfg.Incompatible == consumer.DeadLettered && errors.Is(v.Err, schemas.ErrIncompatible):
			v.Kind = consumer.DeadLettered
		}
		return v
	}
	tb.Fatalf("event %s of %s: not settled after %d attempts", e.ID, e.Topic, attemptsAtMost)
	return consumer.Verdict{}
}

// At returns the test's context with its clock stopped at t: event.Now is t in handlers and publishers.
func At(tb testing.TB, t time.Time) context.Context {
	tb.Helper()
	return event.WithClock(tb.Context(), func() time.Time { return t })
}

// registry is a registry in memory for topics of any mixture of types.
func registry() *schemas.Registry {
	return schemas.MemoryWith(map[string]schemas.Topic{"*": {Naming: schemas.ByTopicRecord, Create: true}})
}

// readBack is e as a consumer reads it from partition 0 at offset.
func readBack(tb testing.TB, reg *schemas.Registry, e event.Event, offset int64) event.Event {
	tb.Helper()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	value := e.Value
	if e.Data != nil {
		var err error
		if value, err = reg.Encode(tb.Context(), nil, &e); err != nil {
			tb.Fatalf("encode %s for %s: %v", e.ID, e.Topic, undescribed(err, e.Data))
		}
	}
	r := wire.Record(&e, value)
	r.Timestamp, r.Offset, r.LeaderEpoch = time.Now().Truncate(time.Millisecond), offset, -1
	var read event.Event
	wire.Read(&read, r, [16]byte{})
	return read
}

// undescribed says what to do about a type that no schema was found for: there is no registry here to register it in.
func undescribed(err error, data any) error {
	if errors.Is(err, schemas.ErrNotFound) {
		return fmt.Errorf("%T says no schema: give it a method AvroSchema() string that returns its .avsc (schemas.Described)", data)
	}
	return err
}
