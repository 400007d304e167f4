package replay_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/replay"
)

func TestIntoAURL(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []*http.Request
	var bodies []string
	status := func(*http.Request) int { return http.StatusNoContent }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got, bodies = append(got, r), append(bodies, string(body))
		w.WriteHeader(status(r))
	}))
	defer server.Close()
	e := event.Event{Meta: event.Meta{
		ID: "e1", Type: "shop.OrderPlaced", Source: "größer \"1\"", ContentType: "application/avro", Time: origin, Topic: "orders", Partition: 2, Offset: 7,
		Key: []byte("o-17"), Published: origin,
		Headers: event.Headers{{Key: "ce_id", Value: []byte("e1")}, {Key: "x-lang", Value: []byte("en")}, {Key: "bad name", Value: []byte("1")}, {Key: "raw", Value: []byte{0xff}}},
	}, Value: []byte{0, 0, 0, 0, 1, 0xff}}
	gone := event.Event{Meta: event.Meta{ID: "e2", Topic: "orders", Partition: 2, Offset: 8, Time: origin, Published: origin}}
	target, err := replay.URL(nil, server.URL+"/in?a=1")
	if err != nil {
		t.Fatal(err)
	}
	target.Header = http.Header{"Authorization": {"Bearer x"}}
	s, err := replay.Run(t.Context(), kafka.Cluster{}, target, replay.Config{ID: "r", Set: set([]event.Event{e, gone}), Untracked: true})
	if err != nil || s.Delivered != 2 {
		t.Fatalf("%v, %+v", err, s)
	}
	r := got[0]
	for name, want := range map[string]string{
		"Ce-Id": "e1", "Ce-Type": "shop.OrderPlaced", "Ce-Source": "gr%C3%B6%C3%9Fer%20%221%22", "Ce-Specversion": "1.0", "Ce-Time": "2026-11-22T09:00:00Z",
		"Ce-Partitionkey": "o-17", "Content-Type": "application/avro", "Millrace-Header-X-Lang": "en", "Millrace-Origin": "orders/2@7",
		"Millrace-Replay": "r", "Authorization": "Bearer x", "Millrace-Header-Ce_id": "", "Millrace-Header-Raw": "", "Millrace-Tombstone": "",
	} {
		if r.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, r.Header.Get(name), want)
		}
	}
	if r.Method != http.MethodPost || r.URL.RequestURI() != "/in?a=1" || bodies[0] != string(e.Value) || bodies[1] != "" || got[1].Header.Get("Millrace-Tombstone") != "true" {
		t.Errorf("%s %s %q %v", r.Method, r.URL, bodies, got[1].Header)
	}

	// The body and headers may be made by others.
	target.Request = func(ctx context.Context, url string, e *event.Event) (*http.Request, error) {
		if e.Value == nil {
			return nil, errors.New("nothing to send")
		}
		return http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader("whole"))
	}
	s, err = replay.Run(t.Context(), kafka.Cluster{}, target, replay.Config{Set: set([]event.Event{e, gone}), Untracked: true, SkipFailed: true})
	if err != nil || s.Delivered != 1 || s.Failed != 1 || got[2].Method != http.MethodPut || bodies[2] != "whole" {
		t.Errorf("%v, %+v, %q", err, s.Counts, bodies)
	}
	for _, bad := range []string{"ftp://x", "http:", "://", "localhost:80"} {
		if _, err := replay.URL(nil, bad); err == nil {
			t.Errorf("%q is no URL of ours", bad)
		}
	}
}

func TestTheStatusIsTheVerdict(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		after  string
		want   consumer.Kind
		wait   time.Duration
	}{
		{200, "", consumer.Done, 0},
		{299, "", consumer.Done, 0},
		{302, "", consumer.DeadLettered, 0},
		{400, "", consumer.DeadLettered, 0},
		{404, "", consumer.DeadLettered, 0},
		{408, "", consumer.Retried, 0},
		{429, "7", consumer.Retried, 7 * time.Second},
		{429, "-7", consumer.Retried, 0},
		{503, "99999999", consumer.Retried, 10 * time.Minute},
		{503, "soon", consumer.Retried, 0},
		{500, "", consumer.Retried, 0},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
			w.Header().Set("Retry-After", tt.after)
			w.WriteHeader(tt.status)
		}))
		target, err := replay.URL(server.Client(), server.URL)
		if err != nil {
			t.Fatal(err)
		}
		v := consumer.VerdictOf(target.Deliver(t.Context(), event.Event{Value: []byte("v")}))
		if v.Kind != tt.want || v.After != tt.wait {
			t.Errorf("%d: %v after %v, want %v after %v", tt.status, v.Kind, v.After, tt.want, tt.wait)
		}
		server.Close()
		if v := consumer.VerdictOf(target.Deliver(t.Context(), event.Event{})); v.Kind != consumer.Retried {
			t.Errorf("nobody listens: %v", v.Kind)
		}
	}
}

func TestIntoACommand(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	e := event.Event{Meta: event.Meta{ID: "e1", Topic: "orders", Partition: 2, Offset: 7, Key: []byte("o-17"), Published: origin, Time: origin}, Value: []byte("body")}
	target := replay.Command(&out, []string{"GREETING=hello"}, "sh", "-c", `echo "$GREETING $EVENT_ID $EVENT_TOPIC/$EVENT_PARTITION@$EVENT_OFFSET $EVENT_KEY $EVENT_REPLAY $(cat)"`)
	s, err := replay.Run(t.Context(), kafka.Cluster{}, target, replay.Config{ID: "r", Set: set([]event.Event{e}), Untracked: true})
	if err != nil || s.Delivered != 1 || out.String() != "hello e1 orders/2@7 o-17 r body\n" {
		t.Errorf("%v, %+v, %q", err, s.Counts, out.String())
	}
	for script, want := range map[string]consumer.Kind{
		"exit 0": consumer.Done, "exit 65": consumer.DeadLettered, "exit 75": consumer.Retried, "exit 1": consumer.Retried, "kill -9 $$": consumer.Retried,
	} {
		err := replay.Command(nil, nil, "sh", "-c", "echo why >&2; "+script).Deliver(t.Context(), e)
		if v := consumer.VerdictOf(err); v.Kind != want || err != nil && !strings.Contains(err.Error(), "why") {
			t.Errorf("%s: %v, %v", script, v.Kind, err)
		}
	}
	large := e
	large.Value = bytes.Repeat([]byte("x"), 1<<20)
	if err := replay.Command(nil, nil, "true").Deliver(t.Context(), large); err != nil {
		t.Errorf("a command need not read what it is given: %v", err)
	}
	long := e
	long.Key = bytes.Repeat([]byte("k"), 1<<20)
	if v := consumer.VerdictOf(replay.Command(nil, nil, "true").Deliver(t.Context(), long)); v.Kind != consumer.DeadLettered {
		t.Errorf("a key that no variable can hold: %+v", v)
	}
	if v := consumer.VerdictOf(replay.Command(nil, nil, "no-such-command-here").Deliver(t.Context(), e)); v.Kind != consumer.Stopped {
		t.Errorf("no such command: %v", v.Kind)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := replay.Command(nil, nil, "sleep", "60").Deliver(ctx, e); err == nil {
		t.Error("a command that does not end is ended")
	}
}
