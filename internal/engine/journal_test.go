package engine_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
)

// journal is what happened in a test, in order: the evidence that check judges.
type journal struct {
	mu      sync.Mutex
	entries []entry
}

type entry struct {
	what   string // assigned, revoked, handled, committed, refused
	member string
	id     cursor.ID
	offset int64 // handled: of the record; committed: the position
	key    string
	err    error
}

func (j *journal) add(e entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, e)
}

func (j *journal) count(what string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.entries {
		if e.what == what {
			n++
		}
	}
	return n
}

func (j *journal) all() []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]entry(nil), j.entries...)
}

// check returns what a correct engine never does to the records of log: skip one, let the position pass one that
// was not handled, handle a key's records out of order for the first time, or commit what was given up.
func (j *journal) check(log []*kgo.Record) (violations []string) {
	type place struct {
		partition int32
		offset    int64
	}
	handled := map[place]bool{}
	last := map[string]int64{}
	gone := map[string]bool{} // member and partition
	bad := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }
	for _, e := range j.all() {
		at := fmt.Sprintf("%s %d", e.member, e.id.Partition)
		switch e.what {
		case "assigned":
			gone[at] = false
		case "revoked":
			gone[at] = true
		case "handled":
			p := place{e.id.Partition, e.offset}
			key := fmt.Sprintf("%d %s", e.id.Partition, e.key)
			if !handled[p] {
				if before, ok := last[key]; ok && before > e.offset {
					bad("order: key %s: offset %d handled after %d", e.key, e.offset, before)
				}
				last[key] = e.offset
			}
			handled[p] = true
		case "committed":
			if gone[at] {
				bad("late: %s committed %d after it was revoked", at, e.offset)
			}
			for _, r := range log {
				if r.Partition == e.id.Partition && r.Offset < e.offset && !handled[place{r.Partition, r.Offset}] {
					bad("early: %s committed %d before offset %d was handled", at, e.offset, r.Offset)
					break
				}
			}
		}
	}
	for _, r := range log {
		if !handled[place{r.Partition, r.Offset}] {
			bad("lost: offset %d of partition %d was never handled", r.Offset, r.Partition)
		}
	}
	return violations
}

func (j *journal) mustBeClean(t *testing.T, log []*kgo.Record) {
	t.Helper()
	for i, v := range j.check(log) {
		if i == 10 {
			t.Fatal("and more")
		}
		t.Error(v)
	}
}

// witness is the observer and the store of one member, both writing to the journal.
type witness struct {
	cursor.Store
	j      *journal
	member string

	mu       sync.Mutex
	problems []error
	lag      map[cursor.ID]int64
	age      time.Duration
}

func newWitness(j *journal, member string, s cursor.Store) *witness {
	return &witness{Store: s, j: j, member: member, lag: map[cursor.ID]int64{}}
}

func (w *witness) Commit(ctx context.Context, cs map[cursor.ID]cursor.Claimed) (map[cursor.ID]error, error) {
	refused, err := w.Store.Commit(ctx, cs)
	for id, c := range cs {
		e := entry{what: "committed", member: w.member, id: id, offset: c.Position}
		if e.err = refused[id]; e.err == nil {
			e.err = err
		}
		if e.err != nil {
			e.what = "refused"
		}
		w.j.add(e)
	}
	return refused, err
}

func (w *witness) Assigned(start map[cursor.ID]int64) {
	for id, at := range start {
		w.j.add(entry{what: "assigned", member: w.member, id: id, offset: at})
	}
}

func (w *witness) Revoked(ids []cursor.ID, _ bool) {
	for _, id := range ids {
		w.j.add(entry{what: "revoked", member: w.member, id: id})
	}
}

func (w *witness) Handled(cursor.ID, int, int, time.Duration) {}
func (w *witness) Committed(int, time.Duration, error)        {}

func (w *witness) Lag(id cursor.ID, offsets int64, age time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lag[id], w.age = offsets, max(w.age, age)
}

func (w *witness) Problem(_ cursor.ID, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, err)
}

func (w *witness) seen() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]error(nil), w.problems...)
}

// handler records what it is given once each verdict is done.
type handler struct {
	j      *journal
	member string
	f      func(ctx context.Context, b engine.Batch, i int) verdict.Verdict // nil = done
}

func (h handler) Handle(ctx context.Context, b engine.Batch) []verdict.Verdict {
	out := make([]verdict.Verdict, 0, len(b.Items))
	for i, it := range b.Items {
		if i > 0 && b.Draining() {
			return out
		}
		var v verdict.Verdict
		if h.f != nil {
			v = h.f(ctx, b, i)
		}
		if v.Resolved() {
			h.j.add(entry{what: "handled", member: h.member, id: b.ID, offset: it.Record.Offset, key: string(it.Record.Key)})
		}
		out = append(out, v)
		if !v.Resolved() {
			return out
		}
	}
	return out
}

type handlerFunc func(ctx context.Context, b engine.Batch) []verdict.Verdict

func (f handlerFunc) Handle(ctx context.Context, b engine.Batch) []verdict.Verdict { return f(ctx, b) }

// records returns n records of partition p; step is the distance of their offsets.
func records(p int32, n int, step int64) []*kgo.Record {
	out := make([]*kgo.Record, n)
	for i := range out {
		out[i] = &kgo.Record{
			Topic: "orders", Partition: p, Offset: int64(i) * step, Key: fmt.Appendf(nil, "k%d", i%7),
			Value: []byte("v"), Timestamp: time.Now(), LeaderEpoch: 3,
		}
	}
	return out
}

// scripted is a feed whose test says what happens.
type scripted struct {
	owner chan engine.Owner
	polls chan kgo.Fetches
	mu    sync.Mutex
	pause map[cursor.ID]bool
	limit []int
}

func newScripted() *scripted {
	return &scripted{owner: make(chan engine.Owner, 1), polls: make(chan kgo.Fetches, 100), pause: map[cursor.ID]bool{}}
}

func (s *scripted) Run(ctx context.Context, o engine.Owner) error {
	s.owner <- o
	<-ctx.Done()
	return nil
}

func (s *scripted) Poll(ctx context.Context, limit int) kgo.Fetches {
	s.mu.Lock()
	s.limit = append(s.limit, limit)
	s.mu.Unlock()
	select {
	case f := <-s.polls:
		return f
	case <-ctx.Done():
		return kgo.NewErrFetch(ctx.Err())
	}
}

func (s *scripted) Release() {}

func (s *scripted) Starts(_ context.Context, ids []cursor.ID) (map[cursor.ID]int64, error) {
	out := map[cursor.ID]int64{}
	for _, id := range ids {
		out[id] = 0
	}
	return out, nil
}

func (s *scripted) Seek(cursor.ID, int64) error { return nil }

func (s *scripted) Pause(id cursor.ID, paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pause[id] = paused
}

// push delivers records of one partition.
func (s *scripted) push(rs ...*kgo.Record) {
	s.polls <- kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: rs[0].Topic, Partitions: []kgo.FetchPartition{{
		Partition: rs[0].Partition, Records: append([]*kgo.Record(nil), rs...),
		HighWatermark: rs[len(rs)-1].Offset + 1, LastStableOffset: -1,
	}}}}}}
}

func idOf(p int32) cursor.ID { return cursor.ID{Reader: "g", Topic: "orders", Partition: p} }
