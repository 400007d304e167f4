package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

// Run handles the events of cfg.Topics as one member of cfg.Group until ctx ends, or until a verdict or an error ends
// it. It returns nil when ctx ended and what was done is committed.
func Run(ctx context.Context, c kafka.Cluster, dec Decoder, m *Mux, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	feed, err := engine.NewGroup(c, engine.GroupConfig{
		Group: cfg.Group, Topics: cfg.Topics, Start: cfg.Start, InstanceID: cfg.InstanceID, ServerAssign: cfg.ServerAssign,
		SessionTimeout: cfg.SessionTimeout, Uncommitted: cfg.Uncommitted, Log: cfg.Log,
	})
	if err != nil {
		return fmt.Errorf("consume as %s: %w", cfg.Group, err)
	}
	if cfg.CreateTopics {
		err := deadletter.Create(ctx, c, cfg.Group, cfg.Topics...)
		if ctx.Err() != nil {
			return nil // asked to stop
		}
		if err != nil {
			return err
		}
	}
	pub, err := producer.New(c, nil, producer.Config{Log: cfg.Log}) // without a source: the copy keeps its own
	if err != nil {
		return err
	}
	err = run(ctx, feed, feed.Store(), dec, m, cfg, deadletter.New(pub, cfg.Group, deadletter.Config{}))
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, pub.Close(closing)) // nothing is left in it: every letter was waited for, or given up
}

// closeTimeout bounds the closing of the dead letters' producer.
const closeTimeout = 5 * time.Second

// run is Run between its ends: records from f, positions in s, dead letters to letters.
func run(ctx context.Context, f engine.Feed, s cursor.Store, dec Decoder, m *Mux, cfg Config, letters graveyard) error {
	m.used.Store(true)
	if len(m.routes) == 0 {
		return errors.New("consumer: the mux has no handler: register one with On, OnBatch, OnType or Otherwise")
	}
	if err := occur(ctx, dec, m, cfg); err != nil {
		return err
	}
	r := &runner{mux: m, dec: dec, cfg: cfg, letters: letters, now: time.Now}
	return engine.Run(ctx, f, s, r, engine.Config{
		Batch: cfg.Batch, BatchWait: cfg.BatchWait, InFlight: cfg.InFlight, InFlightSize: cfg.InFlightSize,
		CommitEvery: cfg.CommitEvery, Drain: cfg.Drain, Observer: cfg.Observer, Log: cfg.Log,
	})
}

// catalog is what a decoder may also be: a registry that lists what is registered.
type catalog interface {
	Subjects(ctx context.Context) ([]string, error)
	Latest(ctx context.Context, subject string) (schemas.Schema, error)
}

// catalogTimeout bounds the check at start: it warns, and must not delay.
const catalogTimeout = 5 * time.Second

// occur checks that the types of the mux can occur in the topics' subjects, where the decoder can tell. A name that
// cannot is most often a namespace that was forgotten, and its handler would never be called: a warning, with Strict
// an error. A service that is deployed before its first event is in order, so a topic without subjects says nothing.
func occur(ctx context.Context, dec Decoder, m *Mux, cfg Config) error {
	c, ok := dec.(catalog)
	if !ok || len(m.types) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	subjects, err := c.Subjects(ctx)
	if err != nil {
		cfg.Log.Warn("the registry does not answer: whether the handlers' types occur is not checked", zap.Error(err))
		return nil
	}
	known := names(ctx, c, subjects, cfg.Topics)
	if len(known) == 0 {
		return nil
	}
	for _, r := range m.routes {
		if len(r.names) == 0 || slices.ContainsFunc(r.names, func(n string) bool { return slices.Contains(known, n) }) {
			continue
		}
		if cfg.Strict {
			return fmt.Errorf("consumer: no subject of the topics %s has the type %s: check its namespace; known are %s",
				strings.Join(cfg.Topics, ", "), r.name, strings.Join(known, ", "))
		}
		cfg.Log.Warn("no subject of the topics has the type of a handler: check its namespace",
			zap.String("type", r.name), zap.Strings("topics", cfg.Topics), zap.Strings("known", known))
	}
	return nil
}

// names are the full names of the types that the topics' subjects hold: none where the topics have no subject of
// their own, because a subject that is named after its type alone may belong to any topic.
func names(ctx context.Context, c catalog, subjects, topics []string) []string {
	var own, anyTopic []string
	for _, s := range subjects {
		i := slices.IndexFunc(topics, func(t string) bool { return strings.HasPrefix(s, t+"-") })
		if i < 0 {
			anyTopic = append(anyTopic, s)
			continue
		}
		switch record := strings.TrimPrefix(s, topics[i]+"-"); record {
		case "key":
		case "value":
			if latest, err := c.Latest(ctx, s); err == nil && latest.Name != "" {
				own = append(own, latest.Name)
			}
		default:
			own = append(own, record)
		}
	}
	if len(own) == 0 {
		return nil
	}
	all := append(own, anyTopic...)
	slices.Sort(all)
	return slices.Compact(all)
}
