// Package groups looks at consumer groups: who is in them, where they stand, how far behind they are in messages and in
// time, how they do and why; and it moves where they stand. Command, API and console show what it returns; it prints nothing.
// Webhook endpoints and replays are groups too: a cursor's commit is recognised by its metadata, and its deferred records are
// counted.
//
//	gs, err := groups.Describe(ctx, cluster, "shipping")
//	ages, err := groups.Ages(ctx, cluster, gs, 100)
//
// An offset change is a plan first, which holds the state of things that it was made for:
//
//	plan, err := groups.NewPlan(ctx, cluster, "shipping", groups.Goal{At: &position.Point{Kind: position.Start}}, time.Now())
//	moved, err := groups.Apply(ctx, cluster, plan, groups.Backups{Dir: dir}) // or nothing, if anything differs by now
//
// # Errors
//
// A group without members and without commits does not exist: Kafka answers "Dead" or an empty list for any name,
// and here it is [ErrNotFound]. [ErrActive], [ErrChanged], [ErrCluster] and [ErrElsewhere] are refusals: nothing was
// changed.
package groups

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/kafka"
)

// ErrNotFound is returned for a group that has neither members nor commits.
var ErrNotFound = errors.New("no such group: it has no members and no commits")

// Summary is one line of a list of groups.
type Summary struct {
	ID    string
	State string // Stable, Empty, PreparingRebalance, …; "" from brokers before 2.6
	Type  string // classic, consumer, share, streams; "" from brokers before 3.8
}

// Group is a consumer group at one moment.
type Group struct {
	Summary
	Assignor string // how partitions are assigned: range, cooperative-sticky, uniform, …
	Members  []Member
	// Partitions are all partitions of every topic that the group has committed, was assigned or asked for,
	// ordered by topic and partition.
	Partitions []Partition
}

// Member is one process in a group.
type Member struct {
	ID       string
	Instance string // of static membership, "" without
	ClientID string
	Host     string
	Assigned map[string][]int32 // partitions by topic, ascending
}

// Partition is where a group stands on a partition.
type Partition struct {
	Topic     string
	Partition int32
	Member    string  // the id of the member it is assigned to, "" if none
	Start     int64   // offset of the oldest record
	End       int64   // high watermark: the offset of the next record
	Commit    *Commit // nil where the group has committed nothing
	Gone      bool    // the topic or partition does not exist any more: Start and End are 0
}

// Commit is a committed position.
type Commit struct {
	Offset   int64 // of the next record to handle
	Epoch    int32 // leader epoch of the record before it, -1 where not known
	Metadata string
	// Cursor is what Millrace keeps in the metadata: nil in the commit of another client.
	Cursor *cursor.Cursor
	// Damaged says that the metadata is Millrace's and does not read: what it deferred is not known.
	Damaged bool
}

// plain says that the commit is its offset and nothing else: nothing is deferred below it or done above it.
func (c *Commit) plain() bool {
	return !c.Damaged && (c.Cursor == nil || len(c.Cursor.Open) == 0 && len(c.Cursor.Done) == 0 && c.Cursor.Mark == nil)
}

// Lag is how many offsets the group is behind the end, at least 0; false where nothing is committed, which
// is no lag of 0 and none of the whole log either. On compacted and transactional topics it is an upper bound of the records.
func (p Partition) Lag() (int64, bool) {
	if p.Commit == nil || p.Gone {
		return 0, false
	}
	return max(0, p.End-p.Commit.Offset), true
}

// Expired is how many offsets between the commit and the log's start were deleted before the group came to them.
func (p Partition) Expired() int64 {
	if p.Commit == nil || p.Gone {
		return 0
	}
	return max(0, p.Start-p.Commit.Offset)
}

// Open is how many records below the position are deferred, 0 in a foreign commit.
func (p Partition) Open() int {
	if p.Commit == nil || p.Commit.Cursor == nil {
		return 0
	}
	return len(p.Commit.Cursor.Open)
}

// Total is the lag of a whole group.
type Total struct {
	Lag         int64 // offsets behind, over the partitions with a commit
	Partitions  int
	Uncommitted int // partitions without a commit: they are in no sum
	Open        int // deferred records
}

// Total sums the partitions that exist.
func (g Group) Total() Total {
	var t Total
	for _, p := range g.Partitions {
		if p.Gone {
			continue
		}
		t.Partitions++
		t.Open += p.Open()
		if lag, ok := p.Lag(); ok {
			t.Lag += lag
		} else {
			t.Uncommitted++
		}
	}
	return t
}

// List returns all groups that we may see, ordered by id. It asks each broker once, however many groups there are.
func List(ctx context.Context, c kafka.Cluster) ([]Summary, error) {
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	defer client.Close()
	var out []Summary
	for _, shard := range client.RequestSharded(ctx, kmsg.NewPtrListGroupsRequest()) {
		resp, ok := shard.Resp.(*kmsg.ListGroupsResponse)
		if err := shard.Err; err != nil || !ok {
			return nil, fmt.Errorf("list groups of broker %d: %w", shard.Meta.NodeID, c.Explain(err, "Describe", "cluster"))
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return nil, fmt.Errorf("list groups of broker %d: %w", shard.Meta.NodeID, c.Explain(err, "Describe", "cluster"))
		}
		for _, g := range resp.Groups {
			out = append(out, Summary{ID: g.Group, State: g.GroupState, Type: g.GroupType})
		}
	}
	slices.SortFunc(out, func(a, b Summary) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(out, func(a, b Summary) bool { return a.ID == b.ID }), nil
}

// Describe returns the groups with these ids, in their order. One that does not exist is an error that wraps [ErrNotFound].
func Describe(ctx context.Context, c kafka.Cluster, ids ...string) ([]Group, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("describe groups: %w", err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	var gs map[string]described
	err = coordinated(ctx, func() error {
		gs, err = members(ctx, c, client, ids)
		return err
	})
	if err != nil {
		return nil, err
	}
	commits := map[string]kadm.OffsetResponses{}
	for id, r := range adm.FetchManyOffsets(ctx, slices.Clone(ids)...) {
		err := r.Err
		if err == nil {
			err = r.Fetched.Error()
		}
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("read commits of group %s: %w", id, c.Explain(err, "Describe", "group "+id))
		}
		commits[id] = r.Fetched
	}
	out := make([]Group, len(ids))
	wanted := kadm.TopicsSet{}
	for i, id := range ids {
		g := gs[id]
		if len(g.Members) == 0 && len(commits[id]) == 0 {
			return nil, fmt.Errorf("describe group %s: %w", id, ErrNotFound)
		}
		g.ID = id
		out[i] = g.Group
		wanted.MergeTopics(g.topics.Topics()) // Merge passes over a topic without partitions: subscribed to, and not assigned yet
		wanted.Merge(commits[id].Partitions())
	}
	log, err := bounds(ctx, c, client, wanted.Topics())
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		out[i].Partitions = partitions(gs[id], commits[id], log)
	}
	return out, nil
}

// coordinated tries again while a coordinator is on its way: on a new cluster the first question about groups makes
// it, which takes a second or two.
func coordinated(ctx context.Context, ask func() error) error {
	const most, pause = 5 * time.Second, 200 * time.Millisecond
	for began := time.Now(); ; {
		err := ask()
		if !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.CoordinatorLoadInProgress) || time.Since(began) > most {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// described is a group and the topics that its members have or want.
type described struct {
	Group
	topics kadm.TopicsSet
}

// members asks for the groups as groups of the new protocol first, and for what is none of them as classic ones:
// a broker describes a group in its own protocol only.
func members(ctx context.Context, c kafka.Cluster, client *kgo.Client, ids []string) (map[string]described, error) {
	adm := kadm.NewClient(client)
	out, err := consumers(ctx, client, ids)
	if err != nil {
		return nil, fmt.Errorf("describe groups: %w", c.Explain(err, "Describe", groupResources(ids)...))
	}
	var classic []string
	for _, id := range ids {
		if _, ok := out[id]; !ok {
			classic = append(classic, id)
		}
	}
	if len(classic) == 0 {
		return out, nil
	}
	old, err := adm.DescribeGroups(ctx, slices.Clone(classic)...)
	if err != nil {
		return nil, fmt.Errorf("describe groups: %w", c.Explain(err, "Describe", groupResources(classic)...))
	}
	for id, g := range old {
		switch {
		case errors.Is(g.Err, kerr.GroupIDNotFound):
			out[id] = described{Group: Group{Summary: Summary{ID: id, State: "Dead"}}}
		case g.Err != nil:
			return nil, fmt.Errorf("describe group %s: %w", id, c.Explain(g.Err, "Describe", "group "+id))
		default:
			out[id] = fromClassic(g)
		}
	}
	return out, nil
}

func groupResources(ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = "group " + id
	}
	return out
}

// consumers describes those of the groups that speak the new protocol (KIP-848). Others are left out, and so are
// all when the broker does not know the question: what is wrong with them the classic question will tell.
func consumers(ctx context.Context, client *kgo.Client, ids []string) (map[string]described, error) {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = slices.Clone(ids)
	var found []kmsg.ConsumerGroupDescribeResponseGroup
	unnamed, subscribed := false, kadm.TopicsSet{}
	for _, shard := range client.RequestSharded(ctx, req) {
		resp, ok := shard.Resp.(*kmsg.ConsumerGroupDescribeResponse)
		if shard.Err != nil || !ok {
			continue
		}
		for _, g := range resp.Groups {
			if g.ErrorCode != 0 {
				continue
			}
			found = append(found, g)
			for _, m := range g.Members {
				subscribed.MergeTopics(m.SubscribedTopics)
				for _, t := range m.Assignment.TopicPartitions {
					unnamed = unnamed || t.Topic == ""
				}
			}
		}
	}
	names := map[[16]byte]string{} // some brokers give the ids of topics only
	if unnamed {
		details, err := kadm.NewClient(client).ListTopics(ctx, subscribed.Topics()...)
		if err != nil {
			return nil, err
		}
		for name, d := range details {
			names[d.ID] = name
		}
	}
	out := map[string]described{}
	for _, g := range found {
		out[g.Group] = fromConsumer(g, names)
	}
	return out, nil
}

func fromConsumer(g kmsg.ConsumerGroupDescribeResponseGroup, names map[[16]byte]string) described {
	d := described{topics: kadm.TopicsSet{}}
	d.ID, d.State, d.Type, d.Assignor = g.Group, g.State, "consumer", g.AssignorName
	for _, m := range g.Members {
		set := kadm.TopicsSet{}
		for _, t := range m.Assignment.TopicPartitions {
			if name := cmp.Or(t.Topic, names[t.TopicID]); name != "" {
				set.Add(name, t.Partitions...)
			}
		}
		d.topics.Merge(set)
		d.topics.MergeTopics(m.SubscribedTopics)
		member := Member{ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost, Assigned: assigned(set)}
		if m.InstanceID != nil {
			member.Instance = *m.InstanceID
		}
		d.Members = append(d.Members, member)
	}
	slices.SortFunc(d.Members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.ID, b.ID))
	})
	return d
}

func fromClassic(g kadm.DescribedGroup) described {
	d := described{topics: g.AssignedPartitions()}
	d.topics.MergeTopics(g.JoinTopics())
	d.ID, d.State, d.Type, d.Assignor = g.Group, g.State, "classic", g.Protocol
	for _, m := range g.Members {
		member := Member{ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost}
		if m.InstanceID != nil {
			member.Instance = *m.InstanceID
		}
		if a, ok := m.Assigned.AsConsumer(); ok {
			set := kadm.TopicsSet{}
			for _, t := range a.Topics {
				set.Add(t.Topic, t.Partitions...)
			}
			member.Assigned = assigned(set)
		}
		d.Members = append(d.Members, member)
	}
	return d
}

func assigned(set kadm.TopicsSet) map[string][]int32 {
	out := map[string][]int32{}
	for _, t := range set.Sorted() {
		out[t.Topic] = t.Partitions
	}
	return out
}

// log is the bounds of the partitions of some topics. A partition that is in neither does not exist.
type log struct{ start, end kadm.ListedOffsets }

func bounds(ctx context.Context, c kafka.Cluster, client *kgo.Client, topics []string) (log, error) {
	if len(topics) == 0 {
		return log{}, nil
	}
	adm := kadm.NewClient(client)
	start, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return log{}, fmt.Errorf("look up start offsets: %w", c.Explain(err, "Describe", topicResources(topics)...))
	}
	end, err := adm.ListEndOffsets(ctx, topics...)
	if err != nil {
		return log{}, fmt.Errorf("look up end offsets: %w", c.Explain(err, "Describe", topicResources(topics)...))
	}
	for _, l := range []kadm.ListedOffsets{start, end} {
		var failed error
		l.Each(func(o kadm.ListedOffset) {
			if o.Err != nil && !errors.Is(o.Err, kerr.UnknownTopicOrPartition) {
				failed = fmt.Errorf("look up offsets of %s partition %d: %w", o.Topic, o.Partition, c.Explain(o.Err, "Describe", "topic "+o.Topic))
			}
		})
		if failed != nil {
			return log{}, failed
		}
	}
	return log{start, end}, nil
}

func topicResources(topics []string) []string {
	out := make([]string, len(topics))
	for i, t := range topics {
		out[i] = "topic " + t
	}
	return out
}

// partitions puts a group's commits beside the bounds of the log.
func partitions(g described, commits kadm.OffsetResponses, log log) []Partition {
	set := kadm.TopicsSet{}
	set.MergeTopics(g.topics.Topics())
	set.Merge(g.topics)
	set.Merge(commits.Partitions())
	for t := range set {
		for p, o := range log.end[t] {
			if p >= 0 && o.Err == nil {
				set.Add(t, p)
			}
		}
	}
	owner := map[string]map[int32]string{}
	for _, m := range g.Members {
		for t, ps := range m.Assigned {
			if owner[t] == nil {
				owner[t] = map[int32]string{}
			}
			for _, p := range ps {
				owner[t][p] = m.ID
			}
		}
	}
	var out []Partition
	for _, t := range set.Sorted() {
		for _, n := range t.Partitions {
			p := Partition{Topic: t.Topic, Partition: n, Member: owner[t.Topic][n]}
			end, ok := log.end.Lookup(t.Topic, n)
			if p.Gone = !ok || end.Err != nil; !p.Gone {
				start, _ := log.start.Lookup(t.Topic, n)
				p.Start, p.End = start.Offset, end.Offset
			}
			if o, ok := commits.Lookup(t.Topic, n); ok && o.At >= 0 {
				p.Commit = commit(o.Offset)
			}
			out = append(out, p)
		}
	}
	return out
}

func commit(o kadm.Offset) *Commit {
	c := Commit{Offset: o.At, Epoch: o.LeaderEpoch, Metadata: o.Metadata}
	switch cur, err := cursor.Decode(o.At, o.Metadata); {
	case err == nil:
		c.Cursor = &cur
	case errors.Is(err, cursor.ErrDamaged):
		c.Damaged = true
	}
	return &c
}
