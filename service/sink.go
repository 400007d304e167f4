package service

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/sink"
)

// Sink runs a sink. Name defaults to the service's name, and Log to the service's. Its group may be paused as a consumer's:
// it then finishes its transactions and leaves, and its position is in the target.
func (s *Service) Sink(target sink.Target, cfg sink.Config) error {
	if cfg.Name == "" {
		cfg.Name = s.Name
	}
	if cfg.Log == nil {
		cfg.Log = s.Log
	}
	cfg.CreateTopics = cfg.CreateTopics || s.createTopics
	var own []kgo.Hook
	watchers := sinkObservers{}
	if cfg.Observer != nil {
		watchers.sinks = append(watchers.sinks, cfg.Observer)
	}
	if s.watching != nil {
		member := s.watching.health.consumer(cfg.Name)
		own = append(own, member)
		watchers.consumers = append(watchers.consumers, member)
		o, err := s.watching.metrics.Sink(cfg.Name)
		if err != nil {
			return err
		}
		watchers.sinks = append(watchers.sinks, o)
	}
	all := slices.Clone(watchers.consumers)
	for _, o := range watchers.sinks {
		all = append(all, o)
	}
	watchers.Observer = s.stats.observe(all)
	cfg.Observer = watchers
	if s.replaying != nil {
		s.sinkAgain(target, cfg)
		return nil
	}
	run := func(ctx context.Context) error {
		s.Log.Info("writing", zap.String("sink", cfg.Name), zap.Strings("topics", cfg.Topics))
		c := s.Cluster
		c.Hooks = append(slices.Clip(c.Hooks), own...)
		return sink.Run(ctx, c, s.Schemas, target, cfg)
	}
	if s.control {
		run = s.pausable(cfg.Name, run)
	}
	s.Go("write as "+cfg.Name, run)
	return nil
}

// sinkObservers tells all of them what a consumer's observer sees, and those of sinks the rest.
type sinkObservers struct {
	consumer.Observer
	consumers observers
	sinks     []sink.Observer
}

// Written implements [sink.Observer].
func (all sinkObservers) Written(id cursor.ID, w sink.Written, took time.Duration, err error) {
	for _, o := range all.sinks {
		o.Written(id, w, took, err)
	}
}

// Settled implements [sink.Observer].
func (all sinkObservers) Settled(id cursor.ID, done bool) {
	for _, o := range all.sinks {
		o.Settled(id, done)
	}
}

// Fenced implements [sink.Observer].
func (all sinkObservers) Fenced(id cursor.ID) {
	for _, o := range all.sinks {
		o.Fenced(id)
	}
}
