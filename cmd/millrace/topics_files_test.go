package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestTopicsDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.topic(t, "orphan")
	w.topic(t, "shop.orders.shipping.dlq") // consumers make these
	r := w.want(t, codeDone, "topics", "drift")
	has(t, "stderr", r.err, "in no file: orphan", "no drift")
	r = w.want(t, codePending, "topics", "drift", "--orphans")
	has(t, "stderr", r.err, "millrace topics import --into topics")
	w.write(t, "topics/orders.yaml", strings.NewReplacer("7d", "14d", "partitions: 3", "partitions: 2").Replace(ordersYAML)+"config:\n  segment.bytes: 1GiB\n")
	w.write(t, "topics/new.yaml", strings.Replace(ordersYAML, "shop.orders", "shop.new", 1))
	w.write(t, "topics/orphan.yaml", "name: orphan\nabsent: true\n")
	r = w.want(t, codePending, "topics", "drift")
	want := `TOPIC         WHAT            DECLARED                                   ACTUAL
orphan        present         absent                                     1 partition, 1 replica
shop.new      missing         3 partitions, 1 replica, retention.ms=7d   absent
shop.orders   partitions      2                                          3
shop.orders   retention.ms    14d                                        7d
shop.orders   segment.bytes   1GiB                                       broker default
`
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	has(t, "stderr", r.err, "5 differences", "millrace topics plan topics")
	r = w.want(t, codePending, "topics", "drift", "-o", "json")
	var doc struct {
		Millrace int
		Drift    []driftRow
		Orphans  []string
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Millrace != 1 || len(doc.Drift) != 5 || doc.Orphans == nil {
		t.Errorf("%v: %+v", err, doc)
	}
	has(t, "the note", doc.Drift[2].Note, "cannot remove partitions")
}

// What import writes is what the cluster has: the plan right after is empty, and a second import writes nothing.
func TestTopicsImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.topic(t, "notes")
	w.topic(t, ".hidden")
	w.topic(t, "_internal")
	w.topic(t, "shop.orders.shipping.dlq")
	w.write(t, "all.avsc", `{"type":"record","name":"Both","namespace":"notes","fields":[]}`)
	w.want(t, codeDone, "schemas", "register", "all.avsc", "--subject", "notes-notes.Both")
	r := w.want(t, codeDone, "topics", "import", "--into", "got")
	want := "TOPIC         DID       FILE\n.hidden       written   got/dot.hidden.yaml\nnotes         written   got/notes.yaml\nshop.orders   written   got/shop.orders.yaml\n"
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	has(t, "stderr", r.err, "fill in owner")
	r = w.want(t, codeDone, "topics", "plan", "got")
	has(t, "stderr", r.err, "nothing to change")
	for file, text := range map[string]string{
		"shop.orders.yaml": "name: shop.orders\nowner: unknown\npartitions: 3\nreplicas: 1\nretention: 7d\nevents: [shop.OrderPlaced]\n",
		"notes.yaml":       "name: notes\nowner: unknown\npartitions: 1\nreplicas: 1\nevents: [notes.Both]\nnaming: topic-record\n",
	} {
		got, err := os.ReadFile(filepath.Join(w.dir, "got", file))
		if err != nil || string(got) != text {
			t.Errorf("%s: %v\ngot\n%s\nwant\n%s", file, err, got, text)
		}
	}
	r = w.want(t, codeDone, "topics", "import", "notes", "--into", "got", "-o", "json")
	var doc struct{ Topics []importRow }
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || !reflect.DeepEqual(doc.Topics, []importRow{{Topic: "notes", File: "got/notes.yaml", Did: "described"}}) {
		t.Errorf("%v: %s", err, r.out)
	}
	w.write(t, "other/notes.yaml", strings.Replace(ordersYAML, "shop.orders", "elsewhere", 1))
	r = w.want(t, codeFailed, "topics", "import", "notes", "--into", "other")
	has(t, "stderr", r.err, "other/notes.yaml is there", "--into")
	r = w.want(t, codeFailed, "topics", "import", "no.such")
	has(t, "stderr", r.err, "no.such")
	w.env["MILLRACE_REGISTRY"] = "http://127.0.0.1:1"
	r = w.want(t, codeDone, "topics", "import", "notes", "--into", "alone", "--owner", "team-notes")
	has(t, "stderr", r.err, "the files name no events")
}
