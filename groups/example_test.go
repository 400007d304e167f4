package groups_test

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
)

func Example() {
	ctx := context.Background()
	fake := kfake.MustCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "shop.orders")) // any Kafka
	defer fake.Close()
	cluster := kafka.Cluster{Seeds: fake.ListenAddrs()}
	client, err := cluster.Client()
	if err != nil {
		panic(err)
	}
	defer client.Close()
	commit := kadm.Offsets{}
	commit.AddOffset("shop.orders", 0, 0, -1)
	if err := kadm.NewClient(client).CommitAllOffsets(ctx, "shipping", commit); err != nil {
		panic(err)
	}

	gs, err := groups.Describe(ctx, cluster, "shipping")
	if err != nil {
		panic(err)
	}
	for _, p := range gs[0].Partitions {
		lag, committed := p.Lag()
		fmt.Println(p.Topic, p.Partition, lag, committed)
	}
	// Output:
	// shop.orders 0 0 true
	// shop.orders 1 0 false
}
