package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/sink"
)

// sinkFlags say which sink is meant: one of a file, or one that a service has, by its name and its database.
type sinkFlags struct {
	file, name, dsn, schema, sqlite string
}

func (f *sinkFlags) register(fs *pflag.FlagSet) {
	fs.StringVarP(&f.file, "file", "f", "", "the sink that this `file` describes")
	fs.StringVar(&f.name, "name", "", "without a file: the `sink` of this name")
	fs.StringVar(&f.dsn, "postgres", "", "in the PostgreSQL of this `DSN`, env:NAME or file:PATH")
	fs.StringVar(&f.schema, "schema", "", "with --postgres: the `schema` of the sink's own tables")
	fs.StringVar(&f.sqlite, "sqlite", "", "in the SQLite of this `file`")
}

// openedSink is a sink's place to stand, open for commands.
type openedSink struct {
	name  string
	file  *sinkFile // nil without one
	flag  string    // how the command line named it
	admin sink.Admin
	close func()
}

func (s *openedSink) keeper() sinkKeeper { return sinkKeeper{s.name, s.admin} }

// flags are those that name the sink again, for what to type next.
func (s *openedSink) flags() string { return s.flag }

// read is the sink's file, or what the flags say in its place.
func (f sinkFlags) read(a *app) (*sinkFile, string, error) {
	given := 0
	for _, is := range []bool{f.file != "", f.dsn != "" || f.sqlite != ""} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return nil, "", hint(usage(errors.New("name the sink: its file, or its name and its database")),
			"millrace sink describe -f sink.yaml", "millrace sink describe --name analytics --postgres env:ANALYTICS_DSN")
	case given > 1 || f.file != "" && f.name != "" || f.dsn != "" && f.sqlite != "":
		return nil, "", usage(errors.New("name the sink once: -f, or --name with --postgres or --sqlite"))
	case f.file != "":
		s, err := readSinkFile(a.path(f.file))
		return s, " -f " + f.file, err
	case f.name == "":
		return nil, "", usage(errors.New("--postgres and --sqlite need --name: the name of the sink"))
	}
	if password.MatchString(f.dsn) { // it is not printed
		return nil, "", usage(errors.New("--postgres has a password in it, and flags show in the process list: write env:NAME or file:PATH"))
	}
	s := &sinkFile{configFile: &configFile{path: a.path("the command line")}, into: sinkInto{dsn: f.dsn, schema: f.schema, sqlite: f.sqlite}}
	s.config.Name = f.name
	flag := " --name " + f.name
	if f.dsn != "" {
		flag += " --postgres " + f.dsn
	} else {
		flag += " --sqlite " + f.sqlite
	}
	return s, flag, nil
}

// openSink opens a sink for commands.
func (a *app) openSink(ctx context.Context, f sinkFlags) (*openedSink, error) {
	file, flag, err := f.read(a)
	if err != nil {
		return nil, err
	}
	t, err := file.open(ctx, a.getenv, true)
	if err != nil {
		return nil, err
	}
	s := &openedSink{name: file.config.Name, flag: flag, admin: t.Admin, close: t.close}
	if f.file != "" {
		s.file = file
	}
	return s, nil
}

func (a *app) sinkCommand() *cobra.Command {
	var file, listen string
	var create, evolve bool
	cmd := &cobra.Command{
		Use: "sink", Short: "Write events to tables and files, each once, whatever crashes",
		Long: `Write events to tables of PostgreSQL or SQLite, or to Parquet files, each once, whatever crashes: the position is in the
target, in one transaction with the rows. No code is needed; a service that writes in Go has the same by package sink.

The file says what goes where:

  name: analytics                   # of the position, and of the group that shows the lag
  topics: [shop.orders]
  into:
    postgres: env:ANALYTICS_DSN     # or sqlite: data/analytics.db, or parquet: data/lake
  tables:
    - name: orders
      event: shop.OrderPlaced
      key: order_id                 # one row of each; append: true makes one of each event
      columns: [order_id, cents, {country: customer.country}]    # or all, without

Further: start (a position; start without), batch (events of a transaction), wait, dedupe: 24h (a producer's repeat is skipped),
evolve: true (columns that a schema gets are added), attempts; below into, with postgres, schema and timeout: 5m (of a transaction). Parquet needs no tables: each topic has a
folder; one table may say which event and columns.

It runs until it is told to stop. Run as many as there are partitions: they share them out. What does not decode, and what
the database refuses, goes to the dead letters, <topic>.<sink>.dlq: those topics must exist, or --create-topics makes them. A
database that is away is waited for.`,
		Example: "  millrace sink -f sink.yaml\n  millrace sink -f sink.yaml --metrics :9090",
		Args:    noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return cmd.Help()
			}
			return a.runSink(cmd.Context(), file, listen, create, evolve)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the `file` that describes the sink")
	cmd.Flags().StringVar(&listen, "metrics", a.getenv(service.Env("metrics")), "serve /metrics, /healthz and /readyz on this `address` [MILLRACE_METRICS]")
	cmd.Flags().BoolVar(&evolve, "evolve", false, "add the nullable columns that a schema has got to the tables, as evolve: true in the file")
	cmd.Flags().BoolVar(&create, "create-topics", a.getenv(service.Env("create-topics")) == "true", "create missing dead-letter topics at start [MILLRACE_CREATE_TOPICS]")
	cmd.AddCommand(a.sinkDescribeCommand(), a.sinkRewindCommand(), a.sinkRebuildCommand())
	return cmd
}

// runSink runs a sink as a service does: settings, logs, metrics, health, pauses and an orderly stop.
func (a *app) runSink(ctx context.Context, path, listen string, create, evolve bool) error {
	f, err := readSinkFile(a.path(path))
	if err != nil {
		return err
	}
	f.config.Evolve = f.config.Evolve || evolve
	if err := a.mustWrite(); err != nil {
		return err
	}
	if _, err := a.cluster(ctx); err != nil { // the errors of commands are for people
		return err
	}
	if f.start != "" {
		if f.config.Start, err = f.startAt(a.now()); err != nil {
			return err
		}
	}
	t, err := f.open(ctx, a.getenv, false)
	if err != nil {
		return err
	}
	defer t.close()
	args := []string{}
	if listen != "" {
		args = append(args, "--metrics", listen)
	}
	if create {
		args = append(args, "--create-topics")
	}
	settings := a.settings
	if len(settings.RegistryURLs) == 0 {
		settings.RegistryURLs = []string{defaultRegistry}
	}
	env := func(name string) string {
		if v := settings.Getenv(name); v != "" {
			return v
		}
		return a.getenv(name)
	}
	if code := service.Run(ctx, f.config.Name, args, env, a.err, func(_ context.Context, s *service.Service) error {
		s.Cluster.ReadOnly = a.readOnly
		return s.Sink(t.Target, f.config)
	}); code != 0 {
		return coded{errSaid, code}
	}
	return nil
}

func (a *app) sinkDescribeCommand() *cobra.Command {
	var f sinkFlags
	cmd := &cobra.Command{
		Use: "describe", Short: "Show where a sink stands on each partition",
		Long: `Show where a sink stands on each partition, from its own database: the next offset, how far that is behind the end, who
holds the partition, and when it was written last. WATERMARK is the newest event time that was written.`,
		Example: "  millrace sink describe -f sink.yaml\n  millrace sink describe --name analytics --sqlite data/analytics.db -o json",
		Args:    names("no argument: the sink is in the file that -f names", 0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.sinkDescribe(cmd.Context(), f) },
	}
	f.register(cmd.Flags())
	return cmd
}

// sinkRow is a position row as JSON. What is not known is absent.
type sinkRow struct {
	Sink      string     `json:"sink"`
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Next      int64      `json:"next"`
	Start     *int64     `json:"start,omitempty"`
	End       *int64     `json:"end,omitempty"`
	Lag       *int64     `json:"lag,omitempty"`
	Epoch     int64      `json:"epoch"` // how often the partition was taken over
	Owner     string     `json:"owner,omitempty"`
	Watermark *time.Time `json:"watermark,omitempty"`
	Updated   time.Time  `json:"updated"`
	Note      string     `json:"note,omitempty"`
}

func (a *app) sinkDescribe(ctx context.Context, f sinkFlags) error {
	s, err := a.openSink(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	at, err := s.admin.Positions(ctx, s.name)
	if err != nil {
		return fmt.Errorf("read the positions of sink %s: %w", s.name, err)
	}
	if len(at) == 0 && a.output == "table" {
		a.say("sink %s has no position yet: it gets one when it runs", printable(s.name))
		return nil
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	rows, err := sinkRows(ctx, c, s.name, at)
	if err != nil {
		return err
	}
	return list(a, "partitions", rows, "TOPIC PARTITION NEXT END LAG WATERMARK UPDATED OWNER NOTE", func(r sinkRow) []any {
		water := "-"
		if r.Watermark != nil {
			water = r.Watermark.UTC().Format(time.DateTime + "Z")
		}
		return []any{
			r.Topic, r.Partition, r.Next, dash(r.End), dash(r.Lag), water, age(a.now().Sub(r.Updated)) + " ago", orDash(r.Owner), orDash(r.Note),
		}
	})
}

// sinkRows are position rows beside the logs that they are about.
func sinkRows(ctx context.Context, c kafka.Cluster, name string, at []sink.Position) ([]sinkRow, error) {
	logs, err := groups.Logs(ctx, c, topicsOf(at)...)
	if err != nil {
		return nil, err
	}
	rows := make([]sinkRow, len(at))
	for i, p := range at {
		r := sinkRow{Sink: name, Topic: p.ID.Topic, Partition: p.ID.Partition, Next: p.Next, Epoch: p.Epoch, Owner: p.Owner, Updated: p.Updated.UTC()}
		if !p.Watermark.IsZero() {
			w := p.Watermark.UTC()
			r.Watermark = &w
		}
		log, ok := logs[groups.Key{Topic: p.ID.Topic, Partition: p.ID.Partition}]
		switch {
		case !ok:
			r.Note = "the topic or partition is gone"
		case log.TopicID != p.ID.TopicID && log.TopicID != [16]byte{} && p.ID.TopicID != [16]byte{}:
			r.Note = "the topic was created anew: the sink stops there, rewind it"
		default:
			lag := max(0, log.End-p.Next)
			r.Start, r.End, r.Lag = &log.Start, &log.End, &lag
			if p.Next < log.Start {
				r.Note = fmt.Sprintf("%d offsets were deleted before they were written: the sink stops there, rewind it", log.Start-p.Next)
			}
		}
		rows[i] = r
	}
	return rows, nil
}

func topicsOf(at []sink.Position) []string {
	var out []string
	for _, p := range at {
		if len(out) == 0 || out[len(out)-1] != p.ID.Topic { // they come by topic
			out = append(out, p.ID.Topic)
		}
	}
	return out
}
