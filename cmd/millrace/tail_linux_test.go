package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// On a terminal a table of counts that has no end is drawn over and over, within the screen, and stands there once in
// the end; what is said goes below it.
func TestCountsOnATerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	person, program := openTerminal(t, 40, 6)
	seen := newBuffer()
	go func() { _, _ = io.Copy(seen, person) }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, w.app(strings.NewReader(""), program, program), []string{"tail", "t", "--count-by", "key"})
	}()
	seen.await(t, "following t")
	seen.await(t, "COUNT")
	for i := range 5 {
		for range i + 1 {
			w.put(t, &kgo.Record{Topic: "t", Key: fmt.Append(nil, "a key that is longer than the screen ", i)})
		}
	}
	seen.await(t, "5   33.3%  a key that is lo…")
	cancel()
	if got := <-code; got != codeInterrupted {
		t.Errorf("exits %d, want %d", got, codeInterrupted)
	}
	seen.await(t, "1     6.7%  a key that is longer than the screen 0")
	all := seen.String()
	end := all[strings.LastIndex(all, "\x1b[J")+len("\x1b[J"):]
	if !strings.HasPrefix(end, "scanned 15 records") || strings.Count(end, "COUNT") != 1 || strings.Count(end, "a key") != 5 {
		t.Errorf("the end is\n%s", end)
	}
	for drawn := range strings.SplitSeq(all[:len(all)-len(end)], "\x1b[J") { // three rows and a header, on six lines
		if n := strings.Count(drawn, "a key"); n > 3 {
			t.Errorf("%d rows on a terminal of 6 lines:\n%s", n, drawn)
		}
	}
}

// A long scan says how far it is and when it ends, and takes that away before anything else is printed.
func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	person, program := openTerminal(t, 80, 24)
	seen := newBuffer()
	go func() { _, _ = io.Copy(seen, person) }()
	now := epoch
	a := &app{err: program, now: func() time.Time { return now }}
	line := a.scanLine()
	now = now.Add(2 * time.Second)
	line.update(1_000_000, 4_000_000)
	seen.await(t, "1,000,000 of 4,000,000 offsets (25 %), 500,000/s, 6s left")
	line.update(2_000_000, 4_000_000) // at most five times a second
	line.clear()
	a.say("done")
	seen.await(t, "\r\x1b[Kdone")
	if strings.Contains(seen.String(), "2,000,000") {
		t.Errorf("got %q", seen)
	}
}
