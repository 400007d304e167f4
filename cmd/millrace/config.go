package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/service"
)

// projectFile holds a project's settings; it is looked for from the working directory up to the root of the git
// repository. userFile, in the user's configuration directory, holds what it leaves out, and chosenFile beside it the
// name that "millrace context use" wrote. devFolder is where "millrace dev" keeps everything.
const (
	projectFile = ".millrace.yaml"
	userFile    = "millrace/config.yaml"
	chosenFile  = "millrace/context"
	devFolder   = ".millrace"
)

// config is what holds for this command line, once flags, variables and files are laid over each other.
type config struct {
	files   []*configFile // the user's, then the project's
	context *cliContext   // nil when none is chosen
	chosen  string        // who chose it: --context, MILLRACE_CONTEXT, a file
	// sources says where each setting comes from, by the name of its flag.
	sources map[string]string
	dev     devbroker.Holder // the millrace dev of this folder, when it is what is spoken to
}

// flagsGiven are the settings that the command line itself names.
func (a *app) flagsGiven() map[string]string {
	given := map[string]string{}
	if a.persistent == nil {
		return given
	}
	known := settingNames()
	a.persistent.VisitAll(func(f *pflag.Flag) {
		if known[f.Name] && f.Changed {
			given[f.Name] = f.Value.String()
		}
	})
	return given
}

// settingNames are the names of all settings that are flags.
func settingNames() map[string]bool {
	names := map[string]bool{}
	set := flag.NewFlagSet("", flag.ContinueOnError)
	new(service.Settings).Register(set)
	set.VisitAll(func(f *flag.Flag) { names[f.Name] = true })
	return names
}

// resolve lays the settings over each other, the weakest first: the user's file, the project's file, the context, the
// variables, the flags. It does so once; help and completion scripts must work without, so it is called by what needs
// settings.
//
// A context is whole: where one is chosen, the files' settings outside of contexts are not used, so that no login or
// registry of one cluster is tried on another. One that --context names wins over the variables as every flag does.
// Whoever names brokers more strongly than the context was chosen means another cluster: the context is left out.
func (a *app) resolve() error {
	if a.config == nil {
		a.config = &config{sources: map[string]string{}}
		a.settingsErr = a.lay()
	}
	return a.settingsErr
}

func (a *app) lay() error {
	given := a.flagsGiven()
	a.settings = service.Settings{}
	if err := a.readFiles(); err != nil {
		return err
	}
	if err := a.choose(given["brokers"] != ""); err != nil {
		return err
	}
	cfg, byFlag := a.config, a.contextFlag != ""
	var layers []func() error
	if cfg.context == nil {
		for _, f := range cfg.files {
			layers = append(layers, func() error { return a.set(f.path, f.fields) })
		}
	}
	fromContext := func() error {
		if cfg.context == nil {
			return nil
		}
		return a.set(cfg.context.file, cfg.context.fields)
	}
	if byFlag {
		layers = append(layers, a.fromEnv, fromContext)
	} else {
		layers = append(layers, fromContext, a.fromEnv)
	}
	for _, lay := range layers {
		if err := lay(); err != nil {
			return err
		}
	}
	for name, value := range given {
		if err := a.settings.Set(name, value); err != nil {
			return usage(err)
		}
		cfg.sources[name] = "--" + name
	}
	return a.fallBack()
}

func (a *app) readFiles() error {
	for _, path := range []string{a.userConfig(), a.projectConfig()} {
		if path == "" {
			continue
		}
		f, err := readConfig(path)
		if err != nil {
			return usage(err)
		}
		a.config.files = append(a.config.files, f)
	}
	on, flagged := false, a.persistent != nil && a.persistent.Changed("read-only")
	for _, f := range a.config.files {
		if f.readOnly != nil {
			on = *f.readOnly
		}
	}
	if v := a.getenv("MILLRACE_READ_ONLY"); v != "" {
		var err error
		if on, err = strconv.ParseBool(v); err != nil {
			return usage(fmt.Errorf("MILLRACE_READ_ONLY: %q is neither true nor false", v))
		}
	}
	if !flagged {
		a.readOnly = on
	}
	return nil
}

// contexts are those of all files by name; a project's comes before one of the same name of the user's.
func (c *config) contexts() map[string]*cliContext {
	all := map[string]*cliContext{}
	for _, f := range c.files {
		for i := range f.contexts {
			all[f.contexts[i].name] = &f.contexts[i]
		}
	}
	return all
}

// choose finds the context that holds. brokersFlag says that the command line names brokers.
func (a *app) choose(brokersFlag bool) error {
	cfg := a.config
	name, by := a.contextFlag, "--context"
	if name == "" && !brokersFlag {
		name, by = a.getenv("MILLRACE_CONTEXT"), "MILLRACE_CONTEXT"
		if name == "" && a.getenv(service.Env("brokers")) == "" {
			name, by = a.chosenInFiles()
		}
	}
	if name == "" {
		return nil
	}
	ctx, known := cfg.contexts()[name]
	if !known {
		return hint(usage(fmt.Errorf("%s: there is no context %q", by, name)), "see which there are:  millrace context ls")
	}
	cfg.context, cfg.chosen = ctx, by
	a.readOnly = a.readOnly || ctx.readOnly
	return nil
}

// chosenInFiles is the context of the project, else the one that "millrace context use" wrote.
func (a *app) chosenInFiles() (name, by string) {
	for _, f := range a.config.files {
		if f.chosen != "" {
			return f.chosen, f.path
		}
	}
	dir := a.configDir()
	if dir == "" {
		return "", ""
	}
	path := filepath.Join(dir, chosenFile)
	src, err := os.ReadFile(path)
	if err != nil {
		return "", ""
	}
	return strings.TrimSpace(string(src)), path
}

func (a *app) set(file string, fields []field) error {
	for _, f := range fields {
		key, value, err := f.resolve(file, a.getenv)
		if err != nil {
			return err
		}
		if err := a.settings.Set(key, value); err != nil {
			return usage(fmt.Errorf("%s:%d: %w", file, f.line, err))
		}
		a.config.sources[key] = fmt.Sprintf("%s:%d", file, f.line)
	}
	return nil
}

func (a *app) fromEnv() error {
	if err := a.settings.FromEnv(a.getenv); err != nil {
		return usage(err)
	}
	names := settingNames()
	for _, name := range secretFields {
		names[name] = true
	}
	for name := range names {
		if a.getenv(service.Env(name)) != "" {
			a.config.sources[name] = service.Env(name)
		}
	}
	return nil
}

// fallBack names the cluster when nothing did: the millrace dev that runs in this folder or above it, else the
// addresses where one listens by default.
func (a *app) fallBack() error {
	if len(a.settings.Brokers) > 0 {
		return nil
	}
	a.settings.Brokers = []string{defaultBrokers}
	if dev, folder := a.runningDev(); dev.Broker != "" {
		a.config.dev = dev
		a.settings.Brokers = []string{dev.Broker}
		a.config.sources["brokers"] = "millrace dev in " + folder
		if len(a.settings.RegistryURLs) == 0 && dev.Registry != "" {
			a.settings.RegistryURLs = []string{dev.Registry}
			a.config.sources["registry"] = "millrace dev in " + folder
		}
	}
	return nil
}

// runningDev finds the millrace dev that runs in the working directory or above it, up to the root of the repository.
// It does not touch the lock: a probe that held it for a moment could make a starting millrace dev give up.
func (a *app) runningDev() (dev devbroker.Holder, folder string) {
	a.upwards(func(dir string) bool {
		var h devbroker.Holder
		src, err := os.ReadFile(filepath.Join(dir, devFolder, "lock"))
		if err != nil || json.Unmarshal(src, &h) != nil || !alive(h.PID) {
			return false
		}
		dev, folder = h, filepath.Join(dir, devFolder)
		return true
	})
	return dev, folder
}

// alive reports whether there is a process: a killed millrace dev leaves its address behind.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, os.ErrPermission)
}

// projectConfig is the nearest project file, "" if there is none.
func (a *app) projectConfig() (found string) {
	a.upwards(func(dir string) bool {
		file := filepath.Join(dir, projectFile)
		if _, err := os.Stat(file); err != nil {
			return false
		}
		found = file
		return true
	})
	return found
}

// upwards visits the working directory and those above it, up to the root of the git repository, until visit is content.
func (a *app) upwards(visit func(dir string) bool) {
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return
	}
	for !visit(dir) {
		parent := filepath.Dir(dir)
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil || parent == dir {
			return
		}
		dir = parent
	}
}

// configDir is the user's configuration directory, "" if there is none.
func (a *app) configDir() string {
	if dir := a.getenv("XDG_CONFIG_HOME"); dir != "" {
		return dir
	}
	if home := a.getenv("HOME"); home != "" {
		return filepath.Join(home, ".config")
	}
	return ""
}

// userConfig is the user's file, "" if there is none.
func (a *app) userConfig() string {
	dir := a.configDir()
	if dir == "" {
		return ""
	}
	file := filepath.Join(dir, userFile)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return file
}
