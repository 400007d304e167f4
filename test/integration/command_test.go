package integration_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/kafkatest"
)

// A person walks through what README.md shows, on a cluster that is theirs alone: each step finds what the one before
// has left, and the last one looks whether any command of README.md was left out.
func TestRealCommandsOfTheReadme(t *testing.T) {
	t.Parallel()
	s := newShell(t, kafkatest.Boot(t, kafkatest.Config{}).Cluster(""))
	for _, step := range []struct {
		name string
		do   func(*shell)
	}{
		{"a cluster that is away is named within five seconds", deadCluster},
		{"topics are planned and applied", planAndApply},
		{"a registry that is killed has the same ids again", registryKeepsItsIDs},
		{"lines of a file become events", produceAndTail},
		{"what is read is published again, byte for byte", roundTripOfBytes},
		{"tables that need no code", sinkNeedsNoCode},
		{"webhooks in, and a stretch again", webhooksAndReplay},
		{"groups, and dead letters as they come", groupsAndDeadLetters},
		{"every command of README.md was run", everyCommandWasRun},
	} {
		if !t.Run(step.name, func(t *testing.T) { s.step = t; step.do(s) }) {
			t.FailNow()
		}
	}
}

func deadCluster(s *shell) {
	t := s.step
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and answers none
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for _, away := range []struct{ name, address, says string }{
		{"nobody listens", freeAddress(t), "nothing listens there"},
		{"nobody answers", silent.Addr().String(), "no answer"},
	} {
		began := time.Now()
		var all []*running
		for _, command := range []string{"topics ls", "tail shop.orders -n 5", "groups lag", "produce shop.orders", "serve registry --listen 127.0.0.1:0"} {
			all = append(all, s.start(t, "bin/millrace "+command+" -B "+away.address))
		}
		for _, r := range all {
			if code := r.wait(t); code != 1 || r.out.String() != "" {
				t.Errorf("%s, %s: the exit code is %d, want 1; stdout: %s", away.name, r.line, code, r.out)
			}
			has(t, r.line+": stderr", r.err.String(), away.address, away.says, "→ ", "millrace dev")
		}
		if took := time.Since(began); took > 7*time.Second { // five, and the start of five processes
			t.Errorf("%s: took %s", away.name, took)
		}
	}
}

const ordersFile = "examples/shop/topics/orders.yaml"

func planAndApply(s *shell) {
	t := s.step
	out, _ := s.run(t, 3, "bin/millrace topics plan examples/shop/topics", "")
	has(t, "plan", out, "+ shop.orders create: 6 partitions", "+ shop.shipments create", "+ shop.payments create", "+ shop.flags create")
	_, errs := s.run(t, 5, "bin/millrace topics apply examples/shop/topics", "y\n")
	has(t, "apply without a terminal", errs, "nothing was changed", "--yes")
	s.run(t, 5, "bin/millrace topics apply examples/shop/topics --yes --read-only", "")
	if again, _ := s.run(t, 3, "bin/millrace topics plan examples/shop/topics", ""); again != out {
		t.Errorf("the plan was\n%s\nand is\n%s", out, again)
	}
	out, errs = s.run(t, 0, "bin/millrace topics apply examples/shop/topics --yes", "")
	has(t, "apply", out, "+ shop.orders create")
	has(t, "apply", errs, "6 changes made")
	if out, _ = s.run(t, 0, "bin/millrace topics plan examples/shop/topics", ""); out != "" {
		t.Errorf("after apply the plan is %s", out)
	}

	file, err := os.ReadFile(s.dir + "/" + ordersFile)
	if err != nil {
		t.Fatal(err)
	}
	orders := string(file)
	s.write(t, ordersFile, strings.Replace(orders, "retention: 7d", "retention: 3d", 1))
	out, _ = s.run(t, 3, "bin/millrace topics plan examples/shop/topics", "")
	if want := "~ shop.orders retention.ms: 7d → 3d (warning: events beyond 3d are deleted)\n"; out != want {
		t.Errorf("plan: got %q, want %q", out, want)
	}
	s.run(t, 0, "bin/millrace topics apply examples/shop/topics --yes", "")
	s.write(t, ordersFile, strings.NewReplacer("retention: 7d", "retention: 3d", "partitions: 6", "partitions: 2").Replace(orders))
	out, _ = s.run(t, 3, "bin/millrace topics plan examples/shop/topics", "")
	has(t, "fewer partitions", out, "! shop.orders partitions: 6 → 2 (refused: ")
	s.run(t, 5, "bin/millrace topics apply examples/shop/topics --yes", "")
	s.write(t, ordersFile, orders)
	s.run(t, 0, "bin/millrace topics apply examples/shop/topics --yes", "")
	out, _ = s.run(t, 0, "bin/millrace topics describe shop.orders -o jsonl", "")
	has(t, "describe", out, `"partitions":6`, `"retention":"7d"`)
}

// registryKeepsItsIDs leaves a registry behind that serves until the whole test has ended.
func registryKeepsItsIDs(s *shell) {
	t := s.step
	_, errs := s.run(t, 1, "bin/millrace serve registry --listen 127.0.0.1:0", "")
	has(t, "without its topic", errs, "_schemas", "does not exist")
	first := s.start(t, "bin/millrace serve registry --create-topics --listen 127.0.0.1:0")
	first.err.await(t, "registry answers")
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(first.err.String())
	s.env = append(s.env, "MILLRACE_REGISTRY="+url)
	ready(t, url)

	out, _ := s.run(t, 0, "bin/millrace schemas register examples/shop/schemas", "")
	has(t, "register", out, "shop.orders-value", "shop.OrderPlaced", "registered")
	before, _ := s.run(t, 0, "bin/millrace schemas ls -o jsonl", "")
	has(t, "schemas", before, `"subject":"shop.orders-value","version":1`, "shop.shipments-value", "shop.payments-value", "shop.flags-value")
	order, _ := s.run(t, 0, "bin/millrace schemas get shop.orders-value -o raw", "")

	if code := first.stop(t, syscall.SIGKILL); code != -1 {
		t.Errorf("after kill -9 the exit code is %d", code)
	}
	_, errs = s.run(t, 1, "bin/millrace schemas ls", "")
	has(t, "while the registry is away", errs, url)

	s.registry = s.start(t, "bin/millrace serve registry --listen "+strings.TrimPrefix(url, "http://"))
	ready(t, url)
	if after, _ := s.run(t, 0, "bin/millrace schemas ls -o jsonl", ""); after != before {
		t.Errorf("before kill -9 the registry had\n%s\nand then\n%s", before, after)
	}
	if again, _ := s.run(t, 0, "bin/millrace schemas get shop.orders-value -o raw", ""); again != order {
		t.Errorf("the schema of the orders was\n%s\nand is\n%s", order, again)
	}
	out, _ = s.run(t, 0, "bin/millrace schemas register examples/shop/schemas", "")
	if n := strings.Count(out, "unchanged"); n != 5 {
		t.Errorf("registered again: %d of 5 schemas are unchanged:\n%s", n, out)
	}

	narrow := strings.Replace(order, `"type":"long"`, `"type":"string"`, 1)
	s.write(t, "narrow/order_placed.avsc", narrow)
	_, errs = s.run(t, 5, "bin/millrace schemas register narrow/order_placed.avsc --subject shop.orders-value", "")
	has(t, "a schema that cannot follow", errs, "cannot follow", "cents")
}

// ready waits until the registry at url has read its records.
func ready(t *testing.T, url string) {
	t.Helper()
	await(t, "the registry is ready", func() bool {
		resp, err := http.Get(url + "/readyz")
		if err != nil {
			return false
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// orderLine is the data of an order as a line of JSON.
func orderLine(id, address string) string {
	return fmt.Sprintf(`{"order_id":%q,"customer_id":"c001","country":"DE","address":%q,"cents":4500,"items":[{"sku":"tea","quantity":10,"cents":450}],"placed_at":"2026-11-24T09:30:00.125Z"}`+"\n", id, address)
}

func orderLines(prefix string, n int) (text string, ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s-%02d", prefix, i))
		text += orderLine(ids[i], "Mill Lane 1")
	}
	return text, ids
}

// envelope is a line of tail -o jsonl.
type envelope struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Timestamp time.Time `json:"timestamp"`
	Type      string    `json:"type"`
	Key       any       `json:"key"`
	Value     any       `json:"value"`
	Data      struct {
		OrderID string `json:"order_id"`
		Address string `json:"address"`
	} `json:"data"`
}

func envelopes(t *testing.T, lines string) (out []envelope) {
	t.Helper()
	for l := range strings.Lines(lines) {
		var e envelope
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		out = append(out, e)
	}
	return out
}

func produceAndTail(s *shell) {
	t := s.step
	text, early := orderLines("early", 40)
	s.write(t, "early.jsonl", text)
	out, errs := s.run(t, 0, "bin/millrace produce shop.orders --from early.jsonl --key-field order_id", "")
	if out != "" {
		t.Errorf("produce prints %q to stdout", out)
	}
	has(t, "produce", errs, "published 40 events to shop.orders")

	bad := orderLine("bad-00", "") + strings.Replace(orderLine("bad-01", ""), `"cents"`, `"sents":1,"cents"`, 1) + orderLine("bad-02", "")
	_, errs = s.run(t, 4, "bin/millrace produce shop.orders --key-field order_id", bad)
	has(t, "a line that fails", errs, "line 2: ", "sents", "published 2 events", "1 failed")
	_, errs = s.run(t, 1, "bin/millrace produce shop.nowhere", text)
	has(t, "no such topic", errs, "there is no topic shop.nowhere", "millrace topics apply")

	text, late := orderLines("late", 5)
	s.run(t, 0, "bin/millrace produce shop.orders --key-field order_id", text)
	out, errs = s.run(t, 0, "bin/millrace tail shop.orders -n 5", "")
	if n := strings.Count(out, "\n"); n != 5 {
		t.Errorf("tail -n 5 prints %d lines:\n%s", n, out)
	}
	has(t, "tail -n 5", out, late...)
	has(t, "tail -n 5", out, "shop.OrderPlaced", `"address":"Mill Lane 1"`, `2026-11-24T09:30:00.125Z`)
	has(t, "tail -n 5", errs, "5 matches")

	out, errs = s.run(t, 0, "bin/millrace tail shop.orders --from -5m --until now -o jsonl", "")
	has(t, "a stretch of time", errs, "from 20", "until 20", "scanned 47 records", "47 matches")
	var ids []string
	want := map[string]string{}
	for _, r := range consumeAll(t, s.cluster, "shop.orders", 47) {
		want[fmt.Sprintf("%d@%d", r.Partition, r.Offset)] = fmt.Sprintf("%s %x %d", r.Key, r.Value, r.Timestamp.UnixMilli())
	}
	for _, e := range envelopes(t, out) {
		ids = append(ids, e.Data.OrderID)
		place := fmt.Sprintf("%d@%d", e.Partition, e.Offset)
		if got := fmt.Sprintf("%s %x %d", bytesOf(t, e.Key), bytesOf(t, e.Value), e.Timestamp.UnixMilli()); got != want[place] || e.Type != "shop.OrderPlaced" || e.Topic != "shop.orders" {
			t.Errorf("%s: got %s (%s of %s), want %s", place, got, e.Type, e.Topic, want[place])
		}
		delete(want, place)
	}
	all := slices.Concat(early, []string{"bad-00", "bad-02"}, late)
	slices.Sort(ids)
	slices.Sort(all)
	if !slices.Equal(ids, all) || len(want) > 0 {
		t.Errorf("got orders %v, want %v; not read: %v", ids, all, want)
	}
	out, _ = s.run(t, 0, "bin/millrace tail shop.orders --until now --from -5m --key late-03 -o jsonl", "")
	if got := envelopes(t, out); len(got) != 1 || got[0].Data.OrderID != "late-03" {
		t.Errorf("by key: %s", out)
	}
}

// bytesOf are the bytes of a key or value in an envelope.
func bytesOf(t *testing.T, v any) []byte {
	t.Helper()
	switch v := v.(type) {
	case string:
		return []byte(v)
	case map[string]any:
		b, err := base64.StdEncoding.DecodeString(fmt.Sprint(v["bytes"]))
		if err != nil {
			t.Fatal(err)
		}
		return b
	default:
		return nil
	}
}

// Null is not empty, bytes are not text, headers repeat: what tail prints, produce writes as it was, events of ours and
// records of strangers alike.
func roundTripOfBytes(s *shell) {
	t := s.step
	from, to := kafkatest.Topic(t, s.cluster, 1), kafkatest.Topic(t, s.cluster, 1)
	var every []byte
	for b := range 256 {
		every = append(every, byte(b))
	}
	orders := consumeAll(t, s.cluster, "shop.orders", 47)
	records := []*kgo.Record{
		{Key: []byte("framed"), Value: orders[0].Value, Headers: orders[0].Headers},
		{Key: nil, Value: []byte("no key")},
		{Key: []byte{}, Value: []byte{}},
		{Key: []byte("gone"), Value: nil},
		{Key: every, Value: every, Headers: []kgo.RecordHeader{{Key: "every", Value: every}}},
		{Key: []byte("headers"), Value: []byte(`{"a": 1,  "b":"<&>\u2028"}`), Headers: []kgo.RecordHeader{
			{Key: "x", Value: []byte("1")}, {Key: "x", Value: nil}, {Key: "x", Value: []byte{}}, {Key: "", Value: []byte("y")}, {Key: "x", Value: []byte("1")},
		}},
		{Key: []byte("a frame that ends early"), Value: []byte{0, 0, 42}},
		{Key: []byte("an id that nobody gave"), Value: []byte{0, 0x7f, 0, 0, 0, 1}},
		{Key: []byte("\u2028\n\t\"\\\x7f"), Value: []byte("{\"millrace\":1}\n")},
		{Key: []byte("large"), Value: bytes.Repeat(every, 2_000)},
	}
	cl := kafkatest.Client(t, s.cluster)
	for _, r := range records {
		r.Topic = from
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	lines, errs := s.run(t, 0, "bin/millrace tail "+from+" --offset start:end -o jsonl", "")
	has(t, "tail", errs, fmt.Sprintf("scanned %d records", len(records)), "4 events did not decode")
	_, errs = s.run(t, 0, "bin/millrace produce "+to, lines)
	has(t, "produce", errs, fmt.Sprintf("published %d events", len(records)))
	for i, r := range consumeAll(t, s.cluster, to, len(records)) {
		if got, want := exact(r), exact(records[i]); got != want {
			t.Errorf("record %d: got\n%.500s\nwant\n%.500s", i, got, want)
		}
	}
}

// exact is a record's key, value and headers so that null, empty and every byte show.
func exact(r *kgo.Record) string {
	bytes := func(b []byte) string {
		if b == nil {
			return "null"
		}
		return fmt.Sprintf("%q", b)
	}
	var text strings.Builder
	text.WriteString(bytes(r.Key) + " " + bytes(r.Value))
	for _, h := range r.Headers {
		fmt.Fprintf(&text, " %q=%s", h.Key, bytes(h.Value))
	}
	return text.String()
}

func webhooksAndReplay(s *shell) {
	t := s.step
	s.env = append(s.env, "STRIPE_SECRET=whsec_x")
	bare, _ := s.run(t, 0, "bin/millrace sources ls --sources examples/shop/sources", "")
	has(t, "without its secret", bare, "env:SHOP_PAYMENTS_SECRET (not set)")
	bare, _ = s.run(t, 1, "bin/millrace sources check --sources examples/shop/sources", "")
	has(t, "without its secret", bare, "payments.yaml:3: the variable SHOP_PAYMENTS_SECRET is empty")
	gateway := s.start(t, "bin/millrace serve gateway --sources examples/shop/sources --listen 127.0.0.1:0 --metrics 127.0.0.1:0")
	if code := gateway.wait(t); code == 0 {
		t.Errorf("a gateway without its secret exits %d\n%s", code, gateway.err)
	}
	s.env = append(s.env, "SHOP_PAYMENTS_SECRET=whsec_y")
	out, _ := s.run(t, 0, "bin/millrace sources ls --sources examples/shop/sources", "")
	has(t, "sources ls", out, "SCHEME", "payments", "stripe", "shop.callbacks")
	s.write(t, "event.json", `{"id":"evt_1"}`)
	request, _ := s.run(t, 0, "bin/millrace webhook sign stripe --secret env:STRIPE_SECRET --body event.json", "")
	has(t, "a request", request, "Stripe-Signature: t=", `{"id":"evt_1"}`)
	out, _ = s.run(t, 0, "bin/millrace webhook verify stripe --secret env:STRIPE_SECRET", request)
	has(t, "verify", out, "verified")
	s.run(t, 0, "bin/millrace replay shop.orders --from -1h --into topic:shop.copy --speed 10x --dry-run", "")
	s.run(t, 0, "bin/millrace replay ls", "")
}

func groupsAndDeadLetters(s *shell) {
	t := s.step
	_, errs := s.run(t, 1, "bin/millrace groups describe nobody", "")
	has(t, "no such group", errs, "nobody", "millrace groups ls")
	shipping := s.start(t, "bin/millrace shop shipping --create-topics")
	await(t, "what is there is handled", func() bool {
		out, _ := s.run(t, 0, "bin/millrace groups lag -o jsonl", "")
		_, own, _ := strings.Cut(out, `"group":"shipping"`)
		own, _, _ = strings.Cut(own, "\n")
		return strings.Contains(own, `"state":"Stable","members":1,"lag":0,`) && strings.Contains(own, `"uncommitted":0`)
	})
	out, _ := s.run(t, 0, "bin/millrace groups ls", "")
	has(t, "groups ls", out, "GROUP", "shipping", "Stable")
	out, _ = s.run(t, 0, "bin/millrace groups describe shipping", "")
	has(t, "groups describe", out, "shipping: stable, 1 member, 0 messages behind in 12 partitions", "TOPIC", "OLDEST-OPEN", "127.0.0.1")
	if n := strings.Count(out, "\nshop.orders "); n != 6 {
		t.Errorf("groups describe shows %d of 6 partitions:\n%s", n, out)
	}
	out, _ = s.run(t, 0, "bin/millrace groups lag", "")
	has(t, "groups lag", out, "GROUP", "WITHOUT-COMMIT", "shipping")

	letters := s.start(t, "bin/millrace tail shop.orders.shipping.dlq")
	letters.err.await(t, "following shop.orders.shipping.dlq")
	s.run(t, 0, "bin/millrace produce shop.orders --key-field order_id", orderLine("nowhere-01", ""))
	letters.out.await(t, "nowhere-01")
	letters.out.await(t, "(dead letter of shipping: ")
	letters.out.await(t, "the order has no address")
	if code := letters.stop(t, os.Interrupt); code != 130 {
		t.Errorf("after Ctrl-C tail exits %d", code)
	}
	has(t, "stderr after Ctrl-C", letters.err.String(), "Ctrl-C ends it", "scanned 1 record")
	out, _ = s.run(t, 0, "bin/millrace tail shop.orders.shipping.dlq --from start --until now", "")
	has(t, "dead letters", out, "bad-00", "bad-02", "nowhere-01")
	out, _ = s.run(t, 0, "bin/millrace tail shop.orders.shipping.dlq -n 10 -o jsonl", "")
	var dead []string
	for _, e := range envelopes(t, out) {
		dead = append(dead, e.Data.OrderID)
	}
	slices.Sort(dead)
	if want := []string{"bad-00", "bad-02", "nowhere-01"}; !slices.Equal(dead, want) {
		t.Errorf("dead letters %v, want %v", dead, want)
	}

	for command, says := range map[string][]string{
		"bin/millrace groups why shipping":                                     {"shipping"},
		"bin/millrace find --topics shop --from -1h --where 'value.cents>900'": {"shop.OrderPlaced"},
		"bin/millrace trace shop.orders/0@0":                                   {"shop.OrderPlaced", "shipping"},
	} {
		out, _ := s.run(t, 0, command, "")
		has(t, command, out, says...)
	}
	s.run(t, 0, "bin/millrace doctor", "")
	s.run(t, 3, "bin/millrace groups offsets plan shipping --at start", "")
	s.run(t, 0, "bin/millrace context ls", "")

	if code := shipping.stop(t, os.Interrupt); code != 0 {
		t.Errorf("a service that is stopped exits %d\n%s", code, shipping.err)
	}
	text, _ := orderLines("behind", 7)
	s.run(t, 0, "bin/millrace produce shop.orders --key-field order_id", text)
	out, _ = s.run(t, 0, "bin/millrace groups lag shipping -o jsonl", "")
	has(t, "behind", out, `"state":"Empty","members":0,"lag":7,`, "behind_seconds")
	if code := s.registry.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("a registry that is stopped exits %d\n%s", code, s.registry.err)
	}
}

// The README's blocks begin lines with bin/millrace; its sentences name commands without their arguments.
func everyCommandWasRun(s *shell) {
	t := s.step
	s.run(t, 0, "bin/millrace help", "")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^bin/millrace [^#\n]+`).FindAllString(string(readme), -1)
	words := regexp.MustCompile("`millrace ([^`]+)`").FindAllStringSubmatch(string(readme), -1)
	if len(lines) < 5 || len(words) < 3 {
		t.Fatalf("README.md shows %d command lines and names %d commands: they are written in another way now", len(lines), len(words))
	}
	for _, line := range lines {
		if line = strings.TrimSpace(line); !slices.Contains(s.typed, line) {
			t.Errorf("README.md shows %q, and no step of this test runs it", line)
		}
	}
	for _, w := range words {
		if !slices.ContainsFunc(s.typed, func(line string) bool { return strings.HasPrefix(line+" ", "bin/millrace "+w[1]+" ") }) {
			t.Errorf("README.md names millrace %s, and no step of this test runs it", w[1])
		}
	}
}
