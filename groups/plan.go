package groups

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/position"
)

// KeptElsewhere begins the metadata of commits that only report a position: the truth is in another system, as a sink's is in
// its database, and a commit written over it would be ignored and overwritten. What follows the prefix, up to the end, names
// the keeper in words for people: "mill-at:sink orders-pg". It is not the prefix of a cursor's metadata.
const KeptElsewhere = "mill-at:"

// Errors that stand in the way of a plan. Nothing was changed.
var (
	// ErrActive means that the group has members: they would overwrite what is committed beside them.
	ErrActive = errors.New("the group is active")
	// ErrChanged means that group or cluster are no longer as the plan has them.
	ErrChanged = errors.New("the group has changed since the plan: plan again")
	// ErrCluster means that the plan or the file was made on another cluster, where offsets mean other records.
	ErrCluster = errors.New("it belongs to another cluster")
	// ErrElsewhere means that the group's position is kept by something else: see [KeptElsewhere].
	ErrElsewhere = errors.New("the position of the group is kept elsewhere, and its commits only report it")
	// ErrNothing means that no partition is left that the goal says something about.
	ErrNothing = errors.New("no partition has a new position")
)

// TopicID is a topic's id as Kafka's tools print it: 22 characters of base64. A topic that was deleted and created again
// has another one.
type TopicID string

func topicID(id [16]byte) TopicID { return TopicID(base64.RawURLEncoding.EncodeToString(id[:])) }

func (id TopicID) bytes() (out kadm.TopicID, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(string(id))
	if err != nil || len(raw) != len(out) {
		return out, fmt.Errorf("%q is no topic id", string(id))
	}
	return kadm.TopicID(raw), nil
}

// Position is a commit on a partition.
type Position struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Epoch     int32  `json:"epoch"` // of the leader, -1 where it is not known
	Metadata  string `json:"metadata"`
}

// Goal says where a group is to stand. One of At, Shift, Positions and Undo is set.
type Goal struct {
	// Topics restricts the plan to these, and adds those that the group has nothing to do with yet. Empty is every topic that
	// the group has committed or subscribed to.
	Topics []string
	// Partitions restricts it to these partitions of every topic. Empty is all.
	Partitions []int32
	// At is a place in each partition. One of [position.Each] leaves the partitions alone that it does not name.
	At *position.Point
	// Shift moves each commit by so many offsets.
	Shift int64
	// Positions are those of another group or of a file; other partitions are left alone.
	Positions []Position
	// Undo takes back what applying this plan has done, exactly: offset, epoch and metadata.
	Undo *Plan
}

func (g Goal) validate() error {
	set := 0
	for _, is := range []bool{g.At != nil, g.Shift != 0, g.Positions != nil, g.Undo != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return errors.New("plan offsets: say one way where the group is to stand: a position, a shift, other positions or an undo")
	}
	for _, p := range g.Partitions {
		if p < 0 {
			return fmt.Errorf("plan offsets: partition %d: partitions count from 0", p)
		}
	}
	return nil
}

// Snapshot is what a plan is made from.
type Snapshot struct {
	ClusterID string
	At        time.Time
	Group     Group // with the partitions of topics that the goal names
	TopicIDs  map[string]TopicID
	// Found are, for a goal that is a time, the offset of the first record at or after it, for the partitions that have one.
	Found map[string]map[int32]int64
}

// Plan is what is to be committed, and the state of things in which that may be done. It is plain data, complete in itself: it
// may be printed, written as JSON, read again and applied.
type Plan struct {
	Millrace  int    `json:"millrace"` // the version of the format: 1
	ClusterID string `json:"cluster_id"`
	Group     string `json:"group"`
	State     string `json:"state"` // of the group
	// Keeper names who has the positions, "" where they are the group's commits. See [Keeper].
	Keeper  string    `json:"keeper,omitempty"`
	Created time.Time `json:"created"`
	// Exact says that the targets were commits of the group: they are written as they were, even where the log no longer
	// reaches.
	Exact bool   `json:"exact,omitempty"`
	Moves []Move `json:"moves"` // by topic and partition
}

// Move is what a plan does on one partition.
type Move struct {
	Topic     string  `json:"topic"`
	TopicID   TopicID `json:"topic_id,omitempty"`
	Partition int32   `json:"partition"`
	// From is the commit as it is, nil without one; To the one to write, nil to remove it.
	From *Place `json:"from"`
	To   *Place `json:"to"`
	// Start and End are the bounds of the log.
	Start int64 `json:"start"`
	End   int64 `json:"end"`
	// Note is what one should know: a position that was moved into the log, records that are forgotten.
	Note string `json:"note,omitempty"`
	// Left says that nothing is to be done here: Note says why, if it is not that the commit stands there already.
	Left bool `json:"left,omitempty"`
}

// Place is an offset, and what is committed with it.
type Place struct {
	Offset   int64  `json:"offset"`
	Epoch    int32  `json:"epoch"`
	Metadata string `json:"metadata"`
	// Time is the timestamp of the record that comes next, nil at the end and where it was not looked up.
	Time *time.Time `json:"time,omitempty"`
}

func (p *Place) same(o *Place) bool {
	if p == nil || o == nil {
		return p == o
	}
	return p.Offset == o.Offset && p.Epoch == o.Epoch && p.Metadata == o.Metadata
}

// Delta is how many messages the move goes on (positive: they are skipped) or back (negative: they are read again), as offsets;
// false where it starts or ends without a commit.
func (m Move) Delta() (int64, bool) {
	if m.From == nil || m.To == nil {
		return 0, false
	}
	return m.To.Offset - m.From.Offset, true
}

// Span is how much time lies between the record that comes next and the one that will; false where one of them is not known.
func (m Move) Span() (time.Duration, bool) {
	if m.From == nil || m.To == nil || m.From.Time == nil || m.To.Time == nil {
		return 0, false
	}
	return m.To.Time.Sub(*m.From.Time), true
}

// Changes are the moves that do something.
func (p Plan) Changes() []Move {
	return slices.DeleteFunc(slices.Clone(p.Moves), func(m Move) bool { return m.Left })
}

// Active reports whether the plan was made while the group had members. It cannot be applied.
func (p Plan) Active() bool { return active(p.State) }

func active(state string) bool { return state != "" && state != "Empty" && state != "Dead" }

// Compute makes a plan. It is pure: the same arguments give the same plan. A position outside of the log is moved to its
// nearest end, with a note. No target is ever negative.
func Compute(s Snapshot, g Goal) (Plan, error) {
	if err := g.validate(); err != nil {
		return Plan{}, err
	}
	p := Plan{Millrace: 1, ClusterID: s.ClusterID, Group: s.Group.ID, State: s.Group.State, Created: s.At, Exact: g.Undo != nil}
	if keeper := s.Group.keeper(); keeper != "" {
		return p, fmt.Errorf("plan offsets of group %s: %w", s.Group.ID, &KeeperError{keeper})
	}
	if g.Undo != nil {
		if g.Undo.ClusterID != s.ClusterID {
			return p, fmt.Errorf("plan offsets of group %s: the last change was made on cluster %s, this is %s: %w", s.Group.ID, g.Undo.ClusterID, s.ClusterID, ErrCluster)
		}
		if g.Undo.Group != s.Group.ID {
			return p, fmt.Errorf("plan offsets of group %s: the change to take back is one of group %s", s.Group.ID, g.Undo.Group)
		}
	}
	if err := g.covered(s); err != nil {
		return p, err
	}
	reached := false
	for _, part := range s.Group.Partitions {
		if len(g.Topics) > 0 && !slices.Contains(g.Topics, part.Topic) || len(g.Partitions) > 0 && !slices.Contains(g.Partitions, part.Partition) {
			continue
		}
		m, said := g.move(s, part)
		if said != silent {
			p.Moves = append(p.Moves, m)
		}
		reached = reached || said == met
	}
	slices.SortFunc(p.Moves, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	if !reached {
		err := fmt.Errorf("plan offsets of group %s: %w", s.Group.ID, ErrNothing)
		if len(p.Moves) > 0 {
			err = fmt.Errorf("%w: %s partition %d: %s", err, p.Moves[0].Topic, p.Moves[0].Partition, p.Moves[0].Note)
		}
		return p, err
	}
	return p, nil
}

// covered checks that every partition that the goal names is there: one that is passed over in silence is the mistake that
// costs most.
func (g Goal) covered(s Snapshot) error {
	topics, there := map[string]bool{}, map[string]bool{}
	name := func(topic string, partition int32) string { return fmt.Sprintf("%s partition %d", topic, partition) }
	for _, p := range s.Group.Partitions {
		if len(g.Topics) == 0 || slices.Contains(g.Topics, p.Topic) {
			topics[p.Topic] = true
		}
		there[name(p.Topic, p.Partition)] = !p.Gone
	}
	missing := func(topic string, partition int32) error {
		return fmt.Errorf("plan offsets of group %s: there is no %s: %w", s.Group.ID, name(topic, partition), kerr.UnknownTopicOrPartition)
	}
	for t := range topics {
		for _, p := range g.Partitions {
			if !there[name(t, p)] {
				return missing(t, p)
			}
		}
	}
	seen := map[string]bool{}
	for _, p := range g.Positions {
		n := name(p.Topic, p.Partition)
		switch {
		case p.Offset < 0:
			return fmt.Errorf("plan offsets of group %s: %s: offset %d: an offset is never negative", s.Group.ID, n, p.Offset)
		case seen[n]:
			return fmt.Errorf("plan offsets of group %s: %s has two positions", s.Group.ID, n)
		case topics[p.Topic] && !there[n]:
			return missing(p.Topic, p.Partition)
		}
		seen[n] = true
	}
	if g.At == nil || g.At.Kind != position.Each {
		return nil
	}
	if len(topics) > 1 {
		return fmt.Errorf("plan offsets of group %s: it reads %d topics: say of which one %s are partitions", s.Group.ID, len(topics), g.At)
	}
	for one := range strings.SplitSeq(g.At.Offsets, ",") {
		digits, _, _ := strings.Cut(strings.TrimPrefix(one, "p"), "=")
		n, err := strconv.ParseInt(digits, 10, 32)
		for t := range topics {
			if err != nil || !there[name(t, int32(n))] {
				return missing(t, int32(n))
			}
		}
	}
	return nil
}

// keeper names who has the position of the group, "" where the commits are the position.
func (g Group) keeper() string {
	for _, p := range g.Partitions {
		if p.Commit == nil {
			continue
		}
		if name, ok := strings.CutPrefix(p.Commit.Metadata, KeptElsewhere); ok {
			return cmp.Or(name, "another system")
		}
	}
	return ""
}

// fate is what a goal has to say about a partition.
type fate int

const (
	silent fate = iota // nothing
	unmet              // something that cannot be done
	met                // a position
)

// move is what the goal makes of a partition.
func (g Goal) move(s Snapshot, part Partition) (Move, fate) {
	m := Move{Topic: part.Topic, TopicID: s.TopicIDs[part.Topic], Partition: part.Partition, Start: part.Start, End: max(part.Start, part.End)}
	if c := part.Commit; c != nil {
		m.From = &Place{Offset: c.Offset, Epoch: c.Epoch, Metadata: c.Metadata}
	}
	if part.Gone {
		m.Left, m.Note, m.To = true, "the topic or partition is gone", m.From
		return m, unmet
	}
	if g.Undo != nil {
		return g.undo(m, part)
	}
	asked, meta, ok := g.target(s, part, &m)
	if !ok {
		if m.To = m.From; m.Left {
			return m, unmet
		}
		return m, silent
	}
	at := min(max(asked, m.Start), m.End)
	switch {
	case asked < m.Start:
		m.note("%d is before the log, which starts at %d", asked, m.Start)
	case asked > m.End:
		m.note("%d is past the end of the log, %d", asked, m.End)
	}
	m.to(part, at, meta)
	return m, met
}

// to sets the target: metadata that belongs to the offset is kept, else it is that of a bare cursor, so that a Millrace
// consumer knows the commit for its own.
func (m *Move) to(part Partition, at int64, meta string) {
	cur, err := cursor.Decode(at, meta)
	whole := err == nil && cur.Mark == nil
	switch {
	case whole:
		m.To = &Place{Offset: at, Epoch: -1, Metadata: meta}
	case m.From != nil && m.From.Offset == at && part.Commit.plain():
		m.To = m.From
	default:
		bare, _, _ := cursor.Encode(cursor.Cursor{Position: at, Epoch: -1, Floor: at}, cursor.MaxRoom) // of a bare cursor it always fits
		m.To = &Place{Offset: at, Epoch: -1, Metadata: bare}
	}
	switch {
	case m.From != nil && m.From.Offset == at && m.From.Metadata == m.To.Metadata:
		m.To, m.Left = m.From, true
		return
	case part.Commit != nil && part.Commit.Damaged:
		m.note("its deferred records were unreadable and are forgotten")
	case part.Open() > 0 && m.To.Metadata != part.Commit.Metadata:
		m.note("its %d deferred records are forgotten: the oldest is %d", part.Open(), part.Commit.Cursor.Floor)
	}
	if n := part.Expired(); n > 0 {
		m.note("%d offsets were deleted before the group came to them", n)
	}
	if m.Start == m.End {
		m.note("the partition is empty")
	}
}

func (m *Move) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if m.Note != "" {
		text = m.Note + "; " + text
	}
	m.Note = text
}

// target is the offset that the goal asks for, and the metadata it brings along.
func (g Goal) target(s Snapshot, part Partition, m *Move) (offset int64, metadata string, ok bool) {
	if g.At != nil {
		offset, ok = g.at(s, part, m)
		return offset, "", ok
	}
	if g.Shift != 0 {
		if part.Commit == nil {
			m.Left = true
			m.note("without a commit there is nothing to shift")
			return 0, "", false
		}
		sum := part.Commit.Offset + g.Shift
		if g.Shift > 0 && sum < part.Commit.Offset {
			sum = m.End
		}
		return sum, "", true
	}
	for _, p := range g.Positions {
		if p.Topic == part.Topic && p.Partition == part.Partition {
			return p.Offset, p.Metadata, true
		}
	}
	return 0, "", false
}

func (g Goal) at(s Snapshot, part Partition, m *Move) (int64, bool) {
	p, ok := g.At.In(part.Partition)
	if !ok {
		return 0, false
	}
	switch p.Kind {
	case position.Start:
		return m.Start + min(p.N, m.End-m.Start), true
	case position.End:
		return max(m.Start, m.End-p.N), true
	case position.Offset:
		return p.N, true
	default:
		found, ok := s.Found[part.Topic][part.Partition]
		if !ok {
			if m.End > m.Start {
				m.note("no record is that late: the end")
			}
			return m.End, true
		}
		return min(found, m.End), true // a record that came after the bounds were asked for
	}
}

// undo is the way back to the commit that a plan found.
func (g Goal) undo(m Move, part Partition) (Move, fate) {
	i := slices.IndexFunc(g.Undo.Moves, func(d Move) bool {
		return d.Topic == part.Topic && d.Partition == part.Partition && !d.Left
	})
	if i < 0 {
		return m, silent
	}
	done := g.Undo.Moves[i]
	m.To = done.From
	switch {
	case done.TopicID != m.TopicID:
		m.Left, m.To = true, m.From
		m.note("the topic was deleted and created again")
		return m, unmet
	case m.From.same(m.To):
		m.Left = true
		return m, met
	case m.From != nil && !m.From.same(done.To):
		m.note("the group has moved on since: it was set to %s", offsetOf(done.To))
	}
	if m.To != nil && m.To.Offset < m.Start {
		m.note("the log starts at %d now: what lies before is deleted", m.Start)
	}
	return m, met
}

func offsetOf(p *Place) string {
	if p == nil {
		return "no commit"
	}
	return fmt.Sprint(p.Offset)
}

// validate refuses a plan that was not made here, or was written to by hand in a way that could hurt.
func (p Plan) validate() error {
	if p.Millrace != 1 {
		return fmt.Errorf("read plan: it is of version %d, this Millrace reads 1", p.Millrace)
	}
	if p.Group == "" {
		return errors.New("read plan: it names no group")
	}
	seen := map[string]bool{}
	for _, m := range p.Moves {
		name := fmt.Sprintf("%s partition %d", m.Topic, m.Partition)
		if m.Topic == "" || m.Partition < 0 || seen[name] {
			return fmt.Errorf("read plan: %q is no partition, or stands there twice", name)
		}
		seen[name] = true
		if m.To != nil && (m.To.Offset < 0 || len(m.To.Metadata) > cursor.MaxRoom) {
			return fmt.Errorf("read plan: %s: offset %d with %d bytes of metadata cannot be committed", name, m.To.Offset, len(m.To.Metadata))
		}
		if _, err := m.TopicID.bytes(); err != nil && !m.Left {
			return fmt.Errorf("read plan: %s: %w", name, err)
		}
	}
	return nil
}
