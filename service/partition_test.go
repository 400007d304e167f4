package service

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/metrics"
	"github.com/millrace/millrace/schemas"
)

// heard counts what a consumer tells, after its membership was told.
type heard struct {
	consumer.Silent
	problems, handled atomic.Int64
}

func (h *heard) Problem(cursor.ID, error) { h.problems.Add(1) }

func (h *heard) Handled(_ cursor.ID, resolved, _ int, _ time.Duration) {
	h.handled.Add(int64(resolved))
}

// refuses has a broker refuse one of two partitions of a running consumer, then serve it again, and returns what /readyz
// says wrongly meanwhile. member is what listens to the consumer.
func refuses(t *testing.T, member func(*membership) consumer.Observer) error {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "ticks"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	cluster := kafka.Cluster{Seeds: fake.ListenAddrs()}
	client, err := cluster.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	var later atomic.Int64
	health := newHealth(func() time.Time { return time.Now().Add(time.Duration(later.Load())) }, func() string { return "running" })
	numbers, err := metrics.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	page := (&watching{numbers, health, func() string { return "" }}).handler()
	readyz := func() (int, string) {
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	told := &heard{}
	mux := consumer.NewMux()
	mux.Otherwise(func(context.Context, event.Event) error { return nil })
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- consumer.Run(ctx, cluster, schemas.Memory(), mux, consumer.Config{
			Group: "ticker", Topics: []string{"ticks"}, CreateTopics: true, Observer: observers{member(health.consumer("ticker")), told},
		})
	}()
	defer func() {
		end()
		if err := <-ended; err != nil {
			t.Errorf("the consumer ended: %v", err)
		}
	}()
	handles := func(partition int32) {
		t.Helper()
		before := told.handled.Load()
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: "ticks", Partition: partition, Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		await(t, "a record is handled", func() bool { return told.handled.Load() > before })
	}
	problems := func(n int64) {
		t.Helper()
		before := told.problems.Load()
		await(t, "a problem is told", func() bool { return told.problems.Load() >= before+n })
	}

	handles(0)
	handles(1)
	if code, says := readyz(); code != http.StatusOK {
		return fmt.Errorf("at work: %s", says)
	}
	refusal := fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "ticks", Partitions: []int32{1}, Err: kerr.UnknownServerError, Count: -1})
	problems(1)
	if code, says := readyz(); code != http.StatusOK {
		return fmt.Errorf("a hiccup: %s", says)
	}
	later.Add(int64(awayAfter))
	problems(1)
	handles(0) // what the other partition does is no excuse
	if code, says := readyz(); code != http.StatusServiceUnavailable || !strings.Contains(says, "ticks/1 stands still since ") || strings.Contains(says, "ticks/0") {
		return fmt.Errorf("half a minute of refusals: %d %s", code, says)
	}
	refusal.Remove()
	handles(1)
	if code, says := readyz(); code != http.StatusOK {
		return fmt.Errorf("mended: %s", says)
	}
	return nil
}

// await asks done again and again.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func TestReadinessFollowsAPartitionThatIsRefused(t *testing.T) {
	t.Parallel()
	if err := refuses(t, func(m *membership) consumer.Observer { return m }); err != nil {
		t.Error(err)
	}
}

// deaf hears of no problem, stubborn of no progress.
type (
	deaf     struct{ *membership }
	stubborn struct{ *membership }
)

func (deaf) Problem(cursor.ID, error) {}

func (stubborn) Handled(cursor.ID, int, int, time.Duration) {}

// With these bugs planted the test above fails.
func TestThePlantedBugsOfReadinessAreFound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		plant func(m *membership) consumer.Observer
		found string
	}{
		{"problems are not heard", func(m *membership) consumer.Observer { return deaf{m} }, "half a minute of refusals"},
		{"progress is not heard", func(m *membership) consumer.Observer { return stubborn{m} }, "mended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := refuses(t, tt.plant); err == nil || !strings.HasPrefix(err.Error(), tt.found) {
				t.Errorf("got %v, want it found at: %s", err, tt.found)
			}
		})
	}
}
