package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Ping reports within five seconds whether the cluster answers, our login included. All seeds are asked at once
// and one answer is enough. The error names each address with what is wrong with it and what to check.
func (c Cluster) Ping(ctx context.Context) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("reach Kafka: %w", err)
	}
	ping, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	seeds := slices.Compact(slices.Sorted(slices.Values(c.Seeds)))
	answers := make(chan error, len(seeds))
	for _, seed := range seeds {
		go func() { answers <- c.pingSeed(ping, seed) }()
	}
	var failed []error
	for range seeds {
		err := <-answers
		if err == nil {
			return nil
		}
		failed = append(failed, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("reach Kafka: %w", context.Cause(ctx))
	}
	slices.SortFunc(failed, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return &pingError{failed}
}

// pingSeed asks one broker. Metadata needs no permission but, unlike a plain version request, a login.
func (c Cluster) pingSeed(ctx context.Context, seed string) error {
	one := c
	one.Seeds, one.Log = []string{seed}, nil // what goes wrong is returned, not logged as well
	connect := &connectError{}
	one.Hooks = append(slices.Clip(c.Hooks), connect)
	client, err := one.Client(kgo.WithContext(ctx)) // its end is the end of reads that hang, too
	if err != nil {
		return err
	}
	defer client.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	if _, err = client.SeedBrokers()[0].Request(ctx, req); err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		if err = connect.first(); err == nil {
			return fmt.Errorf("%s: no answer within %s: is the address right, and is no firewall in between?", seed, pingTimeout)
		}
	}
	return fmt.Errorf("%s: %w", seed, c.Explain(err, "Describe", "cluster"))
}

// connectError keeps the first error of connecting: the client tries again until the time is over, and then says
// only that.
type connectError struct {
	mu  sync.Mutex
	err error
}

// OnBrokerConnect is called by the client after each attempt to connect.
func (c *connectError) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && !errors.Is(err, kgo.ErrClientClosed) { // that is our own deadline
		c.err = err
	}
}

func (c *connectError) first() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// pingError is why no seed answered, one line each when there are several.
type pingError struct{ seeds []error }

func (e *pingError) Error() string {
	if len(e.seeds) == 1 {
		return "reach Kafka at " + e.seeds[0].Error()
	}
	var b strings.Builder
	b.WriteString("reach Kafka: no broker answers")
	for _, err := range e.seeds {
		b.WriteString("\n  " + err.Error())
	}
	return b.String()
}

func (e *pingError) Unwrap() []error { return e.seeds }
