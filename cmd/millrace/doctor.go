package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// state is how a check of millrace doctor came out.
type state string

const (
	stateOK   state = "ok"
	stateWarn state = "warn" // works, and will hurt one day; or could not be looked at
	stateBad  state = "bad"  // something is broken now
)

// finding is one line of millrace doctor: what was looked at, what was found and means, and what to do.
type finding struct {
	Check string `json:"check"`
	State state  `json:"state"`
	Says  string `json:"says"`
	Do    string `json:"do,omitempty"`
}

func fine(check, says string, args ...any) finding {
	return finding{check, stateOK, fmt.Sprintf(says, args...), ""}
}

func warn(check, do, says string, args ...any) finding {
	return finding{check, stateWarn, fmt.Sprintf(says, args...), do}
}

func bad(check, do, says string, args ...any) finding {
	return finding{check, stateBad, fmt.Sprintf(says, args...), do}
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong with cluster and registry, and what to do",
		Long: `Look what is wrong with cluster, registry and this machine, and what to do.

Asks every broker at its own address, reads versions, topics, groups, permissions and disks as far as the login may see
them, and changes nothing. Each line is ok, warn (it works, and may hurt one day; or it could not be looked at) or bad.
Exits 1 when something is bad, and takes at most some ten seconds, whoever does not answer.`,
		Example: "  millrace doctor\n  millrace doctor -o json",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

// errUnwell is the exit code 1 without a word: what is bad was printed as data.
var errUnwell = coded{errSaid, codeFailed}

func (a *app) doctor(ctx context.Context) error {
	if err := a.formats("table", "json", "jsonl"); err != nil {
		return err
	}
	c, err := a.describedCluster()
	if err != nil {
		return err
	}
	k := a.checkUp(ctx, c)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	findings := k.judge()
	count := map[state]int{}
	for _, f := range findings {
		count[f.State]++
	}
	if a.output == "table" {
		a.printFindings(findings)
		a.say("%d ok, %s, %d bad", count[stateOK], plural(int64(count[stateWarn]), "warning"), count[stateBad])
	} else if err := list(a, "findings", findings, "", nil); err != nil {
		return err
	}
	if count[stateBad] > 0 {
		return errUnwell
	}
	return nil
}

// printFindings writes a line for each finding, wrapped where a terminal ends, and below it what to do.
func (a *app) printFindings(findings []finding) {
	const indent, arrow = 20, "→ "
	width := a.screenWidth()
	paint := map[state]string{}
	if width > 0 && a.getenv("NO_COLOR") == "" {
		paint = map[state]string{stateOK: colors["green"], stateWarn: colors["yellow"], stateBad: colors["red"]}
	}
	var b strings.Builder
	for _, f := range findings {
		word := fmt.Sprintf("%-4s", f.State)
		if color := paint[f.State]; color != "" {
			word = color + word + "\x1b[0m"
		}
		fmt.Fprintf(&b, "%s  %-12s  %s\n", word, f.Check, wrap(printable(f.Says), width, indent))
		if f.Do != "" {
			fmt.Fprintf(&b, "%*s%s%s\n", indent, "", arrow, wrapCommand(printable(f.Do), width, indent+2))
		}
	}
	fmt.Fprint(a.out, b.String())
}

// wrapCommand is wrap for text that ends with a command after a colon and two blanks: where they do not fit together, the
// command gets a line of its own, which only the terminal breaks, so that it is copied whole.
func wrapCommand(text string, width, indent int) string {
	before, command, ok := strings.Cut(text, ":  ")
	if !ok || width == 0 || indent+len([]rune(text)) <= width {
		return wrap(text, width, indent)
	}
	return wrap(before+":", width, indent) + "\n" + strings.Repeat(" ", indent) + command
}

// wrap breaks text between words so that it fits beside an indent on a terminal of width columns; 0 is no terminal.
func wrap(text string, width, indent int) string {
	room := width - indent
	if width == 0 || room < 20 {
		return text
	}
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(word))
		switch {
		case column == 0:
		case column+1+n > room:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
