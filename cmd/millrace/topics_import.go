package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

type importFlags struct{ into, owner string }

func (a *app) topicsImportCommand() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use: "import [TOPIC…]", Short: "Write files for topics that the cluster has and no file describes",
		Long: `Write files for topics that the cluster has and no file describes: those named, or all but those of dead letters, which
consumers make, and those with a leading underscore, which belong to Kafka and to tools.

The files say what topics plan would otherwise change, so that a plan right after is empty; their events come from the
schema registry, if it answers. The cluster knows neither owner nor description: fill them in. No file is overwritten,
and nothing on the cluster changes.`,
		Example:           "  millrace topics import --into imported\n  millrace topics import notes --into imported --owner team-notes",
		Args:              names("topics", 0, 0),
		ValidArgsFunction: a.completeTopics,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.topicsImport(cmd.Context(), args, f) },
	}
	cmd.Flags().StringVar(&f.into, "into", "topics", "the `folder` to write to, with what is there already")
	cmd.Flags().StringVar(&f.owner, "owner", "unknown", "the `team` that answers for the topics")
	return cmd
}

type importRow struct {
	Topic string   `json:"topic"`
	File  string   `json:"file"`
	Did   string   `json:"did"` // written, or described: a file had it
	Left  []string `json:"left,omitempty"`
}

func (a *app) topicsImport(ctx context.Context, args []string, f importFlags) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	described, err := a.described(f.into)
	if err != nil {
		return err
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	have, err := topics.Have(ctx, c, args...)
	if err != nil {
		return err
	}
	for _, name := range args {
		if !slices.ContainsFunc(have, func(s topics.Spec) bool { return s.Name == name }) {
			return hint(fmt.Errorf("there is no topic %s", name), "see which there are:  millrace topics ls")
		}
	}
	if len(args) == 0 {
		have = slices.DeleteFunc(have, func(s topics.Spec) bool {
			return strings.HasPrefix(s.Name, "_") || strings.HasSuffix(s.Name, deadLetters)
		})
	}
	subjects, err := a.subjectsByName(ctx)
	if err != nil {
		a.say("the files name no events: %v", err)
	}
	var rows []importRow
	for _, s := range have {
		if file := described[s.Name]; file != "" {
			rows = append(rows, importRow{Topic: s.Name, File: filepath.Join(f.into, file), Did: "described"})
			continue
		}
		s.Owner = f.owner
		s.Events, s.Naming = eventsOf(s.Name, subjects)
		row, err := a.writeTopic(f.into, s)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 && a.output == "table" {
		a.say("no topics yet: there is nothing to import")
		return nil
	}
	if err := list(a, "topics", rows, "TOPIC DID FILE", func(r importRow) []any { return []any{r.Topic, r.Did, r.File} }); err != nil {
		return err
	}
	for _, r := range rows {
		if len(r.Left) > 0 {
			a.say("%s: left out, because a file cannot say it: %s", printable(r.Topic), printable(strings.Join(r.Left, ", ")))
		}
	}
	if f.owner == "unknown" && slices.ContainsFunc(rows, func(r importRow) bool { return r.Did == "written" }) {
		a.say("fill in owner, description and key; then:  millrace topics plan %s", f.into)
	}
	return nil
}

// described are the topics that files of the folder describe, with the file.
func (a *app) described(dir string) (map[string]string, error) {
	files := map[string]string{}
	if _, err := os.Stat(a.path(dir)); errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	specs, _, err := a.specs([]string{dir})
	if err != nil {
		return nil, err
	}
	for _, s := range specs {
		files[s.Name] = s.File
	}
	return files, nil
}

// writeTopic writes a new file. Load leaves out hidden files, so a name that begins with a dot does not begin its file's.
func (a *app) writeTopic(dir string, s topics.Spec) (importRow, error) {
	name := s.Name + ".yaml"
	if strings.HasPrefix(name, ".") {
		name = "dot" + name
	}
	file := filepath.Join(dir, name)
	text, left := topics.Format(s)
	if err := os.MkdirAll(a.path(dir), 0o750); err != nil {
		return importRow{}, fmt.Errorf("make the folder: %w", err)
	}
	out, err := os.OpenFile(a.path(file), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // it goes into a repository
	if errors.Is(err, fs.ErrExist) {
		return importRow{}, hint(fmt.Errorf("%s is there, and describes another topic than %s", file, s.Name), "move it away, or choose another folder with --into")
	}
	if err != nil {
		return importRow{}, fmt.Errorf("write topic file: %w", err)
	}
	if _, err := out.Write(text); err != nil {
		return importRow{}, errors.Join(fmt.Errorf("write topic file: %w", err), out.Close())
	}
	if err := out.Close(); err != nil {
		return importRow{}, fmt.Errorf("write topic file: %w", err)
	}
	return importRow{Topic: s.Name, File: file, Did: "written", Left: left}, nil
}

// subjectsByName are the registry's subjects with the full names of their latest records.
func (a *app) subjectsByName(ctx context.Context) (map[string]string, error) {
	reg, _, err := a.registry()
	if err != nil {
		return nil, err
	}
	subjects, err := reg.Subjects(ctx)
	if err != nil {
		return nil, err
	}
	named := map[string]string{}
	for _, subject := range subjects {
		s, err := reg.Latest(ctx, subject)
		if err != nil && !errors.Is(err, schemas.ErrNotFound) {
			return nil, err
		}
		if err == nil && s.Type == "AVRO" && s.Name != "" {
			named[subject] = s.Name
		}
	}
	return named, nil
}

// eventsOf are the records that are registered for a topic, and by which naming.
func eventsOf(topic string, subjects map[string]string) ([]string, schemas.Naming) {
	var events []string
	for subject, name := range subjects {
		if subject == schemas.ByTopicRecord.Subject(topic, name) {
			events = append(events, name)
		}
	}
	if len(events) > 0 {
		slices.Sort(events)
		return events, schemas.ByTopicRecord
	}
	if name := subjects[schemas.ByTopic.Subject(topic, "")]; name != "" {
		return []string{name}, schemas.ByTopic
	}
	return nil, schemas.ByTopic
}
