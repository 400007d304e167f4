package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/schemas"
)

// replaySpec is what a replay is, as it is kept with its progress: --resume needs nothing else.
type replaySpec struct {
	Into        string   `json:"into"`
	IntoContext string   `json:"into_context,omitempty"`
	Topics      []string `json:"topics,omitempty"`
	Set         string   `json:"set,omitempty"`
	Where       []string `json:"where,omitempty"`
	Keys        []string `json:"keys,omitempty"`
	Headers     []string `json:"headers,omitempty"`
	Types       []string `json:"types,omitempty"`
	Clock       string   `json:"clock,omitempty"`
	AllowLoop   bool     `json:"allow_loop,omitempty"`
	Sign        string   `json:"sign,omitempty"`
	Secrets     []string `json:"secrets,omitempty"` // where they are
	paceFlags
}

// paceFlags may be other ones when a replay goes on.
type paceFlags struct {
	Speed      string `json:"speed,omitempty"`
	Rate       string `json:"rate,omitempty"`
	Parallel   int    `json:"parallel,omitempty"`
	SkipFailed bool   `json:"skip_failed,omitempty"`
}

type replayFlags struct {
	replaySpec
	readFlags
	serviceFlags
	group, id, resume  string
	requestHeaders     []string
	dryRun, noProgress bool
}

func (f *replayFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.Into, "into", "", "where to: `topic:NAME`, an http or https URL, exec:COMMAND, or stdout")
	fs.StringArrayVar(&f.patterns, "topics", nil, "topics whose name matches this `regexp`, in any part of it; may be repeated")
	fs.StringVar(&f.from, "from", "", "the first `position` to read")
	fs.StringVar(&f.until, "until", "", "the first `position` not to read. Defaults to what is there now")
	fs.StringVar(&f.offset, "offset", "", "a `range` of offsets or times, instead of --from and --until")
	fs.StringVar(&f.group, "from-group", "", "begin where this consumer `group` stands; it is not moved")
	fs.StringVar(&f.Set, "set", "", "replay the events of this `file`, which find --save wrote, instead of topics")
	fs.IntSliceVar(&f.partitions, "partition", nil, "only these `partitions`")
	fs.StringArrayVar(&f.where, "where", nil, "only events for which this `expression` is true; repeated: with all of them")
	fs.StringArrayVar(&f.keys, "key", nil, "only events with this `key`; repeated: with any of them")
	fs.StringArrayVar(&f.headers, "header", nil, "only events with this header, `name=value` or name~regexp; repeated: with all of them")
	fs.StringArrayVar(&f.Types, "type", nil, "only events of this `type`; repeated: of any of them")
	fs.StringVar(&f.Speed, "speed", "max", "1x keeps the gaps between events, 10x makes them a `tenth`, max is without")
	fs.StringVar(&f.Rate, "rate", "", "at most so many events a second: `100/s`")
	fs.StringVar(&f.Clock, "clock", "record", "gaps are those of record timestamps, or of the `event`'s own times")
	fs.IntVar(&f.Parallel, "parallel", 1, "deliver so `many` events at once to a URL or a command, those of a key in their order")
	fs.BoolVar(&f.SkipFailed, "skip-failed", false, "count an event that fails for good and go on; exit 4")
	fs.StringVar(&f.id, "id", "", "call the replay by this `name`")
	f.serviceFlags.register(fs)
	fs.StringVar(&f.resume, "resume", "", "go on with the replay of this `name`")
	fs.BoolVar(&f.dryRun, "dry-run", false, "say what would be done: how many events, over which time, how long it takes")
	fs.BoolVar(&f.noProgress, "no-progress", false, "keep no progress: nothing is written to the cluster that is read, and nothing can go on")
	fs.StringVar(&f.IntoContext, "into-context", "", "the topic of --into is in this named `cluster`")
	fs.StringArrayVar(&f.requestHeaders, "request-header", nil, "add a header to each request, `name=value`; may be repeated, and is not kept for --resume")
	fs.StringVar(&f.Sign, "sign", "", "send webhooks to a URL as they came, with their `original` signature or signed anew by this scheme")
	fs.StringArrayVar(&f.Secrets, "secret", nil, "where the key of --sign is: env:`NAME` or file:PATH; may be repeated")
	fs.BoolVar(&f.AllowLoop, "allow-loop", false, "allow --into a topic that is read")
	fs.BoolVar(&f.uncommitted, "uncommitted", false, "read events of open and aborted transactions too")
	fs.StringVar(&f.zone, "tz", "UTC", "read times in this `zone`: Europe/Rome, local")
	fs.SortFlags = false
}

func (a *app) replayCommand() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use: "replay TOPIC…", Short: "Run a stretch of the past again: into a topic, a URL, a command or stdout",
		Long: `Run a stretch of the past again: into a topic, a URL, a command or stdout.

The range is frozen when the replay begins, and nothing of any consumer group moves or is waited for. The replay's own
progress is the group _millrace.replay.NAME: after Ctrl-C or a crash, --resume NAME goes on where it was, with the same
range, filters and target. Several topics are merged by time.

  topic:NAME    key, value and headers as they were, and headers that say where it was read and by which replay
  http(s)://…   POST of the value; attributes are ce- headers; 2xx is delivered, 408, 425, 429 and 5xx are tried
                again, all else has failed. With --sign a webhook that came in is sent byte for byte as it came, with
                its own headers; any other event is signed as a webhook
  exec:COMMAND  run once for each event by sh, with the value as stdin and EVENT_ID, EVENT_KEY, … set; 0 is
                delivered, 65 has failed, all else is tried again
  stdout        as tail prints it, in the form of -o; without --id it keeps no progress

  --service 'COMMAND' runs a service of package service, its source unchanged: its handlers get the range, and what
                they publish, call and write is captured, redirected to replay.NAME.TOPIC, or refused. Its command
                takes the same as flags: see  COMMAND -h, and --capture FILE writes down what they would have done

An event that fails is tried five times, longer and longer apart; then the replay ends, and --resume begins with that
event. With --skip-failed it is counted and passed.

--from and --until take  start, end, now, -15m, 2026-11-22T09:00Z, "yesterday 09:00", offset:123, p0=123,p1=456.
` + expressionHelp(),
		Example: `  millrace replay shop.orders --into topic:shop.copy --from -1h --id after-the-fix
  millrace replay --resume after-the-fix
  millrace replay shop.orders --into topic:shop.copy --from -1h --speed 10x --dry-run
  millrace replay shop.orders shop.payments --into stdout --from -15m -o jsonl
  millrace replay shop.orders --into 'exec:cat >&2' --from start --key o-17 --rate 50/s
  millrace replay webhooks.acme --into http://localhost:8085/in/acme --from -1h --sign stripe --secret env:STRIPE_SECRET
  millrace find shop.orders --key o-17 --save o-17.jsonl
  millrace replay --set o-17.jsonl --into topic:shop.copy --dry-run`,
		ValidArgsFunction: a.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.service != "" {
				return a.replayService(cmd.Context(), cmd.Flags(), args, f)
			}
			if f.capture != "" || cmd.Flags().Changed("mode") {
				return usage(errors.New("--capture and --mode go with --service"))
			}
			return a.replay(cmd, args, f)
		},
	}
	f.register(cmd.Flags())
	cmd.AddCommand(a.replayListCommand())
	return cmd
}

// replaying is one run of the command.
type replaying struct {
	*app
	f       replayFlags
	spec    replaySpec
	cfg     replay.Config
	cluster kafka.Cluster
	target  replay.Target
	close   func(context.Context) error // the target's
	bar     *progress
	since   time.Time // the first that was shown of the progress,
	before  int64     // and how far it was then
}

func (a *app) replay(cmd *cobra.Command, topics []string, f replayFlags) error {
	ctx := cmd.Context()
	r := &replaying{app: a, f: f, bar: a.progress(), close: func(context.Context) error { return nil }}
	if err := r.check(cmd.Flags(), topics); err != nil {
		return usage(err)
	}
	if !f.dryRun {
		if err := r.mayDeliver(); err != nil {
			return err
		}
	}
	var err error
	if r.cluster, err = a.cluster(ctx); err != nil {
		return err
	}
	if err := r.describe(ctx, topics, cmd.Flags()); err != nil {
		return err
	}
	reg, named, err := a.registry()
	if err != nil {
		return err
	}
	if err := r.configure(reg); err != nil {
		return usage(err)
	}
	if f.dryRun {
		return r.dryRun(ctx)
	}
	if err := r.open(ctx, &decoder{reg: reg, optional: !named, say: a.say}); err != nil {
		return err
	}
	return r.run(ctx)
}

// check refuses what no cluster is needed to refuse.
func (r *replaying) check(given *pflag.FlagSet, topics []string) error {
	f := &r.f
	if f.resume != "" {
		for _, ok := range []string{"resume", "speed", "rate", "parallel", "skip-failed", "dry-run", "request-header"} {
			given.Lookup(ok).Annotations = map[string][]string{"resume": nil}
		}
		var other []string
		given.Visit(func(x *pflag.Flag) {
			if _, ok := x.Annotations["resume"]; !ok && r.persistent.Lookup(x.Name) == nil {
				other = append(other, "--"+x.Name)
			}
		})
		if len(topics) > 0 || len(other) > 0 {
			return hint(fmt.Errorf("--resume goes on with what was begun: leave out %s", strings.Join(append(topics, other...), ", ")),
				"what may change is --speed, --rate, --parallel and --skip-failed")
		}
		return nil
	}
	placed := f.from != "" || f.offset != "" || f.group != ""
	switch {
	case f.Set != "" && (len(topics)+len(f.patterns) > 0 || placed || f.until != "" || len(f.partitions) > 0):
		return errors.New("--set is the events themselves: leave out topics, positions and partitions")
	case f.Set == "" && len(topics)+len(f.patterns) == 0:
		return hint(errors.New("name a topic, or a set of events"), "millrace replay TOPIC… --from -1h --into …", "millrace replay --set FILE --into …", "millrace replay --resume NAME")
	case f.Set == "" && !placed:
		return hint(errors.New("say from where"), "the last hour:  --from -1h", "everything:  --from start", "where a group stands:  --from-group NAME")
	case f.group != "" && (f.from != "" || f.offset != ""):
		return errors.New("--from-group and --from say the same: use one way")
	case f.Into == "" && !f.dryRun:
		return hint(errors.New("say where to"), "--into topic:NAME", "--into https://…", "--into exec:COMMAND", "--into stdout")
	case hasPassword(f.Into):
		return hint(errors.New("the URL of --into has a password in it, which the progress would keep for all to see"),
			"give it by a header, which is kept nowhere and is given again with --resume:  --request-header 'Authorization=Basic …'")
	case (f.Sign != "" || len(f.Secrets) > 0) && !strings.HasPrefix(f.Into, "http"):
		return errors.New("--sign and --secret are for --into a URL")
	case f.Sign == "" && len(f.Secrets) > 0:
		return hint(errors.New("--secret signs nothing without --sign"), "--sign SCHEME; which there are:  millrace webhook --help")
	case f.Clock != "record" && f.Clock != "event":
		return fmt.Errorf("--clock %s: allowed are record, event", f.Clock)
	}
	return nil
}

// hasPassword reports whether a target is a URL with a user in it.
func hasPassword(into string) bool {
	u, err := url.Parse(into)
	return err == nil && strings.HasPrefix(u.Scheme, "http") && u.User != nil
}

// mayDeliver asks for the name of a production context where something is written, and refuses a read-only one.
func (r *replaying) mayDeliver() error {
	if r.f.Into == "stdout" && r.f.id == "" {
		r.f.noProgress = true
	}
	if err := r.resolve(); err != nil {
		return err
	}
	if r.f.noProgress && (r.f.Into == "stdout" || !strings.HasPrefix(r.f.Into, "topic:") || r.f.IntoContext != "") {
		return nil // nothing is written here
	}
	if r.readOnly {
		return hint(refused(fmt.Errorf("a replay keeps its progress in the cluster: %w", kafka.ErrReadOnly)),
			"read, and keep nothing:  --no-progress, with --into stdout, a URL, a command or another context",
			"see what makes it read-only:  millrace context show")
	}
	return r.mayWrite()
}

// describe completes the spec: what the flags say, or what a replay that goes on was begun with.
func (r *replaying) describe(ctx context.Context, topics []string, given *pflag.FlagSet) error {
	f := &r.f
	r.cfg = replay.Config{ID: f.id, Untracked: f.noProgress, Log: r.cluster.Log}
	if f.resume == "" {
		s := f.replaySpec
		s.Where, s.Keys, s.Headers = f.where, f.keys, f.headers
		if f.Set == "" {
			picked, err := r.pick(ctx, r.cluster, topics, f.patterns)
			if err != nil {
				return err
			}
			s.Topics = picked
		}
		if f.id != "" && !f.noProgress {
			if _, err := replay.Find(ctx, r.cluster, f.id); err == nil {
				return hint(refused(fmt.Errorf("there is a replay %s already", f.id)), "go on with it:  millrace replay --resume "+f.id, "or call this one by another name")
			} else if !errors.Is(err, replay.ErrNotFound) {
				return err
			}
		}
		r.spec = s
	} else {
		p, err := replay.Find(ctx, r.cluster, f.resume)
		if errors.Is(err, replay.ErrNotFound) {
			return hint(err, "see which there are:  millrace replay ls", "its offsets are kept as long as those of any group, by default seven days")
		}
		if err != nil {
			return err
		}
		var c copySpec
		if err := json.Unmarshal([]byte(p.Note), &c); err == nil && c.Copy != "" {
			return hint(refused(fmt.Errorf("%s is a copy", f.resume)), "go on with it:  millrace copy --resume "+f.resume)
		}
		if err := json.Unmarshal([]byte(p.Note), &r.spec); err != nil || r.spec.Into == "" {
			return refused(fmt.Errorf("replay %s was not begun by this command: go on with it where it was", f.resume))
		}
		r.cfg.ID, r.cfg.Note = f.resume, p.Note
	}
	for name, set := range map[string]func(){
		"speed": func() { r.spec.Speed = f.Speed }, "rate": func() { r.spec.Rate = f.Rate },
		"parallel": func() { r.spec.Parallel = f.Parallel }, "skip-failed": func() { r.spec.SkipFailed = f.SkipFailed },
	} {
		if given.Changed(name) {
			set()
		}
	}
	if r.cfg.Note == "" {
		note, err := marshal(r.spec)
		if err != nil {
			return err
		}
		r.cfg.Note = string(note)
	}
	return nil
}

// configure makes the replay's configuration of the spec.
func (r *replaying) configure(reg *schemas.Registry) error {
	s, cfg := &r.spec, &r.cfg
	var err error
	if cfg.Speed, err = parseSpeed(s.Speed); err != nil {
		return err
	}
	if cfg.Rate, err = parseRate(s.Rate); err != nil {
		return err
	}
	if s.Clock == "event" {
		cfg.Clock = replay.EventClock
	}
	cfg.Keys, cfg.SkipFailed, cfg.AllowLoop = s.Parallel, s.SkipFailed, s.AllowLoop || s.IntoContext != ""
	cfg.Group = r.f.group
	var span position.Range
	if s.Set == "" && r.f.resume == "" {
		zone, err := location(r.f.zone)
		if err != nil {
			return err
		}
		now := r.now().In(zone)
		r.f.bounded = true
		if span, err = r.f.span(now); err != nil {
			return err
		}
		r.sayRange(span, now)
	}
	cfg.Read = reader.Config{Topics: s.Topics, Range: span, Uncommitted: r.f.uncommitted, Merge: true}
	for _, p := range r.f.partitions {
		cfg.Read.Partitions = append(cfg.Read.Partitions, int32(p))
	}
	filters, err := newFilters(readFlags{where: append(typeFilter(s.Types), s.Where...), keys: s.Keys, headers: s.Headers}, reg)
	if err != nil {
		return err
	}
	if filters != nil {
		cfg.Read.Match = filters.match
	}
	if s.Set != "" {
		cfg.Set = r.set(s.Set)
	}
	return nil
}

// typeFilter is --type as an expression.
func typeFilter(types []string) []string {
	if len(types) == 0 {
		return nil
	}
	is := make([]string, len(types))
	for i, t := range types {
		is[i] = "type == " + strconv.QuoteToASCII(t)
	}
	return []string{strings.Join(is, " || ")}
}

func parseSpeed(text string) (float64, error) {
	if text == "max" || text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(text, "x"), 64)
	if err != nil || !(n > 0 && n <= 1e6) {
		return 0, fmt.Errorf("--speed %s: write 1x, 10x, 0.5x or max", text)
	}
	return n, nil
}

func parseRate(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(text, "/s"), 64)
	if err != nil || !(n > 0 && n <= 1e9) {
		return 0, fmt.Errorf("--rate %s: write a number of events a second, as in 100/s", text)
	}
	return n, nil
}

// set yields the events of a saved set.
func (r *replaying) set(name string) func(yield func(event.Event, error) bool) {
	return func(yield func(event.Event, error) bool) {
		in, _, err := r.input(name)
		if err != nil {
			yield(event.Event{}, err)
			return
		}
		defer func() { _ = in.Close() }()
		lines := newLines(in)
		for n := 1; lines.Scan(); n++ {
			e, err := savedEvent(lines.Bytes())
			if err != nil {
				err = fmt.Errorf("%s, line %d: %w", name, n, err)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(event.Event{}, fmt.Errorf("%s: %w", name, err))
		}
	}
}

// savedEvent is the event of an envelope, as it was read.
func savedEvent(line []byte) (event.Event, error) {
	var env envelope
	if err := json.Unmarshal(line, &env); err != nil || env.Millrace != 1 {
		return event.Event{}, hint(errors.New("the line is no event"), "a set is written by:  millrace find … --save FILE")
	}
	h := make(event.Headers, len(env.Headers))
	for i, x := range env.Headers {
		h[i] = event.Header{Key: string(x.Key), Value: x.Value.bytes()}
	}
	e := event.Event{Meta: event.Meta{
		ID: fmt.Sprintf("%s/%d@%d", env.Topic, env.Partition, env.Offset), Topic: env.Topic, Partition: env.Partition, Offset: env.Offset, Epoch: -1,
		Published: time.Time(env.Timestamp), Time: time.Time(env.Timestamp), Key: env.Key.bytes(),
	}, Value: env.Value.bytes()}
	event.ParseHeaders(&e.Meta, h)
	return e, nil
}
