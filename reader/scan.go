package reader

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/schemas"
)

const (
	pollRecords = 10_000
	// fetchBytes bounds what one answer of a broker holds; with the queues of a merge it bounds a reading's memory.
	fetchBytes          = 16 << 20
	fetchPartitionBytes = 1 << 20
	// A merge pauses a partition that is this many records ahead of the slowest one.
	queueHigh, queueLow = 10_000, 1_000
	// A partition that is not at its end and sends nothing for a while is asked directly. See probe.
	quietFirst, quietMost = 250 * time.Millisecond, 2 * time.Second
)

// errStopped says that whoever ranges over the events has had enough.
var errStopped = errors.New("stopped")

type key struct {
	topic     string
	partition int32
}

// scan is one run over a reading.
type scan struct {
	*Reading
	yield  func(event.Event, error) bool
	client *kgo.Client
	points *kgo.Client // for probes, nil until one is needed
	byKey  map[key]*part
	moved  time.Time     // when a partition last moved
	quiet  time.Duration // how long silence lasts before the next probe
	event  event.Event
	seen   seen // since the last count
}

// seen is what a scan adds to its reading's completeness.
type seen struct {
	Scanned, Matched, Undecodable, Failed int64
	FirstUndecodable, FirstFailed         Failure
}

func (s *scan) run(ctx context.Context) error {
	assigned := map[string]map[int32]kgo.Offset{}
	s.byKey = map[key]*part{}
	for _, p := range s.parts {
		s.byKey[key{p.Topic, p.Partition}] = p
		if p.done() {
			continue
		}
		if assigned[p.Topic] == nil {
			assigned[p.Topic] = map[int32]kgo.Offset{}
		}
		assigned[p.Topic][p.Partition] = kgo.NewOffset().At(p.next)
	}
	if err := s.drain(); err != nil || len(assigned) == 0 {
		s.account()
		return err
	}
	client, err := s.cluster.Client(
		kgo.ConsumePartitions(assigned), kgo.KeepControlRecords(), kgo.FetchIsolationLevel(s.isolation()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // whatever it resets to: every record is held against the span
		kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(fetchPartitionBytes), kgo.FetchMaxWait(time.Second))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	defer func() {
		client.Close()
		if s.points != nil {
			s.points.Close()
		}
	}()
	s.client = client
	s.moved, s.quiet = time.Now(), quietFirst
	for !s.finished() {
		if err := s.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) isolation() kgo.IsolationLevel {
	if s.cfg.Uncommitted {
		return kgo.ReadUncommitted()
	}
	return kgo.ReadCommitted()
}

// step polls once, asks silent partitions, and yields what is ready.
func (s *scan) step(ctx context.Context) error {
	polling, cancel := context.WithTimeout(ctx, s.quiet)
	fetches := s.client.PollRecords(polling, pollRecords)
	cancel()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := s.fetchError(fetches); err != nil {
		return err
	}
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if p := s.byKey[key{f.Topic, f.Partition}]; p != nil {
			s.accept(p, f.Records)
		}
	})
	if fetches.NumRecords() == 0 {
		if err := s.probe(ctx); err != nil {
			return err
		}
	} else {
		s.quiet = quietFirst
	}
	err := s.drain()
	if fetches.NumRecords() > 0 {
		s.moved = time.Now() // whoever took the events may have taken his time: that is no silence of the cluster
	}
	s.account()
	return err
}

func (s *scan) fetchError(fetches kgo.Fetches) error {
	for _, f := range fetches.Errors() {
		var lost *kgo.ErrDataLoss
		switch {
		case errors.Is(f.Err, context.DeadlineExceeded): // our own poll
		case errors.As(f.Err, &lost):
			s.cfg.Log.Warn("the log was cut while it was read", zap.String("topic", f.Topic), zap.Int32("partition", f.Partition), zap.Error(f.Err))
		case f.Topic == "":
			return fmt.Errorf("read: %w", s.cluster.Explain(f.Err, "Read", topicResources(s.cfg.Topics)...))
		default:
			return fmt.Errorf("read %s partition %d: %w", f.Topic, f.Partition, s.cluster.Explain(f.Err, "Read", "topic "+f.Topic))
		}
	}
	return nil
}

// accept takes a partition's records. The position moves over every one of them, whatever a filter will say, and
// over transaction markers, which occupy offsets; nothing outside the span or behind the position is kept, so a
// reset, a fetch that was in flight, or a probe that saw the same records changes nothing.
func (s *scan) accept(p *part, records []*kgo.Record) {
	for _, r := range records {
		if r.Offset < p.next || p.done() {
			continue
		}
		if r.Offset >= p.Until {
			s.advance(p, p.Until) // the records before the end are gone: compacted, aborted or deleted
			break
		}
		s.advance(p, r.Offset+1)
		if r.Attrs.IsControl() {
			continue
		}
		if s.cfg.Follow && s.cfg.Range.Until.Kind == position.Time && !r.Timestamp.Before(s.cfg.Range.Until.At) {
			p.past = p.reached()
		}
		p.queue = append(p.queue, r)
	}
	if !s.cfg.Merge && len(p.queue) > 0 && !slices.Contains(s.ready, p) {
		s.ready = append(s.ready, p)
	}
}

func (s *scan) advance(p *part, next int64) {
	if next > p.next {
		p.next = next
		s.moved = time.Now()
	}
}

func (s *scan) finished() bool {
	return !slices.ContainsFunc(s.parts, func(p *part) bool { return !p.done() || len(p.queue) > 0 })
}

// drain yields what may be yielded now.
func (s *scan) drain() error {
	if !s.cfg.Merge {
		for len(s.ready) > 0 {
			p := s.ready[0]
			for len(p.queue) > 0 {
				r := p.queue[0]
				p.queue = p.queue[1:]
				if err := s.emit(p, r); err != nil {
					return err
				}
			}
			p.queue = nil // it held the batch
			s.ready = s.ready[1:]
		}
		return nil
	}
	var h byTime
	for _, p := range s.parts {
		if len(p.queue) > 0 {
			h = append(h, p)
		} else if !p.reached() {
			s.flow()
			return nil // its next record may be the oldest of all
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		p := h[0]
		r := p.queue[0]
		p.queue = p.queue[1:]
		if err := s.emit(p, r); err != nil {
			return err
		}
		switch {
		case len(p.queue) > 0:
			heap.Fix(&h, 0)
		case p.reached():
			heap.Pop(&h)
		default:
			s.flow()
			return nil
		}
	}
	s.flow()
	return nil
}

// flow pauses partitions that are far ahead in a merge and resumes them when the others have caught up, and stops
// fetching what is done.
func (s *scan) flow() {
	pause, resume := map[string][]int32{}, map[string][]int32{}
	for _, p := range s.parts {
		switch {
		case !p.paused && (len(p.queue) > queueHigh || p.done()):
			p.paused = true
			pause[p.Topic] = append(pause[p.Topic], p.Partition)
		case p.paused && len(p.queue) < queueLow && !p.done():
			p.paused = false
			resume[p.Topic] = append(resume[p.Topic], p.Partition)
		}
	}
	if s.client == nil {
		return
	}
	if len(pause) > 0 {
		s.client.PauseFetchPartitions(pause)
	}
	if len(resume) > 0 {
		s.client.ResumeFetchPartitions(resume)
	}
}

// emit counts a record, filters it, and yields it.
func (s *scan) emit(p *part, r *kgo.Record) error {
	s.seen.Scanned++
	if !inTime(s.cfg.Range, r.Timestamp) {
		return nil
	}
	e := &s.event // one for all that do not match
	wire.Read(e, r, p.topicID)
	if s.cfg.Match != nil {
		matched, err := s.cfg.Match(e)
		if err != nil {
			return s.blame(r, err)
		}
		if !matched {
			return nil
		}
	}
	s.seen.Matched++
	s.count()
	if !s.yield(*e, nil) {
		return errStopped
	}
	return nil
}

// blame counts a record on which Match failed: a record that nobody can decode, or one to which the question has no
// answer. Where nothing is known about the record, the reading ends.
func (s *scan) blame(r *kgo.Record, err error) error {
	first := Failure{r.Topic, r.Partition, r.Offset, err}
	switch {
	case errors.Is(err, schemas.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		s.seen.Scanned-- // it will be asked again
		return fmt.Errorf("read %s partition %d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	case errors.Is(err, schemas.ErrPoison), errors.Is(err, schemas.ErrIncompatible), errors.Is(err, schemas.ErrNotFound):
		if s.seen.Undecodable++; s.seen.FirstUndecodable.Err == nil {
			s.seen.FirstUndecodable = first
		}
	default:
		if s.seen.Failed++; s.seen.FirstFailed.Err == nil {
			s.seen.FirstFailed = first
		}
	}
	return nil
}

// count adds what was seen to the completeness: not for every record, because of the lock.
func (s *scan) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.state
	c.Scanned += s.seen.Scanned
	c.Matched += s.seen.Matched
	c.Undecodable += s.seen.Undecodable
	c.Failed += s.seen.Failed
	if c.FirstUndecodable.Err == nil {
		c.FirstUndecodable = s.seen.FirstUndecodable
	}
	if c.FirstFailed.Err == nil {
		c.FirstFailed = s.seen.FirstFailed
	}
	s.seen = seen{}
}

// inTime holds a record against a range's times: the offsets they were resolved to are only where to look,
// because timestamps of a partition need not rise.
func inTime(r position.Range, t time.Time) bool {
	if r.From.Kind == position.Time && t.Before(r.From.At) {
		return false
	}
	return r.Until.Kind != position.Time || t.Before(r.Until.At)
}

// account brings the completeness up to date and reports progress.
func (s *scan) account() {
	s.count()
	var passed int64
	for _, p := range s.parts {
		to := p.next
		if len(p.queue) > 0 { // what was yielded is less than what was accepted
			to = p.queue[0].Offset
		}
		passed += min(to, p.goal) - p.From
	}
	s.mu.Lock()
	s.state.Passed = passed
	s.state.Done = s.finished()
	total := s.state.Total
	s.mu.Unlock()
	if s.cfg.Progress != nil {
		s.cfg.Progress(passed, total)
	}
}

// byTime is a heap of partitions by their first waiting record.
type byTime []*part

func (h byTime) Len() int { return len(h) }

func (h byTime) Less(i, j int) bool {
	a, b := h[i].queue[0], h[j].queue[0]
	return cmp.Or(a.Timestamp.Compare(b.Timestamp), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition)) < 0
}

func (h byTime) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is part of heap.Interface. The heap never grows.
func (h *byTime) Push(x any) { *h = append(*h, x.(*part)) } //nolint:forcetypeassert // heap.Interface

// Pop is part of heap.Interface.
func (h *byTime) Pop() any {
	old := *h
	p := old[len(old)-1]
	*h = old[:len(old)-1]
	return p
}
