package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/internal/registry"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/metrics"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

const registryPort = 8081

// startRegistry serves a registry in this process and waits until it answers.
func (d *dev) startRegistry(ctx context.Context) error {
	ln, err := devbroker.Listen(ctx, filepath.Join(d.dir, "registry-address"), d.flags.registry, registryPort)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	role := newRegistryRole(d.cluster, true, d.log.Named("registry"))
	d.stage(ctx, "registry", func(ctx context.Context) error { return role.run(ctx, ln) })
	if err := d.await(ctx, "the registry", role.up, registryUp); err != nil {
		return err
	}
	d.addrs.Registry = "http://" + ln.Addr().String()
	d.schemas, err = schemas.New(schemas.Config{URLs: []string{d.addrs.Registry}, Log: d.log})
	d.board.registryUp(d.addrs.Registry)
	return err
}

// declareHere brings what the current directory declares to the broker and the registry. A fault in a file is shown and
// does not end millrace dev: the file is corrected and applied while it runs.
func (d *dev) declareHere(ctx context.Context) error {
	here := os.DirFS(d.path("."))
	if info, err := fs.Stat(here, "topics"); err != nil || !info.IsDir() {
		return nil //nolint:nilerr // nothing is declared here
	}
	specs, err := d.declare(ctx, here)
	d.board.declared(specs)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.log.Warn("declare the current directory", zap.Error(err))
	d.board.note("%v", err)
	d.board.note("correct the files, then:  millrace topics apply && millrace schemas register schemas")
	return nil
}

// declare applies topics/*.yaml and registers schemas/*.avsc of files.
func (d *dev) declare(ctx context.Context, files fs.FS) ([]topics.Spec, error) {
	sub, err := fs.Sub(files, "topics")
	if err != nil {
		return nil, err
	}
	specs, err := topics.Load(sub)
	if err != nil {
		return nil, fmt.Errorf("topics: %w", err)
	}
	alone(specs)
	have, err := topics.Have(ctx, d.cluster)
	if err != nil {
		return nil, err
	}
	plan := slices.DeleteFunc(topics.Plan(specs, have), func(c topics.Change) bool { return c.What == topics.Unmanaged })
	if _, err := topics.Apply(ctx, d.cluster, plan, false); err != nil {
		return specs, fmt.Errorf("topics: %w", err)
	}
	if d.schemas == nil {
		return specs, nil
	}
	return specs, d.register(ctx, files, specs)
}

// alone makes specs fit a cluster of one broker.
func alone(specs []topics.Spec) {
	for i := range specs {
		specs[i].Replicas = 0
		delete(specs[i].Config, "min.insync.replicas")
	}
}

func (d *dev) register(ctx context.Context, files fs.FS, specs []topics.Spec) error {
	found, err := fs.Glob(files, "schemas/*.avsc")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range found {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("read schema: %w", err)
		}
		s, err := schemas.Parse(string(text))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		for _, subject := range subjectsOf(path.Base(name), s.Name, specs) {
			if _, err := d.schemas.Register(ctx, subject, s.Text); err != nil {
				errs = append(errs, fmt.Errorf("register %s as %s: %w", name, subject, err))
			}
		}
	}
	return errors.Join(errs...)
}

// registryRole is a registry behind HTTP, with its health and metrics.
type registryRole struct {
	reg     *registry.Registry
	metrics *metrics.Metrics
	log     *zap.Logger
	err     error         // of New
	up      chan struct{} // closed when it answers for the first time
}

func newRegistryRole(c kafka.Cluster, create bool, log *zap.Logger) *registryRole {
	r := &registryRole{log: log, up: make(chan struct{})}
	if r.metrics, r.err = metrics.New(nil); r.err != nil {
		return r
	}
	c.Hooks = append(slices.Clip(c.Hooks), r.metrics.Hooks()...)
	store := registry.Kafka(c, registry.KafkaConfig{Create: create, Log: log})
	r.reg, r.err = registry.New(store, registry.Config{Log: log})
	return r
}

// run serves on ln until ctx ends. Before the registry has answered once, an error of its store ends run; later the store
// is opened again, and meanwhile the registry answers 503.
func (r *registryRole) run(ctx context.Context, ln net.Listener) error {
	if r.err != nil {
		return errors.Join(r.err, ln.Close())
	}
	return serveHTTP(ctx, ln, r.handler(), r.log, func(ctx context.Context) error {
		go func() {
			if r.reg.AwaitReady(ctx) == nil {
				close(r.up)
			}
		}()
		return again(ctx, r.log, r.up, r.reg.Run)
	})
}

func (r *registryRole) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.metrics.Handler())
	mux.Handle("/", r.metrics.Registry(r.reg))
	return withHealth(mux, r.reg.Ready)
}
