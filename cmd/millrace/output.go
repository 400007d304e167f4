package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// formats checks -o against what a command can print.
func (a *app) formats(allowed ...string) error {
	if slices.Contains(allowed, a.output) {
		return nil
	}
	return usage(fmt.Errorf("-o %s: allowed are %s", a.output, strings.Join(allowed, ", ")))
}

// list prints rows: as a table, as one JSON document with a version, or as one JSON object a line. Lines carry no version,
// because "millrace":1 at the beginning of a line says that it is an envelope, which produce takes apart.
func list[T any](a *app, name string, rows []T, header string, row func(T) []any) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	w := bufio.NewWriter(a.out)
	switch a.output {
	case "json":
		if rows == nil {
			rows = []T{}
		}
		if err := writeJSON(w, map[string]any{"millrace": 1, name: rows}, "  "); err != nil {
			return err
		}
	case "jsonl":
		for _, r := range rows {
			if err := writeJSON(w, r, ""); err != nil {
				return err
			}
		}
	default:
		texts := make([][]string, len(rows))
		for i, r := range rows {
			for _, c := range row(r) {
				texts[i] = append(texts[i], printable(fmt.Sprint(c)))
			}
		}
		if err := writeTable(w, a.screenWidth(), header, texts); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func writeJSON(w io.Writer, v any, indent string) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printable keeps what others wrote (keys, names, values) from moving the cursor or recolouring the terminal:
// control characters become visible.
func printable(s string) string {
	if !strings.ContainsFunc(s, isControl) && strings.ToValidUTF8(s, "") == s {
		return s
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case !isControl(r):
			b.WriteRune(r)
		case r < 0x20:
			b.WriteRune(0x2400 + r) // the picture of the control character
		default:
			b.WriteRune('\uFFFD')
		}
	}
	return b.String()
}

// isControl covers C0, DEL, C1 and the marks that reorder text.
func isControl(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// number is n with commas: 336,776.
func number(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// age is a duration as a person says it: 4s, 12m, 3h5m, 2d4h.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return "<1s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// plural is "1 record", "2 records", "3 matches".
func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	if strings.HasSuffix(word, "ch") {
		return number(n) + " " + word + "es"
	}
	return number(n) + " " + word + "s"
}

// progress is one line on a terminal that is written over: a person sees that something goes on, a file gets nothing.
type progress struct {
	w     io.Writer
	now   func() time.Time
	last  time.Time
	shown bool
	on    bool
}

func (a *app) progress() *progress {
	return &progress{w: a.err, now: a.now, on: isTerminal(a.err)}
}

// show writes the line, at most five times a second.
func (p *progress) show(format string, args ...any) {
	if now := p.now(); p.on && now.Sub(p.last) >= 200*time.Millisecond {
		p.last, p.shown = now, true
		fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
	}
}

// clear takes the line away, before anything else is printed.
func (p *progress) clear() {
	if p.shown {
		p.shown = false
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
