package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	tableGap    = 3 // blanks between two columns
	leastGap    = 1
	emptyColumn = '?' // at the end of a column's name: it may go where it says nothing in any row and the screen is narrow
)

// writeTable prints rows below a header of names between blanks. Where they do not fit on a screen of width columns
// it drops what says nothing and moves the rest together; 0 is no screen, where scripts read and nothing is dropped.
func writeTable(w io.Writer, width int, header string, rows [][]string) error {
	names := strings.Fields(header)
	lines := append([][]string{names}, rows...)
	gap := tableGap
	for i := len(names) - 1; i >= 0; i-- { // from the right: the left ones are the more important
		name, may := strings.CutSuffix(names[i], string(emptyColumn))
		names[i] = name
		if may && width > 0 && tableWidth(lines, gap) > width && saysNothing(rows, i) {
			for j := range lines {
				lines[j] = slices.Delete(slices.Clone(lines[j]), i, i+1)
			}
			names = lines[0]
		}
	}
	for width > 0 && gap > leastGap && tableWidth(lines, gap) > width {
		gap--
	}
	t := tabwriter.NewWriter(w, 0, 0, gap, ' ', 0)
	for _, cells := range lines {
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// saysNothing reports whether column i is empty, a dash or zero in every row.
func saysNothing(rows [][]string, i int) bool {
	return !slices.ContainsFunc(rows, func(cells []string) bool { return !slices.Contains([]string{"", "-", "0"}, cells[i]) })
}

func tableWidth(lines [][]string, gap int) int {
	widths := make([]int, len(lines[0]))
	for _, cells := range lines {
		for i, c := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(strings.TrimSuffix(c, string(emptyColumn))))
		}
	}
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	return total
}

// screenWidth is how many columns the output's terminal has; 0 where it is none.
func (a *app) screenWidth() int {
	if a.width > 0 {
		return a.width
	}
	return terminalWidth(a.out)
}

// terminalWidth is how many columns the terminal f has; 0 where it is none.
func terminalWidth(f any) int {
	file, ok := f.(*os.File)
	if !ok || !isTerminal(f) {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// arrow begins a line with what to type next.
const arrow = "  → "

// fold breaks the lines of text at blanks so that they fit on a terminal of width columns; 0 is none. What has no blank
// where it would have to break stays whole, and so does what is to be typed next, so that it is copied whole: only the
// terminal breaks it. Unlike wrap, it keeps how text is laid out.
func fold(text string, width int) string {
	if width == 0 {
		return text
	}
	var b strings.Builder
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		for runes := []rune(line); ; {
			at := width
			for at > 0 && at < len(runes) && runes[at] != ' ' {
				at--
			}
			if at >= len(runes) || at == 0 || strings.HasPrefix(line, arrow) || strings.TrimSpace(string(runes[:at])) == "" {
				b.WriteString(string(runes))
				break
			}
			b.WriteString(strings.TrimRight(string(runes[:at]), " ") + "\n")
			runes = []rune(strings.TrimLeft(string(runes[at:]), " "))
		}
	}
	return b.String()
}
