package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

func (a *app) schemasCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schemas",
		Short: "Schemas as code: register a folder of .avsc, look at what is there",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var version int
	get := &cobra.Command{
		Use: "get SUBJECT|ID", Short: "Print a schema, the latest version or another, by subject or by id",
		Example:           "  millrace schemas get shop.orders-value\n  millrace schemas get shop.orders-value --version 1\n  millrace schemas get 1 -o raw",
		Args:              names("a subject or an id", 1, 1),
		ValidArgsFunction: a.completeSubjects,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.schemasGet(cmd.Context(), args[0], version) },
	}
	get.Flags().IntVar(&version, "version", 0, "print this `version` of the subject, counted from 1")
	cmd.AddCommand(&cobra.Command{
		Use: "ls", Short: "List subjects with their latest version",
		Example: "  millrace schemas ls\n  millrace schemas ls -o jsonl",
		Args:    names("no subject: ls lists all", 0, -1),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.schemasList(cmd.Context()) },
	}, get, a.registerCommand())
	return cmd
}

type registerFlags struct {
	topics, subject string
	dryRun          bool
}

func (a *app) registerCommand() *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use: "register DIR|FILE…", Short: "Register .avsc files under the subjects of their topics",
		Long: `Register .avsc files under the subjects of their topics.

The subject of a record comes from the topic files (--topics): each topic that lists the record's full name under
events gives one, by its naming. A record that no topic lists takes its file's name, if that ends in -value or -key:
shop.orders-value.avsc. Says for each what it did; nothing is registered when any of them is incompatible.`,
		Example: "  millrace schemas register schemas\n  millrace schemas register order_placed.avsc --subject shop.orders-value",
		Args:    names("a folder or files", 1, 0),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.schemasRegister(cmd.Context(), args, f) },
	}
	cmd.Flags().StringVar(&f.topics, "topics", "", "the `folder` of topic files. Defaults to topics, or to topics beside DIR")
	cmd.Flags().StringVar(&f.subject, "subject", "", "register one file under this `subject`")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "check only: exit 3 when something would be registered")
	return cmd
}

type schemaRow struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
	ID      int32  `json:"id"`
	Type    string `json:"type"`
	Name    string `json:"name"`
}

func (a *app) schemasList(ctx context.Context) error {
	reg, _, err := a.registry()
	if err != nil {
		return err
	}
	subjects, err := reg.Subjects(ctx)
	if err != nil {
		return err
	}
	var rows []schemaRow
	for _, subject := range subjects {
		s, err := reg.Latest(ctx, subject)
		if errors.Is(err, schemas.ErrNotFound) {
			continue // deleted between the two questions
		}
		if err != nil {
			return err
		}
		rows = append(rows, schemaRow{subject, s.Version, s.ID, s.Type, s.Name})
	}
	if len(rows) == 0 && a.output == "table" {
		a.say("no schemas yet: register some with  millrace schemas register DIR")
		return nil
	}
	return list(a, "schemas", rows, "SUBJECT VERSION ID TYPE NAME", func(r schemaRow) []any {
		return []any{r.Subject, r.Version, r.ID, r.Type, r.Name}
	})
}

func (a *app) schemasGet(ctx context.Context, what string, version int) error {
	if err := a.formats("table", "json", "jsonl", "raw"); err != nil {
		return err
	}
	reg, _, err := a.registry()
	if err != nil {
		return err
	}
	var s schemas.Schema
	id, notID := strconv.ParseInt(what, 10, 32)
	switch {
	case version < 0:
		return usage(fmt.Errorf("--version %d: versions count from 1", version))
	case notID == nil && version == 0:
		s, err = reg.ByID(ctx, int32(id))
	case version > 0:
		s, err = reg.Version(ctx, what, version)
	default:
		s, err = reg.Latest(ctx, what)
	}
	if err != nil {
		return err
	}
	switch a.output {
	case "raw":
		fmt.Fprint(a.out, s.Text)
		return nil
	case "json", "jsonl":
		return writeJSON(a.out, struct {
			Millrace int `json:"millrace"`
			schemaRow
			Schema string `json:"schema"`
		}{1, schemaRow{s.Subject, s.Version, s.ID, s.Type, s.Name}, s.Text}, "")
	}
	if s.Subject != "" {
		a.say("%s version %d, id %d", printable(s.Subject), s.Version, s.ID)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, []byte(s.Text), "", "  "); err != nil {
		pretty.Reset() // Protobuf is no JSON
		pretty.WriteString(s.Text)
	}
	fmt.Fprintln(a.out, pretty.String())
	return nil
}

// registration is one text under one subject.
type registration struct {
	File    string `json:"file"`
	Subject string `json:"subject"`
	Name    string `json:"name"`
	Did     string `json:"did"` // registered, unchanged, would register
	Version int    `json:"version,omitempty"`
	ID      int32  `json:"id,omitempty"`

	text string
}

func (a *app) schemasRegister(ctx context.Context, args []string, f registerFlags) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	todo, err := a.registrations(args, f)
	if err != nil {
		return err
	}
	reg, _, err := a.registry()
	if err != nil {
		return err
	}
	var reasons []error
	for i := range todo {
		if err := check(ctx, reg, &todo[i]); err != nil {
			if !errors.Is(err, schemas.ErrIncompatible) {
				return err
			}
			reasons = append(reasons, err)
		}
	}
	if len(reasons) > 0 {
		return errors.Join(reasons...) // before anything is registered
	}
	news := 0
	for i := range todo {
		r := &todo[i]
		if r.Did == "unchanged" {
			continue
		}
		news++
		if f.dryRun {
			continue
		}
		if a.readOnly {
			return hint(refused(fmt.Errorf("register %s: the command is read-only", r.Subject)), "leave out --read-only")
		}
		s, err := reg.Register(ctx, r.Subject, r.text)
		if err != nil {
			if printErr := a.printRegistrations(todo[:i]); printErr != nil {
				return printErr
			}
			if news > 1 {
				err = coded{err, codePartial}
			}
			return fmt.Errorf("register %s as %s: %w", r.File, r.Subject, err)
		}
		r.Did, r.Version, r.ID = "registered", s.Version, s.ID
	}
	if err := a.printRegistrations(todo); err != nil {
		return err
	}
	if f.dryRun && news > 0 {
		a.say("%s to register, compatible with what is there", plural(int64(news), "schema"))
		return errPending
	}
	return nil
}

func (a *app) printRegistrations(rs []registration) error {
	return list(a, "schemas", rs, "SUBJECT VERSION ID DID NAME FILE", func(r registration) []any {
		version, id := "-", "-"
		if r.Version > 0 {
			version, id = strconv.Itoa(r.Version), strconv.Itoa(int(r.ID))
		}
		return []any{r.Subject, version, id, r.Did, r.Name, r.File}
	})
}

// check finds what is to be done for r: nothing when the text is registered, an error when it cannot follow.
func check(ctx context.Context, reg *schemas.Registry, r *registration) error {
	s, err := reg.Lookup(ctx, r.Subject, r.text)
	switch {
	case err == nil:
		r.Did, r.Version, r.ID = "unchanged", s.Version, s.ID
		return nil
	case !errors.Is(err, schemas.ErrNotFound):
		return fmt.Errorf("look up %s: %w", r.Subject, err)
	}
	reasons, err := reg.Check(ctx, r.Subject, r.text)
	if errors.Is(err, schemas.ErrNotFound) {
		err = nil // the subject is new: there is nothing to be compatible with
	}
	if err != nil {
		return fmt.Errorf("check %s against %s: %w", r.File, r.Subject, err)
	}
	if len(reasons) > 0 {
		return fmt.Errorf("%s cannot follow the versions of %s: %w:\n    %s", r.File, r.Subject, schemas.ErrIncompatible, strings.Join(reasons, "\n    "))
	}
	r.Did = "would register"
	return nil
}

// registrations pairs each file with its subjects, and says which files have none.
func (a *app) registrations(args []string, f registerFlags) ([]registration, error) {
	files, err := a.schemaFiles(args)
	if err != nil {
		return nil, err
	}
	if f.subject != "" && len(files) != 1 {
		return nil, usage(fmt.Errorf("--subject is for one file, and %d were named", len(files)))
	}
	specs, err := a.specsBeside(args, f)
	if err != nil {
		return nil, err
	}
	var out []registration
	var errs []error
	for _, file := range files {
		src, err := os.ReadFile(a.path(file))
		if err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		s, err := schemas.Parse(string(src))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		subjects := subjectsOf(file, s.Name, specs)
		if f.subject != "" {
			subjects = []string{f.subject}
		}
		if len(subjects) == 0 {
			errs = append(errs, fmt.Errorf("%s: no topic lists %s under events, so it has no subject", file, s.Name))
		}
		for _, subject := range subjects {
			out = append(out, registration{File: file, Subject: subject, Name: s.Name, text: s.Text})
		}
	}
	if len(errs) > 0 {
		return nil, hint(errors.Join(errs...), "list the record in a topic file, under  events:", "or name the file after its subject, like  shop.orders-value.avsc", "or:  millrace schemas register FILE --subject SUBJECT")
	}
	return out, nil
}

// schemaFiles are the .avsc files named, folders searched, in a fixed order.
func (a *app) schemaFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		info, err := os.Stat(a.path(arg))
		if err != nil {
			return nil, usage(fmt.Errorf("there is no file or folder %s", arg))
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		found := 0
		err = fs.WalkDir(os.DirFS(a.path(arg)), ".", func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && filepath.Ext(p) == ".avsc" {
				files = append(files, filepath.Join(arg, p))
				found++
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read schemas: %w", err)
		}
		if found == 0 {
			return nil, usage(fmt.Errorf("%s holds no .avsc files", arg))
		}
	}
	return files, nil
}

// specsBeside loads the topic files that give subjects: those of --topics, else the first of the usual places.
func (a *app) specsBeside(args []string, f registerFlags) ([]topics.Spec, error) {
	candidates := []string{"topics"}
	for _, arg := range args {
		candidates = append(candidates, filepath.Join(arg, "topics"), filepath.Join(filepath.Dir(filepath.Clean(arg)), "topics"))
	}
	if f.topics != "" {
		candidates = []string{f.topics}
	}
	for _, dir := range candidates {
		if info, err := os.Stat(a.path(dir)); err == nil && info.IsDir() {
			specs, _, err := a.specs([]string{dir})
			return specs, err
		}
	}
	if f.topics != "" {
		return nil, usage(fmt.Errorf("there is no folder %s with topic files", f.topics))
	}
	return nil, nil
}

// subjectsOf are the subjects of a record: of every topic that carries it, else of its file's name.
func subjectsOf(file, name string, specs []topics.Spec) []string {
	var out []string
	for _, s := range specs {
		if slices.Contains(s.Events, name) && !s.Absent {
			out = append(out, s.Naming.Subject(s.Name, name))
		}
	}
	base := strings.TrimSuffix(filepath.Base(file), ".avsc")
	if len(out) == 0 && (strings.HasSuffix(base, "-value") || strings.HasSuffix(base, "-key")) {
		return []string{base}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
