package service

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/sink"
)

// backupsDir is where millrace groups keeps the offsets that it replaces, so that its undo finds them. Empty: nowhere.
func backupsDir(env func(string) string) string {
	dir := env("XDG_STATE_HOME")
	if dir == "" {
		home := env("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "millrace", "offsets")
}

// rewind moves the groups of the service back, and ends. The service's members then handle the range for real: those that
// run, which are told to pause meanwhile, or those that are started next.
func (s *Service) rewind(ctx context.Context) error {
	r := s.replaying
	if r.Backups == "" {
		return fault("replay-backups", errors.New("there is no directory for a backup, without which nothing is changed"))
	}
	for _, x := range r.roles {
		if x.target != nil {
			return fmt.Errorf("rewind sink %s: its position is in its target: millrace sink rewind plan --name %s … --at %s", x.name, x.name, r.From)
		}
	}
	for _, x := range r.roles {
		if err := s.rewindGroup(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) rewindGroup(ctx context.Context, x *role) (err error) {
	r := s.replaying
	goal := groups.Goal{Topics: r.takes(x.topics), At: &r.span.From}
	plan, err := groups.NewPlan(ctx, s.live(), x.name, goal, time.Now())
	if err != nil {
		return err
	}
	if len(plan.Changes()) == 0 {
		r.log.Info("the group stands there", zap.String("group", x.name))
		return nil
	}
	if plan.Active() {
		by := "replay " + r.ID
		pause, err := groups.Pause(ctx, s.live(), groups.PauseConfig{Group: x.name, By: by, Alone: true})
		if err != nil {
			return fmt.Errorf("rewind: its members are asked to pause: %w", err)
		}
		defer func() {
			_, resumed := groups.Resume(context.WithoutCancel(ctx), s.live(), pause, by, time.Now())
			err = errors.Join(err, resumed)
		}()
		// The last commits on the way out have moved it.
		if plan, err = groups.NewPlan(ctx, s.live(), x.name, goal, time.Now()); err != nil {
			return err
		}
	}
	made, err := groups.Apply(ctx, s.live(), plan, groups.Backups{Dir: r.Backups})
	if err != nil {
		return fmt.Errorf("rewind: %d partitions were moved: %w", len(made), err)
	}
	r.log.Info("rewound", zap.String("group", x.name), zap.Int("partitions", len(made)), zap.String("undo", "millrace groups offsets undo "+x.name))
	return nil
}

// rebuildLook is the time between two looks at how far a rebuild is.
const rebuildLook = time.Second

// swappable is a target whose tables can be replaced: a sink.Mux.
type swappable interface {
	sink.Target
	Swap(name string) sink.Swap
	Admin() sink.Admin
}

// rebuild builds the tables of the service's sinks anew beside the live ones, puts them in place, and ends.
func (s *Service) rebuild(ctx context.Context) error {
	n := 0
	for _, x := range s.replaying.roles {
		if x.target == nil {
			continue
		}
		n++
		t, ok := x.target.(swappable)
		if !ok {
			return fmt.Errorf("rebuild sink %s: files are never replaced: write them into another directory", x.name)
		}
		if err := s.rebuildSink(ctx, t, x.sink); err != nil {
			return err
		}
	}
	if n == 0 {
		return errors.New("rebuild: the service has no sink: a rewind moves its groups back")
	}
	return nil
}

func (s *Service) rebuildSink(ctx context.Context, t swappable, cfg sink.Config) error {
	cfg.Rebuild = true
	if s.replaying.From != "" {
		cfg.Start = s.replaying.span.From
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(running, s.live(), s.Schemas, t, cfg) }()
	tick := time.NewTicker(rebuildLook)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			if err := <-ended; err != nil {
				s.replaying.log.Warn("the rebuild ended with an error", zap.Error(err))
			}
			return fmt.Errorf("rebuild sink %s: %w: nothing live was changed; the same again goes on", cfg.Name, ctx.Err())
		case err := <-ended:
			return fmt.Errorf("rebuild sink %s: %w", cfg.Name, errors.Join(errors.New("it ended before it had caught up"), err))
		case <-tick.C:
			done = s.caughtUp(ctx, t.Admin(), cfg)
		}
	}
	stop()
	if err := <-ended; err != nil {
		return fmt.Errorf("rebuild sink %s: %w", cfg.Name, err)
	}
	if err := t.Admin().Swap(context.WithoutCancel(ctx), t.Swap(cfg.Name)); err != nil {
		return fmt.Errorf("put the tables of sink %s in place: %w", cfg.Name, err)
	}
	s.replaying.log.Info("built anew and put in place", zap.String("sink", cfg.Name))
	return nil
}

// caughtUp reports whether a rebuild has nothing left to write. Who does not answer now is asked again.
func (s *Service) caughtUp(ctx context.Context, admin sink.Admin, cfg sink.Config) bool {
	at, err := admin.Positions(ctx, cfg.Name+sink.RebuildSuffix)
	if err != nil {
		return false
	}
	logs, err := groups.Logs(ctx, s.live(), cfg.Topics...)
	if err != nil || len(at) < len(logs) {
		return false
	}
	var left []reader.Place
	for _, p := range at {
		if log, ok := logs[groups.Key{Topic: p.ID.Topic, Partition: p.ID.Partition}]; ok && p.Next < log.End {
			left = append(left, reader.Place{Topic: p.ID.Topic, Partition: p.ID.Partition, Offset: p.Next})
		}
	}
	next, err := reader.Peek(ctx, s.live(), left...) // what is left may be no event: markers, what was compacted
	return err == nil && len(next) == 0
}
