package main

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func (w *world) envelopes(t *testing.T, topic string) []envelope {
	t.Helper()
	r := w.want(t, codeDone, "tail", topic, "--offset", ":end", "-o", "jsonl")
	var all []envelope
	for line := range strings.Lines(r.out) {
		var env envelope
		if err := json.Unmarshal([]byte(line), &env); err != nil {
			t.Fatal(err)
		}
		all = append(all, env)
	}
	return all
}

func TestProduceKeysAndHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	for _, tt := range []struct{ args, in, key, says string }{
		{"", `{"a":1}`, "null", ""},
		{"--key k", `{"a":1}`, `"k"`, ""},
		{"--key-field a", `{"a":"x"}`, `"x"`, ""},
		{"--key-field a", `{"a":12.50}`, `"12.50"`, ""}, // as it is written
		{"--key-field a", `{"a":true}`, `"true"`, ""},
		{"--key-field a.b", `{"a":{"b":"deep"}}`, `"deep"`, ""},
		{"--key-field a", `{"b":1}`, "", "line 1: --key-field a: the line has no field a"},
		{"--key-field a", `{"a":null}`, "", "null is no key"},
		{"--key-field a", `{"a":[1]}`, "", "is no key"},
		{"--key-field a.b", `{"a":1}`, "", "its place holds no object"},
		{"", `{"a":`, "", "line 1: no JSON"},
		{"--format raw", `anything {`, "null", ""},
	} {
		before := len(w.envelopes(t, "t"))
		r := w.run(t, tt.in+"\n", append([]string{"produce", "t", "--format", "json", "--header", "lang=en"}, strings.Fields(tt.args)...)...)
		if tt.says != "" {
			if r.code != codeFailed {
				t.Errorf("%s %s: exits %d, want %d", tt.args, tt.in, r.code, codeFailed)
			}
			has(t, "stderr", r.err, tt.says, "→")
			continue
		}
		all := w.envelopes(t, "t")
		if r.code != codeDone || len(all) != before+1 {
			t.Errorf("%s %s: exits %d: %s", tt.args, tt.in, r.code, r.err)
			continue
		}
		e := all[before]
		if key, _ := json.Marshal(e.Key); string(key) != tt.key {
			t.Errorf("%s %s: key %s, want %s", tt.args, tt.in, key, tt.key)
		}
		found := false
		for _, h := range e.Headers {
			found = found || string(h.Key) == "lang" && string(*h.Value) == "en"
		}
		if !found || string(*e.Value) != tt.in {
			t.Errorf("%s %s: got %+v", tt.args, tt.in, e)
		}
	}
}

// What tail -o jsonl writes, produce publishes again: exact bytes, null and empty, repeated headers.
func TestSavedEventsGoBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.strange(t)
	w.topic(t, "copy")
	saved := w.want(t, codeDone, "tail", "t", "--offset", ":end", "-o", "jsonl")
	if r := w.run(t, saved.out, "publish", "copy"); r.code != codeDone {
		t.Fatalf("exits %d: %s", r.code, r.err)
	}
	from, to := w.envelopes(t, "t"), w.envelopes(t, "copy")
	if len(to) != len(from) {
		t.Fatalf("got %d events, want %d", len(to), len(from))
	}
	// those without a key may be in any order of batches, but there is one partition
	for i := range from {
		a, _ := json.Marshal([]any{from[i].Key, from[i].Value})
		b, _ := json.Marshal([]any{to[i].Key, to[i].Value})
		if string(a) != string(b) {
			t.Errorf("event %d: got %s, want %s", i, b, a)
		}
		a, _ = json.Marshal(from[i].Headers)
		b, _ = json.Marshal(to[i].Headers)
		if string(a) != string(b) {
			t.Errorf("headers of event %d: got %s, want %s", i, b, a)
		}
	}
}

func TestProduceReportsManyErrorsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	in := strings.Repeat(`{"order_id":"o1","cents":"many"}`+"\n\n", 25) + `{"order_id":"o1","cents":1}`
	r := w.run(t, in, "produce", "shop.orders")
	if r.code != codePartial || strings.Count(r.err, "line ") != errorsMost {
		t.Errorf("exits %d\n%s", r.code, r.err)
	}
	has(t, "stderr", r.err, "line 1: ", "line 19: ", "and 15 errors more", "published 1 event to shop.orders", ", 25 failed", "millrace schemas get")
}

func TestProduceReadsNewerFormatsNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	r := w.run(t, `{"millrace":2,"key":"x"}`+"\n"+`{"millrace":1,"value":{"encoding":"rot13","bytes":"x"}}`+"\n", "produce", "t")
	if r.code != codeFailed {
		t.Errorf("exits %d: %s", r.code, r.err)
	}
	has(t, "stderr", r.err, "format 2", "line 2: no event", "base64")
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Error(err)
	}
	return reflect.DeepEqual(x, y)
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"millrace":1,"key":"k","headers":[{"key":"h","value":null}],"value":{"encoding":"base64","bytes":"AAE="}}`))
	f.Add([]byte(`{"millrace":1,"key":null,"headers":[],"value":""}`))
	f.Add([]byte(`{"millrace":1,"value":{"encoding":"base64","bytes":"!"}}`))
	f.Add([]byte("{\"millrace\":1,\"key\":\"\\u0001\\\"\\\\\\n\u2028\",\"headers\":[{\"key\":{\"encoding\":\"base64\",\"bytes\":\"/w==\"},\"value\":\"\"}]}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		enc := &lineEncoder{topic: "t"}
		e, err := enc.fromEnvelope(line)
		if err != nil {
			return
		}
		env := envelopeOf(&e, decoded{})
		text, err := env.appendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		if marshalled, err := marshal(env); err != nil || !sameJSON(t, marshalled, text) {
			t.Errorf("got %s, want %s, %v", text, marshalled, err)
		}
		again, err := enc.fromEnvelope(text)
		if err != nil || string(again.Key) != string(e.Key) || (again.Key == nil) != (e.Key == nil) ||
			string(again.Value) != string(e.Value) || (again.Value == nil) != (e.Value == nil) {
			t.Errorf("%s came back as %s, %v", line, text, err)
		}
	})
}
