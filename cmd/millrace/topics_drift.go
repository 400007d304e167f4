package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/topics"
)

func (a *app) topicsDriftCommand() *cobra.Command {
	var orphans bool
	cmd := &cobra.Command{
		Use: "drift [DIR]", Short: "Show where the cluster is not as the files say",
		Long: `Show where the cluster is not as the files in DIR (default: topics) say: for a job that runs every night.

Exits 0 when there is no drift and 3 when there is. What the broker decides is no drift. Topics that no file describes
are listed as orphans; they count with --orphans. Those of dead letters are no orphans: consumers make them. Names with
a leading underscore belong to Kafka and to tools.`,
		Example: "  millrace topics drift\n  millrace topics drift -o json",
		Args:    names("one folder", 0, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.topicsDrift(cmd.Context(), args, orphans) },
	}
	cmd.Flags().BoolVar(&orphans, "orphans", false, "count topics that no file describes")
	return cmd
}

// deadLetters is how the names of the topics end that consumers make for what they give up.
const deadLetters = ".dlq"

// driftRow is one place where cluster and files differ.
type driftRow struct {
	Topic    string `json:"topic"`
	What     string `json:"what"` // missing, present, partitions, replicas, or the name of a configuration
	Declared string `json:"declared"`
	Actual   string `json:"actual"`
	Note     string `json:"note,omitempty"`
}

func (a *app) topicsDrift(ctx context.Context, args []string, orphansCount bool) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	changes, dir, err := a.planned(ctx, args)
	if err != nil {
		return err
	}
	rows, orphans := drift(changes)
	if a.output == "json" {
		err = writeJSON(a.out, map[string]any{"millrace": 1, "drift": rows, "orphans": orphans}, "  ")
	} else if len(rows) > 0 || a.output == "jsonl" {
		err = list(a, "", rows, "TOPIC WHAT DECLARED ACTUAL", func(r driftRow) []any { return []any{r.Topic, r.What, r.Declared, r.Actual} })
	}
	if err != nil {
		return err
	}
	if len(orphans) > 0 {
		a.say("in no file: %s", printable(strings.Join(orphans, ", ")))
	}
	switch {
	case len(rows) > 0:
		a.say("%s. To make the cluster as the files say:  millrace topics plan %s", plural(int64(len(rows)), "difference"), dir)
		return errPending
	case orphansCount && len(orphans) > 0:
		a.say("to describe %s in files:  millrace topics import --into %s", pronoun(len(orphans)), dir)
		return errPending
	}
	a.say("no drift: the cluster is as %s says", dir)
	return nil
}

func pronoun(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// drift turns a plan around: what it would change is what has drifted.
func drift(changes []topics.Change) (rows []driftRow, orphans []string) {
	rows, orphans = []driftRow{}, []string{} // never null in JSON
	for _, c := range changes {
		switch c.What {
		case topics.Unmanaged:
			if !strings.HasSuffix(c.Topic, deadLetters) {
				orphans = append(orphans, c.Topic)
			}
		case topics.Create:
			rows = append(rows, driftRow{c.Topic, "missing", c.Want, "absent", ""})
		case topics.Delete:
			rows = append(rows, driftRow{c.Topic, "present", "absent", c.Have, ""})
		default:
			rows = append(rows, driftRow{c.Topic, c.What, c.Want, c.Have, c.Refused})
		}
	}
	return rows, orphans
}
