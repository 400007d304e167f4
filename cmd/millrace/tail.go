package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

type tailFlags struct {
	from, until, offset string
	most                int
	keys, headers       []string
	partitions          []int
	uncommitted         bool
	zone                string
}

func (a *app) tailCommand() *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use: "tail TOPIC…", Aliases: []string{"consume"}, Short: "Read events, decoded: a stretch of the past, or what happens now",
		Long: `Read events, decoded: a stretch of the past, or what happens now.

A read with an end always ends: at --until, at the end of an --offset range, or after -n events. Without an end it
goes on with what arrives, until Ctrl-C. Nothing of any consumer group moves. Several topics are merged by time.

--from and --until take  start, end, now, -15m, 2026-11-22T09:00Z, "yesterday 09:00", offset:123, p0=123,p1=456.
--offset takes what kcl and rpk take:  start, end, 100, 100:200, end-10, @-1h:now, @2026-11-22:1h.
Times without a zone are UTC, unless --tz says otherwise.`,
		Example: `  millrace tail shop.orders                              what happens now
  millrace tail shop.orders -n 5                         the last five
  millrace tail shop.orders --from -15m --until now      the last quarter of an hour
  millrace tail shop.orders --key o-17 --from start -n 1 the first event of a key
  millrace tail shop.orders --offset 0:100 -o jsonl      a stretch for jq, and for millrace produce
  millrace tail shop.orders shop.payments -n 10          two topics, merged by time`,
		Args:              names("a topic", 1, 0),
		ValidArgsFunction: a.completeTopics,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.tail(cmd.Context(), args, f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.from, "from", "", "the first `position` to read")
	fs.StringVar(&f.until, "until", "", "the first `position` not to read")
	fs.StringVar(&f.offset, "offset", "", "a `range` of offsets or times, instead of --from and --until")
	fs.IntVarP(&f.most, "number", "n", 0, "end after this many `events`; without a start, the last ones")
	fs.StringArrayVar(&f.keys, "key", nil, "only events with this `key`; repeated: with any of them")
	fs.StringArrayVar(&f.headers, "header", nil, "only events with this header, `name=value` or name~regexp; repeated: with all of them")
	fs.IntSliceVar(&f.partitions, "partition", nil, "only these `partitions`")
	fs.BoolVar(&f.uncommitted, "uncommitted", false, "read events of open and aborted transactions too")
	fs.StringVar(&f.zone, "tz", "UTC", "read and print times in this `zone`: Europe/Rome, local")
	return cmd
}

func (a *app) tail(ctx context.Context, topics []string, f tailFlags) error {
	if err := a.formats("table", "json", "jsonl", "raw"); err != nil {
		return err
	}
	zone, err := location(f.zone)
	if err != nil {
		return usage(err)
	}
	cfg, last, err := a.readerConfig(topics, f, zone)
	if err != nil {
		return usage(err)
	}
	reg, named, err := a.registry()
	if err != nil {
		return err
	}
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(a.out, 64<<10)
	p := &printer{app: a, w: w, zone: zone, decoder: decoder{reg: reg, optional: !named, say: a.say}}
	if last {
		err = a.tailLast(ctx, c, cfg, f.most, p)
	} else {
		err = a.tailRange(ctx, c, cfg, f.most, p)
	}
	return errors.Join(err, p.end())
}

func location(name string) (*time.Location, error) {
	if strings.EqualFold(name, "local") {
		return time.Local, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("--tz %s: there is no such zone: write UTC, local, or a name like Europe/Rome", name)
	}
	return zone, nil
}

// readerConfig is what the flags ask for. last says that the last events are meant, wherever they are.
func (a *app) readerConfig(topics []string, f tailFlags, zone *time.Location) (cfg reader.Config, last bool, err error) {
	cfg = reader.Config{Topics: topics, Uncommitted: f.uncommitted, Merge: true}
	for _, p := range f.partitions {
		if p < 0 {
			return cfg, false, fmt.Errorf("--partition %d: partitions count from 0", p)
		}
		cfg.Partitions = append(cfg.Partitions, int32(p))
	}
	if f.most < 0 {
		return cfg, false, fmt.Errorf("-n %d: a number of events is positive", f.most)
	}
	if cfg.Match, err = matcher(f); err != nil {
		return cfg, false, err
	}
	now := a.now().In(zone) // read once: every "now" and "-15m" of the command is counted from it
	switch {
	case f.offset != "" && (f.from != "" || f.until != ""):
		return cfg, false, errors.New("--offset and --from, --until say the same: use one way")
	case f.offset != "":
		if cfg.Range, err = position.ParseRange(f.offset, now); err != nil {
			return cfg, false, err
		}
	case f.from != "" || f.until != "":
		if f.from != "" {
			if cfg.Range.From, err = position.Parse(f.from, now); err != nil {
				return cfg, false, fmt.Errorf("--from: %w", err)
			}
		}
		if f.until != "" {
			if cfg.Range.Until, err = position.Parse(f.until, now); err != nil {
				return cfg, false, fmt.Errorf("--until: %w", err)
			}
			if !cfg.Range.Bounded() {
				return cfg, false, fmt.Errorf("--until start: %w", position.ErrEmpty)
			}
		}
		if err := cfg.Range.Validate(); err != nil {
			return cfg, false, err
		}
	case f.most > 0 && cfg.Match != nil:
		return cfg, false, errors.New("-n with a filter needs a start: add --from start, or --from -1h")
	case f.most > 0:
		return cfg, true, nil
	default:
		cfg.Range.From = position.Point{Kind: position.End}
	}
	cfg.Follow = !cfg.Range.Bounded()
	a.sayRange(cfg.Range, now)
	return cfg, false, nil
}

// sayRange prints what times were resolved to: a zone that was not meant is the commonest mistake.
func (a *app) sayRange(r position.Range, now time.Time) {
	for _, p := range []struct {
		word string
		position.Point
	}{{"from", r.From}, {"until", r.Until}} {
		if p.Kind != position.Time {
			continue
		}
		here := p.At.Local()
		if zone := now.Location(); zone != time.UTC {
			here = p.At.In(zone)
		}
		if _, offset := here.Zone(); offset == 0 {
			a.say("%s %s", p.word, p.At.Format("2006-01-02 15:04:05Z"))
		} else {
			a.say("%s %s (%s)", p.word, p.At.Format("2006-01-02 15:04:05Z"), here.Format("15:04:05 -0700"))
		}
	}
}

// tailRange prints a range, or the first events of it.
func (a *app) tailRange(ctx context.Context, c kafka.Cluster, cfg reader.Config, most int, p *printer) error {
	line := a.progress()
	cfg.Progress = func(scanned, total int64) {
		if total > 0 && scanned < total && !isTerminal(a.out) {
			line.show("%s of %s offsets (%d %%)", number(scanned), number(total), 100*scanned/total)
		}
	}
	cfg.Log = c.Log
	r, err := reader.Open(ctx, c, cfg)
	if err != nil {
		return err
	}
	a.sayNotes(r)
	if cfg.Follow {
		a.say("following %s: Ctrl-C ends it", strings.Join(cfg.Topics, ", "))
	}
	n := 0
	for e, err := range r.Events(ctx) {
		if err != nil {
			line.clear()
			a.say("%s", r.Complete())
			return err
		}
		if err := p.print(ctx, &e); err != nil {
			return err
		}
		if cfg.Follow { // a person, or a pipe, waits for each
			if err := p.w.Flush(); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		if n++; n == most {
			break
		}
	}
	line.clear()
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	a.sayComplete(r.Complete(), p, n == most && most > 0)
	if ctx.Err() != nil {
		return fmt.Errorf("read: %w", ctx.Err())
	}
	return nil
}

// tailLast prints the last events of all partitions together. Markers and gaps occupy offsets, so where as many
// offsets hold fewer events it looks further back.
func (a *app) tailLast(ctx context.Context, c kafka.Cluster, cfg reader.Config, most int, p *printer) error {
	for back := int64(most); ; back *= 8 {
		cfg.Range = position.Range{From: position.Point{Kind: position.End, N: back}, Until: position.Point{Kind: position.End}}
		r, err := reader.Open(ctx, c, cfg)
		if err != nil {
			return err
		}
		var ring []event.Event
		for e, err := range r.Events(ctx) {
			if err != nil {
				return err
			}
			if ring = append(ring, e); len(ring) >= 2*most {
				ring = append(ring[:0], ring[len(ring)-most:]...)
			}
		}
		whole := !slices.ContainsFunc(r.Spans(), func(s reader.Span) bool { return s.Until-s.From >= back })
		if len(ring) < most && !whole && back < 1<<40 {
			continue
		}
		for _, e := range ring[max(0, len(ring)-most):] {
			if err := p.print(ctx, &e); err != nil {
				return err
			}
		}
		if err := p.w.Flush(); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		done := r.Complete()
		done.Matched = int64(min(len(ring), most))
		a.sayComplete(done, p, false)
		return nil
	}
}

func (a *app) sayNotes(r *reader.Reading) {
	for _, s := range r.Spans() {
		if s.Note != "" {
			a.say("%s/%d: %s", s.Topic, s.Partition, s.Note)
		}
	}
}

// sayComplete ends every read: how much was looked at, and what not.
func (a *app) sayComplete(c reader.Completeness, p *printer, enough bool) {
	if enough {
		c.Done = true
	}
	a.say("%s", c)
	if p.undecodable > 0 {
		a.say("%s did not decode, the first at %s", plural(p.undecodable, "event"), p.first)
	}
	if c.Early > 0 {
		a.say("the end is a time: events that were published more than a minute late are not looked at (--until end does)")
	}
}

// matcher is the filter of the flags, nil if there is none. Filters never need the value.
func matcher(f tailFlags) (func(*event.Event) (bool, error), error) {
	type headerTest struct {
		name string
		ok   func([]byte) bool
	}
	var tests []headerTest
	for _, h := range f.headers {
		i := strings.IndexAny(h, "=~")
		if i <= 0 {
			return nil, fmt.Errorf("--header %q: write name=value, or name~regexp", h)
		}
		name, value := h[:i], h[i+1:]
		if h[i] == '=' {
			tests = append(tests, headerTest{name, func(b []byte) bool { return string(b) == value }})
			continue
		}
		re, err := regexp.Compile(value)
		if err != nil {
			return nil, fmt.Errorf("--header %q: %w", h, err)
		}
		tests = append(tests, headerTest{name, re.Match})
	}
	if len(f.keys)+len(tests) == 0 {
		return nil, nil
	}
	return func(e *event.Event) (bool, error) {
		if len(f.keys) > 0 && (e.Key == nil || !slices.Contains(f.keys, string(e.Key))) {
			return false, nil
		}
		for _, t := range tests { // any header of the name will do: names repeat
			if !slices.ContainsFunc(e.Headers, func(h event.Header) bool { return h.Key == t.name && t.ok(h.Value) }) {
				return false, nil
			}
		}
		return true, nil
	}, nil
}

// printer writes events in the chosen form.
type printer struct {
	*app
	decoder
	w           *bufio.Writer
	zone        *time.Location
	begun       bool
	undecodable int64
	first       string
}

func (p *printer) print(ctx context.Context, e *event.Event) error {
	if p.output == "raw" {
		return p.line(e.Value)
	}
	d, err := p.decode(ctx, e)
	if err != nil {
		return err
	}
	if d.err != nil {
		if p.undecodable++; p.undecodable == 1 {
			p.first = fmt.Sprintf("%s/%d@%d: %s", e.Topic, e.Partition, e.Offset, d.err)
		}
	}
	if p.output == "table" {
		return p.line([]byte(line(e, d, e.Published.In(p.zone))))
	}
	text, err := marshal(envelopeOf(e, d))
	if err != nil {
		return fmt.Errorf("print %s/%d@%d: %w", e.Topic, e.Partition, e.Offset, err)
	}
	if p.output == "json" {
		text = append(bytes.Clone([]byte(map[bool]string{false: "[\n  ", true: ",\n  "}[p.begun])), text...)
		p.begun = true
		_, err = p.w.Write(text)
		return err
	}
	return p.line(text)
}

func (p *printer) line(b []byte) error {
	_, _ = p.w.Write(b) // a bufio.Writer keeps its error for the next call
	if err := p.w.WriteByte('\n'); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// end closes what the form opened.
func (p *printer) end() error {
	if p.output == "json" {
		_, _ = io.WriteString(p.w, map[bool]string{false: "[]\n", true: "\n]\n"}[p.begun])
	}
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
