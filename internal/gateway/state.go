package gateway

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/signature"
)

// The bounds on what is remembered of a source.
const (
	maxIDs      = 4 << 20 // fingerprints of senders' ids: 32 MiB
	maxBodies   = 1 << 20 // of bodies, which are remembered for minutes
	maxRefusals = 1000
	maxHalves   = 10_000
	maxFresh    = 256 << 10 // fingerprints between two snapshots
)

// state is what a source has in memory: who is on the way, and who was seen. It outlives reloads.
type state struct {
	name     string
	requests atomic.Int64
	bucket   bucket
	gone     time.Time // since when there is no such source; of Gateway.reloading

	mu       sync.Mutex
	idFor    time.Duration // how long ids are remembered, and bodies: a reload chooses
	bodyFor  time.Duration
	unread   bool // what was kept of it before is not read back yet
	ids      *table
	bodies   *table
	flights  map[string]*flight
	halves   map[string]half // of an id whose events are acknowledged in part
	fresh    []mark          // acknowledged since the last snapshot
	unkept   uint64          // acknowledged, and too many for a snapshot
	pass     int             // so many repeats are published all the same
	refusals []Refusal
	refused  uint64
	evicted  uint64 // as it was reported last
}

// mark is an acknowledged id.
type mark struct {
	kind byte
	f    fingerprint
}

func newState(name string) *state {
	return &state{name: name, flights: map[string]*flight{}, halves: map[string]half{}}
}

// Refusal is an event that its sender was told to send again, and that was not acknowledged since.
type Refusal struct {
	// ID is the sender's id, or the SHA-256 of the body where it has none.
	ID string `json:"id"`
	// At is when it arrived, Request the id that the sender was told.
	At      time.Time `json:"at"`
	Request string    `json:"request"`
}

// The kinds of ids.
const (
	kindID   byte = 'i'
	kindBody byte = 'b'
)

// repeat is what a repeat is told by: one or two ids.
type repeat struct{ id, body string }

// keys returns what a repeat of r is told by.
func (r *request) keys() repeat {
	req := r.signed()
	req.Body = r.decoded
	id := r.identity.Identify(req)
	return repeat{id.ID, id.Body}
}

// signed is the request as the signer sees it.
func (r *request) signed() *signature.Request {
	return &signature.Request{Method: r.method, URL: r.url(r.http.URL), Header: r.header, Body: r.body}
}

// name is what the sender knows the event by, and what its ce_id is made of.
func (k repeat) name() string {
	if k.id != "" {
		return k.id
	}
	return "sha256:" + k.body
}

// texts are the ids with their kinds.
func (k repeat) texts() []string {
	var out []string
	if k.id != "" {
		out = append(out, string(kindID)+k.id)
	}
	if k.body != "" {
		out = append(out, string(kindBody)+k.body)
	}
	return out
}

// half is what was acknowledged: bit 0 is the envelope, bit 1+i the i-th of events. A reload may have changed these.
type half struct {
	acked  uint64
	events []*Mapped
}

// among says the same by the order of other events. One that is not among them counts for nothing.
func (h half) among(events []*Mapped) half {
	out := half{h.acked & 1, events}
	for i, m := range h.events {
		if j := slices.IndexFunc(events, m.same); j >= 0 {
			out.acked |= h.acked >> (1 + i) & 1 << (1 + j)
		}
	}
	return out
}

// flight is an event between its claim and its outcome.
type flight struct {
	keys repeat
	half half          // what an earlier attempt got through
	sent atomic.Bool   // it was handed to the producer
	done chan struct{} // closed when the outcome is known
	err  error         // nil = acknowledged
}

// claim is what became of a claim.
type claim int

const (
	claimOwn  claim = iota // publish it
	claimWait              // it is under way: wait for the flight
	claimSeen              // it was acknowledged
)

// table returns the table of a kind, nil where nothing of it was seen yet.
func (s *state) table(kind byte) *table {
	if kind == kindID {
		return s.ids
	}
	return s.bodies
}

// makeTable returns the table of a kind.
func (s *state) makeTable(kind byte) *table {
	at, most, window := &s.ids, maxIDs, s.idFor
	if kind == kindBody {
		at, most, window = &s.bodies, maxBodies, s.bodyFor
	}
	if *at == nil {
		*at = newTable(most, window)
	}
	return *at
}

// remember chooses for how long ids and bodies are remembered; those that are stay. It reports whether there may be more
// to read back: of a new source, and of one that remembers longer than before.
func (s *state) remember(ids, bodies time.Duration, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	longer := ids > s.idFor || bodies > s.bodyFor
	s.unread = s.unread || longer
	s.idFor, s.bodyFor = ids, bodies
	if s.ids != nil {
		s.ids.rewindow(ids, now)
	}
	if s.bodies != nil {
		s.bodies.rewindow(bodies, now)
	}
	return longer
}

// claim says whether the caller must publish, wait or thank.
func (s *state) claim(k repeat, now time.Time) (*flight, claim) {
	texts := k.texts()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range texts {
		if f := s.flights[t]; f != nil {
			return f, claimWait
		}
	}
	if s.has(texts, now) {
		if s.pass == 0 {
			return nil, claimSeen
		}
		s.pass--
	}
	f := &flight{keys: k, half: s.halves[texts[0]], done: make(chan struct{})}
	for _, t := range texts {
		s.flights[t] = f
	}
	return f, claimOwn
}

// known reports whether an event was acknowledged.
func (s *state) known(k repeat, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has(k.texts(), now)
}

// has is known. The caller holds mu.
func (s *state) has(texts []string, now time.Time) bool {
	return slices.ContainsFunc(texts, func(t string) bool {
		tab := s.table(t[0])
		return tab != nil && tab.has(printOf(t[0], t[1:]), now)
	})
}

// settle ends a flight: nil remembers its ids, and only then. acked are the events that got through.
func (s *state) settle(f *flight, acked uint64, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	texts := f.keys.texts()
	if err == nil {
		s.mark(f.keys, now)
		s.refusals = slices.DeleteFunc(s.refusals, func(r Refusal) bool { return r.ID == f.keys.name() })
		delete(s.halves, texts[0])
	} else if acked != 0 {
		if len(s.halves) >= maxHalves {
			for old := range s.halves {
				delete(s.halves, old)
				break
			}
		}
		s.halves[texts[0]] = half{acked, f.half.events}
	}
	for _, t := range texts {
		delete(s.flights, t)
	}
	f.err = err
	close(f.done)
}

// mark remembers ids. The caller holds mu.
func (s *state) mark(k repeat, now time.Time) {
	for _, t := range k.texts() {
		f := printOf(t[0], t[1:])
		s.makeTable(t[0]).add(f, now, now)
		if len(s.fresh) < maxFresh {
			s.fresh = append(s.fresh, mark{t[0], f})
		} else {
			s.unkept++
		}
	}
}

// refuse notes that a sender was told to come again. The oldest goes when there are too many.
func (s *state) refuse(r Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	for i := range s.refusals {
		if s.refusals[i].ID == r.ID {
			s.refusals[i] = r
			return
		}
	}
	if len(s.refusals) >= maxRefusals {
		s.refusals = slices.Delete(s.refusals, 0, 1)
	}
	s.refusals = append(s.refusals, r)
}

// evictions are those since the last call.
func (s *state) evictions() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total uint64
	for _, t := range []*table{s.ids, s.bodies} {
		if t != nil {
			total += t.Evicted
		}
	}
	n := total - min(s.evicted, total)
	s.evicted = total
	return n
}

// health says whether the gateway gets through to Kafka.
type health struct {
	since atomic.Int64 // nanoseconds: the first failure without a success after it; 0 is none
}

// deafAfter is how long nothing may get through before the gateway says that it is not ready: long after a leader
// election, because a balancer that finds nobody ready answers in our place.
const deafAfter = 30 * time.Second

// failed reports whether it is the first failure, succeeded whether it is the first success after one.
func (h *health) failed(now time.Time) bool { return h.since.CompareAndSwap(0, now.UnixNano()) }
func (h *health) succeeded() bool           { return h.since.Load() != 0 && h.since.Swap(0) != 0 }

func (h *health) deaf(now time.Time) bool {
	since := h.since.Load()
	return since != 0 && now.Sub(time.Unix(0, since)) > deafAfter
}
