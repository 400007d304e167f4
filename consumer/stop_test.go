package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/consumer"
)

// A consumer that is told to stop has stopped in order, however far its start had come: once it was an error while it was
// still making its dead letters' topics, and a service that was stopped soon after its start exited with 1.
func TestAStopDuringTheStartIsNoError(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{
		kmsg.ApiVersions, kmsg.Metadata, kmsg.DescribeConfigs, kmsg.CreateTopics,
		kmsg.FindCoordinator, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetFetch, kmsg.ListOffsets, kmsg.Fetch,
	} {
		t.Run("at "+key.Name(), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "shop.orders")
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			c.fake.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
				stop()
				return nil, nil, false
			})
			late := time.AfterFunc(30*time.Second, stop)
			mux := consumer.NewMux()
			consumer.On(mux, new(handled).order)
			if err := consumer.Run(ctx, c.Cluster, c.reg, mux, config()); err != nil {
				t.Errorf("got %v, want nil", err)
			}
			if !late.Stop() {
				t.Error("the request was never made")
			}
		})
	}
	t.Run("before it", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, "shop.orders")
		ctx, stop := context.WithCancel(t.Context())
		stop()
		mux := consumer.NewMux()
		consumer.On(mux, new(handled).order)
		if err := consumer.Run(ctx, c.Cluster, c.reg, mux, config()); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
}
