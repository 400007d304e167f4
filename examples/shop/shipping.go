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

// Shipping is the service that ships orders.
func Shipping(_ context.Context, s *service.Service) error {
	p, err := s.Producer(producer.Config{})
	if err != nil {
		return err
	}
	depot := &Depot{Events: p}
	mux := consumer.NewMux()
	consumer.On(mux, depot.OrderPlaced)
	s.Consume(mux, consumer.Config{Topics: []string{Orders}, SessionTimeout: sessionTimeout})
	s.Report(depot.Result)
	return nil
}

// Depot ships orders.
type Depot struct {
	Events event.Publisher

	shipped, parcels atomic.Int64
}

var errNoAddress = errors.New("the order has no address")

// perParcel is how many pieces fit in a parcel.
const perParcel = 4

// OrderPlaced ships an order. Without an address no attempt would help: the order goes to the dead letters, where a
// person finds it.
func (d *Depot) OrderPlaced(ctx context.Context, e event.Of[OrderPlaced]) error {
	if e.Data.Address == "" {
		return consumer.DeadLetter(errNoAddress)
	}
	var pieces int32
	for _, item := range e.Data.Items {
		pieces += item.Quantity
	}
	shipped := OrderShipped{
		OrderID: e.Data.OrderID, Carrier: "Mill Post", Parcels: max(1, (pieces+perParcel-1)/perParcel), ShippedAt: event.Now(ctx),
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
	return fmt.Sprintf("%s orders shipped in %s parcels", grouped(d.shipped.Load()), grouped(d.parcels.Load()))
}
