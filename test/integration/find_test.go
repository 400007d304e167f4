package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// The shop's orders on a real Kafka: one is followed to its payment and its shipment, poison to its dead letter; then one
// in a hundred thousand is found by what it holds, counted, saved and put back.
func TestRealFindAndTrace(t *testing.T) {
	t.Parallel()
	s := newShell(t, kafkatest.Boot(t, kafkatest.Config{}).Cluster(""))
	server := serveRegistry(t, s.cluster)
	declare(t, s.cluster, server.url())
	s.env = append(s.env, "MILLRACE_REGISTRY="+server.url())
	reg, err := schemas.New(schemas.Config{URLs: []string{server.url()}})
	if err != nil {
		t.Fatal(err)
	}
	f := &finder{shell: s, reg: reg, url: server.url()}
	t.Run("trace", func(t *testing.T) { f.step = t; f.trace() })
	t.Run("find", func(t *testing.T) { f.step = t; f.find() })
}

type finder struct {
	*shell
	reg *schemas.Registry
	url string // of the registry
}

// sell publishes the orders from ≤ n < until, each with its payment where it is paid, and returns the first.
func (f *finder) sell(t *testing.T, from, until int64, paid bool) (first event.Event) {
	t.Helper()
	var events []event.Event
	for n := from; n < until; n++ {
		order, payment := shop.Order(1, "find", n, base)
		e := event.New(shop.Orders, order.OrderID, order)
		events = append(events, e)
		if paid {
			taken := event.After(e.Meta, shop.Payments, order.OrderID, payment)
			events = append(events, taken, event.After(taken.Meta, shop.Paid, order.OrderID, shop.OrderPaid{OrderID: order.OrderID, Address: order.Address}))
		}
	}
	p, err := producer.New(f.cluster, f.reg, producer.Config{Source: "storefront"})
	if err != nil {
		t.Fatal(err)
	}
	for batch := range slices.Chunk(events, 1000) {
		if err := p.Publish(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return events[0]
}

// traced is what trace -o json prints of an event.
type traced struct {
	ID, Type, Topic string
	Depth           int
	Groups          []struct{ Group, State, Letter, Class string }
}

func (f *finder) traceJSON(t *testing.T, id string) []traced {
	t.Helper()
	out, _ := f.run(t, 0, "bin/millrace trace "+id+" -o json", "")
	var doc struct{ Events []traced }
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Events
}

func (f *finder) trace() {
	t := f.step
	const orders = 50
	first := f.sell(t, 0, orders, true)
	if err := shop.Poison(t.Context(), f.cluster); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		args := []string{"--brokers", strings.Join(f.cluster.Seeds, ","), "--registry", f.url, "--create-topics"}
		ended <- service.Run(ctx, "shipping", args, func(string) string { return "" }, newScreen(), shop.Services["shipping"])
	}()
	adm := kadm.NewClient(kafkatest.Client(t, f.cluster))
	await(t, "every order is shipped", func() bool { return length(t, adm, shop.Shipments) >= orders })
	await(t, "the poison is a dead letter", func() bool { return length(t, adm, shop.Orders+".shipping.dlq") == 1 })
	cancel()
	if code := <-ended; code != 0 {
		t.Fatalf("shipping exits %d", code)
	}

	for _, e := range f.traceJSON(t, first.ID) {
		switch e.Topic {
		case shop.Orders:
			if e.Depth != 0 || len(e.Groups) != 1 || e.Groups[0].Group != "shipping" || e.Groups[0].State != "done" {
				t.Errorf("the order: got %+v", e)
			}
		case shop.Payments, shop.Shipments:
			if e.Depth%2 != 1 || len(e.Groups) != 0 {
				t.Errorf("an effect: got %+v", e)
			}
		}
	}
	whole := f.traceJSON(t, first.ID)
	if len(whole) != 4 {
		t.Fatalf("got %d events, want an order, its payment, that it is paid, and its shipment: %+v", len(whole), whole)
	}
	if again := f.traceJSON(t, whole[3].ID); fmt.Sprint(again) != fmt.Sprint(whole) {
		t.Errorf("from its effect the chain is\n%+v\nfrom its first event\n%+v", again, whole)
	}
	out, _ := f.run(t, 0, "bin/millrace find shop.orders --key poison -o jsonl", "")
	poison := envelopes(t, out)[0]
	place := fmt.Sprintf("%s/%v@%v", shop.Orders, poison.Partition, poison.Offset)
	if got := f.traceJSON(t, place); len(got) != 1 || len(got[0].Groups) != 1 || got[0].Groups[0].State != "dead-letter" || got[0].Groups[0].Class != "poison" {
		t.Errorf("the poison at %s: got %+v", place, got)
	}
	out, errs := f.run(t, 0, "bin/millrace trace "+place, "")
	has(t, "trace", out, "shop.OrderPlaced  poison  "+place, "shipping: dead letter shop.orders.shipping.dlq/", "(poison: ")
	has(t, "trace", errs, "shop.orders.shipping.dlq", "(100 %)")
}

func (f *finder) find() {
	t := f.step
	const from, until = 50, 100_000
	f.sell(t, from, until, false)
	var want []string
	customers := map[string]bool{}
	for n := range int64(until) {
		if o, _ := shop.Order(1, "find", n, base); o.Country == "IT" && o.Cents > 20_000 {
			want = append(want, o.OrderID)
			customers[o.CustomerID] = true
		}
	}
	if len(want) < 100 {
		t.Fatalf("only %d orders match: a test that finds too little", len(want))
	}
	slices.Sort(want)
	const where = ` --where value.country=="IT"&&value.cents>20000`

	best := time.Hour
	for range 20 { // the same set each time
		began := time.Now()
		out, errs := f.run(t, 0, "bin/millrace find shop.orders -o jsonl"+where, "")
		best = min(best, time.Since(began))
		var got []string
		for _, e := range envelopes(t, out) {
			got = append(got, string(bytesOf(t, e.Key)))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("found %d orders, want %d", len(got), len(want))
		}
		has(t, "find", errs, "scanned 100001 records", "(100 %)", fmt.Sprintf("%d matches, 1 undecodable, the first at shop.orders/", len(want)))
	}
	t.Logf("%d of 100,001 orders found by a field in %s at best, start-up included", len(want), best.Round(time.Millisecond))

	out, _ := f.run(t, 0, "bin/millrace find --topics ^shop[.]orders$ --count-by value.customer_id -o jsonl"+where, "")
	if got := strings.Count(out, "\n"); got != len(customers) {
		t.Errorf("counted %d customers, want %d", got, len(customers))
	}
	out, _ = f.run(t, 0, "bin/millrace tail shop.orders --from start --until end -n 3 -o jsonl"+where, "")
	if got := len(envelopes(t, out)); got != 3 {
		t.Errorf("tail -n 3 prints %d", got)
	}

	f.run(t, 0, "bin/millrace find shop.orders -o raw --save set.jsonl"+where, "")
	if _, err := os.Stat(filepath.Join(f.dir, "set.jsonl")); err != nil {
		t.Fatal(err)
	}
	to := kafkatest.Topic(t, f.cluster, 1)
	_, errs := f.run(t, 0, "bin/millrace produce "+to+" --from set.jsonl", "")
	has(t, "produce", errs, "published ", " events to "+to)
	originals := map[string]string{}
	for _, r := range consumeAll(t, f.cluster, shop.Orders, 100_001) {
		originals[string(r.Key)] = exact(r)
	}
	for _, r := range consumeAll(t, f.cluster, to, len(want)) {
		if got := exact(r); got != originals[string(r.Key)] {
			t.Fatalf("order %s: got\n%.500s\nwant\n%.500s", r.Key, got, originals[string(r.Key)])
		}
	}
}
