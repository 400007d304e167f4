package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

// planMost is the longest plan or export that is read, in bytes.
const planMost = 64 << 20

// goalFlags say where a group is to stand.
type goalFlags struct {
	at, like, file string
	shift          int64
	undo           bool
	topics         []string
	partitions     []int
	zone           string
	yes            bool
	coordinated    bool // pause the group meanwhile
	wait           time.Duration
}

func (f *goalFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.at, "at", "", "stand at this `position`: start, end, -15m, 2026-11-22T09:00Z, offset:123, p0=123")
	fs.Int64Var(&f.shift, "shift", 0, "go back (negative) or forth by so many `messages`")
	fs.StringVar(&f.like, "like", "", "stand where this `group` stands")
	fs.StringVar(&f.file, "file", "", "stand where this `file` of groups offsets export says")
	fs.BoolVar(&f.undo, "undo", false, "stand where the group stood before the last change")
	f.narrow(fs)
	fs.StringVar(&f.zone, "tz", "UTC", "read times in this `zone`: Europe/Rome, local")
}

func (f *goalFlags) narrow(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.topics, "topic", nil, "only this `topic`; repeated: these. It need not be one of the group's")
	fs.IntSliceVar(&f.partitions, "partition", nil, "only these `partitions`")
}

func (f *goalFlags) confirm(fs *pflag.FlagSet) {
	fs.BoolVarP(&f.yes, "yes", "y", false, "do it without asking")
}

func (a *app) offsetsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "offsets", Short: "Move where a group stands: plan, apply, undo",
		Long: `Move where a group stands: plan, apply, undo.

A plan shows what each partition has, what it would get, and the difference in messages and in time. It is applied only
if group and cluster are still as the plan has them, and only to a group without members. What was there is kept before
each change, and undo brings it back.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.offsetsPlanCommand(), a.offsetsApplyCommand(), a.offsetsUndoCommand(), a.offsetsExportCommand(), a.offsetsImportCommand())
	return cmd
}

func (a *app) offsetsPlanCommand() *cobra.Command {
	var f goalFlags
	cmd := &cobra.Command{
		Use: "plan GROUP", Short: "Show what moving a group would do, partition by partition",
		Long: `Show what moving a group would do, partition by partition, and change nothing.

A position outside of the log is moved to its nearest end, and a time after the last record is the end; both are said.
All partitions move, unless --topic, --partition or a position like p0=123 says which. With -o json it writes a plan for
"millrace groups offsets apply". Exits 3 when something would change, 0 when nothing would.`,
		Example: `  millrace groups offsets plan shipping --at start
  millrace groups offsets plan shipping --at 2026-11-22T09:00Z
  millrace groups offsets plan shipping --at end --topic shop.orders --partition 0,1
  millrace groups offsets plan shipping --shift -100 -o json > offsets.json
  millrace groups offsets plan audit --like shipping
  millrace groups offsets plan shipping --undo`,
		Args:              names("a group", 1, 1),
		ValidArgsFunction: a.completeGroups,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.offsetsPlan(cmd.Context(), args[0], f) },
	}
	f.register(cmd.Flags())
	return cmd
}

func (a *app) offsetsApplyCommand() *cobra.Command {
	var f goalFlags
	cmd := &cobra.Command{
		Use: "apply (PLAN | GROUP)", Short: "Move a group, as a plan says or as the flags say",
		Long: `Move a group: as the file PLAN says, which "millrace groups offsets plan -o json" wrote (- is stdin), or GROUP as the
flags say.

Shows what changes and asks before it does; --yes does not ask. It exits 5 and changes nothing when the group has members,
when the cluster is another one, or when anything is no longer as the plan has it.

With --coordinated the group may be at work. Its Millrace services are told to pause: they finish what they are at, commit and
leave; the plan is made anew for where they stand then, with the same goal, and applied; and they go on, whatever
happened. Members that do not leave, clients of others among them, are a refusal that names them: it exits 5, no offset
was changed, and the services go on.`,
		Example: `  millrace groups offsets apply offsets.json --yes
  millrace groups offsets apply shipping --at -1h --yes
  millrace groups offsets apply shipping --at start --coordinated --yes`,
		Args:              names("a plan, or a group", 1, 1),
		ValidArgsFunction: a.completeGroups,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.offsetsApply(cmd.Context(), args[0], f) },
	}
	f.register(cmd.Flags())
	f.confirm(cmd.Flags())
	cmd.Flags().BoolVar(&f.coordinated, "coordinated", false, "pause the group's services meanwhile")
	cmd.Flags().DurationVar(&f.wait, "wait", groups.PauseWait, "with --coordinated: let members take so long to leave")
	return cmd
}

func (a *app) offsetsUndoCommand() *cobra.Command {
	f := goalFlags{undo: true, zone: "UTC"}
	cmd := &cobra.Command{
		Use: "undo GROUP", Short: "Take the last change of a group's offsets back",
		Long: `Take the last change of a group's offsets back, one made from here: offsets, epochs and metadata as they were.

It is a change like any other: shown, asked for, refused while the group has members, and taken back by another undo.`,
		Example:           "  millrace groups offsets undo shipping --yes",
		Args:              names("a group", 1, 1),
		ValidArgsFunction: a.completeGroups,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.offsetsApply(cmd.Context(), args[0], f) },
	}
	f.confirm(cmd.Flags())
	return cmd
}

func (a *app) offsetsExportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export GROUP", Short: "Write where a group stands, for a file",
		Example:           "  millrace groups offsets export shipping > shipping.json",
		Args:              names("a group", 1, 1),
		ValidArgsFunction: a.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.cluster(cmd.Context())
			if err != nil {
				return err
			}
			e, err := groups.NewExport(cmd.Context(), c, args[0], a.now().UTC())
			if err != nil {
				return offsetsError(err, args[0])
			}
			return writeJSON(a.out, e, "  ")
		},
	}
}

func (a *app) offsetsImportCommand() *cobra.Command {
	f := goalFlags{zone: "UTC"}
	cmd := &cobra.Command{
		Use: "import GROUP FILE", Short: "Move a group to where a file of export says",
		Long: `Move a group to where a file of export says: the group that was exported, or another one of the same cluster. Offsets of
another cluster are other records: it exits 5.`,
		Example: "  millrace groups offsets import shipping shipping.json --yes",
		Args:    names("a group and a file", 2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.file = args[1]
			return a.offsetsApply(cmd.Context(), args[0], f)
		},
	}
	f.narrow(cmd.Flags())
	f.confirm(cmd.Flags())
	return cmd
}

// given counts the flags that say where to.
func (f *goalFlags) given() int {
	n := 0
	for _, is := range []bool{f.at != "", f.shift != 0, f.like != "", f.file != "", f.undo} {
		if is {
			n++
		}
	}
	return n
}

// goal is what the flags say. What is wrong with them alone is found before the cluster is asked.
func (a *app) goal(ctx context.Context, group string, f goalFlags) (groups.Goal, kafka.Cluster, error) {
	var g groups.Goal
	var e groups.Export
	if f.given() != 1 {
		return g, kafka.Cluster{}, hint(usage(errors.New("say one way where the group is to stand: --at, --shift, --like, --file or --undo")),
			"millrace groups offsets plan "+group+" --at -1h")
	}
	g.Topics = f.topics
	for _, p := range f.partitions {
		if p < 0 {
			return g, kafka.Cluster{}, usage(fmt.Errorf("--partition %d: partitions count from 0", p))
		}
		g.Partitions = append(g.Partitions, int32(p))
	}
	var err error
	switch {
	case f.at != "":
		g.At, err = a.target(f)
	case f.file != "":
		err = a.readJSON(f.file, &e, "millrace groups offsets export "+group+" > "+f.file)
	}
	if err != nil {
		return g, kafka.Cluster{}, err
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return g, c, err
	}
	switch {
	case f.file != "":
		var to groups.Goal
		to, err = e.Goal(ctx, c)
		g.Positions = to.Positions
	case f.like != "":
		e, err = groups.NewExport(ctx, c, f.like, a.now())
		g.Positions = e.Positions
	case f.undo:
		g.Undo, err = a.lastChange(ctx, c, group)
	default:
		g.Shift = f.shift
	}
	return g, c, err
}

// target reads --at. An @ before a time is how a range would have it, and says the same.
func (a *app) target(f goalFlags) (*position.Point, error) {
	zone, err := location(f.zone)
	if err != nil {
		return nil, usage(err)
	}
	now := a.now().In(zone)
	p, err := position.Parse(strings.TrimPrefix(f.at, "@"), now)
	if err != nil {
		return nil, usage(fmt.Errorf("--at: %w", err))
	}
	a.sayRange(position.Range{From: p}, now)
	return &p, nil
}

func (a *app) lastChange(ctx context.Context, c kafka.Cluster, group string) (*groups.Plan, error) {
	b, err := a.backups()
	if err != nil {
		return nil, err
	}
	id, err := groups.ClusterID(ctx, c)
	if err != nil {
		return nil, err
	}
	last, _, err := b.Latest(id, group)
	return &last, err
}

// backups lie in the user's directory for state: they outlive a reboot, and no other user reads them.
func (a *app) backups() (groups.Backups, error) {
	dir := a.getenv("XDG_STATE_HOME")
	if dir == "" {
		home := a.getenv("HOME")
		if home == "" {
			return groups.Backups{}, hint(refused(errors.New("there is no directory for a backup, without which nothing is changed")), "set HOME or XDG_STATE_HOME")
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return groups.Backups{Dir: filepath.Join(dir, "millrace", "offsets"), Now: a.now}, nil
}

// readJSON reads a file, or stdin for -, of a kind that write makes.
func (a *app) readJSON(name string, into any, write string) error {
	var src []byte
	var err error
	if name == "-" {
		src, err = io.ReadAll(io.LimitReader(a.in, planMost+1))
	} else {
		var f *os.File
		if f, err = os.Open(a.path(name)); err == nil {
			src, err = io.ReadAll(io.LimitReader(f, planMost+1))
			_ = f.Close()
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return hint(usage(fmt.Errorf("there is no file %s", name)), "write one:  "+write)
	case err != nil:
		return fmt.Errorf("read %s: %w", name, err)
	case len(src) > planMost:
		return usage(fmt.Errorf("%s is larger than %d MiB", name, planMost>>20))
	}
	if err := json.Unmarshal(src, into); err != nil {
		return hint(usage(fmt.Errorf("read %s: %w", name, err)), "write one:  "+write)
	}
	return nil
}

func (a *app) offsetsPlan(ctx context.Context, group string, f goalFlags) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	p, _, err := a.planOffsets(ctx, group, f)
	if err != nil {
		return err
	}
	if err := a.printPlan(p, p.Moves); err != nil {
		return err
	}
	n := len(p.Changes())
	switch {
	case n == 0:
		a.say("nothing to change: %s stands there already", printable(group))
		return nil
	case p.Active():
		a.say("%s is active: stop its members before it can be moved, and plan again; or let its services pause: apply --coordinated", printable(group))
	case a.output == "table":
		a.say("%s would change. To do it, the same with apply in place of plan; or keep the plan with -o json and apply that", plural(int64(n), "partition"))
	}
	return errPending
}

func (a *app) planOffsets(ctx context.Context, group string, f goalFlags) (groups.Plan, groups.Goal, error) {
	g, c, err := a.goal(ctx, group, f)
	if err != nil {
		return groups.Plan{}, g, offsetsError(err, group)
	}
	p, err := groups.NewPlan(ctx, c, group, g, a.now().UTC())
	return p, g, offsetsError(err, group)
}

func (a *app) offsetsApply(ctx context.Context, arg string, f goalFlags) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	b, err := a.backups()
	if err != nil {
		return err
	}
	p, goal, err := a.offsetsToApply(ctx, arg, f)
	if err != nil {
		return err
	}
	name := printable(p.Group)
	n := len(p.Changes())
	if n == 0 {
		a.say("nothing to change: %s stands there already", name)
		return nil
	}
	if p.Active() && !f.coordinated {
		return offsetsError(fmt.Errorf("move %s: %w (%s)", name, groups.ErrActive, p.State), p.Group)
	}
	if !f.yes {
		if err := a.printPlan(p, p.Moves); err != nil {
			return err
		}
	}
	if err := a.mayWrite(); err != nil {
		return err
	}
	if !f.yes {
		if err := a.confirm("Move " + name + " on " + plural(int64(n), "partition") + "?"); err != nil {
			return err
		}
	}
	c, err := a.cluster(ctx) // after mayWrite: until then it may be read-only
	if err != nil {
		return err
	}
	var made []groups.Move
	if f.coordinated {
		p, made, err = a.coordinate(ctx, c, p, goal, b, f.wait)
		if n = len(p.Changes()); n == 0 && err == nil {
			a.say("nothing was changed: %s stood there when it had paused", name)
			return nil
		}
	} else {
		made, err = groups.Apply(ctx, c, p, b)
	}
	shown := !f.yes && (!f.coordinated || a.output != "table") // with --coordinated what was done differs from what was shown
	if !shown && (len(made) > 0 || err == nil && a.output != "table") {
		if err := a.printPlan(p, made); err != nil {
			return err
		}
	}
	if err != nil {
		if len(made) > 0 {
			a.say("%s changed, %d did not", plural(int64(len(made)), "partition"), n-len(made))
			err = coded{err, codePartial}
		}
		return offsetsError(err, p.Group)
	}
	a.say("%s of %s changed. To take it back:  millrace groups offsets undo %s", plural(int64(n), "partition"), name, name)
	return nil
}

// offsetsToApply is a plan that is made now, or one of a file, and what it leads to where it is coordinated.
func (a *app) offsetsToApply(ctx context.Context, arg string, f goalFlags) (groups.Plan, groups.Goal, error) {
	if f.given() > 0 {
		return a.planOffsets(ctx, arg, f)
	}
	p, err := a.readPlan(arg, f)
	if err != nil || !f.coordinated {
		return p, groups.Goal{}, err
	}
	goal, err := p.Goal()
	if err != nil {
		return p, goal, hint(usage(fmt.Errorf("apply %s with --coordinated: %w", arg, err)), "millrace groups offsets apply "+printable(p.Group)+" --undo --coordinated")
	}
	return p, goal, nil
}

func (a *app) readPlan(arg string, f goalFlags) (groups.Plan, error) {
	var p groups.Plan
	if len(f.topics)+len(f.partitions) > 0 {
		return p, usage(errors.New("a plan says by itself which partitions move: leave out --topic and --partition, or plan anew with --at"))
	}
	if err := a.readJSON(arg, &p, "millrace groups offsets plan GROUP --at start -o json > offsets.json"); err != nil {
		return p, err
	}
	if p.Millrace != 1 || p.Group == "" || len(p.Moves) == 0 {
		return p, hint(usage(fmt.Errorf("%s is no plan", arg)), "write one:  millrace groups offsets plan GROUP --at start -o json > offsets.json")
	}
	return p, nil
}

// offsetsError gives a refusal its exit code, and what to type next.
func offsetsError(err error, group string) error {
	if err == nil {
		return nil
	}
	group = printable(group)
	if kept, ok := errors.AsType[*groups.KeeperError](err); ok {
		if name, ok := strings.CutPrefix(kept.Keeper, "sink "); ok {
			name = printable(name)
			return hint(refused(err), "move it in its database, by the sink's file:  millrace sink rewind plan -f sink.yaml --at -1h",
				"or, of a service:  millrace sink rewind plan --name "+name+" --postgres env:DSN --at -1h")
		}
	}
	for _, known := range []struct {
		is    error
		hints []string
	}{
		{groups.ErrStayed, []string{"see its members, and stop those that stayed:  millrace groups describe " + group}},
		{groups.ErrPaused, []string{"let it go on first:  millrace groups resume " + group, "or move it while it stands still:  the same without --coordinated"}},
		{groups.ErrActive, []string{"see its members, and stop them:  millrace groups describe " + group, "or, if all are Millrace services, let them pause:  apply --coordinated"}},
		{groups.ErrElsewhere, []string{"move it where it is kept: a commit would be ignored there, and overwritten"}},
		{groups.ErrCluster, []string{"see where you are:  millrace context show"}},
		{groups.ErrChanged, []string{"look again:  millrace groups describe " + group, "and plan again:  millrace groups offsets plan " + group + " …"}},
	} {
		if !errors.Is(err, known.is) {
			continue
		}
		if _, partial := errors.AsType[coded](err); !partial {
			err = refused(err)
		}
		return hint(err, known.hints...)
	}
	switch {
	case errors.Is(err, groups.ErrNotFound):
		return hint(err, "see which there are:  millrace groups ls", "a group that is not there yet is set up with --topic TOPIC")
	case errors.Is(err, groups.ErrNothing):
		return hint(err, "see what it has:  millrace groups describe "+group)
	case errors.Is(err, groups.ErrNoBackup):
		return hint(err, "see where it stands:  millrace groups describe "+group)
	}
	return err
}
