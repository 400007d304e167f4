package shop

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/service"
)

// Shipping is the service that packs orders when they are placed and ships them when they are paid.
func Shipping(_ context.Context, s *service.Service) error {
	p, err := s.Producer(producer.Config{})
	if err != nil {
		return err
	}
	depot := &Depot{Events: p}
	mux := consumer.NewMux()
	consumer.On(mux, depot.OrderPlaced)
	consumer.On(mux, depot.OrderPaid)
	s.Consume(mux, consumer.Config{Topics: []string{Orders, Paid}, SessionTimeout: sessionTimeout})
	s.Report(depot.Result)
	return nil
}

// Depot packs and ships orders.
type Depot struct {
	Events event.Publisher

	packed, shipped, parcels atomic.Int64
}

var errNoAddress = errors.New("the order has no address")

// perParcel is how many pieces fit in a parcel.
const perParcel = 4

// OrderPlaced packs an order. Without an address no attempt would help: the order goes to the dead letters, where a
// person finds it.
func (d *Depot) OrderPlaced(_ context.Context, e event.Of[OrderPlaced]) error {
	if e.Data.Address == "" {
		return consumer.DeadLetter(errNoAddress)
	}
	d.packed.Add(1)
	return nil
}

// OrderPaid ships an order.
func (d *Depot) OrderPaid(ctx context.Context, e event.Of[OrderPaid]) error {
	if e.Data.Address == "" {
		return consumer.DeadLetter(errNoAddress)
	}
	shipped := OrderShipped{
		OrderID: e.Data.OrderID, Carrier: "Mill Post", Parcels: max(1, (e.Data.Pieces+perParcel-1)/perParcel), ShippedAt: event.Now(ctx),
	}
	if err := d.Events.Publish(ctx, event.After(e.Meta, Shipments, e.Key, shipped)); err != nil {
		return err // tried again: the shipment keeps its id
	}
	d.shipped.Add(1)
	d.parcels.Add(int64(shipped.Parcels))
	return nil
}

// Result says in one line how the depot stands.
func (d *Depot) Result() string {
	return fmt.Sprintf("%s orders packed, %s shipped in %s parcels", grouped(d.packed.Load()), grouped(d.shipped.Load()), grouped(d.parcels.Load()))
}
