// Package shop is the demo: a storefront that publishes orders, a payment provider that is not on Kafka and calls back
// over HTTP, and the services that live on both. It is written the way a service outside this repository would be: its
// topics, schemas and webhook sources are files, its event types are Go structs, each service is one wire function, and
// each handler is tested without a broker.
//
//	storefront ─▶ shop.orders ─┬─▶ analytics   revenue per minute and country
//	                           ├─▶ fraud     ─▶ shop.flags
//	                           ├─▶ shipping    packs
//	                           └─▶ provider    somebody else's, which takes the money
//	                                  │ signed callbacks: repeated, late, out of order, forged
//	                                  ▼
//	                               gateway ──▶ shop.callbacks, as they came
//	                                  └──────▶ shop.payments ─▶ checkout ─▶ shop.paid ─┬─▶ shipping ─▶ shop.shipments
//	                                                                                   └─▶ fraud    ─▶ shop.flags
package shop

import (
	"context"
	"embed"
	"time"

	"github.com/millrace/millrace/service"
)

// Files holds the shop's declarations: topics/*.yaml, schemas/*.avsc and sources/*.yaml.
//
//go:embed topics/*.yaml schemas/*.avsc sources/*.yaml
var Files embed.FS

// The topics of the shop, as topics/*.yaml describes them.
const (
	Orders    = "shop.orders"
	Callbacks = "shop.callbacks"
	Payments  = "shop.payments"
	Paid      = "shop.paid"
	Shipments = "shop.shipments"
	Flags     = "shop.flags"
)

// sessionTimeout is how long the partitions of a service that was killed wait for it. Short, so that a person who
// watches sees them move on.
const sessionTimeout = 10 * time.Second

// Services are the shop's services by name, each to be run by service.Main or service.Run. Each consumes in a group of
// its own name.
var Services = map[string]func(ctx context.Context, s *service.Service) error{
	"storefront": Storefront(StorefrontConfig{}),
	"analytics":  Analytics,
	"checkout":   Checkout,
	"fraud":      Fraud,
	"provider":   Provider(ProviderConfig{}),
	"shipping":   Shipping,
}

// The texts of the schemas: what is written, and what the structs below are read by.
var (
	//go:embed schemas/order_placed.avsc
	orderPlaced string
	//go:embed schemas/payment_taken.avsc
	paymentTaken string
	//go:embed schemas/order_paid.avsc
	orderPaid string
	//go:embed schemas/order_shipped.avsc
	orderShipped string
	//go:embed schemas/order_flagged.avsc
	orderFlagged string
)

// OrderPlaced says that a customer placed an order.
type OrderPlaced struct {
	OrderID    string    `avro:"order_id"`
	CustomerID string    `avro:"customer_id"`
	Country    string    `avro:"country"` // ISO 3166-1, two letters
	Address    string    `avro:"address,default="`
	Cents      int64     `avro:"cents"` // the sum of the items, in hundredths of a euro
	Items      []Item    `avro:"items"`
	PlacedAt   time.Time `avro:"placed_at,timestamp-millis"`
}

// Item is a line of an order.
type Item struct {
	SKU      string `avro:"sku"`
	Quantity int32  `avro:"quantity"`
	Cents    int64  `avro:"cents"` // of one piece
}

// PaymentTaken says that the money for an order was taken.
type PaymentTaken struct {
	OrderID string    `avro:"order_id"`
	Cents   int64     `avro:"cents"`
	Method  string    `avro:"method"` // card, transfer or wallet
	TakenAt time.Time `avro:"taken_at,timestamp-millis"`

	PaymentID  string `avro:"payment_id,default="` // the provider's
	CustomerID string `avro:"customer_id,default="`
	Address    string `avro:"address,default="`
	Pieces     int32  `avro:"pieces,default=0"` // how many things are to be shipped
}

// OrderPaid says that an order was paid: the state after OrderPlaced.
type OrderPaid struct {
	OrderID    string    `avro:"order_id"`
	CustomerID string    `avro:"customer_id"`
	Cents      int64     `avro:"cents"`
	Method     string    `avro:"method"` // card, transfer or wallet
	Address    string    `avro:"address"`
	Pieces     int32     `avro:"pieces"` // how many things are to be shipped
	PaidAt     time.Time `avro:"paid_at,timestamp-millis"`
}

// OrderShipped says that an order left the house.
type OrderShipped struct {
	OrderID   string    `avro:"order_id"`
	Carrier   string    `avro:"carrier"`
	Parcels   int32     `avro:"parcels"`
	ShippedAt time.Time `avro:"shipped_at,timestamp-millis"`
}

// OrderFlagged says that a person should look at an order.
type OrderFlagged struct {
	OrderID    string   `avro:"order_id"`
	CustomerID string   `avro:"customer_id"`
	Cents      int64    `avro:"cents"`
	Reasons    []string `avro:"reasons"`
}

// AvroName implements schemas.Named.
func (OrderPlaced) AvroName() string { return "shop.OrderPlaced" }

// AvroSchema implements schemas.Described.
func (OrderPlaced) AvroSchema() string { return orderPlaced }

// AvroName implements schemas.Named.
func (PaymentTaken) AvroName() string { return "shop.PaymentTaken" }

// AvroSchema implements schemas.Described.
func (PaymentTaken) AvroSchema() string { return paymentTaken }

// AvroName implements schemas.Named.
func (OrderPaid) AvroName() string { return "shop.OrderPaid" }

// AvroSchema implements schemas.Described.
func (OrderPaid) AvroSchema() string { return orderPaid }

// AvroName implements schemas.Named.
func (OrderShipped) AvroName() string { return "shop.OrderShipped" }

// AvroSchema implements schemas.Described.
func (OrderShipped) AvroSchema() string { return orderShipped }

// AvroName implements schemas.Named.
func (OrderFlagged) AvroName() string { return "shop.OrderFlagged" }

// AvroSchema implements schemas.Described.
func (OrderFlagged) AvroSchema() string { return orderFlagged }
