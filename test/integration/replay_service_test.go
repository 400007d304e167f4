package integration_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink/sqlitesink"
)

const pastOrders = 1500

// The shop's shipping and analytics, their sources unchanged, replayed in shadow over an hour while the live ones stand by:
// no record on a live topic, no HTTP request, no row of a live table, and no offset of a live group is another one after.
func TestRealReplayIntoShipping(t *testing.T) {
	t.Parallel()
	c := kafkatest.Boot(t, kafkatest.Config{}).Cluster("") // the topics have the shop's own names
	url := serveRegistry(t, c).url()
	declare(t, c, url)
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(proxy.Close)
	table := filepath.Join(t.TempDir(), "analytics.db")
	s := newShell(t, c)
	s.env = append(s.env, "MILLRACE_REGISTRY="+url, "MILLRACE_CREATE_TOPICS=true", shop.AnalyticsEnv+"="+table,
		"HTTP_PROXY="+proxy.URL, "HTTPS_PROXY="+proxy.URL) // whoever asks by HTTP asks here; the registry's address is loopback
	pastOfShop(t, c, url)
	adm := kadm.NewClient(kafkatest.Client(t, c))
	db, err := sqlitesink.Open(table)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })

	shipping, analytics := s.start(t, "bin/millrace shop shipping"), s.start(t, "bin/millrace shop analytics")
	await(t, "every order is shipped", func() bool { return length(t, adm, shop.Shipments) == pastOrders })
	await(t, "every order is counted", func() bool {
		r, err := shop.SQLiteRevenue(t.Context(), db)
		return err == nil && r.Total.Orders == pastOrders
	})
	settled := func(group string, topics ...string) {
		await(t, group+" has committed all", func() bool {
			commits, err := adm.FetchOffsets(t.Context(), group)
			var at, end int64
			commits.Each(func(o kadm.OffsetResponse) { at += o.At })
			for _, topic := range topics {
				end += length(t, adm, topic)
			}
			return err == nil && at == end
		})
	}
	settled("shipping", shop.Orders, shop.Paid)
	settled("analytics", shop.Orders)

	before := liveState(t, adm, db)
	capture := filepath.Join(t.TempDir(), "effects.jsonl")
	flags := " --replay again --replay-from -65m --replay-clock event --replay-capture " + capture
	_, said := s.run(t, 0, "bin/millrace shop shipping"+flags, "")
	has(t, "shipping", said, fmt.Sprintf(`"handled": %d`, 2*pastOrders-1), `"dead_lettered": 1`, `"refused": 0`)
	_, said = s.run(t, 0, "bin/millrace shop analytics"+flags, "")
	has(t, "analytics", said, fmt.Sprintf(`"handled": %d`, pastOrders), `"kind": "fold"`)
	if after := liveState(t, adm, db); !maps.Equal(before, after) {
		for name := range after {
			if before[name] != after[name] {
				t.Errorf("%s was %s and is %s", name, before[name], after[name])
			}
		}
		for name := range before {
			if _, ok := after[name]; !ok {
				t.Errorf("%s is gone", name)
			}
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d HTTP requests were made", n)
	}
	for _, live := range []*running{shipping, analytics} {
		if code := live.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("%s exits %d\n%s", live.line, code, live.err)
		}
	}

	// What the shadow did is what the live ones did.
	if got, want := ids(t, c, "replay.again."+shop.Shipments), ids(t, c, shop.Shipments); !slices.Equal(got, want) {
		t.Errorf("the shadow has %d shipments, the topic %d, or others", len(got), len(want))
	}
	if got, want := digest(t, db, "revenue__again"), digest(t, db, "revenue"); got != want {
		t.Error("the fold's shadow is another one")
	}
	shipped := 0
	f, err := os.Open(capture)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for e, err := range replay.Effects(f) {
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Kind == replay.KindHTTP:
			t.Errorf("a request was captured: %+v", e)
		case e.Kind == replay.KindPublish && e.Target == shop.Shipments && e.Cause.Topic == shop.Paid:
			shipped++
		}
	}
	if shipped != pastOrders {
		t.Errorf("%d shipments were captured, want %d", shipped, pastOrders)
	}
	walkReplayGuide(t, s, adm)
}

// walkReplayGuide types every command of the guide on replays, as a person with the shop's hour before him would.
func walkReplayGuide(t *testing.T, s *shell, adm *kadm.Client) {
	t.Helper()
	guide, err := os.ReadFile("../../docs/replay.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^millrace .+$`).FindAllString(string(guide), -1)
	if n := strings.Count(string(guide), "\n"); len(lines) < 7 || n > 120 {
		t.Fatalf("docs/replay.md has %d lines and shows %d command lines", n, len(lines))
	}
	said := map[string]string{}
	for _, line := range lines {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, "sh", "-c", line)
		cmd.Dir, cmd.Env = s.dir, append(slices.Clone(s.env), "PATH="+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		said[line] = string(out)
	}
	if n := length(t, adm, "replay.fixed."+shop.Shipments); n < pastOrders*9/10 || n > pastOrders {
		t.Errorf("the guide's shadow has %d shipments, want nearly %d", n, pastOrders)
	}
	for line, out := range said {
		if strings.Contains(line, "replay ls") {
			has(t, line, out, "fixed.shipping", "slow.shipping", "done")
		}
		if strings.Contains(line, "--speed 10x") {
			has(t, line, out, `"as": "shipping", "done": true`)
		}
		if strings.Contains(line, "tail replay.fixed") {
			has(t, line, out, `"parcels":1`)
		}
	}
}

// pastOfShop writes an hour of orders and their payments, one order without an address among them.
func pastOfShop(t *testing.T, c kafka.Cluster, url string) {
	t.Helper()
	reg, err := schemas.New(schemas.Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	client := kafkatest.Client(t, c)
	began := time.Now().Add(-time.Hour)
	put := func(topic, id, key string, at time.Time, data any) {
		e := event.Event{Meta: event.Meta{ID: id, Topic: topic, Key: []byte(key), Source: "past", Time: at}, Data: data}
		value, err := reg.Encode(t.Context(), nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		client.Produce(t.Context(), &kgo.Record{
			Topic: topic, Key: e.Key, Value: value, Timestamp: at, Headers: wire.RecordHeaders(event.AppendHeaders(nil, e.Meta)),
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	for n := range int64(pastOrders) {
		at := began.Add(time.Duration(n) * time.Hour / pastOrders)
		o, _ := shop.Order(1, "past", n, at)
		if n == 7 {
			o.Address = ""
		}
		paid := shop.OrderPaid{OrderID: o.OrderID, CustomerID: o.CustomerID, Cents: o.Cents, Method: "card", Address: "Mill Lane 1", Pieces: 3, PaidAt: at}
		put(shop.Orders, "order-"+o.OrderID, o.OrderID, at, o)
		put(shop.Paid, "paid-"+o.OrderID, o.OrderID, at.Add(time.Second), paid)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// liveState is all that a shadow may not change, as texts by name.
func liveState(t *testing.T, adm *kadm.Client, db *sql.DB) map[string]string {
	t.Helper()
	out := map[string]string{"revenue": digest(t, db, "revenue")}
	ends, err := adm.ListEndOffsets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		if !strings.HasPrefix(o.Topic, "replay.") && !strings.HasPrefix(o.Topic, "__") {
			out[fmt.Sprintf("%s/%d", o.Topic, o.Partition)] = fmt.Sprint(o.Offset)
		}
	})
	for _, group := range []string{"shipping", "analytics"} {
		commits, err := adm.FetchOffsets(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		commits.Each(func(o kadm.OffsetResponse) {
			out[fmt.Sprintf("%s on %s/%d", group, o.Topic, o.Partition)] = fmt.Sprintf("%d %d %q", o.At, o.LeaderEpoch, o.Metadata)
		})
	}
	return out
}

// digest is a checksum of a table of a fold, row by row.
func digest(t *testing.T, db *sql.DB, table string) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT key, window_start, state FROM `+table+` ORDER BY key, window_start`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	sum := sha256.New()
	n := 0
	for rows.Next() {
		var key, window, state string
		if err := rows.Scan(&key, &window, &state); err != nil {
			t.Fatal(err)
		}
		n++
		fmt.Fprintf(sum, "%s\x00%s\x00%s\n", key, window, state)
	}
	if err := rows.Err(); err != nil || n == 0 {
		t.Fatalf("%s has %d rows, %v", table, n, err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// ids are the event ids of a topic, sorted.
func ids(t *testing.T, c kafka.Cluster, topic string) []string {
	t.Helper()
	var out []string
	for _, r := range consumeAll(t, c, topic, int(length(t, kadm.NewClient(kafkatest.Client(t, c)), topic))) {
		out = append(out, string(wire.Headers(r.Headers).Get(event.HeaderID)))
	}
	slices.Sort(out)
	return out
}
