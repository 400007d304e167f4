package engine_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/kafka"
)

// soon is how long a stop may take, whatever is broken, beside what handlers are given.
const soon = 20 * time.Second

// network is the way to the brokers. After cut, nothing arrives any more and nobody says so.
type network struct {
	lost chan struct{}
	once sync.Once
}

func (n *network) cut() { n.once.Do(func() { close(n.lost) }) }

func (n *network) dial(ctx context.Context, proto, address string) (net.Conn, error) {
	select {
	case <-n.lost:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
	}
	c, err := (&net.Dialer{}).DialContext(ctx, proto, address)
	if err != nil {
		return nil, err
	}
	return &line{Conn: c, n: n}, nil
}

// line swallows what is written and delivers nothing once its network is cut.
type line struct {
	net.Conn
	n *network
}

func (l *line) Write(b []byte) (int, error) {
	select {
	case <-l.n.lost:
		return len(b), nil
	default:
		return l.Conn.Write(b)
	}
}

func (l *line) Read(b []byte) (int, error) {
	for {
		n, err := l.Conn.Read(b)
		select {
		case <-l.n.lost:
			if err != nil {
				return 0, err
			}
		default:
			return n, err
		}
	}
}

// stopsSoon fails the test when m needs longer than soon.
func (m *joined) stopsSoon(t *testing.T, than time.Duration) {
	t.Helper()
	started := time.Now()
	m.cancel()
	select {
	case <-m.done:
		t.Logf("stopped after %v", time.Since(started))
	case <-time.After(than):
		t.Errorf("the member has not stopped after %v", than)
		select {
		case <-m.done:
			t.Logf("it took %v", time.Since(started))
		case <-time.After(60 * time.Second):
			panic("never")
		}
	}
	if m.err != nil {
		t.Errorf("Run returned %v", m.err)
	}
}

func TestStopWhileTheBrokersAreDead(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		kill func(*kfake.Cluster, *network)
		wait time.Duration // between the death and the stop
	}{
		{"closed", func(c *kfake.Cluster, _ *network) { c.Close() }, 0},
		{"closed for a while", func(c *kfake.Cluster, _ *network) { c.Close() }, 8 * time.Second},
		{"silent", func(_ *kfake.Cluster, n *network) { n.cut() }, 0},
		{"silent for a while", func(_ *kfake.Cluster, n *network) { n.cut() }, 8 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "orders"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(fake.Close)
			c := kafka.Cluster{Seeds: fake.ListenAddrs()}
			client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			log := produce(t, client, 10)
			n := &network{lost: make(chan struct{})}
			c.Dial = n.dial
			j := &journal{}
			release := make(chan struct{})
			h := handler{j: j, member: "a", f: func(_ context.Context, b engine.Batch, i int) verdict.Verdict {
				if b.Items[i].Record.Offset == 9 {
					<-release // so that there is something to commit
				}
				return verdict.Verdict{}
			}}
			m := run(t, c, j, "a", h, engine.Config{Drain: time.Second}, engine.GroupConfig{})
			until(t, "all but the last are handled", func() bool { return j.count("handled") == len(log)-4 })
			tt.kill(fake, n)
			close(release)
			<-time.After(tt.wait)
			m.stopsSoon(t, soon)
		})
	}
}

func TestStopBeforeTheClusterWasReached(t *testing.T) {
	t.Parallel()
	n := &network{lost: make(chan struct{})}
	n.cut()
	m := run(t, kafka.Cluster{Seeds: []string{"127.0.0.1:9"}, Dial: n.dial}, &journal{}, "a", handler{j: &journal{}}, engine.Config{}, engine.GroupConfig{})
	<-time.After(time.Second)
	m.stopsSoon(t, soon)
}

// The others take their time to join: a member that is told to stop does not wait for them.
func TestStopWhileARebalanceIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, phase := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup} {
		t.Run(phase.Name(), func(t *testing.T) {
			t.Parallel()
			fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "orders"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(fake.Close)
			held, over := make(chan struct{}, 100), make(chan struct{})
			t.Cleanup(func() { close(over) })
			fake.ControlKey(int16(phase), func(kmsg.Request) (kmsg.Response, error, bool) {
				fake.KeepControl()
				held <- struct{}{}
				fake.SleepControl(func() { <-over })
				return nil, nil, false
			})
			m := run(t, kafka.Cluster{Seeds: fake.ListenAddrs()}, &journal{}, "a", handler{j: &journal{}}, engine.Config{}, engine.GroupConfig{})
			<-held
			m.stopsSoon(t, soon)
		})
	}
}

// A handler that hangs holds a stop up no longer than Drain and a moment.
func TestStopWhileAHandlerHangs(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := kafka.Cluster{Seeds: fake.ListenAddrs()}
	client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	produce(t, client, 1)
	inside, over := make(chan struct{}, 4), make(chan struct{})
	t.Cleanup(func() { close(over) })
	m := run(t, c, &journal{}, "a", handlerFunc(func(context.Context, engine.Batch) []verdict.Verdict {
		inside <- struct{}{}
		<-over
		return nil
	}), engine.Config{Drain: 2 * time.Second}, engine.GroupConfig{})
	<-inside
	started := time.Now()
	m.cancel()
	<-m.done
	if took := time.Since(started); took > soon || m.err == nil {
		t.Errorf("Run returned %v after %v", m.err, took)
	}
	groups, err := kadm.NewClient(client).ListGroups(t.Context(), "Stable")
	if err != nil || len(groups) > 0 {
		t.Errorf("groups with members %v, error %v: want none, it must have left", groups.Groups(), err)
	}
}
