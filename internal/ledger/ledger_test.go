package ledger

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// logOf is the log that a load makes.
func logOf(records []*kgo.Record) []Entry {
	next := map[int32]int64{}
	out := make([]Entry, 0, len(records))
	for _, r := range records {
		e := entry(r)
		e.Offset, e.Published = next[r.Partition], time.Now()
		next[r.Partition]++
		out = append(out, e)
	}
	return out
}

// right is what a sink without a fault leaves, written independently of Expect: one record after the other.
func right(log []Entry) *Got {
	g := &Got{Regions: map[Window]Sum{}}
	seen, newest, accounts := map[string]bool{}, map[int32]time.Time{}, map[string]Moved{}
	for _, e := range log {
		before := newest[e.Partition]
		if e.Time.After(before) {
			newest[e.Partition] = e.Time
		}
		m, err := decode(e.Value)
		switch {
		case e.Value == nil:
			delete(accounts, e.Key)
			continue
		case err != nil, m.Note != "":
			g.Letters = append(g.Letters, e.Spot, e.Spot) // the second after a crash
			continue
		case seen[e.ID]:
			continue
		}
		seen[e.ID] = true
		row := Row{ID: e.ID, Spot: e.Spot, Account: m.Account, Seq: m.Seq}
		g.ByHand, g.Moves = append(g.ByHand, row), append(g.Moves, row)
		accounts[m.Account] = m
		at := Window{m.Region, e.Time.Truncate(time.Minute)}
		if before.Sub(at.Start) >= 11*time.Minute {
			g.Letters = append(g.Letters, e.Spot)
			continue
		}
		s := g.Regions[at]
		g.Regions[at] = Sum{s.Moves + 1, s.Cents + m.Cents}
	}
	g.Accounts = slices.Collect(maps.Values(accounts))
	return g
}

// What is right is found right, and each thing that can go wrong is told by its name: an event that is missing and one that
// is there twice in each table, an order, a sum, a dead letter.
func TestTheJudge(t *testing.T) {
	t.Parallel()
	records := Plan(Load{Events: 60_000, Partitions: 6, Topic: "t", SchemaID: 7, Seed: 1, From: time.Now().Add(-3 * time.Hour).Truncate(time.Millisecond)})
	log := logOf(records)
	w, err := Expect(log, Takes{})
	if err != nil {
		t.Fatal(err)
	}
	if wrong := w.Differ(right(log)); len(wrong) > 0 {
		t.Fatalf("what is right is found wrong:\n%s", strings.Join(wrong, "\n"))
	}
	t.Logf("%d records, %d events, %d repeats, %d dead letters, %d windows, %d accounts", w.Records, w.Moves(), w.Repeats, w.Letters(), len(w.regions), len(w.accounts))
	if w.Records != 60_000 || w.Repeats < 1500 || w.Letters() < 20 || len(w.regions) < 100 || len(w.accounts) < 200 {
		t.Error("the load has too little of something")
	}
	window := slices.SortedFunc(maps.Keys(w.regions), byWindow)[0]
	tests := []struct {
		name  string
		plant func(g *Got)
		want  string
	}{
		{"a row by hand is lost", func(g *Got) { g.ByHand = slices.Delete(g.ByHand, 700, 701) }, "by_hand, missing: event "},
		{"a row by hand is double", func(g *Got) { g.ByHand = append(g.ByHand, g.ByHand[700]) }, "by_hand, twice: event "},
		{"one is lost and one is double", func(g *Got) { g.ByHand[700] = g.ByHand[699] }, "by_hand, missing: event "},
		{"a row by hand of nobody", func(g *Got) { g.ByHand[9].ID = "x" }, "by_hand, too much: event x"},
		{"rows by hand in another order", func(g *Got) { slices.Reverse(g.ByHand[500:520]) }, "by_hand, order: partition "},
		{"a row is lost", func(g *Got) { g.Moves = slices.Delete(g.Moves, 700, 701) }, "moves, missing: event "},
		{"a row is double", func(g *Got) { g.Moves = append(g.Moves, g.Moves[700]) }, "moves, twice: event "},
		{"an account is old", func(g *Got) { g.Accounts[3].Seq-- }, "accounts: account-"},
		{"an account is lost", func(g *Got) { g.Accounts = g.Accounts[1:] }, "accounts, missing: account-"},
		{"an account was deleted", func(g *Got) { g.Accounts[3].Account = "account-9999" }, "accounts, too much: account-9999"},
		{"an event is folded twice", func(g *Got) {
			s := g.Regions[window]
			g.Regions[window] = Sum{s.Moves + 1, s.Cents + 5}
		}, "fold regions: " + window.String()},
		{"a window is lost", func(g *Got) { delete(g.Regions, window) }, "fold regions, missing: " + window.String()},
		{"a window too much", func(g *Got) { g.Regions[Window{"nowhere", window.Start}] = Sum{1, 1} }, "fold regions, too much: nowhere"},
		{"a dead letter is lost", func(g *Got) { g.Letters = g.Letters[2:] }, "dead letters, missing: partition "},
		{"a dead letter too much", func(g *Got) { g.Letters = append(g.Letters, Spot{1, 1 << 40}) }, "dead letters, too much: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := right(log)
			tt.plant(g)
			wrong := w.Differ(g)
			if len(wrong) == 0 || !slices.ContainsFunc(wrong, func(s string) bool { return strings.HasPrefix(s, tt.want) }) {
				t.Errorf("told %q, want %q…", wrong, tt.want)
			}
		})
	}
}

// The same seed is the same load; another is another.
func TestAPlanIsMadeAgain(t *testing.T) {
	t.Parallel()
	plan := func(seed uint64) (ids []string) {
		for _, r := range Plan(Load{Events: 2000, Partitions: 3, Topic: "t", Seed: seed, From: time.Unix(1e9, 0)}) {
			ids = append(ids, string(r.Headers[0].Value))
		}
		return ids
	}
	if !slices.Equal(plan(1), plan(1)) || slices.Equal(plan(1), plan(2)) {
		t.Error("the seed does not make the load")
	}
}
