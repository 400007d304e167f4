// Package sinktest is what an adapter of package sink is measured by: [Run] is its conformance suite, and [Memory] a
// database in memory that passes it and breaks where a test says so.
//
//	func TestConformance(t *testing.T) {
//		sinktest.Run(t, func(t *testing.T) sinktest.Harness[pgx.Tx] {
//			pool := freshDatabase(t)
//			return sinktest.Harness[pgx.Tx]{Open: func() sink.DB[pgx.Tx] { return newDB(pool) }}
//		})
//	}
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/sink"
)

// Harness is a database that a test has for itself.
type Harness[Tx any] struct {
	// Open returns an adapter as one more process would have it: with connections of its own, to the same database.
	Open func() sink.DB[Tx]
	// Dump returns the rows of a table as text, column by column, a null as "null": in any order. Tests of tables are
	// left out where it is nil.
	Dump func(t *testing.T, table string, columns []string) [][]string
	// Cut returns an adapter whose next COMMIT has no answer: took says whether it takes effect. Nil where a test
	// cannot do that.
	Cut func(t *testing.T, took bool) sink.DB[Tx]
	// Data makes the database refuse a value of the test's in tx. Nil leaves its test out.
	Data func(ctx context.Context, tx Tx) error
	// Wrong asks for a table that is not there. Nil leaves its test out.
	Wrong func(ctx context.Context, tx Tx) error
}

// patience bounds every test of the suite.
const patience = 30 * time.Second

// suite is one test's view of a harness.
type suite[Tx any] struct {
	*testing.T
	Harness[Tx]
	ctx  context.Context //nolint:containedctx // a test's own, with its deadline
	a, b sink.DB[Tx]     // two members
}

// The names that tests use. Adapters create what is behind them in Prepare.
const (
	sinkName  = "conformance"
	foldName  = "conformance_fold"
	otherFold = "conformance_other"
)

// Run runs the suite; open is called once for each of its tests.
func Run[Tx any](t *testing.T, open func(t *testing.T) Harness[Tx]) {
	t.Helper()
	tests := []struct {
		name string
		test func(s *suite[Tx])
	}{
		{"prepare twice", (*suite[Tx]).prepareTwice},
		{"claim", (*suite[Tx]).claim},
		{"claim finds another topic", (*suite[Tx]).claimOtherTopic},
		{"advance", (*suite[Tx]).advance},
		{"advance is fenced", (*suite[Tx]).fenced},
		{"advance and claim at once", (*suite[Tx]).claimAtOnce},
		{"a failed transaction leaves nothing", (*suite[Tx]).rollback},
		{"a panic leaves nothing", (*suite[Tx]).rollbackOfPanic},
		{"try undoes", (*suite[Tx]).try},
		{"settle", (*suite[Tx]).settle},
		{"settle waits", (*suite[Tx]).settleWaits},
		{"commit without an answer", (*suite[Tx]).unknown},
		{"seen", (*suite[Tx]).seen},
		{"seen by two at once", (*suite[Tx]).seenAtOnce},
		{"fold", (*suite[Tx]).fold},
		{"fold key first seen by two at once", (*suite[Tx]).foldAtOnce},
		{"faults", (*suite[Tx]).faults},
		{"many", (*suite[Tx]).many},
		{"positions and moves", (*suite[Tx]).moves},
		{"swap", (*suite[Tx]).swap},
		{"a rebuild without a table is refused, and discarded", (*suite[Tx]).halfRebuild},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s := &suite[Tx]{T: t, Harness: open(t), ctx: ctx}
			s.a, s.b = s.Open(), s.Open()
			s.prepare(s.a, sinkName)
			tt.test(s)
		})
	}
	runTables(t, open)
}

func (s *suite[Tx]) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite[Tx]) prepare(db sink.DB[Tx], name string) {
	s.Helper()
	s.must(db.Prepare(s.ctx, sink.Plan{Sink: name, Dedupe: true, Folds: []string{foldName, otherFold}}))
}

func id(partition int32) cursor.ID {
	return cursor.ID{Reader: sinkName, Topic: "shop.orders", TopicID: [16]byte{1, 2, 3}, Partition: partition}
}

// claimed takes one partition over and returns where its owner stands.
func (s *suite[Tx]) claimed(db sink.DB[Tx], id cursor.ID, start int64) sink.Place {
	s.Helper()
	got, err := db.Claim(s.ctx, "test", []cursor.ID{id}, map[cursor.ID]int64{id: start})
	s.must(err)
	s.must(got[id].Err)
	return sink.Place{ID: id, Lease: got[id].Lease, Next: got[id].Position, Watermark: got[id].Watermark}
}

// to is p moved on.
func to(p sink.Place, next int64) sink.Place {
	p.Next = next
	return p
}

// move moves from to next, and does f in the same transaction.
func (s *suite[Tx]) move(db sink.DB[Tx], from sink.Place, next int64, f func(ctx context.Context, tx Tx) error) (sink.Place, error) {
	s.Helper()
	err := db.InTx(s.ctx, func(ctx context.Context, tx Tx) error {
		if err := db.Advance(ctx, tx, from, to(from, next)); err != nil {
			return err
		}
		if f == nil {
			return nil
		}
		return f(ctx, tx)
	})
	return to(from, next), err
}

var errTest = errors.New("the test's own error")

// seenNow reports which ids are there, in a transaction that is rolled back.
func (s *suite[Tx]) seenNow(ids ...string) []bool {
	s.Helper()
	var got []bool
	err := s.a.InTx(s.ctx, func(ctx context.Context, tx Tx) error {
		seen, err := s.a.Seen(ctx, tx, sinkName, ids, time.Hour)
		if err != nil {
			return err
		}
		got = slices.Clone(seen)
		return errTest
	})
	if !errors.Is(err, errTest) {
		s.Fatalf("look for ids: %v", err)
	}
	return got
}

func (s *suite[Tx]) note(ids ...string) func(ctx context.Context, tx Tx) error {
	return func(ctx context.Context, tx Tx) error {
		_, err := s.a.Seen(ctx, tx, sinkName, ids, time.Hour)
		return err
	}
}

func (s *suite[Tx]) prepareTwice() {
	s.prepare(s.a, sinkName)
	s.prepare(s.b, "conformance2")
}

func (s *suite[Tx]) claim() {
	ids := []cursor.ID{id(0), id(1)}
	start := map[cursor.ID]int64{id(0): 7, id(1): 0}
	first, err := s.a.Claim(s.ctx, "a", ids, start)
	s.must(err)
	if c := first[id(0)]; c.Err != nil || c.Fresh || c.Position != 7 || c.Lease.Epoch != 1 || !c.Watermark.IsZero() {
		s.Errorf("first claim: %+v, want position 7 and epoch 1 without a watermark", c)
	}
	if c := first[id(1)]; c.Position != 0 || c.Lease.Epoch != 1 {
		s.Errorf("first claim: %+v, want position 0 and epoch 1", c)
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 123456000, time.UTC)
	from := sink.Place{ID: id(0), Lease: first[id(0)].Lease, Next: 7}
	next := sink.Place{ID: id(0), Lease: from.Lease, Next: 20, Watermark: at}
	s.must(s.a.InTx(s.ctx, func(ctx context.Context, tx Tx) error { return s.a.Advance(ctx, tx, from, next) }))
	second, err := s.b.Claim(s.ctx, "b", ids, map[cursor.ID]int64{id(0): 99, id(1): 99})
	s.must(err)
	if c := second[id(0)]; c.Err != nil || c.Position != 20 || c.Lease.Epoch != 2 || !c.Watermark.Equal(at) {
		s.Errorf("second claim: %+v, want position 20, epoch 2 and watermark %s", c, at)
	}
	if c := second[id(1)]; c.Position != 0 || c.Lease.Epoch != 2 {
		s.Errorf("second claim: %+v, want position 0, where the first claim put it, and epoch 2", c)
	}
}

func (s *suite[Tx]) claimOtherTopic() {
	p := s.claimed(s.a, id(0), 5)
	again := id(0)
	again.TopicID = [16]byte{9}
	got, err := s.b.Claim(s.ctx, "b", []cursor.ID{again, id(1)}, map[cursor.ID]int64{again: 0, id(1): 3})
	s.must(err)
	if !errors.Is(got[again].Err, sink.ErrOtherTopic) {
		s.Errorf("claim of a topic that was created again: %v, want ErrOtherTopic", got[again].Err)
	}
	if c := got[id(1)]; c.Err != nil || c.Position != 3 {
		s.Errorf("the other partition of the claim: %+v, want position 3", c)
	}
	_, err = s.move(s.a, p, 6, nil)
	s.must(err) // the row is as it was
	unknown := id(0)
	unknown.TopicID = [16]byte{}
	if c := s.claimed(s.a, unknown, 0); c.Next != 6 {
		s.Errorf("claim without a topic id: at %d, want 6", c.Next)
	}
}

func (s *suite[Tx]) advance() {
	p := s.claimed(s.a, id(0), 0)
	for _, next := range []int64{10, 11, 5000000000} {
		var err error
		p, err = s.move(s.a, p, next, nil)
		s.must(err)
	}
	if got := s.claimed(s.b, id(0), 0); got.Next != 5000000000 {
		s.Errorf("position %d, want 5000000000", got.Next)
	}
}

func (s *suite[Tx]) fenced() {
	old := s.claimed(s.a, id(0), 0)
	_, err := s.move(s.a, to(old, 3), 10, s.note("stale"))
	if !errors.Is(err, sink.ErrNotOwner) {
		s.Errorf("advance from an offset that is not the row's: %v, want ErrNotOwner", err)
	}
	s.claimed(s.b, id(0), 0)
	_, err = s.move(s.a, old, 10, s.note("fenced"))
	if !errors.Is(err, sink.ErrNotOwner) {
		s.Errorf("advance with an epoch that is not the row's: %v, want ErrNotOwner", err)
	}
	_, err = s.move(s.a, sink.Place{ID: id(7), Lease: old.Lease}, 10, nil)
	if !errors.Is(err, sink.ErrNotOwner) {
		s.Errorf("advance without a row: %v, want ErrNotOwner", err)
	}
	if got := s.seenNow("fenced", "stale"); got[0] || got[1] {
		s.Error("a transaction without its position was committed")
	}
}

// claimAtOnce: a claim during a transaction waits for it, or fences it; never both go on.
func (s *suite[Tx]) claimAtOnce() {
	old := s.claimed(s.a, id(0), 0)
	begun, done := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := s.move(s.a, old, 10, func(context.Context, Tx) error {
			close(begun)
			return nil
		})
		done <- err
	}()
	<-begun
	fresh := s.claimed(s.b, id(0), 0)
	switch err := <-done; {
	case err == nil && fresh.Next != 10:
		s.Errorf("the transaction was committed, and the claim says %d", fresh.Next)
	case err != nil && fresh.Next != 0:
		s.Errorf("the transaction failed with %v, and the claim says %d", err, fresh.Next)
	}
	_, err := s.move(s.b, fresh, 20, nil)
	s.must(err)
}

func (s *suite[Tx]) rollback() {
	p := s.claimed(s.a, id(0), 0)
	_, err := s.move(s.a, p, 10, func(ctx context.Context, tx Tx) error {
		return errors.Join(s.note("rolled back")(ctx, tx), errTest)
	})
	if !errors.Is(err, errTest) {
		s.Errorf("the error of the function: %v", err)
	}
	if s.seenNow("rolled back")[0] {
		s.Error("what a failed transaction wrote is there")
	}
	_, err = s.move(s.a, p, 10, s.note("kept"))
	s.must(err)
	if !s.seenNow("kept")[0] {
		s.Error("what a transaction wrote is not there")
	}
}

func (s *suite[Tx]) rollbackOfPanic() {
	p := s.claimed(s.a, id(0), 0)
	func() {
		defer func() {
			if v := recover(); v != "boom" {
				s.Errorf("recovered %v, want the panic of the function", v)
			}
		}()
		_, _ = s.move(s.a, p, 10, func(context.Context, Tx) error { panic("boom") })
	}()
	_, err := s.move(s.a, p, 10, nil)
	s.must(err)
}

func (s *suite[Tx]) try() {
	p := s.claimed(s.a, id(0), 0)
	_, err := s.move(s.a, p, 10, func(ctx context.Context, tx Tx) error {
		s.must(s.note("before")(ctx, tx))
		err := s.a.Try(ctx, tx, func(ctx context.Context) error {
			s.must(s.note("undone")(ctx, tx))
			s.must(s.a.Try(ctx, tx, func(ctx context.Context) error { return s.note("undone inside")(ctx, tx) }))
			return errTest
		})
		if !errors.Is(err, errTest) {
			s.Errorf("the error of the savepoint: %v", err)
		}
		if s.Data != nil {
			err := s.a.Try(ctx, tx, func(ctx context.Context) error { return s.Data(ctx, tx) })
			if err == nil || s.a.Fault(err) != sink.Data {
				s.Errorf("a bad value in a savepoint: %v, a fault of %s, want data", err, s.a.Fault(err))
			}
		}
		s.must(s.a.Try(ctx, tx, func(ctx context.Context) error { return s.note("tried")(ctx, tx) }))
		return s.note("after")(ctx, tx)
	})
	s.must(err)
	if got, want := s.seenNow("after", "before", "tried", "undone", "undone inside"), []bool{true, true, true, false, false}; !slices.Equal(got, want) {
		s.Errorf("after, before, tried, undone, undone inside: %v, want %v", got, want)
	}
}

func (s *suite[Tx]) settle() {
	p := s.claimed(s.a, id(0), 0)
	if done, err := s.a.Settle(s.ctx, p, to(p, 10)); err != nil || done {
		s.Errorf("settle what was not written: %v, %v, want false", done, err)
	}
	_, err := s.move(s.a, p, 10, nil)
	s.must(err)
	if done, err := s.b.Settle(s.ctx, p, to(p, 10)); err != nil || !done {
		s.Errorf("settle what was written: %v, %v, want true", done, err)
	}
	if _, err := s.a.Settle(s.ctx, to(p, 3), to(p, 5)); !errors.Is(err, sink.ErrNotOwner) {
		s.Errorf("settle at neither place: %v, want ErrNotOwner", err)
	}
	s.claimed(s.b, id(0), 0)
	if _, err := s.a.Settle(s.ctx, to(p, 10), to(p, 20)); !errors.Is(err, sink.ErrNotOwner) {
		s.Errorf("settle after another has claimed: %v, want ErrNotOwner", err)
	}
}

func (s *suite[Tx]) settleWaits() {
	p := s.claimed(s.a, id(0), 0)
	begun, release := make(chan struct{}), make(chan struct{})
	moved := make(chan error, 1)
	go func() {
		_, err := s.move(s.a, p, 10, func(context.Context, Tx) error {
			close(begun)
			<-release
			return nil
		})
		moved <- err
	}()
	<-begun
	type answer struct {
		done bool
		err  error
	}
	settled := make(chan answer, 1)
	go func() {
		done, err := s.b.Settle(s.ctx, p, to(p, 10))
		settled <- answer{done, err}
	}()
	select {
	case a := <-settled:
		s.Errorf("settled as %v, %v while the transaction was under way", a.done, a.err)
		close(release)
		s.must(<-moved)
		return
	case <-time.After(100 * time.Millisecond): // it may be right without having waited; the next line is what counts
	}
	close(release)
	s.must(<-moved)
	if a := <-settled; a.err != nil || !a.done {
		s.Errorf("settled as %v, %v, want true", a.done, a.err)
	}
}

func (s *suite[Tx]) unknown() {
	if s.Cut == nil {
		s.Skip("the harness cannot cut connections")
	}
	for _, took := range []bool{true, false} {
		db := s.Cut(s.T, took)
		p := s.claimed(s.a, id(0), 0)
		next, err := s.move(db, p, p.Next+10, nil)
		if !errors.Is(err, sink.ErrUnknownCommit) {
			s.Errorf("a COMMIT without an answer: %v, want ErrUnknownCommit", err)
		}
		if done, err := s.b.Settle(s.ctx, p, next); err != nil || done != took {
			s.Errorf("settled as %v, %v, want %v", done, err, took)
		}
	}
}

func (s *suite[Tx]) faults() {
	p := s.claimed(s.a, id(0), 0)
	if f := s.a.Fault(context.DeadlineExceeded); f != sink.Away && f != sink.Foreign {
		s.Errorf("a deadline is a fault of %s, want away or foreign", f)
	}
	if f := s.a.Fault(fmt.Errorf("a function's own: %w", errTest)); f != sink.Foreign {
		s.Errorf("an error that is not the database's is a fault of %s, want foreign", f)
	}
	if s.Data != nil {
		if _, err := s.move(s.a, p, 1, s.Data); err == nil || s.a.Fault(err) != sink.Data {
			s.Errorf("a bad value: %v, a fault of %s, want data", err, s.a.Fault(err))
		}
	}
	if s.Wrong != nil {
		if _, err := s.move(s.a, p, 1, s.Wrong); err == nil || s.a.Fault(err) != sink.Wrong {
			s.Errorf("a table that is not there: %v, a fault of %s, want wrong", err, s.a.Fault(err))
		}
	}
	_, err := s.move(s.a, p, 1, nil)
	s.must(err)
}
