package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestMillraceAloneIsFriendly(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	r := w.want(t, codeDone)
	if r.out != overview || r.err != "" {
		t.Errorf("got %q and %q", r.out, r.err)
	}
	for line := range strings.Lines(r.out) {
		if len([]rune(line)) > 81 { // with its end
			t.Errorf("wider than a terminal: %s", line)
		}
	}
}

func TestHelpSaysHowToConnect(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	r := w.want(t, codeDone, "help", "connecting")
	has(t, "stdout", r.out, "--tls-ca file", "MILLRACE_TLS_CA", "MILLRACE_SASL_PASSWORD", ".millrace.yaml")
	r = w.want(t, codeDone, "help")
	has(t, "stdout", r.out, "-B, --brokers host:port", "Look and publish:", "connecting")
}

// Every command says what it is in a line, shows an example where it does something, and its help needs no cluster.
func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		if c.Hidden || c.Name() == "help" || len(path) > 0 && path[0] == "completion" {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short is a phrase without a full stop: %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		w.want(t, codeDone, append(path, "--help")...)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(w.app(strings.NewReader(""), newBuffer(), newBuffer()).root())
}
