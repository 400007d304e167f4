package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

const patience = 30 * time.Second

// broker is a cluster in this process with a topic "orders" of four partitions.
func broker(t *testing.T) (kafka.Cluster, *kgo.Client) {
	t.Helper()
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
	return c, client
}

// produce writes n records to each partition and returns them as they are in the log.
func produce(t *testing.T, client *kgo.Client, n int) []*kgo.Record {
	t.Helper()
	var rs []*kgo.Record
	for i := range n {
		for p := range int32(4) {
			rs = append(rs, &kgo.Record{Topic: "orders", Partition: p, Key: fmt.Appendf(nil, "k%d-%d", p, i%5), Value: fmt.Appendf(nil, "%d", i)})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := client.ProduceSync(ctx, rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return rs
}

// joined is a running member of group "g".
type joined struct {
	witness *witness
	done    chan struct{}
	err     error
	cancel  context.CancelFunc
}

func run(t *testing.T, c kafka.Cluster, j *journal, name string, h engine.Handler, cfg engine.Config, gcfg engine.GroupConfig) *joined {
	t.Helper()
	gcfg.Group, gcfg.Topics = "g", []string{"orders"}
	if gcfg.SessionTimeout == 0 {
		gcfg.SessionTimeout = 6 * time.Second
	}
	g, err := engine.NewGroup(c, gcfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &joined{witness: newWitness(j, name, g.Store()), done: make(chan struct{}), cancel: cancel}
	cfg.Observer = m.witness
	if cfg.CommitEvery == 0 {
		cfg.CommitEvery = 20 * time.Millisecond
	}
	go func() {
		defer close(m.done)
		m.err = engine.Run(ctx, g, m.witness, h, cfg)
	}()
	t.Cleanup(func() {
		cancel()
		<-m.done
	})
	return m
}

func (m *joined) stop(t *testing.T) {
	t.Helper()
	m.cancel()
	select {
	case <-m.done:
	case <-time.After(patience):
		t.Fatal("the member does not stop")
	}
	if m.err != nil {
		t.Errorf("member %s: %v", m.witness.member, m.err)
	}
}

// until waits for a fact.
func until(t *testing.T, what string, fact func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !fact() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func committed(t *testing.T, client *kgo.Client) map[int32]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	os, err := kadm.NewClient(client).FetchOffsets(ctx, "g")
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // not yet
		t.Fatal(err)
	}
	got := map[int32]int64{}
	os.Each(func(o kadm.OffsetResponse) { got[o.Partition] = o.At })
	return got
}

func TestGroupHandlesCommitsAndLeaves(t *testing.T) {
	t.Parallel()
	for _, assign := range []string{"client", "server"} {
		t.Run(assign, func(t *testing.T) {
			t.Parallel()
			c, client := broker(t)
			log := produce(t, client, 100)
			j := &journal{}
			m := run(t, c, j, "a", handler{j: j, member: "a"}, engine.Config{}, engine.GroupConfig{ServerAssign: assign == "server"})
			until(t, "all is handled", func() bool { return j.count("handled") >= len(log) })
			m.stop(t)
			j.mustBeClean(t, log)
			if got := committed(t, client); got[0] != 100 || got[1] != 100 || got[2] != 100 || got[3] != 100 {
				t.Errorf("committed %v, want 100 everywhere", got)
			}
			groups, err := kadm.NewClient(client).ListGroups(t.Context(), "Stable", "PreparingRebalance", "CompletingRebalance", "Reconciling")
			if err != nil || len(groups) > 0 {
				t.Errorf("groups with members %v, error %v, want none: the member has left", groups.Groups(), err)
			}
			if seen := m.witness.seen(); len(seen) > 0 {
				t.Errorf("problems: %v", seen)
			}
			// The next one starts where this one stopped.
			more := produce(t, client, 10)
			j2 := &journal{}
			m2 := run(t, c, j2, "b", handler{j: j2, member: "b"}, engine.Config{}, engine.GroupConfig{ServerAssign: assign == "server"})
			until(t, "the rest is handled", func() bool { return j2.count("handled") >= len(more) })
			m2.stop(t)
			j2.mustBeClean(t, more)
			if n := j2.count("handled"); n != len(more) {
				t.Errorf("handled %d, want only the %d new ones", n, len(more))
			}
		})
	}
}

// Members come and go while records flow. Nothing is lost, keys stay in order, and no one commits what it gave up.
func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	c, client := broker(t)
	j := &journal{}
	rng := rand.New(rand.NewPCG(9, 10))
	work := func(name string) engine.Handler {
		return handler{j: j, member: name, f: func(ctx context.Context, b engine.Batch, i int) verdict.Verdict {
			if b.Items[i].Record.Offset%50 == 0 {
				<-time.After(2 * time.Millisecond)
			}
			if b.Items[i].Record.Offset%97 == 0 && b.Items[i].Attempt == 1 {
				return verdict.Verdict{Kind: verdict.Retry, After: time.Millisecond}
			}
			return verdict.Verdict{}
		}}
	}
	cfg := engine.Config{Batch: 20, InFlight: 200}
	var log []*kgo.Record
	members := []*joined{run(t, c, j, "m0", work("m0"), cfg, engine.GroupConfig{})}
	for i := 1; i <= 8; i++ {
		log = append(log, produce(t, client, 100)...)
		if len(members) > 1 && rng.IntN(2) == 0 {
			k := rng.IntN(len(members))
			members[k].stop(t)
			members = slices.Delete(members, k, k+1)
		} else {
			name := fmt.Sprintf("m%d", i)
			members = append(members, run(t, c, j, name, work(name), cfg, engine.GroupConfig{}))
		}
		n := j.count("handled")
		until(t, "something moves", func() bool { return j.count("handled") > n || n >= len(log) })
	}
	until(t, "everything is committed", func() bool {
		for _, at := range []int32{0, 1, 2, 3} {
			if committed(t, client)[at] != 800 {
				return false
			}
		}
		return true
	})
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() { m.stop(t) })
	}
	wg.Wait()
	j.mustBeClean(t, log)
}

// A group that a stock client had in between: its commits count, its metadata is told as foreign, nothing is
// skipped.
func TestAGroupThatAStrangerHad(t *testing.T) {
	t.Parallel()
	c, client := broker(t)
	log := produce(t, client, 50)
	j := &journal{}
	m := run(t, c, j, "a", handler{j: j, member: "a"}, engine.Config{}, engine.GroupConfig{})
	until(t, "all is handled", func() bool { return j.count("handled") >= len(log) })
	m.stop(t)

	log = append(log, produce(t, client, 50)...)
	stock, err := c.Client(kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := 0; n < 60; {
		fetches := stock.PollRecords(ctx, 20)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			j.add(entry{what: "handled", member: "stock", id: idOf(r.Partition), offset: r.Offset, key: string(r.Key)})
			n++
		}
		if err := stock.CommitRecords(ctx, fetches.Records()...); err != nil {
			t.Fatal(err)
		}
	}
	stock.Close()

	m = run(t, c, j, "b", handler{j: j, member: "b"}, engine.Config{}, engine.GroupConfig{})
	until(t, "the rest is handled", func() bool { return j.count("handled") >= len(log) })
	m.stop(t)
	j.mustBeClean(t, log)
	replaced := 0
	for _, err := range m.witness.seen() {
		if errors.Is(err, cursor.ErrReplaced) {
			replaced++
		} else {
			t.Errorf("problem %v", err)
		}
	}
	if replaced == 0 {
		t.Error("nobody was told that a stranger had the group")
	}
}

func TestWhatCannotWorkEndsRunSoon(t *testing.T) {
	t.Parallel()
	superuser := kfake.Superuser("PLAIN", "admin", "pw")
	user := kfake.User("PLAIN", "shipping", "pw")
	tests := []struct {
		name  string
		opts  []kfake.Opt
		auth  kafka.Auth
		topic string
		want  error
		says  string
	}{
		{"unknown topic", nil, kafka.Auth{}, "missing", kerr.UnknownTopicOrPartition, "millrace topics apply"},
		{"no rights", []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(), superuser, user}, kafka.Plain("shipping", "pw"), "orders", kerr.TopicAuthorizationFailed, "User:shipping"},
		{"wrong password", []kfake.Opt{kfake.EnableSASL(), superuser}, kafka.Plain("admin", "wrong"), "orders", nil, "login"}, // kfake hangs up,
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, "orders")}, tt.opts...)...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(fake.Close)
			c := kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: tt.auth}
			g, err := engine.NewGroup(c, engine.GroupConfig{Group: "g", Topics: []string{tt.topic}})
			if err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			err = engine.Run(t.Context(), g, g.Store(), handler{j: &journal{}}, engine.Config{})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("got %v, want %v that speaks of %q", err, tt.want, tt.says)
			}
			if took := time.Since(started); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	const from, until, at = 100, 200, 150
	tests := []struct {
		name string
		p    position.Point
		want int64
	}{
		{"start", position.Point{}, 100},
		{"start and some", position.Point{N: 7}, 107},
		{"start and too much", position.Point{N: 700}, 200},
		{"end", position.Point{Kind: position.End}, 200},
		{"before the end", position.Point{Kind: position.End, N: 5}, 195},
		{"before the start", position.Point{Kind: position.End, N: 500}, 100},
		{"offset", position.Point{Kind: position.Offset, N: 120}, 120},
		{"offset below the log", position.Point{Kind: position.Offset, N: 12}, 100},
		{"offset above the log", position.Point{Kind: position.Offset, N: 1200}, 200},
		{"time", position.Point{Kind: position.Time}, 150},
		{"its own", position.Point{Kind: position.Each, Offsets: "p0=111"}, 111},
		{"its own, not named", position.Point{Kind: position.Each, Offsets: "p1=111"}, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := engine.Resolve(tt.p, 0, from, until, at); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// Where a fresh group starts, and that a start at the end survives a restart before the first record.
func TestStart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		point position.Point
		old   int // of the 10 records a partition, how many are handled
	}{
		{"start", position.Point{}, 10},
		{"end", position.Point{Kind: position.End}, 0},
		{"offset", position.Point{Kind: position.Offset, N: 7}, 3},
		{"time", position.Point{Kind: position.Time, At: time.Now().Add(-time.Hour)}, 10},
		{"a time to come", position.Point{Kind: position.Time, At: time.Now().Add(time.Hour)}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, client := broker(t)
			produce(t, client, 10)
			j := &journal{}
			m := run(t, c, j, "a", handler{j: j}, engine.Config{}, engine.GroupConfig{Start: tt.point})
			until(t, "every partition is committed", func() bool { return len(committed(t, client)) == 4 })
			m.stop(t)
			produce(t, client, 5)
			m = run(t, c, j, "b", handler{j: j}, engine.Config{}, engine.GroupConfig{Start: tt.point})
			want := 4 * (tt.old + 5)
			until(t, "old and new are handled", func() bool { return j.count("handled") >= want })
			m.stop(t)
			if n := j.count("handled"); n != want {
				t.Errorf("handled %d records, want %d", n, want)
			}
		})
	}
}

// A partition that stands still gives back what is over its share of the gate; the client fetches it again, from
// the very record where it was cut, and the other partitions go on meanwhile.
func TestAGroupGoesBackForWhatItGaveBack(t *testing.T) {
	t.Parallel()
	c, client := broker(t)
	log := produce(t, client, 400)
	j := &journal{}
	stuck := make(chan struct{})
	h := handler{j: j, member: "a", f: func(_ context.Context, b engine.Batch, _ int) verdict.Verdict {
		if b.ID.Partition == 0 {
			<-stuck
		}
		return verdict.Verdict{}
	}}
	m := run(t, c, j, "a", h, engine.Config{InFlight: 300, Batch: 10}, engine.GroupConfig{})
	until(t, "the other partitions are done", func() bool { return j.count("handled") >= len(log)*3/4 })
	close(stuck)
	until(t, "all are done", func() bool { return j.count("handled") >= len(log) })
	m.stop(t)
	j.mustBeClean(t, log)
	if n := j.count("handled"); n != len(log) {
		t.Errorf("handled %d records, want each of %d once", n, len(log))
	}
	if seen := m.witness.seen(); len(seen) > 0 {
		t.Errorf("problems: %v", seen)
	}
}
