package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestProductionAsksForTheName(t *testing.T) {
	t.Parallel()
	for typed, code := range map[string]int{"prod\n": codeDone, "y\n": codeRefused, "\n": codeRefused, "prod2\n": codeRefused} {
		t.Run(strings.TrimSpace(typed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.topic(t, "bare")
			w.write(t, "lines.jsonl", `{"a":1}`+"\n")
			w.contexts(t)
			person, program := openTerminal(t, 80, 24)
			if _, err := person.WriteString(typed); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			got := run(t.Context(), w.app(program, &out, &errs), []string{"produce", "bare", "--format", "json", "--from", "lines.jsonl", "-c", "prod"})
			if got != code {
				t.Errorf("exits %d, want %d: %s", got, code, errs.String())
			}
			has(t, "stderr", errs.String(), "prod is a production context. Type its name")
		})
	}
}
