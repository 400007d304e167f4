package schemas_test

import (
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// BenchmarkOrder encodes and decodes one order of twelve fields through the whole path: frame, look-up, codec.
func BenchmarkOrder(b *testing.B) {
	lean, rich := testOrder(), testRichOrder()
	coupon := *lean.Coupon
	generic := map[string]any{
		"order_id": lean.OrderID, "customer_id": lean.CustomerID, "country": lean.Country, "currency": lean.Currency,
		"status": lean.Status, "total": rich.Total, "placed_at": rich.PlacedAt, "updated_at": rich.UpdatedAt,
		"items": lean.Items, "cents": lean.Cents, "coupon": coupon, "lines": []any{},
	}
	var lines []any
	for _, l := range rich.Lines {
		lines = append(lines, map[string]any{"sku": l.SKU, "quantity": l.Quantity, "price": l.Price, "weight": l.Weight})
	}
	generic["lines"] = lines
	for _, bb := range []struct {
		name string
		data any
		into func() any
	}{
		{"lean value", lean, func() any { return new(order) }},
		{"lean pointer", &lean, func() any { return new(order) }},
		{"rich pointer", &rich, func() any { return new(richOrder) }},
		{"generic", generic, func() any { return new(any) }},
	} {
		reg := schemas.Memory()
		if _, err := reg.Register(b.Context(), "shop.orders-value", orderText); err != nil {
			b.Fatal(err)
		}
		e := event.New("shop.orders", "o1", bb.data)
		value, err := reg.Encode(b.Context(), nil, &e)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("encode/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(value)))
			var dst []byte
			for b.Loop() {
				if dst, err = reg.Encode(b.Context(), dst[:0], &e); err != nil {
					b.Fatal(err)
				}
			}
		})
		got := event.Event{Meta: e.Meta, Value: value}
		b.Run("decode/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				if err := reg.Decode(b.Context(), &got, bb.into()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("type/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := reg.TypeOf(b.Context(), &got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
