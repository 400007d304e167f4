package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/internal/web"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/metrics"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// gatewayDrain is how long a gateway waits for the outcome of what it has handed to Kafka, once nobody waits for an answer.
const gatewayDrain = 5 * time.Second

// gatewayFlags are the flags of the role gateway alone.
type gatewayFlags struct {
	sources     string
	metrics     string
	instance    string
	proxies     []string
	recordBytes int
	drainWait   time.Duration
}

func (f *gatewayFlags) register(fs *pflag.FlagSet, getenv func(string) string) {
	fs.StringVar(&f.sources, "sources", "sources", "gateway: the `folder` with a file for each sender")
	listen := getenv(service.Env("metrics"))
	if listen == "" {
		listen = "127.0.0.1:9090"
	}
	fs.StringVar(&f.metrics, "metrics", listen, "gateway, sink: serve /metrics, /healthz, /readyz (a gateway also /sources) on this `address`, without a login [MILLRACE_METRICS]")
	fs.StringVar(&f.instance, "instance", "", "gateway: a `name` that no other gateway of this cluster has. Defaults to the host's")
	fs.StringSliceVar(&f.proxies, "proxies", nil, "gateway: `networks` of load balancers whose X-Forwarded-For is believed, as 10.0.0.0/8")
	fs.DurationVar(&f.drainWait, "drain-wait", 0, "gateway: answer for so long after it is told to stop, with /readyz saying no: a `time` in which the balancer sees that")
	fs.IntVar(&f.recordBytes, "record-bytes", gateway.DefaultRecordBytes, "gateway: the largest record that is written, a body and 64 KiB; its topics' max.message.bytes may not be below it. Bodies of 1 MiB need 1114112 in both places")
}

// gatewayRole is a gateway with its producer, health and metrics.
type gatewayRole struct {
	gateway  *gateway.Gateway
	producer *producer.Producer
	metrics  *metrics.Metrics
	log      *zap.Logger
}

// newGatewayRole returns a gateway that reads its sources in dir.
func newGatewayRole(c kafka.Cluster, reg *schemas.Registry, dir string, f serveFlags, reload <-chan struct{}, getenv func(string) string, log *zap.Logger) (*gatewayRole, error) {
	r := &gatewayRole{log: log}
	var err error
	if r.metrics, err = metrics.New(nil); err != nil {
		return nil, err
	}
	observer, err := r.metrics.Gateway()
	if err != nil {
		return nil, err
	}
	proxies, err := networks(f.gateway.proxies)
	if err != nil {
		return nil, usage(err)
	}
	if f.gateway.recordBytes < 2*gateway.RecordRoom || f.gateway.recordBytes > 32<<20 {
		return nil, usage(fmt.Errorf("--record-bytes %d: %d to %d is allowed", f.gateway.recordBytes, 2*gateway.RecordRoom, 32<<20))
	}
	if f.gateway.drainWait < 0 || f.gateway.drainWait > time.Minute {
		return nil, usage(fmt.Errorf("--drain-wait %v: 0s to 1m is allowed", f.gateway.drainWait))
	}
	c.Hooks = append(slices.Clip(c.Hooks), r.metrics.Hooks()...)
	r.producer, err = producer.New(c, nil, producer.Config{
		Linger: -1, BatchBytes: int32(f.gateway.recordBytes), Observer: r.metrics.Producer(), Log: log,
	})
	if err != nil {
		return nil, err
	}
	r.gateway, err = gateway.New(r.producer, reg, gateway.Config{
		Folder:  gateway.Folder{Dir: dir, Getenv: getenv, MaxBody: int64(f.gateway.recordBytes - gateway.RecordRoom)},
		Reload:  reload,
		Prepare: gateway.Topics{Cluster: c, Registry: reg, Create: f.create, RecordBytes: f.gateway.recordBytes}.Prepare,
		Seen:    gateway.KafkaSeen(c, r.producer), Instance: f.gateway.instance, Proxies: proxies, DrainWait: f.gateway.drainWait,
		Observer: observer, Log: log,
	})
	return r, err
}

func networks(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("--proxies %s: write a network as 10.0.0.0/8", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// run answers webhooks on ln, and those who look after it on side, until ctx ends. It closes both.
func (r *gatewayRole) run(ctx context.Context, ln, side net.Listener) error {
	watched, stop := context.WithCancel(context.WithoutCancel(ctx)) // it answers while the gateway stops
	var aside sync.WaitGroup
	aside.Go(func() {
		if err := web.Serve(watched, side, r.handler(), web.Config{MaxBody: 1 << 10, MaxConns: 64, Drain: time.Second, Log: r.log}); err != nil {
			r.log.Error("metrics are not served any more", zap.Error(err))
		}
	})
	err := r.gateway.Run(ctx, ln)
	end, cancel := context.WithTimeout(watched, gatewayDrain)
	defer cancel()
	// The producer's end tells the outcome of what hangs.
	err = errors.Join(err, r.gateway.Close(end), r.producer.Close(end))
	stop()
	aside.Wait()
	return err
}

// handler is for those who look after the gateway: its senders never reach it.
func (r *gatewayRole) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.metrics.Handler())
	mux.HandleFunc("GET /sources", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		// Who has gone meanwhile needs no answer.
		_ = json.NewEncoder(w).Encode(map[string]any{"sources": r.gateway.Status(), "broken": r.gateway.Broken()})
	})
	mux.HandleFunc("POST /sources/{name}/pass", func(w http.ResponseWriter, req *http.Request) {
		n, err := strconv.ParseUint(req.FormValue("repeats"), 10, 16)
		switch {
		case err != nil:
			web.Error(w, http.StatusBadRequest, "repeats is a number: so many are published all the same")
		case !r.gateway.PassRepeats(req.PathValue("name"), int(n)):
			web.Error(w, http.StatusNotFound, "there is no such source")
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	return withHealth(mux, r.gateway.Ready)
}

// serveGateway is millrace serve gateway.
func (a *app) serveGateway(ctx context.Context, f serveFlags) error {
	if f.listen == "" {
		f.listen = "127.0.0.1:8085"
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	settings := a.settings
	log, err := settings.Logger(zapcore.Lock(zapcore.AddSync(a.err)))
	if err != nil {
		return usage(err)
	}
	c.Log = log
	reg, _, err := a.registry()
	if err != nil {
		return err
	}
	if f.gateway.instance == "" {
		if f.gateway.instance, err = os.Hostname(); err != nil {
			return fmt.Errorf("ask for the host's name, which --instance says otherwise: %w", err)
		}
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	wake := make(chan struct{})
	go func() {
		for {
			select {
			case <-reload:
				select {
				case wake <- struct{}{}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	role, err := newGatewayRole(c, reg, a.path(f.gateway.sources), f, wake, a.getenv, log.With(zap.String("role", "gateway")))
	if err != nil {
		return err
	}
	ln, side, err := listenBoth(ctx, f.listen, f.gateway.metrics)
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-role.gateway.Up():
			log.Info("gateway answers", zap.String("url", "http://"+ln.Addr().String()), zap.String("metrics", "http://"+side.Addr().String()+"/metrics"),
				zap.Int("sources", len(role.gateway.Status())))
		case <-ctx.Done():
		}
	}()
	if err := role.run(ctx, ln, side); err != nil {
		return err
	}
	log.Info("gateway stopped")
	return nil
}

// listenBoth opens the two ports of a gateway.
func listenBoth(ctx context.Context, public, private string) (ln, side net.Listener, err error) {
	var lc net.ListenConfig
	if ln, err = lc.Listen(ctx, "tcp", public); err != nil {
		return nil, nil, hint(fmt.Errorf("listen: %w", err), "choose another address:  millrace serve gateway --listen 127.0.0.1:0")
	}
	if side, err = lc.Listen(ctx, "tcp", private); err != nil {
		return nil, nil, hint(errors.Join(fmt.Errorf("listen for metrics: %w", err), ln.Close()), "choose another address:  millrace serve gateway --metrics 127.0.0.1:0")
	}
	return ln, side, nil
}
