package producer_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

// OrderPlaced is an event.
type OrderPlaced struct {
	OrderID string `avro:"order_id"`
	Cents   int64  `avro:"cents"`
}

// AvroName is the event's type.
func (OrderPlaced) AvroName() string { return "shop.OrderPlaced" }

// AvroSchema is its schema.
func (OrderPlaced) AvroSchema() string { return orderSchema }

var orderSchema = schemas.MustFor[OrderPlaced]()

func Example() {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(6, "shop.orders")) // instead of a cluster
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fake.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	p, err := producer.New(kafka.Cluster{Seeds: fake.ListenAddrs()}, schemas.Memory(), producer.Config{Source: "orders"})
	if err != nil {
		fmt.Println(err)
		return
	}
	order := OrderPlaced{OrderID: "o-1", Cents: 1990}
	if err := p.Publish(ctx, event.New("shop.orders", order.OrderID, order)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("every in-sync replica has it")

	err = p.Publish(ctx, event.New("shop.order", order.OrderID, order)) // a typing error
	fmt.Println(errors.Is(err, producer.ErrRejected), errors.Is(err, producer.ErrUnknownTopic))

	if err := p.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// every in-sync replica has it
	// true true
}
