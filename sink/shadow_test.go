package sink_test

import (
	"context"
	"errors"
	"testing"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sinktest"
)

// openShadow opens the shadow of a mux with a function and a fold, and says what it changed.
func (d *desk) openShadow() (*sink.Shadow, *[]sink.Change, *[]string) {
	d.t.Helper()
	sink.On(d.mux, func(ctx context.Context, tx *sinktest.Tx, es []event.Of[placed]) error {
		for _, e := range es {
			if err := tx.Put(ctx, "mine/"+e.ID, "written"); err != nil {
				return err
			}
			if e.Data.Cents < 0 {
				return consumer.DeadLetter(errors.New("negative"))
			}
		}
		return nil
	})
	sink.OnFold(d.mux, sink.Fold[placed]{Name: "sums", By: func(e event.Of[placed]) string { return e.Data.Country }}, func(sum int64, e event.Of[placed]) int64 { return sum + e.Data.Cents })
	var changes []sink.Change
	var buried []string
	s, err := sink.OpenShadow(d.t.Context(), d.reg, d.mux, d.cfg, sink.ShadowConfig{
		Suffix: "__r1", Change: func(_ context.Context, c sink.Change) { changes = append(changes, c) },
		Bury: func(_ context.Context, e *event.Event, _, class string, _ error) error {
			buried = append(buried, e.ID+" "+class)
			return nil
		},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return s, &changes, &buried
}

// give writes an event into the shadow as one that was read.
func (d *desk) give(s *sink.Shadow, offset, cents int64) bool {
	d.t.Helper()
	e := d.order(string(rune('a'+offset)), cents)
	value, err := d.reg.Encode(d.t.Context(), nil, &e)
	if err != nil {
		d.t.Fatal(err)
	}
	e.Data, e.Value, e.Offset, e.Attempt = nil, value, offset, 1
	wrote, err := s.Write(d.t.Context(), e, true)
	if err != nil {
		d.t.Fatal(err)
	}
	return wrote
}

func TestAShadowUndoesFunctionsAndKeepsStatesBeside(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s, changes, buried := d.openShadow()
	if !d.give(s, 5, 100) {
		t.Error("the first event was not written")
	}
	if d.give(s, 5, 100) {
		t.Error("an event was written twice")
	}
	d.give(s, 7, -1)
	d.give(s, 9, 11)
	if v := d.db.Values(); len(v) != 0 {
		t.Errorf("functions have left %v", v)
	}
	if live, beside := d.db.States("sums"), d.db.States("sums__r1"); len(live) != 0 || beside["DE"] != "111" {
		t.Errorf("the states are %v, beside %v", live, beside)
	}
	if len(*buried) != 1 || (*buried)[0] != "h rejected" {
		t.Errorf("buried %v", *buried)
	}
	if len(*changes) != 2 || string((*changes)[1].Value) != "111" || string((*changes)[1].Key) != `"DE"` || (*changes)[1].Table != "sums" || !(*changes)[1].Fold {
		t.Errorf("changes: %+v", *changes)
	}
	at, err := d.mux.Admin().Positions(t.Context(), "analytics")
	if err != nil || len(at) != 0 {
		t.Errorf("the sink itself has the positions %+v, %v", at, err)
	}
}

func TestAShadowThatKeepsFunctionsIsSeen(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s, _, _ := d.openShadow()
	sink.KeepFunctions[*sinktest.Tx](s)
	d.give(s, 0, 1)
	if v := d.db.Values(); len(v) == 0 {
		t.Error("the planted bug changes nothing: the test above cannot see it")
	}
}

type files struct{ sink.Target }

func TestFilesHaveNoShadow(t *testing.T) {
	t.Parallel()
	_, err := sink.OpenShadow(t.Context(), schemas.Memory(), files{}, sink.Config{Name: "s", Topics: []string{"t"}}, sink.ShadowConfig{Suffix: "__r"})
	if err == nil {
		t.Error("a target without transactions is opened")
	}
}
