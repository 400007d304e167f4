package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/replay"
)

const (
	// redirectPrefix begins the names of topics that a shadow publishes to.
	redirectPrefix = "replay."
	// redirectKept is how long those keep what was published.
	redirectKept = 24 * time.Hour
	// redirectTimeout bounds the making of one.
	redirectTimeout = 15 * time.Second
)

// redirect names the topic that a shadow publishes to in place of topic, and makes it: as many partitions, a day of
// retention.
func (r *replaying) redirect(topic string) (string, error) {
	prefix := redirectPrefix + r.ID + "."
	if strings.HasPrefix(topic, prefix) {
		return topic, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if name, ok := r.into[topic]; ok {
		return name, nil
	}
	name := prefix + topic
	if err := r.create(topic, name); err != nil {
		return "", err
	}
	r.into[topic] = name
	return name, nil
}

func makeRedirected(ctx context.Context, c kafka.Cluster, like, name string) error {
	ctx, cancel := context.WithTimeout(ctx, redirectTimeout)
	defer cancel()
	client, err := c.Client()
	if err != nil {
		return fmt.Errorf("make topic %s: %w", name, err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	partitions := int32(-1)
	if there, err := adm.ListTopics(ctx, like); err == nil && len(there[like].Partitions) > 0 {
		partitions = int32(len(there[like].Partitions))
	}
	_, err = adm.CreateTopic(ctx, partitions, -1, map[string]*string{
		"cleanup.policy": new("delete"), "retention.ms": new(fmt.Sprint(redirectKept.Milliseconds())),
	}, name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("make topic %s, where a replay in shadow publishes: %w: or publish nowhere: --replay-publish capture",
			name, c.Explain(err, "Create", "topic "+name, "cluster"))
	}
	return nil
}

// guardDefaults puts the process's default transport and client behind the guard, until restore is called. What is put there
// is a *http.Transport too, as programs assert; a clone of it, which the guard does not see, dials nobody.
func guardDefaults(g *replay.Guard) (restore func()) {
	transport, own := http.DefaultTransport, http.DefaultClient.Transport
	refuse := func(_ context.Context, _, address string) (net.Conn, error) {
		return nil, &replay.RefusedError{Method: "CONNECT", URL: address}
	}
	guarded := &http.Transport{DialContext: refuse, DialTLSContext: refuse}
	for _, scheme := range []string{"http", "https"} {
		guarded.RegisterProtocol(scheme, g.Transport(transport))
	}
	http.DefaultTransport = guarded
	if own != nil {
		http.DefaultClient.Transport = g.Transport(own)
	}
	return func() { http.DefaultTransport, http.DefaultClient.Transport = transport, own }
}

// drivers are the modules of databases and brokers that a guard does not see, and those that Millrace's sinks bring.
var (
	drivers = []string{ //nolint:gochecknoglobals // a table
		"github.com/jackc/pgx", "modernc.org/sqlite", // by our sinks
		"github.com/lib/pq", "github.com/go-sql-driver/mysql", "github.com/mattn/go-sqlite3", "github.com/glebarez/go-sqlite",
		"github.com/microsoft/go-mssqldb", "github.com/denisenkom/go-mssqldb", "github.com/sijms/go-ora", "github.com/godror/godror",
		"github.com/ClickHouse/clickhouse-go", "github.com/snowflakedb/gosnowflake", "github.com/gocql/gocql", "github.com/apache/cassandra-gocql-driver",
		"go.mongodb.org/mongo-driver", "github.com/redis/go-redis", "github.com/go-redis/redis", "github.com/gomodule/redigo", "github.com/valkey-io/valkey-go",
		"github.com/bradfitz/gomemcache", "github.com/elastic/go-elasticsearch", "github.com/opensearch-project/opensearch-go",
		"github.com/IBM/sarama", "github.com/Shopify/sarama", "github.com/confluentinc/confluent-kafka-go", "github.com/segmentio/kafka-go",
		"github.com/nats-io/nats.go", "github.com/rabbitmq/amqp091-go", "github.com/streadway/amqp", "github.com/apache/pulsar-client-go",
		"github.com/nsqio/go-nsq", "github.com/eclipse/paho.mqtt.golang",
		"github.com/aws/aws-sdk-go", "github.com/aws/aws-sdk-go-v2", "cloud.google.com/go", "github.com/Azure/azure-sdk-for-go",
		"github.com/minio/minio-go", "go.etcd.io/etcd/client", "go.etcd.io/bbolt", "github.com/dgraph-io/badger",
	}
	ownDrivers = drivers[:2] //nolint:gochecknoglobals // a table
)

// module is the path of Millrace.
const module = "github.com/millrace/millrace"

// linked is what the program is built of.
func linked() (program string, deps []string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", nil
	}
	for _, d := range info.Deps {
		deps = append(deps, d.Path)
	}
	return info.Main.Path, deps
}

// unguarded are the drivers that are linked and that nothing speaks for. Those of Millrace's sinks are spoken for by a sink
// that was registered, or by the program being Millrace itself, which links them for millrace sink.
func (r *replaying) unguarded() []string {
	program, deps := r.deps()
	var out []string
	for _, d := range deps {
		of := func(driver string) bool { return d == driver || strings.HasPrefix(d, driver+"/") }
		if slices.ContainsFunc(ownDrivers, of) && (r.sinks || program == module) {
			continue
		}
		if slices.ContainsFunc(drivers, of) {
			out = append(out, d)
		}
	}
	return out
}

// refuseUnguarded is an error where a handler may have a way out that nobody has spoken for.
func (r *replaying) refuseUnguarded() error {
	if len(r.safe) > 0 {
		return nil
	}
	found := r.unguarded()
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("the service is linked with %s, and a replay in shadow cannot guard what handlers do through it: "+
		"where that changes nothing, say so in the wire function: s.ReplaySafe(\"why\")", strings.Join(found, ", "))
}
