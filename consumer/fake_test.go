package consumer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// placed and paid are two event types.
type placed struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

func (placed) AvroName() string { return "shop.Placed" }

type paid struct {
	ID string `json:"id"`
}

func (paid) AvroName() string { return "shop.Paid" }

func (paid) AvroSchema() string {
	return `{"type":"record","name":"Paid","namespace":"shop","aliases":["Settled","old.Paid"],"fields":[{"name":"id","type":"string"}]}`
}

// jsonDecoder reads JSON values and the ce_type; fail plants an error before every decoding.
type jsonDecoder struct {
	mu       sync.Mutex
	fail     func(e *event.Event) error
	failType func(e *event.Event) error
}

func (d *jsonDecoder) plant(decode, typeOf func(e *event.Event) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.failType = decode, typeOf
}

func (d *jsonDecoder) TypeOf(_ context.Context, e *event.Event) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failType != nil {
		if err := d.failType(e); err != nil {
			return "", err
		}
	}
	return e.Type, nil
}

func (d *jsonDecoder) Decode(_ context.Context, e *event.Event, into any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		if err := d.fail(e); err != nil {
			return err
		}
	}
	if err := json.Unmarshal(e.Value, into); err != nil {
		return fmt.Errorf("decode: %w: %w", schemas.ErrPoison, err)
	}
	return nil
}

// raw is an event as a reader finds it: undecoded.
func raw(topic, typ, value string) event.Event {
	e := event.New(topic, "k", nil)
	e.Type, e.Value = typ, []byte(value)
	return e
}
