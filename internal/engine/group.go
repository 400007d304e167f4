package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

const (
	startTimeout   = 20 * time.Second       // to reach the cluster and find the topics
	unknownTimeout = 3 * time.Second        // a topic may be so young that not every broker knows it
	metadataAge    = time.Minute            // partitions that are added are found that soon
	listTimeout    = 10 * time.Second       // of the offsets that partitions start at
	leaveTimeout   = 2 * time.Second        // for the client to leave, once the last commit is done
	resignTimeout  = time.Second            // to tell the coordinator without it
	fetchSize      = 16 << 20               // of one fetch from one broker, in bytes
	fetchWait      = 500 * time.Millisecond // for a first record: a resumed partition waits as long for its turn
)

// GroupConfig is a member of a consumer group.
type GroupConfig struct {
	// Group is the group's id.
	Group string
	// Topics are read whole: their partitions are shared out among the group's members.
	Topics []string
	// Start is where partitions without a committed offset start. Defaults to the log start. A place outside
	// the log is moved to its nearer end. Partitions that are added to a topic while the member runs start at their
	// log start, or at Start if it is a time.
	Start position.Point
	// InstanceID makes the member static: it may be away for SessionTimeout without a rebalance. It must be
	// unique in the group and stable over restarts, like a StatefulSet's ordinal; a Pod's name in a Deployment is
	// neither. Empty is off.
	InstanceID string
	// ServerAssign lets the broker assign partitions (KIP-848); Kafka 4.3 or later is recommended.
	ServerAssign bool
	// Uncommitted also reads records of transactions that are open or were aborted. Defaults to committed ones.
	Uncommitted bool
	// NoReset ends the engine's Run with [ErrOutOfLog] where a position is outside of the log, instead of reading
	// again from the log start.
	NoReset bool
	// SessionTimeout is how long a silent member keeps its partitions. Defaults to 45 seconds.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long members have to give partitions up; handlers get half of it. Defaults to 60 seconds.
	RebalanceTimeout time.Duration
	// Log is silent when nil.
	Log *zap.Logger
}

func (c GroupConfig) withDefaults() GroupConfig {
	if c.SessionTimeout == 0 {
		c.SessionTimeout = 45 * time.Second
	}
	if c.RebalanceTimeout == 0 {
		c.RebalanceTimeout = time.Minute
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c GroupConfig) validate() error {
	switch {
	case c.Group == "":
		return errors.New("no Group is named")
	case len(c.Topics) == 0 || slices.Contains(c.Topics, ""):
		return errors.New("no Topics are named, or one without a name")
	case c.SessionTimeout < 0 || c.RebalanceTimeout < 0:
		return errors.New("a negative SessionTimeout or RebalanceTimeout")
	}
	return nil
}

// Group is the feed of one member of a consumer group, for one [Run].
type Group struct {
	cluster kafka.Cluster
	cfg     GroupConfig
	store   *cursor.Group
	topics  map[string]topic // known before ready
	ready   chan struct{}    // closed when client is set
	client  atomic.Pointer[kgo.Client]
	admin   atomic.Pointer[kadm.Client] // a client of its own: requests of the consumer's wait behind its long polls
}

// topic is a topic as it was when Run began.
type topic struct {
	id         [16]byte // zeros, from a broker that has no ids
	partitions int32
}

// NewGroup returns a feed for cfg. It connects in Run.
func NewGroup(c kafka.Cluster, cfg GroupConfig) (*Group, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("join group %q: %w", cfg.Group, err)
	}
	return &Group{cluster: c, cfg: cfg.withDefaults(), store: cursor.NewGroup(cfg.Group), ready: make(chan struct{})}, nil
}

// Store returns the store of the group's own commits.
func (g *Group) Store() cursor.Store { return g.store }

// Run implements [Feed]. A topic that does not exist and a missing permission end it at once with an error that
// says so.
func (g *Group) Run(ctx context.Context, o Owner) error {
	side, err := g.cluster.Client(kgo.DisableClientMetrics()) // their last push would hold its end up
	if err != nil {
		return fmt.Errorf("join group %s: %w", g.cfg.Group, err)
	}
	defer side.Close()
	admin := kadm.NewClient(side)
	g.admin.Store(admin)
	if g.topics, err = g.find(ctx, admin); err != nil {
		return fmt.Errorf("join group %s: %w", g.cfg.Group, err)
	}
	alive, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	client, err := g.cluster.Client(append(g.options(o), kgo.WithContext(alive))...)
	if err != nil {
		return fmt.Errorf("join group %s: %w", g.cfg.Group, err)
	}
	// Callbacks need neither: they come with their client.
	g.client.Store(client)
	close(g.ready)
	<-ctx.Done()

	g.leave(ctx, client, side, kill)
	return nil
}

// leave gives the membership back and closes the client. The client leaves only between rebalances, and waits for
// one that is under way as long as the slowest member takes, or for brokers that are gone: after leaveTimeout it is
// killed, and the coordinator told without it.
func (g *Group) leave(ctx context.Context, client, side *kgo.Client, kill context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	leaving, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	client.AllowRebalance()
	err := client.LeaveGroupContext(leaving)
	if err != nil {
		kill()
		err = g.resign(ctx, client, side)
	}
	if err != nil {
		g.cfg.Log.Warn("leave the group: its partitions wait for the session timeout", zap.String("group", g.cfg.Group), zap.Error(err))
	}
	client.CloseAllowingRebalance()
	client.AllowRebalance() // Close polls a last time, on which a leave that it began may wait for good
}

// resign takes client's member out of the group over side. A static member stays, as it does when it leaves.
func (g *Group) resign(ctx context.Context, client, side *kgo.Client) error {
	id, _ := client.GroupMetadata()
	if id == "" || g.cfg.InstanceID != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resignTimeout)
	defer cancel()
	if g.cfg.ServerAssign {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = g.cfg.Group, id, -1
		resp, err := req.RequestWith(ctx, side)
		if err != nil {
			return fmt.Errorf("ask the coordinator: %w", err)
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = g.cfg.Group, id
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID = id
	req.Members = append(req.Members, member)
	resp, err := req.RequestWith(ctx, side)
	if err != nil {
		return fmt.Errorf("ask the coordinator: %w", err)
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// find returns the topics.
func (g *Group) find(ctx context.Context, admin *kadm.Client) (map[string]topic, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	unknownUntil := time.Now().Add(unknownTimeout)
	for {
		meta, err := admin.Metadata(ctx, g.cfg.Topics...)
		if err != nil {
			return nil, fmt.Errorf("look up topics: %w", g.explain(err, "Read", g.cfg.Topics...))
		}
		found := make(map[string]topic, len(g.cfg.Topics))
		for _, t := range g.cfg.Topics {
			d := meta.Topics[t]
			switch {
			case errors.Is(d.Err, kerr.UnknownTopicOrPartition) || !meta.Topics.Has(t) && d.Err == nil:
				err = fmt.Errorf("topic %s does not exist: run millrace topics apply: %w", t, kerr.UnknownTopicOrPartition)
			case d.Err != nil:
				return nil, fmt.Errorf("look up topic %s: %w", t, g.explain(d.Err, "Read", t))
			}
			found[t] = topic{d.ID, int32(len(d.Partitions))}
		}
		if err == nil {
			return found, nil
		}
		if time.Now().After(unknownUntil) {
			return nil, err
		}
		t := time.NewTimer(retryWait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}

// explain says what a person can do about err.
func (g *Group) explain(err error, operation string, topics ...string) error {
	resources := []string{"group " + g.cfg.Group}
	for _, t := range topics {
		resources = append(resources, "topic "+t)
	}
	return g.cluster.Explain(err, operation, resources...)
}

func (g *Group) options(o Owner) []kgo.Opt {
	level := kgo.ReadCommitted()
	if g.cfg.Uncommitted {
		level = kgo.ReadUncommitted()
	}
	opts := []kgo.Opt{
		kgo.ConsumerGroup(g.cfg.Group),
		kgo.ConsumeTopics(g.cfg.Topics...),
		kgo.FetchIsolationLevel(level),
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(fetchSize),
		kgo.FetchMaxWait(fetchWait),
		kgo.MetadataMaxAge(metadataAge),
		// Never skip: where the log was cut and nobody can say where, everything is read again.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(g.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, g.cfg.SessionTimeout/4)),
		kgo.RebalanceTimeout(g.cfg.RebalanceTimeout),
		// In a session the order is: partitions assigned, offsets fetched, offsets adjusted, reading starts.
		kgo.OnOffsetsFetched(func(_ context.Context, client *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
			g.store.Bind(client)
			g.store.Fetched(resp)
			return nil
		}),
		kgo.AdjustFetchOffsetsFn(func(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return g.adjust(ctx, o, offsets)
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, revoked map[string][]int32) {
			ids := g.ids(revoked)
			ctx, cancel := context.WithTimeout(ctx, g.cfg.RebalanceTimeout/2)
			defer cancel()
			o.Revoked(ctx, ids)
			g.store.Forget(ids)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			ids := g.ids(lost)
			g.store.Forget(ids) // first: a commit may be waiting to be sent
			o.Lost(ids)
		}),
	}
	if g.cfg.NoReset {
		opts = append(opts, kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	}
	if g.cfg.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(g.cfg.InstanceID))
	}
	if g.cfg.ServerAssign {
		opts = append(opts, kgo.ServerSideBalancer())
	}
	return opts
}

// adjust claims the partitions of a session and says where each starts: always an offset, because seeking a
// partition without one later is silently ignored. Where the owner starts at the committed offset, its leader
// epoch stays, so that the client sees when the log was cut below it.
func (g *Group) adjust(ctx context.Context, o Owner, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	assigned := make(map[string][]int32, len(offsets))
	for t, ps := range offsets {
		for p := range ps {
			assigned[t] = append(assigned[t], p)
		}
	}
	ids := g.ids(assigned)
	if len(ids) == 0 {
		return offsets, nil
	}
	start, err := o.Assigned(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		at, ok := start[id]
		if !ok || at < 0 {
			return nil, fmt.Errorf("assign %s: the owner gave no offset for it", id)
		}
		if committed := offsets[id.Topic][id.Partition]; committed.EpochOffset().Offset != at {
			offsets[id.Topic][id.Partition] = kgo.NewOffset().At(at).WithEpoch(-1)
		}
	}
	return offsets, nil
}

func (g *Group) ids(partitions map[string][]int32) []cursor.ID {
	var ids []cursor.ID
	for t, ps := range partitions {
		for _, p := range ps {
			ids = append(ids, cursor.ID{Reader: g.cfg.Group, Topic: t, TopicID: g.topics[t].id, Partition: p})
		}
	}
	return ids
}

// Poll implements [Feed].
func (g *Group) Poll(ctx context.Context, limit int) kgo.Fetches {
	select {
	case <-g.ready:
	case <-ctx.Done():
		return kgo.NewErrFetch(ctx.Err())
	}
	fetches := g.client.Load().PollRecords(ctx, max(limit, 1))
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j]
			for k := range t.Partitions {
				if p := &t.Partitions[k]; p.Err != nil {
					p.Err = g.sessionError(g.explain(p.Err, "Read", t.Topic))
				}
			}
		}
	}
	return fetches
}

// sessionError names the group, and what a person can do, where err is about the membership.
func (g *Group) sessionError(err error) error {
	if _, ok := errors.AsType[*kgo.ErrGroupSession](err); !ok {
		return err
	}
	if errors.Is(err, kerr.FencedInstanceID) {
		return fmt.Errorf("member of group %s: another process has joined with InstanceID %q, which must be unique: %w", g.cfg.Group, g.cfg.InstanceID, err)
	}
	return fmt.Errorf("member of group %s: %w", g.cfg.Group, err)
}

// Release implements [Feed].
func (g *Group) Release() {
	if c := g.client.Load(); c != nil {
		c.AllowRebalance()
	}
}

// Starts implements [Feed]. It asks on a client of its own, and takes at most ten seconds.
func (g *Group) Starts(ctx context.Context, ids []cursor.ID) (map[cursor.ID]int64, error) {
	admin := g.admin.Load()
	if admin == nil {
		return nil, errors.New("list offsets: the group is not running")
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	names := make([]string, 0, len(g.cfg.Topics))
	for _, id := range ids {
		if !slices.Contains(names, id.Topic) {
			names = append(names, id.Topic)
		}
	}
	starts, err := admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", g.explain(err, "Describe", names...))
	}
	list := admin.ListCommittedOffsets
	if g.cfg.Uncommitted {
		list = admin.ListEndOffsets
	}
	ends, err := list(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", g.explain(err, "Describe", names...))
	}
	var times kadm.ListedOffsets
	if g.cfg.Start.Kind == position.Time {
		if times, err = admin.ListOffsetsAfterMilli(ctx, g.cfg.Start.At.UnixMilli(), names...); err != nil {
			return nil, fmt.Errorf("list offsets by time: %w", g.explain(err, "Describe", names...))
		}
	}
	out := make(map[cursor.ID]int64, len(ids))
	for _, id := range ids {
		from, until, at, err := lookUp(starts, ends, times, id)
		if err != nil {
			return nil, fmt.Errorf("list offsets of %s: %w", id, g.explain(err, "Describe", id.Topic))
		}
		start := g.cfg.Start
		if id.Partition >= g.topics[id.Topic].partitions && start.Kind != position.Time {
			start = position.Point{} // added since: all of it is new, and an end as it is now would skip some
		}
		out[id] = resolve(start, id.Partition, from, until, at)
	}
	return out, nil
}

func lookUp(starts, ends, times kadm.ListedOffsets, id cursor.ID) (from, until, at int64, err error) {
	lists := []kadm.ListedOffsets{starts, ends}
	if times != nil {
		lists = append(lists, times)
	}
	found := [3]int64{}
	for i, l := range lists {
		o, ok := l.Lookup(id.Topic, id.Partition)
		switch {
		case !ok:
			return 0, 0, 0, errors.New("the broker did not answer for it")
		case o.Err != nil:
			return 0, 0, 0, o.Err
		}
		found[i] = o.Offset
	}
	return found[0], found[1], found[2], nil
}

// resolve is p in a partition whose log is from ≤ offset < until, and where the record at p.At is at. It is
// always within the log: an offset that is not would be a reason to start over.
func resolve(p position.Point, partition int32, from, until, at int64) int64 {
	p, ok := p.In(partition)
	if !ok { // nobody said where: the never-skipping answer
		return max(from, 0)
	}
	offset := from
	switch p.Kind {
	case position.Start:
		offset = from + p.N
	case position.End:
		offset = until - p.N
	case position.Offset:
		offset = p.N
	case position.Time:
		if offset = at; at < 0 {
			offset = until
		}
	default:
	}
	return max(min(offset, until), from, 0)
}

// Seek implements [Feed].
func (g *Group) Seek(id cursor.ID, offset int64) error {
	c := g.client.Load()
	if c == nil {
		return fmt.Errorf("seek %s: the group is not running", id)
	}
	c.SetOffsets(map[string]map[int32]kgo.EpochOffset{id.Topic: {id.Partition: {Epoch: -1, Offset: offset}}})
	return nil
}

// Pause implements [Feed].
func (g *Group) Pause(id cursor.ID, paused bool) {
	c := g.client.Load()
	if c == nil {
		return
	}
	partitions := map[string][]int32{id.Topic: {id.Partition}}
	if paused {
		c.PauseFetchPartitions(partitions)
	} else {
		c.ResumeFetchPartitions(partitions)
	}
}

// fatalFetch reports errors of a poll that no waiting heals.
func fatalFetch(err error) bool {
	if _, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
		return true
	}
	for _, fatal := range []*kerr.Error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism,
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, // deleted, or deleted and created again: another log
		kerr.FencedInstanceID, kerr.UnreleasedInstanceID,
		kerr.InvalidGroupID, kerr.InvalidSessionTimeout, kerr.InconsistentGroupProtocol, kerr.UnsupportedAssignor, kerr.UnsupportedVersion,
	} {
		if errors.Is(err, fatal) {
			return true
		}
	}
	return false
}
