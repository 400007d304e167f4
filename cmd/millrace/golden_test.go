package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// documents is a command line for each command that prints a JSON document, in the order in which they are typed. The
// documents are part of the interface: scripts read them. They stand in testdata/json; UPDATE_GOLDEN=1 writes them anew,
// and a difference there is a new version of the format, or a field more.
var documents = []struct {
	name, line string
	code       int
}{
	{"version", "version -o json", codeDone},
	{"topics-plan", "topics plan -o json", codePending},
	{"topics-drift", "topics drift -o json", codePending},
	{"topics-apply", "topics apply --yes -o json", codeDone},
	{"topics-ls", "topics ls -o json", codeDone},
	{"topics-describe", "topics describe shop.orders -o json", codeDone},
	{"topics-import", "topics import notes --into imported -o json", codeDone},
	{"schemas-register", "schemas register order_placed.avsc --subject shop.orders-value -o json", codeDone},
	{"schemas-ls", "schemas ls -o json", codeDone},
	{"schemas-get", "schemas get shop.orders-value -o json", codeDone},
	{"groups-ls", "groups ls -o json", codeDone},
	{"groups-describe", "groups describe shipping -o json", codeDone},
	{"groups-lag", "groups lag shipping -o json", codeDone},
	{"groups-why", "groups why shipping -o json", codeDone},
	{"groups-offsets-plan", "groups offsets plan shipping --at start -o json", codePending},
	{"groups-offsets-export", "groups offsets export shipping -o json", codeDone},
	{"groups-offsets-apply", "groups offsets apply shipping --at start --yes -o json", codeDone},
	{"groups-offsets-undo", "groups offsets undo shipping --yes -o json", codeDone},
	{"groups-offsets-import", "groups offsets import shipping shipping.json --yes -o json", codeDone},
	{"tail", "tail notes --from start --until end -o json", codeDone},
	{"find", "find notes --where value.n==2 --from start -o json", codeDone},
	{"trace", "trace notes/0@1 --from start -o json", codeDone},
	{"produce", "produce notes --format json --from lines.jsonl -o json", codeDone},
	{"webhook-sign", "webhook sign stripe --secret env:STRIPE_SECRET --body event.json --at 2026-11-24T09:00:00Z -o json", codeDone},
	{"webhook-verify", "webhook verify stripe --secret env:STRIPE_SECRET -r captured.http --at 2026-11-24T10:00:00Z -o json", codeFailed},
	{"webhook-send", "webhook send stripe RECEIVER --secret env:STRIPE_SECRET --body event.json -o json", codeDone},
	{"context-ls", "context ls -o json", codeDone},
	{"context-show", "context show -c staging -o json", codeDone},
	{"doctor", "doctor -o json", codeDone},
	{"replay", "replay notes --from start --until offset:2 --into topic:notes --allow-loop --id golden -o json", codeDone},
	{"replay-ls", "replay ls -o json", codeDone},
	{"copy", "copy notes shop.orders --until offset:2 --id copied -o json", codeDone},
	{"sink-describe", "sink describe -f sink.yaml -o json", codeDone},
	{"sink-rewind-plan", "sink rewind plan -f sink.yaml --at start -o json", codePending},
	{"sink-rewind-apply", "sink rewind apply -f sink.yaml --at start --yes -o json", codeDone},
	{"sink-rewind-undo", "sink rewind undo -f sink.yaml --yes -o json", codeDone},
	{"sources-ls", "sources ls -o json", codeDone},
	{"sources-check", "sources check -o json", codePending},
	{"sources-test", "sources test acme --url GATEWAY -o json", codeDone},
}

// silent are the commands without a document: they run on, or print for people alone.
var silent = []string{"sources", "sink", "sink rebuild", "groups pause", "groups resume", "dev", "serve", "broker", "shop", "connecting", "help", "completion", "context use", "completion bash", "completion zsh", "completion fish", "completion powershell"}

func TestJSONDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "notes")
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for i, v := range []string{`{"n":1}`, `{"n":2}`} {
		r := &kgo.Record{Topic: "notes", Key: []byte("k"), Value: []byte(v), Timestamp: at.Add(time.Duration(i) * time.Minute), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}}
		if err := w.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	commit := kadm.Offsets{}
	commit.AddOffset("notes", 0, 1, -1)
	if err := w.admin.CommitAllOffsets(t.Context(), "shipping", commit); err != nil {
		t.Fatal(err)
	}
	w.write(t, "topics/orders.yaml", ordersYAML)
	w.write(t, "order_placed.avsc", ordersAVSC)
	w.write(t, "lines.jsonl", `{"a":1}`+"\n")
	w.write(t, "shipping.json", w.want(t, codeDone, "groups", "offsets", "export", "shipping").out)
	w.webhooks(t)
	w.sources(t)
	receiver := verifier(t, "stripe", stripeKey, make(chan http.Header, 1)).URL
	w.env["XDG_CONFIG_HOME"] = t.TempDir()
	w.user(t, "contexts:\n  staging:\n    brokers: "+w.env["MILLRACE_BROKERS"]+"\n    production: true\n    clusterID: "+w.clusterID(t)+"\n    sasl-password: env:HOME\n")
	for _, d := range documents {
		if d.name == "sink-describe" {
			w.placed(t, "a", "b", "c")
			w.sinkOnce(t)
		}
		gateway := ""
		if d.name == "sources-test" { // it makes its topics
			gateway, _ = w.takeIn(t)
		}
		r := w.run(t, "", strings.Fields(strings.NewReplacer("RECEIVER", receiver, "GATEWAY", gateway).Replace(d.line))...)
		if r.code != d.code {
			t.Errorf("millrace %s exits %d, want %d\n%s", d.line, r.code, d.code, r.err)
			continue
		}
		if !versioned(r.out) {
			t.Errorf("%s: a document without \"millrace\":1\n%s", d.line, r.out)
		}
		golden(t, filepath.Join("testdata", "json", d.name+".json"), w.steady(t, r.out))
	}
}

// versioned reports whether a document says its format's version: itself, or each envelope of a list of events. A command
// may also print nothing.
func versioned(text string) bool {
	if text == "" {
		return true
	}
	if !strings.HasPrefix(text, "[") {
		text = "[" + text + "]"
	}
	var docs []struct{ Millrace int }
	if err := json.Unmarshal([]byte(text), &docs); err != nil {
		return false
	}
	for _, d := range docs {
		if d.Millrace != 1 {
			return false
		}
	}
	return len(docs) > 0
}

// steady takes out of a document what differs from run to run.
func (w *world) steady(t *testing.T, text string) string {
	t.Helper()
	for _, r := range []struct{ from, to string }{
		{regexp.QuoteMeta(w.dir), "DIR"},
		{regexp.QuoteMeta(w.env["XDG_CONFIG_HOME"]), "CONFIG"},
		{regexp.QuoteMeta(w.env["HOME"]), "HOME"},
		{`127\.0\.0\.1:\d+`, "HOST:PORT"},
		{regexp.QuoteMeta(w.clusterID(t)), "CLUSTER-ID"},
		{`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( [A-Z]+|Z|[+-]\d\d:\d\d)?`, "TIME"},
		{`"(version|commit|go|platform)": ?"[^"]*"`, `"$1":"BUILD"`},
		{`seconds": ?[0-9.e+]+`, `seconds":0`},
		{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, "UUID"},
		{`"topic_id": ?"[^"]*"`, `"topic_id":"ID"`},
		{`"request_id": ?"[^"]*"`, `"request_id":"ID"`},
		{`millrace-test-[A-Z2-7]+`, `millrace-test-N`},
		{`webhooks\.acme/\d+@`, `webhooks.acme/P@`},
		{`"owner": ?"[^"/]*/[0-9]+"`, `"owner":"OWNER"`},
		{`[0-9,]+ files`, "N files"},
		{`[0-9,]+ B of events`, "N B of events"}, // a timestamp's delta takes a byte more or less
		{`Kafka v[0-9.]+`, "Kafka vX"},
	} {
		text = regexp.MustCompile(r.from).ReplaceAllString(text, r.to)
	}
	return text
}

// golden compares with a file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// Each command is in one of the two lists.
func TestEveryCommandHasADocument(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	known := map[string]bool{}
	for _, d := range documents {
		known[strings.ReplaceAll(d.name, "-", " ")] = true
	}
	for _, s := range silent {
		known[s] = true
	}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		path := strings.TrimPrefix(c.CommandPath(), "millrace ")
		if !c.HasSubCommands() && !known[path] {
			t.Errorf("millrace %s is in neither list", path)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(w.app(strings.NewReader(""), newBuffer(), newBuffer()).root())
}
