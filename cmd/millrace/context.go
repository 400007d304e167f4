package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/service"
)

// colors are those of a context, as a terminal takes them.
var colors = map[string]string{
	"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m", "blue": "\x1b[34m", "magenta": "\x1b[35m", "cyan": "\x1b[36m",
}

// writing are the commands that change a cluster or its registry, and whether they ask for a production context's name
// by themselves, once there is something to show. Every other command gets a read-only cluster in such a context, so
// one that is forgotten here is refused and does no harm.
var writing = map[string]bool{
	"millrace produce":               false,
	"millrace replay":                true,
	"millrace copy":                  true,
	"millrace topics apply":          true,
	"millrace schemas register":      false,
	"millrace serve":                 false,
	"millrace groups pause":          false,
	"millrace groups resume":         false,
	"millrace groups offsets apply":  true,
	"millrace groups offsets undo":   true,
	"millrace groups offsets import": true,

	"millrace sources test": false,

	"millrace sink":              true,
	"millrace sink rewind apply": true,
	"millrace sink rewind undo":  true,
	"millrace sink rebuild":      true,
}

// guard is called before each command, once its flags are parsed.
func (a *app) guard(cmd *cobra.Command) error {
	asksItself, writes := writing[cmd.CommandPath()]
	if !writes || asksItself {
		return nil
	}
	if dry, err := cmd.Flags().GetBool("dry-run"); err == nil && dry {
		return nil
	}
	return a.mustWrite()
}

// mustWrite is for a command that writes and does nothing else.
func (a *app) mustWrite() error {
	if err := a.resolve(); err != nil {
		return err
	}
	if a.readOnly { // the connection would say so too, perhaps after half of the work, or never to who only serves
		return refused(fmt.Errorf("nothing was tried: %w", kafka.ErrReadOnly))
	}
	return a.mayWrite()
}

// mayWrite lets a command write in a production context once a person has typed the context's name. Everywhere else
// it has nothing to say: whether a context is read-only is decided where requests are sent.
func (a *app) mayWrite() error {
	if err := a.resolve(); err != nil {
		return err
	}
	if a.config.context == nil || !a.config.context.production || a.readOnly || a.confirmed {
		return nil
	}
	name := a.config.context.name
	answer := a.confirmFlag
	switch {
	case answer != "":
	case !isTerminal(a.in):
		return hint(refused(fmt.Errorf("nothing was changed: %s is a production context, and there is no terminal to confirm on", name)),
			"to do it without being asked:  --confirm "+name, "--yes alone is not enough here")
	default:
		fmt.Fprintf(a.err, "%s is a production context. Type its name to go on: ", a.colored(name))
		line, err := bufio.NewReader(io.LimitReader(a.in, 1<<10)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the answer: %w", err)
		}
		answer = strings.TrimSpace(line)
	}
	if answer != name {
		return hint(refused(fmt.Errorf("nothing was changed: %q is not the name of the context, %s", answer, name)), "see where you are:  millrace context show")
	}
	a.confirmed = true
	return nil
}

// guarded is c with the limits of the context, or the refusal to use it.
func (a *app) guarded(ctx context.Context, c kafka.Cluster) (kafka.Cluster, error) {
	here := a.config.context
	c.ReadOnly = a.readOnly
	if here == nil {
		return c, nil
	}
	c.ReadOnly = c.ReadOnly || here.production && !a.confirmed
	if here.clusterID == "" {
		return c, nil
	}
	client, err := c.Client()
	if err != nil {
		return c, fmt.Errorf("ask for the cluster's id: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, idTimeout)
	defer cancel()
	m, err := kadm.NewClient(client).BrokerMetadata(ctx)
	if err != nil {
		return c, fmt.Errorf("ask for the cluster's id: %w", c.Explain(err, "Describe", "cluster"))
	}
	if m.Cluster != here.clusterID {
		return c, hint(refused(fmt.Errorf("this is another cluster: its id is %q, and context %s (%s:%d) says %q", m.Cluster, here.name, here.file, here.line, here.clusterID)),
			"check the addresses:  millrace context show "+here.name, "or correct clusterID, if the cluster was made anew")
	}
	return c, nil
}

// colored is the name of the context in its color, where a terminal shows it.
func (a *app) colored(name string) string {
	color := colors[a.config.context.color]
	if color == "" || !isTerminal(a.err) {
		return name
	}
	return color + "\x1b[1m" + name + "\x1b[0m"
}

func (a *app) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Named clusters: list, choose and show them",
		Long: `Named clusters: list, choose and show them.

A context is a name for a cluster with how it is reached and what may be done there. It stands in ~/.config/` + userFile + `
($XDG_CONFIG_HOME), or for a project in ` + projectFile + `:

  contexts:
    prod:
      brokers: [kafka1:9093, kafka2:9093]
      registry: https://registry.example.com
      tls-ca: ca.pem                      # seen from the file's folder
      sasl-user: orders
      sasl-password: env:PROD_PASSWORD    # or file:PATH; never the password itself
      clusterID: q1Sh-9_ISia_zwGINzRvyQ   # another cluster is refused
      production: true                    # who writes types the name
      readOnly: true                      # nothing is ever written
      color: red

The one that holds is named by --context, by MILLRACE_CONTEXT, by  context: NAME  in ` + projectFile + `, or by millrace
context use; the first of these wins. A context is whole: settings outside of contexts are not used with it. -B and
MILLRACE_BROKERS name another cluster: they leave out a context that was not named as strongly.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var none bool
	use := &cobra.Command{
		Use: "use NAME", Short: "Choose the context that holds where nothing else names one",
		Example:           "  millrace context use staging\n  millrace context use --none",
		ValidArgsFunction: a.completeContexts,
		Args: func(cmd *cobra.Command, args []string) error {
			if none {
				return nothing(cmd, args)
			}
			return names("a context", 1, 1)(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if none {
				return a.contextUse("")
			}
			return a.contextUse(args[0])
		},
	}
	use.Flags().BoolVar(&none, "none", false, "choose none")
	cmd.AddCommand(
		&cobra.Command{
			Use: "ls", Short: "List the contexts",
			Example: "  millrace context ls\n  millrace context ls -o json",
			Args:    nothing,
			RunE:    func(*cobra.Command, []string) error { return a.contextList() },
		},
		use,
		&cobra.Command{
			Use: "show [NAME]", Short: "Show what holds here, or what a context says; never a secret",
			Example:           "  millrace context show\n  millrace context show staging",
			ValidArgsFunction: a.completeContexts,
			Args:              names("one context, or none for what holds here", 0, 1),
			RunE: func(_ *cobra.Command, args []string) error {
				if len(args) == 1 {
					a.contextFlag = args[0]
				}
				return a.contextShow(len(args) == 1)
			},
		},
	)
	return cmd
}

type contextRow struct {
	Name       string   `json:"name"`
	Current    bool     `json:"current"`
	Brokers    []string `json:"brokers"`
	ReadOnly   bool     `json:"readOnly"`
	Production bool     `json:"production"`
	ClusterID  string   `json:"clusterID,omitempty"`
	File       string   `json:"file"`
}

// guards says in a column what a context forbids.
func (r contextRow) guards() string {
	var words []string
	if r.Production {
		words = append(words, "production")
	}
	if r.ReadOnly {
		words = append(words, "read-only")
	}
	if r.ClusterID != "" {
		words = append(words, "cluster-id")
	}
	return orDash(strings.Join(words, ","))
}

func (a *app) contextList() error {
	err := a.resolve()
	if len(a.config.files) == 0 && err != nil {
		return err
	}
	all := a.config.contexts() // listed even if the one that holds cannot be used here
	var rows []contextRow
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		rows = append(rows, contextRow{
			Name: name, Current: c == a.config.context, Brokers: strings.Split(c.value("brokers"), ","),
			ReadOnly: c.readOnly, Production: c.production, ClusterID: c.clusterID, File: c.file,
		})
	}
	if len(rows) == 0 && a.output == "table" {
		if err != nil {
			return err
		}
		a.say("no contexts yet: how to write one says  millrace context --help")
		return nil
	}
	if printErr := list(a, "contexts", rows, "NAME BROKERS GUARDS FILE", func(r contextRow) []any {
		mark := "  "
		if r.Current {
			mark = "* "
		}
		return []any{mark + r.Name, few(r.Brokers), r.guards(), a.near(r.File)}
	}); printErr != nil {
		return printErr
	}
	return err
}

// few is a list in a column: its first, and how many more.
func few(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return fmt.Sprintf("%s +%d", words[0], len(words)-1)
}

// near is a path as a person would write it.
func (a *app) near(path string) string {
	if home := a.getenv("HOME"); home != "" {
		if rest, ok := strings.CutPrefix(path, home+string(filepath.Separator)); ok {
			return "~/" + rest
		}
	}
	if dir, err := filepath.Abs(a.dir); err == nil {
		if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return path
}

func (a *app) contextUse(name string) error {
	if err := a.formats("table"); err != nil {
		return err
	}
	_ = a.resolve() // a context that cannot be used here is a reason to choose another
	dir := a.configDir()
	if dir == "" {
		return hint(errors.New("there is no folder to remember a context in: neither XDG_CONFIG_HOME nor HOME is set"), "name it each time:  millrace --context NAME … (or set MILLRACE_CONTEXT)")
	}
	if _, known := a.config.contexts()[name]; name != "" && !known {
		if a.settingsErr != nil && len(a.config.contexts()) == 0 {
			return a.settingsErr
		}
		return hint(usage(fmt.Errorf("there is no context %q", name)), "see which there are:  millrace context ls")
	}
	path := filepath.Join(dir, chosenFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("remember the context: %w", err)
	}
	if err := os.WriteFile(path, []byte(name+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember the context: %w", err)
	}
	if name == "" {
		a.say("no context is chosen")
	} else {
		a.say("commands now speak to %s", name)
	}
	for _, f := range a.config.files {
		if f.chosen != "" && f.chosen != name {
			a.say("but not here: %s chooses %s", a.near(f.path), f.chosen)
		}
	}
	for _, v := range []string{"MILLRACE_CONTEXT", service.Env("brokers")} {
		if a.getenv(v) != "" {
			a.say("but not in this shell: %s is set", v)
		}
	}
	return nil
}

type settingRow struct {
	Setting string `json:"setting"`
	Value   string `json:"value"` // of a secret: ***
	From    string `json:"from"`
}

// contextShow prints what holds, or what a named context says: never a secret.
func (a *app) contextShow(named bool) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	err := a.resolve()
	here := a.config.context
	if err != nil && (here == nil || !named) {
		return err
	}
	var rows []settingRow
	if named {
		for _, f := range here.fields { // as it is written: a secret is a reference there
			rows = append(rows, settingRow{f.key, redacted(f.value), fmt.Sprintf("%s:%d", a.near(here.file), f.line)})
		}
	} else {
		rows = a.effective()
	}
	if a.output == "json" {
		doc := struct {
			Millrace   int          `json:"millrace"`
			Context    string       `json:"context,omitempty"`
			ChosenBy   string       `json:"chosenBy,omitempty"`
			ReadOnly   bool         `json:"readOnly"`
			Production bool         `json:"production"`
			ClusterID  string       `json:"clusterID,omitempty"`
			Settings   []settingRow `json:"settings"`
		}{Millrace: 1, ReadOnly: a.readOnly, Settings: rows}
		if here != nil {
			doc.Context, doc.Production, doc.ClusterID, doc.ReadOnly = here.name, here.production, here.clusterID, a.readOnly
			if !named {
				doc.ChosenBy = a.config.chosen
			}
		}
		return writeJSON(a.out, doc, "  ")
	}
	if a.output == "table" {
		a.say("%s", a.headline(named))
		rows = unfolded(rows)
	}
	return list(a, "settings", rows, "SETTING VALUE FROM", func(r settingRow) []any { return []any{r.Setting, r.Value, r.From} })
}

// unfolded gives each item of a list a line of its own.
func unfolded(rows []settingRow) []settingRow {
	var out []settingRow
	for _, r := range rows {
		for item := range strings.SplitSeq(r.Value, ",") {
			out = append(out, settingRow{r.Setting, item, r.From})
			r.Setting, r.From = "", ""
		}
	}
	return out
}

// headline says which context it is and, a line each, what is forbidden there.
func (a *app) headline(named bool) string {
	here := a.config.context
	line := "no context is chosen"
	if here != nil {
		line = "context " + a.colored(here.name)
		if !named {
			line += ", chosen by " + a.near(a.config.chosen)
		}
		if here.production {
			line += "\n  production: who writes types its name"
		}
		if here.clusterID != "" {
			line += "\n  refuses every cluster but " + here.clusterID
		}
	}
	if a.readOnly {
		line += "\n  read-only"
	}
	return line
}

// effective is what holds here, with where it comes from.
func (a *app) effective() []settingRow {
	values := map[string]string{}
	a.persistent.VisitAll(func(f *pflag.Flag) { values[f.Name] = f.Value.String() })
	values["brokers"] = strings.Join(a.settings.Brokers, ",")
	values["registry"] = strings.Join(a.settings.RegistryURLs, ",")
	values["sasl-password"], values["registry-password"] = a.settings.SASLPassword.String(), a.settings.RegistryPassword.String()
	from := maps.Clone(a.config.sources)
	for name, fallback := range map[string]string{"brokers": defaultBrokers, "registry": defaultRegistry} {
		if from[name] == "" {
			values[name], from[name] = fallback, "default"
		}
	}
	var rows []settingRow
	for _, name := range slices.Sorted(maps.Keys(from)) {
		source := from[name]
		if filepath.IsAbs(source) {
			source = a.near(source)
		}
		rows = append(rows, settingRow{name, redacted(values[name]), source})
	}
	return rows
}

// redacted is a value whose URLs show no password.
func redacted(value string) string {
	if !strings.Contains(value, "@") {
		return value
	}
	parts := strings.Split(value, ",")
	for i, p := range parts {
		if u, err := url.Parse(p); err == nil && u.User != nil {
			parts[i] = u.Redacted()
		}
	}
	return strings.Join(parts, ",")
}
