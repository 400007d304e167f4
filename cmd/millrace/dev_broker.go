package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/service"
)

// brokerCommand is the child process of millrace dev that holds the broker.
func (a *app) brokerCommand() *cobra.Command {
	var cfg devbroker.Config
	cmd := &cobra.Command{
		Use: "broker", Short: "The embedded broker, as a child of millrace dev", Hidden: true,
		Args: nothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.getenv(service.StatusEnv) == "" {
				return hint(usage(errors.New("the broker is a child process of millrace dev")), "millrace dev")
			}
			log, err := (&service.Settings{LogLevel: "warn"}).Logger(zapcore.AddSync(os.Stderr))
			if err != nil {
				return err
			}
			cfg.Log = log.With(zap.Int("pid", os.Getpid()))
			return devbroker.Child(cmd.Context(), cfg, a.in, os.NewFile(devbroker.StatusFD, service.StatusEnv))
		},
	}
	cmd.Flags().StringVar(&cfg.Dir, "dir", "", "the broker's `folder`")
	cmd.Flags().StringVar(&cfg.Addr, "addr", "", "listen on this loopback `address`")
	cmd.Flags().BoolVar(&cfg.SyncWrites, "sync-writes", false, "flush each write to the disk")
	return cmd
}

// child is a command line of our own binary with the environment of a child: it reports on descriptor 3, and its heap
// stays small.
func (d *dev) child(ctx context.Context, limit string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.self, args...)
	cmd.Dir = d.app.dir
	cmd.Env = append(os.Environ(), service.StatusEnv+"=3", "GOMEMLIMIT="+limit)
	return cmd
}

// startBroker starts the broker's child process and waits until it answers.
func (d *dev) startBroker(ctx context.Context) error {
	log, err := d.openLog("broker")
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(filepath.Join(d.dir, "broker"))
	if err != nil {
		return err
	}
	var (
		up   = make(chan struct{})
		once sync.Once
	)
	d.stage(ctx, "broker", func(ctx context.Context) error {
		defer log.Close() //nolint:errcheck // a log that is not flushed has nobody to tell
		return devbroker.Supervise(ctx, devbroker.Supervisor{
			Command: func(ctx context.Context, addr string) *exec.Cmd {
				args := []string{"broker", "--dir", dir, "--addr", addr}
				if d.flags.sync {
					args = append(args, "--sync-writes")
				}
				return d.child(ctx, "96MiB", args...)
			},
			Addr: d.flags.broker,
			Log:  log,
			Up: func(u devbroker.Up) {
				d.board.brokerUp(u)
				once.Do(func() {
					d.addrs.Broker = u.Addr
					close(up)
				})
			},
			Full: d.board.brokerFull,
			Down: func(down devbroker.Down) {
				d.log.Error("broker crashed", zap.Int("pid", down.PID), zap.String("state", down.State), zap.String("last_words", down.LastWords))
				d.board.brokerDown(down)
			},
		})
	})
	if err := d.await(ctx, "the broker", up, brokerUp); err != nil {
		return err
	}
	d.cluster = kafka.Cluster{Seeds: []string{d.addrs.Broker}, ClientID: "millrace-dev", Log: d.log}
	return nil
}
