package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
)

// seeking is a scripted feed that remembers where it was sent to.
type seeking struct {
	*scripted
	seeks chan int64
}

func (s *seeking) Seek(_ cursor.ID, offset int64) error {
	s.seeks <- offset
	return nil
}

// positions is a store that says where a partition is, whatever was committed.
type positions struct {
	*cursor.Memory
	at    int64
	epoch int64
	err   error
}

func (p *positions) Claim(_ context.Context, ids []cursor.ID) (map[cursor.ID]cursor.Claimed, error) {
	if p.err != nil {
		return nil, p.err
	}
	p.epoch++
	return map[cursor.ID]cursor.Claimed{ids[0]: {Cursor: cursor.Cursor{Position: p.at, Epoch: -1}, Lease: cursor.Lease{Epoch: p.epoch}}}, nil
}

// A fenced owner that the feed still gives the partition to claims it again, and reads from where the other owner left it:
// what it had read from its own position would be a gap.
func TestAFencedPartitionIsClaimedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := &seeking{newScripted(), make(chan int64, 1)}
		store := &positions{Memory: cursor.NewMemory()}
		var got []string
		h := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
			got = append(got, fmt.Sprintf("%d-%d by lease %d", b.Items[0].Record.Offset, b.Next-1, b.Lease.Epoch))
			if b.Lease.Epoch == 1 {
				store.at = 3
				return []verdict.Verdict{{Kind: verdict.Pause, After: time.Second, Err: fmt.Errorf("write: %w", cursor.ErrFenced)}}
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- engine.Run(ctx, feed, store, h, engine.Config{}) }()
		owner := <-feed.owner
		if _, err := owner.Assigned(ctx, []cursor.ID{idOf(0)}); err != nil {
			t.Fatal(err)
		}
		feed.push(records(0, 20, 1)[:10]...)
		synctest.Wait()
		feed.push(records(0, 20, 1)[10:]...) // from the old position: nobody may see them
		if at := <-feed.seeks; at != 3 {
			t.Errorf("sent to offset %d, want 3", at)
		}
		feed.push(records(0, 8, 1)[3:]...)
		synctest.Wait()
		if want := "0-9 by lease 1|3-7 by lease 2"; strings.Join(got, "|") != want {
			t.Errorf("handled %v, want %s", got, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAFencedPartitionThatIsGivenUpStaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := &seeking{newScripted(), make(chan int64, 1)}
		store := &positions{Memory: cursor.NewMemory()}
		h := handlerFunc(func(context.Context, engine.Batch) []verdict.Verdict {
			return []verdict.Verdict{{Kind: verdict.Pause, After: time.Second, Err: cursor.ErrFenced}}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- engine.Run(ctx, feed, store, h, engine.Config{}) }()
		owner := <-feed.owner
		if _, err := owner.Assigned(ctx, []cursor.ID{idOf(0)}); err != nil {
			t.Fatal(err)
		}
		feed.push(records(0, 10, 1)...)
		synctest.Wait()
		owner.Lost([]cursor.ID{idOf(0)})
		<-time.After(time.Minute)
		if len(feed.seeks) > 0 || store.epoch != 1 {
			t.Errorf("claimed %d times and sent somewhere %d times after it was lost", store.epoch, len(feed.seeks))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAClaimThatSaysStopEndsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := newScripted()
		cause := errors.New("the topic was created again")
		store := &positions{Memory: cursor.NewMemory(), err: &verdict.Error{Verdict: verdict.Verdict{Kind: verdict.Stop, Err: cause}}}
		done := make(chan error, 1)
		go func() {
			done <- engine.Run(t.Context(), feed, store, handlerFunc(nil), engine.Config{})
		}()
		owner := <-feed.owner
		if _, err := owner.Assigned(t.Context(), []cursor.ID{idOf(0)}); !errors.Is(err, cause) {
			t.Errorf("assigned: %v", err)
		}
		if err := <-done; !errors.Is(err, cause) {
			t.Errorf("Run ended with %v, want the error of the claim", err)
		}
	})
}

// A position that a handler keeps passes the markers behind the last record: retention will remove them, and a position
// below the log start would be taken for a loss.
func TestMarkersThatNothingFollowsArePassed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed := newScripted()
		var got []string
		h := handlerFunc(func(_ context.Context, b engine.Batch) []verdict.Verdict {
			got = append(got, fmt.Sprintf("%d to %d", len(b.Items), b.Next))
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- engine.Run(ctx, feed, cursor.NewMemory(), h, engine.Config{Markers: true, BatchWait: 10 * time.Millisecond})
		}()
		owner := <-feed.owner
		if _, err := owner.Assigned(ctx, []cursor.ID{idOf(0)}); err != nil {
			t.Fatal(err)
		}
		rs := records(0, 8, 1)
		for _, i := range []int{2, 5, 7} {
			rs[i].Attrs = kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Control: true})
		}
		feed.push(rs[:3]...)
		<-time.After(time.Minute)
		feed.push(rs[3:5]...)
		<-time.After(time.Minute)
		feed.push(rs[5:6]...)
		<-time.After(time.Minute)
		feed.push(rs[6:]...)
		<-time.After(time.Minute)
		if want := "2 to 3|2 to 5|0 to 6|1 to 8"; strings.Join(got, "|") != want {
			t.Errorf("handled %s, want %s", strings.Join(got, "|"), want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
