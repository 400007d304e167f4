package service

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// role is a consumer or a sink of a service that is replayed.
type role struct {
	name        string // the group, or the name of the sink
	topics      []string
	uncommitted bool
	parallel    int
	timeout     time.Duration
	retry       consumer.Retry
	stop        bool // Retry.Stop
	strict      bool
	incompat    consumer.Kind
	observer    consumer.Observer

	mux *consumer.Mux // of a consumer
	// rebuild and target are of a sink.
	target sink.Target
	sink   sink.Config

	counts verdicts
}

// verdicts count what became of events, in this run.
type verdicts struct {
	done, dropped, unhandled, deadLettered, refused atomic.Int64
}

func (s *Service) consumeAgain(mux *consumer.Mux, cfg consumer.Config) {
	r := s.replaying
	r.roles = append(r.roles, &role{
		name: cfg.Group, topics: cfg.Topics, uncommitted: cfg.Uncommitted, parallel: r.parallel, timeout: cfg.Timeout,
		retry: consumer.Retry{Attempts: cfg.Retry.Attempts, Backoff: cfg.Retry.Backoff, Max: cfg.Retry.Max}, stop: cfg.Retry.Stop,
		strict: cfg.Strict, incompat: cfg.Incompatible, observer: cfg.Observer, mux: mux,
	})
}

func (s *Service) sinkAgain(target sink.Target, cfg sink.Config) {
	r := s.replaying
	r.sinks = true
	r.roles = append(r.roles, &role{
		name: cfg.Name, topics: cfg.Topics, parallel: 1, observer: cfg.Observer, target: target, sink: cfg, stop: cfg.Retry.Stop,
		retry: consumer.Retry{Attempts: cfg.Retry.Attempts, Backoff: cfg.Retry.Backoff, Max: cfg.Retry.Max},
	})
}

// runReplay wires the service behind guards, replays, and stops it.
func (s *Service) runReplay(ctx context.Context, wire func(ctx context.Context, s *Service) error) error {
	end, err := s.startReplay(ctx)
	if err != nil {
		return err
	}
	if err = wire(ctx, s); err == nil {
		s.stats.set("replaying")
		err = s.replay(ctx)
	}
	s.stats.set("stopping")
	return errors.Join(err, s.close(context.WithoutCancel(ctx)), end())
}

// replay does what --replay asks for, once the service is wired.
func (s *Service) replay(ctx context.Context) error {
	r := s.replaying
	r.log.Warn("this is a replay: nothing live is consumed, and the process ends with the range", zap.String("mode", r.Mode), zap.String("variable", Env("replay")))
	if r.Mode == modeShadow && r.From == "" {
		if err := s.adopt(ctx); err != nil {
			return err
		}
	}
	for _, topic := range r.only() {
		if !slices.ContainsFunc(r.roles, func(x *role) bool { return slices.Contains(x.topics, topic) }) {
			return fault("replay-topics", fmt.Errorf("no consumer or sink of the service reads topic %s", topic))
		}
	}
	r.roles = slices.DeleteFunc(r.roles, func(x *role) bool { return len(r.takes(x.topics)) == 0 })
	if len(r.roles) == 0 {
		return fmt.Errorf("replay %s: the service consumes nothing of what is to be replayed", r.ID)
	}
	switch r.Mode {
	case modeRewind:
		return s.rewind(ctx)
	case modeRebuild:
		return s.rebuild(ctx)
	}
	if err := r.refuseUnguarded(); err != nil {
		return fmt.Errorf("replay %s: %w", r.ID, err)
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	errs := make([]error, len(r.roles))
	for i := range r.roles {
		wg.Go(func() {
			if errs[i] = s.shadow(ctx, r.roles[i]); errs[i] != nil {
				end()
			}
		})
	}
	wg.Wait()
	s.sayTotals()
	slices.SortStableFunc(errs, func(a, b error) int { // what the first one's end led to comes behind it
		return cmp.Compare(fmt.Sprint(errors.Is(a, context.Canceled)), fmt.Sprint(errors.Is(b, context.Canceled)))
	})
	return errors.Join(errs...)
}

// note is kept with a replay's progress: a run that says something else is refused.
type note struct {
	Service string `json:"service"`
	Role    string `json:"role"`
	From    string `json:"from"`
	Until   string `json:"until,omitempty"`
	Topics  string `json:"topics,omitempty"`
	Clock   string `json:"clock"`
}

// adopt makes a replay that goes on by its name alone what it was begun as.
func (s *Service) adopt(ctx context.Context) error {
	r := s.replaying
	for _, x := range r.roles {
		p, err := replay.Find(ctx, s.live(), r.ID+"."+x.name)
		if errors.Is(err, replay.ErrNotFound) {
			continue // not of its topics, or with no event in the range, or not begun yet
		}
		if err != nil {
			return err
		}
		var n note
		if err := json.Unmarshal([]byte(p.Note), &n); err != nil || n.From == "" {
			return fmt.Errorf("replay %s was not begun by a service: go on with it where it was", p.ID)
		}
		r.From, r.Until, r.Topics = n.From, cmp.Or(r.Until, n.Until), cmp.Or(r.Topics, n.Topics)
		if n.Clock == "event" {
			r.Clock, r.clock = n.Clock, replay.EventClock
		}
		return r.place(p.Begun)
	}
	return fmt.Errorf("replay %s: %w yet: say from where: --replay-from -1h (%s)", r.ID, replay.ErrNotFound, Env("replay-from"))
}

// shadow runs one role over its range.
func (s *Service) shadow(ctx context.Context, x *role) error {
	r := s.replaying
	id := r.ID + "." + x.name
	text, err := json.Marshal(note{s.Name, x.name, r.From, r.Until, r.Topics, r.Clock})
	if err != nil {
		return fmt.Errorf("replay %s: %w", id, err)
	}
	deliver, err := s.deliverer(ctx, x)
	if err != nil {
		return fmt.Errorf("replay %s: %w", id, err)
	}
	r.log.Info("replaying in shadow", zap.String("as", x.name), zap.Strings("topics", r.takes(x.topics)))
	told := time.Now()
	sum, err := replay.Run(ctx, s.live(), deliver, replay.Config{
		ID: id, Note: string(text), Read: reader.Config{Topics: r.takes(x.topics), Range: r.span, Uncommitted: x.uncommitted, Merge: true},
		Clock: r.clock, Speed: r.speed, Keys: x.parallel, Timeout: x.timeout, Retry: x.retry, Log: r.log,
		Report: func(sum replay.Summary) {
			if passed, total := sum.Progress(); time.Since(told) >= 10*time.Second && !sum.Done && total > 0 {
				told = time.Now()
				r.log.Info("still replaying", zap.String("as", x.name), zap.Int64("offsets", passed), zap.Int64("of", total))
			}
		},
	})
	passed, total := sum.Progress()
	r.log.Info("replayed in shadow", zap.String("as", x.name), zap.Bool("done", sum.Done), zap.Int64("offsets", passed), zap.Int64("of", total),
		zap.Int64("handled", x.counts.done.Load()), zap.Int64("dropped", x.counts.dropped.Load()), zap.Int64("unhandled", x.counts.unhandled.Load()),
		zap.Int64("dead_lettered", x.counts.deadLettered.Load()), zap.Int64("refused", x.counts.refused.Load()),
		zap.Int64("retries", sum.Retries), zap.Int64("repeats", sum.Repeats), zap.Int64("gone", sum.Gone), zap.Duration("took", sum.Took))
	if err != nil {
		return fmt.Errorf("as %s: %w: go on with the same --replay %s", x.name, err, r.ID)
	}
	return nil
}

// sayTotals says what was caught.
func (s *Service) sayTotals() {
	totals := s.replaying.guard.Totals()
	all := make([]replay.Total, 0, len(totals))
	for t := range totals {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b replay.Total) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Target, b.Target), cmp.Compare(fmt.Sprint(a.Refused), fmt.Sprint(b.Refused)))
	})
	const most = 50
	for _, t := range all[:min(most, len(all))] {
		s.replaying.log.Info("captured", zap.String("kind", t.Kind), zap.String("target", t.Target), zap.Bool("refused", t.Refused), zap.Int64("effects", totals[t]))
	}
	if len(all) > most {
		s.replaying.log.Info("captured more", zap.Int("targets", len(all)-most))
	}
}

// attempt makes one attempt at an event in the guard's context.
type attempt func(ctx context.Context, e *event.Event, last bool) error

// deliverer is the role as a target of a replay.
func (s *Service) deliverer(ctx context.Context, x *role) (replay.Func, error) {
	try := func(ctx context.Context, e *event.Event, _ bool) error { return x.mux.Handle(ctx, s.Schemas, *e) }
	if x.target != nil {
		var err error
		if try, err = s.shadowSink(ctx, x); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, e event.Event) error { return s.deliver(ctx, x, try, &e) }, nil
}

// deliver gives an event to a role, and settles what its verdict means in a shadow.
func (s *Service) deliver(ctx context.Context, x *role, try attempt, e *event.Event) error {
	r := s.replaying
	now := e.Published
	if r.clock == replay.EventClock {
		now = e.Time
	}
	_, again := x.retry.Next(e.Attempt)
	began := time.Now()
	ctx, a := r.guard.Begin(ctx, x.name, e, now)
	err := try(ctx, e, !again)
	v := consumer.VerdictOf(err)
	x.observer.Attempted(cursor.ID{Reader: x.name, Topic: e.Topic, Partition: e.Partition}, "replay "+r.ID, v.Kind, 1, time.Since(began))
	switch {
	case err == nil:
		x.counts.done.Add(1)
		return ended(a, nil)
	case errors.Is(err, replay.ErrRefused):
		x.counts.refused.Add(1) // it cannot end otherwise, however often it is tried
		return ended(a, nil)
	case v.Kind == consumer.Dropped && errors.Is(err, consumer.ErrUnhandled) && x.strict:
		return consumer.Stop(err)
	case v.Kind == consumer.Dropped:
		n := &x.counts.dropped
		if errors.Is(err, consumer.ErrUnhandled) {
			n = &x.counts.unhandled
		}
		n.Add(1)
		return ended(a, err)
	case errors.Is(ctx.Err(), context.Canceled):
		return err // the run ends, and the next one begins with the event
	case v.Kind == consumer.Retried && !again && x.stop:
		return consumer.Stop(err)
	case v.Kind == consumer.DeadLettered, v.Kind == consumer.Retried && !again,
		x.incompat == consumer.DeadLettered && errors.Is(err, schemas.ErrIncompatible):
		x.counts.deadLettered.Add(1)
		r.guard.Note(ctx, letter(e.Topic, x.name, x.name, classOf(err), err))
		return ended(a, nil)
	}
	return err // tried again, waited for, or the end
}

// ended ends an attempt that was the last. What cannot be captured must not be passed.
func ended(a *replay.Attempt, err error) error {
	if lost := a.End(); lost != nil {
		return consumer.Stop(lost)
	}
	return err
}

// letter is a dead letter that is captured, and written nowhere.
func letter(topic, group, handler, class string, why error) replay.Effect {
	body, _ := json.Marshal(map[string]string{"class": class, "handler": handler, "error": why.Error()}) //nolint:errchkjson // strings alone
	return replay.Effect{Kind: replay.KindDLQ, Target: deadletter.Topic(topic, group), Body: body}
}

func classOf(err error) string {
	_, panicked := errors.AsType[*consumer.PanicError](err)
	switch {
	case panicked:
		return string(deadletter.Panic)
	case errors.Is(err, schemas.ErrIncompatible):
		return string(deadletter.Incompatible)
	case errors.Is(err, schemas.ErrPoison):
		return string(deadletter.Poison)
	case errors.Is(err, context.DeadlineExceeded):
		return string(deadletter.Timeout)
	case consumer.VerdictOf(err).Kind == consumer.DeadLettered:
		return string(deadletter.Rejected)
	}
	return string(deadletter.Handler)
}

// shadowSink opens the shadow of a sink.
func (s *Service) shadowSink(ctx context.Context, x *role) (attempt, error) {
	guard := s.replaying.guard
	shadow, err := sink.OpenShadow(ctx, s.Schemas, x.target, x.sink, sink.ShadowConfig{
		Suffix: tableSuffix(s.replaying.ID),
		Change: func(ctx context.Context, c sink.Change) {
			e := replay.Effect{Kind: replay.KindRow, Target: c.Table, Key: c.Key, Body: c.Value}
			if c.Fold {
				e.Kind = replay.KindFold
			}
			guard.Note(ctx, e)
		},
		Bury: func(ctx context.Context, e *event.Event, handler, class string, why error) error {
			x.counts.deadLettered.Add(1)
			guard.Note(ctx, letter(e.Topic, x.name, handler, class, why))
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, e *event.Event, last bool) error {
		_, err := shadow.Write(ctx, *e, last)
		return err
	}, nil
}

// tableSuffix is a replay's id as tables bear it. Ids that look alike then are told apart by a hash.
func tableSuffix(id string) string {
	plain := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToLower(id))
	if plain != id {
		sum := sha256.Sum256([]byte(id))
		plain += "_" + hex.EncodeToString(sum[:3])
	}
	return "__" + plain
}
