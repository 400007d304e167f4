package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/schemas"
)

// copySpec is what a copy is, as it is kept with its progress.
type copySpec struct {
	Copy        string `json:"copy"` // the topic that is read
	Into        string `json:"into"` // the one that is written
	IntoContext string `json:"into_context,omitempty"`
	Verbatim    bool   `json:"verbatim,omitempty"`
}

type copyFlags struct {
	copySpec
	readFlags
	rate, id, resume, plan string
	groups                 []string
	skipFailed, dryRun     bool
}

func (f *copyFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.IntoContext, "into-context", "", "DST is in this named `cluster`, with its registry")
	fs.StringVar(&f.from, "from", "start", "the first `position` to read")
	fs.StringVar(&f.until, "until", "", "the first `position` not to read. Defaults to what is there now")
	fs.IntSliceVar(&f.partitions, "partition", nil, "only these `partitions`")
	fs.BoolVar(&f.Verbatim, "verbatim", false, "leave values as they are, with the schema ids of SRC's registry")
	fs.StringVar(&f.rate, "rate", "", "at most so many events a second: `100/s`")
	fs.BoolVar(&f.skipFailed, "skip-failed", false, "count an event that fails for good and go on; exit 4")
	fs.StringArrayVar(&f.groups, "map-group", nil, "say where this consumer `group` of SRC would stand in DST; may be repeated")
	fs.StringVar(&f.plan, "plan", "", "write the offsets of the one --map-group as a plan to this `file`, for millrace groups offsets apply")
	fs.StringVar(&f.id, "id", "", "call the copy by this `name`")
	fs.StringVar(&f.resume, "resume", "", "go on with the copy of this `name`")
	fs.BoolVar(&f.dryRun, "dry-run", false, "say how many events there are, and copy none")
	fs.StringVar(&f.zone, "tz", "UTC", "read times in this `zone`: Europe/Rome, local")
	fs.SortFlags = false
}

func (a *app) copyCommand() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use: "copy SRC DST", Short: "Copy a topic into another, also of another cluster",
		Long: `Copy a topic into another, also of another cluster: what is there when the copy begins.

Keys, values, headers and timestamps stay as they were, and where DST has as many partitions, so do partitions. Into another
context's registry, schemas are carried: they are registered there, version by version, and the ids in the values are the
new ones. DST must exist. Its retention counts from the timestamps: what is older than it goes at once.

Offsets are not those of SRC. The report at the end maps them by time: from the offset of DST that it names nothing is
missed, and a little comes again. --map-group does so for where a group stands; --plan writes that as a plan.

Progress is kept as that of a replay is, and --resume goes on.`,
		Example: `  millrace copy shop.orders shop.copy
  millrace copy shop.orders shop.copy --from -1h --id the-last-hour
  millrace copy --resume the-last-hour
  millrace copy shop.orders shop.copy --into-context staging --map-group shipping --plan moved.json`,
		ValidArgsFunction: a.completeTopics,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.copy(cmd, args, f) },
	}
	f.register(cmd.Flags())
	return cmd
}

// copying is one run of the command. It is a replay with another target.
type copying struct {
	replaying
	f     copyFlags
	spec  copySpec
	to    kafka.Cluster
	other *app // of the context that DST is in
}

func (a *app) copy(cmd *cobra.Command, args []string, f copyFlags) error {
	ctx := cmd.Context()
	c := &copying{replaying: replaying{app: a, bar: a.progress()}, f: f}
	if err := c.check(cmd.Flags(), args); err != nil {
		return usage(err)
	}
	if err := a.resolve(); err != nil {
		return err
	}
	if !f.dryRun {
		if a.readOnly {
			return refused(fmt.Errorf("a copy keeps its progress in the cluster that is read: %w", kafka.ErrReadOnly))
		}
		if err := a.mayWrite(); err != nil {
			return err
		}
	}
	var err error
	if c.cluster, err = a.cluster(ctx); err != nil {
		return err
	}
	if err := c.describe(ctx, args); err != nil {
		return err
	}
	if f.dryRun {
		return c.dryRun(ctx)
	}
	if err := c.openTarget(ctx); err != nil {
		return err
	}
	s, err := c.copyAll(ctx)
	if err != nil {
		return err
	}
	return c.report(ctx, s)
}

func (c *copying) check(given *pflag.FlagSet, args []string) error {
	if err := c.formats("table", "json"); err != nil {
		return err
	}
	switch {
	case c.f.resume != "" && (len(args) > 0 || given.Changed("into-context") || given.Changed("from") || given.Changed("until") || given.Changed("id")):
		return errors.New("--resume goes on with what was begun: leave out topics, positions, --id and --into-context")
	case c.f.resume == "" && len(args) != 2:
		return hint(errors.New("name two topics: what is copied, and into what"), "millrace copy SRC DST")
	case c.f.plan != "" && len(c.f.groups) != 1:
		return errors.New("--plan is the plan of one group: name it with --map-group")
	}
	return nil
}

// describe completes spec and configuration.
func (c *copying) describe(ctx context.Context, args []string) error {
	c.spec = c.f.copySpec
	c.cfg = replay.Config{ID: c.f.id, SkipFailed: c.f.skipFailed, Log: c.cluster.Log}
	var err error
	if c.cfg.Rate, err = parseRate(c.f.rate); err != nil {
		return usage(err)
	}
	if c.f.resume != "" {
		p, err := replay.Find(ctx, c.cluster, c.f.resume)
		if err != nil {
			return hint(err, "see which there are:  millrace replay ls")
		}
		if err := json.Unmarshal([]byte(p.Note), &c.spec); err != nil || c.spec.Copy == "" {
			return refused(fmt.Errorf("%s is no copy: go on with it by  millrace replay --resume %s", c.f.resume, c.f.resume))
		}
		c.cfg.ID, c.cfg.Note = c.f.resume, p.Note
	} else {
		c.spec.Copy, c.spec.Into = args[0], args[1]
		if c.cfg.ID != "" {
			if _, err := replay.Find(ctx, c.cluster, c.cfg.ID); err != nil && !errors.Is(err, replay.ErrNotFound) {
				return err
			} else if err == nil {
				return hint(refused(fmt.Errorf("there is a copy or a replay %s already", c.cfg.ID)), "go on with it:  millrace copy --resume "+c.cfg.ID)
			}
		}
		note, err := marshal(c.spec)
		if err != nil {
			return err
		}
		c.cfg.Note = string(note)
	}
	zone, err := location(c.f.zone)
	if err != nil {
		return usage(err)
	}
	now := c.now().In(zone)
	c.f.bounded = true
	span, err := c.f.span(now)
	if err != nil {
		return usage(err)
	}
	c.cfg.Read = reader.Config{Topics: []string{c.spec.Copy}, Range: span}
	for _, p := range c.f.partitions {
		c.cfg.Read.Partitions = append(c.cfg.Read.Partitions, int32(p))
	}
	c.replaying.spec.Into = "topic:" + c.spec.Into
	return nil
}

// openTarget opens DST, where it is.
func (c *copying) openTarget(ctx context.Context) error {
	c.to, c.other = c.cluster, c.app
	if name := c.spec.IntoContext; name != "" {
		var err error
		if c.to, err = c.otherCluster(ctx, name); err != nil {
			return err
		}
		if c.cfg.AllowLoop, err = apart(ctx, c.cluster, c.to); err != nil {
			return err
		}
		c.other = c.inContext(name)
	}
	if err := mayPublish(ctx, c.to, c.spec.Into); err != nil {
		return err
	}
	carrier, err := c.carrier()
	if err != nil {
		return err
	}
	partitions, err := partitionsOf(ctx, c.cluster, c.spec.Copy)
	if err != nil {
		return err
	}
	m, err := replay.OpenMirror(ctx, c.to, c.spec.Into, partitions, carrier)
	if err != nil {
		return err
	}
	if !m.KeepsTimes() {
		c.say("%s has message.timestamp.type=LogAppendTime: the copies get the time of copying, and cannot be mapped by time", c.spec.Into)
	}
	c.target, c.close = m, m.Close
	return nil
}

// carrier is nil where there is one registry, or none.
func (c *copying) carrier() (*replay.Carrier, error) {
	if c.spec.Verbatim || c.spec.IntoContext == "" {
		return nil, nil //nolint:nilnil // nothing to carry is no error
	}
	from, here, err := c.registry()
	if err != nil {
		return nil, err
	}
	to, there, err := c.other.registry()
	if err != nil {
		return nil, err
	}
	if !here && !there || strings.Join(c.settings.RegistryURLs, ",") == strings.Join(c.other.settings.RegistryURLs, ",") {
		return nil, nil //nolint:nilnil // nothing to carry is no error
	}
	return &replay.Carrier{From: from, To: to, FromTopic: c.spec.Copy, ToTopic: c.spec.Into}, nil
}

func partitionsOf(ctx context.Context, c kafka.Cluster, topic string) (int, error) {
	client, err := c.Client()
	if err != nil {
		return 0, fmt.Errorf("look up topic %s: %w", topic, err)
	}
	defer client.Close()
	details, err := kadm.NewClient(client).ListTopicsWithInternal(ctx, topic)
	if err == nil {
		err = details[topic].Err
	}
	if err != nil {
		return 0, fmt.Errorf("look up topic %s: %w", topic, c.Explain(err, "Describe", "topic "+topic))
	}
	return len(details[topic].Partitions), nil
}

// copyAll copies, and says how it went.
func (c *copying) copyAll(ctx context.Context) (replay.Summary, error) {
	c.cfg.Report = c.show
	s, err := replay.Run(ctx, c.cluster, c.target, c.cfg)
	c.bar.clear()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	err = errors.Join(err, c.close(closing))
	if s.Spans != nil || err == nil {
		c.say("%s", outcome("copy", s, c.replaying.spec.Into))
	}
	if err == nil {
		return s, nil
	}
	if s.Spans != nil && !s.Done && !errors.Is(err, replay.ErrTaken) && !errors.Is(err, replay.ErrLoop) {
		c.say("  → go on:  millrace copy --resume %s", s.ID)
	}
	if errors.Is(err, schemas.ErrIncompatible) {
		return s, hint(err, "let the subject in the other registry take it, or copy the bytes as they are:  --verbatim")
	}
	return s, replayError(ctx, err)
}

// mappedRow is where a place in SRC is in DST.
type mappedRow struct {
	Group     string     `json:"group,omitempty"` // "" is where the copy ends
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Offset    int64      `json:"offset"`
	Time      time.Time  `json:"time,omitzero"` // of the last event before it
	Target    []placeRow `json:"target"`
}

type placeRow struct {
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
}

// report maps offsets: those at which the copy ends, and those of groups.
func (c *copying) report(ctx context.Context, s replay.Summary) error {
	m, _ := c.target.(*replay.Mirror)
	var places []reader.Place
	for _, x := range s.Spans {
		places = append(places, reader.Place{Topic: x.Topic, Partition: x.Partition, Offset: x.Until})
	}
	rows, _, err := c.mapped(ctx, m, "", places)
	if err != nil {
		return err
	}
	for _, g := range c.f.groups {
		more, positions, err := c.mapGroup(ctx, m, g)
		if err != nil {
			return err
		}
		rows = append(rows, more...)
		if c.f.plan != "" {
			if err := c.writePlan(ctx, g, positions); err != nil {
				return err
			}
		}
	}
	if err := c.print(s, rows); err != nil {
		return err
	}
	if s.Failed > 0 {
		return coded{fmt.Errorf("%s failed and were skipped", plural(s.Failed, "event")), codePartial}
	}
	return nil
}

func (c *copying) mapped(ctx context.Context, m *replay.Mirror, group string, places []reader.Place) ([]mappedRow, map[int32]int64, error) {
	found, err := replay.MapOffsets(ctx, c.cluster, c.to, c.spec.Into, m.KeepsPartitions(), places...)
	if err != nil {
		return nil, nil, err
	}
	rows := make([]mappedRow, len(found))
	positions := map[int32]int64{}
	for i, f := range found {
		rows[i] = mappedRow{Group: group, Topic: f.Source.Topic, Partition: f.Source.Partition, Offset: f.Source.Offset, Time: f.Time.UTC(), Target: []placeRow{}}
		for _, t := range f.Target {
			rows[i].Target = append(rows[i].Target, placeRow{t.Partition, t.Offset})
			positions[t.Partition] = t.Offset
		}
	}
	return rows, positions, nil
}

// mapGroup maps where a group of SRC stands.
func (c *copying) mapGroup(ctx context.Context, m *replay.Mirror, group string) ([]mappedRow, map[int32]int64, error) {
	found, err := groups.Describe(ctx, c.cluster, group)
	if err != nil {
		return nil, nil, err
	}
	var places []reader.Place
	for _, g := range found {
		for _, p := range g.Positions() {
			if p.Topic == c.spec.Copy {
				places = append(places, reader.Place{Topic: p.Topic, Partition: p.Partition, Offset: p.Offset})
			}
		}
	}
	if len(places) == 0 {
		return nil, nil, hint(fmt.Errorf("group %s has committed nothing on %s", group, c.spec.Copy), "see which groups do:  millrace groups lag --topic "+c.spec.Copy)
	}
	return c.mapped(ctx, m, group, places)
}

// writePlan writes a group's new offsets as a plan.
func (c *copying) writePlan(ctx context.Context, group string, at map[int32]int64) error {
	goal := groups.Goal{Topics: []string{c.spec.Into}, Positions: []groups.Position{}}
	for p, o := range at {
		goal.Positions = append(goal.Positions, groups.Position{Topic: c.spec.Into, Partition: p, Offset: o, Epoch: -1})
	}
	plan, err := groups.NewPlan(ctx, c.to, group, goal, c.now().UTC())
	if err != nil {
		return offsetsError(err, group)
	}
	text, err := json.MarshalIndent(plan, "", "  ")
	if err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	if err := os.WriteFile(c.path(c.f.plan), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	where := ""
	if c.spec.IntoContext != "" {
		where = " -c " + c.spec.IntoContext
	}
	c.say("the offsets of %s are planned in %s. To commit them:  millrace groups offsets apply %s%s", printable(group), c.f.plan, c.f.plan, where)
	return nil
}

func (c *copying) print(s replay.Summary, rows []mappedRow) error {
	if c.output == "json" {
		w := bufio.NewWriter(c.out)
		err := writeJSON(w, struct {
			replayDocument
			Mapped []mappedRow `json:"mapped"`
		}{c.describeSummary(s), rows}, "  ")
		return errors.Join(err, w.Flush())
	}
	if len(rows) == 0 {
		return nil
	}
	return list(c.app, "", rows, "WHO SOURCE COPY TIME", func(r mappedRow) []any {
		to := make([]string, len(r.Target))
		for i, t := range r.Target {
			to[i] = fmt.Sprintf("%s@%d", place(c.spec.Into, t.Partition), t.Offset)
		}
		who, at := "end", "-"
		if r.Group != "" {
			who = r.Group
		}
		if !r.Time.IsZero() {
			at = r.Time.Format(time.RFC3339)
		}
		return []any{who, fmt.Sprintf("%s@%d", place(r.Topic, r.Partition), r.Offset), strings.Join(to, " "), at}
	})
}
