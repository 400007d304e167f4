package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/groups"
)

const (
	whyMost  = 10          // partitions that are looked at
	longWait = time.Minute // a record that waits longer may be what the group is stuck at
)

func (a *app) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "why GROUP", Short: "Show what a group is stuck at, and what to do",
		Long: `Show what a group is stuck at, and what to do: for each partition that it is behind on, the record that comes next, decoded,
how old it is, who has the partition, and the last event of it that the group gave up.`,
		Example:           "  millrace groups why shipping\n  millrace groups why shipping -o json",
		Args:              names("a group", 1, 1),
		ValidArgsFunction: a.completeGroups,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.groupsWhy(cmd.Context(), args[0]) },
	}
}

// stuckRow is a partition that a group is behind on, as JSON.
type stuckRow struct {
	Group     string     `json:"group"`
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Committed int64      `json:"committed"`
	Lag       int64      `json:"lag"`
	Expired   int64      `json:"expired,omitempty"`
	Member    string     `json:"member,omitempty"`
	Host      string     `json:"host,omitempty"`
	Next      *envelope  `json:"next,omitempty"` // absent where no record can be read
	Behind    *float64   `json:"behind_seconds,omitempty"`
	Letter    *letterRow `json:"dead_letter,omitempty"` // the newest of the partition
	Hints     []string   `json:"hints"`

	line string // Next for people
}

type letterRow struct {
	Topic    string    `json:"topic"`
	Offset   int64     `json:"offset"` // where the event was read
	Class    string    `json:"class"`
	Error    string    `json:"error,omitempty"`
	Attempts int       `json:"attempts"`
	Time     time.Time `json:"time"` // of the last attempt
}

func (a *app) groupsWhy(ctx context.Context, group string) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	reg, named, err := a.registry()
	if err != nil {
		return err
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	g, stuck, err := groups.Why(ctx, c, group, whyMost)
	if err != nil {
		return err
	}
	d := decoder{reg: reg, optional: !named, say: a.say}
	rows := make([]stuckRow, len(stuck))
	for i, s := range stuck {
		if rows[i], err = a.stuckRow(ctx, &d, g, s); err != nil {
			return err
		}
	}
	if a.output != "table" {
		return list(a, "partitions", rows, "", nil)
	}
	a.printWhy(g, rows)
	return nil
}

func (a *app) stuckRow(ctx context.Context, d *decoder, g groups.Group, s groups.Stuck) (stuckRow, error) {
	r := stuckRow{Group: g.ID, Topic: s.Topic, Partition: s.Partition.Partition, Committed: s.Commit.Offset, Lag: s.Behind, Expired: s.Expired()}
	for _, m := range g.Members {
		if m.ID == s.Member {
			r.Member, r.Host = m.ClientID, strings.TrimPrefix(m.Host, "/")
		}
	}
	var undecoded error
	if e := s.Next; e != nil {
		made, err := d.decode(ctx, e)
		if err != nil {
			return r, err
		}
		env, behind := envelopeOf(e, made), max(0, a.now().Sub(e.Published).Seconds())
		r.Next, r.Behind, r.line, undecoded = &env, &behind, line(e, made, e.Published.UTC()), made.err
	}
	if l := s.Letter; l != nil {
		r.Letter = &letterRow{Topic: deadletter.Topic(s.Topic, g.ID), Offset: l.Origin.Offset, Class: string(l.Class), Attempts: l.Attempts, Time: l.Last}
		if l.Err != nil {
			r.Letter.Error = l.Err.Error()
		}
	}
	r.Hints = hintsOf(g, s, r, undecoded != nil)
	return r, nil
}

// hintsOf is what to do next, the likeliest cause first.
func hintsOf(g groups.Group, s groups.Stuck, r stuckRow, undecoded bool) []string {
	name, at := shellWord(g.ID), fmt.Sprintf("p%d=", r.Partition)
	topic := shellWord(r.Topic)
	var out []string
	if r.Expired > 0 {
		out = append(out, fmt.Sprintf("%s were deleted before the group came to them: give it more time, with a longer retention of %s", plural(r.Expired, "offset"), topic))
	}
	switch {
	case len(g.Members) == 0:
		out = append(out, "nobody is there: start a member")
	case r.Member == "":
		out = append(out, "no member has this partition: is the group rebalancing?  millrace groups describe "+name)
	case s.Next == nil:
		out = append(out, "nothing can be read there: a transaction is open, or only markers follow")
	case undecoded:
		out = append(out, "it does not decode: is its schema registered?  millrace schemas ls")
	default:
		out = append(out, fmt.Sprintf("see whether it moves:  millrace groups lag %s --watch", name))
	}
	if r.Letter != nil {
		out = append(out, "see what was given up:  millrace tail "+shellWord(r.Letter.Topic)+" -n 5")
	}
	if waits := r.Behind != nil && *r.Behind >= longWait.Seconds(); s.Next != nil && (waits || undecoded || len(g.Members) == 0) {
		out = append(out,
			fmt.Sprintf("see the record whole:  millrace tail %s --partition %d --offset %d:%d -o json", topic, r.Partition, s.Next.Offset, s.Next.Offset+1),
			fmt.Sprintf("pass over it, once no member is there:  millrace groups offsets plan %s --topic %s --at %s%d", name, topic, at, s.Next.Offset+1))
	}
	return out
}

// shellWord is a name as a shell takes it.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/:@%+", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(printable(s), "'", `'\''`) + "'"
}

func (a *app) printWhy(g groups.Group, rows []stuckRow) {
	t, behind := g.Total(), 0
	for _, p := range g.Partitions {
		if lag, ok := p.Lag(); ok && lag > 0 {
			behind++
		}
	}
	fmt.Fprintf(a.out, "%s: %s, %s", printable(g.ID), strings.ToLower(g.State), plural(int64(len(g.Members)), "member"))
	if behind == 0 {
		fmt.Fprint(a.out, ", caught up\n")
		if t.Uncommitted > 0 {
			a.say("%s without a commit: nothing is known of where it stands there", plural(int64(t.Uncommitted), "partition"))
		}
		if t.Open > 0 {
			a.say("%s deferred, and tried again when due:  millrace groups describe %s", plural(int64(t.Open), "record"), shellWord(g.ID))
		}
		return
	}
	fmt.Fprintf(a.out, ", %s behind on %d of %s\n", plural(t.Lag, "message"), behind, plural(int64(t.Partitions), "partition"))
	said := map[string]bool{} // what is to be done once is said once
	for _, r := range rows {
		fmt.Fprintf(a.out, "\n%s, committed %d, %s behind", printable(place(r.Topic, r.Partition)), r.Committed, number(r.Lag))
		if r.Member != "" {
			fmt.Fprintf(a.out, ", at %s on %s", printable(r.Member), printable(r.Host))
		}
		fmt.Fprintln(a.out)
		if r.Next != nil {
			fmt.Fprintf(a.out, "  next   %s\n  age    %s\n", r.line, age(time.Duration(*r.Behind*float64(time.Second))))
		}
		if l := r.Letter; l != nil {
			fmt.Fprintf(a.out, "  error  at offset %d, %s ago, %s after %s: %s\n", l.Offset, age(a.now().Sub(l.Time)), printable(l.Class),
				plural(int64(l.Attempts), "attempt"), printable(orDash(l.Error)))
		}
		for _, h := range r.Hints {
			if !said[h] {
				said[h] = true
				fmt.Fprintf(a.out, "  → %s\n", h)
			}
		}
	}
	if behind > len(rows) {
		a.say("and %d more: the partitions that are furthest behind are shown", behind-len(rows))
	}
}
