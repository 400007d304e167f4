package sinktest

import (
	"context"
	"slices"
	"time"

	"github.com/millrace/millrace/sink"
)

// What a sink remembers beside its position: ids that were seen, and the states of folds.

func (s *suite[Tx]) seen() {
	p := s.claimed(s.a, id(0), 0)
	var err error
	for _, tt := range []struct {
		ids  []string
		want []bool
	}{
		{[]string{"a", "b", "d"}, []bool{false, false, false}},
		{[]string{"a", "c", "d"}, []bool{true, false, true}},
		{[]string{"A", "a", "é", "日本"}, []bool{false, true, false, false}},
		{[]string{"é", "日本"}, []bool{true, true}},
		{nil, nil},
	} {
		p, err = s.move(s.a, p, p.Next+1, func(ctx context.Context, tx Tx) error {
			got, err := s.a.Seen(ctx, tx, sinkName, tt.ids, time.Hour)
			if !slices.Equal(got, tt.want) {
				s.Errorf("%v seen: %v, want %v", tt.ids, got, tt.want)
			}
			return err
		})
		s.must(err)
	}
	_, err = s.move(s.a, p, p.Next+1, func(ctx context.Context, tx Tx) error {
		got, err := s.a.Seen(ctx, tx, "another sink", []string{"a"}, time.Hour)
		if slices.Contains(got, true) {
			s.Error("another sink's ids are seen")
		}
		return err
	})
	s.must(err)
}

// race runs f in two transactions of two members at once, until both are committed. An error that says Again is
// tried again, as a Mux does.
func (s *suite[Tx]) race(f func(db sink.DB[Tx], ctx context.Context, tx Tx) error) {
	s.Helper()
	var places [2]sink.Place
	for i := range places {
		places[i] = s.claimed(s.a, id(int32(10+i)), 0)
	}
	errs := make(chan error, 2)
	for i, db := range []sink.DB[Tx]{s.a, s.b} {
		go func() {
			var err error
			for range 100 {
				if _, err = s.move(db, places[i], 1, func(ctx context.Context, tx Tx) error { return f(db, ctx, tx) }); err == nil || db.Fault(err) != sink.Again {
					break
				}
			}
			errs <- err
		}()
	}
	s.must(<-errs)
	s.must(<-errs)
}

func (s *suite[Tx]) seenAtOnce() {
	for round := range 20 {
		ids := []string{"x" + string(rune('a'+round)), "y" + string(rune('a'+round))}
		fresh := make(chan int, 200)
		s.race(func(db sink.DB[Tx], ctx context.Context, tx Tx) error {
			seen, err := db.Seen(ctx, tx, sinkName, ids, time.Hour)
			if err != nil {
				return err
			}
			n := 0
			for _, was := range seen {
				if !was {
					n++
				}
			}
			fresh <- n
			return nil
		})
		total := 0
		for len(fresh) > 0 {
			total += <-fresh
		}
		if total != 2 {
			s.Fatalf("round %d: two members took %d of 2 ids for new", round, total)
		}
	}
}

func (s *suite[Tx]) fold() {
	p := s.claimed(s.a, id(0), 0)
	hour := time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)
	keys := []sink.FoldKey{{Key: ""}, {Key: "DE"}, {Key: "DE", Window: hour}, {Key: "DE", Window: hour.Add(time.Hour)}, {Key: "日本"}}
	step := func(want []string, states ...string) {
		s.Helper()
		var err error
		p, err = s.move(s.a, p, p.Next+1, func(ctx context.Context, tx Tx) error {
			got, err := s.a.Load(ctx, tx, foldName, keys)
			if err != nil {
				return err
			}
			texts := make([]string, len(got))
			for i := range got {
				texts[i] = string(got[i])
			}
			if !slices.EqualFunc(texts, want, sameJSON) {
				s.Errorf("states %q, want %q", texts, want)
			}
			if len(states) == 0 {
				return nil
			}
			bytes := make([][]byte, len(states))
			for i := range states {
				bytes[i] = []byte(states[i])
			}
			return s.a.Store(ctx, tx, foldName, keys, bytes)
		})
		s.must(err)
	}
	none := make([]string, len(keys))
	step(none) // loaded and not stored: as if it had not been
	one := []string{`{"n":1}`, `{"n":2}`, `{"n":3}`, `{"n":4}`, `{"s":"ß\u0001"}`}
	step(none, one...)
	two := []string{`1`, `"a"`, `[1,2]`, `null`, `{"n":9007199254740993}`}
	step(one, two...)
	step(two)
	_, err := s.move(s.a, p, p.Next+1, func(ctx context.Context, tx Tx) error {
		got, err := s.a.Load(ctx, tx, otherFold, keys[:2])
		if err == nil && (got[0] != nil || got[1] != nil) {
			s.Errorf("another fold has the states %q", got)
		}
		return err
	})
	s.must(err)
}

// sameJSON compares states but for white space, which a database is free to change between tokens.
func sameJSON(a, b string) bool {
	strip := func(s string) string {
		return string(slices.DeleteFunc([]byte(s), func(c byte) bool { return c == ' ' }))
	}
	return strip(a) == strip(b)
}

func (s *suite[Tx]) foldAtOnce() {
	for round := range 20 {
		keys := []sink.FoldKey{{Key: "k" + string(rune('a'+round))}, {Key: "l" + string(rune('a'+round))}}
		s.race(func(db sink.DB[Tx], ctx context.Context, tx Tx) error {
			states, err := db.Load(ctx, tx, foldName, keys)
			if err != nil {
				return err
			}
			next := make([][]byte, len(states))
			for i, st := range states {
				next[i] = append([]byte("1"), st...) // 1, 11
			}
			return db.Store(ctx, tx, foldName, keys, next)
		})
		p := s.claimed(s.a, id(0), 0)
		_, err := s.move(s.a, p, p.Next+1, func(ctx context.Context, tx Tx) error {
			states, err := s.a.Load(ctx, tx, foldName, keys)
			for i, st := range states {
				if string(st) != "11" {
					s.Errorf("round %d: state of %s is %s, want 11: one of two updates is lost", round, keys[i].Key, st)
				}
			}
			return err
		})
		s.must(err)
	}
}

// many is a batch of the largest usual size.
func (s *suite[Tx]) many() {
	const n = 5000
	p := s.claimed(s.a, id(0), 0)
	ids, keys, states := make([]string, n), make([]sink.FoldKey, n), make([][]byte, n)
	for i := range n {
		ids[i] = string([]byte{'0' + byte(i/1000), '0' + byte(i/100%10), '0' + byte(i/10%10), '0' + byte(i%10)})
		keys[i], states[i] = sink.FoldKey{Key: ids[i]}, []byte(`{"n":`+"1"+ids[i]+`}`)
	}
	var err error
	for round := range 2 {
		p, err = s.move(s.a, p, p.Next+n, func(ctx context.Context, tx Tx) error {
			seen, err := s.a.Seen(ctx, tx, sinkName, ids, time.Hour)
			if err != nil {
				return err
			}
			if slices.Contains(seen, round == 0) || len(seen) != n {
				s.Errorf("round %d: %d answers, some of them wrong", round, len(seen))
			}
			old, err := s.a.Load(ctx, tx, foldName, keys)
			if err != nil {
				return err
			}
			for i := range old {
				if got := string(old[i]); round == 1 && !sameJSON(got, string(states[i])) || round == 0 && got != "" {
					s.Fatalf("round %d: state %d is %q", round, i, got)
				}
			}
			return s.a.Store(ctx, tx, foldName, keys, states)
		})
		s.must(err)
	}
}
