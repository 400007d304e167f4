package gateway_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

const body = `{"customer" : "c-7", "n":1.0}` // a parser would write it otherwise

func TestAcceptedIsInTheLogAsItCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme + "type: {header: X-Kind}\n"})
		l.load()
		r := signed(t, "msg_1", body)
		r.Header.Set("X-Kind", "paid")
		r.Header.Set("Authorization", "Bearer secret")
		r.URL.RawQuery = "a=b%20c"
		l.want(r, http.StatusOK)
		events := l.log.in("webhooks.acme")
		if len(events) != 1 {
			t.Fatalf("%d events", len(events))
		}
		e := events[0]
		if string(e.Key) != "c-7" || e.Type != gateway.ReceivedName || e.Source != "webhook/acme" || e.ContentType != "application/avro" {
			t.Errorf("got %+v", e.Meta)
		}
		got := l.received(e)
		want := map[string]any{
			"source": "acme", "scheme": "standard", "key": int32(0), "id": "msg_1", "type": "paid", "method": "POST", "path": "/in/acme",
			"query": "a=b%20c", "body": []byte(body), "received_at": e.Time,
		}
		headers, _ := got["headers"].([]any)
		delete(got, "headers")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
		var names strings.Builder
		for _, h := range headers {
			pair, _ := h.(map[string]any)
			name, _ := pair["name"].(string)
			names.WriteString(name + " ")
		}
		if names.String() != "Content-Type Webhook-Id Webhook-Signature Webhook-Timestamp X-Kind " {
			t.Errorf("kept are %s", names.String())
		}
	})
}

// The order of the rules: nothing of a later one is done, or told, before an earlier one has passed.
func TestRefusals(t *testing.T) {
	t.Parallel()
	post := func(path, body string) *http.Request {
		return httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	}
	tests := []struct {
		name   string
		r      func() *http.Request
		status int
		reason string
	}{
		{"no such source", func() *http.Request { return post("/in/other", body) }, 404, "unknown"},
		{"no such path", func() *http.Request { return post("/acme", body) }, 404, "unknown"},
		{"another spelling", func() *http.Request { return post("/in/%61cme", body) }, 404, "unknown"},
		{"below the source", func() *http.Request { return post("/in/acme/", body) }, 404, "unknown"},
		{"a method", func() *http.Request {
			r := signed(t, "m", body)
			r.Method = http.MethodDelete
			return r
		}, 405, "method"},
		{"a look", func() *http.Request {
			return httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/in/acme", nil)
		}, 405, "method"},
		{"no signature", func() *http.Request { return post("/in/acme", body) }, 401, "missing"},
		{"a forged body", func() *http.Request {
			r := signed(t, "m", body)
			r.Body = signed(t, "m", body+" ").Body
			return r
		}, 401, "mismatch"},
		{"a signature twice", func() *http.Request {
			r := signed(t, "m", body)
			r.Header.Add("Webhook-Signature", r.Header.Get("Webhook-Signature"))
			return r
		}, 401, "malformed"},
		{"an encoding", func() *http.Request {
			r := signed(t, "m", body)
			r.Header.Set("Content-Encoding", "br")
			return r
		}, 415, "encoding"},
		{"gzip where it is not allowed", func() *http.Request {
			r := signed(t, "m", body)
			r.Header.Set("Content-Encoding", "gzip")
			return r
		}, 415, "encoding"},
		{"two encodings", func() *http.Request {
			r := signed(t, "m", body)
			r.Header["Content-Encoding"] = []string{"identity", "identity"}
			return r
		}, 415, "encoding"},
		{"too large", func() *http.Request { return signed(t, "m", strings.Repeat("x", 2<<20)) }, 413, "large"},
		{"too large, in chunks", func() *http.Request {
			r := signed(t, "m", strings.Repeat("x", 2<<20))
			r.ContentLength = -1
			return r
		}, 413, "large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
			l.load()
			resp := l.want(tt.r(), tt.status)
			if l.log.attempts() > 0 {
				t.Error("it was published")
			}
			if l.seen.count("rejected/"+tt.reason) != 1 {
				t.Errorf("got %v, want the reason %s", l.seen.results, tt.reason)
			}
			if resp.Header().Get("X-Request-Id") == "" || resp.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("got %v", resp.Header())
			}
			if read, produce, flights := l.InMemory(); read != 0 || produce != 0 || flights != 0 {
				t.Errorf("something is left: %d, %d, %d", read, produce, flights)
			}
		})
	}
}

// answersEarly reports whether a sender hears a 2xx before the log has the event.
func answersEarly(t *testing.T, cfg gateway.Config) (early bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, cfg, map[string]string{"acme.yaml": acme})
		l.load()
		l.log.stall()
		answer := make(chan int, 1)
		go func() { answer <- l.ask(signed(t, "msg_1", body)).Code }()
		synctest.Wait()
		select {
		case status := <-answer:
			early = status == http.StatusOK
		default:
			l.log.release(nil)
			synctest.Wait()
			if status := <-answer; status != http.StatusOK {
				t.Errorf("got %d", status)
			}
		}
		l.log.release(nil)
	})
	return early
}

func TestNoAnswerBeforeTheAcknowledgement(t *testing.T) {
	t.Parallel()
	if answersEarly(t, gateway.Config{}) {
		t.Error("a 2xx came before the acknowledgement")
	}
	if !answersEarly(t, gateway.WithAnswerEarly(gateway.Config{})) {
		t.Error("the planted bug was not found")
	}
}

// losesRepeat reports whether a repeat hears a 2xx although the first was not acknowledged.
func losesRepeat(t *testing.T, cfg gateway.Config) (lost bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, cfg, map[string]string{"acme.yaml": acme})
		l.load()
		l.log.stall()
		first, second := make(chan int, 1), make(chan int, 1)
		go func() { first <- l.ask(signed(t, "msg_1", body)).Code }()
		synctest.Wait()
		go func() { second <- l.ask(signed(t, "msg_1", body)).Code }()
		synctest.Wait()
		l.log.stall()
		l.log.refuse = nil
		l.log.release(errRefused)
		synctest.Wait()
		if status := <-first; status != http.StatusServiceUnavailable {
			t.Errorf("the first got %d", status)
		}
		lost = <-second == http.StatusOK && len(l.log.in("webhooks.acme")) == 0
		l.log.release(nil)
	})
	return lost
}

func TestRepeatWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	if losesRepeat(t, gateway.Config{}) {
		t.Error("a repeat heard a 2xx of an event that is not in the log")
	}
	if !losesRepeat(t, gateway.WithMarkEarly(gateway.Config{})) {
		t.Error("the planted bug was not found")
	}
}

// tellsStrangers reports whether somebody without the secret learns, or gets, anything of a known id.
func tellsStrangers(t *testing.T, cfg gateway.Config) bool {
	t.Helper()
	l := newLab(t, cfg, map[string]string{"acme.yaml": acme})
	l.load()
	l.want(signed(t, "msg_1", body), http.StatusOK)
	forged := signed(t, "msg_1", body)
	forged.Header.Set("Webhook-Signature", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	return l.ask(forged).Code != http.StatusUnauthorized
}

func TestVerifiedBeforeItIsLookedUp(t *testing.T) {
	t.Parallel()
	if tellsStrangers(t, gateway.Config{}) {
		t.Error("a forged repeat was not refused")
	}
	if !tellsStrangers(t, gateway.WithDedupeEarly(gateway.Config{})) {
		t.Error("the planted bug was not found")
	}
}

func TestVerifiedAsItCame(t *testing.T) {
	t.Parallel()
	for name, plant := range map[bool]func(gateway.Config) gateway.Config{true: func(c gateway.Config) gateway.Config { return c }, false: gateway.WithVerifyParsed} {
		l := newLab(t, plant(gateway.Config{}), map[string]string{"acme.yaml": acme})
		l.load()
		if ok := l.ask(signed(t, "msg_1", body)).Code == http.StatusOK; ok != name {
			t.Errorf("as it came: %v, accepted: %v", name, ok)
		}
	}
}

func TestRepeatsArePublishedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme + "limits: {requests: 2000}\n"})
		l.load()
		l.log.stall()
		const n = 1000
		var all sync.WaitGroup
		for range n {
			all.Go(func() { l.want(signed(t, "msg_1", body), http.StatusOK) })
		}
		synctest.Wait()
		l.log.release(nil)
		all.Wait()
		l.want(signed(t, "msg_1", body), http.StatusOK)
		l.want(signed(t, "msg_2", body), http.StatusOK) // equal bodies of two ids are two events
		if got := len(l.log.in("webhooks.acme")); got != 2 {
			t.Errorf("%d events, want 2", got)
		}
		if l.seen.count("accepted") != 2 || l.seen.count("duplicate") != n {
			t.Errorf("got %v", l.seen.results)
		}
		time.Sleep(73 * time.Hour) //nolint:forbidigo // the bubble's clock: the window is over
		l.want(signed(t, "msg_1", body), http.StatusOK)
		events := l.log.in("webhooks.acme")
		if len(events) != 3 || events[0].ID != events[2].ID || events[0].ID == events[1].ID {
			t.Errorf("copies of an event must share their id, and others must not")
		}
	})
}

func TestHeldThenToldToComeAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme, "quick.yaml": strings.Replace(acme, "scheme: standard", "scheme: {name: quick, signature: {headers: [X-Sig], accept: [{algorithm: hmac-sha256}], encoding: hex}, signed: \"{body}\", key: utf8, sender: {deadline: 5s}}", 1)})
		l.load()
		l.log.stall()
		began := time.Now()
		resp := l.want(signed(t, "msg_1", body), http.StatusServiceUnavailable)
		if took := time.Since(began); took != 8*time.Second {
			t.Errorf("held for %v, want 8s", took)
		}
		if resp.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		if !l.Ready() {
			t.Error("not ready while it sheds")
		}
		if refused := l.Status()[0].Refused; len(refused) != 1 || refused[0].ID != "msg_1" {
			t.Errorf("the id is not listed: %v", refused)
		}
		// The repeat finds the first under way; the acknowledgement that comes at last is for both.
		second := make(chan int, 1)
		go func() { second <- l.ask(signed(t, "msg_1", body)).Code }()
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		l.log.release(nil)
		if status := <-second; status != http.StatusOK || l.log.attempts() != 1 {
			t.Errorf("the repeat got %d after %d attempts", status, l.log.attempts())
		}
		if refused := l.Status()[0].Refused; len(refused) != 0 {
			t.Errorf("an id that is in the log is still listed: %v", refused)
		}
		if read, produce, flights := l.InMemory(); read != 0 || produce != 0 || flights != 0 {
			t.Errorf("something is left: %d, %d, %d", read, produce, flights)
		}
	})
}

func TestReadinessIsForWhatDoesNotGetThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
		if l.Ready() {
			t.Error("ready without sources")
		}
		l.load()
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock: nobody calls: that is no fault
		l.log.stall()
		l.want(signed(t, "msg_1", body), http.StatusServiceUnavailable)
		time.Sleep(gateway.Deaf) //nolint:forbidigo // the bubble's clock
		if !l.Ready() {
			t.Error("not ready too early")
		}
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		if l.Ready() {
			t.Error("ready although nothing got through for 30 s")
		}
		l.log.release(nil)
		synctest.Wait()
		if !l.Ready() {
			t.Error("not ready although an event got through")
		}
	})
}

func TestOneFloodLeavesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const room = 4 << 20
		l := newLab(t, gateway.Config{ReadBytes: room, ProduceBytes: room}, map[string]string{
			"acme.yaml": acme + "limits: {body: 64KiB, requests: 4000}\n", "calm.yaml": "verify: none\ntopic: webhooks.calm\nlimits: {body: 64KiB}\n",
		})
		l.load()
		l.log.stall()
		var all sync.WaitGroup
		for i := range 3000 {
			all.Go(func() { l.ask(signed(t, strings.Repeat("i", 1+i%200)+string(rune('a'+i/200)), body)) })
		}
		synctest.Wait()
		if _, produce, _ := l.InMemory(); produce > room/4 {
			t.Errorf("one source holds %d of %d", produce, room)
		}
		calm := make(chan int, 1)
		go func() {
			calm <- l.ask(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/calm", strings.NewReader("x"))).Code
		}()
		synctest.Wait()
		l.log.release(nil) // of what was held: the flood goes on
		if status := <-calm; status != http.StatusOK {
			t.Errorf("another source got %d", status)
		}
		all.Wait()
	})
}

// A body in chunks takes room for the largest while it is read, and for what it is while it is held.
func TestChunksAreHeldByTheirSize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
		l.load()
		l.log.stall()
		r := signed(t, "msg_1", body)
		r.ContentLength = -1
		done := make(chan int, 1)
		go func() { done <- l.ask(r).Code }()
		synctest.Wait()
		if read, _, _ := l.InMemory(); read != int64(len(body)) {
			t.Errorf("%d bytes are held for a body of %d", read, len(body))
		}
		l.log.release(nil)
		if status := <-done; status != http.StatusOK {
			t.Errorf("got %d", status)
		}
	})
}

func TestPanicIsAnAnswer(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
	l.load()
	r := signed(t, "msg_1", body)
	r.Body = explosive{}
	l.want(r, http.StatusInternalServerError)
	if read, _, _ := l.InMemory(); read != 0 {
		t.Errorf("%d bytes are still held", read)
	}
	l.want(signed(t, "msg_1", body), http.StatusOK)
}

type explosive struct{}

func (explosive) Read([]byte) (int, error) { panic("boom") }
func (explosive) Close() error             { return nil }

func TestSenderThatLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
		l.load()
		l.log.stall()
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan struct{})
		r := signed(t, "msg_1", body).WithContext(ctx)
		go func() { defer close(done); l.ask(r) }()
		synctest.Wait()
		leave()
		<-done
		l.log.release(nil)
		synctest.Wait()
		l.want(signed(t, "msg_1", body), http.StatusOK)
		if l.log.attempts() != 1 || l.seen.count("duplicate") != 1 {
			t.Errorf("%d attempts, %v", l.log.attempts(), l.seen.results)
		}
	})
}
