package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// Where "millrace dev" listens, and so what the command speaks to when nothing says otherwise.
const (
	defaultBrokers  = "localhost:9092"
	defaultRegistry = "http://localhost:8081"
)

// idTimeout bounds the question for a cluster's id, which is asked after it has answered once.
const idTimeout = 5 * time.Second

// app is one invocation: what it may touch of its surroundings, and what was set.
type app struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	dir      string // where topics, schemas and .millrace.yaml are looked for
	now      func() time.Time

	settings    service.Settings // complete once resolve was called
	readOnly    bool
	output      string // table, json, jsonl or raw
	width       int    // of the screen that out is a part of; 0: what out's terminal says
	contextFlag string
	confirmFlag string         // the name of the production context that may be written to
	persistent  *pflag.FlagSet // the flags of every command

	config    *config // nil until resolve
	confirmed bool    // a production context's name was typed
	// settingsErr is a fault of a file or a variable. It is reported by what needs the settings: help must work without.
	settingsErr error
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, a *app, args []string) int {
	root := a.root() //nolint:contextcheck // cobra hands ctx to the commands
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return codeDone
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return codeInterrupted
	}
	a.report(cmd, err)
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "millrace",
		Short:             "Typed events over Kafka: publish, consume, look, replay",
		Args:              noSuchCommand,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.guard(cmd) },
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprint(a.out, overview)
			return nil
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.CompletionOptions.HiddenDefaultCmd = false
	a.flags(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "look", Title: "Look and publish:"},
		&cobra.Group{ID: "code", Title: "Topics and schemas as code:"},
	)
	for _, c := range []struct {
		group string
		cmd   *cobra.Command
	}{
		{"run", a.devCommand()},
		{"run", a.serveCommand()},
		{"run", a.sinkCommand()},
		{"look", a.tailCommand()},
		{"look", a.findCommand()},
		{"look", a.traceCommand()},
		{"look", a.produceCommand()},
		{"look", a.replayCommand()},
		{"look", a.copyCommand()},
		{"look", a.groupsCommand()},
		{"look", a.webhookCommand()},
		{"look", a.sourcesCommand()},
		{"code", a.topicsCommand()},
		{"code", a.schemasCommand()},
		{"look", a.doctorCommand()},
		{"", a.contextCommand()},
		{"", a.versionCommand()},
		{"", a.brokerCommand()},
		{"", a.shopCommand()},
		{"", connectingTopic()},
	} {
		c.cmd.GroupID = c.group
		root.AddCommand(c.cmd)
	}
	a.completeFlags(root)
	return root
}

// flags adds the flags of every command. Of the many ways to reach a cluster, help shows the first few; the others
// stand in "millrace help connecting".
func (a *app) flags(fs *pflag.FlagSet) {
	shown := []string{"brokers", "registry"}
	gofs := flag.NewFlagSet("", flag.ContinueOnError)
	a.settings.Register(gofs)
	gofs.VisitAll(func(f *flag.Flag) {
		pf := pflag.PFlagFromGoFlag(f)
		if f.Name == "brokers" {
			pf.Shorthand = "B"
		}
		pf.Hidden = !slices.Contains(shown, f.Name)
		pf.Usage = strings.ReplaceAll(pf.Usage, "…", "...") // columns are counted in bytes
		fs.AddFlag(pf)
	})
	fs.StringVarP(&a.contextFlag, "context", "c", "", "speak to this named `cluster` [MILLRACE_CONTEXT]")
	fs.StringVar(&a.confirmFlag, "confirm", "", "write to this production context: its `name`")
	fs.StringVarP(&a.output, "output", "o", "table", "`table`, json, jsonl or raw")
	fs.BoolVar(&a.readOnly, "read-only", false, "refuse to change anything [MILLRACE_READ_ONLY]")
	fs.SortFlags = false
	a.persistent = fs
}

// describedCluster returns the cluster that the settings describe. Nothing is dialed.
func (a *app) describedCluster() (kafka.Cluster, error) {
	if err := a.resolve(); err != nil {
		return kafka.Cluster{}, err
	}
	c, err := a.settings.Cluster()
	if err != nil {
		return c, usage(err)
	}
	if c.ClientID == "" {
		c.ClientID = "millrace-cli"
	}
	if c.Log, err = a.logger(); err != nil {
		return c, usage(err)
	}
	return c, nil
}

// cluster returns the cluster, after it has answered: a dead one is reported within five seconds.
func (a *app) cluster(ctx context.Context) (kafka.Cluster, error) {
	c, err := a.describedCluster()
	if err != nil {
		return c, err
	}
	if err := c.Ping(ctx); err != nil {
		if ctx.Err() != nil {
			return c, err
		}
		if _, dial := errors.AsType[*net.OpError](err); !dial && (c.TLS != nil || !c.Auth.IsZero()) {
			return c, hint(err, "see which settings of TLS and login there are:  millrace help connecting")
		}
		return c, hint(err, "start a cluster on this machine:  millrace dev", "or name one:  millrace -B host:port … (or set MILLRACE_BROKERS)")
	}
	return a.guarded(ctx, c)
}

// registry returns the schema registry, and whether somebody named it: the default one may well not exist.
func (a *app) registry() (reg *schemas.Registry, named bool, err error) {
	if err := a.resolve(); err != nil {
		return nil, false, err
	}
	named = len(a.settings.RegistryURLs) > 0
	if !named {
		a.settings.RegistryURLs = []string{defaultRegistry}
		defer func() { a.settings.RegistryURLs = nil }()
	}
	reg, err = a.settings.Registry(zap.NewNop()) // an outage is an error of the command, once
	if err != nil {
		return nil, named, usage(err)
	}
	return reg, named, nil
}

// logger is silent unless --log-level asks for what goes on beneath: a command's own errors say what matters.
func (a *app) logger() (*zap.Logger, error) {
	if a.settings.LogLevel == "" {
		return zap.NewNop(), nil
	}
	return a.settings.Logger(zapcore.AddSync(a.err))
}

// say writes a line for people to stderr.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.err, fold(fmt.Sprintf(format, args...), terminalWidth(a.err)))
}

// isTerminal reports whether f is a terminal that a person looks at or types into.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// confirm asks on the terminal. Without one, or without a clear yes, nothing is done. Who typed the name of a
// production context has been asked enough.
func (a *app) confirm(question string) error {
	if a.confirmed {
		return nil
	}
	if !isTerminal(a.in) {
		return hint(refused(errors.New("nothing was changed: there is no terminal to confirm on")), "add --yes to do it without being asked")
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(a.in, &answer) // an empty line is a no
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
		return refused(errors.New("nothing was changed"))
	}
	return nil
}
