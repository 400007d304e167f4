package consumer

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// graves copies records to <topic>.<group>.dlq.
type graves struct {
	client *kgo.Client
	group  string
}

func (g graves) bury(ctx context.Context, r *kgo.Record, why failure) error {
	copied := &kgo.Record{Topic: r.Topic + "." + g.group + ".dlq", Key: r.Key, Value: r.Value, Headers: r.Headers}
	return g.client.ProduceSync(ctx, copied).FirstErr()
}
