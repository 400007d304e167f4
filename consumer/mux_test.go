package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

var errBoom = errors.New("boom")

func TestAnEventGoesToItsHandler(t *testing.T) {
	t.Parallel()
	var got string
	mux := consumer.NewMux()
	consumer.On(mux, func(_ context.Context, e event.Of[placed]) error {
		got = fmt.Sprint("placed ", e.Data.ID, " attempt ", e.Attempt)
		return nil
	})
	consumer.On(mux, func(_ context.Context, e event.Of[paid]) error { got = "paid " + e.Data.ID; return nil })
	consumer.OnTopic(mux, "plain", func(_ context.Context, e event.Of[placed]) error { got = "plain " + e.Data.ID; return nil })
	mux.OnType("shop.Shipped", func(_ context.Context, e event.Event) error { got = fmt.Sprint(e.Data); return nil })
	mux.OnTombstone("shop.orders", func(_ context.Context, e event.Event) error { got = "gone " + string(e.Key); return nil })
	mux.Otherwise(func(_ context.Context, e event.Event) error {
		got = fmt.Sprint("otherwise ", e.Type, " ", string(e.Value), " ", e.Data)
		return nil
	})
	tests := []struct {
		name string
		e    event.Event
		want string
	}{
		{"by type", raw("shop.orders", "shop.Placed", `{"id":"1"}`), "placed 1 attempt 1"},
		{"another type of the topic", raw("shop.orders", "shop.Paid", `{"id":"2"}`), "paid 2"},
		{"an alias in the namespace of the type", raw("shop.orders", "shop.Settled", `{"id":"3"}`), "paid 3"},
		{"an alias with a namespace", raw("shop.orders", "old.Paid", `{"id":"4"}`), "paid 4"},
		{"by topic, whatever the type", raw("plain", "shop.Paid", `{"id":"5"}`), "plain 5"},
		{"by topic, without a type", raw("plain", "", `{"id":"6"}`), "plain 6"},
		{"a generic record", raw("shop.orders", "shop.Shipped", `{"id":"7"}`), "map[id:7]"},
		{"a tombstone", event.Tombstone("shop.orders", "k8"), "gone k8"},
		{"a tombstone of another topic", event.Tombstone("shop.payments", "k9"), "otherwise   <nil>"},
		{"another type, undecoded", raw("shop.orders", "shop.Other", `{"id":`), `otherwise shop.Other {"id": <nil>`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got = ""
			if err := mux.Handle(t.Context(), &jsonDecoder{}, tt.e); err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWhatAnErrorBecomes(t *testing.T) {
	t.Parallel()
	decoding := func(err error) *jsonDecoder {
		d := &jsonDecoder{}
		d.plant(func(*event.Event) error { return err }, nil)
		return d
	}
	typing := func(err error) *jsonDecoder {
		d := &jsonDecoder{}
		d.plant(nil, func(*event.Event) error { return err })
		return d
	}
	tests := []struct {
		name  string
		err   error
		dec   *jsonDecoder
		kind  consumer.Kind
		after time.Duration
		is    error
	}{
		{"nil", nil, nil, consumer.Done, 0, nil},
		{"a plain error", errBoom, nil, consumer.Retried, 0, errBoom},
		{"drop", consumer.Drop(errBoom), nil, consumer.Dropped, 0, errBoom},
		{"dead letter, wrapped", fmt.Errorf("ship: %w", consumer.DeadLetter(errBoom)), nil, consumer.DeadLettered, 0, errBoom},
		{"stop", consumer.Stop(errBoom), nil, consumer.Stopped, 0, errBoom},
		{"retry after", consumer.RetryAfter(time.Minute, errBoom), nil, consumer.Retried, time.Minute, errBoom},
		{"the registry was away when the handler published", fmt.Errorf("publish: %w", schemas.ErrUnavailable), nil, consumer.Paused, 0, schemas.ErrUnavailable},
		{"a handler's own dead letter wins over the registry", consumer.DeadLetter(schemas.ErrUnavailable), nil, consumer.DeadLettered, 0, schemas.ErrUnavailable},
		{"a poison that the handler met elsewhere is a plain error", schemas.ErrPoison, nil, consumer.Retried, 0, schemas.ErrPoison},
		{"poison", nil, decoding(schemas.ErrPoison), consumer.DeadLettered, 0, schemas.ErrPoison},
		{"poison before the type is known", nil, typing(schemas.ErrPoison), consumer.DeadLettered, 0, schemas.ErrPoison},
		{"a decoder's error without a name is poison", nil, decoding(errBoom), consumer.DeadLettered, 0, errBoom},
		{"the registry is away", nil, decoding(schemas.ErrUnavailable), consumer.Paused, 0, schemas.ErrUnavailable},
		{"the registry is away before the type is known", nil, typing(schemas.ErrUnavailable), consumer.Paused, 0, schemas.ErrUnavailable},
		{"incompatible", nil, decoding(schemas.ErrIncompatible), consumer.Stopped, 0, schemas.ErrIncompatible},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dec := tt.dec
			if dec == nil {
				dec = &jsonDecoder{}
			}
			single, batched := consumer.NewMux(), consumer.NewMux()
			consumer.On(single, func(context.Context, event.Of[placed]) error { return tt.err })
			consumer.OnBatch(batched, func(context.Context, []event.Of[placed]) error { return tt.err })
			for name, mux := range map[string]*consumer.Mux{"single": single, "batch": batched} {
				v := consumer.VerdictOf(mux.Handle(t.Context(), dec, raw("shop.orders", "shop.Placed", `{}`)))
				if v.Kind != tt.kind || v.After != tt.after || tt.is != nil && !errors.Is(v.Err, tt.is) {
					t.Errorf("%s: got %+v, want %v after %v", name, v, tt.kind, tt.after)
				}
			}
		})
	}
}

func TestARegistryOutageIsNothingToAMuxWithoutTypes(t *testing.T) {
	t.Parallel()
	dec := &jsonDecoder{}
	dec.plant(nil, func(*event.Event) error { return schemas.ErrUnavailable })
	mux := consumer.NewMux()
	handled := 0
	mux.Otherwise(func(context.Context, event.Event) error { handled++; return nil })
	if err := mux.Handle(t.Context(), dec, raw("shop.orders", "shop.Placed", `{}`)); err != nil || handled != 1 {
		t.Errorf("handled %d times with %v", handled, err)
	}
}

func TestAnEventThatNobodyHandlesIsDropped(t *testing.T) {
	t.Parallel()
	mux := consumer.NewMux()
	consumer.On(mux, func(context.Context, event.Of[placed]) error { return nil })
	for _, e := range []event.Event{raw("shop.orders", "shop.Paid", `{}`), event.Tombstone("shop.orders", "k"), raw("shop.orders", "", `{}`)} {
		err := mux.Handle(t.Context(), &jsonDecoder{}, e)
		if v := consumer.VerdictOf(err); v.Kind != consumer.Dropped || !errors.Is(err, consumer.ErrUnhandled) {
			t.Errorf("got %v", v)
		}
	}
}

func TestMiddlewareIsBuiltOnceAndRunsOutsideIn(t *testing.T) {
	t.Parallel()
	var log []string
	built := 0
	mw := func(name string) consumer.Middleware {
		return func(next consumer.Handler) consumer.Handler {
			built++
			return func(ctx context.Context, e event.Event) error {
				p, _ := e.Data.(*placed)
				log = append(log, name+" "+p.ID)
				defer func() { log = append(log, "end "+name) }()
				return next(ctx, e)
			}
		}
	}
	mux := consumer.NewMux()
	consumer.On(mux, func(_ context.Context, e event.Of[placed]) error { log = append(log, "handler"); return nil })
	mux.Use(mw("outer"), mw("inner"))
	for range 3 {
		log = nil
		if err := mux.Handle(t.Context(), &jsonDecoder{}, raw("shop.orders", "shop.Placed", `{"id":"1"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"outer 1", "inner 1", "handler", "end inner", "end outer"}; !slices.Equal(log, want) {
		t.Errorf("ran %v, want %v", log, want)
	}
	if built != 2 {
		t.Errorf("built %d times, want 2", built)
	}
}

func TestAMiddlewareThatReplacesTheDataStops(t *testing.T) {
	t.Parallel()
	mux := consumer.NewMux()
	consumer.On(mux, func(context.Context, event.Of[placed]) error { return nil })
	mux.Use(func(next consumer.Handler) consumer.Handler {
		return func(ctx context.Context, e event.Event) error { e.Data = "x"; return next(ctx, e) }
	})
	err := mux.Handle(t.Context(), &jsonDecoder{}, raw("shop.orders", "shop.Placed", `{}`))
	if v := consumer.VerdictOf(err); v.Kind != consumer.Stopped {
		t.Errorf("got %v", v)
	}
}

func TestAPanicIsAnErrorWithItsStack(t *testing.T) {
	t.Parallel()
	for name, register := range map[string]func(*consumer.Mux){
		"single": func(m *consumer.Mux) {
			consumer.On(m, func(context.Context, event.Of[placed]) error { panic(errBoom) })
		},
		"batch": func(m *consumer.Mux) {
			consumer.OnBatch(m, func(context.Context, []event.Of[placed]) error { panic(errBoom) })
		},
	} {
		mux := consumer.NewMux()
		register(mux)
		err := mux.Handle(t.Context(), &jsonDecoder{}, raw("shop.orders", "shop.Placed", `{}`))
		var p *consumer.PanicError
		if !errors.As(err, &p) || !errors.Is(err, errBoom) || !strings.Contains(string(p.Stack), "mux_test.go") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestTwoEffectsOfOneAttemptThatShareAnIDAreRefused(t *testing.T) {
	t.Parallel()
	mux := consumer.NewMux()
	consumer.On(mux, func(ctx context.Context, e event.Of[placed]) error {
		first, second := event.After(e.Meta, "t", "k", paid{}), event.After(e.Meta, "t", "k", paid{})
		return errors.Join(event.Claim(ctx, &first), event.Claim(ctx, &second))
	})
	for range 2 { // the next attempt may publish the same id again
		err := mux.Handle(t.Context(), &jsonDecoder{}, raw("shop.orders", "shop.Placed", `{}`))
		if !errors.Is(err, event.ErrSameEffect) || strings.Count(err.Error(), "\n") != 0 {
			t.Errorf("got %v, want one refusal", err)
		}
	}
}

func TestEachOfNothingFailedIsNil(t *testing.T) {
	t.Parallel()
	if err := consumer.Each([]error{nil, nil}); err != nil {
		t.Errorf("got %v", err)
	}
	v := consumer.VerdictOf(consumer.Each([]error{nil, errBoom}))
	if v.Kind != consumer.Retried || len(v.Each) != 2 {
		t.Errorf("got %+v", v)
	}
}

func TestAMuxIsFilledBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	nothing := func(context.Context, event.Event) error { return nil }
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	mux := consumer.NewMux()
	consumer.On(mux, func(context.Context, event.Of[paid]) error { return nil })
	panics("a type twice", func() { consumer.OnBatch(mux, func(context.Context, []event.Of[paid]) error { return nil }) })
	panics("an alias twice", func() { mux.OnType("shop.Settled", nothing) })
	mux.OnTombstone("t", nothing)
	panics("a tombstone twice", func() { mux.OnTombstone("t", nothing) })
	panics("no name", func() { mux.OnType("", nothing) })
	mux.Otherwise(nothing)
	panics("otherwise twice", func() { mux.Otherwise(nothing) })
	if err := mux.Handle(t.Context(), &jsonDecoder{}, raw("t", "x", "{}")); err != nil {
		t.Fatal(err)
	}
	panics("after the first event", func() { mux.OnType("late", nothing) })
	panics("middleware after the first event", func() { mux.Use() })
}

func TestRetryNext(t *testing.T) {
	t.Parallel()
	r := consumer.Retry{Attempts: 6, Backoff: 100 * time.Millisecond, Max: 500 * time.Millisecond}
	var waits []time.Duration
	for attempt := 1; ; attempt++ {
		wait, again := r.Next(attempt)
		if !again {
			break
		}
		waits = append(waits, wait/time.Millisecond)
	}
	if want := []time.Duration{100, 200, 400, 500, 500}; !reflect.DeepEqual(waits, want) {
		t.Errorf("got %v, want %v", waits, want)
	}
	if wait, again := (consumer.Retry{Attempts: -1}).Next(1 << 20); !again || wait != 30*time.Second {
		t.Errorf("without end: got %v, %v", wait, again)
	}
	if _, again := (consumer.Retry{}).Next(5); again {
		t.Error("five attempts by default")
	}
}
