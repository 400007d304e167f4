package groups

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

const (
	applyTimeout = time.Minute
	timesMost    = 500 // partitions whose records are looked at for the time of a plan's places
)

// NewPlan looks at the group and makes a plan that leads to the goal. now is the time of the plan. It changes nothing.
//
// A group that does not exist is [ErrNotFound], unless the goal names topics: then it may be set up before its first member
// starts.
func NewPlan(ctx context.Context, c kafka.Cluster, group string, goal Goal, now time.Time) (Plan, error) {
	return newPlan(ctx, c, group, nil, goal, now)
}

func newPlan(ctx context.Context, c kafka.Cluster, group string, k Keeper, goal Goal, now time.Time) (Plan, error) {
	if err := goal.validate(); err != nil {
		return Plan{}, err
	}
	s, err := look(ctx, c, group, k, goal)
	if err != nil {
		return Plan{}, fmt.Errorf("plan offsets of group %s: %w", group, err)
	}
	s.At = now
	p, err := Compute(s, goal)
	if err != nil {
		return p, err
	}
	if k != nil {
		p.bare(k)
	}
	if err := p.addTimes(ctx, c); err != nil {
		return p, fmt.Errorf("plan offsets of group %s: %w", group, err)
	}
	return p, nil
}

// look takes the snapshot that a goal needs; k is nil where the commits are the position.
func look(ctx context.Context, c kafka.Cluster, group string, k Keeper, goal Goal) (Snapshot, error) {
	client, err := c.Client()
	if err != nil {
		return Snapshot{}, err
	}
	defer client.Close()
	adm := kadm.NewClient(client)

	wanted := goal.names()
	s := Snapshot{TopicIDs: map[string]TopicID{}}
	if s.ClusterID, err = clusterID(ctx, c, adm); err != nil {
		return s, err
	}
	var kept []Position
	if k != nil {
		if kept, err = k.Positions(ctx); err != nil {
			return s, fmt.Errorf("read the positions of %s: %w", k, err)
		}
		for _, p := range kept {
			wanted = append(wanted, p.Topic)
		}
	}
	if s.Group, err = describeStable(ctx, c, group); errors.Is(err, ErrNotFound) && len(wanted) > 0 {
		s.Group, err = Group{Summary: Summary{ID: group, State: "Dead"}}, nil
	}
	if err != nil {
		return s, err
	}
	var missing []string
	for _, t := range wanted {
		if !slices.Contains(missing, t) && !slices.ContainsFunc(s.Group.Partitions, func(p Partition) bool { return p.Topic == t }) {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		log, err := bounds(ctx, c, client, missing)
		if err != nil {
			return s, err
		}
		for _, t := range missing {
			extra := described{topics: kadm.TopicsSet{}}
			extra.topics.Add(t)
			found := partitions(extra, nil, log)
			if len(found) == 0 && goal.Undo == nil && slices.Contains(goal.names(), t) {
				return s, fmt.Errorf("there is no topic %s: %w", t, kerr.UnknownTopicOrPartition)
			}
			s.Group.Partitions = append(s.Group.Partitions, found...)
		}
	}
	if k != nil {
		s.Group.stand(kept)
	}
	topics := s.topics(goal)
	if len(topics) == 0 {
		return s, nil
	}
	details, err := adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return s, fmt.Errorf("look up topics: %w", c.Explain(err, "Describe", topicResources(topics)...))
	}
	for name, d := range details {
		if d.Err == nil {
			s.TopicIDs[name] = topicID(d.ID)
		}
	}
	if goal.At != nil && goal.At.Kind == position.Time {
		s.Found, err = after(ctx, c, adm, goal.At.At, topics)
	}
	return s, err
}

// names are the topics that the goal names, also those that the group has nothing to do with.
func (g Goal) names() []string {
	out := slices.Clone(g.Topics)
	if len(out) > 0 {
		return out
	}
	for _, p := range g.Positions {
		out = append(out, p.Topic)
	}
	if g.Undo != nil {
		for _, m := range g.Undo.Changes() {
			out = append(out, m.Topic)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// topics are those that the goal is about and that exist.
func (s Snapshot) topics(goal Goal) []string {
	set := kadm.TopicsSet{}
	for _, p := range s.Group.Partitions {
		if !p.Gone && (len(goal.Topics) == 0 || slices.Contains(goal.Topics, p.Topic)) {
			set.Add(p.Topic)
		}
	}
	return set.Topics()
}

// describeStable describes one group, after the commits of transactions under way have come to rest.
func describeStable(ctx context.Context, c kafka.Cluster, group string) (Group, error) {
	gs, err := Describe(kadm.RequireStable(ctx), c, group)
	if err != nil {
		return Group{}, err
	}
	return gs[0], nil
}

// ClusterID asks for the id of a cluster.
func ClusterID(ctx context.Context, c kafka.Cluster) (string, error) {
	client, err := c.Client()
	if err != nil {
		return "", fmt.Errorf("look up the cluster's id: %w", err)
	}
	defer client.Close()
	return clusterID(ctx, c, kadm.NewClient(client))
}

func clusterID(ctx context.Context, c kafka.Cluster, adm *kadm.Client) (string, error) {
	m, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return "", fmt.Errorf("look up the cluster's id: %w", c.Explain(err, "Describe", "cluster"))
	}
	return m.Cluster, nil
}

// after asks for the first record at or after a time. On the wire "there is none" is -1; it is left out here.
func after(ctx context.Context, c kafka.Cluster, adm *kadm.Client, at time.Time, topics []string) (map[string]map[int32]int64, error) {
	l, err := adm.ListOffsetsAfterMilli(ctx, at.UnixMilli(), topics...)
	if err == nil {
		err = l.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("look up offsets at %s: %w", at.Format(time.RFC3339), c.Explain(err, "Describe", topicResources(topics)...))
	}
	out := map[string]map[int32]int64{}
	l.Each(func(o kadm.ListedOffset) {
		if o.Offset < 0 || o.Timestamp < 0 { // the client puts the end where there is no such record
			return
		}
		if out[o.Topic] == nil {
			out[o.Topic] = map[int32]int64{}
		}
		out[o.Topic][o.Partition] = o.Offset
	})
	return out, nil
}

// addTimes looks up when the records were published that come next, now and after the move.
func (p *Plan) addTimes(ctx context.Context, c kafka.Cluster) error {
	places := map[reader.Place]*time.Time{}
	at := func(m Move, pl *Place) reader.Place {
		return reader.Place{Topic: m.Topic, Partition: m.Partition, Offset: max(pl.Offset, m.Start)}
	}
	var ask []reader.Place
	for _, m := range p.Moves[:min(len(p.Moves), timesMost)] {
		for _, pl := range []*Place{m.From, m.To} {
			if pl == nil || m.Left || pl.Offset >= m.End {
				continue
			}
			if k := at(m, pl); places[k] == nil {
				places[k] = new(time.Time)
				ask = append(ask, k)
			}
		}
	}
	found, err := reader.Peek(ctx, c, ask...)
	if err != nil {
		return fmt.Errorf("look up the time of positions: %w", err)
	}
	for i := range p.Moves {
		m := &p.Moves[i]
		for _, pl := range []**Place{&m.From, &m.To} {
			if *pl == nil || m.Left {
				continue
			}
			timed := **pl // the two may be one, or belong to an older plan
			timed.Time = nil
			if e, ok := found[at(*m, *pl)]; ok && timed.Offset < m.End {
				t := e.Published.UTC()
				timed.Time = &t
			}
			*pl = &timed
		}
	}
	return nil
}

// Apply does what the plan says, if cluster, group, topics and each commit are still as the plan has them: otherwise it
// changes nothing, and the error is one of the package's refusals. Before the first change it keeps the plan in backups, which
// is what a [Goal] with Undo needs. Afterwards it reads everything back.
//
// It returns the moves that were made, on an error too: a partition that fails does not stop the others, and the error joins
// all. It never joins the group. The group's coordinator refuses the commit as well while the group has members. It takes
// at most a minute.
func Apply(ctx context.Context, c kafka.Cluster, p Plan, backups Backups) ([]Move, error) {
	return apply(ctx, c, nil, p, backups)
}

func apply(ctx context.Context, c kafka.Cluster, k Keeper, p Plan, backups Backups) ([]Move, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	fail := func(err error) error { return fmt.Errorf("set offsets of group %s: %w", p.Group, err) }
	if c.ReadOnly {
		return nil, fail(kafka.ErrReadOnly)
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	client, err := c.Client()
	if err != nil {
		return nil, fail(err)
	}
	defer client.Close()
	if err := p.holds(ctx, c, client, k); err != nil {
		return nil, fail(err)
	}
	moves := p.Changes()
	if len(moves) == 0 {
		return nil, nil
	}
	kept, err := backups.keep(p)
	if err != nil {
		return nil, fail(err)
	}
	if k != nil {
		if err := k.Move(ctx, moves); err != nil {
			kept.drop()
			return nil, fail(err)
		}
		return moves, nil
	}
	w := writing{c: c, adm: kadm.NewClient(client), plan: p, failed: map[int]error{}}
	made, unsure := w.write(ctx, moves)
	if len(made) == 0 && !unsure { // nothing to take back, and the backup would hide the one before
		kept.drop()
	}
	if len(w.failed) == 0 {
		return made, nil
	}
	var errs []error
	for i, m := range moves {
		if err := w.failed[i]; err != nil {
			errs = append(errs, fmt.Errorf("%s partition %d: %w", m.Topic, m.Partition, err))
		}
	}
	return made, fail(errors.Join(errs...))
}

// holds reports what is no longer as the plan has it.
func (p Plan) holds(ctx context.Context, c kafka.Cluster, client *kgo.Client, k Keeper) error {
	if err := p.kept(k); err != nil {
		return err
	}
	id, err := clusterID(ctx, c, kadm.NewClient(client))
	if err != nil {
		return err
	}
	if id != p.ClusterID {
		return fmt.Errorf("the plan was made on cluster %s, this is %s: %w", p.ClusterID, id, ErrCluster)
	}
	topics := kadm.TopicsSet{}
	for _, m := range p.Changes() {
		topics.Add(m.Topic)
	}
	s, err := look(ctx, c, p.Group, k, Goal{Topics: topics.Topics()})
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if err != nil {
		return err
	}
	if g := s.Group; len(g.Members) > 0 || active(g.State) {
		return fmt.Errorf("%w: it has %d members (%s)", ErrActive, len(g.Members), g.State)
	}
	if keeper := s.Group.keeper(); keeper != "" {
		return &KeeperError{keeper}
	}
	if p.Active() {
		return fmt.Errorf("the plan was made while the group was active: %w", ErrChanged)
	}
	for _, m := range p.Changes() {
		i := slices.IndexFunc(s.Group.Partitions, func(q Partition) bool { return q.Topic == m.Topic && q.Partition == m.Partition })
		if i < 0 || s.Group.Partitions[i].Gone || s.TopicIDs[m.Topic] != m.TopicID {
			return fmt.Errorf("%s partition %d was deleted or created again: %w", m.Topic, m.Partition, ErrChanged)
		}
		part := s.Group.Partitions[i]
		var now *Place
		if cm := part.Commit; cm != nil {
			now = &Place{Offset: cm.Offset, Epoch: cm.Epoch, Metadata: cm.Metadata}
		}
		switch {
		case !now.same(m.From):
			return fmt.Errorf("%s partition %d is at %s, and was at %s: %w", m.Topic, m.Partition, offsetOf(now), offsetOf(m.From), ErrChanged)
		case !p.Exact && m.To != nil && (m.To.Offset < part.Start || m.To.Offset > max(part.Start, part.End)):
			return fmt.Errorf("%s partition %d holds %d to %d now, and %d lies outside: %w", m.Topic, m.Partition, part.Start, part.End, m.To.Offset, ErrChanged)
		}
	}
	return nil
}

// writing is a plan on its way to the cluster.
type writing struct {
	c      kafka.Cluster
	adm    *kadm.Client
	plan   Plan
	failed map[int]error // by index of the move
}

// write makes the moves and returns those that were made. unsure says that some may have been made that are not among them.
func (w *writing) write(ctx context.Context, moves []Move) (made []Move, unsure bool) {
	commits, removals := kadm.OffsetsByID{}, kadm.TopicsSet{}
	for _, m := range moves {
		if m.To == nil {
			removals.Add(m.Topic, m.Partition)
			continue
		}
		id, _ := m.TopicID.bytes() // validate has read it
		commits.Add(kadm.Offset{
			Topic: m.Topic, TopicID: id, Partition: m.Partition, At: m.To.Offset, LeaderEpoch: m.To.Epoch, Metadata: m.To.Metadata,
		})
	}
	committed, removed := kadm.OffsetResponsesByID{}, kadm.DeleteOffsetsResponses{}
	var commitErr, removeErr error
	if len(commits) > 0 {
		committed, commitErr = w.adm.CommitOffsetsByID(ctx, w.plan.Group, commits)
	}
	if len(removals) > 0 {
		removed, removeErr = w.adm.DeleteOffsets(ctx, w.plan.Group, removals)
	}
	for i, m := range moves {
		err, answered := commitErr, commitErr != nil
		if m.To == nil {
			err, answered = removeErr, removeErr != nil
			if err == nil {
				err, answered = removed.Lookup(m.Topic, m.Partition)
			}
		} else if err == nil {
			var r kadm.OffsetResponse
			id, _ := m.TopicID.bytes()
			r, answered = committed.Lookup(id, m.Partition)
			err = r.Err
		}
		if !answered {
			err = errors.New("the coordinator did not answer for it")
		}
		if err != nil {
			_, certain := errors.AsType[*kerr.Error](err)
			unsure = unsure || !certain && !errors.Is(err, kafka.ErrReadOnly)
			w.failed[i] = w.explain(err, m)
		}
	}
	return w.compare(ctx, moves), unsure
}

func (w *writing) explain(err error, m Move) error {
	switch {
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.GroupSubscribedToTopic), errors.Is(err, kerr.NonEmptyGroup):
		return fmt.Errorf("%w: %w", ErrActive, err)
	case errors.Is(err, kerr.UnknownTopicID):
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return w.c.Explain(err, "Read", "group "+w.plan.Group, "topic "+m.Topic)
}

// compare reads everything back. What the coordinator took and does not have is a failure.
func (w *writing) compare(ctx context.Context, moves []Move) []Move {
	var made []Move
	fetched, err := w.adm.FetchOffsets(ctx, w.plan.Group)
	for i, m := range moves {
		if w.failed[i] != nil {
			continue
		}
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			w.failed[i] = fmt.Errorf("it was written and could not be read back: %w", err)
			continue
		}
		var now *Place
		if o, ok := fetched.Lookup(m.Topic, m.Partition); ok && o.At >= 0 {
			now = &Place{Offset: o.At, Epoch: o.LeaderEpoch, Metadata: o.Metadata}
		}
		if !now.same(m.To) {
			w.failed[i] = fmt.Errorf("it was written as %s and is %s: somebody else commits too", offsetOf(m.To), offsetOf(now))
			continue
		}
		made = append(made, m)
	}
	return made
}

// Positions are the commits of a group, by topic and partition: for a file, or for a [Goal] of another group. Partitions that
// are gone are left out.
func (g Group) Positions() []Position {
	out := []Position{}
	for _, p := range g.Partitions {
		if p.Commit != nil && !p.Gone {
			out = append(out, Position{Topic: p.Topic, Partition: p.Partition, Offset: p.Commit.Offset, Epoch: p.Commit.Epoch, Metadata: p.Commit.Metadata})
		}
	}
	return out
}

// Export is a group's positions as a file keeps them.
type Export struct {
	Millrace  int        `json:"millrace"` // the version of the format: 1
	ClusterID string     `json:"cluster_id"`
	Group     string     `json:"group"`
	Created   time.Time  `json:"created"`
	Positions []Position `json:"positions"`
}

// NewExport reads where a group stands, at the time now. With [Export.Goal] it is set there again.
func NewExport(ctx context.Context, c kafka.Cluster, group string, now time.Time) (Export, error) {
	s, err := look(ctx, c, group, nil, Goal{})
	if err != nil {
		return Export{}, fmt.Errorf("export offsets of group %s: %w", group, err)
	}
	if keeper := s.Group.keeper(); keeper != "" {
		return Export{}, fmt.Errorf("export offsets of group %s: %w", group, &KeeperError{keeper})
	}
	return Export{Millrace: 1, ClusterID: s.ClusterID, Group: group, Created: now, Positions: s.Group.Positions()}, nil
}

// Goal leads a group of the cluster that the export was made on to its positions.
func (e Export) Goal(ctx context.Context, c kafka.Cluster) (Goal, error) {
	if e.Millrace != 1 || len(e.Positions) == 0 {
		return Goal{}, errors.New("read positions: the file is no export of offsets, or is empty")
	}
	id, err := ClusterID(ctx, c)
	if err != nil {
		return Goal{}, fmt.Errorf("read positions: %w", err)
	}
	if id != e.ClusterID {
		return Goal{}, fmt.Errorf("read positions: they were exported from cluster %s, this is %s: %w", e.ClusterID, id, ErrCluster)
	}
	return Goal{Positions: e.Positions}, nil
}
