package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/groups"
)

func (a *app) printPlan(p groups.Plan, moves []groups.Move) error {
	switch a.output {
	case "json", "jsonl":
		p.Moves = moves
		return writeJSON(a.out, p, map[string]string{"json": "  "}[a.output])
	}
	fmt.Fprintf(a.out, "%s on cluster %s: %s\n\n", printable(p.Group), printable(p.ClusterID), strings.ToLower(p.State))
	return list(a, "", moves, "TOPIC PARTITION NOW NEW MESSAGES TIME NEXT-RECORD NOTE?", moveCells)
}

func moveCells(m groups.Move) []any {
	at := func(p *groups.Place) string {
		if p == nil {
			return "-"
		}
		return fmt.Sprint(p.Offset)
	}
	messages, span, next := "-", "-", "-"
	if d, ok := m.Delta(); ok {
		messages = signed(d)
	}
	if d, ok := m.Span(); ok {
		span = "+" + age(d)
		if d < 0 {
			span = "-" + age(-d)
		} else if d == 0 {
			span = "0s"
		}
	}
	switch {
	case m.To == nil:
	case m.To.Time != nil:
		next = m.To.Time.UTC().Format(time.DateTime + "Z")
	case m.To.Offset >= m.End && !m.Left:
		next = "end"
	}
	note := m.Note
	if m.Left {
		note = strings.TrimPrefix(note+"; left alone", "; ")
	}
	return []any{m.Topic, m.Partition, at(m.From), at(m.To), messages, span, next, orDash(note)}
}

// signed is n with its sign: +1,234.
func signed(n int64) string {
	if n > 0 {
		return "+" + number(n)
	}
	return number(n)
}
