package shop

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/service"
)

// Fraud is the service that flags orders a person should look at.
func Fraud(_ context.Context, s *service.Service) error {
	p, err := s.Producer(producer.Config{})
	if err != nil {
		return err
	}
	desk := &FraudDesk{Events: p}
	mux := consumer.NewMux()
	consumer.On(mux, desk.OrderPlaced)
	consumer.On(mux, desk.OrderPaid)
	s.Consume(mux, consumer.Config{Topics: []string{Orders, Paid}, SessionTimeout: sessionTimeout})
	s.Report(desk.Result)
	return nil
}

// FraudDesk looks at orders.
type FraudDesk struct {
	Events event.Publisher

	seen, flagged atomic.Int64
}

// What is worth a look, in cents: an order, and a sum that came from a wallet.
const (
	suspicious       = 80_000
	suspiciousWallet = 40_000
)

// OrderPlaced publishes a flag for an order that looks wrong. It decides by the order alone, so a second run flags the
// same orders, with the same ids.
func (d *FraudDesk) OrderPlaced(ctx context.Context, e event.Of[OrderPlaced]) error {
	d.seen.Add(1)
	var reasons []string
	if e.Data.Cents >= suspicious {
		reasons = append(reasons, "a large sum")
	}
	var sum int64
	for _, item := range e.Data.Items {
		sum += int64(item.Quantity) * item.Cents
	}
	if sum != e.Data.Cents {
		reasons = append(reasons, "the items do not add up")
	}
	if reasons == nil {
		return nil
	}
	return d.flag(ctx, e.Meta, OrderFlagged{OrderID: e.Data.OrderID, CustomerID: e.Data.CustomerID, Cents: e.Data.Cents, Reasons: reasons})
}

// OrderPaid publishes a flag for a payment that looks wrong.
func (d *FraudDesk) OrderPaid(ctx context.Context, e event.Of[OrderPaid]) error {
	if e.Data.Method != "wallet" || e.Data.Cents < suspiciousWallet {
		return nil
	}
	return d.flag(ctx, e.Meta, OrderFlagged{
		OrderID: e.Data.OrderID, CustomerID: e.Data.CustomerID, Cents: e.Data.Cents, Reasons: []string{"a large sum from a wallet"},
	})
}

func (d *FraudDesk) flag(ctx context.Context, cause event.Meta, flag OrderFlagged) error {
	if err := d.Events.Publish(ctx, event.After(cause, Flags, flag.OrderID, flag)); err != nil {
		return err
	}
	d.flagged.Add(1)
	return nil
}

// Result says in one line how the desk stands.
func (d *FraudDesk) Result() string {
	return fmt.Sprintf("%s flags on %s orders", grouped(d.flagged.Load()), grouped(d.seen.Load()))
}
