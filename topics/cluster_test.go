package topics_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/topics"
)

func cluster(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, kafka.Cluster) {
	t.Helper()
	fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return fake, kafka.Cluster{Seeds: fake.ListenAddrs()}
}

func mustHave(t *testing.T, c kafka.Cluster, names ...string) []topics.Spec {
	t.Helper()
	specs, err := topics.Have(t.Context(), c, names...)
	if err != nil {
		t.Fatal(err)
	}
	return specs
}

func TestApplyLeadsFromHaveToWant(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, kfake.SeedTopics(2, "other"))
	first := []topics.Spec{
		with(spec("shop.orders", 3, "segment.bytes", "1GiB"), func(s *topics.Spec) { s.Retention, s.Replicas = week, 3 }),
		with(spec("shop.payments", 1, "cleanup.policy", "compact"), func(s *topics.Spec) { s.Replicas = 2 }),
		spec("shop.old", 1),
	}
	plan := topics.Plan(first, mustHave(t, c))
	applied, err := topics.Apply(t.Context(), c, plan, false)
	if err != nil || len(applied) != 3 {
		t.Fatalf("applied %v, %v", applied, err)
	}
	have := mustHave(t, c, "shop.orders", "shop.payments", "nothing")
	want := []topics.Spec{
		{Name: "shop.orders", Partitions: 3, Replicas: 3, Retention: week, Config: map[string]string{"segment.bytes": "1073741824"}},
		{Name: "shop.payments", Partitions: 1, Replicas: 2, Config: map[string]string{"cleanup.policy": "compact"}},
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}

	second := []topics.Spec{
		with(spec("shop.orders", 6, "min.insync.replicas", "2"), func(s *topics.Spec) { s.Retention = topics.Forever }),
		spec("shop.payments", 1),
		{Name: "shop.old", Absent: true},
	}
	plan = topics.Plan(second, mustHave(t, c))
	var asked []string
	for _, ch := range plan {
		asked = append(asked, ch.Topic+" "+ch.What)
	}
	if got, want := strings.Join(asked, ", "), "shop.old delete, shop.orders partitions, shop.orders min.insync.replicas, shop.orders retention.ms, shop.orders segment.bytes, shop.payments cleanup.policy, other unmanaged"; got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	if applied, err = topics.Apply(t.Context(), c, plan, false); err != nil || len(applied) != 3 {
		t.Fatalf("without leave to destroy: applied %v, %v", applied, err)
	}
	left := topics.Plan(second, mustHave(t, c))
	for _, ch := range left {
		if ch.Acts() && !ch.Destroys {
			t.Errorf("%s is left", ch)
		}
	}
	if applied, err = topics.Apply(t.Context(), c, left, true); err != nil || len(applied) != 3 {
		t.Fatalf("with leave to destroy: applied %v, %v", applied, err)
	}
	for _, ch := range topics.Plan(second, mustHave(t, c)) {
		if ch.What != topics.Unmanaged {
			t.Errorf("%s is left", ch)
		}
	}
}

func TestHaveLeavesOutWhatTheBrokerDecides(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, kfake.SeedTopics(1, "t"), kfake.BrokerConfigs(map[string]string{"log.retention.ms": "1000", "min.insync.replicas": "2"}))
	if have := mustHave(t, c); len(have) != 1 || have[0].Retention != 0 || have[0].Config != nil {
		t.Errorf("got %+v", have)
	}
}

func TestApplyChecksWhatThePlanWasMadeAgainst(t *testing.T) {
	t.Parallel()
	plan := func(want, have topics.Spec) []topics.Change {
		return topics.Plan([]topics.Spec{want}, []topics.Spec{have})
	}
	tests := []struct {
		name string
		plan []topics.Change
		want error
	}{
		{"the topic is there already", topics.Plan([]topics.Spec{spec("t", 1)}, nil), topics.ErrChanged},
		{"the topic is gone", plan(spec("gone", 2), spec("gone", 1)), topics.ErrChanged},
		{"other partitions", plan(spec("t", 6), spec("t", 5)), topics.ErrChanged},
		{"another value", plan(spec("t", 3, "segment.bytes", "1GiB"), spec("t", 3, "segment.bytes", "1MiB")), topics.ErrChanged},
		{"a topic to delete that has grown", plan(topics.Spec{Name: "t", Absent: true}, spec("t", 2)), topics.ErrChanged},
		{"refused by the plan", plan(spec("t", 1), spec("t", 3)), topics.ErrRefused},
		{"fewer partitions by hand", []topics.Change{{Topic: "t", What: topics.Partitions, Have: "3", Want: "1"}}, topics.ErrRefused},
		{"unset by hand", []topics.Change{{Topic: "t", What: "segment.ms", Have: topics.NotSet, Want: topics.NotSet}}, topics.ErrRefused},
		{"created by hand from nothing", []topics.Change{{Topic: "u", What: topics.Create, Have: "absent"}}, nil},
		{"a bad spec by hand", []topics.Change{{Topic: "u", What: topics.Create, Have: "absent", Spec: &topics.Spec{Name: "u"}}}, topics.ErrRefused},
	}
	_, c := cluster(t, kfake.SeedTopics(3, "t"))
	before := mustHave(t, c)
	for _, tt := range tests {
		applied, err := topics.Apply(t.Context(), c, tt.plan, true)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if len(applied) != 0 {
			t.Errorf("%s: applied %v", tt.name, applied)
		}
	}
	if after := mustHave(t, c); !reflect.DeepEqual(before, after) {
		t.Errorf("the cluster changed: %+v", after)
	}
}

func TestApplyGoesOnAfterAFailureAndSaysWhatItDid(t *testing.T) {
	t.Parallel()
	fake, c := cluster(t)
	fake.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		create, ok := req.(*kmsg.CreateTopicsRequest)
		if !ok || create.Topics[0].Topic != "b" {
			return nil, nil, false
		}
		resp, ok := create.ResponseKind().(*kmsg.CreateTopicsResponse)
		if !ok {
			return nil, errors.New("no response"), true
		}
		message := "the broker's own words"
		resp.Topics = []kmsg.CreateTopicsResponseTopic{{Topic: "b", ErrorCode: kerr.InvalidConfig.Code, ErrorMessage: &message}}
		return resp, nil, true
	})
	applied, err := topics.Apply(t.Context(), c, topics.Plan([]topics.Spec{spec("a", 1), spec("b", 1), spec("c", 1)}, nil), false)
	if !errors.Is(err, kerr.InvalidConfig) || !strings.Contains(err.Error(), "topic b, create: ") || !strings.Contains(err.Error(), "the broker's own words") {
		t.Errorf("got %v", err)
	}
	var names []string
	for _, ch := range applied {
		names = append(names, ch.Topic)
	}
	if !slices.Equal(names, []string{"a", "c"}) {
		t.Errorf("applied %v", names)
	}
}

// A topic that someone else creates between the check and the request is not taken for ours.
func TestApplyLosesTheRaceToCreate(t *testing.T) {
	t.Parallel()
	fake, c := cluster(t)
	fake.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		create, ok := req.(*kmsg.CreateTopicsRequest)
		if !ok {
			return nil, nil, false
		}
		resp, ok := create.ResponseKind().(*kmsg.CreateTopicsResponse)
		if !ok {
			return nil, errors.New("no response"), true
		}
		resp.Topics = []kmsg.CreateTopicsResponseTopic{{Topic: "a", ErrorCode: kerr.TopicAlreadyExists.Code}}
		return resp, nil, true
	})
	applied, err := topics.Apply(t.Context(), c, topics.Plan([]topics.Spec{spec("a", 1)}, nil), false)
	if !errors.Is(err, topics.ErrChanged) || len(applied) != 0 {
		t.Errorf("applied %v, got %v", applied, err)
	}
}

func TestHaveOfManyTopics(t *testing.T) {
	t.Parallel()
	_, c := cluster(t)
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	createMany(t, cl, 1_200)
	have := mustHave(t, c)
	if len(have) != 1_200 {
		t.Fatalf("got %d topics", len(have))
	}
	for _, h := range have {
		if h.Retention != week {
			t.Fatalf("%s: retention is %v", h.Name, h.Retention)
		}
	}
}

func createMany(t *testing.T, cl *kgo.Client, n int) {
	t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("t%04d", i)
	}
	ms := "604800000"
	rs, err := kadm.NewClient(cl).CreateTopics(t.Context(), 1, 1, map[string]*string{"retention.ms": &ms}, names...)
	if err == nil {
		err = rs.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMissingRightsNamePrincipalOperationAndTopic(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, "t"),
		kfake.Superuser("SCRAM-SHA-256", "root", "root"), kfake.User("SCRAM-SHA-256", "nobody", "nobody"))
	root, nobody := c, c
	root.Auth = kafka.SCRAM256("root", "root")
	nobody.Auth = kafka.SCRAM256("nobody", "nobody")
	have := mustHave(t, root)

	var denied *kafka.PermissionError
	if _, err := topics.Have(t.Context(), nobody, "t"); !errors.As(err, &denied) || denied.Principal != "User:nobody" || denied.Resource != "topic t" {
		t.Errorf("have: got %v", err)
	}
	// a right to look and none to change
	applied, err := topics.Apply(t.Context(), nobody, topics.Plan([]topics.Spec{spec("t", 2)}, have), false)
	if !errors.As(err, &denied) || denied.Resource != "topic t" || len(applied) != 0 {
		t.Errorf("apply: applied %v, got %v", applied, err)
	}
	applied, err = topics.Apply(t.Context(), root, topics.Plan([]topics.Spec{spec("t", 2)}, have), false)
	if err != nil || len(applied) != 1 {
		t.Errorf("apply as root: applied %v, got %v", applied, err)
	}
}
