package service_test

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/service"
)

// Shipping ships orders.
type Shipping struct {
	Events event.Publisher
	HTTP   *http.Client
}

// OrderPlaced ships an order.
func (s *Shipping) OrderPlaced(ctx context.Context, e event.Of[shop.OrderPlaced]) error {
	return s.Events.Publish(ctx, event.After(e.Meta, "shop.shipments", e.Key, shop.OrderShipped{OrderID: e.Data.OrderID}))
}

// A whole service: flags, environment, logs, signals, and an orderly stop.
func Example() {
	main := func() {
		service.Main("shipping", func(_ context.Context, s *service.Service) error {
			p, err := s.Producer(producer.Config{})
			if err != nil {
				return err
			}
			shipping := &Shipping{Events: p, HTTP: s.HTTP()} // Events is an event.Publisher
			mux := consumer.NewMux()
			consumer.On(mux, shipping.OrderPlaced)
			s.Consume(mux, consumer.Config{Group: "shipping", Topics: []string{"shop.orders"}})
			return nil
		})
	}
	_ = main
}

// A number of the service's own beside those that --metrics serves anyway.
func ExampleService_Collect() {
	parcels := prometheus.NewCounter(prometheus.CounterOpts{Name: "shipping_parcels_total", Help: "Parcels handed to carriers."})
	main := func() {
		service.Main("shipping", func(_ context.Context, s *service.Service) error {
			if err := s.Collect(parcels); err != nil {
				return err
			}
			mux := consumer.NewMux()
			consumer.On(mux, func(context.Context, event.Of[shop.OrderPlaced]) error {
				parcels.Inc()
				return nil
			})
			s.Consume(mux, consumer.Config{Topics: []string{"shop.orders"}})
			return nil
		})
	}
	_ = main
}
