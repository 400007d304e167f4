package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// step is the event of the fault run: the Seq-th of its key, from 0.
type step struct {
	Key string `avro:"key"`
	Seq int64  `avro:"seq"`
}

func (step) AvroName() string { return "fault.Step" }

const (
	faultEvents     = 200_000
	faultKeys       = 400
	faultPublishers = 4
	sessionTimeout  = 10 * time.Second
)

// Two hundred thousand events go through a secured cluster of three while a broker is killed, consumers are killed
// twice, and one sleeps past its session: every acknowledged event is handled at least once and in the order of
// its key, and what the sleeper commits when it wakes is refused.
func TestRealFaultsLoseNothingAndKeepOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("two minutes")
	}
	s := kafkatest.Secured(t)
	topic := kafkatest.Topic(t, s.Cluster(kafkatest.AdminUser), 6)
	run := newFaultRun(t, s, topic)
	began := time.Now()

	first, sleeper := run.member(t), run.member(t)
	published := make(chan error, 1)
	go func() { published <- run.publish(t.Context()) }()

	run.reached(t, faultEvents/10)
	first.kill(t)
	second := run.member(t)

	run.reached(t, faultEvents/4)
	victim := s.Leader(topic, 0)
	s.Kill(victim)
	t.Logf("%s: killed broker %d, the leader of partition 0", time.Since(began).Round(time.Second), victim)

	run.reached(t, faultEvents*2/5)
	sleeper.signal(t, syscall.SIGUSR1)
	run.noted(t, sleeper, "asleep")
	asleep := time.Now()
	run.reached(t, faultEvents/2)
	s.Start(victim)
	second.kill(t)
	third := run.member(t)
	<-time.After(time.Until(asleep.Add(sessionTimeout + 5*time.Second)))
	sleeper.signal(t, syscall.SIGCONT)
	t.Logf("%s: the sleeper wakes after %s", time.Since(began).Round(time.Second), time.Since(asleep).Round(time.Second))

	if err := <-published; err != nil {
		t.Fatal(err)
	}
	run.reached(t, faultEvents)
	third.stop(t)
	sleeper.stop(t)
	took := time.Since(began)
	v := run.verdict(t)
	t.Logf("%d events published and handled in %s: %d repeats, %d commits, %d refused", faultEvents, took.Round(time.Second), v.repeats, v.commits, v.refused[sleeper.name])
	if v.missing > 0 || v.skipped > 0 {
		t.Errorf("%d events were never handled, %d were handled before one in front of them of the same key", v.missing, v.skipped)
	}
	if v.refused[sleeper.name] == 0 {
		t.Error("the sleeper's late commit was not attempted, or was accepted")
	}
	if took > 2*time.Minute {
		t.Errorf("the run took %s, want at most two minutes", took)
	}
}

// faultRun is the run's shared state: where everything is, and who takes part.
type faultRun struct {
	cluster *kafkatest.Cluster
	reg     *schemas.Registry
	topic   string
	group   string
	dir     string // journals, one file a member
	env     []string
	members int
}

func newFaultRun(t *testing.T, cluster *kafkatest.Cluster, topic string) *faultRun {
	t.Helper()
	r := &faultRun{cluster: cluster, topic: topic, group: kafkatest.Name(t), dir: t.TempDir()}
	cluster.Grant("orders", "topic "+topic, "Write")
	cluster.Grant("shipping", "topic "+topic, "Read")
	cluster.Grant("shipping", "group "+r.group, "Read")

	url := serveRegistry(t)
	reg, err := schemas.New(schemas.Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Register(t.Context(), topic+"-value", schemas.MustFor[step]()); err != nil {
		t.Fatal(err)
	}
	r.reg = reg
	r.env = append(os.Environ(),
		service.Env("brokers")+"="+strings.Join(cluster.Cluster("shipping").Seeds, ","), service.Env("tls-ca")+"="+cluster.CA(),
		service.Env("sasl-user")+"=shipping", service.Env("sasl-password")+"="+cluster.Password("shipping"),
		service.Env("registry")+"="+url, faultTopic+"="+topic, faultGroup+"="+r.group)
	return r
}

// member starts a consumer process.
func (r *faultRun) member(t *testing.T) *member {
	t.Helper()
	r.members++
	name := fmt.Sprintf("member-%d", r.members)
	return spawn(t, name, append(slices.Clone(r.env), faultJournal+"="+filepath.Join(r.dir, name+".journal")))
}

// spawn starts this test binary again, as a member of a run.
func spawn(t *testing.T, name string, env []string) *member {
	t.Helper()
	m := &member{name: name, done: make(chan error, 1)}
	m.cmd = exec.Command(os.Args[0])
	m.cmd.Env = env
	var log bytes.Buffer
	m.cmd.Stdout, m.cmd.Stderr, m.log = &log, &log, &log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		m.done <- m.cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("%s said:\n%s", m.name, &log)
		}
	})
	return m
}

// handled is how many events all members have handled so far, repeats included.
func (r *faultRun) handled(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "*.journal"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n += bytes.Count(raw, []byte("handled "))
	}
	return n
}

func (r *faultRun) publish(ctx context.Context) error {
	p, err := producer.New(r.cluster.Cluster("orders"), r.reg, producer.Config{Source: "fault"})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, faultPublishers)
	for i := range faultPublishers {
		wg.Go(func() { errs[i] = r.publishKeys(ctx, p, i) })
	}
	wg.Wait()
	closing, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return errors.Join(errors.Join(errs...), p.Close(closing))
}

// publishKeys publishes the events of every faultPublishers-th key, one of each key at a time, at some 1,100 a second.
func (r *faultRun) publishKeys(ctx context.Context, p *producer.Producer, share int) error {
	tick := time.NewTicker(90 * time.Millisecond)
	defer tick.Stop()
	for seq := range int64(faultEvents / faultKeys) {
		var events []event.Event
		for k := share; k < faultKeys; k += faultPublishers {
			key := "key-" + strconv.Itoa(k)
			events = append(events, event.New(r.topic, key, step{key, seq}))
		}
		for tries := 0; ; tries++ {
			err := p.Publish(ctx, events...)
			var failed *producer.Error
			if err == nil {
				break
			}
			if !errors.As(err, &failed) || tries == 20 || len(failed.Retry()) == 0 {
				return fmt.Errorf("publish round %d: %w", seq, err)
			}
			events = failed.Retry() // the same ids: at worst a repeat
		}
		<-tick.C
	}
	return nil
}

// outcome is what the journals say.
type outcome struct {
	missing, skipped, repeats, commits int
	refused                            map[string]int
}

// verdict reads every journal in the order of time. An event may be handled again, but the first time only after
// those in front of it.
func (r *faultRun) verdict(t *testing.T) outcome {
	t.Helper()
	type line struct {
		at  int64
		key string
		seq int64
	}
	out := outcome{refused: map[string]int{}}
	var lines []line
	files, err := filepath.Glob(filepath.Join(r.dir, "*.journal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for in := bufio.NewScanner(bytes.NewReader(raw)); in.Scan(); {
			f := strings.Fields(in.Text())
			switch {
			case len(f) == 4 && f[0] == "handled":
				at, err1 := strconv.ParseInt(f[1], 10, 64)
				seq, err2 := strconv.ParseInt(f[3], 10, 64)
				if err := errors.Join(err1, err2); err != nil {
					t.Fatalf("%s: %q: %v", name, in.Text(), err)
				}
				lines = append(lines, line{at, f[2], seq})
			case len(f) > 0 && f[0] == "committed":
				out.commits++
			case len(f) > 0 && f[0] == "refused":
				out.refused[strings.TrimSuffix(filepath.Base(name), ".journal")]++
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	next := map[string]int64{}
	for _, l := range lines {
		switch {
		case l.seq == next[l.key]:
			next[l.key]++
		case l.seq < next[l.key]:
			out.repeats++
		default:
			if out.skipped++; out.skipped < 10 {
				t.Logf("%s: %d was handled when %d was due", l.key, l.seq, next[l.key])
			}
		}
	}
	for k := range faultKeys {
		out.missing += faultEvents/faultKeys - int(next["key-"+strconv.Itoa(k)])
	}
	return out
}

// reached waits until n events were handled, repeats included.
func (r *faultRun) reached(t *testing.T, n int) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var got int
	for time.Now().Before(deadline) {
		if got = r.handled(t); got >= n {
			return
		}
		<-tick.C
	}
	t.Fatalf("%d of %d events were handled within a minute and a half", got, n)
}

// noted waits until the member's journal has a line that starts with word.
func (r *faultRun) noted(t *testing.T, m *member, word string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		raw, err := os.ReadFile(filepath.Join(r.dir, m.name+".journal"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte("\n"+word)) {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s never noted that it is %s", m.name, word)
}

// member is a consumer process.
type member struct {
	name string
	cmd  *exec.Cmd
	log  *bytes.Buffer // to be read when the process has ended
	done chan error
}

func (m *member) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := m.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("%v to %s: %v", sig, m.name, err)
	}
}

func (m *member) wait() error { return <-m.done }

func (m *member) kill(t *testing.T) {
	t.Helper()
	m.signal(t, syscall.SIGKILL)
	_ = m.wait() // killed
}

func (m *member) stop(t *testing.T) {
	t.Helper()
	m.signal(t, syscall.SIGTERM)
	select {
	case err := <-m.done:
		if err != nil {
			t.Errorf("%s ended with %v", m.name, err)
		}
	case <-time.After(30 * time.Second):
		t.Errorf("%s did not stop within 30 s", m.name)
		_ = m.cmd.Process.Kill()
		_ = m.wait() // killed
	}
}
