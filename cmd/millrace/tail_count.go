package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	valuesMost = 100_000                // values that are told apart
	countEvery = 250 * time.Millisecond // how often a table on a terminal is drawn anew
)

// counter is a table of how many events have each value.
type counter struct {
	*app
	live *liveTable // nil: the table is printed at the end

	mu     sync.Mutex
	values map[string]int64
	total  int64
	more   int64 // events whose value is not told apart any more
	other  int64 // events without a value: the expression failed
	first  string
}

type countRow struct {
	Value string `json:"value"`
	Count int64  `json:"count"`
	share float64
}

func (a *app) newCounter(follow bool) *counter {
	c := &counter{app: a, values: map[string]int64{}}
	if follow && a.output == "table" && isTerminal(a.out) {
		c.live = c.startLive()
	}
	return c
}

// add counts a value.
func (c *counter) add(value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	if n, ok := c.values[value]; ok || len(c.values) < valuesMost {
		c.values[value] = n + 1
		return
	}
	c.more++
}

// miss counts an event on which the expression failed.
func (c *counter) miss(where string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.other++; c.other == 1 {
		c.first = fmt.Sprintf("%s: %s", where, err)
	}
}

// rows are the values, the most frequent first, at most this many; 0 is all.
func (c *counter) rows(most int) []countRow {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(c.values), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.values[b], c.values[a]), strings.Compare(a, b))
	})
	if most > 0 && len(names) > most {
		names = names[:most]
	}
	rows := make([]countRow, len(names))
	for i, name := range names {
		n := c.values[name]
		rows[i] = countRow{name, n, float64(n) / float64(c.total)}
	}
	return rows
}

// settle takes a table away that is drawn again and again, before anything else is printed.
func (c *counter) settle() {
	if c.live != nil {
		c.live.stop()
		c.live = nil
	}
}

// print prints the whole table.
func (c *counter) print() error {
	c.settle()
	err := list(c.app, "counts", c.rows(0), "COUNT SHARE VALUE", countCells)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more > 0 {
		c.say("%s with further values: %s are told apart", plural(c.more, "event"), number(valuesMost))
	}
	if c.other > 0 {
		c.say("%s without such a value, the first at %s", plural(c.other, "event"), printable(c.first))
	}
	return err
}

func countCells(r countRow) []any {
	value := r.Value
	if value == "" {
		value = `""`
	}
	return []any{number(r.Count), fmt.Sprintf("%.1f%%", 100*r.share), value}
}

// liveTable draws the first rows again and again, over what it drew before.
type liveTable struct {
	ending chan struct{}
	ended  chan struct{}
}

func (c *counter) startLive() *liveTable {
	l := &liveTable{ending: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		tick := time.NewTicker(countEvery)
		defer tick.Stop()
		drawn := 0
		for {
			select {
			case <-tick.C:
				drawn = c.draw(drawn)
			case <-l.ending:
				fmt.Fprint(c.out, above(drawn))
				return
			}
		}
	}()
	return l
}

func (l *liveTable) stop() {
	close(l.ending)
	<-l.ended
}

// draw writes the table over the drawn lines of the one before and returns how many lines it has now.
func (c *counter) draw(drawn int) int {
	width, height := 80, 24
	if f, ok := c.out.(interface{ Fd() uintptr }); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			width, height = w, h
		}
	}
	rows := c.rows(max(1, height-3))
	var b strings.Builder
	b.WriteString(above(drawn))
	fmt.Fprintf(&b, "%12s %7s  %s\n", "COUNT", "SHARE", "VALUE")
	for _, r := range rows {
		cells := countCells(r)
		fmt.Fprintf(&b, "%12s %7s  %s\n", cells[0], cells[1], fit(printable(fmt.Sprint(cells[2])), width-23))
	}
	fmt.Fprint(c.out, b.String())
	return len(rows) + 1
}

// above moves to the first of the last n lines and clears what follows.
func above(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", n)
}

// fit cuts text to at most n characters.
func fit(text string, n int) string {
	r := []rune(text)
	if n < 1 || len(r) <= n {
		return text
	}
	return string(r[:n-1]) + "…"
}
