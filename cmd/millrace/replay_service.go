package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/pflag"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/service"
)

// serviceFlags are those of a replay into a service.
type serviceFlags struct {
	service, capture, mode string
}

func (f *serviceFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.service, "service", "", "run this `command`, a service's own, with its handlers over the range")
	fs.StringVar(&f.capture, "capture", "", "with --service: append what the handlers cause to this `file`")
	fs.StringVar(&f.mode, "mode", "shadow", "with --service: shadow, rewind or rebuild; see the service's -h")
}

// serviceStop is how long a service may take to end after it was told to.
const serviceStop = service.StopTimeout + service.CloseTimeout

// withService are the flags of replay that mean something to a service, by the service's name of them.
var withService = map[string]string{
	"from": "replay-from", "until": "replay-until", "speed": "replay-speed", "clock": "replay-clock", "parallel": "replay-parallel",
	"capture": "replay-capture", "mode": "replay-mode", "id": "replay", "resume": "replay",
}

// replayService runs a service's command with the flags of a replay in its environment.
func (a *app) replayService(ctx context.Context, given *pflag.FlagSet, topics []string, f replayFlags) error {
	var other []string
	vars := service.ReplayVars()
	env := map[string]string{vars["replay"]: "auto"}
	given.Visit(func(x *pflag.Flag) {
		switch name, ok := withService[x.Name]; {
		case ok:
			env[vars[name]] = x.Value.String()
		case x.Name != "service" && a.persistent.Lookup(x.Name) == nil:
			other = append(other, "--"+x.Name)
		}
	})
	switch {
	case len(other) > 0:
		return usage(fmt.Errorf("%s cannot go with --service", strings.Join(other, ", ")))
	case f.from == "" && f.resume == "":
		return hint(usage(errors.New("say from where")), "the last hour:  --from -1h", "go on with one that was begun:  --resume NAME")
	}
	env[vars["replay-topics"]] = strings.Join(topics, ",")
	if err := a.mayWrite(); err != nil {
		return err
	}
	if a.readOnly {
		return refused(fmt.Errorf("a replay keeps its progress in the cluster, and publishes beside the live topics: %w", kafka.ErrReadOnly))
	}
	cluster, err := a.cluster(ctx) // its guards: the right cluster, and one that answers
	if err != nil {
		return err
	}
	if _, named, err := a.registry(); err != nil {
		return err
	} else if !named {
		env[service.Env("registry")] = defaultRegistry
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", f.service)
	cmd.Env = append(os.Environ(), a.settings.Environ()...) // those of a context come from its file
	env[service.Env("brokers")] = strings.Join(cluster.Seeds, ",")
	for name, v := range env {
		cmd.Env = append(cmd.Env, name+"="+v)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, a.err, a.err
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, serviceStop
	err = cmd.Run()
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case ok && exit.ExitCode() > 0:
		return coded{fmt.Errorf("the service ended with exit code %d: what it said stands above", exit.ExitCode()), exit.ExitCode()}
	case err != nil:
		return fmt.Errorf("run the service: %w", err)
	}
	return nil
}
