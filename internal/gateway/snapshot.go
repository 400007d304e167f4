package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

// SeenTopic keeps what was acknowledged, for the next start. It is compacted, and keeps records for as long as an id is
// remembered.
const SeenTopic = "_millrace.seen"

// SeenLog is where snapshots of acknowledged ids are kept.
type SeenLog interface {
	// Append keeps a snapshot under a key that no other has. Nil means that every in-sync replica has it.
	Append(ctx context.Context, key string, value []byte) error
	// Read yields the snapshots that were kept from one time until another, in the order in which they were kept.
	Read(ctx context.Context, from, until time.Time) iter.Seq2[[]byte, error]
}

// kafkaSeen keeps them in [SeenTopic].
type kafkaSeen struct {
	cluster kafka.Cluster
	pub     event.Publisher
}

// KafkaSeen keeps snapshots in the topic [SeenTopic] of a cluster, which must exist. They are written through pub.
func KafkaSeen(c kafka.Cluster, pub event.Publisher) SeenLog { return kafkaSeen{c, pub} }

// Append implements [SeenLog].
func (k kafkaSeen) Append(ctx context.Context, key string, value []byte) error {
	return k.pub.Publish(ctx, event.Event{Meta: event.Meta{Topic: SeenTopic, Key: []byte(key)}, Value: value, Verbatim: true})
}

// Read implements [SeenLog].
func (k kafkaSeen) Read(ctx context.Context, from, until time.Time) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		r, err := reader.Open(ctx, k.cluster, reader.Config{
			Topics: []string{SeenTopic}, Range: position.Range{From: at(from), Until: at(until)},
		})
		if err != nil {
			yield(nil, err)
			return
		}
		for e, err := range r.Events(ctx) {
			if !yield(e.Value, err) {
				return
			}
		}
	}
}

func at(t time.Time) position.Point { return position.Point{Kind: position.Time, At: t.UTC()} }

// A snapshot is its version, the time in seconds, the source's name with its length, and then fingerprints of a kind
// with their number, up to the end.
const (
	snapshotVersion = 1
	snapshotEvery   = time.Minute
	snapshotMost    = 32 << 10 // fingerprints: 256 KiB, far below what a record may have
	snapshotTimeout = 20 * time.Second
	recent          = time.Hour // is read back first
)

// appendSnapshot writes the marks of one source.
func appendSnapshot(dst []byte, at time.Time, source string, marks []mark) []byte {
	dst = append(dst, snapshotVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(at.Unix()))
	dst = append(binary.AppendUvarint(dst, uint64(len(source))), source...)
	for _, kind := range []byte{kindID, kindBody} {
		n := 0
		for _, m := range marks {
			if m.kind == kind {
				n++
			}
		}
		dst = binary.AppendUvarint(append(dst, kind), uint64(n))
		for _, m := range marks {
			if m.kind == kind {
				dst = binary.BigEndian.AppendUint64(dst, uint64(m.f))
			}
		}
	}
	return dst
}

var errSnapshot = errors.New("it is no snapshot of this version")

// readSnapshot reads what appendSnapshot wrote.
func readSnapshot(src []byte) (at time.Time, source string, marks []mark, err error) {
	if len(src) < 9 || src[0] != snapshotVersion {
		return at, "", nil, errSnapshot
	}
	seconds := binary.BigEndian.Uint64(src[1:9])
	if seconds > 1<<40 {
		return at, "", nil, errSnapshot
	}
	at, src = time.Unix(int64(seconds), 0), src[9:]
	n, w := binary.Uvarint(src)
	if w <= 0 || n > uint64(len(src)-w) {
		return at, "", nil, errSnapshot
	}
	source, src = string(src[w:w+int(n)]), src[w+int(n):]
	for len(src) > 0 {
		kind := src[0]
		n, w := binary.Uvarint(src[1:])
		if w <= 0 || n > uint64(len(src)-1-w)/8 || kind != kindID && kind != kindBody {
			return at, "", nil, errSnapshot
		}
		src = src[1+w:]
		for range n {
			marks = append(marks, mark{kind, fingerprint(binary.BigEndian.Uint64(src))})
			src = src[8:]
		}
	}
	return at, source, marks, nil
}

// snapshots writes what was acknowledged once a minute, and once more when ctx has ended.
func (g *Gateway) snapshots(ctx context.Context) {
	if g.cfg.Seen == nil {
		return
	}
	began := strconv.FormatInt(time.Now().UnixNano(), 36)
	tick := time.NewTicker(snapshotEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			g.snapshot(ctx, fmt.Sprintf("%s/%s/%d", g.cfg.Instance, began, n))
		case <-ctx.Done():
			last := context.WithoutCancel(ctx)
			g.snapshot(last, fmt.Sprintf("%s/%s/%d", g.cfg.Instance, began, n))
			return
		}
	}
}

// snapshot writes what is new of every source. What could not be written is tried again with the next one.
func (g *Gateway) snapshot(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	g.states.Range(func(name, value any) bool {
		st := value.(*state) //nolint:forcetypeassert // nothing else is in it
		if n := st.evictions(); n > 0 {
			g.cfg.Observer.Evicted(st.name, int(n))
		}
		for part := 0; ; part++ {
			marks := st.takeFresh(snapshotMost)
			if len(marks) == 0 {
				return true
			}
			err := g.cfg.Seen.Append(ctx, fmt.Sprintf("%s/%s/%d", name, key, part), appendSnapshot(nil, time.Now(), st.name, marks))
			if err != nil {
				st.giveBack(marks)
				g.log.Warn("the ids that were seen could not be kept: a repeat of them after a restart is published again", zap.Error(err))
				return false
			}
		}
	})
}

func (s *state) takeFresh(most int) []mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(most, len(s.fresh))
	marks := s.fresh[:n:n]
	s.fresh = s.fresh[n:]
	if len(s.fresh) == 0 {
		s.fresh = nil
	}
	return marks
}

func (s *state) giveBack(marks []mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	room := max(0, maxFresh-len(s.fresh))
	if len(marks) > room {
		s.unkept += uint64(len(marks) - room)
		marks = marks[len(marks)-room:]
	}
	s.fresh = append(slices.Clip(marks), s.fresh...)
}

// How the ids are read back.
const (
	readBackAgain = 10 * time.Second // after an error
	followFor     = 10 * time.Minute // after the start, a gateway that this one replaces may still keep ids
	followOverlap = time.Minute      // the clocks of two gateways differ
)

// restore reads back what was acknowledged before: at the start, and again of sources that a reload brings. For some
// minutes it follows what others keep. Requests are answered meanwhile.
func (g *Gateway) restore(ctx context.Context, began time.Time) {
	if g.cfg.Seen == nil {
		return
	}
	for read := began; ; {
		now := time.Now()
		err := g.readUnread(ctx, now)
		if err == nil && now.Sub(began) <= followFor && now.Sub(read) >= snapshotEvery {
			if _, err = g.readSeen(ctx, g.sources.Load().byName, read.Add(-followOverlap), now); err == nil {
				read = now
			}
		}
		if ctx.Err() != nil {
			return
		}
		var again <-chan time.Time
		switch {
		case err != nil:
			g.log.Warn("the ids that were seen before could not be read yet: until then a repeat of them is published again", zap.Error(err))
			again = time.After(readBackAgain)
		case now.Sub(began) <= followFor:
			again = time.After(snapshotEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-g.unread:
		}
	}
}

// readUnread reads back what was kept of the sources that are new: the last hour first, for that is what repeats are of.
func (g *Gateway) readUnread(ctx context.Context, now time.Time) error {
	of, longest := map[string]*served{}, time.Duration(0)
	for name, s := range g.sources.Load().byName {
		s.mu.Lock()
		if s.unread {
			s.unread = false
			of[name], longest = s, max(longest, s.idFor, s.bodyFor)
		}
		s.mu.Unlock()
	}
	if len(of) == 0 {
		return nil
	}
	all := 0
	for _, span := range [][2]time.Duration{{min(recent, longest), 0}, {longest, min(recent, longest)}} {
		if span[0] == span[1] {
			continue
		}
		ids, err := g.readSeen(ctx, of, now.Add(-span[0]), now.Add(-span[1]))
		if err != nil {
			for _, s := range of {
				s.mu.Lock()
				s.unread = true
				s.mu.Unlock()
			}
			return err
		}
		all += ids
	}
	g.log.Info("the ids that were seen before are known", zap.Int("sources", len(of)), zap.Int("ids", all), zap.Duration("took", time.Since(now)))
	return nil
}

// readSeen reads what was kept of some sources in a time.
func (g *Gateway) readSeen(ctx context.Context, of map[string]*served, from, until time.Time) (ids int, err error) {
	for value, err := range g.cfg.Seen.Read(ctx, from, until) {
		if err != nil {
			return ids, err
		}
		if ctx.Err() != nil {
			return ids, ctx.Err()
		}
		ids += recall(of, value)
	}
	return ids, nil
}

// recall takes one snapshot in, in steps: requests wait for none of them.
func recall(of map[string]*served, value []byte) int {
	at, name, marks, err := readSnapshot(value)
	src := of[name]
	if err != nil || src == nil {
		return 0 // of another source, or of another version
	}
	const step = 1024
	now := time.Now()
	for rest := marks; len(rest) > 0; rest = rest[min(step, len(rest)):] {
		src.mu.Lock()
		for _, m := range rest[:min(step, len(rest))] {
			src.makeTable(m.kind).add(m.f, at, now)
		}
		src.mu.Unlock()
	}
	return len(marks)
}

// window and bodyWindow are how long ids of the source are remembered.
func (s *Source) window() time.Duration {
	return s.identity.Identify(emptyRequest).Window
}

func (s *Source) bodyWindow() time.Duration {
	return s.identity.Identify(emptyRequest).BodyWindow
}
