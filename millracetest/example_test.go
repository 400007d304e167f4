package millracetest_test

import (
	"context"
	"testing"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/millracetest"
)

// Shipping ships orders.
type Shipping struct{ Events event.Publisher }

// OrderPlaced ships an order.
func (s *Shipping) OrderPlaced(ctx context.Context, e event.Of[shop.OrderPlaced]) error {
	return s.Events.Publish(ctx, event.After(e.Meta, "shop.shipments", e.Key, shop.OrderShipped{OrderID: e.Data.OrderID}))
}

// The test of a handler, without a broker.
func Example() {
	testShipping := func(t *testing.T) {
		t.Helper()
		pub := &millracetest.Publisher{}
		mux := consumer.NewMux()
		consumer.On(mux, (&Shipping{Events: pub}).OrderPlaced)
		v := millracetest.Handle(t, mux, event.New("shop.orders", "o1", shop.OrderPlaced{OrderID: "o1"}))
		if v.Kind != consumer.Done || len(pub.Sent("shop.shipments")) != 1 {
			t.Error(v)
		}
	}
	_ = testShipping
}
