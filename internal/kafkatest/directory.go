package kafkatest

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// state is what a directory remembers from run to run.
type state struct {
	Version   string            `json:"version"`
	Secured   bool              `json:"secured"`
	ID        string            `json:"cluster_id"`
	Passwords map[string]string `json:"passwords,omitempty"`
	Addresses []string          `json:"addresses"` // of clients, in the order of nodes: taken again where they are free
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
