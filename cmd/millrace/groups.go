package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
)

// agesMost bounds how many partitions are read for their time lag.
const agesMost = 200

func (a *app) groupsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "groups",
		Short: "Consumer groups: who reads what, and how far behind",
		Long:  "Consumer groups: who reads what, and how far behind. Endpoints and replays are groups too.",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "ls", Short: "List groups",
			Example: "  millrace groups ls\n  millrace groups ls -o jsonl",
			Args:    names("no group: ls lists all", 0, -1),
			RunE:    func(cmd *cobra.Command, _ []string) error { return a.groupsList(cmd.Context()) },
		},
		&cobra.Command{
			Use: "describe GROUP…", Short: "Show a group's members and where it stands on each partition",
			Long: `Show a group's members and where it stands on each partition.

LAG is in offsets: on compacted and transactional topics there are fewer records. A partition without a commit
has no lag, which is not a lag of 0. BEHIND is the age of the record that comes next. OPEN are records below the
commit that a Millrace consumer has deferred; OLDEST-OPEN is the first of them.`,
			Example:           "  millrace groups describe shipping\n  millrace groups describe shipping -o json",
			Args:              names("a group", 1, 0),
			ValidArgsFunction: a.completeGroups,
			RunE:              func(cmd *cobra.Command, args []string) error { return a.groupsDescribe(cmd.Context(), args) },
		},
		a.lagCommand(),
		a.whyCommand(),
		a.offsetsCommand(),
		a.pauseCommand(),
		a.resumeCommand(),
	)
	return cmd
}

type groupRow struct {
	Group string `json:"group"`
	State string `json:"state"`
	Type  string `json:"type"`
}

func (a *app) groupsList(ctx context.Context) error {
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	all, err := groups.List(ctx, c)
	if err != nil {
		return err
	}
	rows := make([]groupRow, len(all))
	for i, g := range all {
		rows[i] = groupRow{g.ID, g.State, g.Type}
	}
	if len(rows) == 0 && a.output == "table" {
		a.say("no groups yet: a group appears when its first member joins or commits")
		return nil
	}
	return list(a, "groups", rows, "GROUP STATE TYPE", func(r groupRow) []any { return []any{r.Group, r.State, r.Type} })
}

// partitionRow is a partition of a group as JSON. What is not known is absent.
type partitionRow struct {
	Group     string     `json:"group"`
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Start     int64      `json:"start"`
	End       int64      `json:"end"`
	Committed *int64     `json:"committed,omitempty"`
	Lag       *int64     `json:"lag,omitempty"`
	Next      *time.Time `json:"next_timestamp,omitempty"` // of the record at the committed offset
	Behind    *float64   `json:"behind_seconds,omitempty"`
	Expired   int64      `json:"expired,omitempty"`
	Open      *int       `json:"open,omitempty"`  // in a commit of Millrace
	Floor     *int64     `json:"floor,omitempty"` // the oldest unresolved offset, in a commit of Millrace
	Gone      bool       `json:"gone,omitempty"`
	Damaged   bool       `json:"damaged,omitempty"`
	Member    string     `json:"member,omitempty"`
	Client    string     `json:"client,omitempty"`
	Host      string     `json:"host,omitempty"`
}

func (a *app) groupsDescribe(ctx context.Context, ids []string) error {
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	gs, ages, err := describe(ctx, c, ids)
	if err != nil {
		return err
	}
	var rows []partitionRow
	for _, g := range gs {
		rows = append(rows, a.partitionRows(g, ages)...)
	}
	if a.output != "table" {
		return list(a, "partitions", rows, "", nil)
	}
	for i, g := range gs {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		total := g.Total()
		fmt.Fprintf(a.out, "%s: %s, %s, %s behind in %s", printable(g.ID), strings.ToLower(g.State), plural(int64(len(g.Members)), "member"),
			plural(total.Lag, "message"), plural(int64(total.Partitions), "partition"))
		if total.Uncommitted > 0 {
			fmt.Fprintf(a.out, ", %d without a commit", total.Uncommitted)
		}
		fmt.Fprint(a.out, "\n\n")
		own := slices.DeleteFunc(slices.Clone(rows), func(r partitionRow) bool { return r.Group != g.ID })
		if err := list(a, "", own, "TOPIC PARTITION COMMITTED END LAG BEHIND OPEN? OLDEST-OPEN? MEMBER HOST?", partitionCells); err != nil {
			return err
		}
	}
	return nil
}

func partitionCells(r partitionRow) []any {
	end, behind := fmt.Sprint(r.End), "-"
	switch {
	case r.Gone:
		end = "gone"
	case r.Behind != nil:
		behind = age(time.Duration(*r.Behind * float64(time.Second)))
	case r.Lag != nil && *r.Lag == 0:
		behind = "0s"
	}
	open, floor := dash(r.Open), "-"
	switch {
	case r.Damaged:
		open = "unreadable"
	case r.Open != nil && *r.Open > 0:
		floor = dash(r.Floor)
	}
	member := "-"
	if r.Member != "" {
		member = r.Client
	}
	return []any{r.Topic, r.Partition, dash(r.Committed), end, dash(r.Lag), behind, open, floor, member, orDash(r.Host)}
}

// dash prints what may be absent.
func dash[T any](v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(*v)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) partitionRows(g groups.Group, ages map[groups.Key]time.Time) []partitionRow {
	members := map[string]groups.Member{}
	for _, m := range g.Members {
		members[m.ID] = m
	}
	rows := make([]partitionRow, len(g.Partitions))
	for i, p := range g.Partitions {
		m := members[p.Member]
		r := partitionRow{
			Group: g.ID, Topic: p.Topic, Partition: p.Partition, Start: p.Start, End: p.End, Expired: p.Expired(), Gone: p.Gone,
			Member: p.Member, Client: m.ClientID, Host: strings.TrimPrefix(m.Host, "/"),
		}
		if p.Commit != nil {
			r.Committed, r.Damaged = &p.Commit.Offset, p.Commit.Damaged
			if cur := p.Commit.Cursor; cur != nil {
				open := p.Open()
				r.Open, r.Floor = &open, &cur.Floor
			}
		}
		if lag, ok := p.Lag(); ok {
			r.Lag = &lag
		}
		if at, ok := ages[groups.Key{Group: g.ID, Topic: p.Topic, Partition: p.Partition}]; ok {
			behind := max(0, a.now().Sub(at).Seconds())
			r.Next, r.Behind = &at, &behind
		}
		rows[i] = r
	}
	return rows
}

func describe(ctx context.Context, c kafka.Cluster, ids []string) ([]groups.Group, map[groups.Key]time.Time, error) {
	gs, err := groups.Describe(ctx, c, ids...)
	if err != nil {
		return nil, nil, err
	}
	ages, err := groups.Ages(ctx, c, gs, agesMost)
	return gs, ages, err
}

func describeOneByOne(ctx context.Context, c kafka.Cluster, ids []string) ([]groups.Group, map[groups.Key]time.Time, error) {
	var all []groups.Group
	for _, id := range ids {
		gs, err := groups.Describe(ctx, c, id)
		if errors.Is(err, groups.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		all = append(all, gs...)
	}
	ages, err := groups.Ages(ctx, c, all, agesMost)
	return all, ages, err
}

// completeTimeout is how long a shell may hang on Tab.
const completeTimeout = 2 * time.Second

func (a *app) completeGroups(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(func(ctx context.Context) ([]string, error) {
		c, err := a.cluster(ctx)
		if err != nil {
			return nil, err
		}
		all, err := groups.List(ctx, c)
		ids := make([]string, len(all))
		for i, g := range all {
			ids[i] = g.ID
		}
		return ids, err
	})(cmd, args, prefix)
}
