package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

func TestCopyWithinACluster(t *testing.T) {
	t.Parallel()
	w := replayWorld(t)
	commit := kadm.Offsets{}
	for p := range int32(3) {
		commit.AddOffset("shop.orders", p, 10, -1)
	}
	if err := w.admin.CommitAllOffsets(t.Context(), "shipping", commit); err != nil {
		t.Fatal(err)
	}
	r := w.want(t, codeDone, "copy", "shop.orders", "shop.copy", "--dry-run")
	has(t, "stdout", r.out, "events    60")
	if _, err := w.admin.CreateTopic(t.Context(), 3, 1, nil, "twin"); err != nil {
		t.Fatal(err)
	}
	r = w.want(t, codeDone, "copy", "shop.orders", "twin", "--id", "c", "--map-group", "shipping", "--plan", "moved.json")
	has(t, "stdout", r.out, "end        shop.orders/0@20   twin/0@19   2026-11-22T09:57:00Z", "shipping   shop.orders/1@10   twin/1@9    2026-11-22T09:28:00Z")
	has(t, "stderr", r.err, "copy c: delivered 60 events to topic:twin", "millrace groups offsets apply moved.json")
	a, b := w.want(t, codeDone, "tail", "shop.orders", "--offset", "0:20", "-o", "jsonl").out, w.want(t, codeDone, "tail", "twin", "--offset", "0:20", "-o", "jsonl").out
	if strings.ReplaceAll(a, "shop.orders", "twin") != b || strings.Count(b, "\n") != 60 {
		t.Errorf("the copy differs:\n%s\n%s", a, b)
	}
	w.want(t, codeDone, "groups", "offsets", "apply", "moved.json", "--yes")
	offsets, err := w.admin.FetchOffsets(t.Context(), "shipping")
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := offsets.Lookup("twin", 1); o.At != 9 {
		t.Errorf("the group stands at %d in the copy", o.At)
	}
	r = w.want(t, codeDone, "copy", "--resume", "c", "-o", "json")
	var doc struct {
		Millrace  int
		Delivered int64
		Mapped    []struct {
			Offset int64
			Target []struct{ Partition, Offset int64 }
		}
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Delivered != 60 || len(doc.Mapped) != 3 || doc.Mapped[2].Target[0].Offset != 19 {
		t.Errorf("%v\n%s", err, r.out)
	}
	for line, says := range map[string]string{
		"copy shop.orders":                             "two topics",
		"copy shop.orders twin --plan x":               "--map-group",
		"copy --resume c twin":                         "leave out",
		"copy shop.orders shop.copy --rate x":          "100/s",
		"copy shop.orders shop.copy --from yesteryear": "--from",
	} {
		r := w.want(t, codeUsage, strings.Fields(line)...)
		has(t, line, r.err, says)
	}
	r = w.want(t, codeRefused, "copy", "shop.orders", "shop.orders")
	has(t, "stderr", r.err, "a topic that is read")
	r = w.want(t, codeRefused, "copy", "shop.orders", "twin", "--id", "c")
	has(t, "stderr", r.err, "--resume c")
	r = w.want(t, codeRefused, "replay", "--resume", "c")
	has(t, "stderr", r.err, "millrace copy --resume c")
}

// Into another context, schemas are registered there, and values name them by their ids there.
func TestCopyIntoAnotherContext(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	w.shop(t)
	w.write(t, "orders.jsonl", `{"order_id":"o-1","cents":5}`+"\n"+`{"order_id":"o-2","cents":6}`+"\n")
	w.want(t, codeDone, "produce", "shop.orders", "--from", "orders.jsonl", "--key-field", "order_id")
	other.topic(t, "orders.dr")
	other.write(t, "other.avsc", `{"type":"record","name":"Other","fields":[]}`)
	other.want(t, codeDone, "schemas", "register", "other.avsc", "--subject", "other-value")
	w.env["XDG_CONFIG_HOME"] = t.TempDir()
	w.user(t, fmt.Sprintf("contexts:\n  dr:\n    brokers: %s\n    registry: %s\n    production: true\n", other.env["MILLRACE_BROKERS"], other.env["MILLRACE_REGISTRY"]))
	r := w.want(t, codeRefused, "copy", "shop.orders", "orders.dr", "--into-context", "dr")
	has(t, "stderr", r.err, "--confirm dr")
	r = w.want(t, codeDone, "copy", "shop.orders", "orders.dr", "--into-context", "dr", "--confirm", "dr")
	has(t, "stderr", r.err, "delivered 2 events")
	r = other.want(t, codeDone, "tail", "orders.dr", "--from", "start", "--until", "end", "-o", "jsonl")
	has(t, "stdout", r.out, `"data":{"order_id":"o-1","cents":5}`, `"data":{"order_id":"o-2","cents":6}`, `AAAAAAI`)
	r = other.want(t, codeDone, "schemas", "get", "orders.dr-value")
	has(t, "stdout", r.out, "OrderPlaced")
}
