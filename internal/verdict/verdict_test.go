package verdict_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/verdict"
)

func TestOf(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	dead := &verdict.Error{Verdict: verdict.Verdict{Kind: verdict.DeadLetter, Err: boom}}
	later := &verdict.Error{Verdict: verdict.Verdict{Kind: verdict.Retry, After: time.Minute, Err: boom}}
	tests := []struct {
		name  string
		err   error
		kind  verdict.Kind
		after time.Duration
		each  int
	}{
		{"nil is done", nil, verdict.Done, 0, 0},
		{"a plain error is tried again by policy", boom, verdict.Retry, 0, 0},
		{"a verdict", dead, verdict.DeadLetter, 0, 0},
		{"a verdict inside a wrapped error", fmt.Errorf("ship: %w", dead), verdict.DeadLetter, 0, 0},
		{"a verdict inside joined errors", errors.Join(boom, dead), verdict.DeadLetter, 0, 0},
		{"retry after", later, verdict.Retry, time.Minute, 0},
		{"a batch, all done", verdict.Each{nil, nil}, verdict.Done, 0, 2},
		{"a batch has the worst verdict of its events", verdict.Each{nil, later, dead, boom}, verdict.DeadLetter, 0, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := verdict.Of(tt.err)
			if v.Kind != tt.kind || v.After != tt.after || len(v.Each) != tt.each {
				t.Errorf("got %+v, want %v after %v with %d", v, tt.kind, tt.after, tt.each)
			}
			if tt.kind != verdict.Done && !errors.Is(v.Err, boom) {
				t.Errorf("the handler's error is lost: %v", v.Err)
			}
			if v.Resolved() != (tt.kind == verdict.Done || tt.kind == verdict.Dropped) {
				t.Errorf("Resolved is %v for %v", v.Resolved(), v.Kind)
			}
		})
	}
}

func TestErrorsRead(t *testing.T) {
	t.Parallel()
	each := verdict.Each{nil, errors.New("boom"), errors.New("bang")}
	if got, want := each.Error(), "2 of 3 events failed, the first with: boom"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (&verdict.Error{Verdict: verdict.Verdict{Kind: verdict.Dropped}}).Error(), "dropped"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := verdict.Kind(42).String(), "Kind(42)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
