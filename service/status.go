package service

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/producer"
)

// StatusEnv is the variable that names a file descriptor, opened by the parent process, to which the service writes
// a [Status] as a line of JSON once a second. It is how millrace dev shows its children.
const StatusEnv = "MILLRACE_STATUS_FD"

// Status is how a service stands.
type Status struct {
	Service     string  `json:"service"`
	State       string  `json:"state"`             // starting, running, replaying, paused, waiting (for a dependency) or stopping
	Handled     int64   `json:"handled"`           // events since the start: handled, or published by a service without consumers
	Rate        float64 `json:"rate"`              // of Handled, a second, over the last five seconds
	Lag         int64   `json:"lag"`               // events behind the end of the log, over all partitions
	LagSeconds  float64 `json:"lag_seconds"`       // age of the oldest event that is read and not done
	DeadLetters int64   `json:"dead_letters"`      // since the start
	Result      string  `json:"result"`            // what Service.Report says
	Metrics     string  `json:"metrics,omitempty"` // the URL of the metrics, where they are served
	Paused      string  `json:"paused,omitempty"`  // which groups were told to pause, by whom and until when
}

// stats collects what a Status says. It is the observer of every consumer of the service.
type stats struct {
	mu      sync.Mutex
	status  Status // Handled counts what consumers handled
	sent    int64  // acknowledged events of all producers
	consume bool   // the service has a consumer
	line    func() string
	lag     map[cursor.ID]lag
	waiting map[cursor.ID]bool
	pauses  map[string]groups.Control // by group: those that hold
	history []int64                   // Handled at the last ticks, oldest first
}

type lag struct {
	events int64
	age    time.Duration
}

// window is how many ticks of a second Rate looks back.
const window = 5

func newStats(name string) *stats {
	return &stats{status: Status{Service: name, State: "starting"}, lag: map[cursor.ID]lag{}, waiting: map[cursor.ID]bool{}, pauses: map[string]groups.Control{}}
}

func (s *stats) set(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.State = state
}

func (s *stats) state() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.State
}

func (s *stats) serves(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Metrics = url
}

func (s *stats) report(line func() string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = line
}

// pause notes a pause that holds, resume that none does.
func (s *stats) pause(told groups.Control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pauses[told.Group] = told
}

func (s *stats) resume(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pauses, group)
}

func (s *stats) isPaused(group string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.pauses[group]
	return ok
}

// paused says who has paused what, "" where nothing is.
func (s *stats) paused() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pausedBy()
}

func (s *stats) pausedBy() string {
	var out []string
	for _, group := range slices.Sorted(maps.Keys(s.pauses)) {
		told := s.pauses[group]
		out = append(out, fmt.Sprintf("%s by %s until %s", group, cmp.Or(told.By, "somebody"), told.Until.UTC().Format(time.RFC3339)))
	}
	return strings.Join(out, "; ")
}

// tick is the status at the end of a second.
func (s *stats) tick() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	if !s.consume {
		st.Handled = s.sent
	}
	for _, l := range s.lag {
		st.Lag += max(l.events, 0)
		st.LagSeconds = max(st.LagSeconds, l.age.Seconds())
	}
	st.Paused = s.pausedBy()
	switch {
	case st.State != "running":
	case st.Paused != "":
		st.State = "paused"
	case len(s.waiting) > 0:
		st.State = "waiting"
	}
	if s.history = append(s.history, st.Handled); len(s.history) > window+1 {
		s.history = s.history[1:]
	}
	if n := len(s.history) - 1; n > 0 {
		st.Rate = float64(st.Handled-s.history[0]) / float64(n)
	}
	if s.line != nil {
		st.Result = s.line()
	}
	return st
}

// status writes the service's status every second to the descriptor that env names, until stop is called: then once
// more. Without the variable it does nothing.
func (s *Service) status(env func(string) string) (stop func(), err error) {
	v := env(StatusEnv)
	if v == "" {
		return func() {}, nil
	}
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s: %q is no file descriptor of 3 or more", StatusEnv, v)
	}
	out := os.NewFile(uintptr(fd), StatusEnv)
	if out == nil {
		return nil, fmt.Errorf("%s: descriptor %d is not open", StatusEnv, fd)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { _ = out.Close() }()
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		writeStatus(out, s.stats, ticker.C, done)
	}()
	return func() { close(done); <-ended }, nil
}

// writeStatus writes a line per tick. A reader that has gone ends it: the service goes on.
func writeStatus(out io.Writer, s *stats, tick <-chan time.Time, done <-chan struct{}) {
	enc := json.NewEncoder(out)
	for {
		if enc.Encode(s.tick()) != nil {
			return
		}
		select {
		case <-tick:
		case <-done:
			_ = enc.Encode(s.tick()) // the last words: the reader may have gone
			return
		}
	}
}

// observe returns an observer that counts for the status and passes everything on to next, which may be nil.
func (s *stats) observe(next consumer.Observer) consumer.Observer {
	s.mu.Lock()
	s.consume = true
	s.mu.Unlock()
	if next == nil {
		next = consumer.Silent{}
	}
	return &observer{next, s}
}

// published returns an observer that counts for the status and passes everything on to next, which may be nil.
func (s *stats) published(next producer.Observer) producer.Observer { return &publisher{s, next} }

type publisher struct {
	s    *stats
	next producer.Observer
}

// Published implements [producer.Observer].
func (p *publisher) Published(topic string, outcome producer.Outcome, size int, took time.Duration) {
	if outcome == producer.Acked {
		p.s.mu.Lock()
		p.s.sent++
		p.s.mu.Unlock()
	}
	if p.next != nil {
		p.next.Published(topic, outcome, size, took)
	}
}

// observer counts what a Status says.
type observer struct {
	consumer.Observer
	s *stats
}

func (o *observer) Attempted(id cursor.ID, handler string, kind consumer.Kind, n int, took time.Duration) {
	o.s.mu.Lock()
	switch kind {
	case consumer.Done, consumer.Dropped, consumer.DeadLettered:
		o.s.status.Handled += int64(n)
		delete(o.s.waiting, id)
	case consumer.Paused:
		o.s.waiting[id] = true
	default:
	}
	o.s.mu.Unlock()
	o.Observer.Attempted(id, handler, kind, n, took)
}

func (o *observer) DeadLettered(id cursor.ID, handler, class string) {
	o.s.mu.Lock()
	o.s.status.DeadLetters++
	o.s.mu.Unlock()
	o.Observer.DeadLettered(id, handler, class)
}

func (o *observer) Revoked(ids []cursor.ID, lost bool) {
	o.s.mu.Lock()
	for _, id := range ids {
		delete(o.s.lag, id)
		delete(o.s.waiting, id)
	}
	o.s.mu.Unlock()
	o.Observer.Revoked(ids, lost)
}

func (o *observer) Lag(id cursor.ID, events int64, age time.Duration) {
	o.s.mu.Lock()
	o.s.lag[id] = lag{events, age}
	o.s.mu.Unlock()
	o.Observer.Lag(id, events, age)
}
