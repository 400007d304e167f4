// Package reader reads a bounded part of topics, and ends: it resolves a [position.Range] to offsets of each
// partition, freezes them, reads, and says at the end how much it saw. It is not a member of any group and commits nothing. tail, find, replay
// and the console read through it; what runs for ever as a group is a consumer.
//
//	r, err := reader.Open(ctx, cluster, reader.Config{Topics: []string{"shop.orders"}, Merge: true})
//	for e, err := range r.Events(ctx) {
//		…
//	}
//	fmt.Println(r.Complete())
//
// # What is read
//
// The end of every partition is fixed by [Open]: what arrives later is outside, so a reading ends even on a topic
// that is written faster than it is read. By default only committed records are read, up to the last stable
// offset; Uncommitted reads up to the high watermark. Transaction markers are never events.
//
// # Errors
//
// An unknown topic or partition is an error of Open, never an empty success. Events yields at most one error, as
// its last step.
package reader

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"regexp"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

// Config says what to read.
type Config struct {
	// Topics are read side by side. At least one, or a pattern.
	Topics []string
	// Patterns add every topic whose name one of them matches when Open is called; a topic that is made later is not
	// read. Topics whose names start with an underscore, and those of the cluster, are read by name alone. That
	// nothing matches is an error, unless there are Topics.
	Patterns []*regexp.Regexp
	// Partitions restricts every topic to these partitions, 0-based. One that a topic lacks is an error. Empty
	// is all.
	Partitions []int32
	// Range is what to read of each partition. The zero value is everything that is there when Open is called.
	Range position.Range
	// Follow goes on past the end with what arrives later, until the range's own end, if it has one, or until
	// the context ends. Partitions that are added to a topic meanwhile are not read.
	Follow bool
	// Merge yields events in the order of their timestamps over all partitions, ties by topic, partition and
	// offset; events of one partition stay in their order always. With Follow it holds for what was there at
	// the start; later events are yielded as they arrive.
	Merge bool
	// Uncommitted reads records of open and aborted transactions too.
	Uncommitted bool
	// Late is how much further the scan goes for a range that ends at a time: timestamps are set by producers,
	// and a record stamped before that time may stand behind a later one. Negative reads to the end of every
	// partition. Defaults to one minute.
	Late time.Duration
	// Stall is how long a reading that is not at its end may get nothing from the cluster before it fails.
	// Defaults to 30 seconds.
	Stall time.Duration
	// Match chooses events; nil is all. The event is the next one's too: whoever keeps it keeps a copy. An error counts the event, as undecodable if it wraps
	// ErrPoison, ErrIncompatible or ErrNotFound of package schemas, else as failed, and the reading goes on. Only
	// schemas.ErrUnavailable and a context's error end it: nothing is known about the event.
	Match func(*event.Event) (bool, error)
	// Progress, if set, is called after every batch with the offsets passed and the offsets in range: an upper
	// bound of the records, because compacted and transactional topics have gaps. It must return quickly.
	Progress func(scanned, total int64)
	// Log is where surprises go. Nil is silent.
	Log *zap.Logger
}

const (
	defaultLate  = time.Minute
	defaultStall = 30 * time.Second
)

func (cfg Config) withDefaults() Config {
	if cfg.Late == 0 {
		cfg.Late = defaultLate
	}
	if cfg.Stall <= 0 {
		cfg.Stall = defaultStall
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return cfg
}

func (cfg Config) validate() error {
	if len(cfg.Topics)+len(cfg.Patterns) == 0 {
		return errors.New("read topics: Config.Topics is empty: name at least one, or a pattern")
	}
	for _, p := range cfg.Partitions {
		if p < 0 {
			return fmt.Errorf("read topics: Config.Partitions holds %d: partitions count from 0", p)
		}
	}
	return cfg.Range.Validate()
}

// Span is the part of one partition that a reading covers: From ≤ offset < Until.
type Span struct {
	Topic     string
	Partition int32
	From      int64 // offset, at least the log start
	Until     int64 // offset; math.MaxInt64 where the reading follows
	// Note says what was changed of the range that was asked for, "" if nothing: an offset outside the log is
	// moved to its nearest end.
	Note string
	// Early says that the scan stops before the end of the log because the range ends at a time: see
	// Config.Late.
	Early bool
}

// Failure is a record on which [Config.Match] failed, and why.
type Failure struct {
	Topic     string
	Partition int32
	Offset    int64
	Err       error
}

// Completeness says how much of what was asked for a reading has seen. Offsets are upper bounds of records.
type Completeness struct {
	Scanned int64 // records looked at: in range, not transaction markers
	Matched int64 // events yielded
	// Undecodable are records whose data Match could not decode, Failed those to which it had no answer for another
	// reason, as a filter that needs a field that the record lacks. Neither is a match, and neither was refused.
	Undecodable, Failed           int64
	FirstUndecodable, FirstFailed Failure // the zero value if there was none
	Passed                        int64   // offsets of the range behind the reading
	Total                         int64   // offsets in the range
	Partitions                    int     // in the range
	Early                         int     // partitions that stop before the end of their log: see Config.Late
	Done                          bool    // the whole range was read
	Following                     bool    // the reading has no end of its own: Passed and Total are about what was there at the start
}

// String says it in one line, for people.
func (c Completeness) String() string {
	var b strings.Builder
	partitions := fmt.Sprintf("%d %s", c.Partitions, plural(int64(c.Partitions), "partition"))
	switch {
	case c.Following:
		fmt.Fprintf(&b, "scanned %d %s of %s", c.Scanned, plural(c.Scanned, "record"), partitions)
	case c.Total == 0:
		return "nothing to read: the range is empty in " + partitions
	default:
		fmt.Fprintf(&b, "scanned %d %s in %d of %d offsets (%.4g %%) of %s", c.Scanned, plural(c.Scanned, "record"), c.Passed, c.Total,
			100*float64(c.Passed)/float64(c.Total), partitions)
	}
	fmt.Fprintf(&b, ", %d %s", c.Matched, map[bool]string{true: "match", false: "matches"}[c.Matched == 1])
	if c.Undecodable > 0 {
		fmt.Fprintf(&b, ", %d undecodable, the first at %s/%d@%d", c.Undecodable,
			c.FirstUndecodable.Topic, c.FirstUndecodable.Partition, c.FirstUndecodable.Offset)
	}
	if c.Failed > 0 {
		fmt.Fprintf(&b, ", %d without an answer, the first at %s/%d@%d", c.Failed,
			c.FirstFailed.Topic, c.FirstFailed.Partition, c.FirstFailed.Offset)
	}
	if !c.Done && !c.Following {
		b.WriteString("; stopped before the end")
	}
	return b.String()
}

func plural(n int64, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// Reading is a resolved range, ready to be read.
type Reading struct {
	cluster kafka.Cluster
	cfg     Config
	parts   []*part
	ready   []*part // those that hold records that were accepted and not yielded, in the order of arrival: when not merging

	mu    sync.Mutex // guards state, which Complete may ask for while Events runs
	state Completeness
}

// Open resolves cfg.Range to offsets and freezes them. It opens nothing that must be closed.
func Open(ctx context.Context, c kafka.Cluster, cfg Config) (*Reading, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	parts, err := resolve(ctx, c, &cfg)
	if err != nil {
		return nil, err
	}
	r := &Reading{cluster: c, cfg: cfg, parts: parts}
	r.state.Partitions = len(parts)
	for _, p := range parts {
		r.state.Total += p.goal - p.From
		r.state.Following = r.state.Following || p.Until == math.MaxInt64
		if p.Early {
			r.state.Early++
		}
	}
	return r, nil
}

// Spans are the parts of the partitions that are read, by topic and partition.
func (r *Reading) Spans() []Span {
	spans := make([]Span, len(r.parts))
	for i, p := range r.parts {
		spans[i] = p.Span
	}
	return spans
}

// Events yields the events of the range, once: a second call of it goes on where the first one stopped. An
// event's memory is its own. The sequence ends after the last event; with an error, if reading stopped before
// it; when ctx ends, with ctx's error unless the reading follows, which has no other end.
func (r *Reading) Events(ctx context.Context) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		s := &scan{Reading: r, yield: yield}
		err := s.run(ctx)
		if errors.Is(err, errStopped) || err == nil {
			return
		}
		if ctx.Err() != nil && r.cfg.Follow {
			return
		}
		yield(event.Event{}, err)
	}
}

// Complete says how far the reading is. It may be called while Events runs.
func (r *Reading) Complete() Completeness {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}
