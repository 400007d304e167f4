package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
)

const (
	maxAttribute = 255 // bytes of an id or a source

	// attributeHeaders is how many headers event.AppendHeaders makes of attributes, at most.
	attributeHeaders = 7

	valueChunk  = 64 << 10 // bytes of values that share an allocation, at most
	headerChunk = 64       // records whose headers share an allocation, at most
	asyncChunk  = 32       // records of PublishAsync that share allocations: what one slow record keeps in memory
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
	it.record.Topic = topic
	it.record.Key, it.record.Value, it.record.Headers = e.Key, value, wire.RecordHeaders(headers)
	it.size = int64(len(e.Key) + len(value))
	for i := range headers {
		it.size += int64(len(headers[i].Key) + len(headers[i].Value))
	}
	return nil
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

// buffers are memory that records share: one allocation for many values and one for many headers. The client holds
// a record until it is answered, so nothing is used twice; the garbage collector takes a chunk when its last record
// is answered. Pooled buffers were no faster: they come back on another core.
type buffers struct {
	values  []byte // the free rest of a chunk, from its length to its capacity
	headers event.Headers
	more    int // records still to come
	typical int // bytes of the last value

	time     time.Time // the last one that was formatted
	timeText []byte    // shared by the records that have it
}

// expect tells how many records will come.
func (b *buffers) expect(records int) { b.more = records }

// encode appends e's value to the chunk. A value that does not fit gets its own memory, by append.
func (b *buffers) encode(ctx context.Context, enc Encoder, e *event.Event) ([]byte, error) {
	if cap(b.values)-len(b.values) < b.typical+b.typical/4 {
		b.values = make([]byte, 0, min(valueChunk, max(256, b.more*(b.typical+b.typical/4))))
	}
	free := b.values[len(b.values):len(b.values):cap(b.values)]
	value, err := enc.Encode(ctx, free, e)
	if err != nil {
		return nil, err
	}
	b.typical = len(value)
	switch {
	case value == nil:
		return []byte{}, nil // null would be a tombstone
	case cap(value) == cap(free) && len(value) > 0: // it ends where the chunk ends: it is in the chunk
		b.values = b.values[:len(b.values)+len(value)]
	}
	return slices.Clip(value), nil
}

// appendHeaders appends e's headers to the chunk. Those of a verbatim event stay where they are.
func (b *buffers) appendHeaders(e *event.Event) event.Headers {
	if e.Verbatim {
		b.more--
		return e.Headers
	}
	most := attributeHeaders + len(e.Headers)
	if cap(b.headers)-len(b.headers) < most {
		b.headers = make(event.Headers, 0, most*min(headerChunk, max(1, b.more)))
	}
	b.more--
	from := len(b.headers)
	// Events of one moment share its text: formatting it costs as much as all other headers together.
	if !e.Time.Equal(b.time) {
		b.time, b.timeText = e.Time, e.Time.UTC().AppendFormat(make([]byte, 0, len(time.RFC3339Nano)), time.RFC3339Nano)
	}
	e.Time = time.Time{}
	b.headers = append(e.AppendTo(b.headers), event.Header{Key: event.HeaderTime, Value: b.timeText})
	e.Time = b.time
	return b.headers[from:len(b.headers):len(b.headers)]
}

// asyncBuffers are the buffers of PublishAsync, which sees one event at a time. They are pooled per core and used by
// one goroutine at a time; what was cut from them never comes back.
type asyncBuffers struct {
	buffers
	items []asyncItem // not used yet
}

func (b *asyncBuffers) next() *asyncItem {
	if len(b.items) == 0 {
		b.items = make([]asyncItem, asyncChunk)
		b.expect(asyncChunk)
	}
	a := &b.items[0]
	b.items = b.items[1:]
	return a
}
