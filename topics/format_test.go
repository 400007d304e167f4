package topics_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

// reread loads what Format wrote.
func reread(t *testing.T, s topics.Spec) topics.Spec {
	t.Helper()
	text, _ := topics.Format(s)
	specs, err := topics.Load(fstest.MapFS{"t.yaml": {Data: text}})
	if err != nil || len(specs) != 1 {
		t.Fatalf("%v\n%s", err, text)
	}
	got := specs[0]
	got.File, got.Line = "", 0
	return got
}

func TestFormatIsReadBackAsTheSame(t *testing.T) {
	t.Parallel()
	for _, s := range []topics.Spec{
		{Name: "a", Owner: "o", Partitions: 1},
		{
			Name: "shop.orders", Owner: "team: orders", Description: "Two lines,\n  and # no comment", Key: "'the order''s id'", Partitions: 12, Replicas: 3,
			Retention: 7 * 24 * time.Hour, Config: map[string]string{"segment.bytes": "1GiB", "min.insync.replicas": "2", "cleanup.policy": "compact,delete", "preallocate": "true", "max.message.bytes": "1000001", "flush.ms": "1500", "min.cleanable.dirty.ratio": "0.25"},
			Events: []string{"shop.OrderPlaced", "shop.OrderCancelled"}, Naming: schemas.ByTopicRecord,
		},
		{Name: "1e3", Owner: "null", Description: "yes", Key: "~", Partitions: 1, Retention: topics.Forever, Naming: schemas.ByRecord, Events: []string{"a.B"}},
		{Name: "true", Owner: "0x10", Partitions: 10_000, Retention: 1500 * time.Millisecond, Config: map[string]string{"retention.bytes": "unlimited", "redpanda.remote.read": "true"}},
		{Name: "gone", Absent: true},
	} {
		if got := reread(t, s); !reflect.DeepEqual(got, s) {
			text, _ := topics.Format(s)
			t.Errorf("got\n%+v\nwant\n%+v\nin\n%s", got, s, text)
		}
		doc, err := json.Marshal(s) // as a plan carries it
		var got topics.Spec
		if err == nil {
			err = json.Unmarshal(doc, &got)
		}
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%v: got\n%+v\nwant\n%+v\nin\n%s", err, got, s, doc)
		}
	}
}

func TestASpecOfAnotherPlanIsRefused(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{`{"retention":"7x"}`, `{"retention":"0"}`, `{"naming":"x"}`, `{"partitions":"3"}`, `[]`} {
		if err := json.Unmarshal([]byte(doc), &topics.Spec{}); err == nil {
			t.Errorf("%s is taken", doc)
		}
	}
}

// What a cluster has, written to a file and read again, plans no change.
func TestFormatOfAClustersTopicPlansNothing(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := kafka.Cluster{Seeds: fake.ListenAddrs()}
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	adm := kadm.NewClient(cl)
	for name, config := range map[string]map[string]string{
		"plain": nil,
		"kept":  {"retention.ms": "604800000", "segment.bytes": "1073741824", "max.message.bytes": "1000001"},
		"ever":  {"retention.ms": "-1", "cleanup.policy": "compact"},
	} {
		values := map[string]*string{}
		for k, v := range config {
			values[k] = &v
		}
		if _, err := adm.CreateTopic(t.Context(), 3, 1, values, name); err != nil {
			t.Fatal(err)
		}
	}
	have, err := topics.Have(t.Context(), c)
	if err != nil || len(have) != 3 {
		t.Fatal(have, err)
	}
	var want []topics.Spec
	for _, s := range have {
		s.Owner = "unknown"
		want = append(want, reread(t, s))
	}
	if plan := topics.Plan(want, have); len(plan) > 0 {
		t.Errorf("got %v", plan)
	}
}

func TestFormatSaysWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	s := topics.Spec{Name: "a", Owner: "o", Partitions: 1, Config: map[string]string{
		"of.the.future": "x\ny", "leader.replication.throttled.replicas": "0:1", "retention.ms": "0", "max.message.bytes": "-7",
	}}
	text, left := topics.Format(s)
	if want := []string{"leader.replication.throttled.replicas", "max.message.bytes", "of.the.future"}; !reflect.DeepEqual(left, want) {
		t.Errorf("left out %v, want %v", left, want)
	}
	for _, line := range []string{`# left out: "of.the.future" is "x\ny"`, "retention.ms:"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	if got := reread(t, s); len(got.Config) != 1 {
		t.Errorf("got %v", got.Config)
	}
}

func FuzzFormat(f *testing.F) {
	f.Add("shop.orders", "team", "what it is", "the id", "1GiB", int32(3), int64(7))
	f.Add("a", "- x", "a: b", "\"", "", int32(1), int64(-1))
	f.Add("a", "x\x00", "\u2028", "\ufeff#", " ", int32(1), int64(0))
	f.Fuzz(func(t *testing.T, name, owner, description, key, segment string, partitions int32, hours int64) {
		s := topics.Spec{
			Name: name, Owner: owner, Description: strings.TrimSpace(description), Key: key, Partitions: partitions,
			Retention: time.Duration(hours%10_000) * time.Hour, Config: map[string]string{"segment.bytes": segment},
		}
		for _, c := range topics.Plan([]topics.Spec{s}, nil) {
			if c.Refused != "" {
				return // no valid topic
			}
		}
		text, _ := topics.Format(s)
		specs, err := topics.Load(fstest.MapFS{"t.yaml": {Data: text}})
		if err != nil {
			if owner == "" || strings.ContainsFunc(owner+description+key, unwritable) {
				return
			}
			t.Fatalf("%v\n%s", err, text)
		}
		if changes := topics.Plan(specs, []topics.Spec{s}); len(changes) > 0 {
			t.Errorf("%v\n%s", changes, text)
		}
		if got := specs[0]; got.Owner != owner || got.Description != s.Description || got.Key != key {
			t.Errorf("got %q %q %q, want %q %q %q\n%s", got.Owner, got.Description, got.Key, owner, s.Description, key, text)
		}
	})
}

// unwritable are what YAML has no way to write as text: bytes that are no UTF-8.
func unwritable(r rune) bool { return r == '\uFFFD' }
