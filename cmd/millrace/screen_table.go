package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	roomy       = 120 // characters: on a narrower terminal a position is shown without the end, which LAG tells too
	resultRoom  = 24  // characters: with less, what services come to is not in the table but beneath it
	recentNotes = time.Minute
)

// table is a line per service, with what it has come to as far as there is room; where there is too little, that comes
// back as results, to be shown elsewhere.
func (b *board) table(width int) (lines, results []styled) {
	if len(b.rows) == 0 {
		return nil, nil
	}
	cells := [][]string{{"SERVICE", "STATE", "RATE", "LAG", "AGE", "DONE", "PID", "METRICS"}}
	for _, r := range b.rows {
		cells = append(cells, r.cells(width >= roomy))
	}
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for n, row := range cells {
		var line strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i < 2 { // words; the others are numbers
				line.WriteString("  " + c + pad)
			} else {
				line.WriteString("  " + pad + c)
			}
		}
		l := styled{line.String(), bold}
		if n > 0 {
			if l.style = plain; b.rows[n-1].pid == 0 {
				l.style = red
			}
		}
		lines = append(lines, l)
	}
	inline := width-1-len(lines[0].text)-2 >= resultRoom
	if inline {
		lines[0].text += "  RESULT"
	}
	for i, r := range b.rows {
		switch result := printable(r.status.Result); {
		case inline:
			lines[i+1].text += "  " + result
		case result != "":
			results = append(results, styled{fmt.Sprintf("  %-*s  %s", widths[0], r.name, result), plain})
		}
	}
	return append(lines, styled{fmt.Sprintf("  dead letters: %s   metrics: http://127.0.0.1:METRICS/metrics", number(b.dead)), plain}), results
}

// cells is the row of a table: name, state, rate, lag, age, position (with the end of the topics when whole), process,
// port of the metrics.
func (r *row) cells(whole bool) []string {
	lag, age, done := "-", "-", number(r.status.Handled)
	if r.group {
		lag, age, done = number(r.status.Lag), fmt.Sprintf("%.1fs", r.status.LagSeconds), number(r.done)
		if r.state != "running" || r.killed { // without partitions it does not know: the group does
			lag, age = number(r.end-r.done), "-"
		}
		if whole {
			done += " of " + number(r.end)
		}
	}
	state, pid, port := r.state, "-", "-"
	if r.killed && state == "running" {
		state = "rejoining"
	}
	if r.pid != 0 {
		pid = strconv.Itoa(r.pid)
	}
	if u, err := url.Parse(r.status.Metrics); err == nil && u.Port() != "" {
		port = u.Port()
	}
	return []string{r.name, state, fmt.Sprintf("%.1f/s", r.status.Rate), lag, age, done, pid, port}
}
