package cursor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	commitTimeout   = 10 * time.Second // of one commit; a join round may hold it up
	readBackTimeout = 5 * time.Second
	lastLookTimeout = time.Second // to read back when the caller waits no longer
	outlastTimeout  = 200 * time.Millisecond
)

// Group keeps cursors in the commits of a consumer group that this process is a member of. The broker fences
// them by the member's generation, and Group by its own leases: a current member could commit a partition that
// it has just lost, because the broker knows generations and not partitions.
//
// The feed that owns the client tells Group three things: [Group.Bind] its client, [Group.Fetched] what a new
// session found committed, [Group.Forget] what was revoked or lost.
type Group struct {
	name string

	mu      sync.Mutex
	client  *kgo.Client
	fetched map[partition]commit // of the current session, taken by Claim
	leases  map[ID]int64
	epoch   int64
}

type partition struct {
	topic string
	n     int32
}

// NewGroup returns the store of the group name. It can claim and commit once it is bound to a client.
func NewGroup(name string) *Group {
	return &Group{name: name, fetched: make(map[partition]commit), leases: make(map[ID]int64)}
}

// Bind sets the member's client; the same one again changes nothing. All leases of an earlier client are void.
func (g *Group) Bind(client *kgo.Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.client == client {
		return
	}
	g.client = client
	clear(g.fetched)
	clear(g.leases)
}

// Fetched takes what a session's offset fetch brought: the argument of kgo.OnOffsetsFetched.
func (g *Group) Fetched(resp *kmsg.OffsetFetchResponse) {
	g.mu.Lock()
	defer g.mu.Unlock()
	eachFetched(resp, nil, func(p partition, c commit, err error) {
		if err == nil {
			g.fetched[p] = c
		}
	})
}

// Forget ends the leases of ids: nothing is committed for them until they are claimed again, not even by a
// commit that is already waiting to be sent.
func (g *Group) Forget(ids []ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		delete(g.leases, id)
		delete(g.fetched, partition{id.Topic, id.Partition})
	}
}

// Claim implements [Store]. What the session's offset fetch brought is used as it is; for the rest the
// coordinator is asked.
func (g *Group) Claim(ctx context.Context, ids []ID) (map[ID]Claimed, error) {
	g.mu.Lock()
	found := make(map[partition]commit, len(ids))
	var missing []ID
	for _, id := range ids {
		p := partition{id.Topic, id.Partition}
		c, ok := g.fetched[p]
		if !ok {
			missing = append(missing, id)
			continue
		}
		found[p] = c
		delete(g.fetched, p) // a later claim belongs to a later session
	}
	g.mu.Unlock()

	failed := make(map[partition]error)
	if len(missing) > 0 {
		if err := g.read(ctx, missing, found, failed); err != nil {
			return nil, fmt.Errorf("claim cursors of group %s: %w", g.name, err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[ID]Claimed, len(ids))
	for _, id := range ids {
		p := partition{id.Topic, id.Partition}
		c, ok := found[p]
		if !ok {
			err := failed[p]
			if err == nil {
				err = errors.New("the coordinator did not answer for it")
			}
			out[id] = Claimed{Err: fmt.Errorf("claim cursor of %s: %w", id, err)}
			continue
		}
		g.epoch++
		g.leases[id] = g.epoch
		claimed := c.claimed()
		claimed.Lease = Lease{Epoch: g.epoch}
		out[id] = claimed
	}
	return out, nil
}

// Room implements [Store].
func (g *Group) Room(ID) int { return MaxRoom }

// Commit implements [Store]. It takes at most ten seconds, and five more to read back what had no answer; it
// outlasts ctx by a second or two.
func (g *Group) Commit(ctx context.Context, cs map[ID]Claimed) (map[ID]error, error) {
	g.mu.Lock()
	client := g.client
	g.mu.Unlock()
	if client == nil {
		return nil, errors.New("commit cursors: the group has no client yet")
	}
	a := attempt{g: g, cs: cs, metas: make(map[partition]string, len(cs)), ids: make(map[partition]ID, len(cs)), refused: make(map[ID]error)}
	offsets := a.prepare()
	if len(offsets) == 0 {
		return a.refused, nil
	}
	sending, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	sent, failure := within(sending, func() ([]ID, error) { return a.send(sending, client, offsets) })
	switch {
	case failure == nil:
		return a.refused, nil
	case errors.Is(failure, errOutlasted): // a is still in use
		return nil, fmt.Errorf("commit cursors of group %s: %w: %w", g.name, ErrUnknown, failure)
	case len(sent) == 0: // a join round went on too long: nothing has left the process
		return a.refused, fmt.Errorf("commit cursors of group %s: %w", g.name, failure)
	}
	a.readBack(ctx, failure)
	return a.refused, nil
}

// errOutlasted is the failure of a call that went on after its context had ended.
var errOutlasted = errors.New("the brokers do not answer")

// within is what f returns, unless f outlasts ctx by a moment: the client looks at no context while it dials a broker.
// Such an f goes on by itself, until the client notices or is closed.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	t := time.NewTimer(outlastTimeout)
	defer t.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-t.C:
		var none T
		return none, errors.Join(errOutlasted, ctx.Err())
	}
}

// attempt is one commit on its way.
type attempt struct {
	g       *Group
	cs      map[ID]Claimed
	ids     map[partition]ID
	metas   map[partition]string
	sent    []ID
	refused map[ID]error
}

func (a *attempt) prepare() map[string]map[int32]kgo.EpochOffset {
	offsets := make(map[string]map[int32]kgo.EpochOffset)
	for id, c := range a.cs {
		meta, err := encodeWhole(c.Cursor, a.g.Room(id))
		if err != nil {
			a.refused[id] = err
			continue
		}
		p := partition{id.Topic, id.Partition}
		a.ids[p], a.metas[p] = id, meta
		if offsets[id.Topic] == nil {
			offsets[id.Topic] = make(map[int32]kgo.EpochOffset)
		}
		offsets[id.Topic][id.Partition] = kgo.EpochOffset{Epoch: c.Epoch, Offset: c.Position}
	}
	return offsets
}

// send returns which cursors have left the process, and the failure of the whole.
func (a *attempt) send(ctx context.Context, client *kgo.Client, offsets map[string]map[int32]kgo.EpochOffset) (sent []ID, failure error) {
	ctx = kgo.PreCommitFnContext(ctx, a.finish)
	client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failure = err; err == nil {
			a.judge(req, resp)
		}
	})
	return a.sent, failure
}

// finish runs just before the request is sent, and after a join round that it may have waited out: it adds the
// metadata and takes out what is no longer ours.
func (a *attempt) finish(req *kmsg.OffsetCommitRequest) error {
	a.g.mu.Lock()
	defer a.g.mu.Unlock()
	topics := req.Topics[:0]
	for _, t := range req.Topics {
		t.Partitions = slices.DeleteFunc(t.Partitions, func(p kmsg.OffsetCommitRequestTopicPartition) bool {
			id := a.ids[partition{t.Topic, p.Partition}]
			switch {
			case a.g.leases[id] != a.cs[id].Lease.Epoch:
				a.refused[id] = ErrFenced
			case id.TopicID != [16]byte{} && t.TopicID != [16]byte{} && id.TopicID != t.TopicID:
				a.refused[id] = fmt.Errorf("topic %s was deleted and created again: %w", t.Topic, kerr.UnknownTopicID)
			default:
				return false
			}
			return true
		})
		for i := range t.Partitions {
			p := partition{t.Topic, t.Partitions[i].Partition}
			meta := a.metas[p]
			t.Partitions[i].Metadata = &meta
			a.sent = append(a.sent, a.ids[p])
		}
		if len(t.Partitions) > 0 {
			topics = append(topics, t)
		}
	}
	req.Topics = topics
	return nil
}

// judge reads the answer of each partition: the call as a whole succeeds while partitions fail.
func (a *attempt) judge(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) {
	names := make(map[[16]byte]string, len(req.Topics)) // from version 10 on the answer has ids only
	for _, t := range req.Topics {
		names[t.TopicID] = t.Topic
	}
	answered := make(map[ID]bool, len(a.sent))
	for _, t := range resp.Topics {
		if t.Topic == "" {
			t.Topic = names[t.TopicID]
		}
		for _, p := range t.Partitions {
			id, ok := a.ids[partition{t.Topic, p.Partition}]
			if !ok {
				continue
			}
			answered[id] = true
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil && a.refused[id] == nil {
				a.refused[id] = refusal(id, err)
			}
		}
	}
	for _, id := range a.sent {
		if !answered[id] {
			a.refused[id] = fmt.Errorf("commit cursor of %s: no answer for it: %w", id, ErrUnknown)
		}
	}
}

// refusal says what a partition's error code means for its owner.
func refusal(id ID, err error) error {
	for _, fenced := range []*kerr.Error{
		kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.FencedInstanceID, kerr.FencedMemberEpoch, kerr.StaleMemberEpoch,
	} {
		if errors.Is(err, fenced) {
			return fmt.Errorf("commit cursor of %s: %w: %w", id, ErrFenced, err)
		}
	}
	return fmt.Errorf("commit cursor of %s: %w", id, err)
}

// readBack looks what became of a commit that had no answer. Going on without looking could let it land after
// a later one: the connection is gone, and with it the order.
func (a *attempt) readBack(ctx context.Context, failure error) {
	found, failed := make(map[partition]commit), make(map[partition]error)
	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBackTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastLookTimeout, cancel) })()
	err := a.g.read(looking, a.sent, found, failed)
	for _, id := range a.sent {
		p := partition{id.Topic, id.Partition}
		if c, ok := found[p]; ok && c.position == a.cs[id].Position && c.meta == a.metas[p] {
			continue
		}
		a.refused[id] = fmt.Errorf("commit cursor of %s: %w: %w", id, ErrUnknown, errors.Join(failure, err, failed[p]))
	}
}

// read asks the coordinator for the commits of ids.
func (g *Group) read(ctx context.Context, ids []ID, found map[partition]commit, failed map[partition]error) error {
	g.mu.Lock()
	client := g.client
	g.mu.Unlock()
	if client == nil {
		return errors.New("the group has no client yet")
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = g.name
	topics := make(map[string]int)
	for _, id := range ids {
		i, ok := topics[id.Topic]
		if !ok {
			t := kmsg.NewOffsetFetchRequestGroupTopic()
			t.Topic, t.TopicID = id.Topic, id.TopicID
			i, topics[id.Topic] = len(group.Topics), len(group.Topics)
			group.Topics = append(group.Topics, t)
		}
		group.Topics[i].Partitions = append(group.Topics[i].Partitions, id.Partition)
	}
	req.Groups = append(req.Groups, group)
	ctx, cancel := context.WithTimeout(ctx, readBackTimeout)
	defer cancel()
	resp, err := within(ctx, func() (*kmsg.OffsetFetchResponse, error) { return req.RequestWith(ctx, client) })
	if err != nil {
		return fmt.Errorf("read committed offsets: %w", err)
	}
	if len(resp.Groups) > 0 {
		if err := kerr.ErrorForCode(resp.Groups[0].ErrorCode); err != nil {
			return fmt.Errorf("read committed offsets: %w", err)
		}
	}
	names := make(map[[16]byte]string, len(ids))
	for _, id := range ids {
		names[id.TopicID] = id.Topic
	}
	eachFetched(resp, names, func(p partition, c commit, err error) {
		if err != nil {
			failed[p] = err
			return
		}
		found[p] = c
	})
	return nil
}

// eachFetched calls f for every partition of resp. From version 10 on topics may come with their id only.
func eachFetched(resp *kmsg.OffsetFetchResponse, names map[[16]byte]string, f func(partition, commit, error)) {
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			if t.Topic == "" {
				t.Topic = names[t.TopicID]
			}
			for _, p := range t.Partitions {
				c := commit{position: p.Offset, epoch: p.LeaderEpoch}
				if p.Metadata != nil {
					c.meta = *p.Metadata
				}
				f(partition{t.Topic, p.Partition}, c, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	}
}

// replaced is what Claim says of a commit that Decode refused.
func replaced(err error) error {
	if errors.Is(err, ErrForeign) {
		return fmt.Errorf("%w (%w)", ErrReplaced, err)
	}
	return err
}
