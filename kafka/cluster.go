// Package kafka says how a Kafka cluster is reached. A [Cluster] is a value, not a connection; every client of
// Millrace is made by [Cluster.Client], and by nothing else.
//
//	c := kafka.Cluster{
//		Seeds: []string{"kafka-1:9093", "kafka-2:9093"},
//		TLS:   &tls.Config{RootCAs: pool},
//		Auth:  kafka.SCRAM512("orders", password),
//	}
//	if err := c.Ping(ctx); err != nil { … } // names the addresses and what is wrong with them
//	client, err := c.Client(kgo.ConsumeTopics("shop.orders"))
//
// # Errors
//
// What a cluster refuses is an error that says who was refused what, and what to do: see [Cluster.Explain].
//
// # Concurrency
//
// A Cluster is copied freely and used by any number of goroutines.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

const (
	// dialTimeout bounds one connection up to the end of its TLS handshake. It is below pingTimeout, so that a
	// host that swallows packets is reported by its address.
	dialTimeout = 4 * time.Second
	// pingTimeout bounds Ping, however many seeds there are.
	pingTimeout = 5 * time.Second
	// maxBatch is the largest record batch that is unpacked, in bytes. The client's own default of 1 GiB lets one
	// hostile batch take the process down.
	maxBatch = 64 << 20
)

// Cluster is where a cluster is and who we are there.
type Cluster struct {
	// Seeds are some of the cluster's brokers as host:port; the others are learned from them. Required.
	Seeds []string
	// TLS encrypts the connections, and with Certificates it is mutual TLS. An empty ServerName is taken from each
	// broker's address. Nil is plain text.
	TLS *tls.Config
	// Auth is how we log in. The zero value is no login: the principal is ANONYMOUS, or the certificate's subject.
	Auth Auth
	// ClientID is how brokers name us in their logs, quotas and metrics. Defaults to "millrace".
	ClientID string
	// ReadOnly refuses every request that would change the cluster with [ErrReadOnly], before it is sent: records,
	// commits, group membership, topics. Reading is by partition, with no group.
	ReadOnly bool
	// Dial opens a connection to a broker, beneath TLS: the place for a proxy or a tunnel. Defaults to TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log gets the warnings of the Kafka client and, where debugging is enabled, each join, load and login as well.
	// Nil is silent.
	Log *zap.Logger
	// Hooks are called by every client: metrics and traces.
	Hooks []kgo.Hook
}

// Client returns a client with the cluster's connection settings, then opts. It connects when it is first used;
// [Cluster.Ping] says whether that will work. The caller closes it.
func (c Cluster) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("make a Kafka client: %w", err)
	}
	all := []kgo.Opt{
		kgo.SeedBrokers(c.Seeds...),
		kgo.ClientID(c.clientID()),
		kgo.SoftwareNameAndVersion("millrace", version()),
		kgo.Dialer(c.dial),
		kgo.MaxDecompressBatchBytes(maxBatch),
	}
	if c.Auth.mechanism != "" {
		all = append(all, kgo.SASL(c.Auth.sasl()))
	}
	if c.Log != nil {
		log := newLog(c.Log)
		all = append(all, kgo.WithLogger(log), kgo.WithHooks(log))
	}
	if len(c.Hooks) > 0 {
		all = append(all, kgo.WithHooks(c.Hooks...))
	}
	all = append(all, opts...)
	if c.ReadOnly {
		// After opts, so that no option of a caller lifts it.
		all = append(all, kgo.Dialer(c.dial), kgo.DisableClientMetrics())
	}
	client, err := kgo.NewClient(all...)
	if err != nil {
		return nil, fmt.Errorf("make a Kafka client: %w", err)
	}
	return client, nil
}

func (c Cluster) validate() error {
	if len(c.Seeds) == 0 {
		return errors.New("kafka.Cluster.Seeds: name at least one broker as host:port")
	}
	for _, seed := range c.Seeds {
		host, port, err := net.SplitHostPort(seed)
		if err != nil {
			return fmt.Errorf("kafka.Cluster.Seeds: %q is not host:port: %w", seed, err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return fmt.Errorf("kafka.Cluster.Seeds: %q is not host:port, with a port from 1 to 65535", seed)
		}
		if c.TLS == nil && c.Auth.bare() && !loopback(host) {
			return fmt.Errorf("kafka.Cluster.Auth: %s would send its secret to %s in plain text: set TLS, or use SCRAM", c.Auth.mechanism, seed)
		}
	}
	if err := c.Auth.validate(); err != nil {
		return fmt.Errorf("kafka.Cluster.Auth: %w", err)
	}
	return nil
}

func (c Cluster) clientID() string {
	if c.ClientID == "" {
		return "millrace"
	}
	return c.ClientID
}

// dial opens a connection to a broker, TLS included, with everything that must hold for each connection.
func (c Cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if c.TLS != nil {
		if conn, err = handshake(ctx, conn, c.TLS, host); err != nil {
			return nil, err
		}
	} else if c.Auth.bare() && !loopback(host) {
		// The seeds were checked, but a seed may send us anywhere.
		_ = conn.Close()
		return nil, fmt.Errorf("log in to %s: %s would send its secret in plain text: set TLS, or use SCRAM", address, c.Auth.mechanism)
	}
	if c.ReadOnly {
		conn = &readOnlyConn{Conn: conn}
	}
	return conn, nil
}

func handshake(ctx context.Context, conn net.Conn, cfg *tls.Config, host string) (net.Conn, error) {
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &handshakeError{err}
	}
	return secured, nil
}

// loopback reports whether host never leaves this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// version is Millrace's version as brokers take it: letters, digits, dots and dashes, with a letter or digit at each
// end (KIP-511).
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	v := info.Main.Version
	for _, dep := range info.Deps {
		if dep.Path == "github.com/millrace/millrace" {
			v = dep.Version
		}
	}
	return clean(v)
}

// clean makes a module's version one that brokers take.
func clean(v string) string {
	v = strings.Trim(strings.Map(func(r rune) rune {
		if r == '.' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, v), ".-")
	if v == "" {
		return "dev"
	}
	return v
}
