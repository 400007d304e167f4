package integration_test

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/topics"
)

// The demo shop on a real Kafka, at eight times its speed for five seconds: shipping is stopped and started again, poison
// comes between the orders, and in the end each order is paid, shipped and counted once.
func TestRealShop(t *testing.T) {
	t.Parallel()
	c := kafkatest.Boot(t, kafkatest.Config{}).Cluster("") // the topics have the shop's own names
	url := serveRegistry(t, c).url()
	declare(t, c, url)
	open := func(name string, wire func(context.Context, *service.Service) error) (stop func()) {
		log := newScreen()
		code := make(chan int, 1)
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		args := []string{"--brokers", strings.Join(c.Seeds, ","), "--registry", url, "--create-topics"}
		go func() { code <- service.Run(ctx, name, args, func(string) string { return "" }, log, wire) }()
		stop = sync.OnceFunc(func() {
			cancel()
			if got := <-code; got != 0 {
				t.Errorf("%s exits %d\n%s", name, got, log.String())
			}
		})
		t.Cleanup(stop)
		return stop
	}

	const orders = 1000
	open("storefront", shop.Storefront(shop.StorefrontConfig{Run: "real", Rate: 200, Orders: orders}))
	open("fraud", shop.Services["fraud"])
	stop := open("shipping", shop.Services["shipping"])
	revenue := shop.NewRevenue()
	open("analytics", func(ctx context.Context, s *service.Service) error { return shop.Analyse(ctx, s, revenue) })
	adm := kadm.NewClient(kafkatest.Client(t, c))
	for _, part := range []int64{orders / 4, orders / 2} {
		await(t, "a part is shipped", func() bool { return length(t, adm, shop.Shipments) >= part })
		stop()
		if err := shop.Poison(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		stop = open("shipping", shop.Services["shipping"])
	}
	await(t, "every order is shipped", func() bool { return length(t, adm, shop.Shipments) >= orders })
	await(t, "every order is counted", func() bool { total, _ := revenue.Total(); return total.Orders >= orders })
	for _, group := range []string{"shipping", "fraud", "analytics"} {
		await(t, "both poisons are dead letters of "+group, func() bool { return length(t, adm, shop.Orders+"."+group+".dlq") == 2 })
	}
	stop()

	var want shop.Cell
	var ids []string
	for n := range int64(orders) {
		o, _ := shop.Order(1, "real", n, base)
		want = shop.Cell{Orders: want.Orders + 1, Cents: want.Cents + o.Cents}
		ids = append(ids, o.OrderID)
	}
	if got, _ := revenue.Total(); got != want {
		t.Errorf("analytics has %+v, want %+v", got, want)
	}
	for _, topic := range []string{shop.Shipments, shop.Payments} {
		var keys []string
		seen := map[string]bool{}
		for _, r := range consumeAll(t, c, topic, int(length(t, adm, topic))) {
			keys = append(keys, string(r.Key))
			seen[string(wire.Headers(r.Headers).Get(event.HeaderID))] = true
		}
		slices.Sort(keys)
		if !slices.Equal(keys, ids) || len(seen) != orders {
			t.Errorf("%s has %d events with %d ids for %d orders", topic, len(keys), len(seen), orders)
		}
	}
}

// declare makes the shop's topics and registers its schemas.
func declare(t *testing.T, c kafka.Cluster, url string) {
	t.Helper()
	files, err := fs.Sub(shop.Files, "topics")
	if err != nil {
		t.Fatal(err)
	}
	specs, err := topics.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	if made, err := topics.Apply(t.Context(), c, topics.Plan(specs, nil), false); err != nil || len(made) != 4 {
		t.Fatal(fmt.Errorf("%d of 4 topics were made: %w", len(made), err))
	}
	reg, err := schemas.New(schemas.Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	register(t, reg, shop.Orders, shop.OrderPlaced{}.AvroSchema())
	register(t, reg, shop.Payments, shop.PaymentTaken{}.AvroSchema())
	register(t, reg, shop.Shipments, shop.OrderShipped{}.AvroSchema())
	register(t, reg, shop.Flags, shop.OrderFlagged{}.AvroSchema())
}
