package main

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"
)

const gatewayRow = "gateway"

// watchGateway brings the counters of the gateway, whose metrics are at url, to the board once a second. The gateway is
// part of this process.
func (d *dev) watchGateway(ctx context.Context, url string) {
	d.board.serve([]string{gatewayRow})
	d.stage(ctx, "gateway watch", func(ctx context.Context) error {
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		var before int64
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
			now, err := askGateway(ctx, url)
			if err != nil {
				if ctx.Err() == nil {
					d.log.Warn("look at the gateway", zap.Error(err))
				}
				continue
			}
			all := sum(now.counts)
			d.board.row(gatewayRow, func(r *row) {
				r.pid, r.state = os.Getpid(), "running"
				if now.Broken != "" {
					r.state = "old files"
				}
				r.status.Rate, r.status.Handled = float64(all.Accepted-before)/lookEvery.Seconds(), all.Accepted
				r.status.Result, r.status.Metrics = all.String(), url+"/metrics"
			})
			before = all.Accepted
		}
	})
}
