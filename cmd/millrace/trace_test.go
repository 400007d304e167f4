package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
)

// story is an order, what followed from it in three topics, and groups that stand in every way there is.
type story struct {
	*world
	order, payment, shipment, receipt event.Event
}

// letterbox is a publisher that keeps what it is given.
type letterbox []event.Event

func (l *letterbox) Publish(_ context.Context, events ...event.Event) error {
	*l = append(*l, events...)
	return nil
}

func newStory(t *testing.T) *story {
	t.Helper()
	s := &story{world: newWorld(t)}
	for _, topic := range []string{"orders", "payments", "shipments", "orders.audit.dlq", "_internal"} {
		s.topic(t, topic)
	}
	made := func(e event.Event, id, typ string) event.Event {
		e.ID, e.Type, e.Source, e.Value = id, typ, "shop", []byte("x")
		return e
	}
	s.order = made(event.New("orders", "o-17", nil), "e1", "shop.OrderPlaced")
	s.payment = made(event.After(s.order.Meta, "payments", "o-17", nil), "e2", "shop.PaymentTaken")
	s.receipt = made(event.After(s.payment.Meta, "payments", "o-17", nil), "e4", "shop.ReceiptSent")
	s.shipment = made(event.After(s.order.Meta, "shipments", []byte(nil), nil), "e3", "")
	s.at(t, made(event.New("orders", "o-16", nil), "e0", "shop.OrderPlaced"), -time.Second)
	s.at(t, s.order, 0)
	s.at(t, s.payment, 12*time.Millisecond)
	s.at(t, s.shipment, 40*time.Millisecond)
	s.at(t, s.receipt, 3*time.Minute)
	s.at(t, s.order, time.Hour) // put back
	read := s.order
	read.Offset, read.Published, read.Headers = 1, epoch, event.AppendHeaders(nil, s.order.Meta)
	var box letterbox
	if err := deadletter.New(&box, "audit", deadletter.Config{}).Write(t.Context(), read, deadletter.Failure{
		Class: deadletter.Handler, Err: errors.New("no such\naccount"), Attempts: 3, First: epoch, Last: epoch,
	}); err != nil {
		t.Fatal(err)
	}
	s.at(t, box[0], time.Second)

	deferred, _, err := cursor.Encode(cursor.Cursor{Position: 2, Floor: 1, Open: []cursor.Open{{Offset: 1, Attempt: 2, First: epoch, Due: epoch.Add(time.Minute)}}}, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	ahead, _, err := cursor.Encode(cursor.Cursor{Position: 0, Floor: 0, Done: []cursor.Run{{From: 1, To: 2}}}, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	for group, commit := range map[string]kadm.Offset{
		"audit": {At: 2}, "billing": {At: 2}, "fraud": {At: 0}, "mail": {At: 2, Metadata: deferred}, "search": {At: 0, Metadata: ahead},
	} {
		commit.Topic, commit.LeaderEpoch = "orders", -1
		o := kadm.Offsets{}
		o.Add(commit)
		if err := s.admin.CommitAllOffsets(t.Context(), group, o); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// at puts e on the log with a timestamp.
func (s *story) at(t *testing.T, e event.Event, after time.Duration) {
	t.Helper()
	r := wire.Record(&e, e.Value)
	if e.Verbatim {
		r.Headers = wire.RecordHeaders(e.Headers)
	}
	r.Timestamp = epoch.Add(after)
	s.put(t, r)
}

const told = `2026-11-24 09:00:00.000  shop.OrderPlaced  o-17  orders/0@1
                           id e1
                           audit: dead letter orders.audit.dlq/0@0 (handler: no such␊account)
                           billing: done
                           fraud: not yet, 1 before it
                           mail: deferred after 2 attempts, due now
                           search: done
                 +1h0m    again: orders/0@2
                           audit: next
                           billing: next
                           fraud: not yet, 2 before it
                           mail: next
                           search: not yet, 2 before it
                  +12ms    shop.PaymentTaken  o-17  payments/0@0
                             id e2
                   +3m0s      shop.ReceiptSent  o-17  payments/0@1
                               id e4
                  +40ms    (no type)  -  shipments/0@0
                             id e3
`

func TestTraceTellsTheStory(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	r := s.want(t, codeDone, "trace", "e1", "--from", "start")
	if got, want := squeeze(r.out), squeeze(told); got != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, told)
	}
	has(t, "stderr", r.err, "reading orders, orders.audit.dlq, payments, shipments\n", "scanned 7 records in 7 of 7 offsets (100 %)", "6 matches")
	for _, other := range []string{"e2", "e3", "e4", "payments/0@1"} { // any event of the chain tells the same
		r := s.want(t, codeDone, "trace", other, "--from", "start")
		if got := squeeze(strings.Replace(r.out, "  ← asked for", "", 1)); got != squeeze(told) {
			t.Errorf("trace %s: got\n%s", other, r.out)
		}
		if strings.Count(r.out, "← asked for") != 1 {
			t.Errorf("trace %s does not say which event was asked for:\n%s", other, r.out)
		}
	}
	r = s.want(t, codeDone, "trace", "e2", "--from", "2026-11-24T09:02", "--until", "2026-11-24T09:30")
	has(t, "a part of the story", r.out, "after e2, which was not found", "shop.ReceiptSent")
	has(t, "only the letter is in the range", s.want(t, codeDone, "trace", "e1", "--from", "2026-11-24T09:00:00.5", "--until", "2026-11-24T09:00:02").out,
		"orders/0@1  (not read: out of the range, or deleted)", "audit: dead letter", "mail: deferred")
	r = s.want(t, codeDone, "trace", "e1", "--from", "start", "--topics", "^ship")
	has(t, "one topic", r.out, "after e1, which was not found", "shipments/0@0")
}

// squeeze makes runs of spaces one: columns are tested by eye.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestTraceJSON(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	r := s.want(t, codeDone, "trace", "e4", "--from", "start", "-o", "json")
	var doc traceJSON
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range doc.Events {
		ids = append(ids, fmt.Sprint(e.ID, e.Depth))
	}
	if got := strings.Join(ids, " "); got != "e10 e21 e42 e31" || doc.Millrace != 1 || doc.Root != "e1" || doc.Asked != "e4" {
		t.Errorf("got %s of %+v", got, doc)
	}
	first := doc.Events[0]
	states := map[string]groupState{}
	for _, g := range first.Groups {
		states[g.Group] = g
	}
	if g := states["audit"]; g.State != groupGaveUp || g.Letter != "orders.audit.dlq/0@0" || g.Class != "handler" || g.Error != "no such\naccount" {
		t.Errorf("audit: got %+v", g)
	}
	if g := states["mail"]; g.State != groupDeferred || g.Attempts != 2 || g.Due == nil || !g.Due.Equal(epoch.Add(time.Minute)) {
		t.Errorf("mail: got %+v", g)
	}
	if g := states["fraud"]; g.State != groupWaiting || g.Behind != 1 {
		t.Errorf("fraud: got %+v", g)
	}
	if len(first.Copies) != 1 || first.Copies[0].Offset != 2 || string(*first.Key) != "o-17" || doc.Events[3].Key != nil {
		t.Errorf("got %+v", first)
	}
}

func TestTraceThatFindsNothing(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	r := s.want(t, codeFailed, "trace", "e9", "--from", "start")
	has(t, "stderr", r.err, "no event with the id or correlation id e9", "--from -7d", "scanned 7 records")
	r = s.want(t, codeFailed, "trace", "orders/0@7")
	has(t, "stderr", r.err, "no event at orders/0@7", "millrace tail orders")
	s.want(t, codeFailed, "trace", "nowhere/0@7")
	s.want(t, codeUsage, "trace")
	s.want(t, codeUsage, "trace", "e1", "e2")
	s.want(t, codeUsage, "trace", "e1", "--from", "end", "--until", "start+0")
	s.want(t, codeUsage, "trace", "e1", "-o", "jsonl")
	s.want(t, codeUsage, "trace", "e1", "--topics", "(")
	s.want(t, codeUsage, "trace", "e1", "--tz", "Mars")
	s.want(t, codeFailed, "trace", "e1", "--topics", "^nothing$")
}

// A commit says of an offset what the engine's next owner would make of it.
func TestStanding(t *testing.T) {
	t.Parallel()
	full := cursor.Cursor{
		Position: 10, Floor: 2, Done: []cursor.Run{{From: 12, To: 14}},
		Open: []cursor.Open{{Offset: 4, Attempt: 1, First: epoch, Due: epoch}, {Offset: 7, Lane: 1, Held: true, First: epoch, Due: epoch}},
	}
	meta, _, err := cursor.Encode(full, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	full.Mark = &cursor.Mark{From: 1, To: 2}
	spilled, _, err := cursor.Encode(full, cursor.MaxRoom)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		meta   string
		offset int64
		want   string
		behind int64
	}{
		{"", 9, groupDone, 0},
		{"", 10, groupWaiting, 0},
		{"somebody's", 15, groupWaiting, 5},
		{meta, 3, groupDone, 0},
		{meta, 4, groupDeferred, 0},
		{meta, 5, groupDone, 0},
		{meta, 7, groupUnclear, 0},
		{meta, 9, groupUnclear, 0},
		{meta, 10, groupWaiting, 0},
		{meta, 12, groupDone, 0},
		{meta, 13, groupDone, 0},
		{meta, 14, groupWaiting, 4},
		{spilled, 1, groupDone, 0},
		{spilled, 2, groupUnclear, 0},
		{spilled, 4, groupDeferred, 0},
	} {
		if got := standing("g", 10, tt.meta, tt.offset); got.State != tt.want || got.Behind != tt.behind {
			t.Errorf("offset %d with %q: got %+v, want %s, %d behind", tt.offset, tt.meta, got, tt.want, tt.behind)
		}
	}
}

// Headers can say anything: two events that led to each other, one that led to itself, a chain of ten thousand.
func TestTreeOfWhatHeadersClaim(t *testing.T) {
	t.Parallel()
	c := newChain("a", "a")
	add := func(id, cause string, second int) {
		e := event.Event{Meta: event.Meta{Topic: "t", Offset: int64(second), Published: epoch.Add(time.Duration(second) * time.Second)}}
		event.ParseHeaders(&e.Meta, event.Headers{{Key: event.HeaderID, Value: []byte(id)}, {Key: event.HeaderCause, Value: []byte(cause)}})
		c.add(&e)
	}
	add("a", "b", 0)
	add("b", "a", 1)
	add("self", "self", 2)
	for i := range 5_000 {
		add(fmt.Sprint(i), fmt.Sprint(i-1), 3+i)
	}
	all := c.tree()
	if len(all) != len(c.byID) || len(all) != 5_003 {
		t.Fatalf("got %d events of %d", len(all), len(c.byID))
	}
	if deepest := all[5_000]; deepest.id != "4999" || deepest.depth != 4999 {
		t.Errorf("got %s at depth %d", deepest.id, deepest.depth)
	}
	if a, b := all[5_001], all[5_002]; a.id != "a" || b.id != "b" || b.depth != 1 {
		t.Errorf("got %+v and %+v", a, b)
	}
}
