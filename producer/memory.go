package producer

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
)

// A record on its way takes some 800 bytes: the record itself, its headers, its value, and what remembers who waits
// for it. Fresh memory for each costs more than encoding it (it is in no cache, and the collector follows its
// pointers), so memory is cut in slabs, and a slab is used again once all its records are acked: the client does not
// look at such a record after its promise. It may look at one that failed, which it can give up while another of its
// goroutines still compresses the batch: memory with a failed record is left to the collector.
const (
	valueChunk = 1 << 20 // bytes of values that share an allocation, at most
	maxReused  = 4096    // records whose headers share an allocation, and the largest Publish whose memory is kept
	slabItems  = 32      // events of PublishAsync in a slab: what one slow record holds back
)

// buffers are the memory of values and headers.
type buffers struct {
	values  []byte // used up to its length
	headers event.Headers
	more    int // records still to come
	typical int // bytes of the last value

	time     time.Time // the last one that was formatted
	timeText []byte    // shared by the records that have it
}

// expect starts over: everything that was cut from b is free, and so many records will come.
func (b *buffers) expect(records int) {
	b.values, b.headers, b.more = b.values[:0], b.headers[:0], records
	if cap(b.values) < b.chunk() {
		b.values = nil
	}
}

// chunk is the size of a chunk for the values to come.
func (b *buffers) chunk() int { return min(valueChunk, max(256, b.more*(b.typical+b.typical/4))) }

// encode appends e's value to the chunk. A value that does not fit gets its own memory, by append.
func (b *buffers) encode(ctx context.Context, enc Encoder, e *event.Event) ([]byte, error) {
	if cap(b.values)-len(b.values) < b.typical+b.typical/4 {
		b.values = make([]byte, 0, b.chunk())
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
		b.headers = make(event.Headers, 0, most*min(maxReused, max(1, b.more)))
	}
	b.more--
	from := len(b.headers)
	// Events of one moment share its text: formatting it costs as much as all other headers together.
	if b.timeText == nil || !e.Time.Equal(b.time) {
		b.time, b.timeText = e.Time, e.Time.UTC().AppendFormat(make([]byte, 0, len(time.RFC3339Nano)), time.RFC3339Nano)
	}
	e.Time = time.Time{}
	b.headers = append(e.AppendTo(b.headers), event.Header{Key: event.HeaderTime, Value: b.timeText})
	e.Time = b.time
	return b.headers[from:len(b.headers):len(b.headers)]
}

// memory is that of one Publish.
type memory struct {
	buffers
	slots []slot
	event event.Event // the one copy for all: the encoder sets attributes of it, never of the caller's
}

// memory returns memory for n events.
func (p *Producer) memory(n int) *memory {
	m, ok := p.memories.Get().(*memory)
	if !ok {
		m = new(memory)
	}
	m.expect(n)
	if cap(m.slots) < n {
		m.slots = make([]slot, n)
	}
	m.slots = m.slots[:n]
	return m
}

// reuse gives m back. All its records are acked.
func (p *Producer) reuse(m *memory) {
	if cap(m.slots) <= maxReused {
		p.memories.Put(m)
	}
}

// slab is the memory of some events of PublishAsync. It is filled by one goroutine at a time.
type slab struct {
	buffers
	items []asyncItem
	used  int          // items that were handed out
	acked atomic.Int32 // items that are acked; when all are, the slab is free
}

// next hands out an item of a slab, and the slab, which the caller fills and gives back with fill.
func (p *Producer) next() (*slab, *asyncItem) {
	s, ok := p.open.Get().(*slab)
	if !ok {
		if s, ok = p.free.Get().(*slab); !ok {
			s = &slab{items: make([]asyncItem, slabItems)}
			for i := range s.items {
				a := &s.items[i]
				a.slab, a.promise = s, a.answer
			}
		}
		s.expect(slabItems)
	}
	a := &s.items[s.used]
	s.used++
	return s, a
}

// fill lets others use what is left of s.
func (p *Producer) fill(s *slab) {
	if s.used < slabItems {
		p.open.Put(s)
	}
}

// leave is called when an item of s is acked. The last one frees the slab.
func (p *Producer) leave(s *slab) {
	if s.acked.Add(1) == slabItems {
		s.used = 0
		s.acked.Store(0)
		p.free.Put(s)
	}
}

// promise is what the client calls with the answer to a record. It is made once for each piece of memory.
type promise = func(*kgo.Record, error)
