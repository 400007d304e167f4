// Package consumer hands the events of a consumer group to handlers: typed, in order per partition, each with a
// verdict that says what becomes of the event. It stands between internal/engine, which holds partitions and
// positions, and a service's own functions.
//
//	mux := consumer.NewMux()
//	consumer.On(mux, func(ctx context.Context, e event.Of[shop.OrderPlaced]) error {
//		return ship(ctx, e.ID, e.Data)
//	})
//	err := consumer.Run(ctx, cluster, registry, mux, consumer.Config{Group: "shipping", Topics: []string{"shop.orders"}})
//
// # Errors are verdicts
//
// A handler's error says what happens next. nil: done, the position may pass the event. [Drop]: done without an
// effect. Any other error: tried again by [Retry], then dead-lettered. [RetryAfter]: tried again after a time of
// the handler's choice. [DeadLetter]: copied to <topic>.<group>.dlq at once. [Stop]: Run ends with the error.
// A panic is an error with its stack. Bytes that do not decode are dead-lettered at once. A schema registry that
// does not answer is nobody's fault: the partition waits, no attempt is counted and nothing is dead-lettered.
//
// A dead letter is acknowledged by every in-sync replica before the position passes its event.
//
// # Delivery
//
// At least once: after a crash the events since the last commit come again. Make effects idempotent by the
// event's ID, and publish with event.After, so that a second run repeats ids instead of making new ones.
//
// # Concurrency
//
// Handlers run in order within a partition and at the same time across partitions. A Mux is filled before it is
// used, and may then serve any number of runs.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/position"
)

// Decoder gives meaning to bytes; *schemas.Registry is one. Errors wrap schemas.ErrPoison (dead-lettered at
// once), schemas.ErrUnavailable (the partition waits) or schemas.ErrIncompatible (see [Config.Incompatible]);
// any other error counts as poison, because trying the same bytes again changes nothing.
type Decoder interface {
	// TypeOf is the full name of the schema that e.Value was written with, else e.Type; "" where neither is known.
	TypeOf(ctx context.Context, e *event.Event) (string, error)
	// Decode decodes e.Value into into: a *T, or a *any for a generic record.
	Decode(ctx context.Context, e *event.Event, into any) error
}

// Order says what may run at once.
type Order int

// The orders. This version has ByPartition; Run refuses the others.
const (
	ByPartition Order = iota // one event of a partition at a time. The zero value
	ByKey                    // one event of a key at a time, many keys of a partition
	Unordered                // any events at once
)

// String is the order's name in the source.
func (o Order) String() string {
	switch o {
	case ByPartition:
		return "ByPartition"
	case ByKey:
		return "ByKey"
	case Unordered:
		return "Unordered"
	default:
		return fmt.Sprintf("Order(%d)", int(o))
	}
}

// Config says which events a group handles, and how.
type Config struct {
	// Group is the consumer group: letters, digits, dot, underscore and hyphen. Required.
	Group string
	// Topics are the topics to read. Required; topic and group together have at most 230 characters.
	Topics []string
	// Start is where a partition starts that the group has no position in. Defaults to the log start: nothing is skipped.
	Start position.Point
	// Order is what may run at once. Defaults to ByPartition, the only one of this version.
	Order Order

	// Batch is how many events a batch handler gets at most. Defaults to 500.
	Batch int
	// BatchWait is how long a batch that is not full waits for more. Defaults to 0: not at all.
	BatchWait time.Duration
	// InFlight bounds the events that are read and not resolved, over all partitions. Defaults to 16,384.
	InFlight int
	// InFlightSize is the same in bytes. Defaults to 64 MiB.
	InFlightSize int64

	// Timeout is how long one attempt may take; its context ends then, and an error that comes back is of the
	// class timeout. Defaults to 0: no limit.
	Timeout time.Duration
	// Retry says how often and when a failed event is tried again.
	Retry Retry
	// Strict ends Run at an event that nobody handles. By default such an event is done, counted, and logged once
	// per type.
	Strict bool
	// Incompatible is what becomes of an event whose schema cannot be read as the handler's type. Defaults to
	// Stopped: the handlers are older than their events, and a person must deploy. The other choice is DeadLettered.
	Incompatible Kind
	// Burst stops Run instead of draining a topic into the dead letters.
	Burst Burst
	// CreateTopics creates missing dead-letter topics at start, as deadletter.Create does. By default they must
	// exist: a dead letter that cannot be written holds its partition.
	CreateTopics bool

	// Drain is how long handlers may go on when partitions are given up or Run is to end. Defaults to 20 s.
	Drain time.Duration
	// CommitEvery is how often positions are committed. Defaults to 1 s: what a crash repeats at most.
	CommitEvery time.Duration
	// InstanceID makes the member static: a restart within the session timeout moves no partition. For stable
	// ordinal names only ("shipping-0"): two members with one id fence each other. Defaults to "": dynamic.
	InstanceID string
	// SessionTimeout is how long a member that is silent (crashed, paused) keeps its partitions before others take
	// them. Brokers allow 6 s to 30 min by default. Defaults to 45 s, Kafka's own. Without effect with ServerAssign, where the
	// broker decides.
	SessionTimeout time.Duration
	// ServerAssign uses the KIP-848 group protocol. Needs Kafka 4.3. Defaults to the classic protocol.
	ServerAssign bool
	// Uncommitted also hands over events of transactions that are open or aborted. Defaults to false.
	Uncommitted bool

	// Observer sees what happens; nil = none.
	Observer Observer
	// Log; nil = silent.
	Log *zap.Logger
}

var groupName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

func (c Config) withDefaults() Config {
	c.Retry = c.Retry.withDefaults()
	c.Burst = c.Burst.withDefaults()
	if c.Incompatible == Done {
		c.Incompatible = Stopped
	}
	if c.Observer == nil {
		c.Observer = Silent{}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// validate looks at a config with its defaults.
func (c Config) validate() error {
	switch {
	case c.Group == "":
		return errors.New("consumer: Config.Group is empty: name the consumer group")
	case !groupName.MatchString(c.Group):
		return fmt.Errorf("consumer: Config.Group %q has characters other than letters, digits, dot, underscore and hyphen", c.Group)
	case len(c.Topics) == 0:
		return errors.New("consumer: Config.Topics is empty: name at least one topic")
	case c.Order == ByKey || c.Order == Unordered:
		return fmt.Errorf("consumer: Config.Order %v is not available in this version: use ByPartition", c.Order)
	case c.Order != ByPartition:
		return fmt.Errorf("consumer: Config.Order %v does not exist", c.Order)
	case len(c.Retry.Deferred) > 0:
		return errors.New("consumer: Config.Retry.Deferred is not available in this version, and never with ByPartition: use Attempts, Backoff and Max")
	case c.Incompatible != Stopped && c.Incompatible != DeadLettered:
		return fmt.Errorf("consumer: Config.Incompatible is %v: choose Stopped or DeadLettered", c.Incompatible)
	}
	for i, t := range c.Topics {
		if t == "" || slices.Contains(c.Topics[:i], t) {
			return fmt.Errorf("consumer: Config.Topics %q has an empty or repeated name", c.Topics)
		}
		if err := deadletter.Check(t, c.Group); err != nil {
			return fmt.Errorf("consumer: Config.Group: %w", err)
		}
	}
	for name, d := range map[string]time.Duration{
		"BatchWait": c.BatchWait, "Timeout": c.Timeout, "Drain": c.Drain, "CommitEvery": c.CommitEvery, "SessionTimeout": c.SessionTimeout,
		"Retry.Backoff": c.Retry.Backoff, "Retry.Max": c.Retry.Max,
	} {
		if d < 0 {
			return fmt.Errorf("consumer: Config.%s is negative: %s", name, d)
		}
	}
	if c.Batch < 0 || c.InFlight < 0 || c.InFlightSize < 0 {
		return errors.New("consumer: Config.Batch, InFlight and InFlightSize are never negative")
	}
	return c.Burst.validate()
}
