package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/schemas"
)

// newLines reads lines of any length that produce would read.
func newLines(in io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), lineMost)
	return lines
}

// inContext is the app that speaks to another context, with nothing of this command line but its guards.
func (a *app) inContext(name string) *app {
	return &app{
		in: a.in, out: a.out, err: a.err, getenv: a.getenv, dir: a.dir, now: a.now, output: a.output,
		contextFlag: name, confirmFlag: a.confirmFlag,
	}
}

// open makes the target.
func (r *replaying) open(ctx context.Context, d *decoder) error {
	into := r.spec.Into
	switch kind, rest, _ := strings.Cut(into, ":"); {
	case into == "stdout":
		r.target = r.stdout(d)
	case kind == "topic" && rest != "":
		return r.openTopic(ctx, rest)
	case kind == "http" || kind == "https":
		return r.openURL(into, d.reg)
	case kind == "exec" && rest != "":
		r.target = replay.Command(r.err, os.Environ(), "sh", "-c", rest)
	default:
		return hint(usage(fmt.Errorf("--into %s: there is no such target", into)), "--into topic:NAME", "--into https://…", "--into exec:COMMAND", "--into stdout")
	}
	return nil
}

func (r *replaying) openTopic(ctx context.Context, topic string) error {
	c := r.cluster
	if name := r.spec.IntoContext; name != "" {
		other, err := r.otherCluster(ctx, name)
		if err != nil {
			return err
		}
		if r.cfg.AllowLoop, err = apart(ctx, r.cluster, other); err != nil {
			return err
		}
		r.cfg.AllowLoop = r.cfg.AllowLoop || r.spec.AllowLoop
		c = other
	}
	if err := mayPublish(ctx, c, topic); err != nil {
		return err
	}
	linger := time.Duration(0)
	if r.cfg.Speed > 0 || r.cfg.Rate > 0 {
		linger = -1 // a gap is not lengthened
	}
	p, err := producer.New(c, nil, producer.Config{Linger: linger, Log: c.Log})
	if err != nil {
		return err
	}
	r.target, r.close = replay.Topic(p, topic), p.Close
	return nil
}

// otherCluster is that of another context, which may be written to.
func (a *app) otherCluster(ctx context.Context, name string) (kafka.Cluster, error) {
	other := a.inContext(name)
	if err := other.resolve(); err != nil {
		return kafka.Cluster{}, err
	}
	if other.readOnly || a.persistent.Changed("read-only") && a.readOnly {
		return kafka.Cluster{}, refused(fmt.Errorf("context %s: %w", name, kafka.ErrReadOnly))
	}
	if err := other.mayWrite(); err != nil {
		return kafka.Cluster{}, err
	}
	return other.cluster(ctx)
}

// apart reports whether two clusters are different ones.
func apart(ctx context.Context, a, b kafka.Cluster) (bool, error) {
	one, err := groups.ClusterID(ctx, a)
	if err != nil {
		return false, err
	}
	other, err := groups.ClusterID(ctx, b)
	return one != other, err
}

func (r *replaying) openURL(address string, reg *schemas.Registry) error {
	t, err := replay.URL(nil, address)
	if err != nil {
		return usage(err)
	}
	if r.spec.Sign != "" {
		s, err := r.resigner(reg)
		if err != nil {
			return err
		}
		t.Request = s.request
	}
	t.Header = http.Header{}
	for _, h := range r.f.requestHeaders {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return usage(fmt.Errorf("--request-header %q: write name=value", h))
		}
		t.Header.Add(name, value)
	}
	r.target = t
	return nil
}

// stdout prints each event, and lets none wait in memory: what was delivered was written.
func (r *replaying) stdout(d *decoder) replay.Target {
	out := &printer{app: r.app, decoder: *d, w: bufio.NewWriterSize(r.out, 64<<10), zone: time.UTC}
	r.close = func(context.Context) error { return out.end() }
	return replay.Func(func(ctx context.Context, e event.Event) error {
		if isTerminal(r.out) {
			r.bar.clear()
		}
		if err := out.print(ctx, &e, false); err != nil {
			return err
		}
		return out.flush()
	})
}

// run replays, and says how it went.
func (r *replaying) run(ctx context.Context) error {
	if r.spec.Into == "stdout" {
		r.cfg.Keys = 1
		if err := r.formats("table", "json", "jsonl", "raw"); err != nil {
			return err
		}
	} else if err := r.formats("table", "json"); err != nil {
		return err
	}
	r.cfg.Report = r.show
	s, err := replay.Run(ctx, r.cluster, r.target, r.cfg)
	r.bar.clear()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	err = errors.Join(err, r.close(closing))
	if s.Spans != nil || err == nil {
		r.say("%s", outcome("replay", s, r.spec.Into))
	}
	if s.Spans != nil && !s.Done && !r.cfg.Untracked && !errors.Is(err, replay.ErrTaken) && !errors.Is(err, replay.ErrLoop) {
		r.say("  → go on:  millrace replay --resume %s", s.ID)
	}
	if r.output == "json" && r.spec.Into != "stdout" {
		if err := r.document(s); err != nil {
			return err
		}
	}
	switch {
	case err != nil:
		return replayError(ctx, err)
	case s.Failed > 0:
		return coded{fmt.Errorf("%s failed and were skipped", plural(s.Failed, "event")), codePartial}
	}
	return nil
}

// replayError adds what to type next.
func replayError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, replay.ErrTaken):
		return hint(refused(err), "see who has it:  millrace replay ls", "a run that died on another machine lets go of it after 15 seconds")
	case errors.Is(err, replay.ErrLoop):
		return hint(refused(err), "name another topic, or, if that is what you mean:  --allow-loop")
	case errors.Is(err, replay.ErrLongNote):
		return hint(usage(errors.New("the names and filters are longer than what a replay's progress can hold")),
			"name fewer topics, or shorten --where", "keep no progress:  --no-progress", "or take it in two steps:  millrace find … --save FILE; millrace replay --set FILE …")
	case errors.Is(err, replay.ErrMismatch):
		return hint(refused(err), "call this replay by another name:  --id NAME")
	}
	return err
}

// show draws the progress of a run, with how long what is left takes at the pace of this run.
func (r *replaying) show(s replay.Summary) {
	passed, total := s.Progress()
	if total == 0 || !r.bar.on {
		return
	}
	if r.since.IsZero() {
		r.since, r.before = r.now(), passed
	}
	left := "…"
	if took := r.now().Sub(r.since); passed > r.before && took > 0 {
		left = age(time.Duration(float64(took)*float64(total-passed)/float64(passed-r.before))) + " left"
	}
	r.bar.show("%s of %s offsets (%d %%), %s delivered, %s", number(passed), number(total), 100*passed/total, number(s.Delivered), left)
}

// outcome is a summary in a line, for people.
func outcome(act string, s replay.Summary, into string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: delivered %s to %s", act, s.ID, plural(s.Delivered, "event"), printable(into))
	for _, x := range []struct {
		n    int64
		what string
	}{
		{s.Dropped, "dropped"},
		{s.Failed, "failed and skipped"},
		{s.Filtered, "not asked for"},
		{s.Undecodable, "undecodable"},
		{s.Unanswered, "to which a filter had no answer"},
		{s.Gone, "deleted before they were read"},
	} {
		if x.n > 0 {
			fmt.Fprintf(&b, ", %s %s", number(x.n), x.what)
		}
	}
	if s.Repeats > 0 {
		fmt.Fprintf(&b, "; up to %s of them twice", number(s.Repeats))
	}
	if s.Slipped > 0 {
		fmt.Fprintf(&b, "; %s late, for the target was slower", age(s.Slipped))
	}
	passed, total := s.Progress()
	if !s.Done && total > 0 {
		fmt.Fprintf(&b, "; %d %% of the range is behind it", 100*passed/total)
	}
	return b.String()
}

// replayDocument is what -o json prints. Matched, first, last and expected are of a dry run alone.
type replayDocument struct {
	Millrace int           `json:"millrace"`
	ID       string        `json:"id"`
	Into     string        `json:"into"`
	Done     bool          `json:"done"`
	Resumed  bool          `json:"resumed"`
	Spans    []replay.Span `json:"spans"`
	replay.Counts
	Repeats int64   `json:"repeats"`
	Gone    int64   `json:"gone"`
	Retries int64   `json:"retries"`
	Slipped float64 `json:"slipped_seconds"`
	Took    float64 `json:"took_seconds"`

	Matched  int64     `json:"matched,omitempty"`
	First    time.Time `json:"first,omitzero"`
	Last     time.Time `json:"last,omitzero"`
	Expected float64   `json:"expected_seconds,omitempty"`
}

func (r *replaying) describeSummary(s replay.Summary) replayDocument {
	d := replayDocument{
		Millrace: 1, ID: s.ID, Into: r.spec.Into, Done: s.Done, Resumed: s.Resumed, Spans: s.Spans, Counts: s.Counts, Repeats: s.Repeats, Gone: s.Gone,
		Retries: s.Retries, Slipped: s.Slipped.Seconds(), Took: s.Took.Seconds(),
		Matched: s.Matched, First: s.First, Last: s.Last, Expected: s.Expected.Seconds(),
	}
	if d.Spans == nil {
		d.Spans = []replay.Span{}
	}
	return d
}

func (r *replaying) document(s replay.Summary) error {
	w := bufio.NewWriter(r.out)
	err := writeJSON(w, r.describeSummary(s), "  ")
	return errors.Join(err, w.Flush())
}

// dryRun is --dry-run.
func (r *replaying) dryRun(ctx context.Context) error {
	if err := r.formats("table", "json"); err != nil {
		return err
	}
	r.cfg.Report = r.show
	s, err := replay.Plan(ctx, r.cluster, r.cfg)
	r.bar.clear()
	if err != nil {
		return replayError(ctx, err)
	}
	if r.output == "json" {
		return r.document(s)
	}
	_, offsets := s.Progress()
	fmt.Fprintf(r.out, "events    %s, of %s in %s\n", number(s.Matched), plural(offsets, "offset"), plural(int64(len(s.Spans)), "partition"))
	if s.Matched > 0 {
		fmt.Fprintf(r.out, "span      %s to %s, %s\n", s.First.UTC().Format(time.RFC3339), s.Last.UTC().Format(time.RFC3339), age(s.Last.Sub(s.First)))
	}
	if r.spec.Into != "" {
		fmt.Fprintf(r.out, "into      %s\n", printable(r.spec.Into))
	}
	took := "as fast as the target takes them"
	if s.Expected > 0 {
		took = "takes " + age(s.Expected)
	}
	fmt.Fprintf(r.out, "duration  %s\n", took)
	if n := s.Undecodable + s.Unanswered; n > 0 {
		r.say("%s left out because the filters have no answer to them", plural(n, "event"))
	}
	r.say("nothing was delivered: leave out --dry-run to do it")
	return nil
}

// replayRow is a replay in a list.
type replayRow struct {
	ID        string    `json:"id"`
	State     string    `json:"state"`
	Delivered int64     `json:"delivered"`
	Passed    int64     `json:"passed"`
	Total     int64     `json:"total"`
	Repeats   int64     `json:"repeats"`
	Begun     time.Time `json:"begun"`
	Topics    []string  `json:"topics"`
	Owner     string    `json:"owner,omitempty"`
}

func (a *app) replayListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List replays and how far they are",
		Example: "  millrace replay ls",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.cluster(cmd.Context())
			if err != nil {
				return err
			}
			all, err := replay.List(cmd.Context(), c)
			if err != nil {
				return err
			}
			rows := make([]replayRow, len(all))
			for i, p := range all {
				passed, total := p.Progress()
				state := "stopped"
				switch {
				case p.Done:
					state = "done"
				case p.Running:
					state = "running"
				}
				rows[i] = replayRow{p.ID, state, p.Delivered, passed, total, p.Repeats, p.Begun, p.Topics(), p.Owner}
			}
			return list(a, "replays", rows, "ID STATE DELIVERED OFFSETS BEGUN TOPICS", func(r replayRow) []any {
				return []any{r.ID, r.State, number(r.Delivered), number(r.Passed) + " of " + number(r.Total), r.Begun.UTC().Format(time.RFC3339), strings.Join(r.Topics, ",")}
			})
		},
	}
}
