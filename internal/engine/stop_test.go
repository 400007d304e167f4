package engine_test

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/kafka"
)

// soon is how long a stop may take, whatever is broken, beside what handlers are given. Tests in bubbles of
// testing/synctest hold every stop to it on any machine.
const soon = 12 * time.Second

// onTheClock is what a test without a bubble holds a stop to: soon where it has the machine to itself, as in the tier
// "alone".
func onTheClock() time.Duration {
	if os.Getenv("MILLRACE_ALONE") == "true" {
		return soon
	}
	return 2 * soon
}

// stopsSoon fails the test when m needs longer than limit.
func (m *joined) stopsSoon(t *testing.T, limit time.Duration) {
	t.Helper()
	started := time.Now()
	m.cancel()
	select {
	case <-m.done:
		t.Logf("stopped after %v", time.Since(started))
	case <-time.After(limit):
		t.Errorf("the member has not stopped after %v", limit)
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
		kill func(*kfake.Cluster, *pipes)
		wait time.Duration // between the death and the stop
	}{
		{"closed", func(c *kfake.Cluster, _ *pipes) { c.Close() }, 0},
		{"closed for a while", func(c *kfake.Cluster, _ *pipes) { c.Close() }, 8 * time.Second},
		{"silent", func(_ *kfake.Cluster, n *pipes) { n.cut() }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newPipes()
				fake, c := n.start(t)
				m := handling(t, c, func() { tt.kill(fake, n) })
				<-time.After(tt.wait)
				m.stopsSoon(t, soon)
			})
		})
	}
}

// After a session's time without an answer the client waits for its last commit with a lock held, which is no durable
// wait: a bubble would stand still, so this one goes by the clock.
func TestStopAmongSilentBrokersInTime(t *testing.T) {
	t.Parallel()
	n := newPipes()
	_, c := n.start(t)
	m := handling(t, c, n.cut)
	<-time.After(8 * time.Second)
	m.stopsSoon(t, onTheClock())
}

// handling is a member that has handled all records, and committed all but the last, when its brokers die.
func handling(t *testing.T, c kafka.Cluster, kill func()) *joined {
	t.Helper()
	client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	log := produce(t, client, 10)
	client.Close()
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
	kill()
	close(release)
	return m
}

func TestStopBeforeTheClusterWasReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newPipes()
		n.cut()
		c := kafka.Cluster{Seeds: []string{n.Addr().String()}, Dial: n.dial}
		m := run(t, c, &journal{}, "a", handler{j: &journal{}}, engine.Config{}, engine.GroupConfig{})
		<-time.After(time.Second)
		m.stopsSoon(t, soon)
	})
}

// The others take their time to join: a member that is told to stop does not wait for them.
func TestStopWhileARebalanceIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, phase := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup} {
		t.Run(phase.Name(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake, c := newPipes().start(t)
				held, over := make(chan struct{}, 100), make(chan struct{})
				t.Cleanup(func() { close(over) })
				fake.ControlKey(int16(phase), func(kmsg.Request) (kmsg.Response, error, bool) {
					fake.KeepControl()
					held <- struct{}{}
					fake.SleepControl(func() { <-over })
					return nil, nil, false
				})
				m := run(t, c, &journal{}, "a", handler{j: &journal{}}, engine.Config{}, engine.GroupConfig{})
				<-held
				m.stopsSoon(t, soon)
			})
		})
	}
}

// A handler that hangs holds a stop up no longer than Drain and a moment.
func TestStopWhileAHandlerHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, c := newPipes().start(t)
		client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		produce(t, client, 1)
		inside, over := make(chan struct{}, 4), make(chan struct{})
		defer close(over)
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
	})
}
