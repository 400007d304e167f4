package shop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// StorefrontConfig says what the storefront sells, and how fast.
type StorefrontConfig struct {
	Seed   uint64 // order n is the same for the same seed. Defaults to 1
	Run    string // begins every order id, so that a second run places new orders. Defaults to the time of the start
	Rate   int    // orders a second. Defaults to 25
	Orders int64  // ends after so many. Defaults to 0: without end
}

// Storefront returns the service that places orders. Who pays, and when, is the payment provider's matter: see [Provider].
func Storefront(cfg StorefrontConfig) func(ctx context.Context, s *service.Service) error {
	return func(ctx context.Context, s *service.Service) error {
		if cfg.Run == "" {
			cfg.Run = strconv.FormatInt(event.Now(ctx).Unix(), 36)
		}
		p, err := s.Producer(producer.Config{})
		if err != nil {
			return err
		}
		f := NewFront(p, cfg)
		s.Report(f.Result)
		s.Go("sell", f.Sell)
		return nil
	}
}

// Front places orders.
type Front struct {
	cfg    StorefrontConfig
	events event.Publisher
	placed atomic.Int64
	cents  atomic.Int64
}

// NewFront returns a front that publishes to events.
func NewFront(events event.Publisher, cfg StorefrontConfig) *Front {
	if cfg.Seed == 0 {
		cfg.Seed = 1
	}
	if cfg.Rate == 0 {
		cfg.Rate = 25
	}
	return &Front{cfg: cfg, events: events}
}

// ticks a second: orders are placed in small groups, as a real shop's are.
const ticks = 5

// Sell places orders at the rate until ctx ends or the last order is placed.
func (f *Front) Sell(ctx context.Context) error {
	ticker := time.NewTicker(time.Second / ticks)
	defer ticker.Stop()
	for n := int64(0); ; {
		due := max(int64(f.cfg.Rate)/ticks, 1)
		if f.cfg.Orders > 0 {
			due = min(due, f.cfg.Orders-n)
		}
		if due == 0 {
			return nil
		}
		if err := f.place(ctx, n, n+due); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		n += due
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// place publishes the orders from ≤ n < until. What is not acknowledged is published again as it
// is: its id stays, so whoever counts by id counts it once.
func (f *Front) place(ctx context.Context, from, until int64) error {
	var events []event.Event
	var cents int64
	now := event.Now(ctx).Truncate(time.Millisecond)
	for n := from; n < until; n++ {
		order, _ := Order(f.cfg.Seed, f.cfg.Run, n, now)
		events = append(events, event.New(Orders, order.OrderID, order))
		cents += order.Cents
	}
	for {
		err := f.events.Publish(ctx, events...)
		if err == nil {
			f.placed.Add(until - from)
			f.cents.Add(cents)
			return nil
		}
		if events, err = again(err); err != nil {
			return fmt.Errorf("place orders %d to %d: %w", from, until-1, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// again returns the events to publish again after err: those whose outcome is unknown, and those that the registry was
// away for. Any other refusal would come again too: it is returned.
func again(err error) ([]event.Event, error) {
	var pe *producer.Error
	if !errors.As(err, &pe) {
		return nil, err
	}
	var events []event.Event
	for _, r := range pe.Results {
		switch {
		case r.Outcome == producer.Acked:
		case r.Outcome == producer.Unknown, errors.Is(r.Err, schemas.ErrUnavailable):
			events = append(events, r.Event)
		default:
			return nil, err
		}
	}
	return events, nil
}

// Result says in one line how the storefront stands.
func (f *Front) Result() string {
	return fmt.Sprintf("%s orders placed, %s EUR", grouped(f.placed.Load()), euros(f.cents.Load()))
}

var (
	countries = []string{"DE", "DE", "DE", "FR", "FR", "IT", "ES", "NL", "AT", "PL"}
	skus      = []string{"tea", "mug", "kettle", "flour", "rye", "millstone"}
	prices    = []int64{450, 1290, 3990, 220, 310, 28900}
)

// Order is the n-th order of a run, from 0, and the payment that the provider takes for it: a pure function, so that whoever knows seed, run and the
// number of orders knows every sum.
func Order(seed uint64, run string, n int64, at time.Time) (OrderPlaced, PaymentTaken) {
	r := rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // a demo's dice
	customer := r.IntN(500)
	o := OrderPlaced{
		OrderID:    fmt.Sprintf("%s-%06d", run, n),
		CustomerID: fmt.Sprintf("c%03d", customer),
		Country:    countries[r.IntN(len(countries))],
		Address:    fmt.Sprintf("Mill Lane %d", customer+1),
		PlacedAt:   at,
	}
	for range 1 + r.IntN(3) {
		i := r.IntN(len(skus))
		line := Item{SKU: skus[i], Quantity: int32(1 + r.IntN(10)/4), Cents: prices[i]}
		o.Items = append(o.Items, line)
		o.Cents += int64(line.Quantity) * line.Cents
	}
	return o, payment(o)
}

// Poison publishes a record to the orders that no schema reads: a frame that ends where the schema's id should be.
// Every service of the shop copies it to its dead letters and goes on.
func Poison(ctx context.Context, c kafka.Cluster) error {
	p, err := producer.New(c, nothingToEncode{}, producer.Config{Source: "poison"})
	if err != nil {
		return err
	}
	e := event.New(Orders, "poison", nil)
	e.Type, e.Value = "shop.OrderPlaced", []byte{0, 0, 42}
	return errors.Join(p.Publish(ctx, e), p.Close(ctx))
}

// nothingToEncode is the encoder of a producer that sends bytes as they are.
type nothingToEncode struct{}

// Encode implements producer.Encoder.
func (nothingToEncode) Encode(_ context.Context, dst []byte, e *event.Event) ([]byte, error) {
	return append(dst, e.Value...), nil
}

// grouped is n with commas: 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func euros(cents int64) string { return fmt.Sprintf("%s.%02d", grouped(cents/100), cents%100) }
