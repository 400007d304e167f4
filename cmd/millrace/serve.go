package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/internal/web"
	"github.com/millrace/millrace/service"
)

// serveDrain is how long requests may go on when a role is told to stop.
const serveDrain = 3 * time.Second

// roles are what millrace serve can be.
var roles = []struct{ name, what string }{
	{"registry", "a schema registry for Avro, stored in the topic _schemas"},
	{"gateway", "takes webhooks in: POST /in/NAME, for each sources/NAME.yaml"},
	{"sink", "writes events to tables and files, as the file that -f names says"},
}

type serveFlags struct {
	listen  string // "" is the role's own default
	create  bool
	gateway gatewayFlags
	sink    string // the sink's file
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	var long strings.Builder
	long.WriteString("Run a role of Millrace against a cluster, until it is told to stop. Each has /healthz, /readyz and /metrics.\n\nRoles:\n")
	for _, r := range roles {
		fmt.Fprintf(&long, "  %-10s %s\n", r.name, r.what)
	}
	cmd := &cobra.Command{
		Use: "serve ROLE", Short: "Run a role: registry, gateway, sink", Long: long.String(),
		Example: "  millrace serve registry -B kafka-1:9092\n  millrace serve registry --listen 0.0.0.0:8081 --create-topics\n  millrace serve gateway --sources sources --listen 0.0.0.0:8085\n  millrace serve sink -f sink.yaml --metrics 0.0.0.0:9090",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.serve(cmd.Context(), args, f) },
	}
	cmd.Flags().StringVar(&f.listen, "listen", a.getenv(service.Env("listen")), "answer HTTP on this `address`; a registry asks for no login, so keep it in your own network. Defaults to 127.0.0.1:8081, a gateway's to 127.0.0.1:8085 [MILLRACE_LISTEN]")
	cmd.Flags().BoolVar(&f.create, "create-topics", a.getenv(service.Env("create-topics")) == "true", "create the role's own topics when they are missing [MILLRACE_CREATE_TOPICS]")
	f.gateway.register(cmd.Flags(), a.getenv)
	cmd.Flags().StringVarP(&f.sink, "file", "f", "", "sink: the `file` that describes it")
	return cmd
}

func (a *app) serve(ctx context.Context, args []string, f serveFlags) error {
	known := make([]string, 0, len(roles))
	for _, r := range roles {
		known = append(known, fmt.Sprintf("%s: %s", r.name, r.what))
	}
	switch {
	case len(args) == 0:
		return hint(usage(errors.New("name a role")), known...)
	case len(args) > 1 || !slices.ContainsFunc(roles, func(r struct{ name, what string }) bool { return r.name == args[0] }):
		return hint(usage(fmt.Errorf("there is no role %q", args[len(args)-1])), known...)
	case args[0] == "gateway":
		return a.serveGateway(ctx, f)
	case args[0] == "sink" && f.sink == "":
		return hint(usage(errors.New("name the sink's file")), "millrace serve sink -f sink.yaml", "see how one is written:  millrace sink --help")
	case args[0] == "sink":
		return a.runSink(ctx, f.sink, f.gateway.metrics, f.create, false) // evolve is said in the file
	}
	if f.listen == "" {
		f.listen = "127.0.0.1:8081"
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
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", f.listen)
	if err != nil {
		return hint(fmt.Errorf("listen: %w", err), "choose another address:  millrace serve registry --listen 127.0.0.1:0")
	}
	role := newRegistryRole(c, f.create, log.With(zap.String("role", "registry")))
	go func() {
		select {
		case <-role.up:
			log.Info("registry answers", zap.String("url", "http://"+ln.Addr().String()))
		case <-ctx.Done():
		}
	}()
	if err := role.run(ctx, ln); err != nil {
		return err
	}
	log.Info("registry stopped")
	return nil
}

// serveHTTP answers on ln with h while loop runs. The end of either ends the other; both ended is the end.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler, log *zap.Logger, loop func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	looped := make(chan error, 1)
	go func() {
		defer cancel()
		looped <- loop(ctx)
	}()
	err := web.Serve(ctx, ln, h, web.Config{Drain: serveDrain, Log: log})
	cancel()
	return errors.Join(<-looped, err)
}

// again runs loop anew when it ends with an error, after a growing wait, from the moment that up is closed. Before that
// an error is final: it is a matter of settings or rights.
func again(ctx context.Context, log *zap.Logger, up <-chan struct{}, loop func(ctx context.Context) error) error {
	wait := 250 * time.Millisecond
	for {
		began := time.Now()
		err := loop(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop
		}
		select {
		case <-up:
		default:
			return err
		}
		if time.Since(began) > time.Minute {
			wait = 250 * time.Millisecond
		}
		log.Error("the role's work ended and is begun again", zap.Duration("wait", wait), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, 10*time.Second)
	}
}

// withHealth puts /healthz (the process answers) and /readyz (so does the role) before h.
func withHealth(h http.Handler, ready func() bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "not ready: the records are being read", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("/", h)
	return mux
}
