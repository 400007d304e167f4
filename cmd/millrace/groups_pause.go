package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
)

// applyMost is how long a plan may take from its making to the last commit: a pause outlasts it.
const applyMost = 5 * time.Minute

func (a *app) pauseCommand() *cobra.Command {
	var lasts, wait time.Duration
	cmd := &cobra.Command{
		Use: "pause GROUP", Short: "Let a group's services finish, commit, leave, and stand still",
		Long: `Let a group's services finish, commit, leave, and stand still, until "millrace groups resume", or until --for has passed.

It waits until the group is empty. Only services built on Millrace listen. Members that do not leave in time are named, the
pause is taken back, and it exits 5. A service listens to the topic ` + groups.ControlTopic + `, which the first pause creates; it
may take half a minute to find it.`,
		Example:           "  millrace groups pause shipping\n  millrace groups pause shipping --for 1h",
		Args:              names("a group", 1, 1),
		ValidArgsFunction: a.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			if lasts <= 0 || lasts > groups.PauseMost {
				return usage(fmt.Errorf("--for %s: a pause lasts at most %s", lasts, groups.PauseMost))
			}
			if !cmd.Flags().Changed("wait") {
				wait = min(wait, lasts/2)
			}
			if wait <= 0 || wait >= lasts {
				return usage(fmt.Errorf("--wait %s: it is more than nothing, and less than --for %s", wait, lasts))
			}
			c, err := a.cluster(cmd.Context())
			if err != nil {
				return err
			}
			told, err := groups.Pause(cmd.Context(), c, a.pause(args[0], lasts, wait))
			if err != nil {
				return offsetsError(err, args[0])
			}
			a.say("%s stands still until %s. To let it go on:  millrace groups resume %s", printable(args[0]), told.Until.Format(time.RFC3339), printable(args[0]))
			return nil
		},
	}
	cmd.Flags().DurationVar(&lasts, "for", groups.PauseFor, "go on by themselves after so `long`")
	cmd.Flags().DurationVar(&wait, "wait", groups.PauseWait, "let members take so `long` to leave")
	return cmd
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume GROUP", Short: "Let a paused group go on",
		Example:           "  millrace groups resume shipping",
		Args:              names("a group", 1, 1),
		ValidArgsFunction: a.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.cluster(cmd.Context())
			if err != nil {
				return err
			}
			was, err := groups.Resume(cmd.Context(), c, groups.Control{Group: args[0]}, a.who(), a.now())
			if err != nil {
				return err
			}
			if !was.Holds(a.now()) {
				a.say("nothing to do: %s is not paused", printable(args[0]))
				return nil
			}
			a.say("%s goes on: it was paused by %s at %s", printable(args[0]), printable(was.By), was.At.Format(time.RFC3339))
			return nil
		},
	}
}

func (a *app) pause(group string, lasts, wait time.Duration) groups.PauseConfig {
	return groups.PauseConfig{
		Group: group, By: a.who(), For: lasts, Wait: wait, Now: a.now,
		Waiting: func(still []groups.Member) {
			a.say("waiting for %s of %s to leave", plural(int64(len(still)), "member"), printable(group))
		},
	}
}

// who is whom a paused service names: enough for a colleague to ask.
func (a *app) who() string {
	host, err := os.Hostname()
	if err != nil {
		host = "an unknown host"
	}
	return cmp.Or(a.getenv("USER"), a.getenv("LOGNAME"), "somebody") + "@" + host
}

// coordinate applies a plan, made anew for the same goal, while the group's services are paused. They go on whatever happens. The
// plan that it returns is the one that was to be applied.
func (a *app) coordinate(ctx context.Context, c kafka.Cluster, before groups.Plan, goal groups.Goal, b groups.Backups, wait time.Duration) (plan groups.Plan, made []groups.Move, err error) {
	if wait <= 0 || wait > groups.PauseMost-applyMost {
		return before, nil, usage(fmt.Errorf("--wait %s: more than nothing, and at most %s", wait, groups.PauseMost-applyMost))
	}
	name := printable(before.Group)
	id, err := groups.ClusterID(ctx, c)
	if err != nil {
		return before, nil, err
	}
	if id != before.ClusterID { // before anybody is paused there
		return before, nil, fmt.Errorf("move %s: the plan was made on cluster %s, this is %s: %w", name, before.ClusterID, id, groups.ErrCluster)
	}
	ask := a.pause(before.Group, max(groups.PauseFor, wait+applyMost), wait)
	ask.Alone = true
	told, err := groups.Pause(ctx, c, ask)
	if err != nil {
		return before, nil, err
	}
	a.say("%s stands still", name)
	defer func() {
		if _, late := groups.Resume(context.WithoutCancel(ctx), c, told, ask.By, a.now()); late != nil {
			err = errors.Join(err, fmt.Errorf("%w: its services go on at %s by themselves", late, told.Until.Format(time.RFC3339)))
			return
		}
		a.say("%s goes on", name)
	}()
	plan, err = groups.NewPlan(ctx, c, before.Group, goal, a.now().UTC())
	if err != nil {
		return before, nil, err
	}
	if err := plan.Follows(before); err != nil {
		return plan, nil, fmt.Errorf("move %s: %w", name, err)
	}
	made, err = groups.Apply(ctx, c, plan, b)
	return plan, made, err
}
