package replay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/schemas"
)

// frozen is a range that no longer changes, and how far it is.
type frozen struct {
	head    head
	spans   []Span // those that are not empty, by topic and partition
	resumed bool
}

// freeze resolves the range of a replay that runs for the first time.
func freeze(ctx context.Context, c kafka.Cluster, cfg Config) (*frozen, error) {
	if cfg.Set != nil {
		return freezeSet(cfg.Set)
	}
	read := cfg.Read
	read.Match, read.Merge = nil, false
	if cfg.Group != "" {
		if read.Range.From != (position.Point{}) {
			return nil, errors.New("replay: Config.Group and Config.Read.Range.From say the same: set one")
		}
	}
	in, err := reader.Open(ctx, c, read)
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	f := &frozen{}
	for _, s := range in.Spans() {
		f.spans = append(f.spans, Span{Topic: s.Topic, Partition: s.Partition, From: s.From, Until: s.Until})
	}
	if cfg.Group != "" {
		if err := f.fromGroup(ctx, c, cfg.Group); err != nil {
			return nil, err
		}
	}
	f.spans = slices.DeleteFunc(f.spans, func(s Span) bool { return s.From >= s.Until })
	for i := range f.spans {
		f.spans[i].Position = f.spans[i].From
	}
	f.head.Uncommitted = read.Uncommitted
	if p := read.Range.From; p.Kind == position.Time {
		f.head.Since = p.At
	}
	if p := read.Range.Until; p.Kind == position.Time {
		f.head.Before = p.At
	}
	return f, nil
}

// fromGroup begins each span where the group stands.
func (f *frozen) fromGroup(ctx context.Context, c kafka.Cluster, group string) error {
	client, err := c.Client()
	if err != nil {
		return fmt.Errorf("read offsets of group %s: %w", group, err)
	}
	defer client.Close()
	commits, err := kadm.NewClient(client).FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("read offsets of group %s: %w", group, c.Explain(err, "Describe", "group "+group))
	}
	found := false
	for i := range f.spans {
		s := &f.spans[i]
		o, ok := commits.Lookup(s.Topic, s.Partition)
		if !ok || o.At < 0 {
			continue
		}
		if o.Err != nil {
			return fmt.Errorf("read offset of group %s on %s/%d: %w", group, s.Topic, s.Partition, o.Err)
		}
		found = true
		s.From = min(max(s.From, o.At), s.Until)
	}
	if !found {
		return fmt.Errorf("replay from the position of group %s: it has committed nothing on these topics", group)
	}
	return nil
}

// freezeSet looks through a saved set, so that what cannot be replayed is found out before anything is.
func freezeSet(set iter.Seq2[event.Event, error]) (*frozen, error) {
	f := &frozen{}
	at := map[partition]int{}
	sum := sha256.New()
	n := 0
	for e, err := range set {
		if err != nil {
			return nil, fmt.Errorf("read the set: %w", err)
		}
		n++
		if e.Topic == "" || e.Offset < 0 || e.Partition < 0 {
			return nil, fmt.Errorf("read the set: event %d does not say where it was read", n)
		}
		k := partition{e.Topic, e.Partition}
		i, ok := at[k]
		if !ok {
			i, at[k] = len(f.spans), len(f.spans)
			f.spans = append(f.spans, Span{Topic: e.Topic, Partition: e.Partition, From: e.Offset, Position: e.Offset})
		} else if e.Offset < f.spans[i].Until {
			return nil, fmt.Errorf("read the set: event %d, %s/%d@%d, stands behind offset %d: a set is in the order of its partitions, as find --save writes it",
				n, e.Topic, e.Partition, e.Offset, f.spans[i].Until-1)
		}
		f.spans[i].Until = e.Offset + 1
		fmt.Fprintf(sum, "%s/%d@%d\n", e.Topic, e.Partition, e.Offset)
	}
	f.head.Set = hex.EncodeToString(sum.Sum(nil)[:12])
	slices.SortFunc(f.spans, bySpan)
	return f, nil
}

// check refuses to go on with progress that was made of something else.
func (f *frozen) check(cfg Config) error {
	if cfg.Note != f.head.Note {
		return fmt.Errorf("replay %s: %w: it was made with %q", cfg.ID, ErrMismatch, f.head.Note)
	}
	if cfg.Set != nil || f.head.Set != "" {
		if cfg.Set == nil {
			return fmt.Errorf("replay %s: %w: it is one of a saved set", cfg.ID, ErrMismatch)
		}
		s, err := freezeSet(cfg.Set)
		if err != nil {
			return err
		}
		if s.head.Set != f.head.Set {
			return fmt.Errorf("replay %s: %w: the set is not the one that it began with", cfg.ID, ErrMismatch)
		}
		return nil
	}
	for _, s := range f.spans {
		if len(cfg.Read.Patterns) == 0 && !slices.Contains(cfg.Read.Topics, s.Topic) {
			return fmt.Errorf("replay %s: %w: it reads topic %s", cfg.ID, ErrMismatch, s.Topic)
		}
	}
	return nil
}

func (f *frozen) topics() []string {
	var out []string
	for _, s := range f.spans {
		if !slices.Contains(out, s.Topic) {
			out = append(out, s.Topic)
		}
	}
	return out
}

// source yields the events of a frozen range that are not behind it yet, and says of each other one why not.
type source struct {
	cfg   Config
	f     *frozen
	spans []Span // with the positions to begin at
	skip  func(*event.Event, outcome)
	lost  func(topic string, partition int32, from int64)
}

// match asks the filters, in the order in which events are yielded.
func (s *source) match(e *event.Event) (bool, error) {
	if h := &s.f.head; !h.Since.IsZero() && e.Published.Before(h.Since) || !h.Before.IsZero() && !e.Published.Before(h.Before) {
		s.skip(e, passed)
		return false, nil
	}
	if s.cfg.Read.Match == nil {
		return true, nil
	}
	ok, err := s.cfg.Read.Match(e)
	switch {
	case errors.Is(err, schemas.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false, err //nolint:wrapcheck // the reader says where
	case errors.Is(err, schemas.ErrPoison), errors.Is(err, schemas.ErrIncompatible), errors.Is(err, schemas.ErrNotFound):
		s.skip(e, undecodable)
	case err != nil:
		s.skip(e, unanswered)
	case !ok:
		s.skip(e, filtered)
	}
	return ok && err == nil, nil
}

// events yields what is left of the range.
func (s *source) events(ctx context.Context, c kafka.Cluster) iter.Seq2[event.Event, error] {
	if s.cfg.Set != nil {
		return s.set(ctx)
	}
	readings, err := s.open(ctx, c)
	if err != nil {
		return func(yield func(event.Event, error) bool) { yield(event.Event{}, err) }
	}
	if len(readings) == 1 {
		return readings[0].Events(ctx)
	}
	if s.cfg.Read.Merge {
		return merge(ctx, readings)
	}
	return func(yield func(event.Event, error) bool) {
		for _, r := range readings {
			for e, err := range r.Events(ctx) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// open opens a reading of each topic: offsets of partitions are said topic by topic.
func (s *source) open(ctx context.Context, c kafka.Cluster) ([]*reader.Reading, error) {
	from, until := map[string][]string{}, map[string][]string{}
	ends := map[partition]int64{}
	var topics []string
	for _, x := range s.spans {
		if x.Position >= x.Until {
			continue
		}
		if from[x.Topic] == nil {
			topics = append(topics, x.Topic)
		}
		from[x.Topic] = append(from[x.Topic], fmt.Sprintf("p%d=%d", x.Partition, x.Position))
		until[x.Topic] = append(until[x.Topic], fmt.Sprintf("p%d=%d", x.Partition, x.Until))
		ends[partition{x.Topic, x.Partition}] = x.Until
	}
	var out []*reader.Reading
	for _, t := range topics {
		in, err := reader.Open(ctx, c, reader.Config{
			Topics: []string{t}, Merge: s.cfg.Read.Merge, Uncommitted: s.f.head.Uncommitted, Match: s.match,
			Stall: s.cfg.Read.Stall, Log: s.cfg.Log,
			Range: position.Range{
				From:  position.Point{Kind: position.Each, Offsets: strings.Join(from[t], ",")},
				Until: position.Point{Kind: position.Each, Offsets: strings.Join(until[t], ",")},
			},
		})
		if err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
		for _, x := range in.Spans() {
			end := ends[partition{x.Topic, x.Partition}]
			if x.Until < end {
				return nil, fmt.Errorf("replay: the log of %s/%d ends at %d, before the range does at %d: it was cut, or the topic made anew: replay what is there by another id",
					x.Topic, x.Partition, x.Until, end)
			}
			s.lost(x.Topic, x.Partition, min(x.From, end)) // the log may begin behind the range by now
		}
		out = append(out, in)
	}
	return out, nil
}

// set yields what is left of a saved set.
func (s *source) set(ctx context.Context) iter.Seq2[event.Event, error] {
	at := map[partition]int64{}
	for _, x := range s.spans {
		at[partition{x.Topic, x.Partition}] = x.Position
	}
	return func(yield func(event.Event, error) bool) {
		for e, err := range s.cfg.Set {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(e, fmt.Errorf("read the set: %w", err))
				return
			}
			if e.Offset < at[partition{e.Topic, e.Partition}] {
				continue
			}
			ok, err := s.match(&e)
			if err != nil {
				yield(e, fmt.Errorf("read the set: %s/%d@%d: %w", e.Topic, e.Partition, e.Offset, err))
				return
			}
			if ok && !yield(e, nil) {
				return
			}
		}
	}
}

// merge yields the events of several readings in the order of their timestamps, ties by topic.
func merge(ctx context.Context, readings []*reader.Reading) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		type stream struct {
			event event.Event
			next  func() (event.Event, error, bool)
		}
		var streams []*stream
		for _, r := range readings {
			next, stop := iter.Pull2(r.Events(ctx))
			defer stop()
			s := &stream{next: next}
			e, err, ok := next()
			if err != nil {
				yield(e, err)
				return
			}
			if s.event = e; ok {
				streams = append(streams, s)
			}
		}
		for len(streams) > 0 {
			first := 0
			for i, s := range streams[1:] {
				if s.event.Published.Before(streams[first].event.Published) {
					first = i + 1
				}
			}
			s := streams[first]
			if !yield(s.event, nil) {
				return
			}
			e, err, ok := s.next()
			if err != nil {
				yield(e, err)
				return
			}
			if s.event = e; !ok {
				streams = slices.Delete(streams, first, first+1)
			}
		}
	}
}
