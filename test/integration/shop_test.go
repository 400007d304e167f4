package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/sink/sqlitesink"
	"github.com/millrace/millrace/topics"
)

// The demo shop on a real Kafka, at eight times its speed for five seconds: shipping is stopped and started again, poison
// comes between the orders, and in the end each order is paid, shipped and counted once. The payments come over HTTP: the
// provider calls the real binary's gateway, with repeats, late, out of order, and with forgeries among them.
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
	const secret = "whsec_of_the_test"
	s := newShell(t, c)
	s.env = append(s.env, "MILLRACE_REGISTRY="+url, shop.SecretEnv+"="+secret)
	gateway := s.start(t, "bin/millrace serve gateway --sources examples/shop/sources --listen 127.0.0.1:0 --metrics 127.0.0.1:0 --create-topics")
	gateway.err.await(t, "gateway answers")
	in := regexp.MustCompile(`"url": "(http://[^"]+)"`).FindStringSubmatch(gateway.err.String())[1]
	open("storefront", shop.Storefront(shop.StorefrontConfig{Run: "real", Rate: 200, Orders: orders}))
	open("provider", shop.Provider(shop.ProviderConfig{URL: in + "/in/payments", Secret: secret}))
	open("checkout", shop.Services["checkout"])
	open("fraud", shop.Services["fraud"])
	stop := open("shipping", shop.Services["shipping"])
	table := filepath.Join(t.TempDir(), "analytics.db")
	db, err := sqlitesink.Open(table)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	open("analytics", func(ctx context.Context, s *service.Service) error { return shop.Analyse(ctx, s, table) })
	total := func() shop.Cell {
		r, err := shop.SQLiteRevenue(t.Context(), db)
		if err != nil && !strings.Contains(err.Error(), "no such table") { // it is made when the service begins
			t.Fatal(err)
		}
		return r.Total
	}
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
	await(t, "every callback is taken", func() bool { return length(t, adm, shop.Callbacks) >= 2*orders }) // the late ones come after the shipment
	await(t, "every order is counted", func() bool { return total().Orders >= orders })
	for _, group := range []string{"shipping", "fraud", "analytics", "provider"} {
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
	if got := total(); got != want {
		t.Errorf("analytics has %+v, want %+v", got, want)
	}
	for _, topic := range []string{shop.Shipments, shop.Paid, shop.Payments} {
		eachOnce(t, c, topic, ids)
	}
	var both []string // the authorization and the capture of each
	for _, id := range ids {
		both = append(both, id, id)
	}
	for _, r := range eachOnce(t, c, shop.Callbacks, both) {
		if bytes.Contains(r.Value, []byte("forged")) {
			t.Errorf("a forgery is in the log: %s", r.Value)
		}
	}
	if code := gateway.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("the gateway exits %d\n%s", code, gateway.err)
	}
}

// eachOnce reads a topic and checks that it has an event of its own for each of keys, and no other.
func eachOnce(t *testing.T, c kafka.Cluster, topic string, keys []string) []*kgo.Record {
	t.Helper()
	records := consumeAll(t, c, topic, int(length(t, kadm.NewClient(kafkatest.Client(t, c)), topic)))
	var got []string
	seen := map[string]bool{}
	for _, r := range records {
		got = append(got, string(r.Key))
		seen[string(wire.Headers(r.Headers).Get(event.HeaderID))] = true
	}
	slices.Sort(got)
	if !slices.Equal(got, keys) || len(seen) != len(keys) {
		t.Errorf("%s has %d events with %d ids, want %d", topic, len(got), len(seen), len(keys))
	}
	return records
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
	if made, err := topics.Apply(t.Context(), c, topics.Plan(specs, nil), false); err != nil || len(made) != 6 {
		t.Fatal(fmt.Errorf("%d of 6 topics were made: %w", len(made), err))
	}
	reg, err := schemas.New(schemas.Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	register(t, reg, shop.Orders, shop.OrderPlaced{}.AvroSchema())
	register(t, reg, shop.Payments, shop.PaymentTaken{}.AvroSchema())
	register(t, reg, shop.Paid, shop.OrderPaid{}.AvroSchema())
	register(t, reg, shop.Shipments, shop.OrderShipped{}.AvroSchema())
	register(t, reg, shop.Flags, shop.OrderFlagged{}.AvroSchema())
}
