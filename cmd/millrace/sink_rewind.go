package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/sink"
)

// sinkKeeper shows the position rows of a sink as those of its group.
type sinkKeeper struct {
	name  string
	admin sink.Admin
}

// String is what the sink's own commits call it.
func (k sinkKeeper) String() string { return "sink " + k.name }

// Positions implements [groups.Keeper].
func (k sinkKeeper) Positions(ctx context.Context) ([]groups.Position, error) {
	rows, err := k.admin.Positions(ctx, k.name)
	if err != nil {
		return nil, err
	}
	out := make([]groups.Position, len(rows))
	for i, r := range rows {
		out[i] = groups.Position{Topic: r.ID.Topic, Partition: r.ID.Partition, Offset: r.Next, Epoch: -1}
	}
	return out, nil
}

// Move implements [groups.Keeper]: from the rows as they are now, if they are where the moves begin.
func (k sinkKeeper) Move(ctx context.Context, moves []groups.Move) error {
	rows, err := k.admin.Positions(ctx, k.name)
	if err != nil {
		return err
	}
	var steps []sink.Move
	for _, m := range moves {
		step, err := k.step(rows, m)
		if err != nil {
			return fmt.Errorf("%s partition %d: %w", m.Topic, m.Partition, err)
		}
		steps = append(steps, step)
	}
	err = k.admin.Move(ctx, steps)
	if errors.Is(err, sink.ErrNotOwner) {
		err = fmt.Errorf("%w: %w", groups.ErrChanged, err)
	}
	return err
}

func (k sinkKeeper) step(rows []sink.Position, m groups.Move) (sink.Move, error) {
	id, err := m.TopicID.Bytes()
	if err != nil {
		return sink.Move{}, err
	}
	log := cursor.ID{Reader: k.name, Topic: m.Topic, TopicID: id, Partition: m.Partition}
	i := slices.IndexFunc(rows, func(p sink.Position) bool { return p.ID.Topic == m.Topic && p.ID.Partition == m.Partition })
	switch {
	case m.From == nil && i >= 0:
		return sink.Move{}, fmt.Errorf("there is a position by now, %d: %w", rows[i].Next, groups.ErrChanged)
	case m.From != nil && i < 0:
		return sink.Move{}, fmt.Errorf("its position is gone: %w", groups.ErrChanged)
	case m.From != nil && rows[i].Next != m.From.Offset:
		return sink.Move{}, fmt.Errorf("it is at %d, and was at %d: %w", rows[i].Next, m.From.Offset, groups.ErrChanged)
	}
	step := sink.Move{From: sink.Position{ID: log}}
	if i >= 0 {
		step.From = rows[i]
	}
	if m.To != nil {
		step.To = &sink.Position{ID: log, Next: m.To.Offset}
	}
	return step, nil
}

func (a *app) sinkRewindCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rewind", Short: "Move where a sink stands: plan, apply, undo",
		Long: `Move where a sink stands, in its database: plan, apply, undo.

The database has the position, in one transaction with the rows; what the sink commits to Kafka only shows its lag, so
"millrace groups offsets" refuses it. A plan shows what each partition has, what it would get, and the difference. It is
applied only if nothing has changed since, and only while the sink does not run: stop it, or let it pause. What was there is
kept before each change, and undo brings it back.

What is read again is written again: a table with a key ends with the same rows, one with append: true keeps repeats out by
event_id, and with dedupe: none it has them twice. States that functions and folds keep count what they see again: build
those anew with "millrace sink rebuild".`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.sinkRewindPlanCommand(), a.sinkRewindApplyCommand(), a.sinkRewindUndoCommand())
	return cmd
}

func (a *app) sinkRewindPlanCommand() *cobra.Command {
	var f goalFlags
	var where sinkFlags
	cmd := &cobra.Command{
		Use: "plan", Short: "Show what moving a sink would do, partition by partition",
		Long: `Show what moving a sink would do, partition by partition, and change nothing. With -o json it writes a plan for
"millrace sink rewind apply". Exits 3 when something would change, 0 when nothing would.`,
		Example: `  millrace sink rewind plan -f sink.yaml --at start
  millrace sink rewind plan -f sink.yaml --at -1h --topic shop.orders
  millrace sink rewind plan --name analytics --sqlite data/analytics.db --at 2026-11-22T09:00Z
  millrace sink rewind plan -f sink.yaml --shift -1 -o json > rewind.json`,
		Args: names("no argument: the sink is in the file that -f names", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sinkRewindPlan(cmd.Context(), where, f) },
	}
	where.register(cmd.Flags())
	f.rewind(cmd.Flags())
	return cmd
}

func (a *app) sinkRewindApplyCommand() *cobra.Command {
	var f goalFlags
	var where sinkFlags
	cmd := &cobra.Command{
		Use: "apply [PLAN]", Short: "Move a sink, as a plan says or as the flags say",
		Long: `Move a sink: as the file PLAN says, which "millrace sink rewind plan -o json" wrote (- is stdin), or as the flags say.

Shows what changes and asks before it does; --yes does not ask. All partitions move, or none: it exits 5 and changes nothing
when the sink runs, when the cluster is another one, or when anything is no longer as the plan has it.`,
		Example: `  millrace sink rewind apply -f sink.yaml rewind.json --yes
  millrace sink rewind apply -f sink.yaml --at -1h --yes`,
		Args: names("a plan, or flags that say where to", 0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.sinkRewindApply(cmd.Context(), where, args, f)
		},
	}
	where.register(cmd.Flags())
	f.rewind(cmd.Flags())
	f.confirm(cmd.Flags())
	return cmd
}

func (a *app) sinkRewindUndoCommand() *cobra.Command {
	f := goalFlags{undo: true, zone: "UTC"}
	var where sinkFlags
	cmd := &cobra.Command{
		Use: "undo", Short: "Take the last rewind of a sink back",
		Long: `Take the last rewind of a sink back, one made from here. It is a change like any other: shown, asked for, refused while
the sink runs, and taken back by another undo.`,
		Example: "  millrace sink rewind undo -f sink.yaml --yes",
		Args:    names("no argument: the sink is in the file that -f names", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.sinkRewindApply(cmd.Context(), where, nil, f)
		},
	}
	where.register(cmd.Flags())
	f.confirm(cmd.Flags())
	return cmd
}

// rewind are the flags of a goal that make sense for a sink.
func (f *goalFlags) rewind(fs *pflag.FlagSet) {
	fs.StringVar(&f.at, "at", "", "stand at this `position`: start, end, -15m, 2026-11-22T09:00Z, offset:123, p0=123")
	fs.Int64Var(&f.shift, "shift", 0, "go back (negative) or forth by so many `messages`")
	f.narrow(fs)
	fs.StringVar(&f.zone, "tz", "UTC", "read times in this `zone`: Europe/Rome, local")
}

func (a *app) sinkRewindPlan(ctx context.Context, where sinkFlags, f goalFlags) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	s, err := a.openSink(ctx, where)
	if err != nil {
		return err
	}
	defer s.close()
	p, err := a.planRewind(ctx, s, f)
	if err != nil {
		return err
	}
	if err := a.printPlan(p, p.Moves); err != nil {
		return err
	}
	n := len(p.Changes())
	switch {
	case n == 0:
		a.say("nothing to change: %s stands there already", printable(s.name))
		return nil
	case p.Active():
		a.say("%s runs: stop it before it can be moved, and plan again", printable(s.name))
	case a.output == "table":
		a.say("%s would change. To do it, the same with apply in place of plan; or keep the plan with -o json and apply that", plural(int64(n), "partition"))
	}
	a.warnRewind(s)
	return errPending
}

// warnRewind says what reading again does to this sink's tables, where it is not nothing.
func (a *app) warnRewind(s *openedSink) {
	if s.file == nil {
		return
	}
	if d := s.file.config.Dedupe; d > 0 {
		a.say("dedupe is on: events that were seen within %s are skipped when they are read again, and write nothing", d)
	}
	for _, t := range s.file.tables {
		if t.NoDedupe {
			a.say("table %s has dedupe: none: what is read again is there twice", printable(t.Name))
		}
	}
}

func (a *app) planRewind(ctx context.Context, s *openedSink, f goalFlags) (groups.Plan, error) {
	if f.given() != 1 {
		return groups.Plan{}, hint(usage(errors.New("say one way where the sink is to stand: --at or --shift")), "millrace sink rewind plan -f sink.yaml --at -1h")
	}
	g, c, err := a.goal(ctx, s.name, f)
	if err != nil {
		return groups.Plan{}, rewindError(err, s)
	}
	if s.file != nil && len(g.Topics) == 0 && g.Undo == nil {
		g.Topics = s.file.config.Topics
	}
	p, err := groups.NewPlanAt(ctx, c, s.keeper(), s.name, g, a.now().UTC())
	return p, rewindError(err, s)
}

func (a *app) sinkRewindApply(ctx context.Context, where sinkFlags, args []string, f goalFlags) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	b, err := a.backups()
	if err != nil {
		return err
	}
	s, err := a.openSink(ctx, where)
	if err != nil {
		return err
	}
	defer s.close()
	var p groups.Plan
	if len(args) > 0 && f.given() == 0 {
		p, err = a.readPlan(args[0], f)
		if err == nil && p.Group != s.name {
			err = usage(fmt.Errorf("%s is a plan of %s, this sink is %s", args[0], printable(p.Group), printable(s.name)))
		}
	} else {
		p, err = a.planRewind(ctx, s, f)
	}
	if err != nil {
		return err
	}
	n := len(p.Changes())
	if n == 0 {
		a.say("nothing to change: %s stands there already", printable(s.name))
		return nil
	}
	if p.Active() {
		return rewindError(fmt.Errorf("move sink %s: %w (%s)", printable(s.name), groups.ErrActive, p.State), s)
	}
	if !f.yes || a.output != "table" {
		if err := a.printPlan(p, p.Moves); err != nil {
			return err
		}
	}
	a.warnRewind(s)
	if err := a.mayWrite(); err != nil {
		return err
	}
	if !f.yes {
		if err := a.confirm("Move sink " + printable(s.name) + " on " + plural(int64(n), "partition") + "?"); err != nil {
			return err
		}
	}
	c, err := a.cluster(ctx) // after mayWrite: until then it may be read-only
	if err != nil {
		return err
	}
	if _, err := groups.ApplyAt(ctx, c, s.keeper(), p, b); err != nil {
		return rewindError(err, s)
	}
	a.say("%s of sink %s changed. To take it back:  millrace sink rewind undo%s", plural(int64(n), "partition"), printable(s.name), s.flags())
	return nil
}

// rewindError gives a refusal its exit code, and what to type next.
func rewindError(err error, s *openedSink) error {
	if err == nil {
		return nil
	}
	for _, known := range []struct {
		is   error
		hint string
	}{
		{groups.ErrActive, "see where it runs, and stop it; a Millrace service may also pause:  millrace groups pause " + printable(s.name)},
		{groups.ErrElsewhere, "plan anew:  millrace sink rewind plan" + s.flags() + " --at …"},
		{groups.ErrCluster, "see where you are:  millrace context show"},
		{groups.ErrChanged, "plan again:  millrace sink rewind plan" + s.flags() + " --at …"},
	} {
		if errors.Is(err, known.is) {
			return hint(refused(err), known.hint)
		}
	}
	switch {
	case errors.Is(err, groups.ErrNotFound):
		return hint(err, "it has no position yet: it starts where start says, at the log's start without one")
	case errors.Is(err, groups.ErrNothing):
		return hint(err, "see what it has:  millrace sink describe"+s.flags())
	case errors.Is(err, groups.ErrNoBackup):
		return hint(err, "see where it stands:  millrace sink describe"+s.flags())
	}
	return err
}
