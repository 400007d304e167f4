package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

// Path is what the sender is given, behind the public host.
func (s *Source) Path() string { return prefix + s.Name }

// SchemeName is the scheme's name, "none" where the source does not verify.
func (s *Source) SchemeName() string { return s.schemeName() }

// Windows are how long a repeat is told by the sender's id, and by the body; 0 is not at all.
func (s *Source) Windows() (id, body time.Duration) { return s.window(), s.bodyWindow() }

// Patience is how long the sender waits for an answer, and how long the gateway holds a request at most.
func (s *Source) Patience() (deadline, hold time.Duration) { return s.deadline, s.hold() }

// Lack is something that sources need.
type Lack struct {
	// Topic is missing, or wrong; "" where a schema is.
	Topic string
	// Text says what is wrong and what to do.
	Text string
	// Made reports whether a gateway with Create makes it.
	Made bool
}

// Lacks looks up what the sources need besides their files: topics with room for the records, dead letters, the schema of
// what came in. It changes nothing. The error is that of the cluster or the registry.
func (t Topics) Lacks(ctx context.Context, sources []*Source) ([]Lack, error) {
	want := t.wanted(sources)
	for _, s := range sources {
		if len(s.Events) > 0 {
			if err := deadletter.Check(s.Topic, group); err != nil {
				return []Lack{{Topic: s.Topic, Text: err.Error()}}, nil //nolint:nilerr // it is what was looked for
			}
			name := deadletter.Topic(s.Topic, group)
			want[name] = &topics.Spec{Name: name}
		}
	}
	names := slices.Sorted(maps.Keys(want))
	have, err := topics.Have(ctx, t.Cluster, names...)
	if err != nil {
		return nil, fmt.Errorf("look up the topics of the sources: %w", err)
	}
	there := map[string]topics.Spec{}
	for _, h := range have {
		there[h.Name] = h
	}
	var lacks []Lack
	for _, name := range names {
		h, ok := there[name]
		switch {
		case !ok && want[name] == nil:
			lacks = append(lacks, Lack{name, "it does not exist, and is a typed event's: declare it and run  millrace topics apply", false})
		case !ok:
			lacks = append(lacks, Lack{name, "it does not exist: declare it and run  millrace topics apply, or start the gateway with --create-topics", true})
		default:
			if err := t.roomy(h); err != nil {
				lacks = append(lacks, Lack{name, err.Error(), false})
			}
		}
	}
	for _, s := range sources {
		subject := schemas.ByTopic.Subject(s.Topic, ReceivedName)
		_, err := t.Registry.Lookup(ctx, subject, receivedSchema)
		if errors.Is(err, schemas.ErrNotFound) {
			lacks = append(lacks, Lack{"", fmt.Sprintf("the schema of %s is not registered under %s: start the gateway with --create-topics once", ReceivedName, subject), true})
		} else if err != nil {
			return lacks, fmt.Errorf("look up the schema of %s: %w", ReceivedName, err)
		}
	}
	return slices.Compact(lacks), nil
}
