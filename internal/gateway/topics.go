package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

// RecordRoom is what a record has room for besides the body: the kept headers, which the server bounds, and the rest.
const RecordRoom = 64 << 10

// DefaultRecordBytes is the largest record of a topic that says nothing about it, max.message.bytes of a broker that says
// nothing else: bodies may have 983,052 bytes.
const DefaultRecordBytes = 1_048_588

const (
	newPartitions  = 6
	seenAtLeast    = 4 * 24 * time.Hour
	topicsTimeout  = time.Minute
	maxMessageName = "max.message.bytes"
)

// Topics are the topics and schemas that sources need.
type Topics struct {
	Cluster  kafka.Cluster
	Registry *schemas.Registry
	// Create makes what is missing: the sources' topics with 6 partitions and room for RecordBytes, their dead letters,
	// [SeenTopic], and the schema of what came in. Otherwise something that is missing is an error. Topics of typed events
	// are never made: whoever owns them declares them.
	Create bool
	// RecordBytes is the largest record that the gateway writes: its topics' max.message.bytes may not be below it.
	RecordBytes int
}

// Prepare checks, and with Create makes, what sources need: it is a Config.Prepare.
func (t Topics) Prepare(ctx context.Context, sources []*Source) error {
	ctx, cancel := context.WithTimeout(ctx, topicsTimeout)
	defer cancel()
	want := t.wanted(sources)
	have, err := topics.Have(ctx, t.Cluster, slices.Sorted(maps.Keys(want))...)
	if err != nil {
		return fmt.Errorf("look up the topics of the sources: %w", err)
	}
	for _, h := range have {
		if err := t.roomy(h); err != nil {
			return err
		}
		delete(want, h.Name)
	}
	if err := t.make(ctx, want); err != nil {
		return err
	}
	return errors.Join(t.deadLetters(ctx, sources), t.schemas(ctx, sources))
}

// wanted are the topics by name: those that may be made with what they shall be, the others nil.
func (t Topics) wanted(sources []*Source) map[string]*topics.Spec {
	longest := seenAtLeast
	want := map[string]*topics.Spec{}
	for _, s := range sources {
		longest = max(longest, s.window()+24*time.Hour)
		for _, m := range s.Events {
			want[m.Topic] = nil
		}
	}
	for _, s := range sources {
		want[s.Topic] = &topics.Spec{
			Name: s.Topic, Owner: group, Partitions: newPartitions, Config: map[string]string{maxMessageName: strconv.Itoa(t.RecordBytes)},
		}
	}
	// Every snapshot has a key of its own, so compaction removes none that counts, and time removes those that no longer do.
	want[SeenTopic] = &topics.Spec{
		Name: SeenTopic, Owner: group, Partitions: 1, Retention: longest,
		Config: map[string]string{"cleanup.policy": "compact,delete", maxMessageName: strconv.Itoa(t.RecordBytes)},
	}
	return want
}

// roomy checks that a topic takes the gateway's records. What the broker decides counts as Kafka's own default.
func (t Topics) roomy(h topics.Spec) error {
	limit := DefaultRecordBytes
	if text, ok := h.Config[maxMessageName]; ok {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("topic %s: max.message.bytes is %q", h.Name, text)
		}
		limit = n
	}
	if limit < t.RecordBytes {
		return fmt.Errorf("topic %s takes records up to %d bytes and the gateway writes up to %d: raise its max.message.bytes, or start the gateway anew with --record-bytes %d", h.Name, limit, t.RecordBytes, limit)
	}
	return nil
}

func (t Topics) make(ctx context.Context, missing map[string]*topics.Spec) error {
	var specs []topics.Spec
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		spec := missing[name]
		switch {
		case spec == nil:
			return fmt.Errorf("topic %s of a typed event does not exist: declare it and run millrace topics apply", name)
		case !t.Create:
			return fmt.Errorf("topic %s does not exist: declare it and run millrace topics apply, or start the gateway with --create-topics", name)
		}
		specs = append(specs, *spec)
	}
	if _, err := topics.Apply(ctx, t.Cluster, topics.Plan(specs, nil), false); err != nil {
		return fmt.Errorf("create the topics of the sources: %w", err)
	}
	return nil
}

// deadLetters makes, or checks, the topics of what does not fit.
func (t Topics) deadLetters(ctx context.Context, sources []*Source) error {
	var of []string
	for _, s := range sources {
		if len(s.Events) > 0 && !slices.Contains(of, s.Topic) {
			of = append(of, s.Topic)
		}
	}
	if t.Create {
		return deadletter.Create(ctx, t.Cluster, group, of...)
	}
	var names []string
	for _, topic := range of {
		if err := deadletter.Check(topic, group); err != nil {
			return err
		}
		names = append(names, deadletter.Topic(topic, group))
	}
	if len(names) == 0 {
		return nil
	}
	have, err := topics.Have(ctx, t.Cluster, names...)
	if err != nil {
		return fmt.Errorf("look up the dead letters of the sources: %w", err)
	}
	for _, n := range names {
		if !slices.ContainsFunc(have, func(h topics.Spec) bool { return h.Name == n }) {
			return fmt.Errorf("topic %s does not exist, which gets what is no typed event: declare it and run millrace topics apply, or start the gateway with --create-topics", n)
		}
	}
	return nil
}

// schemas registers, or looks up, the schema of what came in under the subject of each topic.
func (t Topics) schemas(ctx context.Context, sources []*Source) error {
	for _, s := range sources {
		subject := schemas.ByTopic.Subject(s.Topic, ReceivedName)
		ask := t.Registry.Lookup
		if t.Create {
			ask = t.Registry.Register
		}
		_, err := ask(ctx, subject, receivedSchema)
		if errors.Is(err, schemas.ErrNotFound) {
			return fmt.Errorf("the schema of %s is not registered under %s: start the gateway with --create-topics once: %w", ReceivedName, subject, err)
		}
		if err != nil {
			return fmt.Errorf("register the schema of %s: %w", ReceivedName, err)
		}
	}
	return nil
}
