package groups

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/kafka"
)

// Keeper is where a group's positions are when its commits only report them: a sink's database. Its group is one of
// [KeptElsewhere] to everybody else.
type Keeper interface {
	// String names it as in "mill-at:": "sink orders-pg".
	String() string
	// Positions are where the group stands. Epoch and Metadata are not used.
	Positions(ctx context.Context) ([]Position, error)
	// Move changes positions, all or none. Each is still at From, or there is none where From is nil, or the error wraps
	// [ErrChanged]. A nil To removes the position. The topic's id is that of the log now, whatever the position was in.
	Move(ctx context.Context, moves []Move) error
}

// KeeperError is an [ErrElsewhere] that says who keeps the position.
type KeeperError struct {
	// Keeper is what stands behind "mill-at:" in the commits: "sink orders-pg".
	Keeper string
}

func (e *KeeperError) Error() string { return fmt.Sprintf("%v: by %s", ErrElsewhere, e.Keeper) }

// Unwrap returns ErrElsewhere.
func (e *KeeperError) Unwrap() error { return ErrElsewhere }

// NewPlanAt is [NewPlan] for the positions that k has of the group.
func NewPlanAt(ctx context.Context, c kafka.Cluster, k Keeper, group string, goal Goal, now time.Time) (Plan, error) {
	return newPlan(ctx, c, group, k, goal, now)
}

// ApplyAt is [Apply] for a plan of [NewPlanAt]. All of its moves are made, or none.
func ApplyAt(ctx context.Context, c kafka.Cluster, k Keeper, p Plan, backups Backups) ([]Move, error) {
	return apply(ctx, c, k, p, backups)
}

// stand sets where the group stands to what its keeper says, whatever was committed.
func (g *Group) stand(kept []Position) {
	at := make(map[Key]int64, len(kept))
	for _, p := range kept {
		at[Key{Topic: p.Topic, Partition: p.Partition}] = p.Offset
	}
	for i := range g.Partitions {
		p := &g.Partitions[i]
		p.Commit = nil
		if offset, ok := at[Key{Topic: p.Topic, Partition: p.Partition}]; ok {
			p.Commit = &Commit{Offset: offset, Epoch: -1}
		}
	}
}

// bare makes p a plan of k: a keeper has offsets and no metadata.
func (p *Plan) bare(k Keeper) {
	p.Keeper = k.String()
	for i := range p.Moves {
		if to := p.Moves[i].To; to != nil {
			p.Moves[i].To = &Place{Offset: to.Offset, Epoch: -1}
		}
	}
}

// kept refuses a plan of other positions than those that it is to change.
func (p Plan) kept(k Keeper) error {
	keeper := ""
	if k != nil {
		keeper = k.String()
	}
	if p.Keeper != keeper {
		return fmt.Errorf("the plan is one of %s: %w", describeKeeper(p.Keeper), ErrElsewhere)
	}
	return nil
}

func describeKeeper(name string) string {
	if name == "" {
		return "commits"
	}
	return "the positions of " + name
}

// Bytes are the topic's id as Kafka has it, zeros where it is not known.
func (id TopicID) Bytes() ([16]byte, error) {
	if id == "" {
		return [16]byte{}, nil
	}
	b, err := id.bytes()
	return b, err
}

// Log is a partition as it is now.
type Log struct {
	TopicID    [16]byte // zeros, from a broker that has no ids
	Start, End int64    // of the log: the oldest offset, and the high watermark
}

// Logs looks at the partitions of topics, whatever groups there are. A topic that does not exist is left out. Keys have no
// group.
func Logs(ctx context.Context, c kafka.Cluster, topics ...string) (map[Key]Log, error) {
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("look at topics: %w", err)
	}
	defer client.Close()
	b, err := bounds(ctx, c, client, topics)
	if err != nil {
		return nil, fmt.Errorf("look at topics: %w", err)
	}
	out := map[Key]Log{}
	if len(topics) == 0 {
		return out, nil
	}
	details, err := kadm.NewClient(client).ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look at topics: %w", c.Explain(err, "Describe", topicResources(topics)...))
	}
	b.end.Each(func(o kadm.ListedOffset) {
		start, ok := b.start.Lookup(o.Topic, o.Partition)
		if d := details[o.Topic]; o.Err == nil && ok && start.Err == nil && d.Err == nil {
			out[Key{Topic: o.Topic, Partition: o.Partition}] = Log{TopicID: d.ID, Start: start.Offset, End: o.Offset}
		}
	})
	return out, nil
}
