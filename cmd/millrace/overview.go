package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

const overview = `Millrace leads events from the service where they happen, over Kafka, to whoever needs them.

Start here:
  millrace dev                           a cluster, a registry and a demo on this machine
  millrace topics ls                     what is there
  millrace tail shop.orders -n 5         the last events, decoded
  millrace tail shop.orders              what happens now, until Ctrl-C
  millrace groups lag                    who is behind, and by how much

All commands:    millrace help
One command:     millrace tail --help
Another cluster: millrace -B host:port …   or MILLRACE_BROKERS, or brokers: in .millrace.yaml
`

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
