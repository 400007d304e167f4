package metrics

import (
	"context"
	"time"

	"github.com/millrace/millrace/kafka"
)

// SetNow sets the clock.
func (m *Metrics) SetNow(now func() time.Time) { m.now = now }

// Look is one round of Watch.
func (m *Metrics) Look(ctx context.Context, c kafka.Cluster) error { return m.look(ctx, c) }

// The bounds of labels.
const (
	MaxGroups   = maxGroups
	MaxTopics   = maxTopics
	MaxHandlers = maxHandlers
	MaxSubjects = maxSubjects
)
