package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

// The exit codes: they are part of the interface, scripts rely on them.
const (
	codeDone        = 0
	codeFailed      = 1   // a missing topic, a dead broker
	codeUsage       = 2   // the command line is wrong: nothing was tried
	codePending     = 3   // a plan has changes
	codePartial     = 4   // some items failed, others did not
	codeRefused     = 5   // a guard said no: read-only, no confirmation, incompatible schema
	codeInterrupted = 130 // Ctrl-C
)

// coded is an error that decides the exit code.
type coded struct {
	error
	code int
}

func (e coded) Unwrap() error { return e.error }

func usage(err error) error   { return coded{err, codeUsage} }
func refused(err error) error { return coded{err, codeRefused} }

// errPending is the exit code 3 without a word: what is pending was printed as data.
var errPending = coded{errors.New("changes are pending"), codePending}

// hinted is an error with what to type next.
type hinted struct {
	error
	hints []string
}

func (e hinted) Unwrap() error { return e.error }

func hint(err error, hints ...string) error { return hinted{err, hints} }

func exitCode(err error) int {
	if c, ok := errors.AsType[coded](err); ok {
		return c.code
	}
	for _, guard := range []error{kafka.ErrReadOnly, schemas.ErrIncompatible, topics.ErrChanged, topics.ErrRefused} {
		if errors.Is(err, guard) {
			return codeRefused
		}
	}
	if errors.Is(err, position.ErrEmpty) {
		return codeUsage
	}
	return codeFailed
}

// report prints an error and what to type next.
func (a *app) report(cmd *cobra.Command, err error) {
	if errors.Is(err, errPending) || errors.Is(err, errSaid) {
		return
	}
	a.say("%s: %s", cmd.CommandPath(), err)
	for _, h := range hintsFor(cmd, err) {
		a.say("  → %s", h)
	}
}

// hintsFor is what an error says to type next: its own hints, else those of what is at its root.
func hintsFor(cmd *cobra.Command, err error) []string {
	if h, ok := errors.AsType[hinted](err); ok {
		return h.hints
	}
	if known := knownHints(err); known != nil {
		return known
	}
	return []string{cmd.CommandPath() + " --help"}
}

// knownHints is what to type after errors that other packages name.
func knownHints(err error) []string {
	if _, ok := errors.AsType[*kafka.PermissionError](err); ok {
		return []string{"ask who runs the cluster for the right, or log in as another user: --sasl-user, MILLRACE_SASL_PASSWORD"}
	}
	for _, known := range []struct {
		err  error
		hint string
	}{
		{kerr.UnknownTopicOrPartition, "see which there are:  millrace topics ls"},
		{groups.ErrNotFound, "see which there are:  millrace groups ls"},
		{schemas.ErrUnavailable, "check the address of the registry: --registry or MILLRACE_REGISTRY; one runs with:  millrace serve registry --create-topics"},
		{schemas.ErrIncompatible, "add fields with a default and remove only such, or register the change under a new subject"},
		{schemas.ErrNotFound, "see which there are:  millrace schemas ls"},
		{kafka.ErrReadOnly, "see what makes it read-only (--read-only, MILLRACE_READ_ONLY, a file or a context):  millrace context show"},
		{topics.ErrChanged, "look again:  millrace topics plan"},
		{topics.ErrRefused, "look at the whole plan:  millrace topics plan"},
	} {
		if errors.Is(err, known.err) {
			return []string{known.hint}
		}
	}
	return nil
}

// noSuchCommand is the argument check of a command that only has subcommands.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := usage(fmt.Errorf("there is no command %q", args[0]))
	cmd.SuggestionsMinimumDistance = 2
	near := cmd.SuggestionsFor(args[0])
	if len(near) > 0 {
		best := max(0, slices.IndexFunc(near, func(s string) bool { return s[:1] == args[0][:min(1, len(args[0]))] })) // first letters are seldom mistyped
		return hint(err, "did you mean:  "+cmd.CommandPath()+" "+near[best])
	}
	return hint(err, cmd.CommandPath()+" --help")
}

// names is an argument check: between least and most arguments (0 is no limit), called what in the error.
func names(what string, least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return hint(usage(fmt.Errorf("name %s", what)), "millrace "+strings.TrimPrefix(cmd.UseLine(), "millrace "))
		case most > 0 && len(args) > most:
			return hint(usage(fmt.Errorf("%d arguments are too many: name %s", len(args), what)), "millrace "+strings.TrimPrefix(cmd.UseLine(), "millrace "))
		}
		return nil
	}
}
