package shop_test

import (
	"bytes"
	"context"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
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
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, shop.Orders, shop.Callbacks, shop.Payments, shop.Paid, shop.Shipments, shop.Flags))
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

// takeIn serves the shop's webhook source and returns where the provider calls.
func (m *mall) takeIn(t *testing.T) shop.ProviderConfig {
	t.Helper()
	const secret = "whsec_of_the_test"
	dir := t.TempDir()
	text, err := fs.ReadFile(shop.Files, "sources/payments.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "payments.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.reg.Register(t.Context(), shop.Payments+"-value", shop.PaymentTaken{}.AvroSchema()); err != nil {
		t.Fatal(err)
	}
	p, err := producer.New(kafka.Cluster{Seeds: m.fake.ListenAddrs()}, m.reg, producer.Config{Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(p, m.reg, gateway.Config{Folder: gateway.Folder{Dir: dir, Getenv: func(name string) string {
		return map[string]string{shop.SecretEnv: secret}[name]
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := make(map[string]bool) // of a callback: it is told to come again
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		shed := len(first) < 3 && !first[r.Header.Get("Stripe-Signature")]
		first[r.Header.Get("Stripe-Signature")] = true
		mu.Unlock()
		if shed {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		g.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		if err := p.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return shop.ProviderConfig{URL: server.URL + "/in/payments", Secret: secret}
}

func TestTheShopRuns(t *testing.T) {
	t.Parallel()
	m := newMall(t)
	const orders = 60
	open := map[string]func(context.Context, *service.Service) error{
		"storefront": shop.Storefront(shop.StorefrontConfig{Run: "test", Rate: 300, Orders: orders}),
		"provider":   shop.Provider(m.takeIn(t)), "checkout": shop.Checkout, "shipping": shop.Shipping, "fraud": shop.Fraud,
	}
	stops := map[string]func() (int, string){}
	for name, wire := range open {
		_, stops[name] = m.open(t, name, wire)
	}
	wait(t, "every order is shipped", func() bool { return m.records(t, shop.Shipments) == orders })
	if err := shop.Poison(t.Context(), kafka.Cluster{Seeds: m.fake.ListenAddrs()}); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"shipping", "fraud", "provider"} {
		wait(t, "the poison is a dead letter of "+group, func() bool { return m.records(t, shop.Orders+"."+group+".dlq") == 1 })
	}
	var flags, callbacks int64
	for n := range int64(orders) {
		o, p := shop.Order(1, "test", n, noon)
		if o.Cents >= 80_000 {
			flags++
		}
		if p.Method == "wallet" && p.Cents >= 40_000 {
			flags++
		}
		callbacks += 2
	}
	wait(t, "what looks wrong is flagged", func() bool { return flags > 0 && m.records(t, shop.Flags) == flags })
	wait(t, "every callback is kept", func() bool { return m.records(t, shop.Callbacks) == callbacks })
	for name, stop := range stops {
		if code, log := stop(); code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, log)
		}
	}
	for topic, want := range map[string]int64{shop.Payments: orders, shop.Paid: orders, shop.Shipments: orders, shop.Callbacks: callbacks, shop.Flags: flags} {
		if n := m.records(t, topic); n != want {
			t.Errorf("%s has %d records, want %d", topic, n, want)
		}
	}
}
