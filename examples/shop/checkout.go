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

// Checkout is the service that makes of a payment the order's next state. It holds nothing: what the next services need
// of the order was given to the payment provider, and came back in its callback, as the metadata of such providers do.
func Checkout(_ context.Context, s *service.Service) error {
	p, err := s.Producer(producer.Config{})
	if err != nil {
		return err
	}
	till := &Till{Events: p}
	mux := consumer.NewMux()
	consumer.On(mux, till.PaymentTaken)
	s.Consume(mux, consumer.Config{Topics: []string{Payments}, SessionTimeout: sessionTimeout})
	s.Report(till.Result)
	return nil
}

// Till hears of payments.
type Till struct {
	Events event.Publisher

	paid, cents atomic.Int64
}

var errNothingTaken = errors.New("the payment is of nothing, or for no order")

// PaymentTaken publishes that the order is paid. The id follows from the payment's, which is the same for all copies of
// a callback: whoever counts by id counts an order once.
func (t *Till) PaymentTaken(ctx context.Context, e event.Of[PaymentTaken]) error {
	if e.Data.OrderID == "" || e.Data.Cents <= 0 {
		return consumer.DeadLetter(errNothingTaken)
	}
	paid := OrderPaid{
		OrderID: e.Data.OrderID, CustomerID: e.Data.CustomerID, Cents: e.Data.Cents, Method: e.Data.Method,
		Address: e.Data.Address, Pieces: e.Data.Pieces, PaidAt: e.Data.TakenAt,
	}
	if err := t.Events.Publish(ctx, event.After(e.Meta, Paid, paid.OrderID, paid)); err != nil {
		return err
	}
	t.paid.Add(1)
	t.cents.Add(paid.Cents)
	return nil
}

// Result says in one line how the till stands.
func (t *Till) Result() string {
	return fmt.Sprintf("%s orders paid, %s EUR", grouped(t.paid.Load()), euros(t.cents.Load()))
}
