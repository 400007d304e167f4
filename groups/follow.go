package groups

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/kafka"
)

// How often the control topic is looked for where it is not, or may not be read.
const (
	lookEvery   = 30 * time.Second
	deniedEvery = 5 * time.Minute
)

// FollowControl calls seen with what services are told, until ctx ends: first with what stands in the topic, the last word for
// each group, then with each change. seen is called from one goroutine; ask says which groups matter. A topic that does not exist is
// nothing told, and is looked for every half a minute; so it is after an error, which is logged.
//
// It is no member of any group, commits nothing and creates nothing.
func FollowControl(ctx context.Context, c kafka.Cluster, log *zap.Logger, ask func(group string) bool, seen func([]Control)) {
	c.Log, c.Hooks = nil, nil // what goes wrong is said below, once
	said := false
	for ctx.Err() == nil {
		wait := lookEvery
		err := followOnce(ctx, c, log, ask, seen)
		_, denied := errors.AsType[*kafka.PermissionError](err)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			seen(nil)
		case denied:
			seen(nil)
			wait = deniedEvery
			if !said {
				said = true
				log.Info("this service may not read where it would be told to pause: groups pause does not reach it", zap.Error(err))
			}
		default:
			log.Warn("what services are told is not heard for a while", zap.Error(err), zap.Duration("again_in", wait))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// followOnce reads the control topic from its start, and goes on until an error.
func followOnce(ctx context.Context, c kafka.Cluster, log *zap.Logger, ask func(group string) bool, seen func([]Control)) error {
	client, err := c.Client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{ControlTopic: {0: kgo.NewOffset().AtStart()}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(1<<20), kgo.FetchMaxPartitionBytes(1<<20),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	looking, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	first, end, err := controlBounds(looking, c, kadm.NewClient(client))
	if err != nil {
		return err
	}
	last := map[string]Control{} // not handed on yet: bounded by the groups that matter
	caughtUp := first >= end
	if caughtUp {
		seen(nil)
	}
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read topic %s: %w", ControlTopic, c.Explain(err, "Read", "topic "+ControlTopic))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			caughtUp = caughtUp || r.Offset >= end-1
			if !ask(string(r.Key)) || r.Value == nil {
				return
			}
			told, err := ParseControl(r.Key, r.Value)
			if err != nil {
				log.Warn("a record that tells services something does not read: it is left out", zap.Int64("offset", r.Offset), zap.Error(err))
				return
			}
			last[told.Group] = told
		})
		if !caughtUp {
			continue
		}
		var news []Control
		for _, told := range last {
			news = append(news, told)
		}
		clear(last)
		seen(news)
	}
}

// controlBounds are the first offset of the control topic and the one after its last.
func controlBounds(ctx context.Context, c kafka.Cluster, adm *kadm.Client) (first, end int64, err error) {
	for _, b := range []struct {
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		into *int64
	}{{adm.ListStartOffsets, &first}, {adm.ListEndOffsets, &end}} {
		listed, err := b.list(ctx, ControlTopic)
		if err != nil {
			return 0, 0, fmt.Errorf("look for topic %s: %w", ControlTopic, c.Explain(err, "Describe", "topic "+ControlTopic))
		}
		o, ok := listed.Lookup(ControlTopic, 0)
		if !ok {
			o.Err = cmp.Or(listed.Error(), error(kerr.UnknownTopicOrPartition)) // what is wrong with a whole topic is under no partition
		}
		if o.Err != nil {
			return 0, 0, fmt.Errorf("look for topic %s: %w", ControlTopic, c.Explain(o.Err, "Describe", "topic "+ControlTopic))
		}
		*b.into = o.Offset
	}
	return first, end, nil
}
