package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/service"
)

// staff are services of one group at work on the topic t, in one process.
type staff struct {
	mu      sync.Mutex
	seen    map[string]int // by partition and offset: how often it was handled
	handled chan struct{}
	log     *buffer
}

// hire starts n services in the group shipping, and stops them when the test ends: all must end in order.
func hire(t *testing.T, w *world, n int) *staff {
	t.Helper()
	s := &staff{seen: map[string]int{}, handled: make(chan struct{}, 1), log: newBuffer()}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var ended sync.WaitGroup
	for i := range n {
		ended.Go(func() {
			code := service.Run(ctx, "shipping", []string{"--client-id", fmt.Sprint("worker", i)}, func(k string) string { return w.env[k] }, io.Writer(s.log),
				func(_ context.Context, svc *service.Service) error {
					mux := consumer.NewMux()
					mux.Otherwise(func(_ context.Context, e event.Event) error { s.note(e); return nil })
					svc.Consume(mux, consumer.Config{Topics: []string{"t"}, CommitEvery: 50 * time.Millisecond})
					return nil
				})
			if code != 0 {
				t.Errorf("worker %d exits %d", i, code)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		ended.Wait()
		if t.Failed() {
			t.Log(s.log)
		}
	})
	return s
}

func (s *staff) note(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[fmt.Sprintf("%d/%d", e.Partition, e.Offset)]++
	select {
	case s.handled <- struct{}{}:
	default:
	}
}

// times is how often a record of partition 0 was handled.
func (s *staff) times(offset int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[fmt.Sprintf("0/%d", offset)]
}

// until waits for each of the first records of partition 0 to have been handled so often at least.
func (s *staff) until(t *testing.T, records, times int) {
	t.Helper()
	deadline := time.After(40 * time.Second)
	for {
		s.mu.Lock()
		done := 0
		for o := range records {
			if s.seen[fmt.Sprintf("0/%d", o)] >= times {
				done++
			}
		}
		now := fmt.Sprint(s.seen)
		s.mu.Unlock()
		if done == records {
			return
		}
		select {
		case <-s.handled:
		case <-deadline:
			t.Fatalf("%d of %d records were handled %d times: %s", done, records, times, now)
		}
	}
}

// await looks at the group until ok.
func (w *world) await(t *testing.T, what string, ok func(g groups.Group) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		gs, err := groups.Describe(ctx, w.cluster, "shipping")
		if err == nil && ok(gs[0]) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the group never was %s: %+v, %v", what, gs, err)
		}
	}
}

// staffed is a group of two at work that has handled everything.
func staffed(t *testing.T) (*world, *staff) {
	t.Helper()
	w := newShop(t)
	w.topic(t, groups.ControlTopic) // else services look for it half a minute later
	zero := w.want(t, codeDone, "groups", "offsets", "apply", "shipping", "--at", "start", "--yes")
	has(t, "stderr", zero.err, "changed")
	s := hire(t, w, 2)
	s.until(t, 10, 1)
	w.caughtUp(t)
	return w, s
}

func (w *world) caughtUp(t *testing.T) {
	t.Helper()
	w.await(t, "two members that are caught up", func(g groups.Group) bool {
		return g.State == "Stable" && len(g.Members) == 2 && g.Total().Lag == 0
	})
}

func TestCoordinatedReset(t *testing.T) {
	t.Parallel()
	w, s := staffed(t)
	r := w.want(t, codeRefused, "groups", "offsets", "apply", "shipping", "--at", "start", "--yes")
	has(t, "stderr", r.err, "the group is active", "--coordinated")
	r = w.want(t, codeDone, "groups", "offsets", "apply", "shipping", "--at", "start", "--coordinated", "--yes")
	has(t, "stdout", r.out, "10    0     -10")
	has(t, "stderr", r.err, "shipping stands still", "shipping goes on", "1 partition of shipping changed", "groups offsets undo shipping")
	s.until(t, 10, 2)
	w.records(t, "t", "ten")
	s.until(t, 11, 1)
	w.caughtUp(t)
	for o := range 11 {
		want := 2
		if o == 10 {
			want = 1
		}
		if n := s.times(o); n != want { // it was in order: nothing is handled more often than was asked for
			t.Errorf("record %d was handled %d times, want %d", o, n, want)
		}
	}

	plan := w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--at", "offset:3", "-o", "json")
	w.write(t, "plan.json", plan.out)
	w.records(t, "t", "eleven") // the group moves on
	s.until(t, 12, 1)
	w.caughtUp(t)
	r = w.want(t, codeDone, "groups", "offsets", "apply", "plan.json", "--coordinated", "--yes")
	has(t, "stdout", r.out, "12    3     -9")
	s.until(t, 10, 2)
	w.caughtUp(t)
	if n := s.times(2); n != 2 {
		t.Errorf("the record before was handled %d times", n)
	}
	w.write(t, "plan.json", strings.ReplaceAll(plan.out, `"kfake"`, `"prod"`))
	w.want(t, codeRefused, "groups", "offsets", "apply", "plan.json", "--coordinated", "--yes")
	w.want(t, codeRefused, "groups", "offsets", "apply", "shipping", "--at", "start", "--coordinated", "--yes", "--read-only")
	w.want(t, codeRefused, "groups", "offsets", "apply", "shipping", "--at", "start", "--coordinated") // no terminal
	if now, err := groups.ControlOf(t.Context(), w.cluster, "shipping"); err != nil || now.State != groups.Running {
		t.Errorf("got %+v, %v", now, err)
	}
}

func TestPauseAndResumeByHand(t *testing.T) {
	t.Parallel()
	w, s := staffed(t)
	r := w.want(t, codeDone, "groups", "pause", "shipping")
	has(t, "stderr", r.err, "shipping stands still until", "millrace groups resume shipping")
	w.records(t, "t", "ten")
	r = w.want(t, codeRefused, "groups", "offsets", "apply", "shipping", "--at", "start", "--coordinated", "--yes")
	has(t, "stderr", r.err, "paused already", "groups resume shipping")
	w.want(t, codeDone, "groups", "offsets", "apply", "shipping", "--at", "start", "--yes") // it is empty
	if n := s.times(10); n != 0 {
		t.Errorf("a paused group handles: %d", n)
	}
	r = w.want(t, codeDone, "groups", "resume", "shipping")
	has(t, "stderr", r.err, "shipping goes on: it was paused by")
	s.until(t, 10, 2)
	s.until(t, 11, 1)
	w.caughtUp(t)
	r = w.want(t, codeDone, "groups", "resume", "shipping")
	has(t, "stderr", r.err, "not paused")
	w.want(t, codeFailed, "groups", "pause", "nobody")
	w.want(t, codeUsage, "groups", "pause", "shipping", "--for", "25h")
	w.want(t, codeUsage, "groups", "pause", "shipping", "--for", "10s", "--wait", "10s")
	w.want(t, codeRefused, "groups", "pause", "shipping", "--read-only")
	settings("contexts:\n  prod:\n    brokers: [BROKERS]\n    production: true\n")(t, w)
	w.want(t, codeRefused, "groups", "pause", "shipping", "-c", "prod")
	w.want(t, codeRefused, "groups", "resume", "shipping", "-c", "prod")
}

// A member that does not listen: nothing changes, and the others go on.
func TestCoordinatedResetBesideAForeignMember(t *testing.T) {
	t.Parallel()
	w, s := staffed(t)
	before := w.stands(t)
	stranger(t, w)
	r := w.want(t, codeRefused, "groups", "offsets", "apply", "shipping", "--at", "start", "--coordinated", "--yes", "--wait", "5s")
	has(t, "stderr", r.err, "did not leave within 5s", "stranger at ", "the pause was taken back", "millrace groups describe shipping")
	if strings.Contains(r.err, "worker") {
		t.Errorf("a service that left is named: %s", r.err)
	}
	if after := w.stands(t); !slices.Equal(before, after) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	w.await(t, "three members", func(g groups.Group) bool { return g.State == "Stable" && len(g.Members) == 3 })
	for o := range 10 {
		if n := s.times(o); n != 1 {
			t.Errorf("record %d was handled %d times", o, n)
		}
	}
}

// Who paused the group is gone: it goes on by itself.
func TestAnOperatorWhoIsGone(t *testing.T) {
	t.Parallel()
	w, s := staffed(t)
	if _, err := groups.Pause(t.Context(), w.cluster, groups.PauseConfig{Group: "shipping", By: "nobody@nowhere", For: 8 * time.Second, Wait: 7 * time.Second}); err != nil {
		t.Fatal(err)
	}
	w.records(t, "t", "ten")
	s.until(t, 11, 1)
	w.caughtUp(t)
}

// Ctrl-C while members leave: it exits 130, and they come back.
func TestCoordinatedResetInterrupted(t *testing.T) {
	t.Parallel()
	w, _ := staffed(t)
	before := w.stands(t)
	stranger(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	out, errs := newBuffer(), newBuffer()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, w.app(strings.NewReader(""), out, errs), []string{"groups", "offsets", "apply", "shipping", "--at", "start", "--coordinated", "--yes"})
	}()
	errs.await(t, "waiting for 1 member")
	cancel()
	if got := <-code; got != codeInterrupted {
		t.Errorf("exits %d: %s", got, errs)
	}
	w.await(t, "three members", func(g groups.Group) bool { return g.State == "Stable" && len(g.Members) == 3 })
	if after := w.stands(t); !slices.Equal(before, after) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if now, err := groups.ControlOf(t.Context(), w.cluster, "shipping"); err != nil || now.Holds(time.Now()) {
		t.Errorf("got %+v, %v", now, err)
	}
}

// stranger is a member of the group that commits nothing and listens to nobody.
func stranger(t *testing.T, w *world) {
	t.Helper()
	c := w.cluster
	c.ClientID = "stranger"
	client, err := c.Client(kgo.ConsumerGroup("shipping"), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.await(t, "three members", func(g groups.Group) bool { return g.State == "Stable" && len(g.Members) == 3 })
}

func TestWhoIsNamed(t *testing.T) {
	t.Parallel()
	a := &app{getenv: func(k string) string { return map[string]string{"USER": "ada"}[k] }}
	if who := a.who(); !strings.HasPrefix(who, "ada@") {
		t.Errorf("got %q", who)
	}
	if err := offsetsError(fmt.Errorf("x: %w", groups.ErrStayed), "g"); exitCode(err) != codeRefused || !errors.Is(err, groups.ErrStayed) {
		t.Errorf("got %v", err)
	}
}
