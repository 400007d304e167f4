package schemas_test

import (
	"math/big"
	"time"
)

// orderText is the schema of an order as a shop has it: strings, longs, timestamps, a decimal, an enum, a nullable
// union, an array of records.
const orderText = `{"type":"record","name":"OrderPlaced","namespace":"shop","fields":[
	{"name":"order_id","type":"string"},
	{"name":"customer_id","type":"string"},
	{"name":"country","type":"string"},
	{"name":"currency","type":"string","default":"EUR"},
	{"name":"status","type":{"type":"enum","name":"Status","symbols":["NEW","PAID","SHIPPED"]}},
	{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
	{"name":"placed_at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"updated_at","type":{"type":"long","logicalType":"timestamp-micros"}},
	{"name":"items","type":"long"},
	{"name":"cents","type":"long"},
	{"name":"coupon","type":["null","string"],"default":null},
	{"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
		{"name":"sku","type":"string"},
		{"name":"quantity","type":"int"},
		{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
		{"name":"weight","type":"double"}]}}}]}`

// order takes times and decimals as they are on the wire.
type order struct {
	OrderID    string  `avro:"order_id"`
	CustomerID string  `avro:"customer_id"`
	Country    string  `avro:"country"`
	Currency   string  `avro:"currency"`
	Status     string  `avro:"status"`
	Total      []byte  `avro:"total"`
	PlacedAt   int64   `avro:"placed_at"`
	UpdatedAt  int64   `avro:"updated_at"`
	Items      int64   `avro:"items"`
	Cents      int64   `avro:"cents"`
	Coupon     *string `avro:"coupon"`
	Lines      []line  `avro:"lines"`
}

type line struct {
	SKU      string  `avro:"sku"`
	Quantity int32   `avro:"quantity"`
	Price    []byte  `avro:"price"`
	Weight   float64 `avro:"weight"`
}

func (order) AvroSchema() string { return orderText }

// richOrder takes them as Go values.
type richOrder struct {
	OrderID    string     `avro:"order_id"`
	CustomerID string     `avro:"customer_id"`
	Country    string     `avro:"country"`
	Currency   string     `avro:"currency"`
	Status     string     `avro:"status"`
	Total      *big.Rat   `avro:"total"`
	PlacedAt   time.Time  `avro:"placed_at"`
	UpdatedAt  time.Time  `avro:"updated_at"`
	Items      int64      `avro:"items"`
	Cents      int64      `avro:"cents"`
	Coupon     *string    `avro:"coupon"`
	Lines      []richLine `avro:"lines"`
}

type richLine struct {
	SKU      string   `avro:"sku"`
	Quantity int32    `avro:"quantity"`
	Price    *big.Rat `avro:"price"`
	Weight   float64  `avro:"weight"`
}

func (richOrder) AvroSchema() string { return orderText }

var (
	placed  = time.Date(2026, 1, 31, 12, 30, 0, 123e6, time.UTC)
	updated = time.Date(2026, 1, 31, 12, 31, 0, 123456e3, time.UTC)
)

func testOrder() order {
	coupon := "WINTER"
	return order{
		OrderID: "o-4711-0001", CustomerID: "c-0815", Country: "DE", Currency: "EUR", Status: "PAID",
		Total: []byte{0x16, 0xfa}, PlacedAt: placed.UnixMilli(), UpdatedAt: updated.UnixMicro(), Items: 3, Cents: 5882, Coupon: &coupon,
		Lines: []line{
			{"sku-1234-red", 1, []byte{0x07, 0xcf}, 0.25},
			{"sku-1234-blue", 2, []byte{0x07, 0xcf}, 0.5},
			{"sku-9-green", 1, []byte{0x07, 0x5c}, 12.125},
		},
	}
}

func testRichOrder() richOrder {
	o := testOrder()
	r := richOrder{
		OrderID: o.OrderID, CustomerID: o.CustomerID, Country: o.Country, Currency: o.Currency, Status: o.Status,
		Total: big.NewRat(5882, 100), PlacedAt: placed, UpdatedAt: updated, Items: o.Items, Cents: o.Cents, Coupon: o.Coupon,
	}
	for _, l := range o.Lines {
		cents := int64(l.Price[0])<<8 | int64(l.Price[1])
		r.Lines = append(r.Lines, richLine{l.SKU, l.Quantity, big.NewRat(cents, 100), l.Weight})
	}
	return r
}

const orderJSON = `{"order_id":"o-4711-0001","customer_id":"c-0815","country":"DE","currency":"EUR","status":"PAID","total":"58.82",` +
	`"placed_at":"2026-01-31T12:30:00.123Z","updated_at":"2026-01-31T12:31:00.123456Z","items":3,"cents":5882,"coupon":"WINTER","lines":[` +
	`{"sku":"sku-1234-red","quantity":1,"price":"19.99","weight":0.25},{"sku":"sku-1234-blue","quantity":2,"price":"19.99","weight":0.5},` +
	`{"sku":"sku-9-green","quantity":1,"price":"18.84","weight":12.125}]}`
