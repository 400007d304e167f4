package engine_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
)

func exit() { runtime.Goexit() }

// running is a member with a scripted feed.
type running struct {
	feed  *scripted
	owner engine.Owner
	stop  func() error
}

func start(t *testing.T, s cursor.Store, h engine.Handler, cfg engine.Config, ids ...cursor.ID) *running {
	t.Helper()
	r := &running{feed: newScripted()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx, r.feed, s, h, cfg) }()
	r.owner = <-r.feed.owner
	if len(ids) > 0 {
		if _, err := r.owner.Assigned(t.Context(), ids); err != nil {
			t.Fatal(err)
		}
	}
	r.stop = func() error {
		cancel()
		return <-done
	}
	return r
}

// slow handles a record in d, whatever its context says.
func slow(j *journal, member string, d time.Duration) handler {
	return handler{j: j, member: member, f: func(context.Context, engine.Batch, int) verdict.Verdict {
		<-time.After(d)
		return verdict.Verdict{}
	}}
}

func TestRevokeDrainsCommitsThenFences(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, store := &journal{}, cursor.NewMemory()
		w := newWitness(j, "a", store)
		a := start(t, w, slow(j, "a", 3*time.Second), engine.Config{Observer: w, CommitEvery: time.Hour}, idOf(0))
		a.feed.push(records(0, 10, 1)...)
		<-time.After(4 * time.Second) // in the second record
		started := time.Now()
		a.owner.Revoked(t.Context(), []cursor.ID{idOf(0)})
		if took := time.Since(started); took != 2*time.Second {
			t.Errorf("the revoke took %v, want 2s: until the record in hand was done", took)
		}
		want := []string{"assigned 0", "handled 0", "handled 1", "committed 2", "revoked 0"}
		if got := lines(j); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		<-time.After(time.Hour)
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		if got := lines(j); !slices.Equal(got, want) {
			t.Errorf("after the revoke: got %v, want %v", got, want)
		}
	})
}

func lines(j *journal) []string {
	var out []string
	for _, e := range j.all() {
		out = append(out, e.what+" "+time.Duration(e.offset).String())
	}
	for i := range out {
		out[i] = strings.TrimSuffix(strings.TrimSuffix(out[i], "ns"), "s") // 0s is 0, 2ns is 2
	}
	return out
}

// A handler that needs longer than the budget is not waited for. Its work is done again by the next owner, its
// context has ended, and what it completes late is never committed.
func TestLateCompletionCommitsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, store := &journal{}, cursor.NewMemory()
		w := newWitness(j, "a", store)
		ended := make(chan time.Duration, 1)
		started := time.Now()
		h := handler{j: j, member: "a", f: func(ctx context.Context, _ engine.Batch, i int) verdict.Verdict {
			if i > 0 {
				<-ctx.Done()
				ended <- time.Since(started)
				<-time.After(10 * time.Second)
			}
			return verdict.Verdict{}
		}}
		a := start(t, w, h, engine.Config{Observer: w, Drain: 5 * time.Second}, idOf(0))
		a.feed.push(records(0, 10, 1)...)
		<-time.After(time.Second + time.Millisecond)
		a.owner.Revoked(t.Context(), []cursor.ID{idOf(0)})
		if at := <-ended; at.Round(time.Second) != 6*time.Second {
			t.Errorf("the handler's context ended after %v, want the drain's 5s", at)
		}
		<-time.After(time.Minute)
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		all := j.all()
		if last := all[len(all)-1]; last.what != "handled" || last.offset != 1 {
			t.Errorf("the last entry is %+v, want the late completion and no commit behind it", last)
		}
		if at := store.Positions()[idOf(0)]; at != 0 {
			t.Errorf("committed %d; Handle had not returned, so 0 was", at)
		}
	})
}

// A member that slept through its own loss knows nothing of it. Its commit is attempted, and the store refuses it.
func TestASleepersCommitIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, store := &journal{}, cursor.NewMemory()
		wa, wb := newWitness(j, "a", store), newWitness(j, "b", store)
		log := records(0, 10, 1)
		a := start(t, wa, handler{j: j, member: "a"}, engine.Config{Observer: wa, CommitEvery: time.Minute}, idOf(0))
		b := start(t, wb, handler{j: j, member: "b"}, engine.Config{Observer: wb}, idOf(0)) // a was not told
		b.feed.push(log...)
		<-time.After(5 * time.Second)
		a.feed.push(log[:4]...)
		<-time.After(2 * time.Minute)
		if err := errors.Join(a.stop(), b.stop()); err != nil {
			t.Error(err)
		}
		refused := 0
		for _, e := range j.all() {
			if e.what == "refused" {
				refused++
				if e.member != "a" || !errors.Is(e.err, cursor.ErrFenced) {
					t.Errorf("refused %+v, want a's commits for the lease", e)
				}
			}
		}
		if at := store.Positions()[idOf(0)]; at != 10 || refused == 0 {
			t.Errorf("committed %d with %d refusals, want b's 10, and a's attempts refused", at, refused)
		}
		j.mustBeClean(t, log)
	})
}

func TestLostCommitsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, store := &journal{}, cursor.NewMemory()
		w := newWitness(j, "a", store)
		cancelled := make(chan struct{})
		h := handler{j: j, member: "a", f: func(ctx context.Context, _ engine.Batch, i int) verdict.Verdict {
			if i == 5 {
				<-ctx.Done()
				close(cancelled)
			}
			return verdict.Verdict{}
		}}
		a := start(t, w, h, engine.Config{Observer: w, CommitEvery: time.Minute}, idOf(0))
		a.feed.push(records(0, 10, 1)...)
		<-time.After(time.Second)
		a.owner.Lost([]cursor.ID{idOf(0)})
		<-cancelled
		<-time.After(time.Hour)
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		if n := j.count("committed") + j.count("refused"); n != 0 {
			t.Errorf("%d commits of a lost partition", n)
		}
	})
}

// A partition that comes back has nothing to do with what it was: it starts at the committed position, and its
// handler starts only when the old one, which was too late, has returned.
func TestReassignedIsANewActor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, store := &journal{}, cursor.NewMemory()
		w := newWitness(j, "a", store)
		inside := 0
		h := handler{j: j, member: "a", f: func(context.Context, engine.Batch, int) verdict.Verdict {
			if inside++; inside > 1 {
				t.Error("two handlers of one partition at once")
			}
			<-time.After(4 * time.Second)
			inside--
			return verdict.Verdict{}
		}}
		log := records(0, 6, 1)
		a := start(t, w, h, engine.Config{Observer: w, Drain: time.Second}, idOf(0))
		a.feed.push(log...)
		<-time.After(5 * time.Second) // in record 1
		a.owner.Revoked(t.Context(), []cursor.ID{idOf(0)})
		from, err := a.owner.Assigned(t.Context(), []cursor.ID{idOf(0)})
		if err != nil {
			t.Fatal(err)
		}
		a.feed.push(log[from[idOf(0)]:]...)
		<-time.After(time.Minute)
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		j.mustBeClean(t, log)
		if at := store.Positions()[idOf(0)]; at != 6 {
			t.Errorf("committed %d, want 6", at)
		}
	})
}

func TestOrderlyStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j, store := &journal{}, cursor.NewMemory()
		w := newWitness(j, "a", store)
		a := start(t, w, slow(j, "a", 3*time.Second), engine.Config{Observer: w, CommitEvery: time.Hour}, idOf(0), idOf(1))
		a.feed.push(records(0, 10, 1)...)
		a.feed.push(records(1, 10, 1)...)
		<-time.After(4 * time.Second)
		started := time.Now()
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(started); took != 2*time.Second {
			t.Errorf("stopping took %v, want 2s: the records in hand were finished, no others begun", took)
		}
		if got := store.Positions(); got[idOf(0)] != 2 || got[idOf(1)] != 2 {
			t.Errorf("committed %v, want 2 and 2", got)
		}
	})
}

func TestStuckHandlersAreNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := handlerFunc(func(context.Context, engine.Batch) []verdict.Verdict {
			<-release
			return nil
		})
		a := start(t, cursor.NewMemory(), h, engine.Config{}, idOf(0))
		a.feed.push(records(0, 1, 1)...)
		<-time.After(time.Second)
		if err := a.stop(); !errors.Is(err, engine.ErrStuck) {
			t.Errorf("got %v, want ErrStuck", err)
		}
		close(release)
	})
}

// The checker is worth something only if it finds the bugs it is there for.
func TestPlantedBugsAreFound(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		plant func(engine.Config) engine.Config
		finds string // empty: nothing
	}{
		{"none", func(c engine.Config) engine.Config { return c }, ""},
		{"commit before the handler ends", engine.WithCommitEarly, "early"},
		{"commit after revoke", engine.WithCommitLate, "late"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				j, store := &journal{}, cursor.NewMemory()
				log := records(0, 8, 1)
				wa := newWitness(j, "a", store)
				cfg := tt.plant(engine.Config{Batch: 4})
				cfg.Observer = wa
				a := start(t, wa, slow(j, "a", 700*time.Millisecond), cfg, idOf(0))
				a.feed.push(log...)
				<-time.After(1500 * time.Millisecond)
				a.owner.Revoked(t.Context(), []cursor.ID{idOf(0)})
				<-time.After(time.Minute) // the late completion
				if err := a.stop(); err != nil {
					t.Error(err)
				}
				wb := newWitness(j, "b", store)
				b := start(t, wb, handler{j: j, member: "b"}, engine.Config{Observer: wb})
				from, err := b.owner.Assigned(t.Context(), []cursor.ID{idOf(0)})
				if err != nil {
					t.Fatal(err)
				}
				if at := from[idOf(0)]; at < 8 {
					b.feed.push(log[at:]...)
				}
				<-time.After(5 * time.Second)
				if err := b.stop(); err != nil {
					t.Error(err)
				}
				found := j.check(log)
				if tt.finds == "" {
					if len(found) > 0 {
						t.Errorf("a correct engine: %v", found)
					}
					return
				}
				if !slices.ContainsFunc(found, func(v string) bool { return strings.HasPrefix(v, tt.finds) }) {
					t.Errorf("found %v, want a violation of kind %q", found, tt.finds)
				}
			})
		})
	}
}
