package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/signature"
)

// The variables of the provider's process. The gateway reads the secret from the same one: see sources/payments.yaml.
const (
	CallbackURLEnv = "SHOP_CALLBACK_URL"
	SecretEnv      = "SHOP_PAYMENTS_SECRET" //nolint:gosec // the name of the variable
)

// ProviderConfig says whom the payment provider calls.
type ProviderConfig struct {
	// URL is where callbacks are posted: the gateway's source payments. Defaults to the variable of [CallbackURLEnv].
	URL string
	// Secret signs them. Defaults to the variable of [SecretEnv].
	Secret string
}

// Provider returns a simulator of a payment provider: somebody else's system, which takes the money for each order and
// says so by signed callbacks. It stands in for an HTTP API, so it hears of orders from their topic. Its callbacks are as
// those of real ones: some come twice, some late or out of order, a stranger forges some, and what is not answered with a
// 2xx is sent again, for as long as it takes. Each order's callbacks follow from its id ([CallbacksOf]), so a provider
// that was killed sends the same ones again.
func Provider(cfg ProviderConfig) func(ctx context.Context, s *service.Service) error {
	return func(_ context.Context, s *service.Service) error {
		if cfg.URL == "" {
			cfg.URL = os.Getenv(CallbackURLEnv)
		}
		if cfg.Secret == "" {
			cfg.Secret = os.Getenv(SecretEnv)
		}
		caller, err := NewCaller(cfg, s.HTTP(), s.Log)
		if err != nil {
			return err
		}
		mux := consumer.NewMux()
		consumer.OnBatch(mux, caller.OrdersPlaced)
		s.Consume(mux, consumer.Config{Topics: []string{Orders}, SessionTimeout: sessionTimeout, Drain: time.Second})
		s.Report(caller.Result)
		return nil
	}
}

const (
	callers      = 16                     // callbacks of a batch that are under way at once
	latest       = 500 * time.Millisecond // how late a late one is
	callTimeout  = 10 * time.Second       // how long the provider waits for an answer
	firstAgain   = 500 * time.Millisecond
	longestAgain = 5 * time.Second
)

// Caller posts callbacks.
type Caller struct {
	url         string
	scheme      *signature.Scheme
	key, forged signature.Key
	http        *http.Client
	log         *zap.Logger

	taken, refused, again atomic.Int64
}

// NewCaller returns a caller that signs as Stripe does.
func NewCaller(cfg ProviderConfig, client *http.Client, log *zap.Logger) (*Caller, error) {
	if cfg.URL == "" || cfg.Secret == "" {
		return nil, fmt.Errorf("the provider calls nobody: set %s and %s", CallbackURLEnv, SecretEnv)
	}
	scheme, ok := signature.Lookup("stripe")
	if !ok {
		return nil, errors.New("package signature does not know stripe")
	}
	c := &Caller{url: cfg.URL, scheme: scheme, http: client, log: log}
	var err error
	if c.key, err = scheme.ParseKey(cfg.Secret); err != nil {
		return nil, err
	}
	c.forged, err = scheme.ParseKey("whsec_guessed_by_a_stranger")
	return c, err
}

// OrdersPlaced takes the money for orders: it is done when every callback was answered with a 2xx, or was none of the
// provider's own.
func (c *Caller) OrdersPlaced(ctx context.Context, es []event.Of[OrderPlaced]) error {
	var all []Callback
	for _, e := range es {
		all = append(all, CallbacksOf(e.Data)...)
	}
	slices.SortStableFunc(all, func(a, b Callback) int { return int(a.Late - b.Late) })
	began := time.Now()
	var g errgroup.Group
	g.SetLimit(callers)
	for _, cb := range all {
		if pause(ctx, cb.Late-time.Since(began)) != nil {
			break
		}
		g.Go(func() error { return c.send(ctx, cb) })
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// send posts one callback until it is taken.
func (c *Caller) send(ctx context.Context, cb Callback) error {
	for wait := firstAgain; ; wait = min(2*wait, longestAgain) {
		status, err := c.post(ctx, cb)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && status/100 == 2:
			c.taken.Add(1)
			return nil
		case err == nil && (cb.Forged || cb.Stale):
			c.refused.Add(1)
			return nil
		}
		c.again.Add(1)
		c.log.Warn("a callback is sent again", zap.String("id", cb.ID), zap.Int("status", status), zap.Duration("in", wait), zap.Error(err))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// post signs a callback anew, as for each attempt, and posts it once.
func (c *Caller) post(ctx context.Context, cb Callback) (status int, err error) {
	key, at := c.key, time.Now()
	if cb.Forged {
		key = c.forged
	}
	if cb.Stale {
		at = at.Add(-time.Hour)
	}
	header := http.Header{"Content-Type": {"application/json"}}
	signed, err := c.scheme.Sign(&signature.Request{Method: http.MethodPost, URL: c.url, Header: header, Body: cb.Body}, []signature.Key{key}, cb.ID, at)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(signed.Body))
	if err != nil {
		return 0, err
	}
	req.Header = signed.Header
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // to its end, so that the connection is used again
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Result says in one line how the provider stands.
func (c *Caller) Result() string {
	return fmt.Sprintf("%s callbacks taken, %s forged or stale refused, %s sent again",
		grouped(c.taken.Load()), grouped(c.refused.Load()), grouped(c.again.Load()))
}

// Callback is one request that the provider, or a stranger in its name, makes.
type Callback struct {
	ID     string        // of what happened: the same for each repeat
	Body   []byte        // JSON
	Late   time.Duration // how long it waits before it is sent
	Forged bool          // signed by a stranger
	Stale  bool          // caught and played again an hour later, with the signature of then
}

// payload is a callback's body, in the shape of Stripe's.
type payload struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Created int64  `json:"created"`
	Data    struct {
		Object object `json:"object"`
	} `json:"data"`
}

type object struct {
	ID       string            `json:"id"`
	Amount   int64             `json:"amount"`
	Currency string            `json:"currency"`
	Method   string            `json:"method"`
	Created  int64             `json:"created"`
	Metadata map[string]string `json:"metadata"` // the shop's own, given back
	Shipping struct {
		Address string `json:"address"`
		Pieces  int32  `json:"pieces"`
	} `json:"shipping"`
}

// CallbacksOf are the requests that an order leads to: the payment is authorized and then captured. One order in eight has
// the two the wrong way around, one in ten is captured twice, one in twelve late; one in twenty draws a forgery, and one
// in forty a replay.
func CallbacksOf(o OrderPlaced) []Callback {
	dice := diceOf(o)
	p := payment(o)
	authorized, captured := callback(p, "authorized"), callback(p, "captured")
	all := []Callback{authorized, captured}
	if dice.IntN(8) == 0 {
		all[0], all[1] = captured, authorized
	}
	if dice.IntN(12) == 0 {
		all[1].Late = latest
	}
	if dice.IntN(10) == 0 {
		all = append(all, captured)
	}
	if dice.IntN(20) == 0 {
		p := p
		p.PaymentID, p.Address = "pay_forged_"+o.OrderID, "Nowhere 1"
		forged := callback(p, "captured")
		forged.Forged = true
		all = append(all, forged)
	}
	if dice.IntN(40) == 0 {
		captured.Stale = true
		all = append(all, captured)
	}
	return all
}

// payment is what the provider takes for an order.
func payment(o OrderPlaced) PaymentTaken {
	methods := []string{"card", "card", "transfer", "wallet"}
	p := PaymentTaken{
		OrderID: o.OrderID, Cents: o.Cents, Method: methods[diceOf(o).IntN(len(methods))], TakenAt: o.PlacedAt.Truncate(time.Second),
		PaymentID: "pay_" + o.OrderID, CustomerID: o.CustomerID, Address: o.Address,
	}
	for _, item := range o.Items {
		p.Pieces += item.Quantity
	}
	return p
}

func callback(p PaymentTaken, what string) Callback {
	body := payload{ID: "evt_" + p.PaymentID + "_" + what, Type: "payment." + what, Created: p.TakenAt.Unix()}
	body.Data.Object = object{
		ID: p.PaymentID, Amount: p.Cents, Currency: "eur", Method: p.Method, Created: p.TakenAt.Unix(),
		Metadata: map[string]string{"order_id": p.OrderID, "customer_id": p.CustomerID},
	}
	body.Data.Object.Shipping.Address, body.Data.Object.Shipping.Pieces = p.Address, p.Pieces
	text, _ := json.Marshal(body) //nolint:errchkjson // strings and numbers alone
	return Callback{ID: body.ID, Body: text}
}

// diceOf are an order's own: they fall the same way each time.
func diceOf(o OrderPlaced) *rand.Rand {
	h := fnv.New64a()
	_, _ = io.WriteString(h, o.OrderID)        // never fails
	return rand.New(rand.NewPCG(h.Sum64(), 1)) //nolint:gosec // a demo's dice
}
