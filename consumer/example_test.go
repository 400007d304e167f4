package consumer_test

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

var errNoAddress = errors.New("no address")

func ship(_ context.Context, _ string, o shop.OrderPlaced) error {
	if o.Address == "" {
		return errNoAddress
	}
	return nil
}

// Publish an order, and ship every order once it is placed.
func Example() {
	publishAndConsume := func(ctx context.Context, seeds []string, user, password, url string, order shop.OrderPlaced) error {
		c := kafka.Cluster{Seeds: seeds, Auth: kafka.SCRAM512(user, password)}
		reg, err := schemas.New(schemas.Config{URLs: []string{url}})
		if err != nil {
			return err
		}
		p, err := producer.New(c, reg, producer.Config{Source: "orders"})
		if err != nil {
			return err
		}
		defer func() { _ = p.Close(ctx) }()
		if err := p.Publish(ctx, event.New("shop.orders", order.OrderID, order)); err != nil {
			return err
		}

		mux := consumer.NewMux()
		consumer.On(mux, func(ctx context.Context, e event.Of[shop.OrderPlaced]) error {
			if err := ship(ctx, e.ID, e.Data); errors.Is(err, errNoAddress) {
				return consumer.DeadLetter(err)
			} else if err != nil {
				return err // tried again by policy
			}
			return p.Publish(ctx, event.After(e.Meta, "shop.shipments", e.Key, shop.OrderShipped{OrderID: e.Data.OrderID}))
		})
		return consumer.Run(ctx, c, reg, mux, consumer.Config{
			Group: "shipping", Topics: []string{"shop.orders"},
			Retry: consumer.Retry{Attempts: 3, Backoff: time.Second},
		})
	}
	_ = publishAndConsume
}

// Take many events at once, and say for each what becomes of it.
func ExampleOnBatch() {
	insert := func(context.Context, event.Of[shop.OrderPlaced]) error { return nil }

	mux := consumer.NewMux()
	consumer.OnBatch(mux, func(ctx context.Context, es []event.Of[shop.OrderPlaced]) error {
		errs := make([]error, len(es))
		for i, e := range es {
			errs[i] = insert(ctx, e)
		}
		return consumer.Each(errs)
	})
}

// Put every handler inside a middleware.
func ExampleMux_Use() {
	allowed := func(event.Event) bool { return true }

	mux := consumer.NewMux()
	mux.Use(func(next consumer.Handler) consumer.Handler {
		return func(ctx context.Context, e event.Event) error {
			if !allowed(e) {
				return consumer.Drop(errors.New("not for us"))
			}
			return next(ctx, e)
		}
	})
}
