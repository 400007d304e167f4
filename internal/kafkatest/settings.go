package kafkatest

import (
	"fmt"
	"strings"
)

// Setting is one line of a broker's configuration.
type Setting struct{ Name, Value string }

// Durable are the settings that a cluster of three needs to keep what it acknowledged: every record on two of three
// brokers before its producer hears of it, no leader that missed records, no topic that nobody declared. This is
// the one table of them: the clusters of this package are made from it, and docker-compose.yml is compared with it.
func Durable() []Setting {
	return []Setting{
		{"default.replication.factor", "3"},
		{"min.insync.replicas", "2"},
		{"offsets.topic.replication.factor", "3"},
		{"transaction.state.log.replication.factor", "3"},
		{"transaction.state.log.min.isr", "2"},
		{"share.coordinator.state.topic.replication.factor", "3"},
		{"share.coordinator.state.topic.min.isr", "2"},
		{"unclean.leader.election.enable", "false"},
		{"auto.create.topics.enable", "false"},
	}
}

// single are the durable settings of a cluster of one: every replica is the only one.
func single() []Setting {
	out := Durable()
	for i, s := range out {
		if s.Value == "3" || s.Value == "2" {
			out[i].Value = "1"
		}
	}
	return out
}

// quick are settings that make tests fast and failures soon seen. A production cluster keeps Kafka's own.
func quick() []Setting {
	return []Setting{
		{"group.initial.rebalance.delay.ms", "0"},
		{"group.min.session.timeout.ms", "1000"},
		// A session timeout below its minimum (45 s) is refused at format already: both are set.
		{"group.consumer.min.session.timeout.ms", "6000"},
		{"group.consumer.session.timeout.ms", "10000"},
		{"group.consumer.min.heartbeat.interval.ms", "1000"},
		{"group.consumer.heartbeat.interval.ms", "1000"},
		{"offsets.topic.num.partitions", "8"},
		{"transaction.state.log.num.partitions", "8"},
		{"num.network.threads", "2"},
		{"num.io.threads", "4"},
		{"log.cleaner.dedupe.buffer.size", "16777216"},
		{"log.cleaner.backoff.ms", "200"},
	}
}

// properties is a broker's server.properties.
func (r *Running) properties(n *Node) string {
	settings := []Setting{
		{"process.roles", "broker,controller"},
		{"node.id", fmt.Sprint(n.ID)},
		{"log.dirs", n.data()},
		{"controller.quorum.voters", r.voters()},
		{"listeners", fmt.Sprintf("CLIENT://%s,CONTROLLER://%s", n.Address, n.controller)},
		{"advertised.listeners", "CLIENT://" + n.Address},
		{"inter.broker.listener.name", "CLIENT"},
		{"controller.listener.names", "CONTROLLER"},
	}
	if r.cfg.Secured {
		settings = append(settings, r.security(n)...)
	} else {
		settings = append(settings, Setting{"listener.security.protocol.map", "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT"})
	}
	if len(r.nodes) == 1 {
		settings = append(settings, single()...)
	} else {
		settings = append(settings, Durable()...)
	}
	settings = append(settings, quick()...)
	settings = append(settings, r.cfg.Settings...) // the last of a name counts
	var b strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&b, "%s=%s\n", s.Name, s.Value)
	}
	return b.String()
}

func (r *Running) voters() string {
	var voters []string
	for _, n := range r.nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", n.ID, n.controller))
	}
	return strings.Join(voters, ",")
}

// security is TLS and SCRAM between everybody, and an authorizer that denies by default. The controllers log in to
// each other with PLAIN over TLS, because SCRAM's credentials live in the log that they are about to form.
func (r *Running) security(n *Node) []Setting {
	const (
		scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
		plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
	)
	password := r.state.Passwords[brokerUser]
	return []Setting{
		{"listener.security.protocol.map", "CLIENT:SASL_SSL,CONTROLLER:SASL_SSL"},
		{"sasl.enabled.mechanisms", "SCRAM-SHA-512"},
		{"sasl.mechanism.inter.broker.protocol", "SCRAM-SHA-512"},
		{"sasl.mechanism.controller.protocol", "PLAIN"},
		{"listener.name.client.scram-sha-512.sasl.jaas.config", fmt.Sprintf(`%s required username="%s" password="%s";`, scram, brokerUser, password)},
		{"listener.name.controller.sasl.enabled.mechanisms", "PLAIN"},
		{"listener.name.controller.plain.sasl.jaas.config", fmt.Sprintf(`%s required username="%s" password="%s" user_%s="%s";`, plain, brokerUser, password, brokerUser, password)},
		{"ssl.keystore.type", "PEM"},
		{"ssl.keystore.location", n.keystore()},
		{"ssl.truststore.type", "PEM"},
		{"ssl.truststore.location", r.CA()},
		{"authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"},
		{"super.users", "User:" + brokerUser + ";User:" + AdminUser},
		{"allow.everyone.if.no.acl.found", "false"},
	}
}
