package sinktest

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/sink"
)

// What commands do to a sink: look at its positions, move them, and put a rebuild in place.

func (s *suite[Tx]) moves() {
	none, err := s.a.Positions(s.ctx, "nobody")
	if err != nil || len(none) > 0 {
		s.Errorf("positions of a sink that never ran: %v, %v", none, err)
	}
	p := s.claimed(s.a, id(1), 100)
	s.claimed(s.a, id(0), 50)
	rows, err := s.b.Positions(s.ctx, sinkName)
	s.must(err)
	if len(rows) != 2 || rows[0].ID != id(0) || rows[1].ID != id(1) || rows[1].Next != 100 || rows[1].Epoch != 1 || rows[1].Owner != "test" || rows[1].Updated.IsZero() {
		s.Fatalf("positions: %+v", rows)
	}
	stale := rows[0]
	stale.Next++
	err = s.a.Move(s.ctx, []sink.Move{{From: rows[1], To: &sink.Position{Next: 20}}, {From: stale, To: &sink.Position{Next: 1}}})
	if !errors.Is(err, sink.ErrNotOwner) {
		s.Errorf("a move from a place that is not the row's: %v, want ErrNotOwner", err)
	}
	after, err := s.a.Positions(s.ctx, sinkName)
	s.must(err)
	if after[1].Next != 100 {
		s.Error("half of the moves was done")
	}
	s.must(s.a.Move(s.ctx, []sink.Move{{From: rows[1], To: &sink.Position{Next: 20}}, {From: rows[0]}}))
	if _, err := s.move(s.a, p, 110, nil); !errors.Is(err, sink.ErrNotOwner) {
		s.Errorf("the owner after a move: %v, want ErrNotOwner", err)
	}
	if got := s.claimed(s.b, id(1), 0); got.Next != 20 || got.Lease.Epoch != 3 {
		s.Errorf("claim after a move: %+v, want 20 with epoch 3", got)
	}
	if got := s.claimed(s.b, id(0), 8); got.Next != 8 {
		s.Errorf("claim after a row was removed: at %d, want 8", got.Next)
	}
}

func (s *suite[Tx]) swap() {
	const suffix = "__v2"
	rebuilt := id(0)
	rebuilt.Reader += suffix
	s.must(s.a.Prepare(s.ctx, sink.Plan{Sink: rebuilt.Reader, Dedupe: true, Folds: []string{foldName + suffix}}))
	keys := []sink.FoldKey{{Key: "k"}}
	write := func(p sink.Place, fold, state, id string) sink.Place {
		s.Helper()
		p, err := s.move(s.a, p, p.Next+10, func(ctx context.Context, tx Tx) error {
			if _, err := s.a.Seen(ctx, tx, p.ID.Reader, []string{id}, time.Hour); err != nil {
				return err
			}
			if _, err := s.a.Load(ctx, tx, fold, keys); err != nil {
				return err
			}
			return s.a.Store(ctx, tx, fold, keys, [][]byte{[]byte(state)})
		})
		s.must(err)
		return p
	}
	nothing := s.a.Swap(s.ctx, sink.Swap{Into: sinkName, From: rebuilt.Reader, Tables: []sink.Renamed{{Name: foldName, New: foldName + suffix, Old: foldName + "__old"}}})
	if nothing == nil {
		s.Error("a rebuild that has no positions was put in place: the sink would begin anew on tables that have its events")
	}
	live := write(s.claimed(s.a, id(0), 90), foldName, `"live"`, "live")
	s.claimed(s.a, id(5), 0)
	next := write(s.claimed(s.a, rebuilt, 0), foldName+suffix, `"rebuilt"`, "rebuilt")
	for round := range 2 { // the second replaces the first's Old
		s.must(s.a.Swap(s.ctx, sink.Swap{Into: sinkName, From: rebuilt.Reader, Tables: []sink.Renamed{{Name: foldName, New: foldName + suffix, Old: foldName + "__old"}}}))
		for _, p := range []sink.Place{live, next} {
			if _, err := s.move(s.a, p, p.Next+1, nil); !errors.Is(err, sink.ErrNotOwner) {
				s.Errorf("an owner of %s after the swap: %v, want ErrNotOwner", p.ID.Reader, err)
			}
		}
		rows, err := s.a.Positions(s.ctx, sinkName)
		s.must(err)
		if len(rows) != 1 || rows[0].Next != int64(10+10*round) {
			s.Errorf("round %d: positions after the swap: %+v, want the rebuild's", round, rows)
		}
		if got := s.seenNow("live", "rebuilt"); got[0] || !got[1] {
			s.Errorf("round %d: live and rebuilt ids are seen: %v, want the rebuild's", round, got)
		}
		_, err = s.move(s.a, s.claimed(s.a, id(0), 0), 1000, func(ctx context.Context, tx Tx) error {
			states, err := s.a.Load(ctx, tx, foldName, keys)
			if err == nil && string(states[0]) != `"rebuilt"` {
				s.Errorf("round %d: the state after the swap is %s", round, states[0])
			}
			return errors.Join(err, errTest)
		})
		if !errors.Is(err, errTest) {
			s.Error(err)
		}
		if round == 0 {
			s.must(s.a.Prepare(s.ctx, sink.Plan{Sink: rebuilt.Reader, Dedupe: true, Folds: []string{foldName + suffix}}))
			live = s.claimed(s.a, id(0), 0)
			next = write(s.claimed(s.a, rebuilt, 10), foldName+suffix, `"rebuilt"`, "rebuilt")
		}
	}
}

// halfRebuild: positions of a rebuild are never gone on from with a table that is made only now.
func (s *suite[Tx]) halfRebuild() {
	const first, second = foldName + "__v2", otherFold + "__v2"
	rebuilt := id(0)
	rebuilt.Reader += "__v2"
	gone := sink.Swap{Into: sinkName, From: rebuilt.Reader, Tables: []sink.Renamed{
		{Name: foldName, New: first, Old: foldName + "__old"}, {Name: otherFold, New: second, Old: otherFold + "__old"},
	}}
	s.must(s.a.Discard(s.ctx, gone)) // there is nothing yet
	plan := sink.Plan{Sink: rebuilt.Reader, Dedupe: true, Folds: []string{first}, Rebuild: true}
	s.must(s.a.Prepare(s.ctx, plan))
	live, p := s.claimed(s.a, id(0), 0), s.claimed(s.a, rebuilt, 0)
	keys := []sink.FoldKey{{Key: "k"}}
	note := func(ctx context.Context, tx Tx) error {
		_, err := s.a.Seen(ctx, tx, rebuilt.Reader, []string{"rebuilt"}, time.Hour)
		if err == nil {
			_, err = s.a.Load(ctx, tx, first, keys)
		}
		return errors.Join(err, s.a.Store(ctx, tx, first, keys, [][]byte{[]byte("1")}))
	}
	p, err := s.move(s.a, p, 10, note)
	s.must(err)
	s.must(s.b.Prepare(s.ctx, plan)) // it goes on
	more := plan
	more.Folds = []string{first, second}
	for range 2 { // the refused table is not there the second time
		if err := s.b.Prepare(s.ctx, more); !errors.Is(err, sink.ErrHalfRebuild) {
			s.Errorf("a rebuild with positions and without a table: %v, want ErrHalfRebuild", err)
		}
	}
	s.must(s.b.Discard(s.ctx, gone))
	if rows, err := s.a.Positions(s.ctx, rebuilt.Reader); err != nil || len(rows) > 0 {
		s.Errorf("positions of what was discarded: %+v, %v", rows, err)
	}
	if _, err := s.move(s.a, p, 20, nil); !errors.Is(err, sink.ErrNotOwner) {
		s.Errorf("an owner of what was discarded: %v, want ErrNotOwner", err)
	}
	_, err = s.move(s.a, live, 5, nil)
	s.must(err) // the live sink is as it was
	s.must(s.a.Prepare(s.ctx, more))
	_, err = s.move(s.a, s.claimed(s.a, rebuilt, 0), 10, func(ctx context.Context, tx Tx) error {
		seen, err := s.a.Seen(ctx, tx, rebuilt.Reader, []string{"rebuilt"}, time.Hour)
		s.must(err)
		states, err := s.a.Load(ctx, tx, first, keys)
		if err == nil && (seen[0] || states[0] != nil) {
			s.Errorf("after it was discarded: seen %v, state %q", seen, states[0])
		}
		return err
	})
	s.must(err)
}
