package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

// readFlags say which events a command reads and what it makes of them: what tail and find have in common.
type readFlags struct {
	patterns            []string
	from, until, offset string
	partitions          []int
	uncommitted         bool
	zone                string
	bounded             bool // without a start everything, without an end what is there now

	keys, headers, where []string
	most                 int
	before, after        int
	contextBy            string

	countBy, save string
}

func (f *readFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.patterns, "topics", nil, "topics whose name matches this `regexp`, in any part of it; may be repeated")
	fs.StringVar(&f.from, "from", "", "the first `position` to read")
	fs.StringVar(&f.until, "until", "", "the first `position` not to read")
	fs.StringVar(&f.offset, "offset", "", "a `range` of offsets or times, instead of --from and --until")
	fs.IntVarP(&f.most, "number", "n", 0, "end after this many `events`")
	fs.StringArrayVar(&f.where, "where", nil, "only events for which this `expression` is true; repeated: with all of them")
	fs.StringArrayVar(&f.keys, "key", nil, "only events with this `key`; repeated: with any of them")
	fs.StringArrayVar(&f.headers, "header", nil, "only events with this header, `name=value` or name~regexp; repeated: with all of them")
	fs.IntSliceVar(&f.partitions, "partition", nil, "only these `partitions`")
	fs.IntVar(&f.before, "before", 0, "show this many `events` before each match too")
	fs.IntVar(&f.after, "after", 0, "show this many `events` after each match too")
	fs.StringVar(&f.contextBy, "context-by", byPartition, "before and after a match within its `partition`, or within its key")
	fs.StringVar(&f.countBy, "count-by", "", "print how many events have each value of this `expression`, not the events")
	fs.StringVar(&f.save, "save", "", "write the matches to this `file` too, as lines that millrace produce publishes again")
	fs.BoolVar(&f.uncommitted, "uncommitted", false, "read events of open and aborted transactions too")
	fs.StringVar(&f.zone, "tz", "UTC", "read and print times in this `zone`: Europe/Rome, local")
}

// filtered reports whether some events are left out by what they are.
func (f *readFlags) filtered() bool { return len(f.keys)+len(f.headers)+len(f.where) > 0 }

// check refuses what no cluster is needed to refuse.
func (f *readFlags) check(topics []string) error {
	switch {
	case len(topics)+len(f.patterns) == 0:
		return hint(errors.New("name a topic, or topics by a pattern"), "millrace tail TOPIC…", "millrace find --topics 'shop[.]'")
	case f.most < 0:
		return fmt.Errorf("-n %d: a number of events is positive", f.most)
	case f.before < 0 || f.after < 0 || f.before > contextMost || f.after > contextMost:
		return fmt.Errorf("--before and --after take a number of events from 0 to %s", number(contextMost))
	case f.before+f.after > 0 && !f.filtered():
		return errors.New("--before and --after show what is around a match: say what matches with --where, --key or --header")
	case f.before+f.after > 0 && f.countBy != "":
		return errors.New("--count-by counts matches alone: leave out --before and --after")
	case f.contextBy != byPartition && f.contextBy != byKey:
		return fmt.Errorf("--context-by %s: allowed are partition, key", f.contextBy)
	}
	for _, p := range f.partitions {
		if p < 0 || p > math.MaxInt32 {
			return fmt.Errorf("--partition %d: partitions count from 0", p)
		}
	}
	for _, p := range f.patterns {
		if _, err := regexp.Compile(p); err != nil {
			return fmt.Errorf("--topics %q: %w", p, err)
		}
	}
	return nil
}

func location(name string) (*time.Location, error) {
	if strings.EqualFold(name, "local") {
		return time.Local, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("--tz %s: there is no such zone: write UTC, local, or a name like Europe/Rome", name)
	}
	return zone, nil
}

// span is the range that the flags ask for. now is read once: every "now" and "-15m" of the command is counted from it.
func (f *readFlags) span(now time.Time) (r position.Range, err error) {
	switch {
	case f.offset != "" && (f.from != "" || f.until != ""):
		return r, errors.New("--offset and --from, --until say the same: use one way")
	case f.offset != "":
		if r, err = position.ParseRange(f.offset, now); err != nil {
			return r, err //nolint:wrapcheck // it says what is wrong with --offset
		}
	}
	if f.from != "" {
		if r.From, err = position.Parse(f.from, now); err != nil {
			return r, fmt.Errorf("--from: %w", err)
		}
	}
	if f.until != "" {
		if r.Until, err = position.Parse(f.until, now); err != nil {
			return r, fmt.Errorf("--until: %w", err)
		}
		if !r.Bounded() {
			return r, fmt.Errorf("--until start: %w", position.ErrEmpty)
		}
	}
	if f.bounded && !r.Bounded() {
		r.Until.Kind = position.End
	}
	return r, r.Validate()
}

// config is what the flags ask of a reader, without topics and filters.
func (f *readFlags) config(span position.Range) reader.Config {
	cfg := reader.Config{Range: span, Follow: !span.Bounded(), Uncommitted: f.uncommitted, Merge: true}
	for _, p := range f.partitions {
		cfg.Partitions = append(cfg.Partitions, int32(p))
	}
	return cfg
}

// pick adds the topics that match a pattern to those named. Internal topics, those of the cluster and those whose name
// starts with an underscore, are read only by name.
func (a *app) pick(ctx context.Context, c kafka.Cluster, named, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return named, nil
	}
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	defer client.Close()
	all, err := kadm.NewClient(client).ListTopics(ctx) // without those of the cluster
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", c.Explain(err, "Describe", "cluster"))
	}
	picked := slices.Clone(named)
	for _, pattern := range patterns {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, usage(fmt.Errorf("--topics %q: %w", pattern, err))
		}
		for _, t := range all.Sorted() {
			if !strings.HasPrefix(t.Topic, "_") && re.MatchString(t.Topic) && !slices.Contains(picked, t.Topic) {
				picked = append(picked, t.Topic)
			}
		}
	}
	if len(picked) == 0 {
		return nil, hint(fmt.Errorf("no topic matches %s", strings.Join(patterns, ", ")), "see which there are:  millrace topics ls")
	}
	slices.Sort(picked)
	const most = 5
	if len(picked) > most {
		a.say("reading %s: %s and %d more", plural(int64(len(picked)), "topic"), strings.Join(picked[:most], ", "), len(picked)-most)
	} else {
		a.say("reading %s", strings.Join(picked, ", "))
	}
	return picked, nil
}

// sayRange prints what times were resolved to: a zone that was not meant is the commonest mistake.
func (a *app) sayRange(r position.Range, now time.Time) {
	for _, p := range []struct {
		word string
		position.Point
	}{{"from", r.From}, {"until", r.Until}} {
		if p.Kind != position.Time {
			continue
		}
		here := p.At.Local()
		if zone := now.Location(); zone != time.UTC {
			here = p.At.In(zone)
		}
		if _, offset := here.Zone(); offset == 0 {
			a.say("%s %s", p.word, p.At.Format("2006-01-02 15:04:05Z"))
		} else {
			a.say("%s %s (%s)", p.word, p.At.Format("2006-01-02 15:04:05Z"), here.Format("15:04:05 -0700"))
		}
	}
}
