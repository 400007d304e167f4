// Package replay runs a stretch of the log again, for another target, without touching those who live from it. It reads
// like package reader and is no member of any group: what it has done it keeps in a memberless group of its own,
// _millrace.replay.<id>, which every Kafka tool shows, and from which the same id goes on after a stop or a crash.
//
//	sum, err := replay.Run(ctx, cluster, replay.Topic(p, "shop.orders-fixed"), replay.Config{
//		ID: "incident-42", Read: reader.Config{Topics: []string{"shop.orders"}, Range: lastHour}, Speed: 10,
//	})
//
// What a handler does while it is run again is another matter: a [Guard] captures it, as a service in shadow does.
//
// # What is promised
//
// The range is frozen once, when a replay first runs, and kept with its progress: a replay that goes on has the same
// end. Every event of it is delivered at least once, or counted as what it was instead. An event that is given to the
// target twice is one that was on its way, or behind the last commit, when a run died; how many those may be is known
// beforehand ([Config.Window]), kept with the progress, and counted as [Summary.Repeats]. A run that is stopped in
// time repeats nothing. Events with one key reach the target in the order in which they were read.
//
// # Errors
//
// [ErrTaken] says that another run has the same id, [ErrLoop] that the target is a topic that is read, [ErrMismatch]
// that an id belongs to a replay of something else. An event that the target refuses for good ends the run, unless
// [Config.SkipFailed] is set; the next run with the id begins with it.
package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
)

var (
	// ErrTaken says that another run of the same replay is at work, or was until a moment ago.
	ErrTaken = errors.New("another run has this replay")
	// ErrLoop says that a replay would write to a topic that it reads. See [Config.AllowLoop].
	ErrLoop = errors.New("the target is a topic that is read")
	// ErrMismatch says that the id is that of a replay of other topics, of another set or with another note.
	ErrMismatch = errors.New("this id is that of another replay")
	// ErrLongNote says that what a replay is does not fit into its progress.
	ErrLongNote = errors.New("shorten what the replay is, or keep no progress")
	// ErrNotFound says that there is no progress of a replay.
	ErrNotFound = errors.New("there is no such replay")
)

// Target takes events. The error of Deliver is a verdict, as a consumer's handler gives it: nil is delivered,
// consumer.Drop drops the event, consumer.DeadLetter says that no further attempt would help, consumer.Stop ends the
// run, and any other error is tried again. It is called by up to [Config.Keys] goroutines. Its context carries the
// replay: event.InReplay.
type Target interface {
	Deliver(ctx context.Context, e event.Event) error
}

// Pipelined is a target that need not be waited for. Send hands the event over, in order, and returns; done is called
// once, by any goroutine, with the event as it was sent, and does not block. Where an event fails, with whatever error, it goes to
// Deliver, and those of its key that were sent after it go there again behind it.
type Pipelined interface {
	Target
	Send(ctx context.Context, e event.Event, done func(event.Event, error))
}

// Clock says which time of an event paces a replay.
type Clock int

// The clocks.
const (
	RecordClock Clock = iota // the record's timestamp: when it was published
	EventClock               // ce_time: when it happened
)

func (c Clock) of(e *event.Event) time.Time {
	if c == EventClock {
		return e.Time
	}
	return e.Published
}

// Config says what is replayed, and how.
type Config struct {
	// ID names the replay: letters, digits, dots, dashes and underscores, at most 80. The same id goes on where the last
	// run ended. Empty makes a fresh one, which Summary tells.
	ID string
	// Read is what is read: topics, partitions, a range, and with Match which events of it. A range without an end ends
	// where the log ended when the replay first ran. Follow and Progress must not be set. Merge is by time over all
	// topics, and is implied by Speed; without it topics are read one after the other.
	Read reader.Config
	// Group begins at the committed offsets of this group, in place of Read.Range.From, and at the start of a partition
	// where it has none. It is looked at, never moved.
	Group string
	// Set is a saved set of events, in place of Read, of which only Match counts. It must yield the same events each time
	// it is ranged over, those of a partition in the order of their offsets. Progress is kept at the places where they
	// were read, so their topics must exist, or Untracked be set.
	Set iter.Seq2[event.Event, error]

	// Clock is the time that Speed counts by. Defaults to the record's.
	Clock Clock
	// Speed scales the gaps between events: 1 keeps them, 10 makes them a tenth. A gap is counted from the latest time
	// seen, so an event that is older than the one before it follows at once. 0 is without gaps.
	Speed float64
	// Rate is how many events a second are begun at most. 0 is without limit.
	Rate float64
	// Keys is how many events are delivered at once, those of one key never; events without a key count as of different
	// keys when it is more than 1. Defaults to 1: all in order. Pipelined targets order by themselves.
	Keys int
	// Window is how many events may be delivered past the last commit, at most: the most that are delivered twice after a
	// crash. A slow target is given less. Defaults to 50,000.
	Window int

	// Retry is for events that fail, and then fail for good. Deferred must be empty.
	Retry consumer.Retry
	// Timeout of one attempt of a target that is no Pipelined. Defaults to 30 seconds.
	Timeout time.Duration
	// SkipFailed counts events that fail for good and goes on. Without it the first one ends the run.
	SkipFailed bool
	// AllowLoop lets a Topic target be one of those that are read. Set it too where the target is another cluster.
	AllowLoop bool
	// Drain is how long events on their way may take when a run is stopped. Defaults to 10 seconds.
	Drain time.Duration

	// Untracked keeps no progress: nothing is written, and nothing can go on.
	Untracked bool
	// Note is kept with the progress, at most 2,500 bytes as a JSON string: what it takes to make this Config again. A run
	// with another note is refused.
	Note string
	// Report, if set, is called about once a second, and at the end. It must return quickly.
	Report func(Summary)
	// Log is where surprises go. Nil is silent.
	Log *zap.Logger

	plant plant
}

// plant are faults that tests plant, to see that they break what is promised.
type plant struct {
	commitFirst bool // the position passes an event that is only on its way
	skipOne     bool // a run goes on behind the next event
	anyWorker   bool // events go to workers in turn, whatever their key
	noWindow    bool // nothing waits for a commit
}

const (
	defaultWindow  = 50_000
	defaultTimeout = 30 * time.Second
	defaultDrain   = 10 * time.Second
	maxNote        = 2500
	maxKeys        = 1 << 12
	maxWindow      = 1 << 22
)

func (c Config) withDefaults() Config {
	if c.Keys == 0 {
		c.Keys = 1
	}
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Drain == 0 {
		c.Drain = defaultDrain
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	c.Read.Log = c.Log
	c.Read.Merge = c.Read.Merge || c.Speed > 0
	return c
}

var validID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,80}$`)

func (c Config) validate() error {
	switch {
	case c.ID != "" && !validID.MatchString(c.ID):
		return fmt.Errorf("replay: Config.ID: %q: letters, digits, dots, dashes and underscores, at most 80", c.ID)
	case c.Set == nil && c.Read.Follow:
		return errors.New("replay: Config.Read.Follow: a replay has an end")
	case c.Set != nil && c.Group != "":
		return errors.New("replay: Config.Group: a saved set has no place of a group in it")
	case c.Speed < 0 || c.Rate < 0:
		return errors.New("replay: Config.Speed and Config.Rate must not be negative")
	case c.Keys < 1 || c.Keys > maxKeys:
		return fmt.Errorf("replay: Config.Keys: %d is not between 1 and %d", c.Keys, maxKeys)
	case c.Window < 1 || c.Window > maxWindow:
		return fmt.Errorf("replay: Config.Window: %d is not between 1 and %d", c.Window, maxWindow)
	case len(c.Retry.Deferred) > 0:
		return errors.New("replay: Config.Retry.Deferred: a replay tries again in place")
	case !c.Untracked && noteSize(c.Note) > maxNote:
		return fmt.Errorf("replay: Config.Note has %d bytes as JSON; at most %d are kept: %w", noteSize(c.Note), maxNote, ErrLongNote)
	}
	return nil
}

// Counts are what became of events.
type Counts struct {
	Delivered   int64 `json:"delivered"`
	Dropped     int64 `json:"dropped"`     // by the target's verdict
	Failed      int64 `json:"failed"`      // for good, and skipped
	Filtered    int64 `json:"filtered"`    // not what Match asks for
	Undecodable int64 `json:"undecodable"` // Match could not decode them: not delivered
	Unanswered  int64 `json:"unanswered"`  // Match had no answer to them: not delivered
}

func (c *Counts) add(o Counts) {
	c.Delivered += o.Delivered
	c.Dropped += o.Dropped
	c.Failed += o.Failed
	c.Filtered += o.Filtered
	c.Undecodable += o.Undecodable
	c.Unanswered += o.Unanswered
}

// Span is the part of a partition that a replay covers, and how far it is: From ≤ offset < Until, and all below
// Position is behind it.
type Span struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	Until     int64  `json:"until"`
	Position  int64  `json:"position"`
}

// Summary is how far a replay is, over all of its runs.
type Summary struct {
	ID    string
	Spans []Span
	Counts
	// Repeats is how many events the target may have got twice at most: those past the last commit of runs that died,
	// and those sent again behind one of their key that had failed.
	Repeats int64
	// Gone are offsets of the range that were deleted before they were read.
	Gone int64
	// Retries counts further attempts, of this run.
	Retries int64
	// Slipped is by how much the pace fell behind for good, in this run, because the target was slower.
	Slipped time.Duration
	Took    time.Duration // by this run
	Resumed bool          // this run went on with what another one began
	Done    bool          // the whole range is behind it

	// Matched, First, Last and Expected are of [Plan] alone: how many events are to be delivered, the times of the first
	// and last of them, and how long that takes by Speed and Rate; 0 is as fast as the target.
	Matched  int64
	First    time.Time
	Last     time.Time
	Expected time.Duration
}

// Progress is how many offsets are behind the replay, of how many. Offsets are an upper bound of events.
func (s Summary) Progress() (passed, total int64) {
	for _, p := range s.Spans {
		passed += p.Position - p.From
		total += p.Until - p.From
	}
	return passed, total
}

// Run replays cfg's range into t and returns what became of it. It ends when the range does; with the error of the
// event that failed; or when ctx ends, with its error, once what was on its way is answered. The summary is good in
// each case, and a later Run with the same ID goes on.
func Run(ctx context.Context, c kafka.Cluster, t Target, cfg Config) (Summary, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Summary{}, err
	}
	if cfg.Untracked {
		return run(ctx, c, nil, t, cfg)
	}
	s, err := openStore(c)
	if err != nil {
		return Summary{}, err
	}
	defer s.close()
	return run(ctx, c, s, t, cfg)
}

// run is Run with a store of progress, nil for none.
func run(ctx context.Context, c kafka.Cluster, s store, t Target, cfg Config) (Summary, error) {
	fresh := cfg.ID == ""
	if fresh {
		cfg.ID = newID()
	}
	f, lock, err := begin(ctx, c, s, cfg, fresh)
	if err != nil {
		return Summary{ID: cfg.ID}, err
	}
	r := newRunner(cfg, f, lock, t)
	if err := r.refuseLoop(); err != nil {
		return r.summary(), errors.Join(err, r.release(ctx))
	}
	if f.head.Done {
		return r.summary(), r.release(ctx)
	}
	return r.run(ctx, c)
}
