package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

// traceFlags say where a chain of events is looked for.
type traceFlags struct {
	patterns          []string
	from, until, zone string
}

func (a *app) traceCommand() *cobra.Command {
	f := traceFlags{from: "-24h", until: "end", zone: "UTC"}
	cmd := &cobra.Command{
		Use: "trace ID", Short: "Follow one event: what led to it, what it led to, and where each group stands",
		Long: `Follow one event: what led to it, what it led to, and where each group stands.

ID is the id of any event of a chain, or the correlation id that all of its events carry, or a place as tail prints it:
shop.orders/0@12. All topics are looked through, but internal ones; --from says from when on. Effects are found by the headers
that event.After writes: millrace_correlation_id and millrace_cause_id. Values are not decoded.

Of each group that commits on the topic it is said whether its position is past the event (done), before it (not yet), whether it
has deferred it, or given it up to its dead letters. A handler's effect stands below its cause, with the time after the first event.

Exits 1 when there is no such event in the range.`,
		Example: `  millrace trace shop.orders/2@0
  millrace trace shop.orders/2@0 --from -7d --topics 'shop[.]' -o json`,
		Args:              names("an event: its id, or topic/partition@offset", 1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.trace(cmd.Context(), args[0], f) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.patterns, "topics", nil, "only topics whose name matches this `regexp`, in any part of it; may be repeated")
	fs.StringVar(&f.from, "from", f.from, "the first `position` to look at")
	fs.StringVar(&f.until, "until", f.until, "the first `position` not to look at")
	fs.StringVar(&f.zone, "tz", f.zone, "read and print times in this `zone`: Europe/Rome, local")
	return cmd
}

func (a *app) trace(ctx context.Context, id string, f traceFlags) error {
	if err := a.formats("table", "json"); err != nil {
		return err
	}
	zone, err := location(f.zone)
	if err != nil {
		return usage(err)
	}
	now := a.now().In(zone)
	flags := readFlags{from: f.from, until: f.until, bounded: true, patterns: f.patterns, contextBy: byPartition}
	if len(flags.patterns) == 0 {
		flags.patterns = []string{""} // every name
	}
	if err := flags.check(nil); err != nil {
		return usage(err)
	}
	span, err := flags.span(now)
	if err != nil {
		return usage(err)
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	if id, err = a.eventID(ctx, c, id); err != nil {
		return err
	}
	cfg := flags.config(span)
	cfg.Log, cfg.Merge = c.Log, false
	if cfg.Topics, err = a.pick(ctx, c, nil, flags.patterns); err != nil {
		return err
	}
	a.sayRange(span, now)
	found, err := a.readChain(ctx, c, cfg, id)
	if err != nil {
		return err
	}
	all := found.tree()
	if len(all) == 0 {
		return hint(fmt.Errorf("no event with the id or correlation id %s is in the range", printable(id)),
			"look further back:  --from -7d, or --from start", "or at it where it stands:  millrace find TOPIC --where 'id == \"…\"'")
	}
	at, err := a.groupPositions(ctx, c)
	if _, denied := errors.AsType[*kafka.PermissionError](err); err != nil && !denied {
		return err
	} else if denied { // the events alone are worth something
		a.say("%s: no group is shown", err)
	}
	at.judge(all)
	if a.output == "json" {
		return a.printTraceJSON(found, all)
	}
	return a.printTrace(found, all, now)
}

var placePattern = regexp.MustCompile(`^([a-zA-Z0-9._-]+)/([0-9]{1,9})@([0-9]{1,18})$`)

// eventID is the id of what was asked for: a place is looked up.
func (a *app) eventID(ctx context.Context, c kafka.Cluster, text string) (string, error) {
	m := placePattern.FindStringSubmatch(text)
	if m == nil {
		return text, nil
	}
	partition, _ := strconv.ParseInt(m[2], 10, 32) // the pattern lets nothing else through
	offset, _ := strconv.ParseInt(m[3], 10, 64)
	r, err := reader.Open(ctx, c, reader.Config{
		Topics: m[1:2], Partitions: []int32{int32(partition)}, Uncommitted: true, Log: c.Log,
		Range: position.Range{From: position.Point{Kind: position.Offset, N: offset}, Until: position.Point{Kind: position.Offset, N: offset + 1}},
	})
	if err != nil {
		return "", err //nolint:wrapcheck // it says what it did
	}
	for e, err := range r.Events(ctx) {
		return e.ID, err
	}
	return "", hint(fmt.Errorf("there is no event at %s", text), "see what there is:  millrace tail "+m[1]+" -n 5")
}

// readChain reads the records of the chain that id belongs to. Where it turns out to be an effect, it reads again: what
// led to it lies before it and was not known to belong to it.
func (a *app) readChain(ctx context.Context, c kafka.Cluster, cfg reader.Config, id string) (*chain, error) {
	for found := newChain(id, id); ; {
		cfg.Match = found.match
		root, err := a.scanChain(ctx, c, cfg, found)
		if err != nil || root == "" {
			return found, err
		}
		found = newChain(id, root)
	}
}

// scanChain fills found. It stops, and returns another root, once the chain is known to begin elsewhere.
func (a *app) scanChain(ctx context.Context, c kafka.Cluster, cfg reader.Config, found *chain) (root string, err error) {
	line := a.scanLine()
	defer line.clear()
	cfg.Progress = line.update
	r, err := reader.Open(ctx, c, cfg)
	if err != nil {
		return "", err //nolint:wrapcheck // it says what it did
	}
	if found.root == found.asked {
		a.sayEstimate(r, cfg.Range)
	}
	done := false
	for e, err := range r.Events(ctx) {
		if err != nil {
			line.clear()
			a.say("%s", r.Complete())
			return "", err
		}
		if root, other := found.otherRoot(&e); other {
			return root, nil
		}
		if found.count == tracedMost {
			line.clear()
			a.say("more than %s belong to it: so many are shown", plural(tracedMost, "record"))
			done = true
			break
		}
		found.add(&e)
	}
	complete := r.Complete()
	complete.Done = complete.Done || done
	line.clear()
	a.say("%s", complete)
	if complete.Early > 0 {
		a.say(lateNote)
	}
	return "", nil
}

// printTrace is the timeline for people.
func (a *app) printTrace(c *chain, all []*traced, now time.Time) error {
	w := bufio.NewWriter(a.out)
	began := all[0].published
	for i, t := range all {
		indent := strings.Repeat("  ", min(t.depth, 12))
		asked := ""
		if t.id == c.asked && t.id != all[0].id {
			asked = "  ← asked for"
		}
		missing := ""
		if !t.seen {
			missing = "  (not read: out of the range, or deleted)"
		}
		if t.depth == 0 && t.cause != "" && c.byID[t.cause] == nil {
			fmt.Fprintf(w, "after %s, which was not found\n", printable(t.cause))
		}
		key := "-"
		if t.key != nil {
			key = preview(t.key)
		}
		typ := t.typ
		if typ == "" {
			typ = "(no type)"
		}
		what := fmt.Sprintf("%s  %s%s  %s", moment(t.published, began, i == 0, now.Location()), indent, printable(typ), key)
		where := fmt.Sprintf("  %s@%d%s%s", place(t.topic, t.partition), t.offset, asked, missing)
		if width := a.screenWidth(); width > 0 && utf8.RuneCountInString(what+where) > width {
			what += fmt.Sprintf("\n%25s%s", "", indent) // a place that a terminal breaks is a place that nobody copies
		}
		fmt.Fprintf(w, "%s%s\n", what, where)
		fmt.Fprintf(w, "%25s%s  id %s\n", "", indent, printable(t.id))
		printGroups(w, indent, t.groups, now)
		for _, s := range t.copies {
			fmt.Fprintf(w, "%s  %s  again: %s@%d\n", moment(s.published, began, false, now.Location()), indent, place(s.topic, s.partition), s.offset)
			printGroups(w, indent, s.groups, now)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func printGroups(w *bufio.Writer, indent string, groups []groupState, now time.Time) {
	for _, g := range groups {
		fmt.Fprintf(w, "%25s%s  %s\n", "", indent, g.text(now))
	}
}

// moment is a time in 23 characters: that of the first event, then as the distance to it.
func moment(t, began time.Time, first bool, zone *time.Location) string {
	if first {
		return t.In(zone).Format("2006-01-02 15:04:05.000")
	}
	sign := "+"
	d := t.Sub(began)
	if d < 0 {
		sign, d = "-", -d
	}
	text := d.Round(time.Millisecond).String()
	if d >= time.Minute {
		text = age(d)
	}
	return fmt.Sprintf("%23s", sign+text)
}

// traceJSON is what trace -o json prints.
type traceJSON struct {
	Millrace int         `json:"millrace"`
	Asked    string      `json:"asked"`
	Root     string      `json:"root"`
	Events   []traceNode `json:"events"`
}

type traceNode struct {
	ID     string       `json:"id"`
	Cause  string       `json:"cause,omitempty"`
	Depth  int          `json:"depth"`
	Type   string       `json:"type,omitempty"`
	Key    *octets      `json:"key"`
	Seen   bool         `json:"seen"` // false: only a dead letter tells of it
	Copies []tracePlace `json:"copies,omitempty"`
	tracePlace
}

type tracePlace struct {
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	Offset    int64        `json:"offset"`
	Timestamp instant      `json:"timestamp"`
	Groups    []groupState `json:"groups"`
}

func placeOf(s spot) tracePlace {
	return tracePlace{s.topic, s.partition, s.offset, instant(s.published), s.groups}
}

func (a *app) printTraceJSON(c *chain, all []*traced) error {
	doc := traceJSON{Millrace: 1, Asked: c.asked, Root: c.root}
	for _, t := range all {
		n := traceNode{ID: t.id, Cause: t.cause, Depth: t.depth, Type: t.typ, Key: octetsOf(t.key), Seen: t.seen, tracePlace: placeOf(t.spot)}
		for _, s := range t.copies {
			n.Copies = append(n.Copies, placeOf(s))
		}
		doc.Events = append(doc.Events, n)
	}
	return writeJSON(a.out, doc, "  ")
}
