package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/topics"
)

// Bounds of --interval, and how long one look of a watch may take.
const (
	watchEvery   = 2 * time.Second
	watchLeast   = 100 * time.Millisecond
	watchTimeout = 15 * time.Second
)

type lagFlags struct {
	watch    bool
	interval time.Duration
	owners   string
}

func (a *app) lagCommand() *cobra.Command {
	var f lagFlags
	cmd := &cobra.Command{
		Use: "lag [GROUP…]", Short: "Show how far groups are behind, in messages and in time",
		Long: `Show how far groups are behind, in messages and in time: all groups, or those named.

LAG counts only partitions with a commit; how many have none stands beside it. BEHIND is the age of the oldest record that
comes next. With --owners DIR, a folder of topic files, it shows who answers for the topics.

--watch looks again and again, until Ctrl-C (exit 130), and judges by how the commits move:
  ok      keeps up, or it is too early to say
  warn    commits and moves on, and its lag never falls
  stall   its members are there, and the position stays
  stop    nobody commits any more, and there is more to read
  rewind  the position went back and has not come to where it was`,
		Example:           "  millrace groups lag\n  millrace groups lag shipping -o jsonl\n  millrace groups lag --watch --interval 5s\n  millrace groups lag --owners topics",
		ValidArgsFunction: a.completeGroups,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.groupsLag(cmd.Context(), args, f) },
	}
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "look again and again, and say how the group does")
	cmd.Flags().DurationVar(&f.interval, "interval", watchEvery, "with --watch, this `duration` lies between two looks")
	cmd.Flags().StringVar(&f.owners, "owners", "", "a `folder` of topic files, for the owners of the topics")
	return cmd
}

type lagRow struct {
	Time        *time.Time   `json:"time,omitempty"` // of the look, with --watch
	Group       string       `json:"group"`
	State       string       `json:"state"`
	Status      groups.State `json:"status,omitempty"` // with --watch
	Members     int          `json:"members"`
	Lag         int64        `json:"lag"`
	Behind      *float64     `json:"behind_seconds,omitempty"` // of the partition that is furthest behind
	Partitions  int          `json:"partitions"`
	Uncommitted int          `json:"uncommitted"`
	Open        int          `json:"open"`
	Owners      []string     `json:"owners,omitempty"` // of the topics, with --owners
}

func (a *app) groupsLag(ctx context.Context, ids []string, f lagFlags) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	switch {
	case f.watch && a.output == "json":
		return usage(errors.New("-o json is one document: --watch takes -o jsonl"))
	case f.interval < watchLeast:
		return usage(fmt.Errorf("--interval %s: it is %s or more", f.interval, watchLeast))
	}
	owners, err := a.owners(f.owners)
	if err != nil {
		return err
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	if f.watch {
		return a.watchLag(ctx, c, ids, f.interval, owners)
	}
	gs, ages, err := allOr(ctx, c, ids)
	if err != nil {
		return err
	}
	rows := a.lagRows(gs, ages, owners)
	if len(rows) == 0 && a.output == "table" {
		a.say("no groups yet: a group appears when its first member joins or commits")
		return nil
	}
	return a.printLag(rows)
}

// owners are those of the topics in a folder of topic files; nil without one.
func (a *app) owners(dir string) (map[string]string, error) {
	if dir == "" {
		return nil, nil
	}
	specs, _, err := a.specs([]string{dir})
	if err != nil {
		return nil, err
	}
	return ownersOf(specs), nil
}

func ownersOf(specs []topics.Spec) map[string]string {
	out := make(map[string]string, len(specs))
	for _, s := range specs {
		out[s.Name] = s.Owner
	}
	return out
}

// allOr describes the groups, or without names all that there are.
func allOr(ctx context.Context, c kafka.Cluster, ids []string) ([]groups.Group, map[groups.Key]time.Time, error) {
	if len(ids) > 0 {
		return describe(ctx, c, ids)
	}
	listed, err := groups.List(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	for _, g := range listed {
		ids = append(ids, g.ID)
	}
	gs, ages, err := describe(ctx, c, ids)
	if errors.Is(err, groups.ErrNotFound) {
		return describeOneByOne(ctx, c, ids) // a group went between the two questions, or is empty
	}
	return gs, ages, err
}

func (a *app) lagRows(gs []groups.Group, ages map[groups.Key]time.Time, owners map[string]string) []lagRow {
	rows := make([]lagRow, len(gs))
	for i, g := range gs {
		t := g.Total()
		rows[i] = lagRow{Group: g.ID, State: g.State, Members: len(g.Members), Lag: t.Lag, Partitions: t.Partitions, Uncommitted: t.Uncommitted, Open: t.Open}
		for _, p := range a.partitionRows(g, ages) {
			if p.Behind != nil && (rows[i].Behind == nil || *p.Behind > *rows[i].Behind) {
				rows[i].Behind = p.Behind
			}
			if o := owners[p.Topic]; o != "" && !slices.Contains(rows[i].Owners, o) {
				rows[i].Owners = append(rows[i].Owners, o)
			}
		}
	}
	return rows
}

// printLag has a column for what was asked for and no other.
func (a *app) printLag(rows []lagRow) error {
	watched, owned := false, false
	for _, r := range rows {
		watched, owned = watched || r.Status != "", owned || r.Owners != nil
	}
	header := "GROUP STATE MEMBERS LAG BEHIND PARTITIONS WITHOUT-COMMIT? OPEN?"
	if watched {
		header = "GROUP STATUS STATE MEMBERS LAG BEHIND PARTITIONS WITHOUT-COMMIT? OPEN?"
	}
	if owned {
		header += " OWNERS"
	}
	return list(a, "groups", rows, header, func(r lagRow) []any {
		behind := "0s"
		switch {
		case r.Behind != nil:
			behind = age(time.Duration(*r.Behind * float64(time.Second)))
		case r.Lag > 0 || r.Uncommitted == r.Partitions:
			behind = "-"
		}
		cells := []any{r.Group}
		if watched {
			cells = append(cells, r.Status)
		}
		cells = append(cells, r.State, r.Members, number(r.Lag), behind, r.Partitions, r.Uncommitted, r.Open)
		if owned {
			cells = append(cells, orDash(strings.Join(r.Owners, ", ")))
		}
		return cells
	})
}

// watchLag looks until the context ends. The first look must succeed; one that fails later is said, and the next one tried.
func (a *app) watchLag(ctx context.Context, c kafka.Cluster, ids []string, every time.Duration, owners map[string]string) error {
	tracker := groups.NewTracker(groups.TrackerConfig{})
	tick := time.NewTicker(every)
	defer tick.Stop()
	s := lagScreen{app: a}
	for first := true; ; first = false {
		rows, err := a.lookOnce(ctx, c, ids, tracker, owners)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("watch groups: %w", ctx.Err())
		case err != nil && first:
			return err
		case err != nil:
			a.say("%s", err)
			s.drawn = 0 // the line stands below the block
		default:
			if err := s.show(rows); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("watch groups: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// lookOnce is one look, the worst groups first.
func (a *app) lookOnce(ctx context.Context, c kafka.Cluster, ids []string, tracker *groups.Tracker, owners map[string]string) ([]lagRow, error) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	gs, ages, err := allOr(ctx, c, ids)
	if err != nil {
		return nil, err
	}
	now := a.now().UTC()
	states := tracker.Observe(now, gs)
	rows := a.lagRows(gs, ages, owners)
	for i := range rows {
		rows[i].Status, rows[i].Time = states[rows[i].Group], &now
	}
	slices.SortStableFunc(rows, func(x, y lagRow) int {
		if x.Status != y.Status {
			if groups.Worst(x.Status, y.Status) == x.Status {
				return -1
			}
			return 1
		}
		return cmp.Compare(y.Lag, x.Lag)
	})
	return rows, nil
}

// lagScreen shows look after look: on a terminal in place of the one before, elsewhere a line for each group.
type lagScreen struct {
	*app
	drawn int // lines on the terminal
}

func (s *lagScreen) show(rows []lagRow) error {
	out, ok := s.out.(*os.File)
	if s.output != "table" || !ok || !isTerminal(out) {
		return s.lines(rows)
	}
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil || width < 1 || height < 2 {
		width, height = 80, 24
	}
	text, err := s.block(rows, width, height)
	if err != nil {
		return err
	}
	up := ""
	if s.drawn > 0 {
		up = fmt.Sprintf("\x1b[%dA", min(s.drawn, height-1))
	}
	s.drawn = len(text)
	if _, err := fmt.Fprint(s.out, up+"\r"+strings.Join(text, "\x1b[K\n")+"\x1b[K\n\x1b[J"); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// block is the screen, in at most height-1 lines.
func (s *lagScreen) block(rows []lagRow, width, height int) ([]string, error) {
	var b bytes.Buffer
	page := *s.app
	page.out, page.width = &b, width-1
	if err := page.printLag(rows); err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if most := max(2, height-3); len(lines) > most {
		rest := len(lines) - most + 1
		lines = append(lines[:most-1], fmt.Sprintf("… and %d more: name those that you want to see", rest))
	}
	lines = append(lines, fmt.Sprintf("%s   Ctrl-C ends it", s.now().UTC().Format(time.DateTime+"Z")))
	for i, l := range lines {
		lines[i] = clip(l, width-1)
	}
	return lines, nil
}

// lines prints a line for each group, so that grep and tail work.
func (s *lagScreen) lines(rows []lagRow) error {
	if s.output == "jsonl" {
		return s.printLag(rows)
	}
	for _, r := range rows {
		behind := "-"
		if r.Behind != nil {
			behind = age(time.Duration(*r.Behind * float64(time.Second)))
		}
		if _, err := fmt.Fprintf(s.out, "%s %s status=%s state=%s members=%d lag=%d behind=%s uncommitted=%d open=%d\n", r.Time.Format(time.RFC3339),
			printable(r.Group), r.Status, r.State, r.Members, r.Lag, behind, r.Uncommitted, r.Open); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}
