package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/topics"
)

func (a *app) topicsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "Topics as code: plan, apply, drift, import; look at what is there",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "ls", Short: "List topics",
			Example: "  millrace topics ls\n  millrace topics ls -o jsonl",
			Args:    names("no topic: ls lists all", 0, -1),
			RunE:    func(cmd *cobra.Command, _ []string) error { return a.topicsList(cmd.Context()) },
		},
		&cobra.Command{
			Use: "describe TOPIC…", Short: "Show a topic's partitions, retention and own configuration",
			Example:           "  millrace topics describe shop.orders",
			Args:              names("a topic", 1, 0),
			ValidArgsFunction: a.completeTopics,
			RunE:              func(cmd *cobra.Command, args []string) error { return a.topicsDescribe(cmd.Context(), args) },
		},
		&cobra.Command{
			Use: "plan [DIR]", Short: "Show what would change to make the cluster's topics as the files say",
			Long: `Show what would change to make the cluster's topics as the files in DIR (default: topics) say.

Exits 0 when nothing would, 3 when something would. What the broker decides is no difference. Topics that no file
describes are listed and never touched.`,
			Example: "  millrace topics plan\n  millrace topics plan -o json > plan.json",
			Args:    names("one folder", 0, 1),
			RunE:    func(cmd *cobra.Command, args []string) error { return a.topicsPlan(cmd.Context(), args) },
		},
		a.topicsApplyCommand(),
		a.topicsDriftCommand(),
		a.topicsImportCommand(),
	)
	return cmd
}

type applyFlags struct {
	yes, allowDestroy, prune bool
	plan                     string
}

func (a *app) topicsApplyCommand() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "apply [DIR]", Short: "Make the cluster's topics as the files say",
		Long: `Make the cluster's topics as the files in DIR (default: topics) say.

Shows the plan and asks before anything changes; --yes does not ask. Never takes partitions away and never touches a
topic that no file describes. Topics are deleted only with --allow-destroy, settings unset only with --prune. When the
cluster has changed since the plan, nothing is overwritten: it exits 5.`,
		Example: "  millrace topics apply --yes\n  millrace topics apply --plan plan.json --yes",
		Args:    names("one folder", 0, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.topicsApply(cmd.Context(), args, f) },
	}
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do it without asking")
	cmd.Flags().BoolVar(&f.allowDestroy, "allow-destroy", false, "delete the topics whose file says absent: true, with their events")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "unset the settings that no file names")
	cmd.Flags().StringVar(&f.plan, "plan", "", "apply this `file` that topics plan -o json wrote, instead of planning anew")
	return cmd
}

type topicRow struct {
	Topic      string            `json:"topic"`
	Partitions int32             `json:"partitions"`
	Replicas   int16             `json:"replicas"`
	Retention  string            `json:"retention"`
	Config     map[string]string `json:"config,omitempty"`
}

func rowOf(s topics.Spec) topicRow {
	return topicRow{s.Name, s.Partitions, s.Replicas, retention(s), s.Config}
}

func retention(s topics.Spec) string {
	switch {
	case s.Retention == topics.Forever:
		return "forever"
	case s.Retention == 0:
		return topics.NotSet
	case s.Retention%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", s.Retention/(24*time.Hour))
	default:
		return s.Retention.String()
	}
}

func (a *app) topicsList(ctx context.Context) error {
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	specs, err := topics.Have(ctx, c)
	if err != nil {
		return err
	}
	rows := make([]topicRow, len(specs))
	for i, s := range specs {
		rows[i] = rowOf(s)
	}
	if len(rows) == 0 && a.output == "table" {
		a.say("no topics yet: describe some in files and run  millrace topics apply")
		return nil
	}
	return list(a, "topics", rows, "TOPIC PARTITIONS REPLICAS RETENTION", func(r topicRow) []any {
		return []any{r.Topic, r.Partitions, r.Replicas, r.Retention}
	})
}

func (a *app) topicsDescribe(ctx context.Context, names []string) error {
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	specs, err := topics.Have(ctx, c, names...)
	if err != nil {
		return err
	}
	rows := make([]topicRow, len(specs))
	for i, s := range specs {
		rows[i] = rowOf(s)
	}
	for _, n := range names {
		if !slices.ContainsFunc(rows, func(r topicRow) bool { return r.Topic == n }) {
			return hint(fmt.Errorf("there is no topic %s", n), "see which there are:  millrace topics ls")
		}
	}
	if a.output != "table" {
		return list(a, "topics", rows, "", nil)
	}
	for i, r := range rows {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "%s\n  partitions  %d\n  replicas    %d\n  retention   %s\n", printable(r.Topic), r.Partitions, r.Replicas, r.Retention)
		for _, k := range slices.Sorted(maps.Keys(r.Config)) {
			fmt.Fprintf(a.out, "  %s = %s\n", printable(k), printable(r.Config[k]))
		}
	}
	return nil
}

// specs loads the folder of topic files.
func (a *app) specs(args []string) ([]topics.Spec, string, error) {
	dir := "topics"
	if len(args) > 0 {
		dir = args[0]
	}
	at := a.path(dir)
	if info, err := os.Stat(at); err != nil || !info.IsDir() {
		return nil, dir, hint(usage(fmt.Errorf("there is no folder %s with topic files", dir)),
			"name it:  millrace topics plan DIR", "a file holds  name: shop.orders, partitions: 12, retention: 7d")
	}
	specs, err := topics.Load(os.DirFS(at))
	if err != nil {
		return nil, dir, hint(err, "correct the file in "+dir+" and plan again")
	}
	return specs, dir, nil
}

// path is a path that the user typed, seen from the working directory.
func (a *app) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(a.dir, p)
}

func (a *app) topicsPlan(ctx context.Context, args []string) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	changes, dir, err := a.planned(ctx, args)
	if err != nil {
		return err
	}
	if err := a.printChanges(changes); err != nil {
		return err
	}
	acts, refusals := count(changes)
	switch {
	case refusals > 0:
		return hint(coded{fmt.Errorf("%s cannot be made", plural(int64(refusals), "change")), codePending}, "correct the files in "+dir+", or read what is said beside each")
	case acts > 0:
		a.say("%s. To make them:  millrace topics apply %s", plural(int64(acts), "change"), dir)
		return errPending
	}
	a.say("nothing to change: the cluster is as %s says", dir)
	return nil
}

func (a *app) planned(ctx context.Context, args []string) ([]topics.Change, string, error) {
	specs, dir, err := a.specs(args)
	if err != nil {
		return nil, dir, err
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return nil, dir, err
	}
	have, err := topics.Have(ctx, c)
	if err != nil {
		return nil, dir, err
	}
	return topics.Plan(specs, have), dir, nil
}

func count(changes []topics.Change) (acts, refusals int) {
	for _, c := range changes {
		if c.Refused != "" {
			refusals++
		} else if c.Acts() {
			acts++
		}
	}
	return acts, refusals
}

func (a *app) printChanges(changes []topics.Change) error {
	if a.output != "table" {
		return list(a, "changes", changes, "", nil)
	}
	var unmanaged []string
	for _, c := range changes {
		if c.What == topics.Unmanaged {
			unmanaged = append(unmanaged, c.Topic)
			continue
		}
		fmt.Fprintf(a.out, "%s %s\n", mark(c), printable(c.String()))
	}
	if len(unmanaged) > 0 {
		a.say("in no file, and left alone: %s", printable(strings.Join(unmanaged, ", ")))
	}
	return nil
}

// mark is what a change does, in one column: + new, - gone, ~ different, ! refused.
func mark(c topics.Change) string {
	switch {
	case c.Refused != "":
		return "!"
	case c.What == topics.Create:
		return "+"
	case c.Destroys:
		return "-"
	default:
		return "~"
	}
}

func (a *app) topicsApply(ctx context.Context, args []string, f applyFlags) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	changes, dir, err := a.toApply(ctx, args, f)
	if err != nil {
		return err
	}
	var skipped []topics.Change
	changes = slices.DeleteFunc(changes, func(c topics.Change) bool {
		leave := c.Destroys && (c.What == topics.Delete && !f.allowDestroy || c.What != topics.Delete && !f.prune)
		if leave {
			skipped = append(skipped, c)
		}
		return leave
	})
	for _, c := range skipped {
		flag := "--prune"
		if c.What == topics.Delete {
			flag = "--allow-destroy"
		}
		a.say("left alone without %s: %s", flag, printable(c.String()))
	}
	acts, refusals := count(changes)
	if acts+refusals == 0 {
		a.say("nothing to change: the cluster is as %s says", dir)
		return nil
	}
	if refusals == 0 {
		if !f.yes {
			if err := a.printChanges(changes); err != nil {
				return err
			}
		}
		if err := a.mayWrite(); err != nil {
			return err
		}
		if !f.yes {
			if err := a.confirm("Make " + plural(int64(acts), "change") + "?"); err != nil {
				return err
			}
		}
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	applied, err := topics.Apply(ctx, c, changes, true) // what may not be destroyed was taken out above
	if f.yes || a.output != "table" {
		if err := a.printChanges(applied); err != nil {
			return err
		}
	}
	switch {
	case err != nil && len(applied) > 0 && !errors.Is(err, topics.ErrChanged):
		return coded{err, codePartial}
	case err != nil:
		return err
	}
	a.say("%s made", plural(int64(len(applied)), "change"))
	return nil
}

// toApply is a plan made now, or one that was written to a file.
func (a *app) toApply(ctx context.Context, args []string, f applyFlags) ([]topics.Change, string, error) {
	if f.plan == "" {
		return a.planned(ctx, args)
	}
	src, err := os.ReadFile(a.path(f.plan))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, f.plan, hint(usage(fmt.Errorf("there is no plan %s", f.plan)), "write one:  millrace topics plan -o json > "+f.plan)
	}
	if err != nil {
		return nil, f.plan, fmt.Errorf("read plan: %w", err)
	}
	var doc struct {
		Millrace int             `json:"millrace"`
		Changes  []topics.Change `json:"changes"`
	}
	if err := json.Unmarshal(src, &doc); err != nil || doc.Millrace != 1 {
		return nil, f.plan, hint(usage(fmt.Errorf("%s is no plan", f.plan)), "write one:  millrace topics plan -o json > "+f.plan)
	}
	return doc.Changes, f.plan, nil
}

// completeTopics answers with the topics of the cluster, from the metadata alone: configurations take a second request.
func (a *app) completeTopics(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(func(ctx context.Context) ([]string, error) {
		c, err := a.cluster(ctx)
		if err != nil {
			return nil, err
		}
		client, err := c.Client()
		if err != nil {
			return nil, err
		}
		defer client.Close()
		details, err := kadm.NewClient(client).ListTopics(ctx)
		return details.Names(), err
	})(cmd, args, prefix)
}
