package replay_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/replay"
)

// caught is a guard and what it has captured.
func caught(t *testing.T) (*replay.Guard, func() []replay.Effect) {
	t.Helper()
	var file bytes.Buffer
	g := &replay.Guard{ID: "r1", Capture: replay.NewWriter(&file).Write}
	return g, func() []replay.Effect {
		var out []replay.Effect
		for e, err := range replay.Effects(bytes.NewReader(file.Bytes())) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, e)
		}
		return out
	}
}

var cause = event.Event{Meta: event.Meta{ID: "c1", Type: "shop.OrderPlaced", Topic: "shop.orders", Partition: 2, Offset: 7}}

func TestAnAttemptIsCapturedWhenItWasTheLast(t *testing.T) {
	t.Parallel()
	g, all := caught(t)
	then := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ctx, first := g.Begin(t.Context(), "shipping", &cause, then)
	g.Note(ctx, replay.Effect{Kind: replay.KindPublish, Target: "a"})
	ctx, last := g.Begin(t.Context(), "shipping", &cause, then)
	for _, target := range []string{"a", "b", "a"} {
		g.Note(ctx, replay.Effect{Kind: replay.KindPublish, Target: target, Body: replay.Value([]byte(`{"n":1}`))})
	}
	if r, ok := event.InReplay(ctx); !ok || !r.Shadow || r.ID != "r1" || r.Origin.ID != "c1" || !event.Now(ctx).Equal(then) {
		t.Errorf("the context carries %+v and the time %v", r, event.Now(ctx))
	}
	if err := last.End(); err != nil {
		t.Fatal(err)
	}
	_ = first // was followed by another one: not ended
	got := all()
	if len(got) != 3 || got[0].Ordinal != 0 || got[1].Ordinal != 0 || got[2].Ordinal != 1 {
		t.Fatalf("captured %+v", got)
	}
	want := replay.Cause{ID: "c1", Type: "shop.OrderPlaced", Topic: "shop.orders", Partition: 2, Offset: 7}
	if e := got[2]; e.Cause != want || e.By != "shipping" || e.Replay != "r1" || string(e.Body) != `{"n":1}` {
		t.Errorf("captured %+v", e)
	}
	if n := g.Totals()[replay.Total{Kind: replay.KindPublish, Target: "a"}]; n != 2 {
		t.Errorf("counted %d", n)
	}
}

// A goroutine that a handler leaves behind has a context that still says which event it was.
func TestWhatComesBehindTheEndIsCapturedToo(t *testing.T) {
	t.Parallel()
	g, all := caught(t)
	ctx, a := g.Begin(t.Context(), "shipping", &cause, time.Now())
	g.Note(ctx, replay.Effect{Kind: replay.KindPublish, Target: "a"})
	if err := a.End(); err != nil {
		t.Fatal(err)
	}
	g.Note(ctx, replay.Effect{Kind: replay.KindPublish, Target: "a"})
	if got := all(); len(got) != 2 || got[1].Cause.ID != "c1" || got[1].By != "shipping" || got[1].Ordinal != 1 {
		t.Fatalf("captured %+v", got)
	}
	if n := g.Totals()[replay.Total{Kind: replay.KindPublish, Target: "a"}]; n != 2 {
		t.Errorf("counted %d", n)
	}
}

func TestRequestsAreCapturedAndRefused(t *testing.T) {
	t.Parallel()
	var hits []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		hits = append(hits, r.URL.Path+" "+string(body))
	}))
	defer server.Close()
	g, all := caught(t)
	g.Allow = func(r *http.Request) bool { return r.URL.Path == "/safe" }
	client := &http.Client{Transport: g.Transport(http.DefaultTransport)}
	ctx, a := g.Begin(t.Context(), "shipping", &cause, time.Now())
	post := func(path, body string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer hidden")
		req.Header.Set("Idempotency-Key", "k1")
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	err := post("/pay", `{"cents":1}`)
	refused, ok := errors.AsType[*replay.RefusedError](err)
	if !ok || !errors.Is(err, replay.ErrRefused) || refused.Method != http.MethodPost || !strings.Contains(err.Error(), "ReplayAllow") {
		t.Errorf("got %v", err)
	}
	if err := post("/safe", "text"); err != nil {
		t.Error(err)
	}
	if len(hits) != 1 || hits[0] != "/safe text" {
		t.Errorf("the server saw %q", hits)
	}
	if err := a.End(); err != nil {
		t.Fatal(err)
	}
	got := all()
	if len(got) != 2 || !got[0].Refused || got[1].Refused || got[0].Target != "POST "+server.URL+"/pay" || string(got[1].Body) != `"text"` {
		t.Fatalf("captured %+v", got)
	}
	if h := got[0].Headers; h["Idempotency-Key"] != "k1" || h["Authorization"] != "" {
		t.Errorf("captured the headers %v", h)
	}
}

func TestWhatIsCausedOutsideOfAHandlerHasNoCause(t *testing.T) {
	t.Parallel()
	g, all := caught(t)
	g.Note(t.Context(), replay.Effect{Kind: replay.KindPublish, Target: "a"})
	if got := all(); len(got) != 1 || got[0].Cause != (replay.Cause{}) {
		t.Errorf("captured %+v", got)
	}
}

func TestACaptureThatFailsEndsTheReplay(t *testing.T) {
	t.Parallel()
	full := errors.New("the disk is full")
	g := &replay.Guard{Capture: func([]replay.Effect) error { return full }}
	for range 2 { // and every later event too
		ctx, a := g.Begin(t.Context(), "shipping", &cause, time.Now())
		g.Note(ctx, replay.Effect{Kind: replay.KindPublish})
		if err := a.End(); !errors.Is(err, full) {
			t.Errorf("got %v", err)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		in        []byte
		json, key string
	}{
		{"nothing", nil, "null", "null"},
		{"JSON", []byte(`{"a":1}`), `{"a":1}`, `"{\"a\":1}"`},
		{"text", []byte("o-17"), `"o-17"`, `"o-17"`},
		{"a number as a key", []byte("17"), "17", `"17"`},
		{"bytes", []byte{0xff, 0}, `{"base64":"/wA="}`, `{"base64":"/wA="}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(replay.Value(tt.in)); got != tt.json {
				t.Errorf("value %s, want %s", got, tt.json)
			}
			if got := string(replay.Text(tt.in)); got != tt.key {
				t.Errorf("text %s, want %s", got, tt.key)
			}
		})
	}
}

func TestACaptureThatWasCutOffIsReadToItsLastWholeLine(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	if err := replay.NewWriter(&file).Write([]replay.Effect{{Kind: replay.KindDLQ}, {Kind: replay.KindRow}}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range replay.Effects(bytes.NewReader(file.Bytes()[:file.Len()-3])) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func FuzzEffects(f *testing.F) {
	f.Add([]byte("{\"millrace\":1,\"kind\":\"publish\"}\n"))
	f.Add([]byte("{\"millrace\":2}\n"))
	f.Add([]byte("\n"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var read []replay.Effect
		for e, err := range replay.Effects(bytes.NewReader(text)) {
			if err != nil {
				return
			}
			read = append(read, e)
		}
		var again bytes.Buffer
		if err := replay.NewWriter(&again).Write(read); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		n := 0
		for _, err := range replay.Effects(&again) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != len(read) {
			t.Errorf("%d effects were read, and %d again", len(read), n)
		}
	})
}
