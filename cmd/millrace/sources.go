package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/signature"
)

// sourcesFlags are those of every command of millrace sources.
type sourcesFlags struct {
	dir         string
	recordBytes int
}

func (f *sourcesFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.dir, "sources", "sources", "the `folder` with a file for each sender")
	fs.IntVar(&f.recordBytes, "record-bytes", gateway.DefaultRecordBytes, "the largest record that the gateway writes, as it was told")
}

func (a *app) sourcesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sources", Short: "Webhooks in: who sends, whether all is there, and a try",
		Long: `Webhooks in: who sends, whether all is there for it, and a try. A source is a file of the folder sources, which
millrace serve gateway takes in; what it may say:  docs/webhooks-in.md.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.sourcesListCommand(), a.sourcesCheckCommand(), a.sourcesTestCommand())
	return cmd
}

// loadSources reads the folder as the gateway does, or lenient: without the secrets that are not here. Where no event is
// typed no registry is asked.
func (a *app) loadSources(ctx context.Context, f sourcesFlags, lenient bool) ([]*gateway.Source, *schemas.Registry, error) {
	if f.recordBytes < 2*gateway.RecordRoom || f.recordBytes > 32<<20 {
		return nil, nil, usage(fmt.Errorf("--record-bytes %d: %d to %d is allowed", f.recordBytes, 2*gateway.RecordRoom, 32<<20))
	}
	dir := a.path(f.dir)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, nil, hint(usage(fmt.Errorf("there is no folder %s", f.dir)), "name the one that your gateway reads:  millrace sources ls --sources DIR")
	}
	reg, _, err := a.registry()
	if err != nil {
		return nil, nil, err
	}
	sources, err := gateway.Folder{Dir: dir, Getenv: a.getenv, MaxBody: int64(f.recordBytes - gateway.RecordRoom), Lenient: lenient}.Load(ctx, reg)
	return sources, reg, err
}

// sourceDoc is a source as a document.
type sourceDoc struct {
	Name    string   `json:"name"`
	Path    string   `json:"path"`
	Scheme  string   `json:"scheme"`
	Topic   string   `json:"topic"`
	Key     string   `json:"key,omitempty"` // where the record's key is
	Events  []string `json:"events"`        // type and topic of each typed event
	Secrets []string `json:"secrets"`       // where they are, never what they are; "(not set)" behind one that is not here
	// Window is for how long a repeat is told by its id, BodyWindow by its body; "0s" is not at all.
	Window     string `json:"dedupe_window"`
	BodyWindow string `json:"dedupe_body_window"`
	Deadline   string `json:"deadline"` // how long the sender waits
	Hold       string `json:"hold"`     // how long a request is held while Kafka is slow
	On503      string `json:"on_503"`
	Redeliver  string `json:"redeliver,omitempty"`
	// Live is what a running gateway says; nil without --gateway, and for a source that it does not have.
	Live *liveDoc `json:"live,omitempty"`
}

type liveDoc struct {
	*counts

	Remembered int               `json:"remembered"`
	Refused    []gateway.Refusal `json:"refused"` // told to come again, and not acknowledged since: the newest thousand
}

func newSourceDoc(s *gateway.Source) sourceDoc {
	d := sourceDoc{Name: s.Name, Path: s.Path(), Scheme: s.SchemeName(), Topic: s.Topic, Events: []string{}, Secrets: slices.Clone(s.Secrets)}
	switch {
	case s.Key.Header != "":
		d.Key = "header " + s.Key.Header
	case s.Key.JSON != "":
		d.Key = s.Key.JSON
	}
	for _, e := range s.Events {
		d.Events = append(d.Events, e.Type+" → "+e.Topic)
	}
	if d.Secrets == nil {
		d.Secrets = []string{}
	}
	id, body := s.Windows()
	d.Window, d.BodyWindow = id.String(), body.String()
	deadline, hold := s.Patience()
	d.Deadline, d.Hold = deadline.String(), hold.String()
	d.On503 = "nobody knows: the source does not say who sends"
	if s.Scheme != nil {
		d.On503, d.Redeliver = habit(s.Scheme.Sender), s.Scheme.Sender.Redeliver
	}
	return d
}

// habit is what a sender does after a 503, in a few words.
func habit(s signature.Sender) string {
	if !s.Retries.On5xx {
		return "never comes again"
	}
	line := "comes again"
	if s.Retries.Attempts > 0 {
		line += fmt.Sprintf(", %d times", s.Retries.Attempts)
	}
	if d := time.Duration(s.Retries.For); d > 0 {
		line += ", for " + days(d)
	}
	return line
}

// days is a time as a person says it.
func days(d time.Duration) string {
	switch {
	case d%(24*time.Hour) == 0 && d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	default:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
}

func (a *app) sourcesListCommand() *cobra.Command {
	var f sourcesFlags
	gatewayAt, refusals := "", false
	cmd := &cobra.Command{
		Use: "ls", Short: "List the sources; of a running gateway also what it counted and whom it told to come again",
		Long: `List the sources: how each is verified, where it goes, for how long repeats are told, and what its sender does after a 503.

A secret that cannot be read here is listed as "not set": it may be set where the gateway runs. check and serve gateway are strict.

With --gateway, the address of serve gateway --metrics, also how requests ended since it began. --refused lists the ids of
those whose sender was told to come again and that were not acknowledged since: for the sender's own redelivery page.`,
		Example: `  millrace sources ls
  millrace sources ls -o json
  millrace sources ls --gateway localhost:9090
  millrace sources ls --gateway localhost:9090 --refused`,
		Args: nothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if refusals && gatewayAt == "" {
				return usage(errors.New("--refused asks a running gateway: name it with --gateway host:port"))
			}
			return a.sourcesList(cmd.Context(), f, gatewayAt, refusals)
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&gatewayAt, "gateway", "", "the `address` of a running gateway's metrics")
	cmd.Flags().BoolVar(&refusals, "refused", false, "list the ids that were told to come again")
	return cmd
}

func (a *app) sourcesList(ctx context.Context, f sourcesFlags, gatewayAt string, refusals bool) error {
	sources, _, err := a.loadSources(ctx, f, true)
	if err != nil {
		return err
	}
	docs := make([]sourceDoc, 0, len(sources))
	for _, s := range sources {
		docs = append(docs, newSourceDoc(s))
	}
	if gatewayAt != "" {
		live, err := askGateway(ctx, gatewayAt)
		if err != nil {
			return err
		}
		if live.Broken != "" {
			a.say("the gateway uses an older state of the files: %s", live.Broken)
		}
		for _, s := range live.Sources {
			i := slices.IndexFunc(docs, func(d sourceDoc) bool { return d.Name == s.Name })
			if i < 0 {
				a.say("the gateway has a source %s that is not in %s", s.Name, f.dir)
				continue
			}
			docs[i].Live = &liveDoc{counts: live.of(s.Name), Remembered: s.Remembered, Refused: s.Refused}
		}
	}
	switch {
	case refusals:
		return a.listRefusals(docs)
	case gatewayAt != "":
		return list(a, "sources", docs, "SOURCE\tSCHEME\tREMEMBERED\tTO COME AGAIN\tREQUESTS", func(d sourceDoc) []any {
			if d.Live == nil {
				return []any{d.Name, d.Scheme, "-", "-", "the gateway does not have it"}
			}
			return []any{d.Name, d.Scheme, number(int64(d.Live.Remembered)), number(int64(len(d.Live.Refused))), d.Live.counts}
		})
	}
	return list(a, "sources", docs, "SOURCE\tPATH\tSCHEME\tTOPIC\tEVENTS\tSECRETS\tREPEATS\tWAITS\tAFTER A 503", func(d sourceDoc) []any {
		return []any{d.Name, d.Path, d.Scheme, d.Topic, orDash(strings.Join(d.Events, ", ")), orDash(strings.Join(d.Secrets, ", ")), d.Window, d.Deadline, d.On503}
	})
}

// of are the counts of a source, none where it had no request.
func (r *running) of(name string) *counts {
	if c := r.counts[name]; c != nil {
		return c
	}
	return &counts{Reasons: map[string]int64{}}
}

// refusedDoc is an id whose sender was told to come again.
type refusedDoc struct {
	Source string    `json:"source"`
	ID     string    `json:"id"`
	At     time.Time `json:"at"`
	// Request is the id that the sender was told.
	Request string `json:"request"`
	// Redeliver is where a person has the sender send again.
	Redeliver string `json:"redeliver,omitempty"`
}

func (a *app) listRefusals(docs []sourceDoc) error {
	var all []refusedDoc
	for _, d := range docs {
		if d.Live == nil {
			continue
		}
		for _, r := range d.Live.Refused {
			all = append(all, refusedDoc{d.Name, r.ID, r.At, r.Request, d.Redeliver})
		}
	}
	return list(a, "refused", all, "SOURCE\tID\tAT\tREDELIVER", func(r refusedDoc) []any {
		return []any{r.Source, r.ID, r.At.UTC().Format(time.RFC3339), orDash(r.Redeliver)}
	})
}

func (a *app) sourcesCheckCommand() *cobra.Command {
	var f sourcesFlags
	cmd := &cobra.Command{
		Use: "check", Short: "Check files, secrets, topics, mappings and rights before the gateway needs them",
		Long: `Check what the gateway will need: the files, read as it reads them; that the secrets can be read and have their scheme's
form; that mappings fit the registered schemas; that topics exist, are large enough for the largest record, and may be
published to. Nothing is changed.

Exits 0 when all is there, 3 when only that is missing which the gateway makes with --create-topics, and 1 otherwise.`,
		Example: "  millrace sources check\n  millrace sources check --sources sources -o json",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.sourcesCheck(cmd.Context(), f) },
	}
	f.register(cmd.Flags())
	return cmd
}

// flaw is something that a check found.
type flaw struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Topic   string `json:"topic,omitempty"`
	Says    string `json:"says"`
	Pending bool   `json:"pending"` // the gateway makes it with --create-topics
}

// checkDoc is the outcome of a check.
type checkDoc struct {
	Millrace int    `json:"millrace"`
	Sources  int    `json:"sources"`
	Flaws    []flaw `json:"flaws"`
}

// errFlaws is the exit code 1 of a check whose findings were printed.
var errFlaws = coded{errors.New("the sources are not in order"), codeFailed}

func (a *app) sourcesCheck(ctx context.Context, f sourcesFlags) error {
	if err := a.formats("table", "json"); err != nil {
		return err
	}
	doc := checkDoc{Millrace: 1, Flaws: []flaw{}}
	sources, reg, err := a.loadSources(ctx, f, false)
	if err != nil {
		if doc.Flaws = fileFlaws(err); doc.Flaws == nil {
			return err
		}
	} else if len(sources) == 0 {
		doc.Flaws = append(doc.Flaws, flaw{Says: "there is no source in " + f.dir + ": write a file for each sender, such as stripe.yaml"})
	} else {
		doc.Sources = len(sources)
		if doc.Flaws, err = a.clusterFlaws(ctx, f, sources, reg); err != nil {
			return err
		}
	}
	if a.output == "json" {
		if err := writeJSON(a.out, doc, "  "); err != nil {
			return err
		}
	} else {
		for _, fl := range doc.Flaws {
			fmt.Fprintln(a.out, printable(fl.String()))
		}
	}
	switch {
	case len(doc.Flaws) == 0:
		a.say("%d sources are in order", doc.Sources)
		return nil
	case slices.ContainsFunc(doc.Flaws, func(f flaw) bool { return !f.Pending }):
		return errFlaws
	}
	return errPending
}

// String is one line for a person.
func (f flaw) String() string {
	switch {
	case f.File != "" && f.Line > 0:
		return fmt.Sprintf("✗ %s:%d: %s", f.File, f.Line, f.Says)
	case f.File != "":
		return "✗ " + f.File + ": " + f.Says
	}
	mark := "✗ "
	if f.Pending {
		mark = "+ "
	}
	if f.Topic != "" && !strings.HasPrefix(f.Says, "topic "+f.Topic) {
		return mark + "topic " + f.Topic + ": " + f.Says
	}
	return mark + f.Says
}

// fileFlaws takes the error of a folder apart; nil where it is of another kind.
func fileFlaws(err error) []flaw {
	if fe, ok := errors.AsType[*gateway.FileError](err); ok {
		if joined, many := err.(interface{ Unwrap() []error }); many {
			var all []flaw
			for _, e := range joined.Unwrap() {
				all = append(all, fileFlaws(e)...)
			}
			return all
		}
		return []flaw{{File: fe.File, Line: fe.Line, Says: fe.Text}}
	}
	return nil
}

// clusterFlaws are what topics, schemas and rights lack.
func (a *app) clusterFlaws(ctx context.Context, f sourcesFlags, sources []*gateway.Source, reg *schemas.Registry) ([]flaw, error) {
	c, err := a.cluster(ctx)
	if err != nil {
		return nil, err
	}
	lacks, err := gateway.Topics{Cluster: c, Registry: reg, RecordBytes: f.recordBytes}.Lacks(ctx, sources)
	if err != nil {
		return nil, err
	}
	out := []flaw{}
	for _, l := range lacks {
		out = append(out, flaw{Topic: l.Topic, Says: l.Text, Pending: l.Made})
	}
	client, err := c.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var written []string
	for _, s := range sources {
		written = append(written, s.Topic)
		for _, e := range s.Events {
			written = append(written, e.Topic)
		}
	}
	slices.Sort(written)
	if written = slices.Compact(written); len(written) == 0 {
		return out, nil
	}
	meta, err := kadm.NewClient(client).Metadata(kadm.WithAuthorizedOps(ctx), written...)
	if err != nil {
		return nil, c.Explain(err, "Describe", "topic "+written[0])
	}
	for _, t := range meta.Topics.Sorted() {
		if t.Err == nil && len(t.AuthorizedOperations) > 0 && !slices.Contains(t.AuthorizedOperations, kadm.OpWrite) {
			out = append(out, flaw{Topic: t.Topic, Says: "this login may not publish to it: grant it Write"})
		}
	}
	return out, nil
}
