package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/metrics"
)

// paused is a consumer whose group is told things, on a clock that a test turns.
type paused struct {
	*pauses
	ctx   context.Context //nolint:containedctx // a test's
	stop  func()
	began time.Time
	err   error // of the next stop
	ended chan error

	happened sync.Mutex
	events   []string // what happened, with the second it did
}

func startPaused(t *testing.T) *paused {
	t.Helper()
	p := &paused{pauses: newPauses(time.Now, zap.NewNop(), newStats("s")), began: time.Now(), ended: make(chan error, 1)}
	p.groups = []string{"g"}
	p.ctx, p.stop = context.WithCancel(t.Context())
	go func() {
		p.ended <- p.run(p.ctx, "g", func(ctx context.Context) error {
			p.note("joins")
			<-ctx.Done()
			pass(2 * time.Second) // it drains
			p.note("left")
			return p.err
		})
	}()
	return p
}

// pass lets time go by on the clock of a bubble.
func pass(d time.Duration) { <-time.After(d) }

func (p *paused) note(what string) {
	p.happened.Lock()
	defer p.happened.Unlock()
	p.events = append(p.events, fmt.Sprintf("%s at %d", what, int(time.Since(p.began).Seconds())))
}

func (p *paused) tell(state string, lasts time.Duration) {
	p.hear([]groups.Control{{Millrace: 1, Group: "g", State: state, By: "a@b", At: time.Now(), Until: time.Now().Add(lasts)}})
}

func (p *paused) want(t *testing.T, events ...string) {
	t.Helper()
	synctest.Wait()
	p.happened.Lock()
	defer p.happened.Unlock()
	if !slices.Equal(p.events, events) {
		t.Errorf("got %q, want %q", p.events, events)
	}
}

func TestAConsumerPausesAndGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := startPaused(t)
		p.hear(nil)
		pass(10 * time.Second)
		p.tell(groups.Paused, time.Minute)
		synctest.Wait()
		if st := p.stats.tick(); !p.stats.isPaused("g") || st.Paused != "g by a@b until "+p.told["g"].Until.UTC().Format(time.RFC3339) {
			t.Errorf("got %+v", st)
		}
		pass(20 * time.Second)
		p.want(t, "joins at 0", "left at 12")
		p.tell(groups.Running, 0)
		p.want(t, "joins at 0", "left at 12", "joins at 30")
		if p.stats.isPaused("g") {
			t.Error("it is said to be paused")
		}
		p.stop()
		if err := <-p.ended; err != nil {
			t.Error(err)
		}
	})
}

// Who asked for the pause is gone.
func TestAPauseEndsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := startPaused(t)
		p.tell(groups.Paused, 5*time.Second) // before it joins: it never does
		pass(4 * time.Second)
		p.want(t)
		p.tell(groups.Paused, groups.PauseFor) // a new one replaces it
		pass(groups.PauseFor - time.Second)
		p.want(t)
		pass(time.Second)
		p.want(t, "joins at 604")
		pass(time.Second)
		p.tell(groups.Paused, time.Second) // shorter than it takes to leave
		pass(10 * time.Second)
		p.want(t, "joins at 604", "left at 607", "joins at 607")
		p.stop()
		if err := <-p.ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAClusterThatIsSilentKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := startPaused(t)
		pass(hearMost)
		p.want(t, "joins at 5")
		p.stop()
		if err := <-p.ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAStopInAPauseIsInOrderAndAnErrorIsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := startPaused(t)
		p.tell(groups.Paused, time.Minute)
		synctest.Wait()
		p.stop()
		if err := <-p.ended; err != nil {
			t.Error(err)
		}
		p = startPaused(t)
		p.err = errors.New("commit failed")
		p.hear(nil)
		synctest.Wait()
		p.tell(groups.Paused, time.Minute)
		if err := <-p.ended; !errors.Is(err, p.err) {
			t.Errorf("got %v", err)
		}
		p.stop()
	})
}

func TestAPausedServiceIsReady(t *testing.T) {
	t.Parallel()
	p := newPatient()
	held := true
	p.paused = func(group string) bool { return held && group == "shipping" }
	p.consumer("shipping")
	p.ready(t, "paused before it had partitions")
	m, err := metrics.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newStats("s")
	s.set("running")
	s.pause(groups.Control{Group: "shipping", Until: time.Date(2026, 11, 22, 9, 10, 0, 0, time.UTC)})
	if st := s.tick(); st.State != "paused" {
		t.Errorf("the state is %s", st.State)
	}
	rec := httptest.NewRecorder()
	(&watching{m, p.health, s.paused}).handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	if want := "ready: paused: shipping by somebody until 2026-11-22T09:10:00Z\n"; rec.Code != http.StatusOK || rec.Body.String() != want {
		t.Errorf("got %d %q", rec.Code, rec.Body)
	}
	held = false
	p.notReady(t, "no longer paused", "group shipping has assigned no partitions yet")
}
