package parquetsink_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/parquetsink"
)

type placed struct {
	Order string `avro:"order"`
	Cents int64  `avro:"cents"`
}

func (placed) AvroSchema() string {
	return `{"type":"record","name":"shop.Placed","fields":[{"name":"order","type":"string"},{"name":"cents","type":"long"}]}`
}

// row is what the tests read back.
type row struct {
	Part int64 `parquet:"part"`
	At   int64 `parquet:"at"`
	N    int64 `parquet:"cents"`
}

// Two members of one sink write to one directory; one ends and comes back. Every event is in it once.
func TestRun(t *testing.T) {
	t.Parallel()
	const topic, n = "shop.placed", 3000
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, topic, topic+".lake.dlq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cluster, reg := kafka.Cluster{Seeds: fake.ListenAddrs()}, schemas.Memory()
	pub, err := producer.New(cluster, reg, producer.Config{Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pub.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	publish := func(from, to int) {
		t.Helper()
		var es []event.Event
		for i := from; i < to; i++ {
			order := fmt.Sprintf("o%05d", i)
			es = append(es, event.New(topic, order, placed{Order: order, Cents: int64(i)}))
		}
		if err := pub.Publish(t.Context(), es...); err != nil {
			t.Fatal(err)
		}
	}

	dir := t.TempDir()
	start := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		out := parquetsink.New(parquetsink.Config{Dir: dir, Columns: []sink.Column{{Name: "part", From: "$partition"}, {Name: "at", From: "$offset"}, {Name: "cents"}}})
		cfg := sink.Config{Name: "lake", Topics: []string{topic}, Wait: 20 * time.Millisecond, Batch: 500}
		go func() { ended <- sink.Run(ctx, cluster, reg, out, cfg) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	read := func() (rows []row) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, topic, "*.parquet"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			part, err := parquet.ReadFile[row](name)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, part...)
		}
		return rows
	}
	until := func(want int) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		late := time.After(30 * time.Second)
		for len(read()) < want {
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("%d rows of %d", len(read()), want)
			}
		}
	}

	publish(0, 1000)
	stop := start()
	until(500)
	stop()
	stops := []func(){start(), start()}
	publish(1000, n)
	until(n)
	for _, stop := range stops {
		stop()
	}
	places, sum := map[[2]int64]bool{}, int64(0)
	for _, r := range read() {
		places[[2]int64{r.Part, r.At}] = true
		sum += r.N
	}
	if got := len(read()); got != n || len(places) != n || sum != n*(n-1)/2 {
		t.Errorf("%d rows of %d places with the sum %d, want %d and %d", got, len(places), sum, n, n*(n-1)/2)
	}
}

func ExampleNew() {
	run := func(ctx context.Context, cluster kafka.Cluster, registry *schemas.Registry) error {
		out := parquetsink.New(parquetsink.Config{Dir: "/data/lake"})
		return sink.Run(ctx, cluster, registry, out, sink.Config{
			Name: "lake", Topics: []string{"shop.orders"}, Batch: parquetsink.Batch, Wait: parquetsink.Wait,
		})
	}
	_ = run
}
