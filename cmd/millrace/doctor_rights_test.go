package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/kafka"
)

// What a login may not do is named with the right to grant, by what lacks the same rights.
func TestDoctorNamesTheRightsThatAreMissing(t *testing.T) {
	t.Parallel()
	every := []kadm.ACLOperation{kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpDescribeConfigs, kadm.OpAlterConfigs, kadm.OpAlter, kadm.OpDelete, kadm.OpCreate}
	without := func(ops ...kadm.ACLOperation) []kadm.ACLOperation {
		return slices.DeleteFunc(slices.Clone(every), func(o kadm.ACLOperation) bool { return slices.Contains(ops, o) })
	}
	tests := []struct {
		name           string
		cluster        []kadm.ACLOperation
		told           bool
		topics, groups map[string][]kadm.ACLOperation
		want           []string
	}{
		{"nothing is missing", every, true, map[string][]kadm.ACLOperation{"a": every}, map[string][]kadm.ACLOperation{"g": every}, nil},
		{"nothing is told", nil, false, map[string][]kadm.ACLOperation{"a": nil}, nil, nil},
		{
			"the cluster does not say", nil, true, nil, nil,
			[]string{"on the cluster it may not see the disks and the groups of others; what else it may there it is not told → if it should:  kafka-acls.sh --add --allow-principal User:orders --operation Describe --cluster"},
		},
		{
			"the cluster", without(kadm.OpCreate, kadm.OpDescribeConfigs), true, nil, nil,
			[]string{"on the cluster it may not see the brokers' settings or make topics of any name → if it should:  kafka-acls.sh --add --allow-principal User:orders --operation DescribeConfigs --operation Create --cluster"},
		},
		{
			"a topic", every, true,
			map[string][]kadm.ACLOperation{"a": without(kadm.OpWrite), "b": every},
			nil,
			[]string{"it may not publish to 1 topic: a → if it should:  kafka-acls.sh --add --allow-principal User:orders --operation Write --topic a"},
		},
		{
			"many topics", every, true,
			map[string][]kadm.ACLOperation{"a": without(kadm.OpRead), "b": without(kadm.OpRead), "c": without(kadm.OpRead), "d": without(kadm.OpRead), "e": without(kadm.OpRead), "f": without(kadm.OpDelete)},
			nil,
			[]string{
				"it may not read 5 topics: a, b, c and 2 more → if it should:  kafka-acls.sh --add --allow-principal User:orders --operation Read --topic a --topic b --topic c and so on",
				"it may not delete 1 topic: f → if it should:  kafka-acls.sh --add --allow-principal User:orders --operation Delete --topic f",
			},
		},
		{
			"groups", every, true, nil,
			map[string][]kadm.ACLOperation{"shipping": {kadm.OpDescribe}},
			[]string{"it may not join, move or delete 1 group: shipping → if it should:  kafka-acls.sh --add --allow-principal User:orders --operation Read --operation Delete --group shipping"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := healthy()
			k.clusterMay, k.clusterTold, k.groupMay, k.meta.Topics = tt.cluster, tt.told, tt.groups, kadm.TopicDetails{}
			for name, ops := range tt.topics {
				k.meta.Topics[name] = kadm.TopicDetail{Topic: name, AuthorizedOperations: ops}
			}
			var got []string
			for _, f := range k.judgeMissingRights() {
				if f.State != stateOK || f.Check != "permissions" {
					t.Errorf("to lack a right is no fault: %+v", f)
				}
				got = append(got, f.Says+" → "+f.Do)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// A thousand topics with as many sets of rights do not fill the screen.
func TestDoctorNamesAFewOfManyRights(t *testing.T) {
	t.Parallel()
	k := healthy()
	may := map[string][]kadm.ACLOperation{}
	for i, ops := range [][]kadm.ACLOperation{{kadm.OpRead}, {kadm.OpWrite}, {kadm.OpAlter}, {kadm.OpDelete}, {kadm.OpRead, kadm.OpWrite}} {
		may[fmt.Sprintf("t%d", i)] = ops
	}
	got := k.missingRights("topic", topicOperations, may)
	if len(got) != 3 || !strings.HasSuffix(got[2].Says, "; other rights are missing on further topics") {
		t.Errorf("got %+v", got)
	}
}

// A login with some rights is told of the others, of cluster, topics and groups, by what the broker itself says.
func TestDoctorWithSomeRights(t *testing.T) {
	t.Parallel()
	allow := func(on kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: on, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, "orders", "secrets"),
		kfake.Superuser("SCRAM-SHA-512", "admin", "secret"), kfake.User("SCRAM-SHA-512", "shipping", "secret",
			allow(kmsg.ACLResourceTypeTopic, "orders", kmsg.ACLOperationRead), allow(kmsg.ACLResourceTypeTopic, "orders", kmsg.ACLOperationDescribeConfigs),
			allow(kmsg.ACLResourceTypeGroup, "shipping", kmsg.ACLOperationDescribe), allow(kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationDescribe)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	w := &world{dir: t.TempDir(), env: map[string]string{
		"MILLRACE_BROKERS": fake.ListenAddrs()[0], "MILLRACE_SASL_USER": "admin", "MILLRACE_SASL_PASSWORD": "secret", "MILLRACE_REGISTRY": newRegistry(t),
	}}
	client, err := kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.SCRAM512("admin", "secret")}.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var start kadm.Offsets
	start.AddOffset("orders", 0, 0, -1)
	if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), "shipping", start); err != nil {
		t.Fatal(err)
	}
	r := w.want(t, codeDone, "doctor")
	if strings.Contains(r.out, "may not") {
		t.Errorf("an admin may do everything:\n%s", r.out)
	}
	w.env["MILLRACE_SASL_USER"] = "shipping"
	r = w.want(t, codeDone, "doctor")
	const grant = "→ if it should:  kafka-acls.sh --add --allow-principal User:shipping "
	has(t, "stdout", r.out, "ok    permissions   SCRAM-SHA-512 as shipping: of 1 topic that it sees, it may read 1, write 0, and change 0",
		"ok    permissions   on the cluster it may not see the brokers' settings or make topics of any name", grant+"--operation DescribeConfigs --operation Create --cluster",
		"ok    permissions   it may not publish to, change the settings of, add partitions to or delete 1 topic: orders",
		grant+"--operation Write --operation AlterConfigs --operation Alter --operation Delete --topic orders",
		"ok    permissions   it may not join, move or delete 1 group: shipping", grant+"--operation Read --operation Delete --group shipping")
	if strings.Contains(r.out, "secrets") {
		t.Errorf("what it must not see is told:\n%s", r.out)
	}
}
