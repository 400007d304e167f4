package shop_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"testing"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/millracetest"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func order(n int64) shop.OrderPlaced {
	o, _ := shop.Order(1, "test", n, noon)
	return o
}

func placed(o shop.OrderPlaced) event.Event { return event.New(shop.Orders, o.OrderID, o) }

func TestShipping(t *testing.T) {
	t.Parallel()
	pub := &millracetest.Publisher{}
	mux := consumer.NewMux()
	depot := &shop.Depot{Events: pub}
	consumer.On(mux, depot.OrderPlaced)

	e := placed(shop.OrderPlaced{OrderID: "o1", Address: "Mill Lane 1", Items: []shop.Item{{SKU: "tea", Quantity: 5}}})
	if v := millracetest.Handle(t, mux, e); v.Kind != consumer.Done {
		t.Fatal(v)
	}
	sent := pub.Sent(shop.Shipments)
	if len(sent) != 1 {
		t.Fatalf("%d shipments", len(sent))
	}
	if got, ok := sent[0].Data.(shop.OrderShipped); !ok || got.OrderID != "o1" || got.Parcels != 2 || string(sent[0].Key) != "o1" {
		t.Errorf("shipped %+v", sent[0])
	}
	if v := millracetest.Handle(t, mux, e); v.Kind != consumer.Done || pub.Sent(shop.Shipments)[1].ID != sent[0].ID {
		t.Error("a second run ships the same order under another id")
	}
}

func TestAnOrderWithoutAddressIsADeadLetter(t *testing.T) {
	t.Parallel()
	mux := consumer.NewMux()
	consumer.On(mux, (&shop.Depot{Events: &millracetest.Publisher{}}).OrderPlaced)
	if v := millracetest.Handle(t, mux, placed(shop.OrderPlaced{OrderID: "o1"})); v.Kind != consumer.DeadLettered {
		t.Error(v)
	}
}

func TestShippingIsTriedAgainWhenThePublisherFails(t *testing.T) {
	t.Parallel()
	fails := 2
	pub := &millracetest.Publisher{Fail: func(event.Event) error {
		if fails--; fails >= 0 {
			return errors.New("no broker")
		}
		return nil
	}}
	mux := consumer.NewMux()
	consumer.On(mux, (&shop.Depot{Events: pub}).OrderPlaced)
	vs := millracetest.Run(t, mux, consumer.Config{}, placed(order(0)))
	if vs[0].Kind != consumer.Done || len(pub.Sent(shop.Shipments)) != 1 {
		t.Errorf("got %v and %d shipments", vs, len(pub.Sent(shop.Shipments)))
	}
}

func TestFraudFlagsWhatLooksWrong(t *testing.T) {
	t.Parallel()
	large, wrong := order(1), order(2)
	large.Items = []shop.Item{{SKU: "millstone", Quantity: 10, Cents: 28900}}
	large.Cents = 289_000
	wrong.Cents++
	pub := &millracetest.Publisher{}
	mux := consumer.NewMux()
	desk := &shop.FraudDesk{Events: pub}
	consumer.On(mux, desk.OrderPlaced)
	for _, v := range millracetest.Run(t, mux, consumer.Config{}, placed(shop.OrderPlaced{OrderID: "fine"}), placed(large), placed(wrong)) {
		if v.Kind != consumer.Done {
			t.Fatal(v)
		}
	}
	flags := pub.Sent(shop.Flags)
	if len(flags) != 2 || string(flags[0].Key) != large.OrderID || string(flags[1].Key) != wrong.OrderID {
		t.Fatalf("flagged %v", flags)
	}
	if got, want := desk.Result(), "2 of 3 orders flagged"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestACellAddsOrdersUp(t *testing.T) {
	t.Parallel()
	var cell shop.Cell
	var cents int64
	for n := range int64(50) {
		o := order(n)
		cell = cell.Add(event.Of[shop.OrderPlaced]{Data: o})
		cents += o.Cents
	}
	if cell != (shop.Cell{Orders: 50, Cents: cents}) {
		t.Errorf("got %+v, want 50 orders and %d cents", cell, cents)
	}
}

func TestTheStorefrontSellsWhatItsSeedSays(t *testing.T) {
	t.Parallel()
	pub := &millracetest.Publisher{}
	front := shop.NewFront(pub, shop.StorefrontConfig{Seed: 1, Run: "test", Rate: 1000, Orders: 30})
	if err := front.Sell(millracetest.At(t, noon)); err != nil {
		t.Fatal(err)
	}
	orders, payments := pub.Sent(shop.Orders), pub.Sent(shop.Payments)
	if len(orders) != 30 || len(payments) != 30 {
		t.Fatalf("%d orders, %d payments", len(orders), len(payments))
	}
	for n := range orders {
		o, p := shop.Order(1, "test", int64(n), noon)
		if got := orders[n].Data; fmt.Sprint(got) != fmt.Sprint(o) {
			t.Errorf("order %d is %v, want %v", n, got, o)
		}
		if got := payments[n].Data; got != any(p) || string(payments[n].Headers.Get(event.HeaderCause)) != orders[n].ID {
			t.Errorf("payment %d is %v, want %v after its order", n, got, p)
		}
	}
}

func TestTheStorefrontEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := shop.NewFront(&millracetest.Publisher{}, shop.StorefrontConfig{}).Sell(ctx); err != nil {
		t.Error(err)
	}
}

func TestTheDeclarationsHoldTogether(t *testing.T) {
	t.Parallel()
	dir, err := fs.Sub(shop.Files, "topics")
	if err != nil {
		t.Fatal(err)
	}
	specs, err := topics.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for _, s := range specs {
		described[s.Name] = true
		if len(s.Events) != 1 {
			t.Errorf("%s carries %v", s.Name, s.Events)
		}
	}
	for topic, data := range map[string]schemas.Described{
		shop.Orders: shop.OrderPlaced{}, shop.Payments: shop.PaymentTaken{}, shop.Shipments: shop.OrderShipped{}, shop.Flags: shop.OrderFlagged{},
	} {
		if !described[topic] {
			t.Errorf("no file describes %s", topic)
		}
		named, _ := data.(schemas.Named)
		if s, err := schemas.Parse(data.AvroSchema()); err != nil || s.Name != named.AvroName() {
			t.Errorf("%s: the schema is %s, the type %s: %v", topic, s.Name, named.AvroName(), err)
		}
	}
	if files, _ := fs.Glob(shop.Files, path.Join("schemas", "*.avsc")); len(files) != 4 {
		t.Errorf("schemas %v", files)
	}
}

func TestTheTypesAreTheirSchemas(t *testing.T) {
	t.Parallel()
	same[shop.OrderPlaced](t)
	same[shop.PaymentTaken](t)
	same[shop.OrderShipped](t)
	same[shop.OrderFlagged](t)
}

// same checks that T's fields make the bytes that its schema describes.
func same[T schemas.Described](t *testing.T) {
	t.Helper()
	derived, err := schemas.For[T]()
	if err != nil {
		t.Fatal(err)
	}
	a, err := schemas.Parse(derived)
	if err != nil {
		t.Fatal(err)
	}
	var zero T
	b, err := schemas.Parse(zero.AvroSchema())
	if err != nil {
		t.Fatal(err)
	}
	if a.Fingerprint != b.Fingerprint {
		t.Errorf("%T: its fields make\n%s\nits schema is\n%s", zero, a.Text, b.Text)
	}
}
