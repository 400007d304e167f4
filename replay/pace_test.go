package replay_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/replay"
)

// paced is events with gaps from nothing to seconds, some of them backwards.
func paced(n int) []event.Event {
	random := rand.New(rand.NewPCG(1, 2))
	events := recorded(n)
	at := origin
	for i := range events {
		gap := time.Duration(random.Int64N(int64(400 * time.Millisecond)))
		switch random.IntN(10) {
		case 0:
			gap = 0
		case 1:
			gap = time.Duration(random.Int64N(int64(10 * time.Second)))
		case 2:
			gap = -gap
		}
		at = at.Add(gap)
		events[i].Published, events[i].Time = at, origin.Add(time.Duration(i)*time.Second)
	}
	return events
}

// Each gap of at least 20 ms after scaling is kept within 5 ms or 5 %, the total within 1 %, also by a target that takes
// its time; a gap backwards is none.
func TestPaceHolds(t *testing.T) {
	t.Parallel()
	for _, speed := range []float64{1, 2.5, 10, 50} {
		for _, clock := range []replay.Clock{replay.RecordClock, replay.EventClock} {
			synctest.Test(t, func(t *testing.T) {
				events := paced(500)
				to := &sink{began: time.Now()}
				to.before = func(ctx context.Context, _ event.Event) error { return nil }
				cfg := replay.Config{Set: set(events), Untracked: true, Speed: speed, Clock: clock}
				plan, err := replay.Plan(t.Context(), kafka.Cluster{}, cfg)
				if err != nil {
					t.Fatal(err)
				}
				s, err := replay.Run(t.Context(), kafka.Cluster{}, to, cfg)
				if err != nil {
					t.Fatal(err)
				}
				of := func(e event.Event) time.Time {
					if clock == replay.EventClock {
						return e.Time
					}
					return e.Published
				}
				latest := of(events[0])
				for i := 1; i < len(events); i++ {
					want := time.Duration(0)
					if at := of(events[i]); at.After(latest) {
						want = time.Duration(float64(at.Sub(latest)) / speed)
						latest = at
					}
					got := to.times[i] - to.times[i-1]
					if off := (got - want).Abs(); off > 5*time.Millisecond && off > want/20 {
						t.Fatalf("%gx: gap %d is %v, want %v", speed, i, got, want)
					}
				}
				want := time.Duration(float64(latest.Sub(of(events[0]))) / speed)
				if off := (to.times[len(events)-1] - want).Abs(); off > want/100 || s.Slipped != 0 {
					t.Errorf("%gx: %v in all, want %v; slipped %v", speed, to.times[len(events)-1], want, s.Slipped)
				}
				if off := (plan.Expected - want).Abs(); off > want/100 || plan.Matched != 500 {
					t.Errorf("%gx: planned %v for %d events, want %v", speed, plan.Expected, plan.Matched, want)
				}
			})
		}
	}
}

// What a target is late is caught up, up to a second; what is more is lost and said.
func TestPaceSlips(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		to := &sink{began: time.Now()}
		to.before = func(ctx context.Context, e event.Event) error {
			if e.ID == "e100" {
				return wait(ctx, 25*time.Second)
			}
			return nil
		}
		s, err := replay.Run(t.Context(), kafka.Cluster{}, to, replay.Config{Set: set(recorded(1000)), Untracked: true, Speed: 1})
		if err != nil {
			t.Fatal(err)
		}
		total := to.times[999]
		if s.Slipped < 15*time.Second || s.Slipped > 25*time.Second || (total-999*50*time.Millisecond-s.Slipped).Abs() > time.Second {
			t.Errorf("slipped %v, took %v", s.Slipped, total)
		}
	})
}

func TestRateHolds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		speed, rate float64
		want        time.Duration
	}{
		{0, 100, 10 * time.Second}, // 1000 events
		{0, 20_000, 50 * time.Millisecond},
		{1, 10, 100 * time.Second},    // the rate is what binds
		{10, 1000, 5 * time.Second},   // the speed is
		{1, 1e9, 50 * time.Second},    // as if there were none
		{0.5, 100, 100 * time.Second}, // slower than it was
	} {
		synctest.Test(t, func(t *testing.T) {
			to := &sink{began: time.Now()}
			s, err := replay.Run(t.Context(), kafka.Cluster{}, to, replay.Config{Set: set(recorded(1000)), Untracked: true, Speed: tt.speed, Rate: tt.rate})
			if err != nil {
				t.Fatal(err)
			}
			if off := (to.times[999] - tt.want).Abs(); off > tt.want/100 || s.Delivered != 1000 {
				t.Errorf("%gx at %g/s: took %v, want %v", tt.speed, tt.rate, to.times[999], tt.want)
			}
			for i := 100; i < len(to.times); i++ { // never more than the rate, in any stretch
				if got := to.times[i] - to.times[i-100]; got < time.Duration(float64(99*time.Second)/tt.rate)-25*time.Millisecond {
					t.Fatalf("%gx at %g/s: 100 events within %v", tt.speed, tt.rate, got)
				}
			}
		})
	}
}

func TestTheContextSaysReplay(t *testing.T) {
	t.Parallel()
	events := recorded(3)
	n := 0
	s, err := replay.Run(t.Context(), kafka.Cluster{}, replay.Func(func(ctx context.Context, e event.Event) error {
		r, ok := event.InReplay(ctx)
		if !ok || r.ID == "" || r.Shadow || r.Origin.ID != e.ID || r.Origin.Published != e.Published || e.Attempt != 1 {
			return fmt.Errorf("%+v", r)
		}
		n++
		return nil
	}), replay.Config{Set: set(events), Untracked: true})
	if err != nil || n != 3 || s.ID == "" {
		t.Errorf("%v, %d events", err, n)
	}
}
