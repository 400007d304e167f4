package shop_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// mall is a broker in memory with the shop's topics, and a registry.
type mall struct {
	fake *kfake.Cluster
	reg  *schemas.Registry
}

func newMall(t *testing.T) *mall {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, shop.Orders, shop.Payments, shop.Shipments, shop.Flags))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return &mall{fake, schemas.Memory()}
}

// open runs a service of the shop until stop, which returns its exit code and what it logged. wired waits until its wire
// function has returned.
func (m *mall) open(t *testing.T, name string, wire func(context.Context, *service.Service) error) (wired func(), stop func() (int, string)) {
	t.Helper()
	env := func(v string) string {
		return map[string]string{
			"MILLRACE_BROKERS": strings.Join(m.fake.ListenAddrs(), ","), "MILLRACE_REGISTRY": "http://127.0.0.1:1", "MILLRACE_CREATE_TOPICS": "yes",
		}[v]
	}
	var (
		log   bytes.Buffer
		ready = make(chan struct{})
		code  = make(chan int, 1)
	)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		code <- service.Run(ctx, name, nil, env, &log, func(ctx context.Context, s *service.Service) error {
			s.Schemas = m.reg
			err := wire(ctx, s)
			close(ready)
			return err
		})
	}()
	return func() { <-ready }, sync.OnceValues(func() (int, string) {
		cancel()
		return <-code, log.String()
	})
}

// wait waits until done says so.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	late := time.After(30 * time.Second)
	for !done() {
		select {
		case <-ticker.C:
		case <-late:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func (m *mall) records(t *testing.T, topic string) int64 {
	t.Helper()
	cl, err := kafka.Cluster{Seeds: m.fake.ListenAddrs()}.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			n += o.Offset
		}
	})
	return n
}

func TestTheShopRuns(t *testing.T) {
	t.Parallel()
	m := newMall(t)
	const orders = 60
	_, front := m.open(t, "storefront", shop.Storefront(shop.StorefrontConfig{Run: "test", Rate: 300, Orders: orders}))
	_, ship := m.open(t, "shipping", shop.Shipping)
	_, fraud := m.open(t, "fraud", shop.Fraud)
	wait(t, "every order is shipped", func() bool { return m.records(t, shop.Shipments) == orders })
	if err := shop.Poison(t.Context(), kafka.Cluster{Seeds: m.fake.ListenAddrs()}); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"shipping", "fraud"} {
		wait(t, "the poison is a dead letter of "+group, func() bool { return m.records(t, shop.Orders+"."+group+".dlq") == 1 })
	}
	var large int64
	for n := range int64(orders) {
		if o, _ := shop.Order(1, "test", n, noon); o.Cents >= 80_000 {
			large++
		}
	}
	wait(t, "large orders are flagged", func() bool { return large > 0 && m.records(t, shop.Flags) == large })
	for name, stop := range map[string]func() (int, string){"storefront": front, "shipping": ship, "fraud": fraud} {
		if code, log := stop(); code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, log)
		}
	}
	if n := m.records(t, shop.Payments); n != orders {
		t.Errorf("%d payments", n)
	}
}
