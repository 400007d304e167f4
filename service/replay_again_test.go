package service

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/replay"
)

// twice is a service with two consumers, of which the first stops behind n events, and notes what is now to its handler.
func twice(n *int, saw *[]time.Time) func(context.Context, *Service) error {
	return func(_ context.Context, s *Service) error {
		mux := consumer.NewMux()
		consumer.On(mux, func(ctx context.Context, _ event.Of[beat]) error {
			if *n--; *n < 0 {
				return consumer.Stop(errors.New("enough"))
			}
			*saw = append(*saw, event.Now(ctx))
			return nil
		})
		s.Consume(mux, consumer.Config{Topics: []string{"beats"}})
		s.Consume(consumer.NewMux(), consumer.Config{Group: "other", Topics: []string{"out"}})
		return nil
	}
}

// What goes on by its name alone has the clock and the roles that it was begun with.
func TestAShadowGoesOnAsItWasBegun(t *testing.T) { //nolint:paralleltest // it replaces http.DefaultTransport
	st := newStage(t)
	st.extra = []string{"--replay-from", "start", "--replay-topics", "beats", "--replay-clock", "event"}
	n, saw := 5, []time.Time(nil)
	if code, log := st.run(t, twice(&n, &saw)); code != 1 || len(saw) != 5 || !strings.Contains(log, "nothing live is consumed") {
		t.Fatalf("exit code %d, %d handled\n%s", code, len(saw), log)
	}
	st.extra, n = nil, 1000
	if code, log := st.run(t, twice(&n, &saw)); code != 0 || len(saw) != beats {
		t.Fatalf("exit code %d, %d handled\n%s", code, len(saw), log)
	}
	if sum, err := replay.Find(t.Context(), st.cluster, "try.heart"); err != nil || !sum.Done || sum.Delivered != beats {
		t.Errorf("%v, %+v", err, sum)
	}
	for _, at := range saw {
		if at.Year() != 2026 || at.Month() != time.January {
			t.Errorf("now is %v to a handler: not when the event happened", at)
		}
	}
}

func TestTopicsThatNobodyConsumesAreRefused(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	st.extra = []string{"--replay-from", "start", "--replay-topics", "beats,beets"}
	n, saw := 1000, []time.Time(nil)
	if code, log := st.run(t, twice(&n, &saw)); code == 0 || len(saw) != 0 || !strings.Contains(log, "beets") {
		t.Errorf("exit code %d, %d handled\n%s", code, len(saw), log)
	}
}

// A disk that was full has cut a line of the capture. What is appended behind it must not become a part of it.
func TestACaptureThatWasCutGoesOn(t *testing.T) { //nolint:paralleltest // as above
	st := newStage(t)
	whole := `{"millrace":1,"replay":"try","cause":{"id":"x","topic":"beats","partition":0,"offset":0},"kind":"publish","target":"before","ordinal":0,"body":null}` + "\n"
	if err := os.WriteFile(st.capture, []byte(whole+`{"millrace":1,"rep`), 0o600); err != nil {
		t.Fatal(err)
	}
	st.extra = []string{"--replay-from", "start"}
	n := 0
	if code, log := st.run(t, heart(&n, func(*Service) {})); code != 0 {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	got := st.effects(t)
	if len(got["publish before"]) != 1 || len(got["publish out"]) != beats {
		t.Errorf("%d and %d effects are read", len(got["publish before"]), len(got["publish out"]))
	}
}

// A handler that fails because the run ends has not failed for good.
func TestAStopBuriesNothing(t *testing.T) {
	t.Parallel()
	s := &Service{Name: "heart", replaying: &replaying{guard: &replay.Guard{ID: "try"}}}
	x := &role{name: "heart", retry: consumer.Retry{Attempts: 1}, observer: new(stats).observe(nil)}
	ctx, cancel := context.WithCancel(t.Context())
	err := s.deliver(ctx, x, func(ctx context.Context, _ *event.Event, _ bool) error { cancel(); return ctx.Err() }, &event.Event{Meta: event.Meta{Topic: "beats", Attempt: 1}})
	if !errors.Is(err, context.Canceled) || x.counts.deadLettered.Load() != 0 || len(s.replaying.guard.Totals()) != 0 {
		t.Errorf("got %v, %d dead letters", err, x.counts.deadLettered.Load())
	}
}
