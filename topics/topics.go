// Package topics keeps a cluster's topics as files: what each is called, who owns it, what its key means, how many
// partitions it has and how long it keeps events. It stands between the files in a repository and the cluster:
//
//	specs, err := topics.Load(os.DirFS("topics"))   // the wanted state, or errors with file and line
//	have, err := topics.Have(ctx, cluster)          // the state of the cluster
//	for _, c := range topics.Plan(specs, have) {    // the difference, in words and human units
//		fmt.Println(c)                          // shop.orders retention.ms: 1d → 7d
//	}
//	applied, err := topics.Apply(ctx, cluster, changes, false)
//
// A file describes one topic:
//
//	name: shop.orders
//	owner: team-orders
//	description: Orders as customers place and change them.
//	partitions: 12
//	replicas: 3                   # left out: the broker's default
//	retention: 7d                 # left out: the broker's default; or forever
//	key: the order's id
//	naming: topic-record          # topic, record or topic-record; needed when there are several events
//	events: [shop.OrderPlaced, shop.OrderCancelled]
//	config:
//	  segment.bytes: 1GiB
//	  min.insync.replicas: 2
//
// # What it refuses
//
// Plan and Apply never remove partitions, never move replicas, and touch nothing that no file describes. Deleting a
// topic (absent: true) and unsetting a configuration need the caller's word: they are changes with Destroys set, and
// Apply leaves them alone unless it is called with destroy.
package topics

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/millrace/millrace/schemas"
)

// Forever as a Spec's Retention keeps events without an end in time.
const Forever time.Duration = -1

// Spec is one topic: as a file wants it, or as the cluster has it.
type Spec struct {
	// Name of the topic: 1 to 249 of A-Z a-z 0-9 . _ -
	Name string
	// Owner is the team that answers for the topic. The cluster does not know it.
	Owner string
	// Description says in a sentence or two what is in the topic. The cluster does not know it.
	Description string
	// Key says what the record key means ("the order's id"). Empty: not said. The cluster does not know it.
	Key string
	// Partitions is 1 to 10,000.
	Partitions int32
	// Replicas of each partition. 0 takes the broker's default when the topic is created and is not compared.
	Replicas int16
	// Retention is how long events are kept, in whole milliseconds; Forever has no end; 0 leaves it to the broker.
	// It is the configuration retention.ms, which must then not be in Config.
	Retention time.Duration
	// Config holds the topic's own settings by Kafka's names, with values in Kafka's units ("604800000") or in human
	// ones ("7d", "1GiB"). What is not here is left to the broker.
	Config map[string]string
	// Events are the full names of the Avro records that may be in the topic.
	Events []string
	// Naming says under which subjects the events' schemas are registered. A topic with several events must not be
	// schemas.ByTopic, the zero value.
	Naming schemas.Naming
	// Absent says that the topic shall not exist: the way to delete one.
	Absent bool

	// File and Line say where the spec was read; empty and 0 for one from a cluster or from code.
	File string
	Line int
}

// The values of Change.What other than the name of a configuration.
const (
	Create     = "create"
	Delete     = "delete"
	Partitions = "partitions"
	Replicas   = "replicas"
	Unmanaged  = "unmanaged" // the cluster has the topic and no file describes it: information, Apply ignores it
	Invalid    = "spec"      // what is wanted cannot be: Refused says why
)

// NotSet stands in Have and Want for a configuration that the topic leaves to the broker.
const NotSet = "broker default"

// Change is one difference between the wanted topics and those of the cluster. It is plain data, complete in itself: it
// may be printed, written as JSON, read again and applied.
type Change struct {
	Topic string `json:"topic"`
	// What differs: Create, Delete, Partitions, Replicas, Unmanaged, or the name of a configuration.
	What string `json:"what"`
	// Have and Want are the two values in human units; NotSet for a configuration left to the broker. Apply does
	// nothing when the cluster no longer has Have.
	Have string `json:"have"`
	Want string `json:"want"`
	// Spec is the topic to create; nil for every other change.
	Spec *Spec `json:"spec,omitempty"`
	// Destroys marks what Apply does only with its destroy argument: a topic deleted, a configuration unset.
	Destroys bool `json:"destroys,omitempty"`
	// Refused is why the change is not possible, and what to do instead. Apply answers it with an error.
	Refused string `json:"refused,omitempty"`
	// Warning is what one should know before applying. It stops nothing.
	Warning string `json:"warning,omitempty"`
}

// Acts reports whether Apply would change the cluster for c, given leave to destroy.
func (c Change) Acts() bool { return c.What != Unmanaged && c.Refused == "" }

// String is the change on one line, such as "shop.orders retention.ms: 1d → 7d".
func (c Change) String() string {
	var b strings.Builder
	switch c.What {
	case Create:
		fmt.Fprintf(&b, "%s create: %s", c.Topic, c.Want)
	case Unmanaged:
		fmt.Fprintf(&b, "%s unmanaged: %s", c.Topic, c.Have)
	default:
		fmt.Fprintf(&b, "%s %s: %s → %s", c.Topic, c.What, c.Have, c.Want)
	}
	if c.Refused != "" {
		fmt.Fprintf(&b, " (refused: %s)", c.Refused)
	}
	if c.Warning != "" {
		fmt.Fprintf(&b, " (warning: %s)", c.Warning)
	}
	return b.String()
}

// A problem is what is wrong with one field of a spec; config keys have the field "config/<key>".
type problem struct{ field, text string }

const (
	maxName       = 249
	maxPartitions = 10_000
	maxReplicas   = 100
	maxEvents     = 1_000
)

var (
	topicName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	avroName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
)

// problems are the faults of a spec that lie in itself, in the order of the fields.
func (s Spec) problems() []problem {
	var ps []problem
	add := func(field, format string, args ...any) {
		ps = append(ps, problem{field, fmt.Sprintf(format, args...)})
	}
	switch {
	case s.Name == "":
		add("name", "name is missing: 1 to %d of A-Z a-z 0-9 . _ -", maxName)
	case len(s.Name) > maxName || !topicName.MatchString(s.Name) || s.Name == "." || s.Name == "..":
		add("name", "%q is no topic name: 1 to %d of A-Z a-z 0-9 . _ -, and not . or .. alone", clip(s.Name), maxName)
	}
	if s.Absent {
		return ps
	}
	if s.Partitions < 1 || s.Partitions > maxPartitions {
		add("partitions", "partitions is %d: 1 to %d are allowed", s.Partitions, maxPartitions)
	}
	if s.Replicas < 0 || s.Replicas > maxReplicas {
		add("replicas", "replicas is %d: 1 to %d are allowed, or none for the broker's default", s.Replicas, maxReplicas)
	}
	switch {
	case s.Retention < 0 && s.Retention != Forever:
		add("retention", "retention is %v: a positive time such as 7d, or forever", s.Retention)
	case s.Retention > 0 && s.Retention%time.Millisecond != 0:
		add("retention", "retention is %v: whole milliseconds are allowed", s.Retention)
	}
	for _, k := range sortedKeys(s.Config) {
		switch _, err := canonical(k, s.Config[k]); {
		case err != nil:
			add("config/"+k, "%s", err)
		case k == "retention.ms" && s.Retention != 0:
			add("config/"+k, "retention and config retention.ms are the same: keep one")
		}
	}
	if len(s.Events) > maxEvents {
		add("events", "%d events: %d are allowed", len(s.Events), maxEvents)
		return ps
	}
	seen := map[string]bool{}
	for _, e := range s.Events {
		switch {
		case !avroName.MatchString(e):
			add("events", "%q is no Avro full name: dotted names such as shop.OrderPlaced", clip(e))
		case seen[e]:
			add("events", "%s is listed twice", e)
		}
		seen[e] = true
	}
	if len(seen) > 1 && s.Naming == schemas.ByTopic {
		add("naming", "the topic carries %d events, which cannot share the subject %s-value: naming must be record or topic-record", len(seen), s.Name)
	}
	return ps
}

// clip keeps what others wrote short in a message.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
