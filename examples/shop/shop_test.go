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

func paid(o shop.OrderPaid) event.Event { return event.New(shop.Paid, o.OrderID, o) }

func TestShipping(t *testing.T) {
	t.Parallel()
	pub := &millracetest.Publisher{}
	mux := consumer.NewMux()
	depot := &shop.Depot{Events: pub}
	consumer.On(mux, depot.OrderPlaced)
	consumer.On(mux, depot.OrderPaid)

	if v := millracetest.Handle(t, mux, placed(order(0))); v.Kind != consumer.Done || len(pub.Sent(shop.Shipments)) != 0 {
		t.Fatalf("before it is paid: %v and %v", v, pub.Sent(shop.Shipments))
	}
	e := paid(shop.OrderPaid{OrderID: "o1", Address: "Mill Lane 1", Pieces: 5})
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
	if got, want := depot.Result(), "1 orders packed, 2 shipped in 4 parcels"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnOrderWithoutAddressIsADeadLetter(t *testing.T) {
	t.Parallel()
	mux := consumer.NewMux()
	depot := &shop.Depot{Events: &millracetest.Publisher{}}
	consumer.On(mux, depot.OrderPlaced)
	consumer.On(mux, depot.OrderPaid)
	for _, e := range []event.Event{placed(shop.OrderPlaced{OrderID: "o1"}), paid(shop.OrderPaid{OrderID: "o1"})} {
		if v := millracetest.Handle(t, mux, e); v.Kind != consumer.DeadLettered {
			t.Error(v)
		}
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
	consumer.On(mux, (&shop.Depot{Events: pub}).OrderPaid)
	vs := millracetest.Run(t, mux, consumer.Config{}, paid(shop.OrderPaid{OrderID: "o1", Address: "Mill Lane 1"}))
	if vs[0].Kind != consumer.Done || len(pub.Sent(shop.Shipments)) != 1 {
		t.Errorf("got %v and %d shipments", vs, len(pub.Sent(shop.Shipments)))
	}
}

func TestAPaymentMakesAnOrderPaid(t *testing.T) {
	t.Parallel()
	pub := &millracetest.Publisher{}
	till := &shop.Till{Events: pub}
	mux := consumer.NewMux()
	consumer.On(mux, till.PaymentTaken)
	o, taken := shop.Order(1, "test", 3, noon)
	e := event.New(shop.Payments, taken.OrderID, taken)
	for range 2 {
		if v := millracetest.Handle(t, mux, e); v.Kind != consumer.Done {
			t.Fatal(v)
		}
	}
	sent := pub.Sent(shop.Paid)
	got, ok := sent[0].Data.(shop.OrderPaid)
	if !ok || got.OrderID != o.OrderID || got.CustomerID != o.CustomerID || got.Cents != o.Cents || got.Address != o.Address || got.Pieces == 0 {
		t.Errorf("paid %+v, of the order %+v", sent[0].Data, o)
	}
	if len(sent) != 2 || sent[0].ID != sent[1].ID || string(sent[0].Key) != o.OrderID {
		t.Errorf("a payment that comes again makes the order paid under another id: %v", sent)
	}
	if v := millracetest.Handle(t, mux, event.New(shop.Payments, "x", shop.PaymentTaken{})); v.Kind != consumer.DeadLettered {
		t.Errorf("a payment of nothing: %v", v)
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
	paidMux := consumer.NewMux()
	consumer.On(paidMux, desk.OrderPaid)
	for _, o := range []shop.OrderPaid{
		{OrderID: "small", Method: "wallet", Cents: 100}, {OrderID: "card", Method: "card", Cents: 50_000}, {OrderID: "wallet", Method: "wallet", Cents: 50_000},
	} {
		if v := millracetest.Handle(t, paidMux, paid(o)); v.Kind != consumer.Done {
			t.Fatal(v)
		}
	}
	flags := pub.Sent(shop.Flags)
	if len(flags) != 3 || string(flags[2].Key) != "wallet" || string(flags[0].Key) != large.OrderID || string(flags[1].Key) != wrong.OrderID {
		t.Fatalf("flagged %v", flags)
	}
	if got, want := desk.Result(), "3 flags on 3 orders"; got != want {
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
	orders := pub.Sent(shop.Orders)
	if len(orders) != 30 || len(pub.Sent(shop.Payments)) != 0 {
		t.Fatalf("%d orders, %d payments: those are the provider's matter", len(orders), len(pub.Sent(shop.Payments)))
	}
	for n := range orders {
		o, _ := shop.Order(1, "test", int64(n), noon)
		if got := orders[n].Data; fmt.Sprint(got) != fmt.Sprint(o) {
			t.Errorf("order %d is %v, want %v", n, got, o)
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
		shop.Orders: shop.OrderPlaced{}, shop.Payments: shop.PaymentTaken{}, shop.Paid: shop.OrderPaid{}, shop.Shipments: shop.OrderShipped{}, shop.Flags: shop.OrderFlagged{},
	} {
		if !described[topic] {
			t.Errorf("no file describes %s", topic)
		}
		named, _ := data.(schemas.Named)
		if s, err := schemas.Parse(data.AvroSchema()); err != nil || s.Name != named.AvroName() {
			t.Errorf("%s: the schema is %s, the type %s: %v", topic, s.Name, named.AvroName(), err)
		}
	}
	if files, _ := fs.Glob(shop.Files, path.Join("schemas", "*.avsc")); len(files) != 5 {
		t.Errorf("schemas %v", files)
	}
}

func TestTheTypesAreTheirSchemas(t *testing.T) {
	t.Parallel()
	same[shop.OrderPlaced](t)
	same[shop.PaymentTaken](t)
	same[shop.OrderPaid](t)
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
