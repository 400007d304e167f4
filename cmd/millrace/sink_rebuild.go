package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/sink"
)

// oldSuffix is what a rebuild calls the tables that it has replaced.
const oldSuffix = "__old"

// rebuildLook is the time between two looks at how far a rebuild is.
const rebuildLook = time.Second

func (a *app) sinkRebuildCommand() *cobra.Command {
	var where sinkFlags
	var yes, create, afresh bool
	cmd := &cobra.Command{
		Use: "rebuild", Short: "Build a sink's tables anew beside the live ones, and put them in place",
		Long: `Build a sink's tables anew beside the live ones, from where the file's start says, and put them in place when they have
caught up.

The sink may run meanwhile, and its tables are read as ever. The new ones have ` + sink.RebuildSuffix + ` behind their names until one
transaction gives them theirs; what was there is called ` + oldSuffix + ` then, and the sink goes on where the rebuild stands.
What you added to the live tables stays with those: make indexes, grants, triggers and views anew.
Stopped before that, it has changed nothing live, and goes on where it was when it is typed again; with --afresh it gives up
what it had made, and begins anew: after a change of the file or of a schema, or when a new table was dropped.
While another rebuild of the sink runs it exits 5 and changes nothing.`,
		Example: "  millrace sink rebuild -f sink.yaml --yes\n  millrace sink rebuild -f sink.yaml --afresh --yes",
		Args:    names("no argument: the sink is in the file that -f names", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.sinkRebuild(cmd.Context(), where, yes, create, afresh)
		},
	}
	cmd.Flags().StringVarP(&where.file, "file", "f", "", "the sink that this `file` describes")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it without asking")
	cmd.Flags().BoolVar(&afresh, "afresh", false, "give up what an interrupted rebuild has made, tables and positions, and begin anew")
	cmd.Flags().BoolVar(&create, "create-topics", a.getenv(service.Env("create-topics")) == "true", "create missing dead-letter topics at start [MILLRACE_CREATE_TOPICS]")
	return cmd
}

func (a *app) sinkRebuild(ctx context.Context, where sinkFlags, yes, create, afresh bool) error {
	if where.file == "" {
		return hint(usage(errors.New("name the sink's file")), "millrace sink rebuild -f sink.yaml")
	}
	f, err := readSinkFile(a.path(where.file))
	if err != nil {
		return err
	}
	if f.into.parquet != "" {
		return hint(usage(errors.New("files are never replaced")), "write a second folder: another name and another  parquet:  in the file, then point readers there")
	}
	if f.start != "" {
		if f.config.Start, err = f.startAt(a.now()); err != nil {
			return err
		}
	}
	if err := a.mustWrite(); err != nil {
		return err
	}
	if !yes {
		if err := a.confirm("Build " + plural(int64(len(f.tables)), "table") + " of sink " + printable(f.config.Name) + " anew?"); err != nil {
			return err
		}
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	reg, _, err := a.registry()
	if err != nil {
		return err
	}
	t, err := f.open(ctx, a.getenv, true)
	if err != nil {
		return err
	}
	defer t.close()
	s := f.swap()
	if err := a.aloneAt(ctx, c, s.From); err != nil {
		return err
	}
	if afresh {
		if err := t.Discard(ctx, s); err != nil {
			return hint(err, "see what is in the way, then type it again: nothing was changed")
		}
	}
	cfg := f.config
	cfg.Rebuild, cfg.CreateTopics = true, create
	if cfg.Log, err = a.logger(); err != nil {
		return usage(err)
	}
	began := a.now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx, c, reg, t.Target, cfg) }()
	err = a.awaitRebuild(ctx, c, t.Admin, cfg, ended)
	cancel()
	if err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return rebuildError(cfg.Name, err)
	}
	if err := t.Swap(context.WithoutCancel(ctx), s); err != nil {
		return hint(fmt.Errorf("put the tables of sink %s in place: %w", cfg.Name, err),
			"nothing live was changed: take away what is in the way, then type it again; it goes on where it was")
	}
	a.say("%s of sink %s built anew in %s and in place; what was there is called …%s until you drop it", plural(int64(len(f.tables)), "table"),
		printable(cfg.Name), age(a.now().Sub(began)), oldSuffix)
	return nil
}

// swap is what puts a rebuild of the file's sink in place.
func (s *sinkFile) swap() sink.Swap {
	out := sink.Swap{Into: s.config.Name, From: s.config.Name + sink.RebuildSuffix}
	for _, table := range s.tables {
		out.Tables = append(out.Tables, sink.Renamed{Name: table.Name, New: table.Name + sink.RebuildSuffix, Old: table.Name + oldSuffix})
	}
	return out
}

// aloneAt refuses a rebuild while another has members: the first that has caught up would take the tables of both.
func (a *app) aloneAt(ctx context.Context, c kafka.Cluster, group string) error {
	found, err := groups.Describe(ctx, c, group)
	switch {
	case errors.Is(err, groups.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("see whether another rebuild runs: %w", err)
	case len(found) > 0 && len(found[0].Members) > 0:
		return hint(refused(fmt.Errorf("another rebuild runs: group %s has %s: nothing was changed", printable(group), plural(int64(len(found[0].Members)), "member"))),
			"see who it is:  millrace groups describe "+group, "one that was killed leaves the group within a minute")
	}
	return nil
}

// rebuildError is an error of a rebuild under way, with what to type next.
func rebuildError(name string, err error) error {
	out := fmt.Errorf("rebuild sink %s: %w", name, err)
	if known := knownHints(err); known != nil {
		return hint(out, known...)
	}
	return hint(out, "nothing live was changed; to go on:  millrace sink rebuild -f FILE", "or to begin anew:  millrace sink rebuild -f FILE --afresh")
}

// awaitRebuild waits until nothing is left to write: what is published from now on comes by the time of the swap or after it.
func (a *app) awaitRebuild(ctx context.Context, c kafka.Cluster, admin sink.Admin, cfg sink.Config, ended <-chan error) error {
	tick := time.NewTicker(rebuildLook)
	defer tick.Stop()
	line := a.scanLine()
	defer line.clear()
	for {
		select {
		case <-ctx.Done():
			return hint(fmt.Errorf("%w: nothing live was changed", ctx.Err()), "to go on, type it again; --afresh gives up what it has made")
		case err := <-ended:
			return rebuildError(cfg.Name, cmpError(err, errors.New("it ended before it had caught up")))
		case <-tick.C:
		}
		at, err := admin.Positions(ctx, cfg.Name+sink.RebuildSuffix)
		if err != nil {
			continue // the sink itself waits for its database, and tells
		}
		logs, err := groups.Logs(ctx, c, cfg.Topics...)
		if err != nil {
			continue // the same of the cluster
		}
		left, done, total := behind(at, logs)
		line.update(done, total)
		if len(at) < len(logs) {
			continue
		}
		next, err := reader.Peek(ctx, c, left...) // what is left may be no event: markers of transactions, what was compacted
		if err == nil && len(next) == 0 {
			return nil
		}
	}
}

// behind are the places where positions are not at the end, and how many offsets of all lie before them.
func behind(at []sink.Position, logs map[groups.Key]groups.Log) (left []reader.Place, done, total int64) {
	for _, p := range at {
		log, ok := logs[groups.Key{Topic: p.ID.Topic, Partition: p.ID.Partition}]
		if !ok {
			continue
		}
		total += log.End - log.Start
		done += max(0, min(p.Next, log.End)-log.Start)
		if p.Next < log.End {
			left = append(left, reader.Place{Topic: p.ID.Topic, Partition: p.ID.Partition, Offset: p.Next})
		}
	}
	return left, done, total
}
