package reader_test

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

func Example() {
	ctx := context.Background()
	fake := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "shop.orders")) // any Kafka
	defer fake.Close()
	cluster := kafka.Cluster{Seeds: fake.ListenAddrs()}
	publish(ctx, cluster, "o1", "o2", "o3")

	r, err := reader.Open(ctx, cluster, reader.Config{
		Topics: []string{"shop.orders"},
		Range:  position.Range{From: position.Point{Kind: position.End, N: 2}}, // the last two
	})
	if err != nil {
		panic(err)
	}
	for e, err := range r.Events(ctx) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s@%d %s\n", e.Topic, e.Offset, e.Value)
	}
	fmt.Println(r.Complete())
	// Output:
	// shop.orders@1 o2
	// shop.orders@2 o3
	// scanned 2 records in 2 of 2 offsets (100 %) of 1 partition, 2 matches
}

func publish(ctx context.Context, c kafka.Cluster, values ...string) {
	client, err := c.Client()
	if err != nil {
		panic(err)
	}
	defer client.Close()
	for _, v := range values {
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: "shop.orders", Value: []byte(v)}).FirstErr(); err != nil {
			panic(err)
		}
	}
}
