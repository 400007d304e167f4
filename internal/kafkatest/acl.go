package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Grant lets user do operations ("Read", "Write", "Create"…) on resource, and returns when every broker that runs
// has heard of it. A resource is named as [kafka.PermissionError] names it: "topic shop.orders", "group shipping",
// "transactional id sink-0", "cluster"; a star at the end of a name grants whatever starts like it.
func (r *Running) Grant(ctx context.Context, user, resource string, operations ...string) error {
	client, err := r.Cluster(AdminUser).Client()
	if err != nil {
		return err
	}
	defer client.Close()
	req := kmsg.NewPtrCreateACLsRequest()
	for _, op := range operations {
		acl, err := creation(user, resource, op)
		if err != nil {
			return err
		}
		req.Creations = append(req.Creations, acl)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("grant %s on %s to %s: %w", strings.Join(operations, ", "), resource, user, err)
	}
	for _, result := range resp.Results {
		if err := kerr.ErrorForCode(result.ErrorCode); err != nil {
			return fmt.Errorf("grant %s on %s to %s: %w", strings.Join(operations, ", "), resource, user, err)
		}
	}
	for _, acl := range req.Creations {
		if err := r.heard(ctx, client, acl); err != nil {
			return err
		}
	}
	return nil
}

func creation(user, resource, operation string) (kmsg.CreateACLsRequestCreation, error) {
	acl := kmsg.NewCreateACLsRequestCreation()
	acl.Principal, acl.Host, acl.PermissionType = "User:"+user, "*", kmsg.ACLPermissionTypeAllow
	acl.ResourcePatternType = kmsg.ACLResourcePatternTypeLiteral
	for kind, t := range map[string]kmsg.ACLResourceType{
		"topic ": kmsg.ACLResourceTypeTopic, "group ": kmsg.ACLResourceTypeGroup, "transactional id ": kmsg.ACLResourceTypeTransactionalId,
	} {
		if name, ok := strings.CutPrefix(resource, kind); ok {
			acl.ResourceType, acl.ResourceName = t, name
		}
	}
	if resource == "cluster" {
		acl.ResourceType, acl.ResourceName = kmsg.ACLResourceTypeCluster, "kafka-cluster"
	}
	if acl.ResourceName == "" {
		return acl, fmt.Errorf("grant: %q is no resource: say topic NAME, group NAME, transactional id NAME or cluster", resource)
	}
	if name, ok := strings.CutSuffix(acl.ResourceName, "*"); ok && name != "" {
		acl.ResourceName, acl.ResourcePatternType = name, kmsg.ACLResourcePatternTypePrefixed
	}
	op, err := kmsg.ParseACLOperation(operation)
	if err != nil {
		return acl, fmt.Errorf("grant: %q is no operation: %w", operation, err)
	}
	acl.Operation = op
	return acl, nil
}

// heard waits until each running broker's authorizer has acl: they learn of it from the controller, one by one.
func (r *Running) heard(ctx context.Context, client *kgo.Client, acl kmsg.CreateACLsRequestCreation) error {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourceName, req.ResourcePatternType = acl.ResourceType, &acl.ResourceName, acl.ResourcePatternType
	req.Principal, req.Host, req.Operation, req.PermissionType = &acl.Principal, &acl.Host, acl.Operation, acl.PermissionType
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, n := range r.nodes {
		for {
			if p := n.running(); p == nil || p.ended() {
				break
			}
			resp, err := client.Broker(n.ID).RetriableRequest(ctx, req)
			if err != nil {
				return fmt.Errorf("ask broker %d for its ACLs: %w", n.ID, err)
			}
			described, ok := resp.(*kmsg.DescribeACLsResponse)
			if !ok {
				return errors.New("ask for ACLs: another answer")
			}
			if len(described.Resources) > 0 {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("wait for broker %d to hear of an ACL: %w", n.ID, context.Cause(ctx))
			}
		}
	}
	return nil
}
