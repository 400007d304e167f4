package reader_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
)

// A broker gives only the first partition of a fetch a batch that is larger than the fetch allows. Of the others it gives a
// part, of which nothing can be read, and that is no sign that there is nothing.
func TestPeekFindsLargeBatchesInEachPartition(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	c := kafka.Cluster{Seeds: k.ListenAddrs()}
	client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	var places []reader.Place
	for p := range int32(3) {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: p, Value: fmt.Append(nil, p)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		places = append(places, reader.Place{Topic: "orders", Partition: p})
	}
	k.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		req := r.(*kmsg.FetchRequest) //nolint:forcetypeassert // by its key
		if len(req.Topics) == 0 || len(req.Topics[0].Partitions) == 1 {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.FetchResponse) //nolint:forcetypeassert // as above
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = req.Topics[0].Topic, req.Topics[0].TopicID
		for _, x := range req.Topics[0].Partitions {
			p := kmsg.NewFetchResponseTopicPartition()
			p.Partition, p.HighWatermark, p.LastStableOffset = x.Partition, 1, 1
			topic.Partitions = append(topic.Partitions, p)
		}
		res.Topics = append(res.Topics, topic)
		return res, nil, true
	})
	found, err := reader.Peek(t.Context(), c, places...)
	if err != nil || len(found) != 3 {
		t.Fatalf("%v, %d of 3 are found", err, len(found))
	}
}
