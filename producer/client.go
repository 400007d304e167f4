package producer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// client is the Kafka client of a producer. One that was refused its producer id refuses every record from then on, also when
// the right is granted: only another client asks again.
type client struct {
	connect func() (*kgo.Client, error)
	current atomic.Pointer[kgo.Client]
	denied  atomic.Bool // a record was refused in a way that may be the current client's end

	mu      sync.Mutex
	before  *kgo.Client // it may be given a record still, by whoever was about to, and refuses it
	renewed time.Time
	ended   bool
}

// renewEvery is the least time between two clients: who has no right is refused without a connection in between.
const renewEvery = time.Second

func (c *client) open(connect func() (*kgo.Client, error)) error {
	c.connect = connect
	first, err := connect()
	c.current.Store(first)
	return err
}

// use is the client for the next record.
func (c *client) use(ctx context.Context) *kgo.Client {
	if c.denied.Load() {
		c.renew(ctx)
	}
	return c.current.Load()
}

// renew replaces a client that was refused its id. Nothing of it is on its way: an id is asked for before the first record.
func (c *client) renew(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || !c.denied.Load() || time.Since(c.renewed) < renewEvery {
		return
	}
	old := c.current.Load()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewEvery) // it is at hand: no request is sent
	defer cancel()
	if _, _, err := old.ProducerID(ctx); !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		c.denied.Store(false) // the refusal was a topic's
		return
	}
	next, err := c.connect()
	if err != nil { // its settings were good once
		return
	}
	if c.before != nil {
		c.before.Close()
	}
	c.before, c.renewed = old, time.Now()
	c.current.Store(next)
	c.denied.Store(false)
}

// end returns the client that stays the last one.
func (c *client) end() *kgo.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.before != nil {
		c.before.Close()
		c.before = nil
	}
	return c.current.Load()
}
