package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrReadOnly is returned for a request that would change a cluster opened with [Cluster.ReadOnly]. It was not sent.
var ErrReadOnly = errors.New("the cluster is opened read-only")

// refusal is ErrReadOnly with the request's name.
type refusal struct{ request string }

func (e *refusal) Error() string { return fmt.Sprintf("%s refused: %s", e.request, ErrReadOnly) }

// Is finds [ErrReadOnly], and also answers for the Kafka client's own "request key is unknown". A producer
// asks its errors for that one to tell a request that can never be sent from one to send again; without it, a
// record of a read-only client would be tried for ever. The sentinel is not exported, so its text stands for it.
func (e *refusal) Is(target error) bool {
	return target == ErrReadOnly || target.Error() == "request key is unknown"
}

// reads reports whether a request leaves the cluster as it is. It lists what is allowed, not what is refused: a
// request that a later Kafka adds is refused until someone has looked at it.
func reads(key kmsg.Key) bool {
	switch key {
	case kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate,
		kmsg.Metadata, // without topic creation: see createsNoTopic
		kmsg.DescribeCluster, kmsg.DescribeQuorum, kmsg.DescribeLogDirs, kmsg.DescribeConfigs, kmsg.ListConfigResources,
		kmsg.DescribeTopicPartitions, kmsg.ListPartitionReassignments,
		kmsg.Fetch, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch,
		kmsg.FindCoordinator, kmsg.OffsetFetch, kmsg.ListGroups, kmsg.DescribeGroups, kmsg.ConsumerGroupDescribe,
		kmsg.ShareGroupDescribe, kmsg.DescribeShareGroupOffsets, kmsg.StreamsGroupDescribe,
		kmsg.DescribeProducers, kmsg.ListTransactions, kmsg.DescribeTransactions,
		kmsg.DescribeACLs, kmsg.DescribeClientQuotas, kmsg.DescribeUserSCRAMCredentials:
		return true
	default:
		return false
	}
}

// readOnlyConn refuses requests that write. The Kafka client gives each request to Write whole; what comes in
// another shape is refused as well.
type readOnlyConn struct{ net.Conn }

// Write sends a request that reads, and refuses any other before its first byte.
func (c *readOnlyConn) Write(b []byte) (int, error) {
	if err := readsOnly(b); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// readsOnly looks at a request as it goes on the wire: length, key, version, correlation id, client id, body.
func readsOnly(b []byte) error {
	const header = 4 + 2 + 2 + 4 + 2
	if len(b) < header || int64(binary.BigEndian.Uint32(b)) != int64(len(b)-4) {
		return &refusal{"a request in pieces"}
	}
	key := kmsg.Key(binary.BigEndian.Uint16(b[4:]))
	if !reads(key) {
		return &refusal{key.Name()}
	}
	if key == kmsg.Metadata {
		return createsNoTopic(b[header:], int16(binary.BigEndian.Uint16(b[6:])), int16(binary.BigEndian.Uint16(b[12:])))
	}
	return nil
}

// createsNoTopic refuses a metadata request that lets brokers create the topics it names.
func createsNoTopic(rest []byte, version, clientID int16) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = version
	skip := max(0, int(clientID))
	if req.IsFlexible() {
		skip++ // the header's tags: the client sends none
	}
	if len(rest) < skip || req.ReadFrom(rest[skip:]) != nil || req.AllowAutoTopicCreation {
		return &refusal{"Metadata with topic creation"}
	}
	return nil
}
