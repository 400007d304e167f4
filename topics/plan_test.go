package topics_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

const week = 7 * 24 * time.Hour

func spec(name string, partitions int32, configs ...string) topics.Spec {
	s := topics.Spec{Name: name, Owner: "o", Partitions: partitions}
	for i := 0; i < len(configs); i += 2 {
		if s.Config == nil {
			s.Config = map[string]string{}
		}
		s.Config[configs[i]] = configs[i+1]
	}
	return s
}

func with(s topics.Spec, change func(*topics.Spec)) topics.Spec {
	change(&s)
	return s
}

func TestPlan(t *testing.T) {
	t.Parallel()
	retention := func(d time.Duration) func(*topics.Spec) { return func(s *topics.Spec) { s.Retention = d } }
	replicas := func(n int16) func(*topics.Spec) { return func(s *topics.Spec) { s.Replicas = n } }
	absent := func(s *topics.Spec) { s.Absent = true }
	tests := []struct {
		name       string
		want, have []topics.Spec
		plan       []string // a change each: its String
		destroys   bool     // of every change
	}{
		{name: "nothing wanted, nothing there"},
		{
			name: "a new topic",
			want: []topics.Spec{with(with(spec("t", 12, "segment.bytes", "1073741824"), retention(week)), replicas(3))},
			plan: []string{"t create: 12 partitions, 3 replicas, retention.ms=7d, segment.bytes=1GiB"},
		},
		{
			name: "a new topic with the broker's replicas",
			want: []topics.Spec{spec("t", 1)},
			plan: []string{"t create: 1 partition"},
		},
		{
			name: "the same topic",
			want: []topics.Spec{with(spec("t", 3, "segment.bytes", "1GiB"), retention(week))},
			have: []topics.Spec{with(spec("t", 3, "segment.bytes", "1073741824"), retention(week))},
		},
		{
			name: "the same retention by its two names",
			want: []topics.Spec{with(spec("t", 3), retention(week))},
			have: []topics.Spec{spec("t", 3, "retention.ms", "604800000")},
		},
		{
			name: "the same values in other units and another order",
			want: []topics.Spec{spec("t", 3, "segment.ms", "7d", "cleanup.policy", "delete, compact", "min.cleanable.dirty.ratio", "0.50", "retention.bytes", "unlimited")},
			have: []topics.Spec{spec("t", 3, "segment.ms", "604800000", "cleanup.policy", "compact,delete", "min.cleanable.dirty.ratio", "0.5", "retention.bytes", "-1")},
		},
		{
			name: "replicas not stated are not compared",
			want: []topics.Spec{spec("t", 3)},
			have: []topics.Spec{with(spec("t", 3), replicas(3))},
		},
		{
			name: "what the broker decides is no drift",
			want: []topics.Spec{spec("t", 3)},
			have: []topics.Spec{spec("t", 3)}, // Have gives what is set on the topic alone
		},
		{
			name: "a longer retention",
			want: []topics.Spec{with(spec("t", 3), retention(week))},
			have: []topics.Spec{with(spec("t", 3), retention(36*time.Hour))},
			plan: []string{"t retention.ms: 36h → 7d"},
		},
		{
			name: "a shorter retention",
			want: []topics.Spec{with(spec("t", 3), retention(time.Minute+time.Millisecond))},
			have: []topics.Spec{with(spec("t", 3), retention(topics.Forever))},
			plan: []string{"t retention.ms: forever → 60001ms (warning: events beyond 60001ms are deleted)"},
		},
		{
			name: "a retention where the broker decided",
			want: []topics.Spec{with(spec("t", 3), retention(topics.Forever))},
			have: []topics.Spec{spec("t", 3)},
			plan: []string{"t retention.ms: broker default → forever"},
		},
		{
			name: "several configurations, in order",
			want: []topics.Spec{spec("t", 3, "segment.bytes", "1MiB", "max.message.bytes", "1500000", "min.insync.replicas", "2")},
			have: []topics.Spec{spec("t", 3, "segment.bytes", "1048577", "min.insync.replicas", "1")},
			plan: []string{
				"t max.message.bytes: broker default → 1500000B",
				"t min.insync.replicas: 1 → 2",
				"t segment.bytes: 1048577B → 1MiB",
			},
		},
		{
			name: "a configuration no longer wanted",
			want: []topics.Spec{spec("t", 3)},
			have: []topics.Spec{with(spec("t", 3), retention(week))},
			plan: []string{"t retention.ms: 7d → broker default (warning: the broker's default then decides; to keep the value write it in the file)"}, destroys: true,
		},
		{
			name: "a configuration that nobody here knows",
			want: []topics.Spec{spec("t", 3)},
			have: []topics.Spec{spec("t", 3, "new.in.kafka.5", "x")},
			plan: []string{"t new.in.kafka.5: x → broker default (warning: the broker's default then decides; to keep the value write it in the file)"}, destroys: true,
		},
		{
			name: "the throttles of a running reassignment are not ours",
			want: []topics.Spec{spec("t", 3)},
			have: []topics.Spec{spec("t", 3, "leader.replication.throttled.replicas", "0:1", "follower.replication.throttled.replicas", "0:2")},
		},
		{
			name: "compaction",
			want: []topics.Spec{spec("t", 3, "cleanup.policy", "compact")},
			have: []topics.Spec{spec("t", 3)},
			plan: []string{"t cleanup.policy: broker default → compact (warning: only the last event of each key is kept, and events without a key are refused)"},
		},
		{
			name: "no compaction any more",
			want: []topics.Spec{spec("t", 3, "cleanup.policy", "delete")},
			have: []topics.Spec{spec("t", 3, "cleanup.policy", "compact")},
			plan: []string{"t cleanup.policy: compact → delete (warning: keys older than the retention are lost)"},
		},
		{
			name: "more partitions",
			want: []topics.Spec{spec("t", 6)},
			have: []topics.Spec{spec("t", 3)},
			plan: []string{"t partitions: 3 → 6 (warning: keys move to other partitions: events of one key before and after the change have no order between them, and state kept per partition must be rebuilt)"},
		},
		{
			name: "fewer partitions",
			want: []topics.Spec{spec("t", 3)},
			have: []topics.Spec{spec("t", 6)},
			plan: []string{"t partitions: 6 → 3 (refused: Kafka cannot remove partitions: make a topic with fewer and copy the events, or write 6 in the file)"},
		},
		{
			name: "other replicas",
			want: []topics.Spec{with(spec("t", 3), replicas(3))},
			have: []topics.Spec{with(spec("t", 3), replicas(1))},
			plan: []string{"t replicas: 1 → 3 (refused: replicas move whole partitions between brokers: use kafka-reassign-partitions, then plan again)"},
		},
		{
			name: "unmanaged topics come last; Kafka's own are left out",
			want: []topics.Spec{spec("z", 1)},
			have: []topics.Spec{spec("b", 2), spec("a", 1), spec("__consumer_offsets", 50), spec("_schemas", 1)},
			plan: []string{"z create: 1 partition", "a unmanaged: 1 partition", "b unmanaged: 2 partitions"},
		},
		{
			name: "an internal topic that a file describes is managed",
			want: []topics.Spec{spec("_millrace.refs", 2)},
			have: []topics.Spec{spec("_millrace.refs", 1)},
			plan: []string{"_millrace.refs partitions: 1 → 2 (warning: keys move to other partitions: events of one key before and after the change have no order between them, and state kept per partition must be rebuilt)"},
		},
		{
			name: "a topic to be absent",
			want: []topics.Spec{with(spec("t", 0), absent)},
			have: []topics.Spec{spec("t", 3)},
			plan: []string{"t delete: 3 partitions → absent (warning: all its events are lost)"}, destroys: true,
		},
		{
			name: "a topic to be absent that is",
			want: []topics.Spec{with(spec("t", 0), absent)},
		},
		{
			name: "a name that is another to Kafka",
			want: []topics.Spec{spec("shop_orders", 1)},
			have: []topics.Spec{spec("shop.orders", 1)},
			plan: []string{
				"shop_orders spec: no file → a valid spec (refused: the cluster has shop.orders, which differs in . and _ alone: choose another name)",
				"shop.orders unmanaged: 1 partition",
			},
		},
		{
			name: "described twice",
			want: []topics.Spec{spec("t", 1), with(spec("t", 2), func(s *topics.Spec) { s.File, s.Line = "b.yaml", 3 })},
			have: []topics.Spec{spec("t", 1)},
			plan: []string{"t spec: b.yaml:3 → a valid spec (refused: the topic is described twice (no file, b.yaml:3): keep one)"},
		},
		{
			name: "several events under one subject",
			want: []topics.Spec{with(spec("t", 1), func(s *topics.Spec) { s.Events = []string{"a.B", "a.C"} })},
			plan: []string{"t spec: no file → a valid spec (refused: the topic carries 2 events, which cannot share the subject t-value: naming must be record or topic-record)"},
		},
		{
			name: "several events under subjects of their own",
			want: []topics.Spec{with(spec("t", 1), func(s *topics.Spec) { s.Events, s.Naming = []string{"a.B", "a.C"}, schemas.ByRecord })},
			plan: []string{"t create: 1 partition"},
		},
		{
			name: "a spec from code with a bad unit",
			want: []topics.Spec{spec("t", 1, "segment.bytes", "1 gig")},
			have: []topics.Spec{spec("t", 1)},
			plan: []string{`t spec: no file → a valid spec (refused: segment.bytes is "1 gig": not a number in its units; bytes, or a number with B, KiB, MiB, GiB, TiB is allowed)`},
		},
		{
			name: "topics in order of their names",
			want: []topics.Spec{spec("c", 1), spec("a", 1), spec("b", 1)},
			plan: []string{"a create: 1 partition", "b create: 1 partition", "c create: 1 partition"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			plan := topics.Plan(tt.want, tt.have)
			var got []string
			for _, c := range plan {
				got = append(got, c.String())
				if c.Destroys != tt.destroys {
					t.Errorf("%s: Destroys is %v", c, c.Destroys)
				}
				if acts := c.What != topics.Unmanaged && c.Refused == ""; c.Acts() != acts {
					t.Errorf("%s: Acts is %v", c, c.Acts())
				}
			}
			if !slices.Equal(got, tt.plan) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.plan, "\n\t"))
			}
		})
	}
}

func TestPlanSurvivesJSON(t *testing.T) {
	t.Parallel()
	plan := topics.Plan(
		[]topics.Spec{with(spec("a", 1, "segment.bytes", "1GiB"), func(s *topics.Spec) { s.Retention = topics.Forever }), spec("b", 2)},
		[]topics.Spec{with(spec("b", 1), func(s *topics.Spec) { s.Retention = week })})
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	var back []topics.Change
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if len(plan) != 3 || !reflect.DeepEqual(plan, back) {
		t.Errorf("got %+v\nwant %+v", back, plan)
	}
}

// A plan leads where it says: what a perfect cluster has after it needs no further change.
func TestPlanAfterApplyIsEmpty(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, have := randomSpecs(r), randomSpecs(r)
		after := carryOut(t, have, topics.Plan(want, have))
		for _, c := range topics.Plan(want, after) {
			if c.Acts() {
				t.Fatalf("seed %d: %s is left\nwant %+v\nhave %+v\nafter %+v", seed, c, want, have, after)
			}
		}
	}
}

func randomSpecs(r *rand.Rand) []topics.Spec {
	values := map[string][]string{
		"segment.bytes":             {"1GiB", "1073741824", "2MiB", "1048577"},
		"segment.ms":                {"7d", "604800000", "1h", "61s"},
		"retention.bytes":           {"unlimited", "-1", "5GiB"},
		"cleanup.policy":            {"compact", "delete,compact", "compact,delete"},
		"min.cleanable.dirty.ratio": {"0.5", "0.50", ".1"},
		"compression.type":          {"zstd", "lz4"},
		"min.insync.replicas":       {"1", "2"},
	}
	var specs []topics.Spec
	for _, name := range []string{"a", "b", "c", "d"} {
		if r.IntN(4) == 0 {
			continue
		}
		s := spec(name, r.Int32N(4)+1)
		s.Replicas = int16(r.IntN(3))
		s.Retention = []time.Duration{0, topics.Forever, week, time.Millisecond}[r.IntN(4)]
		s.Config = map[string]string{}
		for k, vs := range values {
			if r.IntN(2) == 0 {
				s.Config[k] = vs[r.IntN(len(vs))]
			}
		}
		specs = append(specs, s)
	}
	return specs
}

// carryOut is a cluster in miniature: it knows values only as Kafka keeps them.
func carryOut(t *testing.T, have []topics.Spec, plan []topics.Change) []topics.Spec {
	t.Helper()
	cluster := map[string]topics.Spec{}
	for _, h := range have {
		h.Config = maps.Clone(h.Config)
		cluster[h.Name] = h
	}
	for _, c := range plan {
		s := cluster[c.Topic]
		switch {
		case !c.Acts():
		case c.What == topics.Create:
			s = *c.Spec
			s.Config = maps.Clone(s.Config)
			s.Replicas = max(s.Replicas, 1)
		case c.What == topics.Partitions:
			n, err := strconv.Atoi(c.Want)
			if err != nil {
				t.Fatal(err)
			}
			s.Partitions = int32(n)
		default:
			if c.What == "retention.ms" {
				s.Retention = 0
			}
			if delete(s.Config, c.What); c.Want != topics.NotSet {
				s.Config[c.What] = c.Want
			}
		}
		cluster[c.Topic] = s
	}
	return slices.Collect(maps.Values(cluster))
}

func ExamplePlan() {
	want := []topics.Spec{
		{Name: "shop.orders", Owner: "orders", Partitions: 12, Retention: 7 * 24 * time.Hour},
		{Name: "shop.payments", Owner: "payments", Partitions: 6, Config: map[string]string{"segment.bytes": "1GiB"}},
	}
	have := []topics.Spec{{Name: "shop.orders", Partitions: 12, Retention: 24 * time.Hour}, {Name: "tmp", Partitions: 1}}
	for _, c := range topics.Plan(want, have) {
		fmt.Println(c)
	}
	// Output:
	// shop.orders retention.ms: 1d → 7d
	// shop.payments create: 6 partitions, segment.bytes=1GiB
	// tmp unmanaged: 1 partition
}
