package replay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
)

// Func is a function as a target.
type Func func(ctx context.Context, e event.Event) error

// Deliver implements [Target].
func (f Func) Deliver(ctx context.Context, e event.Event) error { return f(ctx, e) }

// maxReplays is how often a record may be copied by replays before a topic refuses it: nobody means that, a loop does.
const maxReplays = 16

// Topic publishes each event to topic with the same key, value and headers, and with headers that say which replay
// wrote it and where it was read: millrace_replay_id, millrace_replay_count, millrace_origin_topic, _partition, _offset and
// _timestamp. Headers of the trace that the event was published in are left out. The id stays. A record that was
// copied by replays sixteen times fails.
//
// A pub that has the method PublishAsync of producer.Producer is not waited for, event by event. It may be of another
// cluster.
func Topic(pub event.Publisher, topic string) Target {
	t := topicTarget{pub, topic, new(atomic.Pointer[stamp])}
	if a, ok := pub.(asyncPublisher); ok {
		return asyncTopic{t, a}
	}
	return t
}

type asyncPublisher interface {
	PublishAsync(ctx context.Context, e event.Event, done func(event.Event, error))
}

type topicTarget struct {
	pub   event.Publisher
	topic string
	last  *atomic.Pointer[stamp]
}

// stamp is what the headers of many events have in common.
type stamp struct {
	replay, topic           string
	replayBytes, topicBytes []byte
}

func (t topicTarget) stamp(replay, topic string) *stamp {
	s := t.last.Load()
	if s == nil || s.replay != replay || s.topic != topic {
		s = &stamp{replay, topic, []byte(replay), []byte(topic)}
		t.last.Store(s)
	}
	return s
}

func (t topicTarget) writes() string { return t.topic }

func (t topicTarget) Deliver(ctx context.Context, e event.Event) error {
	out, err := t.copy(ctx, &e)
	if err != nil {
		return err
	}
	return published(t.pub.Publish(ctx, out))
}

type asyncTopic struct {
	topicTarget
	async asyncPublisher
}

func (t asyncTopic) Send(ctx context.Context, e event.Event, done func(event.Event, error)) {
	out, err := t.copy(ctx, &e)
	if err != nil {
		done(e, err)
		return
	}
	t.async.PublishAsync(ctx, out, done)
}

// published is what the error of a publisher means for the event.
func published(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, producer.ErrTooLarge):
		return consumer.DeadLetter(err)
	case errors.Is(err, producer.ErrNotAuthorized), errors.Is(err, producer.ErrUnknownTopic), errors.Is(err, producer.ErrClosed):
		return consumer.Stop(err) // every other event would fail too
	}
	return err
}

// copy is the record to write. The headers are new, key and value are shared.
func (t topicTarget) copy(ctx context.Context, e *event.Event) (event.Event, error) {
	replay, _ := event.InReplay(ctx)
	count := 0
	h := make(event.Headers, 0, len(e.Headers)+6)
	for i := range e.Headers {
		switch e.Headers[i].Key {
		case event.HeaderReplayCount:
			count, _ = strconv.Atoi(string(e.Headers[i].Value)) // what is no number was not written by a replay
		case event.HeaderReplay, event.HeaderOriginTopic, event.HeaderOriginPartition, event.HeaderOriginOffset,
			event.HeaderOriginTimestamp, event.HeaderTraceParent, "tracestate", "baggage":
		default:
			h = append(h, e.Headers[i])
		}
	}
	if count >= maxReplays {
		return event.Event{}, consumer.DeadLetter(fmt.Errorf("the record was copied by replays %d times: this is a loop", count))
	}
	stamp := t.stamp(replay.ID, e.Topic)
	b := make([]byte, 0, 48) // four numbers are seldom longer
	text := func(n int64) []byte {
		from := len(b)
		b = strconv.AppendInt(b, n, 10)
		return b[from:len(b):len(b)]
	}
	h = append(h,
		event.Header{Key: event.HeaderReplay, Value: stamp.replayBytes},
		event.Header{Key: event.HeaderReplayCount, Value: text(int64(count + 1))},
		event.Header{Key: event.HeaderOriginTopic, Value: stamp.topicBytes},
		event.Header{Key: event.HeaderOriginPartition, Value: text(int64(e.Partition))},
		event.Header{Key: event.HeaderOriginOffset, Value: text(e.Offset)},
		event.Header{Key: event.HeaderOriginTimestamp, Value: text(e.Published.UnixMilli())})
	// Time is not sent; a producer reads the clock for an event without one.
	return event.Event{Meta: event.Meta{Topic: t.topic, Key: e.Key, Headers: h, Time: e.Time}, Value: e.Value, Verbatim: true}, nil
}
