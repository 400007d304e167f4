package replay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// Carrier carries schemas from one registry to another: the first value of each schema registers it there, behind
// the versions that precede it, and the id in the value's frame becomes the new one. Schemas of keys are not carried:
// another id in a key would be another key.
type Carrier struct {
	// From and To are the registries.
	From, To *schemas.Registry
	// FromTopic and ToTopic name the subjects. The naming is the one under which From knows the schema; ByTopic if none.
	FromTopic, ToTopic string

	mu  sync.Mutex
	ids map[int32]int32
}

// carry returns e's value and headers as the other registry's readers need them.
func (c *Carrier) carry(ctx context.Context, e *event.Event) ([]byte, event.Headers, error) {
	f, err := schemas.ParseFrame(e.Value, e.Headers)
	if err != nil {
		return nil, nil, consumer.DeadLetter(err)
	}
	switch {
	case e.Value == nil || !f.Framed():
		return e.Value, e.Headers, nil
	case f.ID == 0: // its GUID is the same everywhere, once the schema is there
		return nil, nil, consumer.DeadLetter(errors.New("the value names its schema by GUID, which is not carried to another registry"))
	}
	id, err := c.id(ctx, f.ID)
	if err != nil {
		return nil, nil, err
	}
	if len(f.Body) == len(e.Value) { // the frame is a header
		h := slices.Clone(e.Headers)
		for i, x := range slices.Backward(h) {
			if x.Key == schemas.HeaderValueSchema {
				h[i].Value = reframed(x.Value, id)
				break
			}
		}
		return e.Value, h, nil
	}
	return reframed(e.Value, id), e.Headers, nil
}

// reframed is b with another id behind its first byte.
func reframed(b []byte, id int32) []byte {
	b = slices.Clone(b)
	binary.BigEndian.PutUint32(b[1:], uint32(id))
	return b
}

// id is what To calls the schema.
func (c *Carrier) id(ctx context.Context, from int32) (int32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.ids[from]; ok {
		return id, nil
	}
	s, err := c.From.ByID(ctx, from)
	if err != nil {
		err = fmt.Errorf("carry schema %d: %w", from, err)
		if errors.Is(err, schemas.ErrNotFound) {
			return 0, consumer.DeadLetter(err)
		}
		return 0, err
	}
	if s.Full() == "" {
		return 0, consumer.DeadLetter(fmt.Errorf("carry schema %d: it is %s, and only Avro is carried", from, s.Type))
	}
	there, err := c.register(ctx, s)
	if err != nil {
		err = fmt.Errorf("carry schema %d, %s: %w", from, s.Name, err)
		if errors.Is(err, schemas.ErrIncompatible) {
			return 0, consumer.DeadLetter(err)
		}
		return 0, err
	}
	if c.ids == nil {
		c.ids = map[int32]int32{}
	}
	c.ids[from] = there
	return there, nil
}

// register registers s, and before it the versions that came before it, so that the other registry's check of
// compatibility sees the same line.
func (c *Carrier) register(ctx context.Context, s schemas.Schema) (int32, error) {
	subject := schemas.ByTopic.Subject(c.ToTopic, s.Name)
	for _, naming := range []schemas.Naming{schemas.ByTopic, schemas.ByTopicRecord, schemas.ByRecord} {
		from := naming.Subject(c.FromTopic, s.Name)
		found, err := c.From.Lookup(ctx, from, s.Text)
		if errors.Is(err, schemas.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err //nolint:wrapcheck // id says what it was for
		}
		subject = naming.Subject(c.ToTopic, s.Name)
		versions, err := c.From.Versions(ctx, from)
		if err != nil {
			return 0, err //nolint:wrapcheck // id says what it was for
		}
		for _, v := range versions {
			if v >= found.Version {
				break
			}
			earlier, err := c.From.Version(ctx, from, v)
			if err == nil && earlier.Full() != "" {
				_, err = c.To.Register(ctx, subject, earlier.Full())
			}
			if err != nil {
				return 0, fmt.Errorf("version %d of %s: %w", v, from, err)
			}
		}
		break
	}
	there, err := c.To.Register(ctx, subject, s.Full())
	return there.ID, err //nolint:wrapcheck // id says what it was for
}
