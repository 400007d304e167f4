package main

import (
	"strings"
	"testing"
)

func TestTopicsPlanAndApply(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "unmanaged")
	w.write(t, "topics/orders.yaml", ordersYAML)
	r := w.want(t, codePending, "topics", "plan")
	if want := "+ shop.orders create: 3 partitions, 1 replica, retention.ms=7d\n"; r.out != want {
		t.Errorf("got %q, want %q", r.out, want)
	}
	has(t, "stderr", r.err, "in no file, and left alone: unmanaged")
	w.want(t, codeDone, "topics", "apply", "--yes")
	w.write(t, "topics/orders.yaml", strings.NewReplacer("partitions: 3", "partitions: 6", "retention: 7d", "retention: 14d").Replace(ordersYAML))
	r = w.want(t, codePending, "topics", "plan")
	has(t, "stdout", r.out, "~ shop.orders partitions: 3 → 6", "keys move", "~ shop.orders retention.ms: 7d → 14d")
	plan := w.want(t, codePending, "topics", "plan", "-o", "json")
	w.write(t, "plan.json", plan.out)
	w.want(t, codeDone, "topics", "apply", "--plan", "plan.json", "--yes")
	r = w.want(t, codeRefused, "topics", "apply", "--plan", "plan.json", "--yes") // the cluster is not what the plan saw
	has(t, "stderr", r.err, "has changed", "millrace topics plan")
	w.write(t, "topics/orders.yaml", ordersYAML)
	r = w.want(t, codePending, "topics", "plan")
	has(t, "stdout", r.out, "! shop.orders partitions: 6 → 3")
	r = w.want(t, codeDone, "topics", "describe", "shop.orders")
	has(t, "stdout", r.out, "partitions  6", "retention   14d")
	w.write(t, "topics/orders.yaml", "name: shop.orders\nabsent: true\n")
	r = w.want(t, codeDone, "topics", "apply", "--yes")
	has(t, "stderr", r.err, "left alone without --allow-destroy", "nothing to change")
	w.want(t, codeDone, "topics", "apply", "--yes", "--allow-destroy")
	r = w.want(t, codeDone, "topics", "ls")
	if strings.Contains(r.out, "shop.orders") {
		t.Errorf("the topic is still there:\n%s", r.out)
	}
	for _, args := range []string{"--plan nothing.json", "--plan topics/orders.yaml"} {
		r := w.want(t, codeUsage, append([]string{"topics", "apply"}, strings.Fields(args)...)...)
		has(t, "stderr", r.err, "millrace topics plan -o json >")
	}
}

func TestSchemasRegister(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "topics/orders.yaml", ordersYAML)
	w.write(t, "topics/all.yaml", strings.NewReplacer("shop.orders", "shop.all", "[shop.OrderPlaced]", "[shop.OrderPlaced, shop.OrderCancelled]\nnaming: topic-record").Replace(ordersYAML))
	w.write(t, "schemas/order_placed.avsc", ordersAVSC)
	w.write(t, "schemas/sub/notes-value.avsc", `{"type":"record","name":"Note","fields":[{"name":"text","type":"string"}]}`)
	r := w.want(t, codeDone, "schemas", "register", "schemas")
	want := `SUBJECT                     VERSION   ID   DID          NAME               FILE
shop.all-shop.OrderPlaced   1         1    registered   shop.OrderPlaced   schemas/order_placed.avsc
shop.orders-value           1         1    registered   shop.OrderPlaced   schemas/order_placed.avsc
notes-value                 1         2    registered   Note               schemas/sub/notes-value.avsc
`
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	r = w.want(t, codeDone, "schemas", "register", "schemas")
	if strings.Count(r.out, "unchanged") != 3 {
		t.Errorf("registered twice:\n%s", r.out)
	}
	r = w.want(t, codeDone, "schemas", "ls")
	has(t, "stdout", r.out, "notes-value", "shop.orders-value", "AVRO")
	r = w.want(t, codeDone, "schemas", "get", "notes-value", "-o", "raw")
	has(t, "stdout", r.out, `"name":"Note"`)

	// a field that has no default cannot be added: nothing at all is registered
	w.write(t, "schemas/order_placed.avsc", strings.Replace(ordersAVSC, `{"name":"cents"`, `{"name":"country","type":"string"},{"name":"cents"`, 1))
	w.write(t, "schemas/sub/notes-value.avsc", `{"type":"record","name":"Note","fields":[{"name":"text","type":"string"},{"name":"lang","type":"string","default":"en"}]}`)
	r = w.want(t, codeRefused, "schemas", "register", "schemas")
	has(t, "stderr", r.err, "schemas/order_placed.avsc cannot follow the versions of shop.orders-value", "country", "default")
	if r := w.want(t, codeDone, "schemas", "get", "notes-value"); strings.Contains(r.out, "lang") {
		t.Errorf("a part was registered:\n%s", r.out)
	}
	w.write(t, "schemas/order_placed.avsc", ordersAVSC)
	w.want(t, codePending, "schemas", "register", "schemas", "--dry-run")
	r = w.want(t, codeDone, "schemas", "register", "schemas")
	has(t, "stdout", r.out, "notes-value                 2")
}

func TestSchemasWithoutASubjectSayWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "schemas/lonely.avsc", `{"type":"record","name":"Lonely","fields":[]}`)
	r := w.want(t, codeFailed, "schemas", "register", "schemas")
	has(t, "stderr", r.err, "no topic lists Lonely", "events:", "--subject SUBJECT")
	w.want(t, codeDone, "schemas", "register", "schemas/lonely.avsc", "--subject", "lonely-value")
	w.write(t, "bad/x-value.avsc", `{"type":"recrod"}`)
	r = w.want(t, codeFailed, "schemas", "register", "bad")
	has(t, "stderr", r.err, "bad/x-value.avsc", "recrod")
	w.want(t, codeUsage, "schemas", "register", "nowhere")
	w.want(t, codeUsage, "schemas", "register", "topics-is-empty")
}
