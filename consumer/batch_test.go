package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// batches registers a batch handler of nums that notes "numbers/attempt" and answers by numbers.
func (c *calls) batches(answer func(ns []int, attempt int) error) func(*Mux) {
	return func(m *Mux) {
		OnBatch(m, func(_ context.Context, es []event.Of[num]) error {
			ns := make([]int, len(es))
			for i, e := range es {
				ns[i] = e.Data.N
				if e.Attempt != es[0].Attempt {
					return Stop(errors.New("attempts are mixed"))
				}
			}
			c.note("%s/%d", strings.Trim(fmt.Sprint(ns), "[]"), es[0].Attempt)
			return answer(ns, es[0].Attempt)
		})
		On(m, func(_ context.Context, e event.Of[word]) error { c.note("%s", e.Data.W); return nil })
	}
}

func TestABatchIsCutWhereTheTypeChanges(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2 a 4 5 w6 c 8", c.batches(func([]int, int) error { return nil }))
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0 1 2/1", "a", "4 5/1", "6", "c", "8/1")
	f.wantPosition(t, 9)
}

func TestABatchHasAtMostItsSize(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2 3 4 5 6", c.batches(func([]int, int) error { return nil }))
	f.cfg.Batch = 3
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0 1 2/1", "3 4 5/1", "6/1")
}

func TestPoisonInABatchIsDeadLetteredAlone(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("? 1 2 ? ? 5", c.batches(func([]int, int) error { return nil }))
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "1 2/1", "5/1")
	f.wantDead(t, 0, 3, 4)
	f.wantPosition(t, 6)
}

func TestABatchGivesAVerdictPerEvent(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2 3 4 5", c.batches(func(ns []int, attempt int) error {
		if attempt > 1 {
			return nil
		}
		return Each([]error{nil, Drop(errBoom), errBoom, DeadLetter(errBoom), errBoom, nil})
	}))
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0 1 2 3 4 5/1", "2 4/2") // what failed comes again, what was done does not
	f.wantDead(t, 3)
	f.wantPosition(t, 6)
}

func TestABatchIsCutWhereTheAttemptChanges(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2 3", c.batches(func(ns []int, attempt int) error {
		if len(ns) < 4 {
			return nil
		}
		return Each([]error{nil, errBoom, schemas.ErrUnavailable, nil}) // 2 is not to blame: no attempt is counted
	}))
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0 1 2 3/1", "1/2", "2/1")
}

func TestAStopInABatchKeepsWhatWasDone(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2", c.batches(func([]int, int) error { return Each([]error{nil, Stop(errBoom), DeadLetter(errBoom)}) }))
	if err := f.run(t); !errors.Is(err, errBoom) {
		t.Errorf("got %v", err)
	}
	f.wantPosition(t, 1)
	f.wantDead(t) // what stands behind the stop comes again
}

func TestOneErrorForABatchIsTriedAgainAndThenOneByOne(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1 2 a", c.batches(func(ns []int, _ int) error {
		if slices.Contains(ns, 1) {
			return errBoom
		}
		return nil
	}))
	f.cfg.Retry.Attempts = 2
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	c.want(t, "0 1 2/1", "0 1 2/2", "0/2", "1/2", "2/2", "a")
	f.wantDead(t, 1) // the guilty one alone
	f.wantPosition(t, 4)
}

func TestAPanicOfABatchIsOneErrorForAll(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1", c.batches(func(ns []int, _ int) error {
		if ns[len(ns)-1] == 1 {
			panic("oh")
		}
		return nil
	}))
	f.cfg.Retry.Attempts = 1
	if err := f.run(t); err != nil {
		t.Fatal(err)
	}
	f.wantDead(t, 1)
	if f.buried[0].Class != "panic" {
		t.Errorf("the class is %s", f.buried[0].Class)
	}
}

func TestTooFewVerdictsForABatchStop(t *testing.T) {
	t.Parallel()
	var c calls
	f := fixtureOf("0 1", c.batches(func([]int, int) error { return Each([]error{errBoom}) }))
	if err := f.run(t); err == nil || !strings.Contains(err.Error(), "1 verdicts") {
		t.Errorf("got %v", err)
	}
	f.wantPosition(t, 0)
}
