package deadletter_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/kafka"
)

const letters, quiet = "shop.orders.shipping.dlq", "shop.orders.audit.dlq"

// filled is a cluster with four letters of shipping in two partitions, the oldest of them not first in its topic, and
// with none of audit.
func filled(ctx context.Context, t *testing.T, first time.Time) (*kfake.Cluster, kafka.Cluster, *kgo.Client) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(2, letters, quiet))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := kafka.Cluster{Seeds: fake.ListenAddrs()}
	cl, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for i, partition := range []int32{1, 0, 0, 0} {
		at := first.Add(time.Duration(3-i) * time.Hour)
		if i == 1 {
			at = first
		}
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: letters, Partition: partition, Timestamp: at, Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return fake, c, cl
}

func TestDepthIsWhatLiesThere(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	first := time.Now().Add(-24 * time.Hour).Truncate(time.Millisecond)
	_, c, cl := filled(ctx, t, first)
	want := func(what string, n int64, oldest time.Time) {
		t.Helper()
		got, err := deadletter.Depths(ctx, c, letters, quiet, "shop.orders.fraud.dlq")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if d := got[letters]; d.Letters != n || !d.Oldest.Equal(oldest) {
			t.Errorf("%s: %d letters, the oldest of %s, want %d of %s", what, d.Letters, d.Oldest, n, oldest)
		}
		if d, ok := got[quiet]; !ok || d != (deadletter.Depth{}) || len(got) != 2 {
			t.Errorf("%s: got %+v, want an empty topic, and nothing of the one that is not there", what, got)
		}
	}
	want("written", 4, first)

	var gone kadm.Offsets
	gone.AddOffset(letters, 0, 1, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(ctx, gone); err != nil {
		t.Fatal(err)
	}
	want("the oldest is deleted", 3, first.Add(time.Hour))

	// What a transaction has not committed is no letter yet.
	tx, err := c.Client(kgo.TransactionalID("tx"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := tx.ProduceSync(ctx, &kgo.Record{Topic: letters, Partition: 1, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	want("a transaction is open", 3, first.Add(time.Hour))

	gone.AddOffset(letters, 0, 3, -1)
	gone.AddOffset(letters, 1, 1, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(ctx, gone); err != nil {
		t.Fatal(err)
	}
	want("only what is open is left", 0, time.Time{})
}

// A count that lacks a partition would look like letters that were dealt with.
func TestADepthIsWholeOrAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fake, c, _ := filled(ctx, t, time.Now().Add(-time.Hour))
	fake.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		asked, ok := req.(*kmsg.ListOffsetsRequest)
		if !ok {
			return nil, nil, false
		}
		resp, _ := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, topic := range asked.Topics {
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewListOffsetsResponseTopicPartition()
				rp.Partition, rp.Offset, rp.Timestamp = p.Partition, 5, 5
				if topic.Topic == letters && p.Partition == 1 {
					rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	got, err := deadletter.Depths(ctx, c, letters, quiet)
	if _, counted := got[letters]; counted || err == nil {
		t.Errorf("a partition is missing: %+v, %v", got, err)
	}
	if denied, ok := errors.AsType[*kafka.PermissionError](err); !ok || denied.Operation != "Describe" {
		t.Errorf("got %v, want the right that is missing", err)
	}
}

func TestNoDepthWithoutACluster(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got, err := deadletter.Depths(ctx, kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}, letters); err == nil || len(got) > 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := deadletter.Depths(ctx, kafka.Cluster{}); err != nil || len(got) > 0 {
		t.Errorf("no topics: %v, %v", got, err)
	}
}
