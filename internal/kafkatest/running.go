package kafkatest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
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

// state is what a directory remembers from run to run.
type state struct {
	Version   string            `json:"version"`
	Secured   bool              `json:"secured"`
	ID        string            `json:"cluster_id"`
	Passwords map[string]string `json:"passwords,omitempty"`
	Addresses []string          `json:"addresses"` // of clients, in the order of nodes: taken again where they are free
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

// open takes the directory and reads what it remembers.
func (r *Running) open(ctx context.Context) error {
	if r.Dir == "" {
		dir, err := temporary()
		if err != nil {
			return err
		}
		r.Dir, r.temporary = dir, true
	}
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return err
	}
	r.Dir = dir
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o750); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if r.unlock, err = lock(wait, filepath.Join(dir, "lock")); err != nil {
		return err
	}
	if err := r.recall(); err != nil {
		r.unlock()
		return err
	}
	return nil
}

// recall reads what an earlier run left in the directory, or makes up a new cluster.
func (r *Running) recall() error {
	users := append([]string{brokerUser, AdminUser}, r.cfg.Users...)
	raw, err := os.ReadFile(filepath.Join(r.Dir, "cluster.json"))
	if errors.Is(err, os.ErrNotExist) {
		r.state = state{Version: r.cfg.Version, Secured: r.cfg.Secured, ID: uuid(), Passwords: map[string]string{}}
		if r.cfg.Secured {
			for _, user := range users {
				r.state.Passwords[user] = uuid()
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &r.state); err != nil {
		return fmt.Errorf("read %s/cluster.json: %w", r.Dir, err)
	}
	if r.state.Version != r.cfg.Version || r.state.Secured != r.cfg.Secured {
		return fmt.Errorf("%s holds a cluster of Kafka %s (secured: %t): start that, or name another directory", r.Dir, r.state.Version, r.state.Secured)
	}
	for _, user := range users {
		if r.cfg.Secured && r.state.Passwords[user] == "" {
			return fmt.Errorf("%s holds a cluster that was made without user %s: name another directory", r.Dir, user)
		}
	}
	return nil
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

func (r *Running) certify() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	r.roots = x509.NewCertPool()
	r.roots.AddCert(ca.cert)
	if err := os.WriteFile(r.CA(), ca.pem(), 0o600); err != nil {
		return err
	}
	for _, n := range r.nodes {
		if err := ca.issue(n.keystore(), int64(n.ID)+1); err != nil {
			return err
		}
	}
	return nil
}

// format prepares the nodes' storage. One run of Kafka's tool, a second of Java, formats the first node; what it
// wrote (feature levels and users) is the same for the others, whose identity is written beside it.
func (r *Running) format(ctx context.Context, classpath string) error {
	first := r.nodes[0]
	args := []string{"format", "-t", r.state.ID, "-c", first.config()}
	for _, feature := range r.cfg.Features {
		args = append(args, "--feature", feature)
	}
	for user, password := range r.state.Passwords {
		args = append(args, "--add-scram", fmt.Sprintf("SCRAM-SHA-512=[name=%s,password=%s]", user, password))
	}
	if err := runTool(ctx, classpath, "kafka.tools.StorageTool", args...); err != nil {
		return fmt.Errorf("format storage: %w", err)
	}
	checkpoint, err := os.ReadFile(filepath.Join(first.data(), "bootstrap.checkpoint"))
	if err != nil {
		return err
	}
	for _, n := range r.nodes[1:] {
		meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", r.state.ID, n.ID, uuid())
		if err := os.WriteFile(filepath.Join(n.data(), "meta.properties"), []byte(meta), 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.data(), "bootstrap.checkpoint"), checkpoint, 0o600); err != nil { //nolint:gosec // our own directory
			return err
		}
	}
	return nil
}

// remember writes what the next run needs, and what Kafka's own tools need to reach the cluster.
func (r *Running) remember() error {
	raw, err := json.MarshalIndent(r.state, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "cluster.json"), raw, 0o600); err != nil {
		return err
	}
	if !r.cfg.Secured {
		return nil
	}
	client := fmt.Sprintf(`security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="%s" password="%s";
ssl.truststore.type=PEM
ssl.truststore.location=%s
`, AdminUser, r.state.Passwords[AdminUser], r.CA())
	return os.WriteFile(r.ClientProperties(), []byte(client), 0o600)
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
