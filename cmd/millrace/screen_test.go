package main

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/topics"
)

func demoBoard() *board {
	b := newBoard(devFlags{data: ".millrace", demo: true})
	b.brokerUp(devbroker.Up{Addr: "127.0.0.1:9092", PID: 7})
	b.registryUp("http://127.0.0.1:8081")
	b.serve([]string{storefront, "fraud"})
	b.row("fraud", func(r *row) {
		r.pid, r.state, r.status = 8, "running", service.Status{Rate: 25, Result: "3 of 90 flagged"}
		b.positionLocked(r, 1_200, 1_234)
	})
	return b
}

func text(lines []styled) string {
	var s strings.Builder
	for _, l := range lines {
		s.WriteString(l.text + "\n")
	}
	return s.String()
}

func TestBoard(t *testing.T) {
	t.Parallel()
	got := text(demoBoard().block(200, 50, time.Now()))
	for _, want := range []string{"127.0.0.1:9092", "pid 7", "http://127.0.0.1:8081", "fraud", "25.0/s", "1,200 of 1,234", "3 of 90 flagged", "q quits"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "export MILLRACE") {
		t.Errorf("where the command looks anyway there is nothing to export:\n%s", got)
	}
}

// What cannot be promised is on the screen, in full on 80 columns.
func TestBoardSaysWhatItPromises(t *testing.T) {
	t.Parallel()
	for sync, want := range map[bool]string{false: "a power failure may (see --sync)", true: "a bad disk may"} {
		b := newBoard(devFlags{sync: sync})
		for _, l := range b.block(200, 50, time.Now()) {
			if strings.Contains(l.text, "promise") && (!strings.HasSuffix(l.text, want) || len(l.text) > 80) {
				t.Errorf("sync %v: got %q, want a line of 80 characters that ends with %q", sync, l.text, want)
			}
		}
		if got := text(b.block(200, 50, time.Now())); !strings.Contains(got, want) {
			t.Errorf("sync %v: no %q in:\n%s", sync, want, got)
		}
	}
}

func TestBoardSaysThatTheBrokerIsFull(t *testing.T) {
	t.Parallel()
	b := demoBoard()
	b.brokerFull(true)
	if got := text(b.block(200, 50, time.Now())); !strings.Contains(got, "FULL") || !strings.Contains(got, "refuses writes") {
		t.Errorf("nothing of it in:\n%s", got)
	}
	b.brokerFull(false)
	if got := text(b.block(200, 50, time.Now())); strings.Contains(got, "FULL") || !strings.Contains(got, "has room again") {
		t.Errorf("still in:\n%s", got)
	}
}

func TestBoardFitsTheTerminal(t *testing.T) {
	t.Parallel()
	b := demoBoard()
	for range 100 {
		b.note("one\ntwo")
	}
	for height := 2; height < 40; height++ {
		if n := len(b.block(80, height, time.Now())); n >= height {
			t.Errorf("%d lines on a terminal of %d: the top would scroll away", n, height)
		}
	}
	b.note("dead letter in shop.orders.shipping.dlq: poison, from shop.orders partition 5 offset 66: decode it, it has a length below nought")
	for _, l := range b.block(80, 24, time.Now()) {
		if n := len([]rune(l.text)); strings.Contains(l.text, "…") || n > 79 {
			t.Errorf("%d characters on a terminal of 80: %q", n, l.text)
		}
	}
	if got := text(b.block(80, 24, time.Now())); !strings.Contains(got, "below nought") {
		t.Errorf("the end of the last note is not in:\n%s", got)
	}
	if got := clip("äöü", 2); got != "ä…" {
		t.Errorf("clip: got %q, want ä…", got)
	}
}

// Where a service is, how far it has come and where its metrics are is on every terminal; what it has come to is there as
// soon as there is room.
func TestTableOnTerminalsOfAnyWidth(t *testing.T) {
	t.Parallel()
	b := newBoard(devFlags{data: ".millrace", demo: true})
	b.brokerUp(devbroker.Up{Addr: "127.0.0.1:40001", PID: 7})
	b.registryUp("http://127.0.0.1:40002")
	b.declared([]topics.Spec{{Name: "shop.orders"}})
	names := []string{storefront, "analytics", "fraud", "shipping"}
	b.serve(names)
	for _, name := range names {
		b.row(name, func(r *row) {
			r.pid, r.state = 4_194_304, "restarting"
			r.status = service.Status{Rate: 1234.5, Handled: 7_654_321, Result: strings.Repeat("result ", 10) + "end", Metrics: "http://127.0.0.1:65535/metrics"}
			if name != storefront {
				b.positionLocked(r, 7_654_321, 7_654_399)
			}
		})
	}
	for _, tt := range []struct {
		width   int
		results bool // in the table
	}{{80, false}, {90, false}, {100, true}, {119, true}, {120, true}, {200, true}} {
		got := b.block(tt.width, 24, time.Now())
		rows, results := 0, 0
		for _, l := range got {
			seen := clip(l.text, tt.width-1)
			if strings.Contains(seen, "1234.5/s") {
				rows++
				for _, want := range []string{"restarting", "7,654,321", "4194304", "65535"} {
					if !strings.Contains(seen, want) {
						t.Errorf("width %d: no %s in %q", tt.width, want, seen)
					}
				}
			}
			if strings.Contains(seen, "result res") {
				results++
			}
			if strings.Contains(seen, "RESULT") != (tt.results && strings.Contains(seen, "SERVICE")) {
				t.Errorf("width %d: %q", tt.width, seen)
			}
		}
		if rows != len(names) || results != len(names) {
			t.Errorf("width %d: %d services and %d results, want %d of each:\n%s", tt.width, rows, results, len(names), text(got))
		}
	}
	b.note("%s", strings.Repeat("it happened ", 40)) // takes the room of what they came to, for a while
	if got := text(b.block(80, 24, time.Now())); strings.Contains(got, "result res") || !strings.Contains(got, "it happened") {
		t.Errorf("after a note:\n%s", got)
	}
	if got := text(b.block(80, 24, time.Now().Add(2*recentNotes))); !strings.Contains(got, "result res") {
		t.Errorf("some time after a note:\n%s", got)
	}
}

// A killed consumer is back when its group's position is past all that was there when it died, and not before.
func TestBoardSaysWhenAKilledConsumerHasCaughtUp(t *testing.T) {
	t.Parallel()
	b := demoBoard()
	at := func(pid int, done, end int64) string {
		b.row("fraud", func(r *row) {
			r.pid = pid
			b.positionLocked(r, done, end)
		})
		return text(b.block(200, 50, time.Now()))
	}
	b.row("fraud", func(r *row) { r.killed, r.owes = true, owesNow })
	for _, step := range []struct {
		pid       int
		done, end int64
		back      bool
	}{{0, 1_200, 1_300, false}, {9, 1_200, 1_400, false}, {9, 1_299, 1_500, false}, {0, 1_300, 1_500, false}, {9, 1_300, 1_500, true}} {
		if got := strings.Contains(at(step.pid, step.done, step.end), "fraud is back (pid 9): all 1,300 events up to its death are done"); got != step.back {
			t.Errorf("%+v: said %v, want %v", step, got, step.back)
		}
	}
}

// Without a terminal what runs where is said once, a note once, and the table every few seconds.
func TestPlainScreen(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := &screen{out: &out}
	b := demoBoard()
	now := time.Unix(0, 0)
	b.note("hello\x1b[2J")
	for range 9 {
		s.draw(b, now)
		now = now.Add(time.Second)
	}
	got := out.String()
	for want, n := range map[string]int{"Millrace dev": 1, "hello␛[2J": 1, "SERVICE": 3} {
		if c := strings.Count(got, want); c != n {
			t.Errorf("%q: %d times, want %d:\n%s", want, c, n, got)
		}
	}
}

// The keys are on the screen of the whole demo, however small the terminal.
func TestTheWholeDemoFitsATerminal(t *testing.T) {
	t.Parallel()
	b := newBoard(devFlags{data: ".millrace", demo: true})
	b.brokerUp(devbroker.Up{Addr: "127.0.0.1:40001", PID: 7})
	b.registryUp("http://127.0.0.1:40002")
	b.gatewayUp("http://127.0.0.1:40003/in/NAME")
	b.declared([]topics.Spec{{Name: "shop.orders"}})
	b.serve([]string{gatewayRow, storefront, "analytics", "checkout", "fraud", "provider", "shipping"})
	got := b.block(80, 24, time.Now())
	if len(got) > 23 || !strings.Contains(text(got), "q quits") || !strings.Contains(text(got), "shipping") {
		t.Errorf("%d lines:\n%s", len(got), text(got))
	}
}
