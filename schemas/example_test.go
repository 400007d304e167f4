package schemas_test

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// OrderPlaced says its name; its schema is derived from its fields.
type OrderPlaced struct {
	OrderID  string    `avro:"order_id"`
	Cents    int64     `avro:"cents"`
	PlacedAt time.Time `avro:"placed_at,timestamp-millis"`
}

var orderPlacedSchema = schemas.MustFor[OrderPlaced]()

func (OrderPlaced) AvroName() string   { return "shop.OrderPlaced" }
func (OrderPlaced) AvroSchema() string { return orderPlacedSchema }

// A struct goes out and comes in by the schema of its fields.
func Example() {
	ctx := context.Background()
	reg := schemas.Memory() // schemas.New(schemas.Config{URLs: ...}) for a real one

	at := time.Date(2026, 1, 31, 12, 30, 0, 0, time.UTC)
	e := event.New("shop.orders", "o1", OrderPlaced{OrderID: "o1", Cents: 1990, PlacedAt: at})
	value, err := reg.Encode(ctx, nil, &e) // a producer does this
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Type, e.ContentType, len(value), "bytes")

	read := event.Event{Meta: e.Meta, Value: value}
	var o OrderPlaced
	if err := reg.Decode(ctx, &read, &o); err != nil { // and a consumer this
		fmt.Println(err)
		return
	}
	fmt.Println(o.OrderID, o.Cents, o.PlacedAt)
	// Output:
	// shop.OrderPlaced application/avro 16 bytes
	// o1 1990 2026-01-31 12:30:00 +0000 UTC
}

// Data without a Go type is written by a schema from the registry, and read as maps.
func Example_generic() {
	ctx := context.Background()
	reg := schemas.Memory()
	s, err := reg.Register(ctx, "shop.orders-value", orderPlacedSchema)
	if err != nil {
		fmt.Println(err)
		return
	}
	line := `{"order_id": "o1", "cents": 1990, "placed_at": "2026-01-31T12:30:00Z"}`
	e := event.New("shop.orders", "o1", schemas.Generic{Schema: s, Data: json.RawMessage(line), Strict: true})
	if e.Value, err = reg.Encode(ctx, nil, &e); err != nil {
		fmt.Println(err)
		return
	}
	var v any
	if err := reg.Decode(ctx, &e, &v); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v)
	text, err := reg.AppendJSON(ctx, nil, &e)
	fmt.Println(string(text), err)
	// Output:
	// map[cents:1990 order_id:o1 placed_at:2026-01-31 12:30:00 +0000 UTC]
	// {"order_id":"o1","cents":1990,"placed_at":"2026-01-31T12:30:00Z"} <nil>
}

// A topic of plain JSON needs no registry.
func ExampleJSON() {
	ctx := context.Background()
	reg := schemas.MemoryWith(map[string]schemas.Topic{"clicks": {Format: schemas.JSON()}})
	e := event.New("clicks", "u1", map[string]any{"page": "/", "ms": 12})
	value, err := reg.Encode(ctx, nil, &e)
	fmt.Println(string(value), e.ContentType, err)
	// Output: {"ms":12,"page":"/"} application/json <nil>
}
