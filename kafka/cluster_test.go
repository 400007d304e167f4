package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/millrace/millrace/kafka"
)

const password = "correct horse battery staple"

func TestClientRefusesSettingsByName(t *testing.T) {
	t.Parallel()
	seeds := []string{"kafka-1:9092"}
	tests := []struct {
		name string
		c    kafka.Cluster
		want string // "" is no error
	}{
		{"nothing", kafka.Cluster{}, "kafka.Cluster.Seeds: name at least one broker"},
		{"a seed without a port", kafka.Cluster{Seeds: []string{"kafka-1"}}, `kafka.Cluster.Seeds: "kafka-1" is not host:port`},
		{"a seed without a host", kafka.Cluster{Seeds: []string{":9092"}}, `kafka.Cluster.Seeds: ":9092" is not host:port`},
		{"port 0", kafka.Cluster{Seeds: []string{"kafka-1:0"}}, `kafka.Cluster.Seeds: "kafka-1:0" is not host:port`},
		{"port 65536", kafka.Cluster{Seeds: []string{"kafka-1:65536"}}, `kafka.Cluster.Seeds: "kafka-1:65536" is not host:port`},
		{"a URL", kafka.Cluster{Seeds: []string{"kafka://kafka-1:9092"}}, "is not host:port"},
		{"the second seed is wrong", kafka.Cluster{Seeds: []string{"kafka-1:9092", "x"}}, `"x" is not host:port`},
		{"PLAIN in plain text", kafka.Cluster{Seeds: seeds, Auth: kafka.Plain("u", password)}, "kafka.Cluster.Auth: PLAIN would send its secret to kafka-1:9092 in plain text: set TLS"},
		{"a token in plain text", kafka.Cluster{Seeds: seeds, Auth: kafka.OAuth(token)}, "OAUTHBEARER would send its secret"},
		{"no user", kafka.Cluster{Seeds: seeds, Auth: kafka.SCRAM512("", password)}, "kafka.Cluster.Auth: SCRAM-SHA-512 needs a user"},
		{"no password", kafka.Cluster{Seeds: seeds, Auth: kafka.SCRAM256("u", "")}, "kafka.Cluster.Auth: SCRAM-SHA-256 needs a password for user u"},
		{"no token", kafka.Cluster{Seeds: seeds, TLS: &tls.Config{}, Auth: kafka.OAuth(nil)}, "kafka.Cluster.Auth: OAUTHBEARER needs a token function"},
		{"PLAIN on loopback", kafka.Cluster{Seeds: []string{"127.0.0.1:9092", "[::1]:9092", "localhost:9092"}, Auth: kafka.Plain("u", password)}, ""},
		{"PLAIN over TLS", kafka.Cluster{Seeds: seeds, TLS: &tls.Config{}, Auth: kafka.Plain("u", password)}, ""},
		{"SCRAM in plain text", kafka.Cluster{Seeds: seeds, Auth: kafka.SCRAM512("u", password)}, ""},
		{"a host name that only looks like loopback", kafka.Cluster{Seeds: []string{"localhost.example.org:9092"}, Auth: kafka.Plain("u", password)}, "in plain text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cl, err := tt.c.Client()
			if err == nil {
				cl.Close()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), password) {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestAuthPrintsMechanismAndUserOnly(t *testing.T) {
	t.Parallel()
	tests := []struct {
		auth kafka.Auth
		want string
	}{
		{kafka.Auth{}, "none"},
		{kafka.Plain("u", password), "PLAIN as u"},
		{kafka.SCRAM256("u", password), "SCRAM-SHA-256 as u"},
		{kafka.SCRAM512("u", password), "SCRAM-SHA-512 as u"},
		{kafka.OAuth(token), "OAUTHBEARER"},
	}
	for _, tt := range tests {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, tt.auth); got != tt.want {
				t.Errorf("Sprintf(%q) = %q, want %q", verb, got, tt.want)
			}
			type hidden struct{ auth kafka.Auth }
			for _, v := range []any{&tt.auth, kafka.Cluster{Auth: tt.auth}, hidden{tt.auth}, []kafka.Auth{tt.auth}} {
				if got := fmt.Sprintf(verb, v); strings.Contains(got, password) || strings.Contains(got, fmt.Sprintf("%x", password)) {
					t.Errorf("Sprintf(%q) of %T shows the password: %s", verb, v, got)
				}
			}
		}
		raw, err := json.Marshal(map[string]kafka.Auth{"auth": tt.auth})
		if err != nil || string(raw) != `{"auth":"`+tt.want+`"}` {
			t.Errorf("JSON %s, %v", raw, err)
		}
	}
}

func TestClientConnectsWithEverySetting(t *testing.T) {
	t.Parallel()
	server, pool := certificate(t, "127.0.0.1")
	users := []kfake.Opt{
		kfake.EnableSASL(), kfake.Superuser("PLAIN", "p", password), kfake.Superuser("SCRAM-SHA-256", "s2", password), kfake.Superuser("SCRAM-SHA-512", "s5", password),
	}
	tests := []struct {
		name string
		opts []kfake.Opt
		c    kafka.Cluster
	}{
		{"plain text", nil, kafka.Cluster{}},
		{"TLS", []kfake.Opt{kfake.TLS(server)}, kafka.Cluster{TLS: &tls.Config{RootCAs: pool}}},
		{"TLS with a name of its own", []kfake.Opt{kfake.TLS(server)}, kafka.Cluster{TLS: &tls.Config{RootCAs: pool, ServerName: "kafka.test"}}},
		{"mutual TLS", []kfake.Opt{kfake.TLS(mutual(server, pool))}, kafka.Cluster{TLS: &tls.Config{RootCAs: pool, Certificates: server.Certificates}}},
		{"PLAIN", users, kafka.Cluster{Auth: kafka.Plain("p", password)}},
		{"SCRAM-SHA-256", users, kafka.Cluster{Auth: kafka.SCRAM256("s2", password)}},
		{"SCRAM-SHA-512", users, kafka.Cluster{Auth: kafka.SCRAM512("s5", password)}},
		{"SCRAM-SHA-512 over TLS", append([]kfake.Opt{kfake.TLS(server)}, users...), kafka.Cluster{TLS: &tls.Config{RootCAs: pool}, Auth: kafka.SCRAM512("s5", password)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := tt.c
			c.Seeds = cluster(t, append(tt.opts, kfake.SeedTopics(1, "t"))...).ListenAddrs()
			if err := c.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			produce(t, client(t, c), "t", "x")
		})
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	c := kafka.Cluster{Auth: kafka.SCRAM512("shipping", password)}
	server, _ := certificate(t, "127.0.0.1")
	tests := []struct {
		name      string
		c         kafka.Cluster
		err       error
		op        string
		resources []string
		want      kafka.PermissionError // zero: passes through
		text      string
	}{
		{
			"a topic", c, kerr.TopicAuthorizationFailed, "Write",
			[]string{"topic orders"},
			kafka.PermissionError{Principal: "User:shipping", Operation: "Write", Resource: "topic orders"},
			"User:shipping has no Write permission on topic orders: grant it (kafka-acls.sh --add --allow-principal User:shipping --operation Write --topic orders)",
		},
		{
			"the answer picks the resource", c, &kgo.ErrGroupSession{Err: fmt.Errorf("join: %w", kerr.GroupAuthorizationFailed)}, "Read",
			[]string{"topic orders", "group billing"},
			kafka.PermissionError{Principal: "User:shipping", Operation: "Read", Resource: "group billing"},
			"--operation Read --group billing",
		},
		{
			"a resource that nobody named", c, kerr.TransactionalIDAuthorizationFailed, "Write",
			[]string{"topic orders"},
			kafka.PermissionError{Principal: "User:shipping", Operation: "Write", Resource: "transactional id"},
			"--transactional-id NAME",
		},
		{
			"the cluster", c, kerr.ClusterAuthorizationFailed, "Create",
			[]string{"cluster"},
			kafka.PermissionError{Principal: "User:shipping", Operation: "Create", Resource: "cluster"},
			"--operation Create --cluster",
		},
		{
			"nobody",
			kafka.Cluster{},
			kerr.TopicAuthorizationFailed, "Read",
			[]string{"topic orders"},
			kafka.PermissionError{Principal: "User:ANONYMOUS", Operation: "Read", Resource: "topic orders"},
			"User:ANONYMOUS has no Read permission",
		},
		{
			"a certificate",
			kafka.Cluster{TLS: server},
			kerr.TopicAuthorizationFailed, "Read",
			[]string{"topic orders"},
			kafka.PermissionError{Principal: "User:CN=orders", Operation: "Read", Resource: "topic orders"},
			"--allow-principal User:CN=orders",
		},
		{
			"a token",
			kafka.Cluster{Auth: kafka.OAuth(token)},
			kerr.TopicAuthorizationFailed, "Read",
			[]string{"topic orders"},
			kafka.PermissionError{Principal: "User:TOKEN-SUBJECT", Operation: "Read", Resource: "topic orders"},
			"User:TOKEN-SUBJECT has no Read permission",
		},
		{"another error", c, kerr.UnknownTopicOrPartition, "Read", nil, kafka.PermissionError{}, kerr.UnknownTopicOrPartition.Error()},
		{"an end of ours", c, context.Canceled, "Read", nil, kafka.PermissionError{}, "context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.c.Explain(tt.err, tt.op, tt.resources...)
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %q", err, tt.text)
			}
			denied, ok := errors.AsType[*kafka.PermissionError](err)
			if ok != (tt.want.Principal != "") {
				t.Fatalf("got %T, want a PermissionError: %t", err, !ok)
			}
			if ok && (denied.Principal != tt.want.Principal || denied.Operation != tt.want.Operation || denied.Resource != tt.want.Resource) {
				t.Errorf("got %+v, want %+v", denied, tt.want)
			}
			if again := tt.c.Explain(err, "Alter", "cluster"); ok && !errors.Is(again, err) {
				t.Errorf("explained twice: %v", again)
			}
		})
	}
	if err := c.Explain(nil, "Read"); err != nil {
		t.Errorf("nil became %v", err)
	}
}

// What a cluster refuses is told apart, with who and what, by a real authorizer's answers.
func TestExplainNamesWhatAnAuthorizerRefused(t *testing.T) {
	t.Parallel()
	fake := cluster(t, kfake.SeedTopics(1, "t"), kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", password), kfake.User("PLAIN", "nobody", password),
		kfake.User("PLAIN", "reader", password, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "t", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true}))
	c := kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.Plain("nobody", password)}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for name, do := range map[string]func() error{
		"Write on topic t": func() error {
			return c.Explain(client(t, c).ProduceSync(ctx, &kgo.Record{Topic: "t"}).FirstErr(), "Write", "topic t")
		},
		"Read on topic t": func() error {
			cl := client(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
			return c.Explain(cl.PollFetches(ctx).Err(), "Read", "topic t", "group g")
		},
		"Read on group g": func() error {
			c := c
			c.Auth = kafka.Plain("reader", password)
			return c.Explain(client(t, c, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t")).PollFetches(ctx).Err(), "Read", "topic t", "group g")
		},
		"Create on topic made": func() error {
			resp, err := kadm.NewClient(client(t, c)).CreateTopic(ctx, 1, 1, nil, "made")
			return c.Explain(errors.Join(err, resp.Err), "Create", "topic made", "cluster")
		},
	} {
		t.Run(name, func(t *testing.T) {
			denied, ok := errors.AsType[*kafka.PermissionError](do())
			if !ok {
				t.Fatalf("no PermissionError")
			}
			got := denied.Operation + " on " + denied.Resource
			if !strings.HasPrefix(denied.Principal, "User:") || got != name && got != "Create on cluster" {
				t.Errorf("got %v", denied)
			}
		})
	}
}

func TestLoggerSpeaksOnlyWhenSomethingIsWrong(t *testing.T) {
	t.Parallel()
	fake := cluster(t, kfake.SeedTopics(1, "t"))
	for level, quiet := range map[zap.AtomicLevel]bool{zap.NewAtomicLevelAt(zap.InfoLevel): true, zap.NewAtomicLevelAt(zap.DebugLevel): false} {
		core, logs := observer.New(level)
		cl := client(t, kafka.Cluster{Seeds: fake.ListenAddrs(), Log: zap.New(core)})
		produce(t, cl, "t", "x")
		if (logs.Len() == 0) != quiet {
			t.Errorf("at %s: %d lines", level, logs.Len())
		}
	}
}

// A broker that is away is tried many times; that is one line until it is back.
func TestLoggerTellsOnceOfABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	fake := cluster(t)
	core, logs := observer.New(zap.InfoLevel)
	up := false
	c := kafka.Cluster{Seeds: fake.ListenAddrs(), Log: zap.New(core), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if !up {
			return nil, errors.New("nobody there")
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	cl := client(t, c)
	for range 10 {
		if err := cl.Ping(t.Context()); err == nil {
			t.Fatal("Ping reached a broker that is away")
		}
	}
	up = true
	if err := cl.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := logs.FilterMessage("the broker is away, and is tried again").FilterField(zap.String("addr", fake.ListenAddrs()[0])).Len(); n != 1 {
		t.Errorf("told %d times that the broker is away, want once", n)
	}
	if n := logs.FilterMessage("the broker is back").Len(); n != 1 {
		t.Errorf("told %d times that the broker is back, want once", n)
	}
	if n := logs.Len(); n != 2 {
		t.Errorf("%d lines, want 2: %v", n, logs.All())
	}
}

func token(context.Context) (string, error) { return "token", nil }

func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func client(t *testing.T, c kafka.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := c.Client(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func produce(t *testing.T, cl *kgo.Client, topic, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// certificate returns a server's TLS with a certificate for host and kafka.test, and who vouches for it.
func certificate(t *testing.T, host string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "orders"}, DNSNames: []string{"kafka.test"}, IPAddresses: []net.IP{net.ParseIP(host)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}}, pool
}

func mutual(server *tls.Config, pool *x509.CertPool) *tls.Config {
	server = server.Clone()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, pool
	return server
}

func poolOf(t *testing.T, server *tls.Config) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificates[0].Leaf)
	return pool
}
