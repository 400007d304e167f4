package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// orders writes n orders to shop.orders, as JSON, a minute apart.
func (w *world) orders(t *testing.T, n int) {
	t.Helper()
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for i := range n {
		r := &kgo.Record{
			Topic: "shop.orders", Partition: int32(i % 3), Key: fmt.Append(nil, "o-", i%5), Value: fmt.Appendf(nil, `{"n":%d}`, i), Timestamp: at.Add(time.Duration(i) * time.Minute),
			Headers: []kgo.RecordHeader{{Key: "ce_id", Value: fmt.Append(nil, "id-", i)}, {Key: "ce_type", Value: fmt.Append(nil, "T", i%2)}},
		}
		if err := w.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// copied is how many events shop.copy holds.
func (w *world) copied(t *testing.T) int64 {
	t.Helper()
	ends, err := w.admin.ListEndOffsets(t.Context(), "shop.copy")
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for _, o := range ends["shop.copy"] {
		n += o.Offset
	}
	return n
}

func replayWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.shop(t)
	w.topic(t, "shop.copy")
	w.orders(t, 60)
	return w
}

func TestReplayIntoATopic(t *testing.T) {
	t.Parallel()
	w := replayWorld(t)
	r := w.want(t, codeDone, "replay", "shop.orders", "--from", "start", "--into", "topic:shop.copy", "--dry-run", "--speed", "60x")
	if want := "events    60, of 60 offsets in 3 partitions\nspan      2026-11-22T09:00:00Z to 2026-11-22T09:59:00Z, 59m0s\ninto      topic:shop.copy\nduration  takes 59s\n"; r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	if n := w.copied(t); n != 0 {
		t.Errorf("a dry run wrote %d events", n)
	}
	r = w.want(t, codeDone, "replay", "shop.orders", "--from", "start", "--into", "topic:shop.copy", "--id", "fix", "--type", "T1", "--where", "value.n<30")
	has(t, "stderr", r.err, "replay fix: delivered 15 events to topic:shop.copy, 45 not asked for")
	if n := w.copied(t); n != 15 {
		t.Errorf("%d events", n)
	}
	r = w.want(t, codeDone, "tail", "shop.copy", "--offset", "0:1", "-o", "jsonl")
	has(t, "stdout", r.out, `"millrace_replay_id","value":"fix"`, `"millrace_origin_topic","value":"shop.orders"`, `"ce_id","value":"id-1"`)
	r = w.want(t, codeDone, "replay", "ls")
	has(t, "stdout", r.out, "fix", "done", "60 of 60", "shop.orders")
	r = w.want(t, codeDone, "replay", "--resume", "fix")
	has(t, "stderr", r.err, "delivered 15 events")
	if n := w.copied(t); n != 15 {
		t.Errorf("a replay that is over delivered again: %d events", n)
	}
	r = w.want(t, codeDone, "replay", "shop.orders", "--from", "start", "--into", "topic:shop.copy", "-o", "json")
	var doc struct {
		Millrace  int
		Into      string
		Delivered int64
		Done      bool
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Millrace != 1 || doc.Delivered != 60 || !doc.Done || doc.Into != "topic:shop.copy" {
		t.Errorf("%v\n%s", err, r.out)
	}
}

func TestReplayRefusals(t *testing.T) {
	t.Parallel()
	w := replayWorld(t)
	for line, says := range map[string]string{
		"replay":                                                     "name a topic",
		"replay shop.orders --into stdout":                           "--from -1h",
		"replay shop.orders --from start":                            "--into topic:NAME",
		"replay shop.orders --from start --into x:":                  "no such target",
		"replay shop.orders --from start --into stdout --speed fast": "10x",
		"replay shop.orders --from start --into stdout --rate 0":     "100/s",
		"replay --set x.jsonl --from start --into stdout":            "leave out",
		"replay shop.orders --resume x":                              "leave out shop.orders",
		"replay --resume x --into stdout":                            "leave out --into",
		"replay shop.orders --from start --into ftp:x":               "no such target",
		"replay shop.orders --from start --into http:":               "URL",
		"replay shop.orders --from start --into stdout --clock sun":  "record, event",
		"replay shop.orders --from start --from-group g --into x":    "use one way",
		"replay shop.orders --from start --into http://me:pw@x/":     "--request-header",
		"replay shop.orders --from start --into stdout --id long --where true" + strings.Repeat("&&true", 500): "--no-progress",
	} {
		r := w.want(t, codeUsage, strings.Fields(line)...)
		has(t, line, r.err, says, "→")
	}
	for line, says := range map[string]string{
		"replay shop.orders --from start --into topic:shop.orders": "--allow-loop",
	} {
		r := w.want(t, codeRefused, strings.Fields(line)...)
		has(t, line, r.err, says)
	}
	for line, says := range map[string]string{
		"replay nowhere --from start --into stdout":              "millrace topics ls",
		"replay shop.orders --from start --into topic:nowhere":   "there is no topic nowhere",
		"replay --resume nobody":                                 "millrace replay ls",
		"replay shop.orders --from-group nobody --into stdout":   "committed nothing",
		"replay --set nothing.jsonl --into stdout --no-progress": "nothing.jsonl",
	} {
		r := w.run(t, "", strings.Fields(line)...)
		if r.code == codeDone {
			t.Errorf("%s succeeds", line)
		}
		has(t, line, r.err, says)
	}
	w.want(t, codeDone, strings.Fields("replay shop.orders --from start --into topic:shop.copy --id a")...)
	r := w.want(t, codeRefused, strings.Fields("replay shop.orders --from start --into topic:shop.copy --id a")...)
	has(t, "stderr", r.err, "--resume a")
}

func TestReplayASavedSet(t *testing.T) {
	t.Parallel()
	w := replayWorld(t)
	w.want(t, codeDone, "find", "shop.orders", "--where", "value.n % 10 == 3", "--save", "set.jsonl")
	r := w.want(t, codeDone, "replay", "--set", "set.jsonl", "--into", "topic:shop.copy", "--dry-run")
	has(t, "stdout", r.out, "events    6", "50m0s")
	r = w.want(t, codeDone, "replay", "--set", "set.jsonl", "--into", "topic:shop.copy", "--id", "set")
	has(t, "stderr", r.err, "delivered 6 events")
	r = w.want(t, codeDone, "tail", "shop.copy", "--offset", "0:100", "-o", "jsonl")
	has(t, "stdout", r.out, `"id-3"`, `"id-53"`, `{\"n\":53}`, `"millrace_origin_partition","value":"2"`)
	r = w.want(t, codeDone, "replay", "--set", "set.jsonl", "--into", "stdout", "-o", "raw")
	if r.out != "{\"n\":3}\n{\"n\":13}\n{\"n\":23}\n{\"n\":33}\n{\"n\":43}\n{\"n\":53}\n" {
		t.Errorf("got %s", r.out)
	}
}

func TestReplayIntoAURLAndACommand(t *testing.T) {
	t.Parallel()
	w := replayWorld(t)
	var mu sync.Mutex
	seen := map[string]int{}
	broken := true
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		body, _ := io.ReadAll(in.Body)
		mu.Lock()
		defer mu.Unlock()
		if string(body) == `{"n":17}` && broken || in.Header.Get("Authorization") != "Bearer x" {
			http.Error(out, "not that one", http.StatusBadRequest)
			return
		}
		seen[in.Header.Get("Ce-Id")]++
	}))
	defer server.Close()
	args := []string{"replay", "shop.orders", "--from", "start", "--into", server.URL, "--request-header", "Authorization=Bearer x", "--parallel", "4"}
	r := w.want(t, codeFailed, append(args, "--id", "http")...)
	has(t, "stderr", r.err, "shop.orders/2@5", "not that one", "--resume http")
	r = w.want(t, codePartial, append(args, "--skip-failed")...)
	has(t, "stderr", r.err, "delivered 59 events", "1 failed and skipped")
	broken = false
	r = w.want(t, codeDone, "replay", "--resume", "http", "--request-header", "Authorization=Bearer x")
	has(t, "stderr", r.err, "delivered 60 events")
	if len(seen) != 60 || seen["id-17"] != 1 {
		t.Errorf("%d of 60 ids", len(seen))
	}
	r = w.want(t, codeDone, "replay", "shop.orders", "--offset", "0:2", "--into", `exec:cat >&2; echo "$EVENT_ID"`, "--no-progress")
	has(t, "stderr", r.err, "id-3", "delivered 6 events")
}

// Ctrl-C ends a replay after what is on its way, and --resume goes on with the same range.
func TestReplayResumes(t *testing.T) {
	t.Parallel()
	w := replayWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := newBuffer(), newBuffer()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, w.app(strings.NewReader(""), out, errs), strings.Fields("replay shop.orders --from start --until now --into stdout -o raw --id slow --rate 40/s"))
	}()
	out.await(t, `{"n":5}`)
	cancel()
	if got := <-code; got != codeInterrupted {
		t.Errorf("exits %d", got)
	}
	has(t, "stderr", errs.String(), "--resume slow", "% of the range")
	first := strings.Count(out.String(), "\n")
	if first < 6 || first > 59 {
		t.Fatalf("%d events before Ctrl-C", first)
	}
	w.orders(t, 3) // of another range
	r := w.want(t, codeDone, "replay", "--resume", "slow", "--rate", "1000/s", "-o", "raw")
	var all bytes.Buffer
	all.WriteString(out.String() + r.out)
	if n := strings.Count(all.String(), "\n"); n != 60 {
		t.Errorf("%d events in all", n)
	}
	if strings.Contains(r.err, "twice") {
		t.Errorf("a stop in time repeats nothing: %s", r.err)
	}
}

func TestReplayGuards(t *testing.T) {
	t.Parallel()
	w := replayWorld(t)
	w.contexts(t)
	r := w.want(t, codeDone, strings.Fields("replay shop.orders --from start --into stdout -o raw -c prod")...)
	if strings.Count(r.out, "\n") != 60 {
		t.Errorf("who reads is not asked, and keeps no progress:\n%s", r.err)
	}
	w.want(t, codeDone, strings.Fields("replay shop.orders --from start --into topic:shop.copy --dry-run -c frozen")...)
	r = w.want(t, codeRefused, strings.Fields("replay shop.orders --from start --into topic:shop.copy -c staging --into-context prod")...)
	has(t, "stderr", r.err, "--confirm prod")
	r = w.want(t, codeRefused, strings.Fields("replay shop.orders --from start --into topic:shop.orders -c staging --into-context plain")...)
	has(t, "stderr", r.err, "--allow-loop") // two names for one cluster
	r = w.want(t, codeRefused, strings.Fields("replay shop.orders --from start --into topic:shop.copy -c staging --into-context frozen")...)
	has(t, "stderr", r.err, "read-only")
	w.want(t, codeDone, strings.Fields("replay shop.orders --from start --into topic:shop.copy -c frozen --no-progress --into-context plain")...)
	if n := w.copied(t); n != 60 {
		t.Errorf("%d events", n)
	}
}
