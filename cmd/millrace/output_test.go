package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestProgressIsForTerminalsAndIsTakenAway(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	clock := time.Unix(0, 0)
	p := &progress{w: &b, now: func() time.Time { return clock }, on: true}
	p.last = clock.Add(-time.Second)
	p.show("1 of %d", 9)
	p.show("2 of %d", 9) // too soon
	clock = clock.Add(time.Second)
	p.show("3 of %d", 9)
	p.clear()
	p.clear()
	if want := "\r\x1b[K1 of 9\r\x1b[K3 of 9\r\x1b[K"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	off := (&app{err: &b, now: time.Now}).progress()
	off.show("anything")
	off.clear()
	if b.Len() > 0 {
		t.Errorf("a file got %q", b.String())
	}
}

func TestNumbersAndAges(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 336776: "336,776", -1234567: "-1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("number(%d) is %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "<1s", time.Millisecond: "<1s", 59 * time.Second: "59s", 90 * time.Second: "1m30s", 3*time.Hour + 5*time.Minute: "3h5m", 52 * time.Hour: "2d4h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%s) is %s, want %s", d, got, want)
		}
	}
}

// What stands in a topic is anyone's: it must not move the cursor or reorder the line.
func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Zürich 💡": "Zürich 💡", "a\x1b[2Jb": "a␛[2Jb", "a\r\nb\tc": "a␍␊b␉c", "x\u202ey": "x\uFFFDy", "x\x9by": "x\uFFFDy", "\xff": "\uFFFD", "\u009b31m": "\uFFFD31m",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) is %q, want %q", in, got, want)
		}
	}
	if got := preview(bytes.Repeat([]byte{0xfe}, 100)); !strings.HasSuffix(got, "… (100 bytes)") || len(got) > 130 {
		t.Errorf("got %q", got)
	}
}
