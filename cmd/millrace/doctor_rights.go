package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/kafka"
)

// operation is a right, as kafka-acls.sh names it, and what millrace and its services do with it.
type operation struct {
	op         kadm.ACLOperation
	name, does string
}

// The rights that a login may lack. Describe on topics and groups is not among them: without it they are not seen.
var (
	clusterOperations = []operation{
		{kadm.OpDescribe, "Describe", "see the disks and the groups of others"},
		{kadm.OpDescribeConfigs, "DescribeConfigs", "see the brokers' settings"},
		{kadm.OpCreate, "Create", "make topics of any name"},
	}
	topicOperations = []operation{
		{kadm.OpRead, "Read", "read"},
		{kadm.OpWrite, "Write", "publish to"},
		{kadm.OpDescribeConfigs, "DescribeConfigs", "see the settings of"},
		{kadm.OpAlterConfigs, "AlterConfigs", "change the settings of"},
		{kadm.OpAlter, "Alter", "add partitions to"},
		{kadm.OpDelete, "Delete", "delete"},
	}
	groupOperations = []operation{
		{kadm.OpRead, "Read", "join, move"},
		{kadm.OpDelete, "Delete", "delete"},
	}
)

// lookAtClusterRights asks what the login may do to the cluster. Without Describe the cluster does not tell.
func (k *checkup) lookAtClusterRights(ctx context.Context) {
	client, err := k.cluster.Client()
	if err != nil {
		return // the same cluster answered a moment ago
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeClusterAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil { // before Kafka 2.8 the description of the cluster said it
		k.clusterMay = k.meta.AuthorizedOperations
		k.clusterTold = len(k.clusterMay) > 0
		return
	}
	k.clusterMay, k.clusterTold = kadm.DecodeACLOperations(resp.ClusterAuthorizedOperations), true
}

// lookAtGroupRights asks what the login may do to the groups that it sees. What is not told is not judged.
func (k *checkup) lookAtGroupRights(ctx context.Context, adm *kadm.Client) {
	k.groupMay = map[string][]kadm.ACLOperation{}
	var classic, consumer []string
	for _, g := range k.groups {
		if strings.EqualFold(g.Type, "consumer") {
			consumer = append(consumer, g.ID)
		} else {
			classic = append(classic, g.ID)
		}
	}
	if len(classic) > 0 {
		all, _ := adm.DescribeGroups(ctx, classic...)
		for id, g := range all {
			if g.Err == nil && len(g.AuthorizedOperations) > 0 {
				k.groupMay[id] = g.AuthorizedOperations
			}
		}
	}
	if len(consumer) > 0 {
		all, _ := adm.DescribeConsumerGroups(ctx, consumer...)
		for id, g := range all {
			if g.Err == nil && len(g.AuthorizedOperations) > 0 {
				k.groupMay[id] = g.AuthorizedOperations
			}
		}
	}
}

// judgeRights says what the login may do, and what it may not, as far as the cluster tells. What it must not see it is
// not told of. To lack a right is no fault: a service has those that it needs.
func (k *checkup) judgeRights() []finding {
	var seen, read, write, alter int
	for _, name := range k.own() {
		seen++
		ops := k.meta.Topics[name].AuthorizedOperations
		for op, n := range map[kadm.ACLOperation]*int{kadm.OpRead: &read, kadm.OpWrite: &write, kadm.OpAlter: &alter} {
			if slices.Contains(ops, op) {
				*n++
			}
		}
	}
	who, anybody := "without a login", false
	switch {
	case !k.cluster.Auth.IsZero():
		who = k.cluster.Auth.String()
	case k.cluster.TLS != nil && len(k.cluster.TLS.Certificates) > 0:
		who = "by certificate"
	default:
		anybody = !k.onThisMachine()
	}
	if k.cluster.TLS != nil {
		who += ", over TLS"
	}
	switch {
	case seen == 0 && !k.cluster.Auth.IsZero():
		return []finding{warn("permissions", "ask who runs the cluster for rights on your topics and groups", "%s: the login sees no topic; if there are some, it has no right on any", who)}
	case seen == 0:
		return []finding{fine("permissions", "%s", who)}
	case anybody && alter == seen:
		return []finding{warn("permissions", "switch on SASL or mutual TLS, and an authorizer", "%s: whoever reaches the brokers may write, change and delete every topic", who)}
	}
	out := []finding{fine("permissions", "%s: of %s that it sees, it may read %d, write %d, and change %d", who, plural(int64(seen), "topic"), read, write, alter)}
	return append(out, k.judgeMissingRights()...)
}

// judgeMissingRights names what the login may not do, each with the right to grant.
func (k *checkup) judgeMissingRights() []finding {
	var out []finding
	if missing := lacking(clusterOperations, k.clusterMay); k.clusterTold && len(missing) > 0 {
		says := "on the cluster it may not " + doing(missing)
		if missing[0].op == kadm.OpDescribe { // nothing else is told without
			missing = missing[:1]
			says = "on the cluster it may not " + doing(missing) + "; what else it may there it is not told"
		}
		out = append(out, k.missingRight(says, missing, "--cluster"))
	}
	topicMay := map[string][]kadm.ACLOperation{}
	for _, name := range k.own() {
		if ops := k.meta.Topics[name].AuthorizedOperations; len(ops) > 0 { // an old broker does not tell
			topicMay[name] = ops
		}
	}
	out = append(out, k.missingRights("topic", topicOperations, topicMay)...)
	return append(out, k.missingRights("group", groupOperations, k.groupMay)...)
}

// missingRights makes a line of all that lack the same rights: the largest few.
func (k *checkup) missingRights(kind string, all []operation, may map[string][]kadm.ACLOperation) []finding {
	const most = 3
	type alike struct {
		missing []operation
		names   []string
	}
	sets := map[string]*alike{}
	for name, ops := range may {
		missing := lacking(all, ops)
		if len(missing) == 0 {
			continue
		}
		key := flags(missing)
		if sets[key] == nil {
			sets[key] = &alike{missing: missing}
		}
		sets[key].names = append(sets[key].names, name)
	}
	var lines []*alike
	for _, s := range sets {
		slices.Sort(s.names)
		lines = append(lines, s)
	}
	slices.SortFunc(lines, func(a, b *alike) int {
		return cmp.Or(cmp.Compare(len(b.names), len(a.names)), cmp.Compare(a.names[0], b.names[0]))
	})
	var out []finding
	for i, s := range lines {
		if i == most {
			break
		}
		resource := "--" + kind + " " + strings.Join(s.names[:min(most, len(s.names))], " --"+kind+" ")
		if len(s.names) > most {
			resource += " and so on"
		}
		says := fmt.Sprintf("it may not %s %s: %s", doing(s.missing), plural(int64(len(s.names)), kind), some(s.names))
		out = append(out, k.missingRight(says, s.missing, resource))
	}
	if more := len(lines) - most; more > 0 {
		out[most-1].Says += fmt.Sprintf("; other rights are missing on further %ss", kind)
	}
	return out
}

func (k *checkup) missingRight(says string, missing []operation, resource string) finding {
	f := fine("permissions", "%s", says)
	f.Do = fmt.Sprintf("if it should:  kafka-acls.sh --add --allow-principal %s%s %s", k.principal(), flags(missing), resource)
	return f
}

// principal is how ACLs name the login.
func (k *checkup) principal() string {
	denied, ok := errors.AsType[*kafka.PermissionError](k.cluster.Explain(kerr.ClusterAuthorizationFailed, "Describe", "cluster"))
	if !ok {
		return "User:NAME"
	}
	return denied.Principal
}

// lacking are those of all that are not among ops.
func lacking(all []operation, ops []kadm.ACLOperation) []operation {
	return slices.DeleteFunc(slices.Clone(all), func(o operation) bool { return slices.Contains(ops, o.op) })
}

// doing is what the operations do, as a list: read, publish to or delete.
func doing(ops []operation) string {
	var words []string
	for _, o := range ops {
		words = append(words, strings.Split(o.does, ", ")...)
	}
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// flags names the operations for kafka-acls.sh.
func flags(ops []operation) string {
	var b strings.Builder
	for _, o := range ops {
		b.WriteString(" --operation " + o.name)
	}
	return b.String()
}

func (k *checkup) onThisMachine() bool {
	for _, seed := range k.cluster.Seeds {
		host, _, _ := net.SplitHostPort(seed)
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}
