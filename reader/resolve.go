package reader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

// part is one partition of a reading.
type part struct {
	Span
	topicID [16]byte
	// goal is where the partition's reading may be waited for: the end as frozen. Until may lie beyond it when
	// the reading follows.
	goal int64
	next int64 // the first offset not accepted yet
	past bool  // a record at or after the end's time was seen, and the reading follows

	queue  []*kgo.Record // accepted, waiting for their turn in a merge
	paused bool
}

// reached reports that nothing of the frozen range is missing.
func (p *part) reached() bool { return p.next >= p.goal }

// done reports that nothing more will be accepted.
func (p *part) done() bool { return p.next >= p.Until || p.past }

// resolve turns the range into offsets. The end is asked for before anything else, so that whatever is resolved
// later can only be clamped to it. Patterns become topics of cfg.
func resolve(ctx context.Context, c kafka.Cluster, cfg *Config) ([]*part, error) {
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("resolve range: %w", err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)

	if cfg.Topics, err = pick(ctx, c, adm, cfg); err != nil {
		return nil, err
	}
	details, err := adm.ListTopicsWithInternal(ctx, cfg.Topics...)
	if err != nil {
		return nil, fmt.Errorf("look up topics: %w", c.Explain(err, "Read", topicResources(cfg.Topics)...))
	}
	for _, t := range cfg.Topics {
		if err := topicError(details, t, cfg.Partitions); err != nil {
			return nil, c.Explain(err, "Read", "topic "+t)
		}
	}
	list := adm.ListCommittedOffsets
	if cfg.Uncommitted {
		list = adm.ListEndOffsets
	}
	var log offsets
	if log.end, err = listed(ctx, c, "end", list, cfg.Topics); err != nil {
		return nil, err
	}
	if log.start, err = listed(ctx, c, "start", adm.ListStartOffsets, cfg.Topics); err != nil {
		return nil, err
	}
	at := func(t time.Time) (kadm.ListedOffsets, error) {
		return listed(ctx, c, "time", func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			return adm.ListOffsetsAfterMilli(ctx, t.UnixMilli(), topics...)
		}, cfg.Topics)
	}
	if cfg.Range.From.Kind == position.Time {
		if log.from, err = at(cfg.Range.From.At); err != nil {
			return nil, err
		}
	}
	if cfg.Range.Until.Kind == position.Time && cfg.Late > 0 {
		if log.until, err = at(cfg.Range.Until.At.Add(cfg.Late)); err != nil {
			return nil, err
		}
	}
	return spans(*cfg, details, log), nil
}

// pick is the topics that are named, and those that the patterns match.
func pick(ctx context.Context, c kafka.Cluster, adm *kadm.Client, cfg *Config) ([]string, error) {
	if len(cfg.Patterns) == 0 {
		return cfg.Topics, nil
	}
	all, err := adm.ListTopics(ctx) // without those of the cluster
	if err != nil {
		return nil, fmt.Errorf("look up topics: %w", c.Explain(err, "Describe", "cluster"))
	}
	picked := slices.Clone(cfg.Topics)
	for name := range all {
		matches := slices.ContainsFunc(cfg.Patterns, func(re *regexp.Regexp) bool { return re.MatchString(name) })
		if matches && !strings.HasPrefix(name, "_") {
			picked = append(picked, name)
		}
	}
	if len(picked) == 0 {
		return nil, unknown("no topic matches " + joined(cfg.Patterns))
	}
	slices.Sort(picked)
	return slices.Compact(picked), nil
}

func joined(patterns []*regexp.Regexp) string {
	texts := make([]string, len(patterns))
	for i, re := range patterns {
		texts[i] = re.String()
	}
	return strings.Join(texts, ", ")
}

// unknown is kerr.UnknownTopicOrPartition in words that name what is missing.
type unknown string

func (u unknown) Error() string { return string(u) }
func (u unknown) Unwrap() error { return kerr.UnknownTopicOrPartition }

// topicError is what is wrong with a topic, or with the partitions asked of it.
func topicError(details kadm.TopicDetails, topic string, partitions []int32) error {
	d, ok := details[topic]
	switch {
	case !ok, errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		return unknown("there is no topic " + topic)
	case d.Err != nil:
		return fmt.Errorf("read topic %s: %w", topic, d.Err)
	}
	for _, p := range partitions {
		if _, ok := d.Partitions[p]; !ok {
			return unknown(fmt.Sprintf("topic %s has partitions 0 to %d, not %d", topic, len(d.Partitions)-1, p))
		}
	}
	return nil
}

type lister func(context.Context, ...string) (kadm.ListedOffsets, error)

func listed(ctx context.Context, c kafka.Cluster, what string, list lister, topics []string) (kadm.ListedOffsets, error) {
	l, err := list(ctx, topics...)
	if err == nil {
		err = l.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s offsets: %w", what, c.Explain(err, "Read", topicResources(topics)...))
	}
	return l, nil
}

// offsets is what the cluster answered: the bounds of the log, and where the range's times lie in it.
type offsets struct{ start, end, from, until kadm.ListedOffsets }

func spans(cfg Config, details kadm.TopicDetails, log offsets) []*part {
	var parts []*part
	topics := slices.Clone(cfg.Topics)
	slices.Sort(topics)
	for _, t := range slices.Compact(topics) {
		for p := range details[t].Partitions {
			if len(cfg.Partitions) > 0 && !slices.Contains(cfg.Partitions, p) {
				continue
			}
			from, ok := cfg.Range.From.In(p)
			until, ok2 := cfg.Range.Until.In(p)
			if !ok || !ok2 {
				continue
			}
			sp := part{Span: Span{Topic: t, Partition: p}, topicID: details[t].ID}
			sp.freeze(cfg, from, until, log)
			parts = append(parts, &sp)
		}
	}
	slices.SortFunc(parts, func(a, b *part) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return parts
}

// freeze computes the partition's span: pure but for the answers in log.
func (p *part) freeze(cfg Config, from, until position.Point, log offsets) {
	at := func(l kadm.ListedOffsets) int64 {
		o, _ := l.Lookup(p.Topic, p.Partition)
		return o.Offset
	}
	lo, hi := at(log.start), at(log.end)
	hi = max(lo, hi)

	asked := offset(from, lo, hi, func() int64 { return at(log.from) })
	p.From = min(max(asked, lo), hi)
	if from.Kind == position.Offset && asked != p.From {
		p.Note = fmt.Sprintf("offset %d is outside of the log, which holds %d to %d: reading from %d", asked, lo, hi, p.From)
	}
	p.next = p.From

	end := hi
	if cfg.Range.Bounded() {
		end = offset(until, lo, hi, func() int64 {
			if log.until == nil {
				return hi
			}
			return at(log.until)
		})
		p.Early = until.Kind == position.Time && end < hi
		if until.Kind == position.Offset && end > hi && !cfg.Follow {
			p.Note = fmt.Sprintf("the log ends at %d, before %d", hi, end)
		}
	}
	p.goal = max(p.From, min(end, hi))
	p.Until = p.goal
	switch {
	case !cfg.Follow || until.Kind == position.End || until.Kind == position.Start && cfg.Range.Bounded():
	case !cfg.Range.Bounded(), until.Kind == position.Time && !p.Early:
		p.Until = math.MaxInt64
	case until.Kind == position.Offset:
		p.Until = max(p.From, end)
	}
}

// offset is the point in a log that holds lo ≤ offset < hi. Distances never overflow.
func offset(p position.Point, lo, hi int64, byTime func() int64) int64 {
	switch p.Kind {
	case position.End:
		return max(lo, hi-p.N)
	case position.Offset:
		return p.N
	case position.Time:
		return byTime()
	default:
		return lo + min(p.N, hi-lo)
	}
}

func topicResources(topics []string) []string {
	out := make([]string, len(topics))
	for i, t := range topics {
		out[i] = "topic " + t
	}
	return out
}
