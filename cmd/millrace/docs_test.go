package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

const webhooksGuide = "../../docs/webhooks-in.md"

// sendersTable is what every sender does after a 503, from the data that the gateway works by.
func sendersTable() string {
	var b strings.Builder
	b.WriteString("| sender | waits | after a 503 | gives up on us after | to send again by hand |\n|---|---|---|---|---|\n")
	for _, name := range signature.Names() {
		s, ok := signature.Lookup(name)
		if !ok {
			continue
		}
		waits := "?"
		if d := time.Duration(s.Sender.Deadline); d > 0 {
			waits = d.String()
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, waits, habit(s.Sender), orDash(s.Sender.Disables), orDash(s.Sender.Redeliver))
	}
	return b.String()
}

// The table of senders is that of the data. UPDATE_GOLDEN=1 writes it anew.
func TestTheGuideKnowsTheSenders(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(webhooksGuide)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "holds it against them -->\n")
	old, after, ends := strings.Cut(rest, "<!-- end of senders -->")
	if !ok || !ends {
		t.Fatal("the guide has no place for the table")
	}
	want := sendersTable()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(webhooksGuide, []byte(before+"holds it against them -->\n"+want+"<!-- end of senders -->"+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != want {
		t.Errorf("the guide says\n%s\nand the data\n%s", old, want)
	}
	if n := strings.Count(string(text), "\n"); n > 150 {
		t.Errorf("the guide has %d lines, more than anybody reads", n)
	}
}

// Every command of the guide works.
func TestTheGuidesCommandsWork(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(webhooksGuide)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.webhooks(t)
	w.sources(t)
	url, side := w.takeIn(t)
	w.want(t, codeDone, "sources", "test", "acme", "--url", url, "--body", "event.json")
	here := strings.NewReplacer("http://localhost:8085", url, "localhost:9090", side)
	ran := 0
	for block := range strings.SplitSeq(string(text), "\n```\n") {
		for line := range strings.Lines(block) {
			if !strings.HasPrefix(line, "millrace ") {
				continue
			}
			ran++
			line, _, _ = strings.Cut(line, " #")
			w.example(t, strings.TrimSpace(here.Replace(line)))
		}
	}
	if ran < 10 {
		t.Errorf("only %d commands were found", ran)
	}
}
