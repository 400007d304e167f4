package sink

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
)

// Fold is keyed state: a value per key that each event moves on. Its table has the columns key, window_start and state,
// and may be read by anyone. A window's state is updated in place for as long as its events count; none is emitted.
type Fold[T any] struct {
	// Name is the table of the states. Required.
	Name string
	// By is the key of an event. It is free to differ from the record's key: members that meet at a key wait for each other.
	// Required.
	By func(e event.Of[T]) string
	// Window cuts event time into pieces of this length, each with a state of its own: hours begin at full hours in UTC, a
	// week on Monday. Defaults to 0: one state for all time.
	Window time.Duration
	// Lateness is how long after its end a window still takes events, by the newest event time of the partition so far:
	// an event is late when its window's end + Lateness is not after that. An event time after its record's timestamp
	// counts as that, so that one wrong clock does not make everyone late. Without windows nothing is late. Defaults to 0.
	Lateness time.Duration
	// Late is what becomes of late events, in this fold alone: Dropped (counted), DeadLettered (copied, and it still
	// counts elsewhere) or Stopped. Defaults to Dropped.
	Late consumer.Kind
}

func (f Fold[T]) mustBeWhole() {
	switch {
	case f.Name == "" || f.By == nil:
		panic("sink: a fold needs a Name and a key: By")
	case reserved(f.Name):
		panic("sink: fold " + f.Name + ": names that end in " + RebuildSuffix + " or " + oldSuffix + " are those of rebuilds")
	case f.Window < 0 || f.Lateness < 0:
		panic("sink: fold " + f.Name + " has a negative Window or Lateness")
	case f.Late != consumer.Done && f.Late != consumer.Dropped && f.Late != consumer.DeadLettered && f.Late != consumer.Stopped:
		panic("sink: fold " + f.Name + ": Late is Dropped, DeadLettered or Stopped, not " + f.Late.String())
	}
}

// folding is one registration of [OnFold].
type folding[Tx any] struct {
	name  string
	late  consumer.Kind
	sheet int
	start func() folder // with memory of its own
}

// folder works on the events of a span: keys, then states from the database, then states to it.
type folder interface {
	// keys returns the keys of the span's events, unique and ascending, and the late ones among the events.
	keys(s sheet, sp span, watermarks []time.Time) (keys []FoldKey, late []int, err error)
	// run folds the events that keys has looked at. The answer is as long as keys.
	run(states [][]byte) ([][]byte, error)
	reset()
}

// fold is the folder of one fold. All of its memory is used again.
type fold[S, T any] struct {
	Fold[T]
	step func(S, event.Of[T]) S

	of     []event.Of[T]
	slots  []int           // by event: its key's index in all, -1 when it is late
	index  map[FoldKey]int // in all
	all    []FoldKey       // as they came
	order  []int           // all's indices, by key
	sorted []FoldKey
	late   []int
	states []S // by index in all
	out    [][]byte
}

func (f *fold[S, T]) reset() {
	f.of = nil
	clear(f.states)
	clear(f.out)
	clear(f.all)
	clear(f.sorted)
}

func (f *fold[S, T]) keys(s sheet, sp span, watermarks []time.Time) (keys []FoldKey, late []int, err error) {
	es, at := s.(*typed[T]).pick(sp) //nolint:forcetypeassert // made by sheetOf
	if f.index == nil {
		f.index = make(map[FoldKey]int)
	}
	clear(f.index)
	f.of, f.slots, f.all, f.late = es, f.slots[:0], f.all[:0], f.late[:0]
	err = guard(func() error {
		for i := range es {
			window := f.window(&es[i].Meta)
			if f.Window > 0 && !watermarks[at[i]].Before(window.Add(f.Window+f.Lateness)) {
				f.late, f.slots = append(f.late, at[i]), append(f.slots, -1)
				continue
			}
			k := FoldKey{Key: f.By(es[i]), Window: window}
			slot, ok := f.index[k]
			if !ok {
				slot = len(f.all)
				f.index[k] = slot
				f.all = append(f.all, k)
			}
			f.slots = append(f.slots, slot)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	f.order, f.sorted = f.order[:0], f.sorted[:0]
	for i := range f.all {
		f.order = append(f.order, i)
	}
	slices.SortFunc(f.order, func(a, b int) int {
		return cmp.Or(cmp.Compare(f.all[a].Key, f.all[b].Key), f.all[a].Window.Compare(f.all[b].Window))
	})
	for _, i := range f.order {
		f.sorted = append(f.sorted, f.all[i])
	}
	return f.sorted, f.late, nil
}

// window is the beginning of the window that an event is in.
func (f *fold[S, T]) window(m *event.Meta) time.Time {
	if f.Window == 0 {
		return time.Time{}
	}
	return eventTime(m).Truncate(f.Window).UTC()
}

// eventTime is when the event happened: the record's timestamp where nobody says.
func eventTime(m *event.Meta) time.Time {
	if m.Time.IsZero() {
		return m.Published
	}
	return m.Time
}

func (f *fold[S, T]) run(states [][]byte) ([][]byte, error) {
	if len(states) != len(f.order) {
		return nil, consumer.Stop(fmt.Errorf("load the states of fold %s: got %d of %d", f.Name, len(states), len(f.order)))
	}
	f.states = slices.Grow(f.states[:0], len(states))[:len(states)]
	clear(f.states)
	for i, state := range states {
		if state == nil {
			continue
		}
		if err := json.Unmarshal(state, &f.states[f.order[i]]); err != nil {
			return nil, consumer.Stop(fmt.Errorf("read the state of %q in fold %s: it is not of this program: rebuild the fold: %w", f.sorted[i].Key, f.Name, err))
		}
	}
	err := guard(func() error {
		for i, slot := range f.slots {
			if slot >= 0 {
				f.states[slot] = f.step(f.states[slot], f.of[i])
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.out = f.out[:0]
	for i, slot := range f.order {
		text, err := json.Marshal(&f.states[slot])
		if err != nil {
			return nil, fmt.Errorf("write the state of %q in fold %s: %w", f.sorted[i].Key, f.Name, err)
		}
		f.out = append(f.out, text)
	}
	return f.out, nil
}
