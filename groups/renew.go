package groups

import (
	"fmt"
	"slices"
)

// Goal is what the plan leads to, for a plan that is made anew: the group has moved on since. Partitions that the plan leaves alone
// for a reason are left alone again. A plan of commits that were to be as they had been has none: those are taken back by an undo.
func (p Plan) Goal() (Goal, error) {
	if err := p.validate(); err != nil {
		return Goal{}, err
	}
	if p.Exact {
		return Goal{}, fmt.Errorf("the plan takes a change of group %s back: plan it again with undo", p.Group)
	}
	g := Goal{Positions: []Position{}}
	for _, m := range p.Moves {
		if m.To == nil || m.Left && m.Note != "" {
			continue
		}
		g.Positions = append(g.Positions, Position{Topic: m.Topic, Partition: m.Partition, Offset: m.To.Offset, Epoch: m.To.Epoch, Metadata: m.To.Metadata})
	}
	return g, nil
}

// Follows reports, as [ErrCluster] or [ErrChanged], why the plan is not what became of before: its cluster is another, or a topic
// was deleted and created again.
func (p Plan) Follows(before Plan) error {
	if p.ClusterID != before.ClusterID {
		return fmt.Errorf("the plan was made on cluster %s, this is %s: %w", before.ClusterID, p.ClusterID, ErrCluster)
	}
	for _, m := range before.Moves {
		i := slices.IndexFunc(p.Moves, func(n Move) bool { return n.Topic == m.Topic && n.Partition == m.Partition })
		switch {
		case i < 0 && !m.Left:
			return fmt.Errorf("%s partition %d is gone: %w", m.Topic, m.Partition, ErrChanged)
		case i >= 0 && p.Moves[i].TopicID != m.TopicID:
			return fmt.Errorf("%s partition %d was deleted or created again: %w", m.Topic, m.Partition, ErrChanged)
		}
	}
	return nil
}
