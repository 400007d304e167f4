package sink_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sinktest"
)

// desk is one member of one partition, whose steps a test looks at.
type desk struct {
	t       *testing.T
	db      *sinktest.Memory
	mux     *sink.Mux[*sinktest.Tx]
	dec     consumer.Decoder
	reg     *schemas.Registry
	cfg     sink.Config
	steps   []string // calls of the database, and dead letters
	fail    func(at sinktest.Step) error
	bury    error
	letters []deadletter.Failure
	attempt int
	id      cursor.ID

	member  *sink.Member
	claimed cursor.Claimed
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, db: sinktest.NewMemory(), reg: schemas.Memory(), attempt: 1, id: idOf(0)}
	d.mux, d.dec = sink.NewMux[*sinktest.Tx](d.db), d.reg
	d.cfg = sink.Config{Name: "analytics", Topics: []string{topic}}
	d.db.Hook = func(_ context.Context, at sinktest.Step, _ *sinktest.Tx) error {
		d.steps = append(d.steps, string(at))
		if d.fail != nil {
			return d.fail(at)
		}
		return nil
	}
	e := d.order("o", 1) // the registry knows the type
	if _, err := d.reg.Encode(t.Context(), nil, &e); err != nil {
		t.Fatal(err)
	}
	return d
}

// once fails the first time at a step.
func once(at sinktest.Step, err error) func(sinktest.Step) error {
	done := false
	return func(s sinktest.Step) error {
		if done || s != at {
			return nil
		}
		done = true
		return err
	}
}

func (d *desk) order(id string, cents int64) event.Event {
	return event.Event{
		Meta: event.Meta{ID: id, Topic: topic, Key: []byte(id), Source: "test", Time: epoch},
		Data: placed{Order: id, Country: "DE", Cents: cents},
	}
}

// count registers a function that counts the effects of each event, and says what f does.
func (d *desk) count(f func(e event.Of[placed]) error) {
	sink.On(d.mux, func(ctx context.Context, tx *sinktest.Tx, es []event.Of[placed]) error {
		for _, e := range es {
			if f != nil {
				if err := f(e); err != nil {
					return err
				}
			}
			n, err := tx.Get(ctx, e.ID)
			if err != nil {
				return err
			}
			if err := tx.Put(ctx, e.ID, n+"1"); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *desk) open() {
	d.t.Helper()
	var err error
	d.member, err = sink.NewMember(d.t.Context(), logsOf{}, logsOf{}, d.dec, d.mux, d.cfg, func(ctx context.Context, e event.Event, f deadletter.Failure) error {
		if by, ok := ctx.Deadline(); !ok || time.Until(by) >= 15*time.Second {
			d.t.Error("a dead letter may take 15 s: pgsink's database ends a transaction that is idle for so long")
		}
		d.steps = append(d.steps, "bury "+e.ID)
		if d.bury != nil {
			return d.bury
		}
		d.letters = append(d.letters, f)
		return nil
	}, "")
	if err != nil {
		d.t.Fatal(err)
	}
	claimed, err := d.member.Claim(d.t.Context(), []cursor.ID{d.id}, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.claimed, d.steps = claimed[d.id], nil
}

// handle writes events from where the member stands, and returns the verdict of the batch.
func (d *desk) handle(es ...event.Event) verdict.Verdict {
	d.t.Helper()
	if d.member == nil {
		d.open()
	}
	b := engine.Batch{ID: d.id, Lease: d.claimed.Lease}
	next := d.claimed.Position
	for i := range es {
		value := es[i].Value
		if es[i].Data != nil {
			var err error
			if value, err = d.reg.Encode(d.t.Context(), nil, &es[i]); err != nil {
				d.t.Fatal(err)
			}
		}
		r := wire.Record(&es[i], value)
		r.Topic, r.Offset, r.Timestamp = topic, next, es[i].Time.Add(time.Second)
		next++
		b.Items = append(b.Items, engine.Item{Record: r, Attempt: d.attempt})
	}
	b.Next = next
	verdicts := d.member.Handle(d.t.Context(), b)
	if verdicts == nil {
		d.claimed.Position = next
		return verdict.Verdict{}
	}
	return verdicts[0]
}

// effects are the events that had one, each as often as it had.
func (d *desk) effects() string {
	var out []string
	for id, n := range d.db.Values() {
		out = append(out, id+"="+n)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (d *desk) is(what string, got, want any) {
	d.t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		d.t.Errorf("%s: %s, want %s", what, g, w)
	}
}

// inBubble runs a test where waits take no time.
func inBubble(t *testing.T, f func(d *desk)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(newDesk(t)) })
}

func TestOrderWithinATransaction(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.cfg.Dedupe = time.Hour
		d.mux.Table(sink.Table{Name: "b", Event: "shop.OrderPlaced", Key: []string{"order"}})
		d.mux.Table(sink.Table{Name: "a", Event: "shop.OrderPlaced", Append: true})
		d.count(nil)
		for _, name := range []string{"z", "y"} {
			sink.OnFold(d.mux, sink.Fold[placed]{Name: name, By: func(e event.Of[placed]) string { return e.ID }}, add)
		}
		d.is("verdict", d.handle(d.order("o2", 1), d.order("o1", 1), d.order("o1", 1)).Kind, verdict.Done)
		d.is("steps", d.steps, "[begin advance seen get put get put load store load store write write commit committed]")
		d.is("effects", d.effects(), "o1=1 o2=1")
		d.is("rows", len(d.db.Rows("a")), 2)
		d.is("position", d.claimed.Position, 3)
	})
}

// A registry that does not answer is nobody's fault: no transaction is open meanwhile, and no attempt counts.
func TestARegistryOutageOpensNoTransaction(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.count(nil)
		d.dec = down{d.reg}
		v := d.handle(d.order("o1", 1))
		d.is("verdict", v.Kind, verdict.Pause)
		d.is("steps", d.steps, "[]")
	})
}

type down struct{ consumer.Decoder }

func (down) Decode(context.Context, *event.Event, any) error { return schemas.ErrUnavailable }

func TestADatabaseThatIsAwayIsWaitedFor(t *testing.T) {
	for _, at := range []sinktest.Step{sinktest.Begin, sinktest.Advance, sinktest.Seen, sinktest.Load, sinktest.Store, sinktest.Write, sinktest.Commit, "get", "put"} {
		t.Run(string(at), func(t *testing.T) {
			inBubble(t, func(d *desk) {
				d.cfg.Dedupe = time.Hour
				d.count(nil)
				sink.OnFold(d.mux, sink.Fold[placed]{Name: "f", By: func(e event.Of[placed]) string { return e.ID }}, add)
				d.mux.Table(sink.Table{Name: "t", Event: "shop.OrderPlaced", Key: []string{"order"}})
				d.fail = once(at, sinktest.ErrAway)
				d.attempt = 99 // the last one, whatever it counts
				var waits []time.Duration
				for range 3 {
					v := d.handle(d.order("o1", 1), d.order("o2", 2))
					if v.Kind == verdict.Done {
						break
					}
					d.is("verdict", v.Kind, verdict.Pause)
					waits = append(waits, v.After)
				}
				d.is("waits", len(waits), 1)
				d.is("letters", len(d.letters), 0)
				d.is("effects", d.effects(), "o1=1 o2=1")
				d.is("states", len(d.db.States("f")), 2)
			})
		})
	}
}

func TestADeadlockIsTriedAgainAtOnce(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.count(nil)
		d.fail = once(sinktest.Commit, sinktest.ErrDeadlock)
		d.is("verdict", d.handle(d.order("o1", 1)).Kind, verdict.Done)
		d.is("effects", d.effects(), "o1=1")
		d.fail = func(at sinktest.Step) error {
			if at == sinktest.Advance {
				return sinktest.ErrDeadlock
			}
			return nil
		}
		d.steps = nil
		d.is("verdict", d.handle(d.order("o2", 1)).Kind, verdict.Pause)
		d.is("tries", strings.Count(strings.Join(d.steps, " "), "begin"), 10)
	})
}

func TestACommitWithoutAnAnswerIsSettled(t *testing.T) {
	for name, tt := range map[string]struct {
		at     sinktest.Step
		begins int
	}{"took effect": {sinktest.Committed, 1}, "did not": {sinktest.Commit, 2}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(d *desk) {
				d.count(nil)
				d.fail = once(tt.at, sink.ErrUnknownCommit)
				d.is("verdict", d.handle(d.order("o1", 1)).Kind, verdict.Done)
				d.is("effects", d.effects(), "o1=1")
				d.is("transactions", strings.Count(strings.Join(d.steps, " "), "begin"), tt.begins)
				d.is("verdict", d.handle(d.order("o2", 1)).Kind, verdict.Done)
			})
		})
	}
}

// Nobody knows what became of the commit, and the database stays away: the next transaction's compare-and-set tells.
func TestACommitThatCannotBeSettledIsFencedByItself(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.count(nil)
		down := false
		d.fail = func(at sinktest.Step) error {
			if at == sinktest.Committed {
				down = true
			}
			if down {
				return sinktest.ErrAway
			}
			return nil
		}
		d.is("verdict", d.handle(d.order("o1", 1)).Kind, verdict.Pause)
		d.fail = nil
		v := d.handle(d.order("o1", 1))
		d.is("verdict", v.Kind, verdict.Pause)
		if !errors.Is(v.Err, cursor.ErrFenced) {
			d.t.Errorf("verdict: %v, want one that has the partition claimed again", v.Err)
		}
		d.is("effects", d.effects(), "o1=1")
	})
}

func TestAZombieChangesNothing(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.count(func(e event.Of[placed]) error { return consumer.DeadLetter(errors.New("refused")) })
		d.open()
		if _, err := d.db.Claim(d.t.Context(), "another", []cursor.ID{idOf(0)}, nil); err != nil {
			d.t.Fatal(err)
		}
		d.steps = nil
		v := d.handle(d.order("o1", 1))
		if v.Kind != verdict.Pause || !errors.Is(v.Err, cursor.ErrFenced) {
			d.t.Errorf("verdict %v: %v, want fenced", v.Kind, v.Err)
		}
		d.is("steps", d.steps, "[begin advance]") // its function is not called, and nothing is buried
	})
}

func TestTheGuiltyEventIsBuriedAndTheRestWritten(t *testing.T) {
	refused := errors.New("no such country")
	for name, tt := range map[string]struct {
		err     error
		attempt int
		class   deadletter.Class
	}{
		"a value does not fit":  {nil, 1, deadletter.Refused},
		"an error, at last":     {refused, 5, deadletter.Handler},
		"dead letter, at first": {consumer.DeadLetter(refused), 1, deadletter.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(d *desk) {
				d.attempt = tt.attempt
				sink.On(d.mux, func(ctx context.Context, tx *sinktest.Tx, es []event.Of[placed]) error {
					for _, e := range es {
						if err := tx.Put(ctx, e.ID, "1"); err != nil {
							return err
						}
						switch {
						case e.Data.Cents > 0:
						case tt.err == nil:
							return fmt.Errorf("insert: %w", tx.Refuse(sinktest.ErrData))
						default:
							return tt.err
						}
					}
					return nil
				})
				var es []event.Event
				for i := range 16 {
					es = append(es, d.order(fmt.Sprintf("o%02d", i), int64(i%11))) // 0 and 11
				}
				d.is("verdict", d.handle(es...).Kind, verdict.Done)
				d.is("letters", len(d.letters), 2)
				d.is("class", d.letters[0].Class, tt.class)
				d.is("handler", d.letters[0].Handler, "shop.OrderPlaced")
				d.is("effects", d.effects(), "o01=1 o02=1 o03=1 o04=1 o05=1 o06=1 o07=1 o08=1 o09=1 o10=1 o12=1 o13=1 o14=1 o15=1")
				if tail := d.steps[len(d.steps)-4:]; fmt.Sprint(tail) != "[bury o00 bury o11 commit committed]" {
					d.t.Errorf("the last steps are %v, want the dead letters before the commit", tail)
				}
			})
		})
	}
}

func TestNothingIsCommittedWithoutItsDeadLetter(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.count(func(e event.Of[placed]) error {
			if e.Data.Cents < 0 {
				return consumer.DeadLetter(errors.New("refused"))
			}
			return nil
		})
		d.bury = errors.New("no broker")
		d.is("verdict", d.handle(d.order("o1", 1), d.order("o2", -1)).Kind, verdict.Pause)
		d.is("effects", d.effects(), "")
		d.bury = nil
		d.is("verdict", d.handle(d.order("o1", 1), d.order("o2", -1)).Kind, verdict.Done)
		d.is("effects", d.effects(), "o1=1")
	})
}

func TestVerdictsOfFunctions(t *testing.T) {
	plain := errors.New("not now")
	for name, tt := range map[string]struct {
		err     error
		attempt int
		kind    verdict.Kind
		after   time.Duration
		effects string
		letters int
	}{
		"plain":                {plain, 1, verdict.Retry, 0, "", 0},
		"retry after":          {consumer.RetryAfter(time.Minute, plain), 1, verdict.Retry, time.Minute, "", 0},
		"stop":                 {consumer.Stop(plain), 1, verdict.Stop, 0, "", 0},
		"drop":                 {consumer.Drop(plain), 1, verdict.Done, 0, "o1=1 o3=1", 0},
		"unavailable":          {schemas.ErrUnavailable, 5, verdict.Pause, 0, "", 0},
		"each, dead letter":    {consumer.Each([]error{nil, consumer.DeadLetter(plain), nil}), 1, verdict.Done, 0, "o1=1 o3=1", 1},
		"each, plain":          {consumer.Each([]error{nil, plain, nil}), 1, verdict.Retry, 0, "", 0},
		"each, plain, at last": {consumer.Each([]error{nil, plain, nil}), 5, verdict.Done, 0, "o1=1 o3=1", 1},
		"each of too many":     {consumer.Each([]error{nil, nil, nil, plain}), 1, verdict.Stop, 0, "", 0},
		"a panic, at last":     {nil, 5, verdict.Done, 0, "o1=1 o3=1", 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(d *desk) {
				d.attempt = tt.attempt
				sink.On(d.mux, func(ctx context.Context, tx *sinktest.Tx, es []event.Of[placed]) error {
					for _, e := range es {
						if e.Data.Cents < 0 && tt.err == nil {
							panic("boom")
						}
						if e.Data.Cents < 0 {
							return tt.err
						}
						if err := tx.Put(ctx, e.ID, "1"); err != nil {
							return err
						}
					}
					return nil
				})
				v := d.handle(d.order("o1", 1), d.order("o2", -1), d.order("o3", 1))
				d.is("verdict", v.Kind, tt.kind)
				if tt.after > 0 {
					d.is("wait", v.After, tt.after)
				}
				d.is("effects", d.effects(), tt.effects)
				d.is("letters", len(d.letters), tt.letters)
				if tt.err == nil && (d.letters[0].Class != deadletter.Panic || len(d.letters[0].Stack) == 0) {
					d.t.Errorf("the letter of a panic: %+v, want its stack", d.letters[0])
				}
			})
		})
	}
}

func TestWhatStopsTheSink(t *testing.T) {
	for name, set := range map[string]func(d *desk){
		"a missing table":        func(d *desk) { d.fail = once(sinktest.Advance, sinktest.ErrWrong) },
		"an incompatible schema": func(d *desk) { d.dec = older{d.reg} },
		"a burst of letters": func(d *desk) {
			d.cfg.Burst.Run = 1
			d.count(func(event.Of[placed]) error { return consumer.DeadLetter(errors.New("refused")) })
		},
		"retries that stop": func(d *desk) {
			d.cfg.Retry = consumer.Retry{Attempts: 1, Stop: true}
			d.count(func(event.Of[placed]) error { return errors.New("refused") })
		},
		"a late event": func(d *desk) {
			sink.OnFold(d.mux, sink.Fold[placed]{Name: "f", By: func(event.Of[placed]) string { return "" }, Window: time.Second, Late: consumer.Stopped}, add)
		},
		"a state of another program": func(d *desk) {
			sink.OnFold(d.mux, sink.Fold[placed]{Name: "g", By: func(event.Of[placed]) string { return "" }}, func(string, event.Of[placed]) string { return "" })
			d.handle(d.order("o0", 1))
			d.mux, d.member = sink.NewMux[*sinktest.Tx](d.db), nil
			sink.OnFold(d.mux, sink.Fold[placed]{Name: "g", By: func(event.Of[placed]) string { return "" }}, add)
			d.attempt = 9
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(d *desk) {
				set(d)
				if name != "a state of another program" {
					d.count(nil)
				}
				old := d.order("o2", 1)
				old.Time = epoch.Add(-time.Hour)
				v := d.handle(d.order("o1", 1), old, d.order("o3", 1))
				if v.Kind != verdict.Stop || v.Err == nil {
					d.t.Errorf("verdict %v: %v, want stop", v.Kind, v.Err)
				}
				d.is("effects", d.effects(), "")
			})
		})
	}
}

type older struct{ consumer.Decoder }

func (older) Decode(context.Context, *event.Event, any) error { return schemas.ErrIncompatible }

func TestLateEventsAreBuriedAndCountElsewhere(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.count(nil)
		sink.OnFold(d.mux, sink.Fold[placed]{
			Name: "f", By: func(event.Of[placed]) string { return "k" }, Window: time.Minute, Lateness: time.Minute, Late: consumer.DeadLettered,
		}, add)
		late, just, next := d.order("late", 1), d.order("just", 1), d.order("next", 1)
		next.Time = epoch.Add(2 * time.Minute)
		just.Time, late.Time = epoch.Add(time.Minute), epoch
		future := d.order("future", 1)
		d.is("verdict", d.handle(next, just, late, future).Kind, verdict.Done)
		d.is("letters", len(d.letters), 2) // future has the time of the batch's first minute, too
		d.is("effects", d.effects(), "future=1 just=1 late=1 next=1")
		d.is("windows", len(d.db.States("f")), 2)
		rows, _ := d.db.Positions(d.t.Context(), "analytics")
		d.is("watermark", rows[0].Watermark.Equal(next.Time), true)
	})
}

// A clock that is a year ahead must not make all others late.
func TestAWatermarkIsNeverAheadOfTheLog(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.count(nil)
		e := d.order("o1", 1)
		if v := d.handle(e); v.Kind != verdict.Done {
			d.t.Fatal(v.Err)
		}
		rows, _ := d.db.Positions(d.t.Context(), "analytics")
		d.is("watermark", rows[0].Watermark.UTC(), epoch)
	})
}

func TestTombstones(t *testing.T) {
	gone := event.Event{Meta: event.Meta{ID: "gone", Topic: topic, Key: []byte("o1"), Time: epoch}}
	for name, tt := range map[string]struct {
		table sink.Table
		more  []string
		kind  verdict.Kind
		rows  int
	}{
		"delete":                       {sink.Table{Key: []string{"order"}}, nil, verdict.Done, 1},
		"pass":                         {sink.Table{Key: []string{"order"}, KeepDeleted: true}, nil, verdict.Done, 2},
		"of another topic":             {sink.Table{Key: []string{"order"}, Topics: []string{"other"}}, []string{"other"}, verdict.Done, 0},
		"of who knows which topic":     {sink.Table{Key: []string{"order"}}, []string{"other"}, verdict.Stop, 0},
		"for a key of several columns": {sink.Table{Key: []string{"order", "country"}}, nil, verdict.Stop, 0},
		"mean nothing to appended":     {sink.Table{Append: true}, nil, verdict.Done, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(d *desk) {
				d.cfg.Topics = append(d.cfg.Topics, tt.more...)
				tt.table.Name, tt.table.Event = "orders", "shop.OrderPlaced"
				d.mux.Table(tt.table)
				v := d.handle(d.order("o1", 1), d.order("o2", 1), gone)
				d.is("verdict", v.Kind, tt.kind)
				d.is("rows", len(d.db.Rows("orders")), tt.rows)
			})
		})
	}
}

func TestRebuildAndSwap(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.mux.Table(sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"order"}})
		d.is("live", d.handle(d.order("o1", 1), d.order("o2", 1)).Kind, verdict.Done)
		live, lease := d.member, d.claimed
		d.cfg.Rebuild, d.member, d.id.Reader = true, nil, "analytics"+sink.RebuildSuffix
		d.open()
		d.is("position of the rebuild", d.claimed.Position, 0)
		d.is("rows beside", len(d.db.Rows("orders__v2")), 0)
		if err := d.mux.Admin().Swap(d.t.Context(), d.mux.Swap("analytics")); err != nil {
			d.t.Fatal(err)
		}
		d.is("rows after", len(d.db.Rows("orders")), 0)
		d.is("old rows", len(d.db.Rows("orders__old")), 2)
		d.member, d.claimed, d.id = live, lease, idOf(0)
		if v := d.handle(d.order("o3", 1)); !errors.Is(v.Err, cursor.ErrFenced) {
			d.t.Errorf("the live owner after the swap: %v, want fenced", v.Err)
		}
	})
}

func TestARebuildRefusesFunctions(t *testing.T) {
	inBubble(t, func(d *desk) {
		d.count(nil)
		_, err := d.mux.Open(d.t.Context(), d.reg, sink.Setup{Sink: "s", Suffix: "__v2", Observer: sink.Silent{}})
		if err == nil || !strings.Contains(err.Error(), "function") {
			d.t.Errorf("open: %v, want a refusal", err)
		}
	})
}

// watcher keeps what the last transaction did.
type watcher struct {
	sink.Silent
	did              sink.Written
	settled, fenced  int
	transactions, ok int
}

func (w *watcher) Written(_ cursor.ID, did sink.Written, _ time.Duration, err error) {
	w.did = did
	w.transactions++
	if err == nil {
		w.ok++
	}
}
func (w *watcher) Settled(cursor.ID, bool) { w.settled++ }
func (w *watcher) Fenced(cursor.ID)        { w.fenced++ }

func TestObserver(t *testing.T) {
	inBubble(t, func(d *desk) {
		w := &watcher{}
		d.cfg.Observer, d.cfg.Dedupe = w, time.Hour
		d.count(func(e event.Of[placed]) error {
			if e.Data.Cents < 0 {
				return consumer.DeadLetter(errors.New("refused"))
			}
			return nil
		})
		sink.OnFold(d.mux, sink.Fold[placed]{Name: "f", By: func(e event.Of[placed]) string { return e.ID }, Window: time.Minute}, add)
		d.mux.Table(sink.Table{Name: "t", Event: "shop.OrderPlaced", Key: []string{"order"}})
		other := event.Event{Meta: event.Meta{ID: "x", Topic: topic, Type: "shop.Other", ContentType: "application/json", Time: epoch}, Value: []byte("{}")}
		old := d.order("o3", 1)
		old.Time = epoch.Add(-time.Hour)
		d.fail = once(sinktest.Committed, errors.New("cut"))
		v := d.handle(d.order("o1", 1), d.order("o1", 1), d.order("o2", -1), old, other)
		d.is("verdict", v.Kind, verdict.Done)
		d.is("did", fmt.Sprintf("%+v", w.did), "{Events:5 Rows:2 States:1 Repeats:1 Late:1 Buried:1 Passed:1}")
		d.is("settled", w.settled, 1)
		d.is("transactions", w.transactions, 2)
		if _, err := d.db.Claim(d.t.Context(), "another", []cursor.ID{d.id}, nil); err != nil {
			d.t.Fatal(err)
		}
		d.handle(d.order("o4", 1))
		d.is("fenced", w.fenced, 1)
	})
}
