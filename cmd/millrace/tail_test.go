package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

var epoch = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// put appends a record with everything said.
func (w *world) put(t *testing.T, r *kgo.Record) {
	t.Helper()
	if err := w.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// strange fills the topic t with what topics hold: text, JSON, null, empty, bytes, a control sequence.
func (w *world) strange(t *testing.T) {
	t.Helper()
	w.topic(t, "t")
	for i, r := range []*kgo.Record{
		{Key: []byte("a"), Value: []byte("plain text")},
		{Key: nil, Value: []byte(`{"n": 1}`)},
		{Key: []byte{}, Value: nil},
		{Key: []byte("b"), Value: []byte{}},
		{Key: []byte{0xff, 0}, Value: []byte{0xff, 0xfe}, Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{0x80}}, {Key: "h", Value: nil}, {Key: "h", Value: []byte("x")}}},
		{Key: []byte("\x1b[31mred"), Value: []byte("line\nbreak \u202etxt")},
	} {
		r.Topic, r.Timestamp = "t", epoch.Add(time.Duration(i)*time.Second)
		w.put(t, r)
	}
}

func TestTailForPeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.strange(t)
	r := w.want(t, codeDone, "tail", "t", "--offset", ":end")
	want := `2026-11-24 09:00:00.000  t/0@0  a  plain text
2026-11-24 09:00:01.000  t/0@1  -  {"n":1}
2026-11-24 09:00:02.000  t/0@2  ""  (tombstone)
2026-11-24 09:00:03.000  t/0@3  b  ""
2026-11-24 09:00:04.000  t/0@4  0xff00  0xfffe
2026-11-24 09:00:05.000  t/0@5  ␛[31mred  line␊break �txt
`
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	has(t, "stderr", r.err, "scanned 6 records in 6 of 6 offsets (100 %) of 1 partition, 6 matches\n")
	if r := w.want(t, codeDone, "tail", "t", "--offset", "0:1", "--tz", "Asia/Tokyo"); !strings.HasPrefix(r.out, "2026-11-24 18:00:00.000 ") {
		t.Errorf("in Tokyo: %s", r.out)
	}
	if r := w.want(t, codeDone, "tail", "t", "--offset", "0:2", "-o", "raw"); r.out != "plain text\n{\"n\": 1}\n" {
		t.Errorf("raw: %q", r.out)
	}
}

func TestTailAvro(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.write(t, "orders.jsonl", `{"order_id":"o1","cents":1999}`+"\n")
	w.want(t, codeDone, "produce", "shop.orders", "--from", "orders.jsonl", "--key-field", "order_id")
	r := w.want(t, codeDone, "tail", "shop.orders", "-n", "1")
	has(t, "stdout", r.out, `o1  shop.OrderPlaced  {"order_id":"o1","cents":1999}`)
	r = w.want(t, codeDone, "tail", "shop.orders", "-n", "1", "-o", "jsonl")
	var env envelope
	if err := json.Unmarshal([]byte(r.out), &env); err != nil || env.Millrace != 1 || env.Type != "shop.OrderPlaced" || string(env.Data) != `{"order_id":"o1","cents":1999}` || string(*env.Key) != "o1" {
		t.Errorf("%v\n%s", err, r.out)
	}
	if !strings.HasPrefix(r.out, envelopeStart) {
		t.Errorf("produce tells envelopes by their first member: %s", r.out)
	}
	w.topic(t, "poison")
	w.records(t, "poison", "\x00\x00\x00\x03\xe7zzz", "\x00\x00")
	r = w.want(t, codeDone, "tail", "poison", "--offset", ":end")
	has(t, "stdout", r.out, "0x00000003e77a7a7a", "does not decode", "999")
	has(t, "stderr", r.err, "2 events did not decode, the first at poison/0@0")
}

func TestTailWithoutARegistryShowsBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	w.records(t, "t", "\x00\x00\x00\x00\x01\x02", "text")
	dead := httptest.NewServer(nil)
	dead.Close()
	w.env["MILLRACE_REGISTRY"] = dead.URL // one that was named and does not answer is an error
	r := w.want(t, codeFailed, "tail", "t", "--offset", ":end")
	has(t, "stderr", r.err, "registry unavailable", "--registry")
	w.want(t, codeDone, "tail", "t", "--offset", "1:2") // nothing here needs it

	// the default registry, which nobody named, is left alone from then on
	reg, err := schemas.New(schemas.Config{URLs: []string{dead.URL}})
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	d := decoder{reg: reg, optional: true, say: func(string, ...any) { said++ }}
	for range 2 {
		got, err := d.decode(t.Context(), &event.Event{Value: []byte("\x00\x00\x00\x00\x01\x02")})
		if err != nil || got.json != nil || got.err != nil {
			t.Errorf("got %+v, %v, want bytes and no error", got, err)
		}
	}
	if said != 1 {
		t.Errorf("said %d times that there is no registry, want once", said)
	}
}

func TestTailJSONIsOneDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.strange(t)
	for spec, n := range map[string]int{":end": 6, "0:1": 1, "100:200": 0} {
		r := w.want(t, codeDone, "tail", "t", "--offset", spec, "-o", "json")
		var all []envelope
		if err := json.Unmarshal([]byte(r.out), &all); err != nil || len(all) != n {
			t.Errorf("%s: %v, %d events, want %d\n%s", spec, err, len(all), n, r.out)
		}
	}
}

func TestTailFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.strange(t)
	for args, want := range map[string]string{
		"--key a":                     "0",
		"--key a --key b":             "0 3",
		"--header h=x":                "4", // any header of the name will do
		"--header h~^[x-z]$":          "4",
		"--header h=x --header h=y":   "",
		"--header h=x --key a":        "",
		"-n 2":                        "0 1",
		"-n 1 --key b":                "3",
		"--until end-4":               "0 1",
		"--until 2026-11-24T09:00:02": "0 1",
		"--partition 0 --until end":   "0 1 2 3 4 5",
	} {
		full := append([]string{"tail", "t", "--from", "start", "-o", "jsonl"}, strings.Fields(args)...)
		if !strings.Contains(args, "--until") && !strings.Contains(args, "-n") {
			full = append(full, "--until", "end")
		}
		r := w.want(t, codeDone, full...)
		var got []string
		for line := range strings.Lines(r.out) {
			var env envelope
			if err := json.Unmarshal([]byte(line), &env); err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(env.Offset))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got offsets %v, want %s", args, got, want)
		}
	}
}

func TestTailSaysWhyADeadLetterIsOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t.shipping.dlq")
	w.put(t, &kgo.Record{Topic: "t.shipping.dlq", Value: []byte("x"), Headers: []kgo.RecordHeader{
		{Key: event.HeaderGroup, Value: []byte("shipping")}, {Key: event.HeaderErrorClass, Value: []byte("handler")}, {Key: event.HeaderError, Value: []byte("no such\naddress")},
	}})
	r := w.want(t, codeDone, "tail", "t.shipping.dlq", "-n", "1")
	has(t, "stdout", r.out, "x  (dead letter of shipping: handler: no such␊address)")
}

// Markers and gaps occupy offsets: the last five offsets may hold no event at all.
func TestTailLastLooksFurtherBackOverGaps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	w.records(t, "t", "one", "two", "three")
	client, err := w.cluster.Client(kgo.TransactionalID("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 20 {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("aborted")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
	}
	r := w.want(t, codeDone, "tail", "t", "-n", "2", "-o", "raw")
	if r.out != "two\nthree\n" {
		t.Errorf("got %q", r.out)
	}
}

func TestTailMergesTopicsByTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "a")
	w.topic(t, "b")
	for i, topic := range []string{"a", "b", "b", "a"} {
		w.put(t, &kgo.Record{Topic: topic, Timestamp: epoch.Add(time.Duration(i) * time.Second), Value: fmt.Append(nil, i)})
	}
	if r := w.want(t, codeDone, "tail", "b", "a", "-n", "3", "-o", "raw"); r.out != "1\n2\n3\n" {
		t.Errorf("got %q", r.out)
	}
}

func TestTimesAreSaidInUTCAndHere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.strange(t)
	r := w.want(t, codeDone, "tail", "t", "--from", "2026-11-24T09:00:01", "--until", "2026-11-24T09:00:03", "-o", "jsonl")
	has(t, "stderr", r.err, "from 2026-11-24 09:00:01Z", "until 2026-11-24 09:00:03Z", "2 matches")
	r = w.want(t, codeDone, "tail", "t", "--from", "2026-11-24T18:00:01", "--until", "end", "--tz", "Asia/Tokyo")
	has(t, "stderr", r.err, "from 2026-11-24 09:00:01Z (18:00:01 +0900)")
}

func TestTailThatFollowsEndsAfterN(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	w.records(t, "t", "one")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out := newBuffer()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, w.app(strings.NewReader(""), out, newBuffer()), []string{"tail", "t", "--from", "start", "-n", "2"})
	}()
	out.await(t, "one")
	w.records(t, "t", "two")
	if got := <-code; got != codeDone {
		t.Errorf("-n 2 ends a tail that follows: exits %d", got)
	}
}
