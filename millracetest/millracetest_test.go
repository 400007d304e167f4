package millracetest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/millracetest"
	"github.com/millrace/millrace/schemas"
)

type placed struct {
	ID    string    `avro:"id"`
	Cents int64     `avro:"cents"`
	At    time.Time `avro:"at,timestamp-millis"`
}

func (placed) AvroName() string   { return "shop.Placed" }
func (placed) AvroSchema() string { return placedSchema }

type shipped struct {
	ID string `avro:"id"`
}

func (shipped) AvroName() string   { return "shop.Shipped" }
func (shipped) AvroSchema() string { return shippedSchema }

var (
	placedSchema  = schemas.MustFor[placed]()
	shippedSchema = schemas.MustFor[shipped]()
	errBoom       = errors.New("boom")
)

func TestHandleGoesTheWholeWay(t *testing.T) {
	t.Parallel()
	when := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	sent := event.New("shop.orders", "o1", placed{ID: "o1", Cents: 1999, At: when})
	pub := &millracetest.Publisher{}
	mux := consumer.NewMux()
	consumer.On(mux, func(ctx context.Context, e event.Of[placed]) error {
		if e.ID != sent.ID || e.Type != "shop.Placed" || string(e.Key) != "o1" || e.Attempt != 1 || e.Data.Cents != 1999 || !e.Data.At.Equal(when) {
			t.Errorf("the handler got %+v", e)
		}
		return pub.Publish(ctx, event.After(e.Meta, "shop.shipments", e.Key, shipped{ID: e.Data.ID}))
	})
	for range 2 {
		if v := millracetest.Handle(t, mux, sent); v.Kind != consumer.Done {
			t.Fatal(v)
		}
	}
	out := pub.Sent("shop.shipments")
	if len(out) != 2 || out[0].ID != out[1].ID {
		t.Fatalf("a handler that runs again publishes the same id: %+v", out)
	}
	if out[0].Type != "shop.Shipped" || out[0].Data != any(shipped{ID: "o1"}) || string(out[0].Headers.Get(event.HeaderCause)) != sent.ID {
		t.Errorf("sent %+v", out[0])
	}
	if len(pub.Sent("")) != 2 || len(pub.Sent("other")) != 0 {
		t.Error("Sent does not tell topics apart")
	}
}

func TestHandleOfBytes(t *testing.T) {
	t.Parallel()
	mux := consumer.NewMux()
	consumer.On(mux, func(context.Context, event.Of[placed]) error { return nil })
	e := event.New("shop.orders", "o1", nil)
	e.Value = []byte{0, 0, 1}
	if v := millracetest.Handle(t, mux, e); v.Kind != consumer.DeadLettered || !errors.Is(v.Err, schemas.ErrPoison) {
		t.Errorf("poison is %v", v)
	}
	if v := millracetest.Handle(t, mux, event.Tombstone("shop.orders", "o1")); v.Kind != consumer.Dropped {
		t.Errorf("a tombstone that nobody handles is %v", v)
	}
}

func TestRunTriesAsOftenAsThePolicySays(t *testing.T) {
	t.Parallel()
	good, bad, stop := placed{ID: "good"}, placed{ID: "bad"}, placed{ID: "stop"}
	tests := []struct {
		name     string
		cfg      consumer.Config
		data     []any
		want     []consumer.Kind
		attempts int
	}{
		{"retries, then a dead letter", consumer.Config{Retry: consumer.Retry{Attempts: 3}}, []any{bad, good}, []consumer.Kind{consumer.DeadLettered, consumer.Done}, 4},
		{"retries, then the end", consumer.Config{Retry: consumer.Retry{Attempts: 3, Stop: true}}, []any{good, bad, good}, []consumer.Kind{consumer.Done, consumer.Stopped}, 4},
		{"stop", consumer.Config{}, []any{stop, good}, []consumer.Kind{consumer.Stopped}, 1},
		{"nobody's type", consumer.Config{}, []any{shipped{}, good}, []consumer.Kind{consumer.Dropped, consumer.Done}, 1},
		{"nobody's type, strictly", consumer.Config{Strict: true}, []any{shipped{}, good}, []consumer.Kind{consumer.Stopped}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			attempts := 0
			mux := consumer.NewMux()
			consumer.On(mux, func(_ context.Context, e event.Of[placed]) error {
				attempts++
				switch e.Data.ID {
				case "bad":
					return errBoom
				case "stop":
					return consumer.Stop(errBoom)
				}
				return nil
			})
			var events []event.Event
			for _, d := range tt.data {
				events = append(events, event.New("shop.orders", "k", d))
			}
			got := millracetest.Run(t, mux, tt.cfg, events...)
			if len(got) != len(tt.want) || attempts != tt.attempts {
				t.Fatalf("got %v after %d attempts, want %v after %d", got, attempts, tt.want, tt.attempts)
			}
			for i := range got {
				if got[i].Kind != tt.want[i] {
					t.Errorf("event %d: got %v, want %v", i, got[i].Kind, tt.want[i])
				}
			}
		})
	}
}

func TestPublisherFailsAndRefuses(t *testing.T) {
	t.Parallel()
	pub := &millracetest.Publisher{Fail: func(e event.Event) error {
		if string(e.Key) == "bad" {
			return errBoom
		}
		return nil
	}}
	err := pub.Publish(t.Context(), event.New("t", "ok", shipped{}), event.New("t", "bad", shipped{}), event.New("t", "late", shipped{}))
	if !errors.Is(err, errBoom) || len(pub.Sent("t")) != 1 {
		t.Errorf("got %v with %d sent", err, len(pub.Sent("t")))
	}
	if err := pub.Publish(t.Context(), event.New("t", "k", struct{ ID string }{})); err == nil || !strings.Contains(err.Error(), "AvroSchema") {
		t.Errorf("data without a schema: %v", err)
	}
	ctx := event.WithAttempt(t.Context())
	cause := event.Meta{ID: "c"}
	if err := pub.Publish(ctx, event.After(cause, "t", "k", shipped{}), event.After(cause, "t", "k", shipped{})); !errors.Is(err, event.ErrSameEffect) {
		t.Errorf("a second effect with one id: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pub.Publish(ended, event.New("t", "k", shipped{})); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

func TestAtStopsTheClock(t *testing.T) {
	t.Parallel()
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pub := &millracetest.Publisher{}
	if err := pub.Publish(millracetest.At(t, when), event.New("t", "k", shipped{})); err != nil {
		t.Fatal(err)
	}
	if got := pub.Sent("t")[0].Time; !got.Equal(when) {
		t.Errorf("stamped %s", got)
	}
}
