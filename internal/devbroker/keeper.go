package devbroker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// keeper applies retention, because kfake's own ticker starts only when a topic is changed, and holds the data below
// their largest size.
type keeper struct {
	cluster *kfake.Cluster
	data    string
	max     int64
	full    func(bool)
	log     *zap.Logger
	refused *kfake.FaultHandle // nil while writes are taken
}

// keep runs until ctx ends.
func (k *keeper) keep(ctx context.Context) {
	retention, size := time.NewTicker(retentionPeriod), time.NewTicker(sizePeriod)
	defer retention.Stop()
	defer size.Stop()
	k.cluster.ApplyRetention() // what was over its time when the broker was not there
	for {
		select {
		case <-ctx.Done():
			return
		case <-retention.C:
			k.cluster.ApplyRetention()
		case <-size.C:
			k.measure()
		}
	}
}

// measure refuses writes above the largest size, and takes them again a tenth below it.
func (k *keeper) measure() {
	size, err := sizeOf(k.data)
	if err == nil && size > k.max && k.refused == nil {
		k.cluster.ApplyRetention()
		size, err = sizeOf(k.data)
	}
	switch {
	case err != nil:
		k.log.Warn("measure the data", zap.Error(err))
	case size > k.max && k.refused == nil:
		k.log.Warn("the data have reached their largest size: writes are refused until retention has made room", zap.Int64("bytes", size), zap.Int64("max", k.max))
		k.refused = k.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.PolicyViolation, Count: -1})
		k.full(true)
	case size <= k.max-k.max/10 && k.refused != nil:
		k.log.Warn("there is room again: writes are taken", zap.Int64("bytes", size))
		k.refused.Remove()
		k.refused = nil
		k.full(false)
	}
}
