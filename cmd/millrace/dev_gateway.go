package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/internal/gateway"
)

const (
	gatewayPort = 8085
	lookAgain   = 2 * time.Second
)

// startGateway takes in the webhooks that the sources in dir describe, whose secrets getenv knows. A fault in a file is
// shown and does not end millrace dev: the gateway begins when it is corrected. It returns where senders post.
func (d *dev) startGateway(ctx context.Context, dir string, getenv func(string) string) (url string, err error) {
	ln, err := devbroker.Listen(ctx, filepath.Join(d.dir, "gateway-address"), d.flags.gateway, gatewayPort)
	if err != nil {
		return "", fmt.Errorf("gateway: %w", err)
	}
	side, err := devbroker.Listen(ctx, filepath.Join(d.dir, "gateway-metrics-address"), "", gatewayPort+1)
	if err != nil {
		return "", errors.Join(fmt.Errorf("gateway: %w", err), ln.Close())
	}
	f := serveFlags{create: true, gateway: gatewayFlags{recordBytes: gateway.DefaultRecordBytes}}
	role, err := newGatewayRole(d.cluster, d.schemas, dir, f, nil, getenv, d.log.Named("gateway"))
	if err != nil {
		return "", errors.Join(err, ln.Close(), side.Close())
	}
	url = "http://" + ln.Addr().String()
	d.board.gatewayUp(url + "/in/NAME")
	d.stage(ctx, "gateway", func(ctx context.Context) error {
		d.whole(ctx, role)
		return role.run(ctx, ln, side)
	})
	d.watchGateway(ctx, "http://"+side.Addr().String())
	return url, nil
}

// whole waits until the sources can be loaded, and shows why they cannot.
func (d *dev) whole(ctx context.Context, role *gatewayRole) {
	last := ""
	for {
		_, err := role.gateway.Reload(ctx)
		if err == nil || ctx.Err() != nil {
			if last != "" && err == nil {
				d.board.note("webhooks are taken in: the sources are corrected")
			}
			return
		}
		if text := err.Error(); text != last {
			last = text
			d.log.Warn("load the sources of webhooks", zap.Error(err))
			d.board.note("webhooks are not taken in: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
}

// sourcesHere is the folder sources of the current directory, "" where there is none, and with the demo, which has its own.
func (d *dev) sourcesHere() string {
	if d.flags.demo {
		return ""
	}
	dir := d.path("sources")
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return dir
}
