package schemas_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// FuzzDecode: any bytes as an order are poison or a value, by every way in; and a value that decodes is written
// and read again as the same JSON.
func FuzzDecode(f *testing.F) {
	reg := schemas.Memory()
	s, err := reg.Register(f.Context(), "shop.orders-value", orderText)
	if err != nil {
		f.Fatal(err)
	}
	body, err := s.FromJSON(nil, []byte(orderJSON))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte{})
	f.Add(body[:20])
	f.Fuzz(func(t *testing.T, body []byte) {
		e := event.Event{Meta: event.Meta{Topic: "shop.orders"}, Value: append([]byte{0, 0, 0, 0, byte(s.ID)}, body...)}
		for _, into := range []any{new(any), new(order), new(richOrder), new(userPlain)} {
			if err := reg.Decode(t.Context(), &e, into); err != nil && !errors.Is(err, schemas.ErrPoison) {
				t.Fatalf("%T: %v", into, err)
			}
		}
		line, err := s.AppendJSON(nil, body)
		if err != nil {
			return
		}
		again, err := s.FromJSON(nil, line)
		if err != nil {
			return // a time of day beyond a day, a decimal beyond its precision: readable, and not to be written
		}
		if second, err := s.AppendJSON(nil, again); err != nil || string(second) != string(line) {
			t.Errorf("got %s, %v, want %s", second, err, line)
		}
	})
}

// FuzzFrame: any value with any header is a frame, none, or poison, and the body is part of the value.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 2}, []byte(nil))
	f.Add([]byte("0123456789"), append([]byte{1}, "0123456789abcdef"...))
	f.Add([]byte{1}, []byte{0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, value, header []byte) {
		headers := event.Headers{{Key: "other", Value: header}, {Key: schemas.HeaderValueSchema, Value: header}}
		for _, h := range []event.Headers{nil, headers} {
			frame, err := schemas.ParseFrame(value, h)
			switch {
			case err != nil && !errors.Is(err, schemas.ErrPoison):
				t.Error(err)
			case err == nil && frame.ID < 0:
				t.Errorf("id %d", frame.ID)
			case err == nil && string(frame.Body) != string(value[len(value)-len(frame.Body):]):
				t.Error("the body is not the end of the value")
			case err == nil && !frame.Framed() && len(frame.Body) != len(value):
				t.Error("no frame, and bytes are gone")
			}
		}
	})
}

// FuzzSchemaParse: any text is refused or is a schema that everything here can work with.
func FuzzSchemaParse(f *testing.F) {
	f.Add(orderText)
	f.Add(userV1)
	f.Add(doubling(3))
	f.Add(`["null",{"type":"record","name":"a.R","fields":[{"name":"r","type":["null","R"],"default":null}]}]`)
	f.Add(`{"type":"record","name":"R","fields":[{"name":"t","type":"long","logicalType":"timestamp-millis"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := schemas.Parse(text)
		if err != nil {
			return
		}
		if again, err := schemas.Parse(s.Text); err != nil || again.Fingerprint != s.Fingerprint || again.Name != s.Name {
			t.Fatalf("%s is not itself when parsed again: %v", s.Text, err)
		}
		c, err := schemas.Avro().Compile(s, nil)
		if err != nil {
			t.Fatalf("%s: %v", s.Text, err)
		}
		_ = c.Decode([]byte{2, 0, 2, 4, 0, 0, 0, 0}, new(any))
		if body, err := s.FromJSON(nil, []byte(`{}`)); err == nil {
			if _, err := s.AppendJSON(nil, body); err != nil {
				t.Fatalf("%s: %v", s.Text, err)
			}
		}
	})
}

// FuzzJSON: any text is refused or becomes bytes that are JSON again.
func FuzzJSON(f *testing.F) {
	s, err := schemas.Parse(orderText)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(orderJSON))
	f.Add([]byte(`{"order_id":{"string":"x"}}`))
	f.Add([]byte(`{"total":1e99999,"placed_at":"x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		body, err := s.FromJSON(nil, text)
		if err != nil {
			return
		}
		line, err := s.AppendJSON(nil, body)
		if err != nil || !json.Valid(line) {
			t.Fatalf("%q: got %q, %v", text, line, err)
		}
		again, err := s.FromJSON(nil, line)
		if err != nil || string(again) != string(body) {
			t.Fatalf("%q: %s came back as % x, %v, was % x", text, line, again, err, body)
		}
	})
}
