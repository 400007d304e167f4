package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudgetLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(400)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.acquire(ctx, "flood", 100); err != nil {
			t.Fatal(err)
		}
		if err := b.acquire(ctx, "flood", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("past its quarter: got %v, want a wait", err)
		}
		if err := b.acquire(t.Context(), "calm", 100); err != nil {
			t.Fatal("another source has to wait")
		}
		if err := b.acquire(t.Context(), "calm", 101); !errors.Is(err, errShare) {
			t.Fatalf("what can never be: got %v", err)
		}
		b.release("flood", 100)
		b.release("calm", 100)
		if err := b.acquire(t.Context(), "empty", 0); err != nil { // a body without a byte
			t.Fatal(err)
		}
		b.release("empty", 0)
		if b.used != 0 || len(b.sources) != 0 || len(b.queue) != 0 {
			t.Fatalf("something is left: %+v", b)
		}
	})
}

func TestBudgetServesSourcesInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(4) // one for each source at once
		for _, s := range []string{"a", "b", "c", "d"} {
			if err := b.acquire(t.Context(), s, 1); err != nil {
				t.Fatal(err)
			}
		}
		var order []string
		wait := func(source string) {
			go func() {
				if b.acquire(t.Context(), source, 1) == nil {
					order = append(order, source)
				}
			}()
			synctest.Wait()
		}
		for range 3 {
			wait("flood")
		}
		wait("calm")
		gone, cancel := context.WithCancel(t.Context())
		go func() { _ = b.acquire(gone, "calm", 1) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		b.release("a", 1)
		synctest.Wait()
		b.release("b", 1)
		synctest.Wait()
		if len(order) != 2 || order[0] != "flood" || order[1] != "calm" {
			t.Fatalf("got %v: the second source must not wait for all of the first", order)
		}
		for range 2 {
			b.release("flood", 1)
			synctest.Wait()
		}
		b.release("flood", 1)
		b.release("calm", 1)
		b.release("c", 1)
		b.release("d", 1)
		if b.used != 0 || len(b.sources) != 0 {
			t.Fatalf("something is left: %+v", b)
		}
	})
}
