package producer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
)

const (
	maxAttribute = 255 // bytes of an id or a source

	// attributeHeaders is how many headers event.AppendHeaders makes of attributes, at most.
	attributeHeaders = 7
)

// item is one event on its way.
type item struct {
	record  kgo.Record
	size    int64  // of key, value and headers
	lost    uint64 // watch.lost when the record was handed to the client
	claimed bool   // event.Claim holds the id
}

// send makes it.record from e and takes room for it. After an error, which is a *failure, the event is rejected.
func (p *Producer) send(ctx context.Context, b *buffers, e *event.Event, now time.Time, it *item) error {
	if err := p.prepare(ctx, b, e, now, it); err != nil {
		return err
	}
	return p.admit(ctx, it)
}

// prepare makes it.record from e: attributes that are empty are filled in, data is encoded, and values and headers
// are put into b. A record without a topic was captured by Redirect.
//
// now is the event's time where it has none. The record's own timestamp is left to the client: the time of publishing.
func (p *Producer) prepare(ctx context.Context, b *buffers, e *event.Event, now time.Time, it *item) error {
	it.record.Topic, it.record.Partition = e.Topic, -1 // the client sets the partition when it buffers the record
	if err := ctx.Err(); err != nil {
		return rejected(nil, fmt.Errorf("not sent: %w", err))
	}
	if err := check(e); err != nil {
		return rejected(nil, err)
	}
	if err := event.Claim(ctx, e); err != nil {
		return rejected(nil, err)
	}
	it.claimed = true
	if !e.Verbatim {
		if e.Source == "" {
			e.Source = p.cfg.Source
		}
		if e.Time.IsZero() {
			e.Time = now
		}
	}
	topic := e.Topic
	if p.cfg.Redirect != nil {
		var err error
		if topic, err = p.cfg.Redirect(e.Topic); err != nil {
			return rejected(nil, fmt.Errorf("redirect: %w", err))
		}
	}
	value := e.Value
	if e.Data != nil {
		if p.encoder == nil {
			return rejected(nil, errors.New("this producer has no encoder: set Value, or open it with a schema registry"))
		}
		var err error
		if value, err = b.encode(ctx, p.encoder, e); err != nil {
			return rejected(nil, err)
		}
	}
	headers := b.appendHeaders(e)
	if p.cfg.Capture != nil {
		p.capture(ctx, *e, value, headers)
	}
	it.record.Topic = topic
	it.record.Key, it.record.Value, it.record.Headers = e.Key, value, wire.RecordHeaders(headers)
	it.size = int64(len(e.Key) + len(value))
	for i := range headers {
		it.size += int64(len(headers[i].Key) + len(headers[i].Value))
	}
	return nil
}

func (p *Producer) capture(ctx context.Context, e event.Event, value []byte, headers event.Headers) {
	e.Data, e.Value, e.Headers = nil, value, headers
	p.cfg.Capture(ctx, &e)
}

// admit waits for room for it.
func (p *Producer) admit(ctx context.Context, it *item) error {
	if it.record.Topic == "" {
		return nil
	}
	if it.size > p.cfg.MaxBytes {
		return rejected(ErrTooLarge, fmt.Errorf("key, value and headers have %d bytes, more than the %d that the producer may hold (Config.MaxBytes)", it.size, p.cfg.MaxBytes))
	}
	if err := p.limit.acquire(ctx, it.size); err != nil {
		if failed, ok := errors.AsType[*failure](err); ok {
			return failed
		}
		return rejected(nil, p.watch.because(p.cluster, err))
	}
	it.lost = p.watch.lost.Load()
	return nil
}

// check refuses events that nobody could read or tell apart. An id is never made here: publishing the event again
// would give it another one.
func check(e *event.Event) error {
	switch {
	case e.Topic == "":
		return errors.New("the event names no topic")
	case e.Verbatim && e.Data != nil:
		return errors.New("a verbatim event is sent with the Value that it has: Data must be nil")
	case e.Verbatim: // its headers are its own, with an id or without
		return nil
	case e.ID == "":
		return errors.New("the event has no ID: make it with event.New or event.After, or set one that stays the same when it is published again")
	case len(e.ID) > maxAttribute:
		return fmt.Errorf("the event's ID has %d bytes; at most %d are allowed", len(e.ID), maxAttribute)
	}
	return nil
}

// stamp is the time of an event that has none: in milliseconds, as the record's own timestamp is.
func stamp(ctx context.Context) time.Time { return event.Now(ctx).Truncate(time.Millisecond) }
