package main

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/service"
)

const overview = `Millrace leads events from where they happen, over Kafka, to who needs them.

Start here:
  millrace dev                           a cluster and registry on this machine
  millrace topics ls                     what is there
  millrace tail shop.orders -n 5         the last events, decoded
  millrace tail shop.orders              what happens now, until Ctrl-C
  millrace groups lag                    who is behind, and by how much

All commands:    millrace help
One command:     millrace tail --help
What is wrong:   millrace doctor
Another cluster: millrace -B host:port …, or by name: millrace -c NAME …
                 (millrace help connecting, millrace context --help)
`

// connectingTopic is a page of help: every way to reach a cluster and a registry.
func connectingTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString(`How millrace finds the cluster and the schema registry, and who it is there.

The strongest is first: a flag, a MILLRACE_… variable, the context that was chosen (millrace context --help), or
without one .millrace.yaml in this folder or above it up to the root of the git repository and millrace/config.yaml in
$XDG_CONFIG_HOME or ~/.config, then the millrace dev that runs in this folder, and the defaults (brokers
` + defaultBrokers + `, registry ` + defaultRegistry + `). A context that --context names is a flag. In the files the names
are those of the flags, and paths are seen from the file's folder:

  brokers: [kafka1:9093, kafka2:9093]
  registry: https://registry.example.com
  tls-ca: ca.pem
  sasl-user: orders
  read-only: true

Every setting, with its variable:

`)
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	new(service.Settings).Register(fs)
	fs.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "  %-36s %s\n", "--"+f.Name+" "+value, usage)
	})
	b.WriteString("\nPasswords are never flags: MILLRACE_SASL_PASSWORD, MILLRACE_REGISTRY_PASSWORD, or a file that not everybody can read.\nIn a settings file:  sasl-password: env:NAME  or  sasl-password: file:PATH\n")
	return &cobra.Command{Use: "connecting", Short: "How millrace finds the cluster, and who it is there", Long: b.String()}
}

// version is what a build sets with -ldflags "-X main.version=v1.2.3"; otherwise the module's own is used.
var version string

type build struct {
	Millrace int    `json:"millrace"` // of the output format
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuild() build {
	b := build{Millrace: 1, Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && b.Commit != "" {
		b.Commit += "+changes"
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  millrace version\n  millrace version -o json",
		Args:    names("nothing more", 0, -1),
		RunE: func(*cobra.Command, []string) error {
			if err := a.formats("table", "json", "jsonl"); err != nil {
				return err
			}
			b := readBuild()
			if a.output != "table" {
				return writeJSON(a.out, b, "")
			}
			fmt.Fprintln(a.out, strings.Join(strings.Fields(fmt.Sprintf("millrace %s %s %s %s", b.Version, b.Commit, b.Go, b.Platform)), " "))
			return nil
		},
	}
}
