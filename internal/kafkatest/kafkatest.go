// Package kafkatest gives tests, benchmarks and people a real Apache Kafka: started from Maven's jars on free
// loopback ports, without Docker, and gone with the process that started it.
//
//	c := kafkatest.Plain(t)               // one broker, shared by the tests of a package
//	topic := kafkatest.Topic(t, c, 3)     // a topic of its own, deleted after the test
//
//	secured := kafkatest.Secured(t)       // three brokers with TLS, SCRAM and ACLs, for this test alone
//	secured.Grant("orders", "topic "+topic, "Write")
//	secured.Kill(secured.Leader(topic, 0))
//
// Beneath both is [Start], which knows nothing of tests; the command in the folder kafka uses it for people.
//
// A test that needs a real Kafka and finds no Java is skipped with a notice; with CI=true it fails, because a tier
// that did not run proves nothing. It needs a Unix: brokers are ended by signals.
//
// # The environment
//
//   - MILLRACE_TEST_BROKERS: brokers (host:port, with commas) that [Plain] uses instead of starting one.
//   - MILLRACE_TIERS: a file to which each test process appends what it ran against.
//   - CI: "true" makes what cannot run a failure.
package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/kafka"
)

// adminTimeout bounds one thing asked of a cluster under test.
const adminTimeout = 30 * time.Second

// shared is the one plain broker of a test process: it is booted by the first test that asks, and ends with the process.
var shared struct {
	once    sync.Once
	cluster kafka.Cluster
	running *Running
	err     error
}

// Plain is a cluster without logins whose topics have one replica: one broker, shared by all tests of the process.
// Tests keep apart by the names of [Topic] and [Name].
func Plain(tb testing.TB) kafka.Cluster {
	tb.Helper()
	shared.once.Do(func() {
		if brokers := os.Getenv("MILLRACE_TEST_BROKERS"); brokers != "" {
			shared.cluster = kafka.Cluster{Seeds: strings.Split(brokers, ","), ClientID: "kafkatest"}
			if shared.err = shared.cluster.Ping(context.Background()); shared.err == nil {
				note("brokers at "+brokers, "ran", "MILLRACE_TEST_BROKERS")
			}
			return
		}
		shared.running, shared.err = Start(context.Background(), Config{})
		if shared.err == nil {
			shared.cluster = shared.running.Cluster("")
			note("Apache Kafka "+shared.running.Version, "ran", "one broker")
		}
	})
	require(tb, shared.err)
	if shared.running != nil {
		keepLogs(tb, shared.running)
	}
	return shared.cluster
}

// Java is the class path of Apache Kafka's own clients, for a Java program of a test that needs them and no cluster.
func Java(tb testing.TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Minute) // the first time, Maven fetches them
	defer cancel()
	classpath, err := Classpath(ctx, Version)
	require(tb, err)
	return classpath
}

// Cluster is a cluster that belongs to one test. What goes wrong with it fails the test.
type Cluster struct {
	*Running
	tb testing.TB
}

// Secured is a cluster of three brokers for this test alone, ended with it: three replicas of which two must
// have a record, TLS, SCRAM-SHA-512, and an authorizer that denies by default. Its users are [AdminUser], which may
// do everything, and orders, shipping and nobody, which may do nothing until [Cluster.Grant].
func Secured(tb testing.TB) *Cluster {
	tb.Helper()
	return Boot(tb, Config{Secured: true})
}

// Boot is a cluster of its own for this test, as cfg says, ended with it.
func Boot(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	if cfg.Progress == nil {
		cfg.Progress = tb.Output()
	}
	r, err := Start(tb.Context(), cfg)
	require(tb, err)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("data and logs of the brokers, kept for a day: %s", r.Dir)
			mark(r)
		}
		if err := r.Close(); err != nil {
			tb.Errorf("end the brokers: %v", err)
		}
	})
	kind := "one broker"
	if cfg.Secured {
		kind = "three brokers, SASL_SSL, ACLs"
	}
	note("Apache Kafka "+r.Version+", "+kind, "ran", kind)
	return &Cluster{r, tb}
}

// Kill ends a broker as a power cut would, and returns when it is gone.
func (c *Cluster) Kill(node int) { c.tb.Helper(); c.must(c.Node(node).Kill()) }

// Stop ends a broker in order.
func (c *Cluster) Stop(node int) { c.tb.Helper(); c.must(c.Node(node).Stop()) }

// Pause freezes a broker: its connections stay open and nothing answers.
func (c *Cluster) Pause(node int) { c.tb.Helper(); c.must(c.Node(node).Pause()) }

// Resume ends Pause.
func (c *Cluster) Resume(node int) { c.tb.Helper(); c.must(c.Node(node).Resume()) }

// Start starts a broker that was killed or stopped, and returns when it serves.
func (c *Cluster) Start(node int) {
	c.tb.Helper()
	c.must(c.Node(node).Start())
	ctx, cancel := context.WithTimeout(c.tb.Context(), 90*time.Second)
	defer cancel()
	c.must(c.Wait(ctx))
}

// Grant lets user do operations on resource: see [Running.Grant].
func (c *Cluster) Grant(user, resource string, operations ...string) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), adminTimeout)
	defer cancel()
	c.must(c.Running.Grant(ctx, user, resource, operations...))
}

// Leader is the broker that leads the partition now. It waits for one where there is none.
func (c *Cluster) Leader(topic string, partition int32) int {
	c.tb.Helper()
	var leader int32
	c.must(withAdmin(c.tb, c.Cluster(AdminUser), func(ctx context.Context, admin *kadm.Client) error {
		return eventually(ctx, func() error {
			topics, err := admin.ListTopics(ctx, topic)
			if err != nil {
				return err
			}
			p, ok := topics[topic].Partitions[partition]
			if !ok || p.Err != nil || p.Leader < 0 {
				return fmt.Errorf("partition %d of %s has no leader", partition, topic)
			}
			leader = p.Leader
			return nil
		})
	}))
	return int(leader)
}

func (c *Cluster) must(err error) {
	c.tb.Helper()
	if err != nil {
		c.tb.Fatal(err)
	}
}

// Topic makes a topic with a name of its own and the cluster's number of replicas, and deletes it after the test.
// Each config is "name=value". On a secured cluster c must be an administrator's.
func Topic(tb testing.TB, c kafka.Cluster, partitions int32, configs ...string) string {
	tb.Helper()
	name := Name(tb)
	values := map[string]*string{}
	for _, config := range configs {
		key, value, ok := strings.Cut(config, "=")
		if !ok {
			tb.Fatalf("topic config %q is not name=value", config)
		}
		values[key] = &value
	}
	err := withAdmin(tb, c, func(ctx context.Context, admin *kadm.Client) error {
		if _, err := admin.CreateTopic(ctx, partitions, -1, values, name); err != nil {
			return err
		}
		return eventually(ctx, func() error { // brokers hear of it one by one
			topics, err := admin.ListTopics(ctx, name)
			if err != nil {
				return err
			}
			for _, p := range topics[name].Partitions {
				if p.Err != nil || p.Leader < 0 {
					return fmt.Errorf("partition %d has no leader", p.Partition)
				}
			}
			if n := len(topics[name].Partitions); n != int(partitions) {
				return fmt.Errorf("%d of %d partitions", n, partitions)
			}
			return nil
		})
	})
	if err != nil {
		tb.Fatalf("make topic %s: %v", name, err)
	}
	tb.Cleanup(func() {
		err := withAdmin(tb, c, func(ctx context.Context, admin *kadm.Client) error {
			_, err := admin.DeleteTopic(ctx, name)
			return err
		})
		if err != nil {
			tb.Logf("delete topic %s: %v", name, err)
		}
	})
	return name
}

// Name is a name for a topic or group that no other test has: the test's own, with eight random digits. It has at
// most 80 of the characters that Kafka allows.
func Name(tb testing.TB) string {
	tb.Helper()
	name := strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, tb.Name())
	var b [4]byte
	_, _ = rand.Read(b[:])
	return name[:min(len(name), 71)] + "-" + hex.EncodeToString(b[:])
}

// withAdmin calls fn with an administrator's client and a deadline. It works in cleanups, where the test's own
// context has ended.
func withAdmin(tb testing.TB, c kafka.Cluster, fn func(context.Context, *kadm.Client) error) error {
	tb.Helper()
	client, err := c.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), adminTimeout)
	defer cancel()
	return fn(ctx, kadm.NewClient(client))
}

// eventually calls fn until it returns nil or ctx ends, with the last error in that of ctx.
func eventually(ctx context.Context, fn func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// require ends the test where there is no cluster: skipped on a machine that lacks Java or Maven, failed else.
func require(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv("CI") != "true":
		note("Apache Kafka "+Version, "skipped", err.Error())
		tb.Skipf("needs a real Kafka: %v", err)
	default:
		note("Apache Kafka "+Version, "failed", "")
		tb.Fatalf("needs a real Kafka: %v", err)
	}
}

// keepLogs says where the shared broker's logs are when the test fails, and keeps them.
func keepLogs(tb testing.TB, r *Running) {
	tb.Helper()
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("data and logs of the broker, kept for a day: %s", r.Dir)
			mark(r)
		}
	})
}

func mark(r *Running) {
	r.keep.Store(true)
	_ = os.WriteFile(filepath.Join(r.Dir, failedMark), nil, 0o600)
}

// note appends what tests ran against to the file of MILLRACE_TIERS: tier, version, status, detail. The tier is
// the folder of test/ that the test stands in.
func note(version, status, detail string) {
	name := os.Getenv("MILLRACE_TIERS")
	if name == "" {
		return
	}
	tier := "unit"
	if dir, err := os.Getwd(); err == nil {
		if _, rest, ok := strings.Cut(filepath.ToSlash(dir), "/test/"); ok {
			tier, _, _ = strings.Cut(rest, "/")
		}
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600) //nolint:gosec // the runner names it
	if err != nil {
		return // the runner says what it finds
	}
	defer func() { _ = f.Close() }()
	_, _ = fmt.Fprintf(f, "%s\t%s\t%s\t%s\n", tier, version, status, strings.ReplaceAll(detail, "\n", " "))
}
