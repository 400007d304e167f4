package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// How long the parts of millrace dev may take to come up.
const (
	brokerUp   = 20 * time.Second // a full data directory takes a second or two
	registryUp = 10 * time.Second
)

// devFlags are the flags of millrace dev.
type devFlags struct {
	data         string // the directory with everything it keeps
	broker       string // address to listen on; "" = the remembered one
	registry     string // the same
	gateway      string // the same
	noRegistry   bool
	demo         bool
	sync         bool
	fresh        bool
	length       time.Duration // 0 = until it is told to stop
	port, second int           // as typed
	third        int
}

func (a *app) devCommand() *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a broker, a registry and, with --demo, a shop on this machine",
		Long: `Run a cluster for development on this machine: one embedded broker, a schema registry, and what topics/*.yaml and
schemas/*.avsc of the current directory declare. Where it has a folder sources, webhooks are taken in as its files say.
Nothing has to be installed, everything is kept under .millrace, and the next start goes on where this one stopped. It
listens on 127.0.0.1 only.

The broker is not replicated: for production use Apache Kafka. A kill at any moment loses no acknowledged event, repeats
none of an idempotent producer, and leaves transactions whole; transactions need a client of Kafka 4.0's protocol. Only
with --sync does that hold for a power failure too. What it cannot promise: the positions that a transaction commits may
be lost when it is killed in the middle of the commit, and are then read again; a disk that fails loses what it held;
compacted topics are not compacted.

It holds 2 GiB; above it producers get POLICY_VIOLATION. A partition keeps 256 MiB unless its topic sets retention.bytes.`,
		Example: "  millrace dev\n  millrace dev --demo\n  millrace dev --sync\n  millrace dev --port 0 --data /tmp/other",
		Args:    nothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if f.broker, err = loopbackPort(cmd, "port", f.port); err != nil {
				return err
			}
			if f.registry, err = loopbackPort(cmd, "registry-port", f.second); err != nil {
				return err
			}
			if f.gateway, err = loopbackPort(cmd, "gateway-port", f.third); err != nil {
				return err
			}
			if f.demo && f.noRegistry {
				return usage(errors.New("--demo needs the registry: leave out --no-registry"))
			}
			return a.dev(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.demo, "demo", false, "run the demo shop: a storefront, a payment provider that calls back, and four services")
	fs.StringVar(&f.data, "data", ".millrace", "keep everything in this `folder`")
	fs.IntVar(&f.port, "port", 9092, "the broker's `port`; 0 picks a free one. Defaults to the last one here, at first to 9092 or a free one")
	fs.IntVar(&f.second, "registry-port", 8081, "the registry's `port`; as --port")
	fs.IntVar(&f.third, "gateway-port", 8085, "the `port` that takes webhooks in, where there is a folder sources; as --port")
	fs.BoolVar(&f.noRegistry, "no-registry", false, "run no schema registry, and no gateway")
	fs.BoolVar(&f.fresh, "fresh", false, "start with an empty broker, and keep the data that were there beside it")
	fs.BoolVar(&f.sync, "sync", false, "flush each write to the disk before it is acknowledged: survives a power failure, slower")
	fs.DurationVar(&f.length, "for", 0, "stop by itself after this `time`")
	return cmd
}

// nothing is the argument check of a command without arguments.
func nothing(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return hint(usage(fmt.Errorf("%s takes no argument, and got %q", cmd.CommandPath(), args[0])), cmd.CommandPath()+" --help")
}

// loopbackPort is the address of a port flag, "" when it was not given.
func loopbackPort(cmd *cobra.Command, name string, port int) (string, error) {
	if !cmd.Flags().Changed(name) {
		return "", nil
	}
	if port < 0 || port > 65535 {
		return "", usage(fmt.Errorf("--%s %d: a port is a number from 0 to 65535", name, port))
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
}

// dev is a running millrace dev. Its parts are stages: each starts when the one before it is up, and they stop in the
// opposite order, so that services can commit while there is a broker.
type dev struct {
	*app
	flags  devFlags
	dir    string
	self   string // our own binary, which the children run
	log    *zap.Logger
	board  *board
	stages []*stage
	failed chan error // the first stage that ended by itself; the others are not waited for

	addrs   devbroker.Holder // where broker and registry are
	cluster kafka.Cluster
	schemas *schemas.Registry // nil with --no-registry
	shop    *shopFloor        // nil without --demo
}

type stage struct {
	name  string
	stop  context.CancelFunc
	ended chan struct{}
}

func (a *app) dev(ctx context.Context, f devFlags) (err error) {
	dir := a.path(f.data)
	lock, err := devbroker.Acquire(dir)
	if held, ok := errors.AsType[*devbroker.HeldError](err); ok {
		return alreadyRunning(held)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own binary: %w", err)
	}
	d := &dev{app: a, flags: f, dir: dir, self: self, board: newBoard(f), failed: make(chan error, 1)}
	file, err := d.openLog("millrace")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if d.log, err = (&service.Settings{}).Logger(zapcore.AddSync(file)); err != nil {
		return err
	}
	if f.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.length)
		defer cancel()
	}
	err = d.start(ctx, lock)
	if err == nil {
		err = d.show(ctx)
	}
	if ctx.Err() != nil {
		err = nil // told to stop, perhaps while it started
	}
	a.say("stopping")
	began := time.Now()
	d.stop()
	a.say("stopped in %.1fs: everything is kept in %s, and  millrace dev  goes on from here", time.Since(began).Seconds(), f.data)
	return err
}

// alreadyRunning says who holds the directory and what to type.
func alreadyRunning(held *devbroker.HeldError) error {
	h := held.Holder
	text := fmt.Sprintf("millrace dev runs here already: process %d since %s", h.PID, h.Since.Local().Format("15:04:05"))
	hints := []string{"stop it:  kill " + strconv.Itoa(h.PID), "or run another beside it:  millrace dev --data .millrace-2"}
	if h.PID == 0 {
		text, hints = "millrace dev runs here already, and has just started", hints[1:]
	}
	if h.Broker != "" {
		text += ", broker " + h.Broker
		hints = append([]string{"use it:  " + export(h)}, hints...)
	}
	if h.Registry != "" {
		text += ", registry " + h.Registry
	}
	return hint(refused(errors.New(text)), hints...)
}

// export is the line that points a shell at the addresses.
func export(h devbroker.Holder) string {
	line := "export MILLRACE_BROKERS=" + h.Broker
	if h.Registry != "" {
		line += " MILLRACE_REGISTRY=" + h.Registry
	}
	return line
}

// start brings the stages up, one after the other.
func (d *dev) start(ctx context.Context, lock *devbroker.Lock) error {
	if d.flags.fresh {
		kept, err := devbroker.SetAside(ctx, filepath.Join(d.dir, "broker"), time.Now())
		if err != nil {
			return err
		}
		if kept != "" {
			d.say("the broker starts empty; what it held is in %s", kept)
		}
	}
	if err := d.startBroker(ctx); err != nil {
		if errors.Is(err, devbroker.ErrUnreadable) {
			return hint(err, "start empty, and keep these data beside:  millrace dev --fresh", "or start another:  millrace dev --data .millrace-2")
		}
		if errors.Is(err, devbroker.ErrTaken) {
			return hint(err, "stop the other program, or take another port:  millrace dev --port 0")
		}
		return err
	}
	if !d.flags.noRegistry {
		if err := d.startRegistry(ctx); err != nil {
			if errors.Is(err, devbroker.ErrTaken) {
				return hint(err, "stop the other program, or take another port:  millrace dev --registry-port 0", "or do without:  millrace dev --no-registry")
			}
			return err
		}
	}
	if err := lock.Describe(d.addrs); err != nil {
		return err
	}
	if err := d.declareHere(ctx); err != nil {
		return err
	}
	if dir := d.sourcesHere(); dir != "" && d.schemas != nil {
		if _, err := d.startGateway(ctx, dir, d.getenv); err != nil {
			if errors.Is(err, devbroker.ErrTaken) {
				return hint(err, "stop the other program, or take another port:  millrace dev --gateway-port 0")
			}
			return err
		}
	}
	if d.flags.demo {
		return d.startShop(ctx)
	}
	return nil
}

// stage runs loop until it is stopped. A loop that ends by itself ends millrace dev.
func (d *dev) stage(ctx context.Context, name string, loop func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // Ctrl-C must not reach all stages at once
	s := &stage{name: name, stop: cancel, ended: make(chan struct{})}
	d.stages = append(d.stages, s)
	go func() {
		defer close(s.ended)
		err := loop(ctx)
		if ctx.Err() != nil {
			if err != nil {
				d.log.Warn("stage stopped with an error", zap.String("stage", name), zap.Error(err))
			}
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		select {
		case d.failed <- fmt.Errorf("%s: %w", name, err):
		default:
		}
	}()
}

// stop ends the stages, the last one first.
func (d *dev) stop() {
	for _, s := range slices.Backward(d.stages) {
		s.stop()
		<-s.ended
	}
}

// await waits for one of: the stage is up, any stage failed, ctx ended, too late.
func (d *dev) await(ctx context.Context, what string, up <-chan struct{}, limit time.Duration) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-up:
		return nil
	case err := <-d.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return hint(fmt.Errorf("%s did not come up within %v", what, limit), "look into "+filepath.Join(d.dir, "logs"))
	}
}

// openLog opens the log of one part.
func (d *dev) openLog(name string) (*devbroker.LogFile, error) {
	return devbroker.OpenLog(filepath.Join(d.dir, "logs", name+".log"))
}

// show draws the screen and obeys its keys until it is told to stop or a stage fails.
func (d *dev) show(ctx context.Context) error {
	s := d.openScreen()
	defer s.close()
	ticker := time.NewTicker(drawEvery)
	defer ticker.Stop()
	for {
		s.draw(d.board, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.failed:
			return hint(err, "look into "+filepath.Join(d.dir, "logs"))
		case key := <-s.keys:
			switch {
			case key == 'q' || key == ctrlC:
				return nil
			case key == 'k' && d.shop != nil:
				d.shop.kill()
			case key == 'p' && d.shop != nil:
				d.shop.poison(ctx)
			}
		case <-ticker.C:
		}
	}
}
