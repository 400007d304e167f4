package schemas_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// round publishes data and returns the event as a consumer reads it.
func round(t *testing.T, reg *schemas.Registry, data any) event.Event {
	t.Helper()
	e := event.New("shop.orders", "o1", data)
	value, err := reg.Encode(t.Context(), nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	return event.Event{Meta: event.Meta{Topic: e.Topic, Type: e.Type, ContentType: e.ContentType, Partition: 3, Offset: 42}, Value: value}
}

func TestEncodeDecode(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	for _, tt := range []struct {
		name string
		data any
		into any // a pointer to the zero of what data is
	}{
		{"lean", testOrder(), &order{}},
		{"rich", testRichOrder(), &richOrder{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := round(t, reg, tt.data)
			if e.Type != "shop.OrderPlaced" || e.ContentType != "application/avro" {
				t.Errorf("got type %q and content type %q", e.Type, e.ContentType)
			}
			if name, err := reg.TypeOf(t.Context(), &e); name != "shop.OrderPlaced" || err != nil {
				t.Errorf("TypeOf is %q, %v", name, err)
			}
			if err := reg.Decode(t.Context(), &e, tt.into); err != nil {
				t.Fatal(err)
			}
			if got := reflect.ValueOf(tt.into).Elem().Interface(); !reflect.DeepEqual(got, tt.data) {
				t.Errorf("got  %+v\nwant %+v", got, tt.data)
			}
			text, err := reg.AppendJSON(t.Context(), nil, &e)
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != orderJSON {
				t.Errorf("got  %s\nwant %s", text, orderJSON)
			}
		})
	}
}

// A pointer and a value are the same event.
func TestEncodePointer(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	o := testOrder()
	byValue, byPointer := round(t, reg, o), round(t, reg, &o)
	if string(byValue.Value) != string(byPointer.Value) {
		t.Errorf("got % x, want % x", byPointer.Value, byValue.Value)
	}
	var none *order
	e := event.New("shop.orders", "o1", none)
	if _, err := reg.Encode(t.Context(), nil, &e); err == nil {
		t.Error("a nil pointer was encoded")
	}
}

func TestEncodeLeavesValuesAlone(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	e := event.Event{Meta: event.Meta{Topic: "t", Type: "x.Y", ContentType: "text/plain"}, Value: []byte("as it is")}
	got, err := reg.Encode(t.Context(), []byte(">"), &e)
	if err != nil || string(got) != ">as it is" || e.Type != "x.Y" || e.ContentType != "text/plain" {
		t.Errorf("got %q, %v; type %q, content type %q", got, err, e.Type, e.ContentType)
	}
}

func TestEncodeUnregistered(t *testing.T) {
	t.Parallel()
	reg := schemas.MemoryWith(map[string]schemas.Topic{"*": {Naming: schemas.ByTopicRecord}})
	e := event.New("shop.orders", "o1", testOrder())
	_, err := reg.Encode(t.Context(), nil, &e)
	if !errors.Is(err, schemas.ErrNotFound) || !strings.Contains(err.Error(), "shop.orders-shop.OrderPlaced") || !strings.Contains(err.Error(), "millrace schemas register") {
		t.Errorf("got %v, want the subject and what to type", err)
	}
	if _, err := reg.Register(t.Context(), "shop.orders-shop.OrderPlaced", orderText); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Encode(t.Context(), nil, &e); err != nil {
		t.Errorf("registered, and still: %v", err)
	}
}

// Every prefix of an event is poison, and so is one with a byte too many, for every kind of type.
func TestDecodeCutOff(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	e := round(t, reg, testOrder())
	whole := e.Value
	for _, into := range []any{new(order), new(richOrder), new(userPlain), new(any)} {
		for n := range len(whole) + 2 {
			e.Value = append(append([]byte{}, whole[:min(n, len(whole))]...), make([]byte, max(0, n-len(whole)))...)
			err := reg.Decode(t.Context(), &e, into)
			if n == len(whole) && err == nil {
				continue
			}
			if !errors.Is(err, schemas.ErrPoison) {
				t.Fatalf("%T from %d bytes of %d: got %v, want poison", into, n, len(whole), err)
			}
		}
	}
}
