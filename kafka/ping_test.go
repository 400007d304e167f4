package kafka_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/kafka"
)

func TestPingSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	server, pool := certificate(t, "127.0.0.1")
	other, _ := certificate(t, "127.0.0.2")
	users := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "orders", password)}
	open := cluster(t).ListenAddrs()
	sasl := cluster(t, users...).ListenAddrs()
	secured := cluster(t, kfake.TLS(server)).ListenAddrs()
	mutualTLS := cluster(t, kfake.TLS(mutual(server, pool))).ListenAddrs()
	foreign := cluster(t, kfake.TLS(other)).ListenAddrs()
	tests := []struct {
		name string
		c    kafka.Cluster
		want string
	}{
		{"nobody listens", kafka.Cluster{Seeds: []string{closed(t)}}, "nothing listens there: is the broker running"},
		{"no such host", kafka.Cluster{Seeds: []string{"kafka.invalid:9092"}}, "kafka.invalid"},
		{"a wrong password", kafka.Cluster{Seeds: sasl, Auth: kafka.SCRAM512("orders", "wrong")}, "refuse the login (SCRAM-SHA-512 as orders)"},
		{"an unknown user", kafka.Cluster{Seeds: sasl, Auth: kafka.SCRAM512("nobody", password)}, "refuse the login (SCRAM-SHA-512 as nobody)"},
		{"no login where one is needed", kafka.Cluster{Seeds: sasl}, "login"},
		{"plain text to a TLS port", kafka.Cluster{Seeds: secured}, "does the port speak TLS (set TLS)"},
		{"TLS to a plain-text port", kafka.Cluster{Seeds: open, TLS: &tls.Config{RootCAs: pool}}, "the TLS handshake got no answer: does the port speak TLS?"},
		{"an unknown authority", kafka.Cluster{Seeds: secured, TLS: &tls.Config{}}, "add its CA to TLS.RootCAs"},
		{"a certificate for another name", kafka.Cluster{Seeds: foreign, TLS: &tls.Config{RootCAs: poolOf(t, other)}}, "certificate is for another name"},
		{"no client certificate", kafka.Cluster{Seeds: mutualTLS, TLS: &tls.Config{RootCAs: pool}}, "client certificate"},
		{"settings", kafka.Cluster{}, "kafka.Cluster.Seeds"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.c.Ping(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			for _, seed := range tt.c.Seeds {
				if !strings.Contains(err.Error(), seed) {
					t.Errorf("%v: names no %s", err, seed)
				}
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("shows the password: %v", err)
			}
		})
	}
}

// Three seeds that take connections and never say a word cost five seconds in all, not five each.
func TestPingOfDeadSeedsEndsInTime(t *testing.T) {
	t.Parallel()
	seeds := []string{silent(t), silent(t), silent(t)}
	start := time.Now()
	err := kafka.Cluster{Seeds: seeds}.Ping(t.Context())
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("took %s", took)
	}
	if err == nil {
		t.Fatal("no error")
	}
	for _, seed := range seeds {
		if !strings.Contains(err.Error(), seed+": no answer within 5s") {
			t.Errorf("%v: does not say that %s is silent", err, seed)
		}
	}
}

func TestPingNeedsOneAnswer(t *testing.T) {
	t.Parallel()
	c := kafka.Cluster{Seeds: []string{silent(t), closed(t), cluster(t).ListenAddrs()[0]}}
	start := time.Now()
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("waited %s for the silent one", took)
	}
}

func TestPingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the process ends")
	cancel(reason)
	if err := (kafka.Cluster{Seeds: []string{silent(t)}}).Ping(ctx); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
}

// silent returns the address of a server that takes connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// closed returns an address where nobody listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
