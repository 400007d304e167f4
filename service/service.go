// Package service is a service author's main: it reads flags and MILLRACE_* variables, logs, connects, runs what the
// author wires, and stops in order. It and the millrace command are the only places that wire the other packages.
//
//	func main() {
//		service.Main("shipping", func(ctx context.Context, s *service.Service) error {
//			p, err := s.Producer(producer.Config{})
//			if err != nil {
//				return err
//			}
//			shipping := &Shipping{Events: p}
//			mux := consumer.NewMux()
//			consumer.On(mux, shipping.OrderPlaced)
//			s.Consume(mux, consumer.Config{Topics: []string{"shop.orders"}})
//			return nil
//		})
//	}
//
// # Life
//
// The author's function wires and returns; consumers and loops run from then on, side by side. A signal, or the
// first that ends with an error, ends all: their context is cancelled and they have [StopTimeout] to return.
// Producers are closed after them, so that what was published on the way out is sent. When everything has ended by
// itself, the service ends too; a second signal ends the process at once, unless it follows within a quarter of a
// second: supervisors send one signal twice.
//
// # Metrics and health
//
// With --metrics the service answers HTTP there: /metrics for Prometheus (package metrics), /healthz as long as the
// process lives, and /readyz with 200 while it can do its work. It cannot before each consumer was assigned partitions,
// or was found to be one more than there are partitions for; while the cluster or the registry does not answer for half
// a minute, nor a partition moves on for as long because of an error; and from the moment it is told to stop. Without
// the flag nothing listens and nothing is measured.
//
// # Pause
//
// A consumer whose group is told to pause (millrace groups pause, or groups offsets apply --coordinated) finishes what it
// is at, commits, leaves its group, and waits until it is told to go on, or until the pause ends by itself. The service
// lives on and is ready; its status and /readyz say by whom it was paused. It is told by the topic of
// [groups.ControlTopic], which it reads with no group; where that is missing nobody is told anything. --control=false
// listens to nobody.
//
// # Replay
//
// With --replay NAME --replay-from -1h the same program runs its handlers over a stretch of the past, in shadow: it is no
// member of any group, and what it was given is guarded, so that nothing live changes. [Service.ReplaySafe] says what is
// guarded and what is not. It ends when the range does, and the same name goes on after a stop or a crash. --replay-mode
// rewind moves the service's groups back instead, rebuild builds the tables of its sinks anew; both then end.
//
// # Exit codes
//
// 0: ended by itself or stopped in order. 1: an error, or not stopped in time. 2: a flag or variable is wrong.
// 130: ended at once by a second signal.
package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

// The time limits of a service's life.
const (
	// StopTimeout is how long consumers and loops may take to return once the service is to end.
	StopTimeout = 30 * time.Second
	// CloseTimeout is how long producers may take to send what is left, after that.
	CloseTimeout = 10 * time.Second
	// HTTPTimeout bounds a call of [Service.HTTP], body included.
	HTTPTimeout = 30 * time.Second
)

// Service is what the author's function wires with. Its methods are for that function alone: what is added after it
// has returned does not run.
type Service struct {
	// Name names the service: the default group of its consumers, the source of its events.
	Name string
	// Cluster is the cluster that the settings describe.
	Cluster kafka.Cluster
	// Schemas is the registry that the settings describe.
	Schemas *schemas.Registry
	// Log writes to stderr, each line with the service's name.
	Log *zap.Logger

	createTopics bool
	control      bool      // may be told to pause
	pauses       *pauses   // nil without a consumer that may be
	listen       string    // for metrics
	watching     *watching // nil without listen
	movers       []mover
	producers    []*producer.Producer
	atEnd        []func() error
	http         *http.Client
	stats        *stats
	replaying    *replaying // nil without --replay
}

// mover is something long-lived: it runs until its context ends.
type mover struct {
	name string
	run  func(ctx context.Context) error
}

// Main runs the service until it is told to stop, and exits the process. It is the whole main of a program.
func Main(name string, wire func(ctx context.Context, s *Service) error) {
	ctx, end := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2) // both are kept, however close they come
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		end()
		for told := time.Now(); ; {
			<-signals
			if time.Since(told) > echo {
				os.Exit(interrupted) //nolint:forbidigo // this is a program's main
			}
		}
	}()
	os.Exit(Run(ctx, name, os.Args[1:], os.Getenv, os.Stderr, wire)) //nolint:forbidigo // this is a program's main
}

// interrupted is the exit code after a second signal.
const interrupted = 130

// echo is how long after the first a signal is the same one again: timeout(1) and other supervisors send it to the
// process and to its group. Taken for a second, it would end a consumer that has not left its group yet, and the
// partitions would stand still until the session timeout.
const echo = 250 * time.Millisecond

// Run is [Main] as a function: the caller brings signals as ctx, the arguments, the environment and stderr, and
// gets the exit code.
func Run(ctx context.Context, name string, args []string, env func(string) string, stderr io.Writer, wire func(ctx context.Context, s *Service) error) int {
	s, err := configure(name, args, env, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 2
	}
	defer s.Log.Sync()
	if err := s.run(ctx, env, wire); err != nil {
		s.Log.Error("the service ended with an error", zap.Error(err))
		return 1
	}
	s.Log.Info("the service ended")
	return 0
}

// configure reads the settings: flags over variables over defaults.
func configure(name string, args []string, env func(string) string, stderr io.Writer) (*Service, error) {
	settings := Settings{ClientID: name}
	if err := settings.FromEnv(env); err != nil {
		return nil, err
	}
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // what is wrong is said once, by the caller
	settings.Register(fs)
	const create = "create-topics"
	const control = "control"
	s := &Service{Name: name, http: &http.Client{Timeout: HTTPTimeout}, stats: newStats(name), control: true}
	for name, into := range map[string]*bool{create: &s.createTopics, control: &s.control} {
		if v := env(Env(name)); v != "" {
			var err error
			if *into, err = parseBool(v); err != nil {
				return nil, fmt.Errorf("%s: %w", Env(name), err)
			}
		}
	}
	fs.BoolVar(&s.createTopics, create, s.createTopics, "create missing dead-letter topics at start ["+Env(create)+"]")
	fs.BoolVar(&s.control, control, s.control, "pause and resume when millrace groups says so ["+Env(control)+"]")
	const metrics = "metrics"
	s.listen = env(Env(metrics))
	fs.StringVar(&s.listen, metrics, s.listen, "serve /metrics, /healthz and /readyz on this `address`, :9090 in a container; without a login ["+Env(metrics)+"]")
	var again replayFlags
	again.register(fs, env)
	fs.Usage = func() {}
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stderr, "%s is a Millrace service. Every flag is also a variable; flags win.\n\n", name)
		fs.SetOutput(stderr)
		fs.PrintDefaults()
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("%w: see %s -h", err, name)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: %s takes flags only, see %s -h", fs.Arg(0), name, name)
	}
	var err error
	if s.replaying, err = again.parse(time.Now()); err != nil {
		return nil, err
	}
	log, err := settings.Logger(zapcore.Lock(zapcore.AddSync(stderr)))
	if err != nil {
		return nil, err
	}
	s.Log = log.With(zap.String("service", name))
	if s.Cluster, err = settings.Cluster(); err != nil {
		return nil, err
	}
	s.Cluster.Log = s.Log
	if s.Schemas, err = settings.Registry(s.Log); err != nil {
		return nil, err
	}
	return s, nil
}

// Producer returns a producer on the service's cluster and registry. Source defaults to the service's name. It is
// closed when the service ends; do not close it.
func (s *Service) Producer(cfg producer.Config) (*producer.Producer, error) {
	if cfg.Source == "" {
		cfg.Source = s.Name
	}
	if cfg.Log == nil {
		cfg.Log = s.Log
	}
	if s.watching != nil {
		all := publishers{s.watching.metrics.Producer()}
		if cfg.Observer != nil {
			all = append(all, cfg.Observer)
		}
		cfg.Observer = all
	}
	cfg.Observer = s.stats.published(cfg.Observer)
	if s.replaying != nil {
		s.shadowProducer(&cfg)
	}
	p, err := producer.New(s.live(), s.Schemas, cfg)
	if err != nil {
		return nil, err
	}
	s.producers = append(s.producers, p)
	return p, nil
}

// HTTP returns the client that handlers call other services with. A call takes at most [HTTPTimeout].
func (s *Service) HTTP() *http.Client { return s.http }

// Consume runs a consumer. Group defaults to the service's name, Log to the service's, and CreateTopics is set by
// the flag --create-topics too.
func (s *Service) Consume(mux *consumer.Mux, cfg consumer.Config) {
	if cfg.Group == "" {
		cfg.Group = s.Name
	}
	if cfg.Log == nil {
		cfg.Log = s.Log
	}
	cfg.CreateTopics = cfg.CreateTopics || s.createTopics
	var own []kgo.Hook
	if s.watching != nil {
		member := s.watching.health.consumer(cfg.Group)
		own = append(own, member)
		all := observers{member, s.watching.metrics.Consumer(cfg.Group)}
		if cfg.Observer != nil {
			all = append(all, cfg.Observer)
		}
		cfg.Observer = all
	}
	cfg.Observer = s.stats.observe(cfg.Observer)
	if s.replaying != nil {
		s.consumeAgain(mux, cfg)
		return
	}
	consume := func(ctx context.Context) error {
		s.Log.Info("consuming", zap.String("group", cfg.Group), zap.Strings("topics", cfg.Topics))
		c := s.Cluster
		c.Hooks = append(slices.Clip(c.Hooks), own...)
		return consumer.Run(ctx, c, s.Schemas, mux, cfg)
	}
	if s.control {
		consume = s.pausable(cfg.Group, consume)
	}
	s.Go("consume as "+cfg.Group, consume)
}

// Go runs loop beside the consumers, until ctx ends. An error ends the service; nil ends only the loop. name stands
// in the error. In a replay it does not start.
func (s *Service) Go(name string, loop func(ctx context.Context) error) {
	if s.replaying != nil {
		s.Log.Info("a loop does not start in a replay", zap.String("loop", name))
		return
	}
	s.movers = append(s.movers, mover{name, loop})
}

// AtEnd calls f when consumers, sinks and loops have ended: for what they use, like the pool of a database. The last one is
// called first. Its error is the service's.
func (s *Service) AtEnd(f func() error) { s.atEnd = append(s.atEnd, f) }

// Report gives the service one line that says how it stands, for status screens: "42 orders, 1,234.50 EUR". It is
// called once a second from another goroutine.
func (s *Service) Report(line func() string) { s.stats.report(line) }

// run wires, runs and stops the service.
func (s *Service) run(ctx context.Context, env func(string) string, wire func(ctx context.Context, s *Service) error) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	stopStatus, err := s.status(env)
	if err != nil {
		return err
	}
	defer stopStatus()
	stopServing, err := s.watch(ctx)
	if err != nil {
		return err
	}
	defer stopServing()
	if err := s.Cluster.Ping(ctx); err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	if s.replaying != nil {
		return s.runReplay(ctx, wire)
	}
	err = wire(ctx, s)
	if err == nil {
		s.stats.set("running")
		stopAsking, stopListening := s.ask(ctx), s.listenForPauses(ctx)
		err = s.move(ctx)
		stopListening()
		stopAsking()
	}
	s.stats.set("stopping")
	end()
	return errors.Join(err, s.close(context.WithoutCancel(ctx)))
}

// move runs the movers until all have ended, or until StopTimeout after the first error or the end of ctx.
func (s *Service) move(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		still = map[string]int{}
	)
	for _, m := range s.movers {
		still[m.name]++
		wg.Go(func() {
			err := m.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			if still[m.name]--; still[m.name] == 0 {
				delete(still, m.name)
			}
			if err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
				end()
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		s.stats.set("stopping")
		s.Log.Info("stopping", zap.Duration("at_most", StopTimeout))
		late := time.NewTimer(StopTimeout)
		defer late.Stop()
		select {
		case <-ended:
		case <-late.C:
			mu.Lock()
			defer mu.Unlock()
			for name := range still {
				errs = append(errs, fmt.Errorf("%s: not ended within %s", name, StopTimeout))
			}
		}
	}
	return errors.Join(errs...)
}

// close sends what the producers still hold. ctx is not the service's, which has ended: this has a deadline of its own.
func (s *Service) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, CloseTimeout)
	defer cancel()
	var errs []error
	for _, p := range s.producers {
		if err := p.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("close the producer: %w", err))
		}
	}
	for _, f := range slices.Backward(s.atEnd) {
		if err := f(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
