package groups

import (
	"slices"
	"time"
)

// State says how a group does on a partition, or on the whole, judged by how its commits move and not by a threshold.
type State string

// The states, the best first: of several partitions a group has the worst.
const (
	OK     State = "ok"     // it keeps up, or there is not enough to judge by
	Warn   State = "warn"   // it commits and moves on, and its lag never falls
	Stall  State = "stall"  // it commits the same offset again and again, and there is more
	Stop   State = "stop"   // it no longer commits, and there is more
	Rewind State = "rewind" // its commits went back and have not come to where they were
)

var severity = []State{OK, Warn, Stall, Stop, Rewind}

// Worst is the most severe of states; OK without any.
func Worst(states ...State) State {
	worst := 0
	for _, s := range states {
		worst = max(worst, slices.Index(severity, s))
	}
	return severity[worst]
}

// Sample is a commit as it was seen: where it stood, and how far the end was then.
type Sample struct {
	At     time.Time
	Offset int64
	Lag    int64
}

const (
	// fewest commits are looked at before anything but a stop is said.
	fewest = 3
	// steady commits are looked at before a lag is said never to fall: of a group that keeps up, a few records behind
	// under a steady load, three in a row often do not.
	steady = 6
)

// Judge gives the state of a partition from a window of its commits, oldest first, and its lag now. The rules are those
// of Burrow; the first that holds counts:
//
//	ok      nothing is to be done now
//	rewind  the newest commit is below an older one, and the lag was never 0
//	stop    more time has gone since the last commit than lies between the first and the last, and than quiet
//	ok      the lag was 0 somewhere in the window, or the window holds fewer than three commits
//	stall   all commits are of the same offset
//	warn    the lag never fell from one commit to the next, of six or more
//	ok      otherwise
//
// quiet is the least time without a commit that is a stop: a short window would else find one between two commits. A group
// that dies when it is caught up leaves a lag of 0 in its window for ever, so a stop is looked for before that rule.
func Judge(window []Sample, lag int64, now time.Time, quiet time.Duration) State {
	if lag <= 0 || len(window) == 0 {
		return OK
	}
	first, last := window[0], window[len(window)-1]
	caughtUp := slices.ContainsFunc(window, func(s Sample) bool { return s.Lag <= 0 })
	back := slices.ContainsFunc(window, func(s Sample) bool { return s.Offset > last.Offset })
	switch {
	case back && !caughtUp:
		return Rewind
	case now.Sub(last.At) > max(last.At.Sub(first.At), quiet):
		return Stop
	case caughtUp || len(window) < fewest:
		return OK
	case !slices.ContainsFunc(window, func(s Sample) bool { return s.Offset != last.Offset }):
		return Stall
	}
	if len(window) < steady {
		return OK
	}
	for i := range window[1:] {
		if window[i+1].Lag < window[i].Lag {
			return OK
		}
	}
	return Warn
}

// TrackerConfig configures a Tracker. The zero value works.
type TrackerConfig struct {
	// Window is how many commits of a partition are looked at: 6 or more. Defaults to 10.
	Window int
	// Quiet is the least time without a commit that counts as a stop. Defaults to 30 seconds.
	Quiet time.Duration
}

func (c TrackerConfig) withDefaults() TrackerConfig {
	if c.Window < steady {
		c.Window = 10
	}
	if c.Quiet <= 0 {
		c.Quiet = 30 * time.Second
	}
	return c
}

// Tracker judges groups by what [Describe] says of them from time to time. It keeps one window for each partition that
// the last observation had. It is used by one goroutine.
type Tracker struct {
	cfg     TrackerConfig
	windows map[Key]*window
}

type window struct {
	samples  []Sample
	metadata string
	state    State
}

// NewTracker returns a Tracker that has seen nothing yet.
func NewTracker(cfg TrackerConfig) *Tracker {
	return &Tracker{cfg: cfg.withDefaults(), windows: map[Key]*window{}}
}

// Observe takes the groups as they are now and returns the state of each, the worst of its partitions. What gs no longer has
// is forgotten.
//
// Kafka does not tell when a commit was made. A commit counts as new when it differs from the one before, and when the
// partition has a member, whose heartbeat is the sign of life: such a group is stalled, one without a member has stopped.
func (t *Tracker) Observe(now time.Time, gs []Group) map[string]State {
	out := make(map[string]State, len(gs))
	seen := make(map[Key]*window, len(t.windows))
	for _, g := range gs {
		worst := OK
		for _, p := range g.Partitions {
			lag, ok := p.Lag()
			if !ok {
				continue
			}
			k := Key{g.ID, p.Topic, p.Partition}
			w := t.windows[k]
			if w == nil {
				w = &window{}
			}
			seen[k] = w
			w.observe(now, p, lag, t.cfg)
			worst = Worst(worst, w.state)
		}
		out[g.ID] = worst
	}
	t.windows = seen
	return out
}

func (w *window) observe(now time.Time, p Partition, lag int64, cfg TrackerConfig) {
	s := Sample{At: now, Offset: p.Commit.Offset, Lag: lag}
	n := len(w.samples)
	if n == 0 || p.Member != "" || w.samples[n-1].Offset != s.Offset || w.metadata != p.Commit.Metadata {
		if n == cfg.Window {
			w.samples = append(w.samples[:0], w.samples[1:]...)
		}
		w.samples = append(w.samples, s)
	}
	w.metadata = p.Commit.Metadata
	w.state = Judge(w.samples, lag, now, cfg.Quiet)
}

// State is the state of a partition as of the last observation; OK where there was none.
func (t *Tracker) State(k Key) State {
	if w := t.windows[k]; w != nil {
		return w.state
	}
	return OK
}
