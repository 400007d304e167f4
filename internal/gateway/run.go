package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/signature"
)

// The limits of the server that are the same for every source.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 20 * time.Second // the body has its own, which is shorter
	writeTimeout      = 40 * time.Second // from the header: body, hold, answer
	idleTimeout       = 60 * time.Second
	maxHeader         = 16 << 10
	maxStreams        = 128       // of an HTTP/2 connection
	connBuffer        = 256 << 10 // what an HTTP/2 connection may send before it is read
	streamBuffer      = 128 << 10
	firstLoadWait     = time.Second
	probeEvery        = 5 * time.Second
)

var emptyRequest = &signature.Request{}

// Run loads the sources and answers on l until ctx ends, and for DrainWait more; then requests end within Drain. It closes l, HTTP/1.1 and HTTP/2
// without TLS are spoken on it. Sources that cannot be loaded end Run, unless the registry is away: that is waited for.
//
// The publisher must outlive Run: [Gateway.Close] waits for what is on its way. Run is called once.
func (g *Gateway) Run(ctx context.Context, l net.Listener) error {
	began := time.Now()
	if err := g.firstLoad(ctx); err != nil || ctx.Err() != nil {
		return errors.Join(err, l.Close())
	}
	close(g.up)
	// What looks after it goes on while requests end: ids that are acknowledged then belong into the last snapshot.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var all sync.WaitGroup
	for _, loop := range []func(context.Context){
		g.watch, g.snapshots, g.probe,
		func(ctx context.Context) { g.restore(ctx, began) },
	} {
		all.Go(func() { loop(work) })
	}
	err := g.serveHTTP(ctx, l)
	cancel()
	all.Wait()
	return err
}

// Up is closed when Run has loaded the sources and begins to answer.
func (g *Gateway) Up() <-chan struct{} { return g.up }

// firstLoad loads the sources. A registry that is away is waited for.
func (g *Gateway) firstLoad(ctx context.Context) error {
	for {
		_, err := g.Reload(ctx)
		g.cfg.Observer.Reloaded(err == nil)
		if !errors.Is(err, schemas.ErrUnavailable) {
			return err
		}
		g.log.Warn("the sources cannot be loaded yet", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(firstLoadWait):
		}
	}
}

// watch looks at the folder now and then.
func (g *Gateway) watch(ctx context.Context) {
	tick := time.NewTicker(g.cfg.Poll)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.cfg.Reload:
		}
		changed, err := g.Reload(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != last:
			last = err.Error()
			g.cfg.Observer.Reloaded(false)
			g.log.Error("the sources cannot be used as they are; those before are still in use", zap.Error(err))
		case err == nil && (changed || last != ""):
			last = ""
			g.cfg.Observer.Reloaded(true)
			g.log.Info("the sources are loaded", zap.Int("sources", len(g.sources.Load().byName)))
		}
	}
}

// probe tries to get through to Kafka while nothing does. Without it a gateway that no balancer sends anything, because
// it is not ready, would never be ready again.
func (g *Gateway) probe(ctx context.Context) {
	if g.cfg.Seen == nil {
		return
	}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !g.health.deaf(time.Now()) {
			continue
		}
		try, cancel := context.WithTimeout(ctx, probeEvery)
		if g.cfg.Seen.Append(try, "probe/"+g.cfg.Instance, appendSnapshot(nil, time.Now(), "", nil)) == nil {
			g.through()
		}
		cancel()
	}
}

// Ready reports whether webhooks should be sent here: the sources are loaded, and something got through to Kafka within
// the last 30 s, or nothing was to get through. A gateway that answers 503 for a while is ready: whoever stands before it
// would else answer in its place. One that stops is not ready, although it answers for DrainWait.
func (g *Gateway) Ready() bool {
	return g.sources.Load() != nil && !g.stopping.Load() && !g.health.deaf(time.Now())
}

// Close waits until what is on its way has an outcome, or ctx ends. Call it after Run, and close the publisher after it,
// or at once to learn the outcomes of what hangs. Requests that a drain has cut off publish nothing from here on.
func (g *Gateway) Close(ctx context.Context) error {
	select {
	case <-g.tasks.close():
		if g.cfg.Seen != nil { // what was acknowledged since Run ended
			g.snapshot(ctx, fmt.Sprintf("%s/%s/end", g.cfg.Instance, strconv.FormatInt(time.Now().UnixNano(), 36)))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close gateway: the outcome of some webhooks is unknown: %w", ctx.Err())
	}
}

// serveHTTP answers on l until ctx ends.
func (g *Gateway) serveHTTP(ctx context.Context, l net.Listener) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: connBuffer, MaxReceiveBufferPerStream: streamBuffer,
			SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: 15 * time.Second,
		},
		BaseContext:                  func(net.Listener) context.Context { return requests },
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     zap.NewStdLog(g.log.WithOptions(zap.IncreaseLevel(zap.ErrorLevel))),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(newListener(l, g.peers, g.cfg.MaxConns)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve webhooks on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	g.stopping.Store(true)
	select {
	case err := <-served:
		return fmt.Errorf("serve webhooks on %s: %w", l.Addr(), err)
	case <-time.After(g.cfg.DrainWait):
	}
	drain, cancel := context.WithTimeout(requests, g.cfg.Drain)
	defer cancel()
	err := srv.Shutdown(drain)
	if err != nil {
		cut()
		err = errors.Join(fmt.Errorf("stop webhooks on %s: requests were cut off after %v", l.Addr(), g.cfg.Drain), srv.Close())
	}
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}
