package shop_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/signature"
)

// receiver verifies as the gateway does, and counts.
type receiver struct {
	mu       sync.Mutex
	verified map[string]int // by id
	reasons  map[signature.Reason]int
	shed     int // so many are told to come again first
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shed > 0 {
		r.shed--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	stripe, _ := signature.Lookup("stripe")
	key, _ := stripe.ParseKey("whsec_x")
	_, err = stripe.Verify(&signature.Request{Method: req.Method, URL: "http://x", Header: req.Header, Body: body}, []signature.Key{key}, time.Now())
	if e, ok := err.(*signature.Error); ok { //nolint:errorlint // Verify wraps nothing
		r.reasons[e.Reason]++
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var doc struct{ ID string }
	if json.Unmarshal(body, &doc) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.verified[doc.ID]++
}

func TestTheProviderCallsAsProvidersDo(t *testing.T) {
	t.Parallel()
	r := &receiver{verified: map[string]int{}, reasons: map[signature.Reason]int{}, shed: 2}
	server := httptest.NewServer(r)
	defer server.Close()
	c, err := shop.NewCaller(shop.ProviderConfig{URL: server.URL, Secret: "whsec_x"}, server.Client(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	var orders []event.Of[shop.OrderPlaced]
	sent, forged, stale, late, swapped := map[string]int{}, 0, 0, 0, 0
	for n := range int64(200) {
		o := order(n)
		orders = append(orders, event.Of[shop.OrderPlaced]{Data: o})
		for i, cb := range shop.CallbacksOf(o) {
			switch {
			case cb.Forged:
				forged++
			case cb.Stale:
				stale++
			default:
				sent[cb.ID]++
			}
			if cb.Late > 0 {
				late++
			}
			if i == 0 && cb.ID == "evt_pay_"+o.OrderID+"_captured" {
				swapped++
			}
		}
	}
	repeats := 0
	for _, n := range sent {
		repeats += n - 1
	}
	for what, n := range map[string]int{"forgeries": forged, "replays": stale, "late ones": late, "ones in the wrong order": swapped, "repeats": repeats} {
		if n == 0 {
			t.Errorf("200 orders have no %s", what)
		}
	}
	if err := c.OrdersPlaced(t.Context(), orders); err != nil {
		t.Fatal(err)
	}
	if len(r.verified) != 400 || r.reasons[signature.Mismatch] != forged || r.reasons[signature.Stale] != stale {
		t.Errorf("%d events, refused %v, want 400 and %d forged and %d stale", len(r.verified), r.reasons, forged, stale)
	}
	for id, n := range sent {
		if r.verified[id] != n {
			t.Errorf("%s came %d times, want %d", id, r.verified[id], n)
		}
	}
}

func TestTheProviderEndsWithItsContext(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler()) // it never takes anything
	defer server.Close()
	c, err := shop.NewCaller(shop.ProviderConfig{URL: server.URL, Secret: "whsec_x"}, server.Client(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.OrdersPlaced(ctx, []event.Of[shop.OrderPlaced]{{Data: order(0)}}); err == nil {
		t.Error("an order that was not called back is done")
	}
}

func TestTheProviderNeedsAnAddressee(t *testing.T) {
	t.Parallel()
	for _, cfg := range []shop.ProviderConfig{{}, {URL: "http://x"}, {Secret: "x"}} {
		if _, err := shop.NewCaller(cfg, http.DefaultClient, zap.NewNop()); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}
