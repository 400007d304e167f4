package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// complete answers Tab with the names that live gives and that begin with what is typed. A cluster that does not
// answer in time completes nothing and says nothing: the command itself will say it.
func (a *app) complete(live func(ctx context.Context) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		names := make(chan []string, 1)
		go func() { // what does not heed ctx is left behind: the process ends with the answer
			got, _ := live(ctx) // an error completes nothing
			names <- got
		}()
		var out []string
		select {
		case got := <-names:
			for _, n := range got {
				if strings.HasPrefix(n, prefix) && !slices.Contains(args, n) && printable(n) == n {
					out = append(out, n)
				}
			}
		case <-ctx.Done():
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeContexts(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(func(context.Context) ([]string, error) {
		err := a.resolve()
		return slices.Sorted(maps.Keys(a.config.contexts())), err
	})(cmd, args, prefix)
}

// completeSubjects answers with the registry's subjects.
func (a *app) completeSubjects(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(func(ctx context.Context) ([]string, error) {
		reg, _, err := a.registry()
		if err != nil {
			return nil, err
		}
		return reg.Subjects(ctx)
	})(cmd, args, prefix)
}

// completeFlags gives the flags of all commands whose value is a name their names. A flag is called after what it
// takes, so a new one is completed without a word.
func (a *app) completeFlags(cmd *cobra.Command) {
	for flag, names := range map[string]cobra.CompletionFunc{
		"topic": a.completeTopics, "group": a.completeGroups, "like": a.completeGroups,
		"subject": a.completeSubjects, "context": a.completeContexts, "confirm": a.completeContexts,
		"output": cobra.FixedCompletions([]string{"table", "json", "jsonl", "raw"}, cobra.ShellCompDirectiveNoFileComp),
	} {
		if cmd.LocalFlags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, names) // an error is that the command has its own
		}
	}
	for _, sub := range cmd.Commands() {
		a.completeFlags(sub)
	}
}
