package kafkatest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/kafka"
)

const (
	// Version is the Apache Kafka that tests run against unless they say otherwise.
	Version = "4.3.1"
	// AdminUser may do everything on a secured cluster.
	AdminUser = "admin"

	brokerUser = "broker" // the brokers among themselves
)

// Config says which cluster to start. The zero value is one plain broker of [Version] in a temporary directory.
type Config struct {
	// Version of Apache Kafka. Defaults to Version.
	Version string
	// Secured makes it three brokers with TLS, SCRAM users and an authorizer that denies by default. False is one
	// broker that lets anyone do anything.
	Secured bool
	// Users of a secured cluster, apart from admin. They may do nothing until they are granted it. Defaults to
	// orders, shipping and nobody.
	Users []string
	// Dir keeps data, logs and certificates from run to run. Empty is a temporary directory, removed by Close.
	Dir string
	// Settings are added to each broker's configuration and win over ours.
	Settings []Setting
	// Features are the levels to format with, "transaction.version=1". Nil is the version's own.
	Features []string
	// JVM are the brokers' flags. Defaults to flags that boot soon: with them the compiler of hot code is off, so a
	// benchmark names its own.
	JVM []string
	// Progress is told what happens, a line each. Nil is silent.
	Progress io.Writer
}

func (c Config) withDefaults() Config {
	if c.Version == "" {
		c.Version = Version
	}
	if c.Secured && c.Users == nil {
		c.Users = []string{"orders", "shipping", "nobody"}
	}
	if c.JVM == nil {
		c.JVM = []string{"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	return c
}

// Running is a cluster of real brokers. Its methods may be called by any goroutine.
type Running struct {
	// Dir holds the data, the logs (logs/node-N.log), and for a secured cluster ca.pem and client.properties.
	Dir string
	// Version of Apache Kafka.
	Version string

	cfg       Config
	state     state
	nodes     []*Node
	roots     *x509.CertPool
	temporary bool
	keep      atomic.Bool // the directory, though it is temporary
	unlock    func()
}

// errPortTaken says that someone took a port between our asking for a free one and the broker's taking it.
var errPortTaken = errors.New("a port was taken meanwhile")

// Start starts a cluster and returns when it serves: all brokers answer and, when it is secured, a login works. The
// caller closes it; it also ends with this process, however that ends.
//
// [ErrMissing] is returned when this machine has no Java or Maven.
func Start(ctx context.Context, cfg Config) (*Running, error) {
	cfg = cfg.withDefaults()
	fmt.Fprintf(cfg.Progress, "Apache Kafka %s: looking for its jars (54 MB, fetched by Maven the first time)\n", cfg.Version)
	classpath, err := Classpath(ctx, cfg.Version)
	if err != nil {
		return nil, err
	}
	r := &Running{Dir: cfg.Dir, Version: cfg.Version, cfg: cfg}
	if err := r.open(ctx); err != nil {
		return nil, fmt.Errorf("start Kafka: %w", err)
	}
	for attempt := 1; ; attempt++ {
		err = r.boot(ctx, classpath, attempt > 1)
		if err == nil {
			return r, nil
		}
		for _, n := range r.nodes {
			err = errors.Join(err, n.Kill())
		}
		if !errors.Is(err, errPortTaken) || attempt == 3 {
			break
		}
		fmt.Fprintln(cfg.Progress, "a port was taken meanwhile: starting again on others")
	}
	r.unlock()
	if ctx.Err() != nil {
		if r.temporary {
			_ = os.RemoveAll(r.Dir)
		}
		return nil, fmt.Errorf("start Kafka: %w", ctx.Err())
	}
	return nil, fmt.Errorf("start Kafka: %w (logs in %s)", err, filepath.Join(r.Dir, "logs"))
}

// boot lays the nodes out, formats what is new, and starts them.
func (r *Running) boot(ctx context.Context, classpath string, newPorts bool) error {
	start := time.Now()
	if err := r.layOut(classpath, newPorts); err != nil {
		return err
	}
	if r.cfg.Secured {
		if err := r.certify(); err != nil {
			return fmt.Errorf("make certificates: %w", err)
		}
	}
	for _, n := range r.nodes {
		if err := os.WriteFile(n.config(), []byte(r.properties(n)), 0o600); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "cluster.json")); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(r.cfg.Progress, "formatting its storage")
		if err := r.format(ctx, classpath); err != nil {
			return err
		}
	}
	if err := r.remember(); err != nil {
		return err
	}
	fmt.Fprintf(r.cfg.Progress, "starting %d broker(s); logs in %s\n", len(r.nodes), filepath.Join(r.Dir, "logs"))
	for _, n := range r.nodes {
		if err := n.Start(); err != nil { //nolint:contextcheck // a broker outlives the context that started it
			return err
		}
	}
	wait, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	if err := r.Wait(wait); err != nil {
		return err
	}
	fmt.Fprintf(r.cfg.Progress, "serving after %.1f s\n", time.Since(start).Seconds())
	return nil
}

// layOut gives each node a directory, ports and a command line.
func (r *Running) layOut(classpath string, newPorts bool) error {
	count := 1
	if r.cfg.Secured {
		count = 3
	}
	addresses, err := freeAddresses(2 * count)
	if err != nil {
		return err
	}
	if !newPorts && len(r.state.Addresses) == count && free(r.state.Addresses) {
		addresses = append(slices.Clone(r.state.Addresses), addresses[count:]...)
	}
	r.state.Addresses = addresses[:count]
	r.nodes = nil
	for i := range count {
		n := &Node{
			ID: i + 1, Address: addresses[i], controller: addresses[count+i],
			dir: filepath.Join(r.Dir, fmt.Sprintf("node-%d", i+1)), log: filepath.Join(r.Dir, "logs", fmt.Sprintf("node-%d.log", i+1)),
		}
		n.java = append([]string{"java"}, r.cfg.JVM...)
		n.java = append(n.java, "-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS", "-cp", classpath, "kafka.Kafka", n.config())
		if err := os.MkdirAll(n.data(), 0o750); err != nil {
			return err
		}
		// The end of a log tells why a broker died; that of an earlier attempt would mislead.
		if err := os.Remove(n.log); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		r.nodes = append(r.nodes, n)
	}
	return nil
}

// Wait waits until every broker that was started is known to the cluster and answers.
func (r *Running) Wait(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, n := range r.nodes {
			if p := n.running(); p != nil && p.ended() {
				return r.diagnose(n)
			}
		}
		err := r.serves(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the brokers: %w: %w", context.Cause(ctx), err)
		}
	}
}

// diagnose says why a broker ended.
func (r *Running) diagnose(n *Node) error {
	raw, err := os.ReadFile(n.log)
	if err != nil {
		return err
	}
	if bytes.Contains(raw, []byte("Address already in use")) {
		return errPortTaken
	}
	return fmt.Errorf("broker %d ended: %s", n.ID, tail(raw))
}

// serves asks every broker that runs for the cluster: they must know of each other.
func (r *Running) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, n := range r.nodes {
		if p := n.running(); p == nil || p.ended() {
			continue
		}
		c := r.Cluster(AdminUser)
		c.Seeds = []string{n.Address}
		if err := c.Ping(ctx); err != nil {
			return err
		}
		client, err := c.Client()
		if err != nil {
			return err
		}
		meta, err := kadm.NewClient(client).BrokerMetadata(ctx)
		client.Close()
		if err != nil {
			return err
		}
		for _, want := range r.nodes {
			if p := want.running(); p == nil || p.ended() {
				continue
			}
			if !slices.Contains(meta.Brokers.NodeIDs(), int32(want.ID)) {
				return fmt.Errorf("broker %d does not know broker %d yet", n.ID, want.ID)
			}
		}
	}
	return nil
}

// Cluster is how user reaches the cluster; a plain one has no users and ignores it. It panics for a user that the
// cluster was not made with.
func (r *Running) Cluster(user string) kafka.Cluster {
	c := kafka.Cluster{ClientID: "kafkatest"}
	for _, n := range r.nodes {
		c.Seeds = append(c.Seeds, n.Address)
	}
	if !r.cfg.Secured {
		return c
	}
	password, ok := r.state.Passwords[user]
	if !ok {
		panic("kafkatest: there is no user " + user + ": name it in Config.Users")
	}
	c.TLS, c.Auth = &tls.Config{RootCAs: r.roots, MinVersion: tls.VersionTLS12}, kafka.SCRAM512(user, password)
	return c
}

// Password is the password of user, empty where there is no such user.
func (r *Running) Password(user string) string { return r.state.Passwords[user] }

// Nodes are the brokers, by id.
func (r *Running) Nodes() []*Node { return slices.Clone(r.nodes) }

// Node is the broker with the id. It panics where there is none.
func (r *Running) Node(id int) *Node { return r.nodes[id-1] }

// ClientProperties is a file with which Kafka's own tools reach a secured cluster as admin (--command-config).
func (r *Running) ClientProperties() string { return filepath.Join(r.Dir, "client.properties") }

// CA is the file with the certificate of who signed the brokers' certificates, of a secured cluster.
func (r *Running) CA() string { return filepath.Join(r.Dir, "ca.pem") }

// Close ends the cluster: in order where its directory stays, at once where it goes.
func (r *Running) Close() error {
	ends := make(chan error, len(r.nodes))
	for _, n := range r.nodes {
		go func() {
			if r.temporary {
				ends <- n.Kill()
				return
			}
			ends <- n.Stop()
		}()
	}
	var err error
	for range r.nodes {
		err = errors.Join(err, <-ends)
	}
	if r.temporary && !r.keep.Load() {
		err = errors.Join(err, os.RemoveAll(r.Dir))
	}
	r.unlock()
	return err
}

// freeAddresses returns n loopback addresses that nobody listens on now.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // local
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = l.Close() }() // all at the end, so that no port is given twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

func free(addresses []string) bool {
	for _, a := range addresses {
		l, err := net.Listen("tcp", a) //nolint:noctx // local
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// uuid is an id as Kafka writes them: 16 random bytes in base64url. One that starts with a dash would be taken for
// an option of its tools.
func uuid() string {
	var b [16]byte
	for {
		_, _ = rand.Read(b[:])
		if s := base64.RawURLEncoding.EncodeToString(b[:]); s[0] != '-' {
			return s
		}
	}
}
