package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

// sold fills two topics with JSON, a second apart and turn about: seconds 0 to 9, cents 0 to 900.
func (w *world) sold(t *testing.T) {
	t.Helper()
	for _, topic := range []string{"shop.a", "shop.b", "other", "_shop.internal"} {
		w.topic(t, topic)
	}
	for i := range 10 {
		w.put(t, &kgo.Record{
			Topic: []string{"shop.a", "shop.b"}[i%2], Key: fmt.Append(nil, "k", i%3), Timestamp: epoch.Add(time.Duration(i) * time.Second),
			Value: fmt.Appendf(nil, `{"cents":%d,"country":%q}`, 100*i, []string{"IT", "FR"}[i/5]),
		})
	}
	w.put(t, &kgo.Record{Topic: "shop.a", Timestamp: epoch.Add(time.Minute), Value: []byte("no JSON")})
}

// seconds are the timestamps of what a command printed as jsonl, as seconds after epoch.
func seconds(t *testing.T, out string) string {
	t.Helper()
	var all []string
	for line := range strings.Lines(out) {
		var env envelope
		if err := json.Unmarshal([]byte(line), &env); err != nil {
			t.Fatal(err)
		}
		mark := ""
		if env.Context {
			mark = "~"
		}
		all = append(all, fmt.Sprint(mark, int(time.Time(env.Timestamp).Sub(epoch).Seconds())))
	}
	return strings.Join(all, " ")
}

func TestFind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sold(t)
	for _, tt := range []struct{ args, want, says string }{
		{"--topics ^shop --where value.cents>=700", "7 8 9", "scanned 11 records in 11 of 11 offsets (100 %) of 2 partitions, 3 matches, 1 undecodable, the first at shop.a/0@5"},
		{"--topics ^shop --where value.cents>=700 --key k0", "9", "1 match"}, // the value of another key is not decoded
		{"shop.b --where value.country==\"IT\"", "1 3", "scanned 5 records"},
		{"--topics shop[.]a --topics shop[.]b --where value.cents<300 --where value.cents>0", "1 2", "reading shop.a, shop.b\n"},
		{"shop.a --topics b$ --where topic==\"shop.b\"&&offset<2", "1 3", "reading shop.a, shop.b\n"},
		{"--topics . --from 2026-11-24T09:00:03 --until 2026-11-24T09:00:06", "3 4 5", "until 2026-11-24 09:00:06Z"},
		{"--topics ^shop -n 2 --where value.cents>200", "3 4", "2 matches"},
		{"--topics ^shop --offset 4", "8 9 60", ""}, // a search has an end, whatever is asked
		{"--topics ^shop --offset end-1:", "9 60", ""},
		{"--topics ^shop --until 2026-11-24T09:00:02", "0 1", ""},
		{"--topics ^shop --key none", "", "0 matches"},
		{"_shop.internal", "", "nothing to read"}, // by its name
	} {
		r := w.want(t, codeDone, append([]string{"find", "-o", "jsonl"}, strings.Fields(tt.args)...)...)
		if got := seconds(t, r.out); got != tt.want {
			t.Errorf("find %s: got seconds %s, want %s", tt.args, got, tt.want)
		}
		has(t, "find "+tt.args+": stderr", r.err, tt.says)
	}
}

func TestFindExitCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sold(t)
	for _, tt := range []struct {
		args string
		code int
		says []string
	}{
		{"find", codeUsage, []string{"name a topic", "--topics"}},
		{"find shop.a --key none", codeDone, []string{"0 matches"}}, // an empty result is none until it is asked for
		{"find shop.a --key none --must-match", codeFailed, []string{"nothing matches"}},
		{"find shop.a --key k0 --must-match", codeDone, []string{"2 matches"}},
		{"find nowhere", codeFailed, []string{"no topic nowhere", "millrace topics ls"}},
		{"find --topics ^nothing$", codeFailed, []string{"no topic matches", "millrace topics ls"}},
		{"find --topics (", codeUsage, []string{"--topics"}},
		{"find shop.a --where valu.cents>1", codeUsage, []string{"valu", "known are value"}},
		{"find shop.a --where value.cents", codeDone, []string{"1 undecodable", "5 without an answer", "neither true nor false"}},
		{"find shop.a --where value.cents --after 1 --key k0", codeDone, []string{"0 matches, 2 without an answer", "neither true nor false"}}, // counted the same here
		{"find shop.a --where 1", codeUsage, []string{"true or false"}},
		{"find shop.a --count-by nope", codeUsage, []string{"--count-by"}},
		{"find shop.a --count-by key -o raw", codeUsage, []string{"raw"}},
		{"find shop.a --before 1", codeUsage, []string{"around a match"}},
		{"find shop.a --key k --before -1", codeUsage, []string{"from 0 to"}},
		{"find shop.a --key k --after 1000000", codeUsage, []string{"from 0 to"}},
		{"find shop.a --key k --after 1 --count-by key", codeUsage, []string{"matches alone"}},
		{"find shop.a --key k --after 1 --context-by topic", codeUsage, []string{"partition, key"}},
		{"find shop.a --partition 4294967296", codeUsage, []string{"count from 0"}},
		{"find shop.a --save nowhere/set.jsonl", codeUsage, []string{"--save", "nowhere"}},
		{"find shop.a --save .git", codeUsage, []string{"no plain file"}},
		{"find shop.a --from now --until -1h", codeUsage, []string{"empty"}},
		{"tail shop.a -n 5 --where true", codeUsage, []string{"--from start"}},
	} {
		r := w.run(t, "", strings.Fields(tt.args)...)
		if r.code != tt.code {
			t.Errorf("%s: exits %d, want %d: %s", tt.args, r.code, tt.code, r.err)
		}
		has(t, tt.args, r.err, tt.says...)
		if r.code != codeDone && !strings.Contains(r.err, "→") {
			t.Errorf("%s fails and does not say what to type next: %s", tt.args, r.err)
		}
	}
}

func TestCountBy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sold(t)
	r := w.want(t, codeDone, "find", "--topics", "^shop", "--count-by", "key")
	if want := "COUNT   SHARE   VALUE\n4       36.4%   k0\n3       27.3%   k1\n3       27.3%   k2\n1       9.1%    null\n"; r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	r = w.want(t, codeDone, "find", "--topics", "^shop", "--count-by", "value.country", "-o", "json", "--save", "set.jsonl")
	var doc struct {
		Millrace int        `json:"millrace"`
		Counts   []countRow `json:"counts"`
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Millrace != 1 || len(doc.Counts) != 2 || doc.Counts[0].Value != "FR" || doc.Counts[0].Count != 5 {
		t.Errorf("%v: %s", err, r.out)
	}
	has(t, "stderr", r.err, "1 event without such a value, the first at shop.a/0@5", "saved 11 events")
	r = w.want(t, codeDone, "tail", "shop.a", "-n", "3", "--count-by", "value.cents>=800", "-o", "jsonl")
	if want := "{\"value\":\"false\",\"count\":1}\n{\"value\":\"true\",\"count\":1}\n"; r.out != want {
		t.Errorf("got %s", r.out)
	}
	if r = w.want(t, codeDone, "find", "shop.a", "--key", "none", "--count-by", "key", "-o", "jsonl"); r.out != "" {
		t.Errorf("got %s", r.out)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sold(t)
	for _, tt := range []struct{ args, want string }{
		{"--where value.cents==400 --before 1", "~2 4"}, // the event before it in its partition, not in time
		{"--where value.cents==400 --after 1", "4 ~6"},
		{"--where value.cents==400 --before 9 --after 9", "~0 ~2 4 ~6 ~8 ~60"},
		{"--where value.cents==400 --before 1 --after 1 --context-by key", "~1 4 ~7"},
		{"--where value.cents==400||value.cents==600 --before 2 --after 1", "~0 ~2 4 6 ~8"}, // nothing twice
		{"--where value.cents==300 --before 5 --after 5 --context-by key", "~0 3 ~6 ~9"},
		{"--where value.cents>=400 -n 1 --after 1", "4 ~6"}, // the last one's context is shown, a further match is context
		{"--where value.cents==999 --before 3 --after 3", ""},
	} {
		r := w.want(t, codeDone, append([]string{"find", "--topics", "^shop", "-o", "jsonl"}, strings.Fields(tt.args)...)...)
		if got := seconds(t, r.out); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.args, got, tt.want)
		}
	}
	r := w.want(t, codeDone, "find", "shop.a", "--where", "value.cents==0||value.cents==800", "--after", "1", "--save", "set.jsonl")
	want := `> 2026-11-24 09:00:00.000  shop.a/0@0  k0  {"cents":0,"country":"IT"}
  2026-11-24 09:00:02.000  shop.a/0@1  k2  {"cents":200,"country":"IT"}
--
> 2026-11-24 09:00:08.000  shop.a/0@4  k2  {"cents":800,"country":"FR"}
  2026-11-24 09:01:00.000  shop.a/0@5  -  no JSON
`
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	has(t, "stderr", r.err, "2 matches, 1 undecodable", "saved 2 events")
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	hour := position.Range{From: position.Point{Kind: position.Time, At: epoch}}
	for _, tt := range []struct {
		total int64
		span  position.Range
		want  string
	}{
		{999_999, position.Range{}, ""},
		{9_000_000, hour, "up to 9,000,000 records to look at, some 30s"},
		{90_000_000, position.Range{}, "up to 90,000,000 records to look at, some 5m0s\n  → look at less:  --from -1h, or --partition"},
	} {
		if got := strings.Join(estimate(tt.total, tt.span), "\n"); got != tt.want {
			t.Errorf("%d: got %q, want %q", tt.total, got, tt.want)
		}
	}
}

// What is held for a match to come is bounded, by key too.
func TestContextForgetsTheQuietestKey(t *testing.T) {
	t.Parallel()
	x := newAround(2, 1, true)
	add := func(key string, hit bool) int {
		earlier, _, _ := x.add(&event.Event{Meta: event.Meta{Topic: "t", Key: []byte(key)}}, hit)
		return len(earlier)
	}
	add("first", false)
	for i := range heldMost {
		add(fmt.Sprint(i), false)
	}
	if x.held != heldMost || len(x.streams) != heldMost || !x.cut {
		t.Errorf("holds %d events in %d streams", x.held, len(x.streams))
	}
	if n := add("first", true); n != 0 {
		t.Errorf("the first key has %d events, want 0", n)
	}
	if n := add(fmt.Sprint(heldMost-1), true); n != 1 {
		t.Errorf("the last key has %d events, want 1", n)
	}
	if x.pending != 2 {
		t.Errorf("%d streams are waited for, want 2", x.pending)
	}
	for range heldMost + 10 { // also streams that wait for what follows a match are bounded
		add(fmt.Sprint("m", x.pending, x.recent.Len(), time.Now().UnixNano()), true)
	}
	if len(x.streams) > heldMost || x.pending != len(x.streams) {
		t.Errorf("waits for %d of %d streams", x.pending, len(x.streams))
	}
}

func TestSavedSetsAreWholeOrNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sold(t)
	r := w.want(t, codeDone, "find", "--topics", "^shop", "--key", "k0", "--save", "set.jsonl", "-o", "raw")
	has(t, "stderr", r.err, "saved 4 events to set.jsonl: publish them again with  millrace produce TOPIC --from set.jsonl")
	first, err := os.ReadFile(filepath.Join(w.dir, "set.jsonl"))
	if err != nil || seconds(t, string(first)) != "0 3 6 9" {
		t.Fatalf("%v: %s", err, first)
	}
	w.put(t, &kgo.Record{Topic: "shop.a", Value: append([]byte{0, 0, 0, 0, 9}, 1, 2)})
	w.env["MILLRACE_REGISTRY"] = "http://127.0.0.1:1" // dies at the last record
	r = w.want(t, codeFailed, "find", "--topics", "^shop", "--save", "set.jsonl")
	has(t, "stderr", r.err, "nothing was saved to set.jsonl", "registry")
	if again, err := os.ReadFile(filepath.Join(w.dir, "set.jsonl")); err != nil || !bytes.Equal(again, first) {
		t.Errorf("%v: the old set became %s", err, again)
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, ".set.jsonl*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What follows has no end but Ctrl-C: the set is what was there until then.
func TestASetThatFollows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	w.records(t, "t", "one", "two")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := newBuffer(), newBuffer()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, w.app(strings.NewReader(""), out, errs), []string{"tail", "t", "--from", "start", "--save", "set.jsonl", "-o", "raw"})
	}()
	out.await(t, "two")
	cancel()
	if got := <-code; got != codeInterrupted {
		t.Errorf("exits %d, want %d", got, codeInterrupted)
	}
	has(t, "stderr", errs.String(), "saved 2 events to set.jsonl")
	w.topic(t, "copy")
	w.want(t, codeDone, "produce", "copy", "--from", "set.jsonl", "--header", "again=yes")
	if got := w.all(t, "copy"); len(got) != 2 || string(got[1].Value) != "two" || fmt.Sprintf("%s", got[1].Headers) != "[{again yes}]" {
		t.Errorf("got %v", got)
	}
}

// Whatever a record holds, tail -o jsonl and find --save keep it and produce puts it back: null and empty, repeats,
// bytes that are no text, names that are no text, times that no calendar has.
func TestRecordsComeBackByteForByte(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, topic := range []string{"from", "piped", "saved"} {
		w.topic(t, topic)
	}
	random := rand.New(rand.NewPCG(1, 2))
	octet := func() []byte {
		switch random.IntN(6) {
		case 0:
			return nil
		case 1:
			return []byte{}
		case 2:
			return []byte("text \u2028 \"<&>\" \ufffd\n{\"millrace\":1}")
		}
		b := make([]byte, random.IntN(300))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	const n = 500
	for range n {
		r := &kgo.Record{Topic: "from", Key: octet(), Value: octet(), Timestamp: time.UnixMilli(random.Int64N(1 << 60))}
		for range random.IntN(5) {
			name := []string{"h", "ce_id", "ce_type", "content-type", "", string(octet())}[random.IntN(6)]
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: octet()})
		}
		w.put(t, r)
	}
	lines := w.want(t, codeDone, "tail", "from", "--offset", ":end", "-o", "jsonl")
	if r := w.run(t, lines.out, "produce", "piped"); r.code != codeDone {
		t.Fatalf("exits %d: %s", r.code, r.err)
	}
	w.want(t, codeDone, "find", "from", "--save", "set.jsonl", "-o", "raw")
	w.want(t, codeDone, "produce", "saved", "--from", "set.jsonl")
	want := w.all(t, "from")
	if len(want) != n {
		t.Fatalf("wrote %d records", len(want))
	}
	for _, topic := range []string{"piped", "saved"} {
		got := w.all(t, topic)
		if len(got) != n {
			t.Fatalf("%s has %d records, want %d", topic, len(got), n)
		}
		for i := range want {
			if fmt.Sprintf("%#v %#v %#v", got[i].Key, got[i].Value, got[i].Headers) != fmt.Sprintf("%#v %#v %#v", want[i].Key, want[i].Value, want[i].Headers) {
				t.Fatalf("%s@%d: got key %q, value %q, headers %q\nwant key %q, value %q, headers %q", topic, i,
					got[i].Key, got[i].Value, got[i].Headers, want[i].Key, want[i].Value, want[i].Headers)
			}
		}
	}
}

// all is every event of a topic.
func (w *world) all(t *testing.T, topic string) []event.Event {
	t.Helper()
	r, err := reader.Open(t.Context(), w.cluster, reader.Config{Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	var events []event.Event
	for e, err := range r.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}
