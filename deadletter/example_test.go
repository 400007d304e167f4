package deadletter_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
)

func ExampleWriter_Write() {
	pub := &publisher{} // a producer
	w := deadletter.New(pub, "shipping", deadletter.Config{})

	e := event.New("shop.orders", "o-1", nil) // as it was read
	e.Value = []byte("no Avro")
	err := w.Write(context.Background(), e, deadletter.Failure{Class: deadletter.Poison, Err: errors.New("decode: no frame"), Attempts: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	l, _ := deadletter.Parse(pub.sent[0])
	fmt.Println(pub.sent[0].Topic, l.Class, l.Err)
	// Output: shop.orders.shipping.dlq poison decode: no frame
}
