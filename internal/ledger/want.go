package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Takes is what a sink takes of what decodes.
type Takes struct {
	Zero    bool // text with a zero byte: SQLite does, PostgreSQL does not
	Refused bool // what is to be refused: a sink without [ByHand]
}

// Want is what the tables and the dead letters have to hold.
type Want struct {
	moves    map[string]*move  // by id
	accounts map[string]Moved  // that are not deleted
	regions  map[Window]Sum    //
	letters  map[Spot]string   // and why
	whose    map[Window]string // an event of the window, to be named
	Repeats  int               // records whose id an earlier one has, and those in another partition
	Records  int               // of the log
}

// Window is a key of the fold.
type Window struct {
	Region string
	Start  time.Time
}

func (w Window) String() string { return w.Region + " from " + w.Start.UTC().Format(time.RFC3339) }

// move is an event, and the spots of its records.
type move struct {
	Moved
	spots []Spot
}

// Expect computes what has to be in the tables from the log: an id counts once, an account is what its own partition
// says last, an event is late by what its partition had before it.
func Expect(log []Entry, t Takes) (*Want, error) {
	w := &Want{
		moves: map[string]*move{}, accounts: map[string]Moved{}, regions: map[Window]Sum{}, letters: map[Spot]string{},
		whose: map[Window]string{}, Records: len(log),
	}
	log = slices.Clone(log)
	slices.SortFunc(log, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	home := homes(log)
	newest := map[int32]time.Time{}
	for i := range log {
		e := &log[i]
		if i > 0 && log[i-1].Spot == e.Spot {
			return nil, fmt.Errorf("%s was read twice", e.Spot)
		}
		if err := w.add(e, newest[e.Partition], home[e.Key] == e.Partition, t); err != nil {
			return nil, err
		}
		at := e.Time
		if at.After(e.Published) {
			at = e.Published
		}
		if at.After(newest[e.Partition]) {
			newest[e.Partition] = at
		}
	}
	return w, nil
}

// homes are the partitions of the accounts: each has some repeats elsewhere.
func homes(log []Entry) map[string]int32 {
	type place struct {
		key       string
		partition int32
	}
	count, out := map[place]int{}, map[string]int32{}
	for i := range log {
		p := place{log[i].Key, log[i].Partition}
		count[p]++
		if at, ok := out[p.key]; !ok || count[p] > count[place{p.key, at}] {
			out[p.key] = p.partition
		}
	}
	return out
}

func (w *Want) add(e *Entry, newest time.Time, home bool, t Takes) error {
	if e.Value == nil {
		delete(w.accounts, e.Key)
		return nil
	}
	m, err := e.Moved()
	switch {
	case err != nil:
		w.letters[e.Spot] = "it does not decode"
		return nil //nolint:nilerr // that is what is wanted of it
	case m.Note == refused && !t.Refused:
		w.letters[e.Spot] = "the function refuses it"
		return nil
	case m.Note == nul && !t.Zero:
		w.letters[e.Spot] = "the database does not take it"
		return nil
	}
	at := Window{m.Region, e.Time.Truncate(window).UTC()}
	late := !newest.Before(at.Start.Add(window + lateness))
	if before, ok := w.moves[e.ID]; ok {
		w.Repeats++
		if before.Moved != m {
			return fmt.Errorf("id %s has two events: %+v and, at %s, %+v", e.ID, before.Moved, e.Spot, m)
		}
		elsewhere := before.spots[0].Partition != e.Partition
		before.spots = append(before.spots, e.Spot)
		if !elsewhere {
			return nil
		}
		if _, buried := w.letters[before.spots[0]]; buried || late {
			return fmt.Errorf("%s repeats %s, and one of them is late: what is right depends on which is read first", e.Spot, before.spots[0])
		}
		if home {
			w.accounts[m.Account] = m
		}
		return nil
	}
	w.moves[e.ID] = &move{m, []Spot{e.Spot}}
	if home {
		w.accounts[m.Account] = m
	}
	if late {
		w.letters[e.Spot] = "its window had closed"
		return nil
	}
	s := w.regions[at]
	w.regions[at] = Sum{s.Moves + 1, s.Cents + m.Cents}
	w.whose[at] = e.ID
	return nil
}

// Moves is how many events there are, repeats not counted.
func (w *Want) Moves() int { return len(w.moves) }

// Letters is how many events have to be dead letters.
func (w *Want) Letters() int { return len(w.letters) }

// Row is a row of the table by_hand.
type Row struct {
	ID string
	Spot
	Account string
	Seq     int64
}

// Rows are the rows of by_hand as they have to be, for a sink that has no function.
func (w *Want) Rows() []Row {
	out := make([]Row, 0, len(w.moves))
	for id, m := range w.moves {
		out = append(out, Row{id, m.spots[0], m.Account, m.Seq})
	}
	slices.SortFunc(out, func(a, b Row) int { return bySpot(a.Spot, b.Spot) })
	return out
}

// Got is what was found. ByHand is in the order in which it was written.
type Got struct {
	ByHand   []Row
	Moves    []Row // without a spot
	Accounts []Moved
	Regions  map[Window]Sum
	Letters  []Spot
}

// most is how many differences of a kind are told.
const most = 5

// report gathers differences; of each kind, those after the first few are counted.
type report struct {
	lines []string
	count map[string]int
}

func (r *report) add(kind, format string, args ...any) {
	if r.count[kind]++; r.count[kind] <= most {
		r.lines = append(r.lines, kind+": "+fmt.Sprintf(format, args...))
	}
}

func (r *report) all() []string {
	for _, kind := range slices.Sorted(maps.Keys(r.count)) {
		if n := r.count[kind]; n > most {
			r.lines = append(r.lines, fmt.Sprintf("%s: %d more", kind, n-most))
		}
	}
	return r.lines
}

// Differ tells in which way what was found differs from what is wanted; nothing when it does not.
func (w *Want) Differ(g *Got) []string {
	r := &report{count: map[string]int{}}
	w.rows(r, "by_hand", g.ByHand, true)
	w.rows(r, "moves", g.Moves, false)
	w.wantAccounts(r, g)
	for _, at := range slices.SortedFunc(maps.Keys(w.regions), byWindow) {
		if got, ok := g.Regions[at]; !ok {
			r.add("fold regions, missing", "%s: want %+v, the last from event %s", at, w.regions[at], w.whose[at])
		} else if got != w.regions[at] {
			r.add("fold regions", "%s is %+v, want %+v", at, got, w.regions[at])
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(g.Regions), byWindow) {
		if _, ok := w.regions[at]; !ok {
			r.add("fold regions, too much", "%s: %+v", at, g.Regions[at])
		}
	}
	w.wantLetters(r, g)
	return r.all()
}

func byWindow(a, b Window) int {
	return cmp.Or(cmp.Compare(a.Region, b.Region), a.Start.Compare(b.Start))
}

func bySpot(a, b Spot) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}

// rows judges a table that has a row for each event.
func (w *Want) rows(r *report, table string, rows []Row, inOrder bool) {
	found, last := make(map[string]Row, len(rows)), map[int32]Row{}
	for _, row := range rows {
		m, ok := w.moves[row.ID]
		switch first, twice := found[row.ID]; {
		case twice:
			r.add(table+", twice", "event %s (%s): at %s and at %s", row.ID, row.Account, first.Spot, row.Spot)
		case !ok:
			r.add(table+", too much", "event %s (%s)", row.ID, row.Account)
		case row.Account != m.Account || row.Seq != m.Seq:
			r.add(table, "event %s is movement %d of %s, want %d of %s", row.ID, row.Seq, row.Account, m.Seq, m.Account)
		case inOrder && !slices.Contains(m.spots, row.Spot):
			r.add(table, "event %s was read at %s, want %v", row.ID, row.Spot, m.spots)
		}
		found[row.ID] = row
		if before, ok := last[row.Partition]; inOrder && ok && before.Offset >= row.Offset {
			r.add(table+", order", "partition %d: offset %d (event %s) was written after offset %d (event %s)", row.Partition, row.Offset, row.ID, before.Offset, before.ID)
		}
		last[row.Partition] = row
	}
	if len(found) >= len(w.moves) && len(rows) == len(found) {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(w.moves)) {
		if _, ok := found[id]; !ok {
			r.add(table+", missing", "event %s (movement %d of %s), which is at %v", id, w.moves[id].Seq, w.moves[id].Account, w.moves[id].spots)
		}
	}
}

func (w *Want) wantAccounts(r *report, g *Got) {
	found := map[string]bool{}
	for _, got := range g.Accounts {
		want, ok := w.accounts[got.Account]
		switch {
		case found[got.Account]:
			r.add("accounts, twice", "%s", got.Account)
		case !ok:
			r.add("accounts, too much", "%s was deleted, and is %+v", got.Account, got)
		case got != want:
			r.add("accounts", "%s is %+v, want %+v", got.Account, got, want)
		}
		found[got.Account] = true
	}
	for _, account := range slices.Sorted(maps.Keys(w.accounts)) {
		if !found[account] {
			r.add("accounts, missing", "%s: want %+v", account, w.accounts[account])
		}
	}
}

func (w *Want) wantLetters(r *report, g *Got) {
	found := map[Spot]bool{}
	for _, at := range g.Letters {
		if _, ok := w.letters[at]; !ok && !found[at] {
			r.add("dead letters, too much", "that of %s", at)
		}
		found[at] = true // a crash may repeat it
	}
	for _, at := range slices.SortedFunc(maps.Keys(w.letters), bySpot) {
		if !found[at] {
			r.add("dead letters, missing", "%s: %s", at, w.letters[at])
		}
	}
}
