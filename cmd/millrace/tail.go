package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/filter"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/schemas"
)

func (a *app) tailCommand() *cobra.Command {
	var f readFlags
	cmd := &cobra.Command{
		Use: "tail TOPIC…", Aliases: []string{"consume"}, Short: "Read events, decoded: a stretch of the past, or what happens now",
		Long: `Read events, decoded: a stretch of the past, or what happens now.

A read with an end always ends: at --until, at the end of an --offset range, or after -n events. Without an end it
goes on with what arrives, until Ctrl-C. Nothing of any consumer group moves. Several topics are merged by time.
-n without a start and without a filter is the last events.

--from and --until take  start, end, now, -15m, 2026-11-22T09:00Z, "yesterday 09:00", offset:123, p0=123,p1=456.
--offset takes what kcl and rpk take:  start, end, 100, 100:200, end-10, @-1h:now, @2026-11-22:1h.
Times without a zone are UTC, unless --tz says otherwise.
` + expressionHelp(),
		Example: `  millrace tail shop.orders                              what happens now
  millrace tail shop.orders -n 5                         the last five
  millrace tail shop.orders --from -15m --until now      the last quarter of an hour
  millrace tail shop.orders --key o-17 --from start -n 1 the first event of a key
  millrace tail shop.orders --from -1h --until now --where 'value.cents>9000'
  millrace tail shop.orders --from -1h --until now --count-by type
  millrace tail shop.orders --offset 0:100 -o jsonl      a stretch for jq, and for millrace produce
  millrace tail shop.orders shop.payments -n 10          two topics, merged by time`,
		ValidArgsFunction: a.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := a.read(cmd.Context(), args, f)
			return err
		},
	}
	f.register(cmd.Flags())
	return cmd
}

// reading is one run of tail or find.
type reading struct {
	*app
	f       readFlags
	cluster kafka.Cluster
	cfg     reader.Config
	filters *filters      // nil: all events
	around  *around       // nil: matches alone
	count   *counter      // nil: events are printed
	value   *filter.Value // what is counted by
	save    *saver
	out     *printer
	line    *scanLine

	matched int64
	// left is what the filters failed on, where they are asked here and not by the reader.
	left reader.Completeness
}

// read is tail and find, which differ in what their flags default to. It returns how many events matched.
func (a *app) read(ctx context.Context, topics []string, f readFlags) (matched int64, err error) {
	r := &reading{app: a, f: f}
	now, err := r.prepare(topics)
	if err != nil {
		return 0, usage(err)
	}
	reg, named, err := a.registry()
	if err != nil {
		return 0, err
	}
	if err := r.compile(reg); err != nil {
		return 0, usage(err)
	}
	if r.cluster, err = a.cluster(ctx); err != nil {
		return 0, err
	}
	if r.cfg.Topics, err = a.pick(ctx, r.cluster, topics, f.patterns); err != nil {
		return 0, err
	}
	r.cfg.Log = r.cluster.Log
	if f.save != "" {
		if r.save, err = newSaver(a.path(f.save)); err != nil {
			return 0, usage(err)
		}
	}
	r.out = &printer{
		app: a, w: bufio.NewWriterSize(a.out, 64<<10), zone: now.Location(), save: r.save, marks: r.around != nil,
		decoder: decoder{reg: reg, optional: !named, say: a.say},
	}
	if f.countBy != "" {
		r.count = a.newCounter(r.cfg.Follow)
	}
	if r.last() {
		err = r.readLast(ctx)
	} else {
		a.sayRange(r.cfg.Range, now)
		err = r.readRange(ctx)
	}
	return r.matched, r.end(ctx, err)
}

// last says that the last events are meant, wherever they are.
func (r *reading) last() bool {
	return !r.f.bounded && r.f.most > 0 && r.f.from == "" && r.f.until == "" && r.f.offset == ""
}

// prepare reads the flags, without a cluster.
func (r *reading) prepare(topics []string) (now time.Time, err error) {
	f := &r.f
	forms := []string{"table", "json", "jsonl", "raw"}
	if f.countBy != "" {
		forms = forms[:3]
	}
	if err := r.formats(forms...); err != nil {
		return now, err
	}
	if err := f.check(topics); err != nil {
		return now, err
	}
	zone, err := location(f.zone)
	if err != nil {
		return now, err
	}
	now = r.now().In(zone)
	span, err := f.span(now)
	switch {
	case err != nil:
		return now, err
	case r.last() && f.filtered():
		return now, errors.New("-n with a filter needs a start: add --from start, or --from -1h")
	case !f.bounded && f.from == "" && f.until == "" && f.offset == "":
		span.From = position.Point{Kind: position.End}
	}
	r.cfg = f.config(span)
	if f.before+f.after > 0 {
		r.around = newAround(f.before, f.after, f.contextBy == byKey)
	}
	return now, nil
}

// compile makes filters of the flags. The reader asks them, but where events beside matches are shown too.
func (r *reading) compile(reg *schemas.Registry) error {
	var err error
	if r.filters, err = newFilters(r.f, reg); err != nil {
		return err
	}
	if r.f.countBy != "" {
		if r.value, err = filter.NewValue(r.f.countBy, reg); err != nil {
			return fmt.Errorf("--count-by: %w", err)
		}
	}
	if r.around == nil && r.filters != nil {
		r.cfg.Match = r.filters.match
	}
	return nil
}

// readRange prints a range, or the first matches of it.
func (r *reading) readRange(ctx context.Context) error {
	r.line = r.scanLine()
	if r.count == nil || r.count.live == nil {
		r.cfg.Progress = r.line.update
	}
	in, err := reader.Open(ctx, r.cluster, r.cfg)
	if err != nil {
		return err
	}
	r.sayNotes(in)
	if r.cfg.Follow {
		r.say("following %s: Ctrl-C ends it", strings.Join(r.cfg.Topics, ", "))
	} else if r.f.most == 0 {
		r.sayEstimate(in, r.cfg.Range)
	}
	enough := false
	for e, err := range in.Events(ctx) {
		if err == nil {
			enough, err = r.take(ctx, &e)
		}
		if err != nil {
			r.clear()
			r.sayComplete(in.Complete(), false)
			return err
		}
		if enough {
			break
		}
	}
	r.clear()
	if err := r.out.flush(); err != nil {
		return err
	}
	r.sayComplete(in.Complete(), enough)
	if ctx.Err() != nil {
		return fmt.Errorf("read: %w", ctx.Err())
	}
	return nil
}

// clear takes away what is drawn over and over.
func (r *reading) clear() {
	r.line.clear()
	if r.count != nil {
		r.count.settle()
	}
}

// take shows an event, if it is to be shown, and reports whether enough were.
func (r *reading) take(ctx context.Context, e *event.Event) (enough bool, err error) {
	if r.around == nil {
		if err := r.show(ctx, e, false); err != nil {
			return false, err
		}
		r.matched++
		return r.matched == int64(r.f.most), nil
	}
	full := r.f.most > 0 && r.matched >= int64(r.f.most) // only what follows the last match is still to come
	hit := false
	if !full {
		if hit, err = r.filters.match(e); err != nil {
			if hopeless(err) {
				return false, fmt.Errorf("read %s@%d: %w", place(e.Topic, e.Partition), e.Offset, err)
			}
			r.failed(e, err)
			hit = false
		}
	}
	earlier, begins, follows := r.around.add(e, hit)
	if begins {
		if err := r.out.apart(); err != nil {
			return false, err
		}
	}
	for i := range earlier {
		if err := r.show(ctx, &earlier[i], true); err != nil {
			return false, err
		}
	}
	if hit || follows {
		if err := r.show(ctx, e, !hit); err != nil {
			return false, err
		}
	}
	if hit {
		r.matched++
	}
	return r.f.most > 0 && r.matched >= int64(r.f.most) && r.around.pending == 0, nil
}

// failed counts a record to which the filters have no answer, as the reader does where it asks them.
func (r *reading) failed(e *event.Event, err error) {
	n, first := &r.left.Failed, &r.left.FirstFailed
	if errors.Is(err, schemas.ErrPoison) || errors.Is(err, schemas.ErrIncompatible) || errors.Is(err, schemas.ErrNotFound) {
		n, first = &r.left.Undecodable, &r.left.FirstUndecodable
	}
	if *n++; *n == 1 {
		*first = reader.Failure{Topic: e.Topic, Partition: e.Partition, Offset: e.Offset, Err: err}
	}
}

// show counts or prints an event. Whoever looks at a terminal, or follows through a pipe, sees each at once.
func (r *reading) show(ctx context.Context, e *event.Event, around bool) error {
	if r.count != nil {
		value, err := r.value.Eval(readable(e))
		switch {
		case err != nil && hopeless(err):
			return fmt.Errorf("count %s@%d: %w", place(e.Topic, e.Partition), e.Offset, err)
		case err != nil:
			r.count.miss(fmt.Sprintf("%s@%d", place(e.Topic, e.Partition), e.Offset), err)
		default:
			r.count.add(value)
		}
		if r.save == nil {
			return nil
		}
		return r.out.saveOnly(ctx, e)
	}
	screen := isTerminal(r.app.out)
	if screen && r.line != nil {
		r.line.clear()
	}
	if err := r.out.print(ctx, e, around); err != nil {
		return err
	}
	if r.cfg.Follow || screen {
		return r.out.flush()
	}
	return nil
}

// readLast prints the last events of all partitions together. Markers and gaps occupy offsets, so where as many
// offsets hold fewer events it looks further back.
func (r *reading) readLast(ctx context.Context) error {
	most := r.f.most
	for back := int64(most); ; back *= 8 {
		r.cfg.Follow = false
		r.cfg.Range = position.Range{From: position.Point{Kind: position.End, N: back}, Until: position.Point{Kind: position.End}}
		in, err := reader.Open(ctx, r.cluster, r.cfg)
		if err != nil {
			return err
		}
		var ring []event.Event
		for e, err := range in.Events(ctx) {
			if err != nil {
				return err
			}
			if ring = append(ring, e); len(ring) >= 2*most {
				ring = append(ring[:0], ring[len(ring)-most:]...)
			}
		}
		whole := !slices.ContainsFunc(in.Spans(), func(s reader.Span) bool { return s.Until-s.From >= back })
		if len(ring) < most && !whole && back < 1<<40 {
			continue
		}
		for _, e := range ring[max(0, len(ring)-most):] {
			if err := r.show(ctx, &e, false); err != nil {
				return err
			}
			r.matched++
		}
		if err := r.out.flush(); err != nil {
			return err
		}
		r.sayComplete(in.Complete(), false)
		return nil
	}
}

// end closes what the form opened, and puts the saved set in its place: whole, or as whole as a reading can be that has
// no other end than Ctrl-C.
func (r *reading) end(ctx context.Context, err error) error {
	whole := err == nil || r.cfg.Follow && ctx.Err() != nil && errors.Is(err, ctx.Err())
	var printing error
	if r.count != nil {
		printing = r.count.print()
	} else {
		printing = r.out.end()
	}
	if r.around != nil && r.around.cut {
		r.say("more than %s were held for a match to come: of some, less than --before is shown", plural(heldMost, "event"))
	}
	switch {
	case r.save == nil:
	case whole && printing == nil:
		if err := r.save.commit(); err != nil {
			return err
		}
		r.say("saved %s to %s: publish them again with  millrace produce TOPIC --from %s", plural(r.save.n, "event"), r.f.save, r.f.save)
	default:
		r.save.discard()
		r.say("nothing was saved to %s", r.f.save)
	}
	return errors.Join(err, printing)
}

func (a *app) sayNotes(r *reader.Reading) {
	for _, s := range r.Spans() {
		if s.Note != "" {
			a.say("%s: %s", place(s.Topic, s.Partition), s.Note)
		}
	}
}

// sayComplete ends every read: how much was looked at, and what not.
func (r *reading) sayComplete(c reader.Completeness, enough bool) {
	c.Done = c.Done || enough
	c.Matched = r.matched
	if r.around != nil {
		c.Undecodable, c.FirstUndecodable, c.Failed, c.FirstFailed = r.left.Undecodable, r.left.FirstUndecodable, r.left.Failed, r.left.FirstFailed
	}
	r.say("%s", c)
	for _, first := range []error{c.FirstUndecodable.Err, c.FirstFailed.Err} {
		if first != nil {
			r.say("  %s", printable(first.Error()))
		}
	}
	if r.out.undecodable > 0 {
		r.say("%s did not decode, the first at %s", plural(r.out.undecodable, "event"), r.out.first)
	}
	if c.Early > 0 {
		r.say(lateNote)
	}
}

// lateNote is said of a reading that stopped before the end of a log, because its range ends at a time.
const lateNote = "the end is a time: events that were published more than a minute late are not looked at (--until end does)"

// hopeless reports an error that is not about one event: nothing more can be read.
func hopeless(err error) bool {
	return errors.Is(err, schemas.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// place is a partition as people write it.
func place(topic string, partition int32) string { return fmt.Sprintf("%s/%d", topic, partition) }
