// Command tiers runs every tier of tests and ends with a table of what ran against what, and a line
// "N passed, N failed, N skipped". It is what `make test` calls.
//
// A tier is a set of packages with the flags they run with. Tests that use a server append a line to the file named by
// MILLRACE_TIERS, so that the table says which server it was. With CI=true a skipped test of a tier is a failure of it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// tier is a set of tests that need the same things around them.
type tier struct {
	name    string
	against string // what it runs against, where no test says so itself
	args    []string
	env     []string
	limit   time.Duration
}

var tiers = []tier{
	{"unit", "kfake, memory (race detector on)", []string{"-race", "./...", "!./test/..."}, nil, 15 * time.Minute},
	{"integration", "one Apache Kafka", []string{"./test/integration/..."}, nil, 15 * time.Minute},
	{"cluster", "three Apache Kafka brokers, SASL_SSL, ACLs", []string{"-count=1", "./test/cluster/..."}, nil, 15 * time.Minute},
	// Promises by the clock. In the other tiers, where everything runs at once, these tests allow twice the time.
	{"alone", "this machine, one test after the other", []string{"-count=1", "-p=1", "-parallel=1", "-run=InTime$", "./internal/engine", "./cmd/millrace"}, []string{"MILLRACE_ALONE=true"}, 5 * time.Minute},
}

// result is what a tier's tests came to.
type result struct {
	tier                    tier
	passed, failed, skipped int
	took                    time.Duration
	broken                  []string // packages that did not build, or a run that ended early
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tiers:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, names []string) (int, error) {
	notes, err := os.CreateTemp("", "millrace-tiers-*.tsv")
	if err != nil {
		return 1, fmt.Errorf("make the notes file: %w", err)
	}
	defer func() { _ = os.Remove(notes.Name()) }()
	if err := notes.Close(); err != nil {
		return 1, err
	}
	if err := os.Setenv("MILLRACE_TIERS", notes.Name()); err != nil {
		return 1, err
	}
	var results []result
	for _, t := range tiers {
		if len(names) > 0 && !slices.Contains(names, t.name) {
			continue
		}
		fmt.Printf("== %s: %s\n", t.name, t.against)
		r, err := t.run(ctx)
		if err != nil {
			return 1, err
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return 2, fmt.Errorf("no tier is called %s", strings.Join(names, ", "))
	}
	return report(os.Stdout, results, notes.Name())
}

func (t tier) run(ctx context.Context) (result, error) {
	r := result{tier: t}
	packages, err := t.packages(ctx)
	if err != nil {
		return r, err
	}
	if len(packages) == 0 {
		return r, fmt.Errorf("tier %s has no packages", t.name)
	}
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	args := append([]string{"test", "-json", "-timeout", t.limit.String()}, t.flags()...)
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), t.env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return r, fmt.Errorf("start go test: %w", err)
	}
	readErr := r.read(out)
	err = cmd.Wait()
	r.took = time.Since(start)
	if readErr != nil {
		return r, readErr
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, fmt.Errorf("run go test: %w", err)
	}
	if err != nil && r.failed == 0 && len(r.broken) == 0 {
		r.broken = append(r.broken, "go test ended with "+err.Error())
	}
	return r, nil
}

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// read counts tests and prints the output of those that fail, and of packages that do not build.
func (r *result) read(in io.Reader) error {
	logs := map[string]*bytes.Buffer{}
	slow := func(e event) {
		if e.Test == "" && (e.Action == "pass" || e.Action == "fail") {
			fmt.Printf("   %-5s %-60s %6.1fs\n", e.Action, strings.TrimPrefix(e.Package, "github.com/millrace/millrace/"), e.Elapsed)
		}
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<16), 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Println(lines.Text())
			continue
		}
		key := e.Package + e.ImportPath + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if logs[key] == nil {
				logs[key] = &bytes.Buffer{}
			}
			if logs[key].Len() < 1<<18 {
				_, _ = logs[key].WriteString(e.Output)
			}
		case "pass", "skip", "fail":
			r.count(e, logs[key])
			delete(logs, key)
			if e.Test == "" && e.Action == "fail" { // what was under way when it panicked
				for k, log := range logs {
					if strings.HasPrefix(k, e.Package+" ") {
						fmt.Printf("--- UNFINISHED %s\n%s", k, log)
					}
				}
			}
		case "build-fail":
			r.broken = append(r.broken, "build of "+e.ImportPath)
			fmt.Print(logs[key])
		}
		slow(e)
	}
	return lines.Err()
}

func (r *result) count(e event, log *bytes.Buffer) {
	switch {
	case e.Test == "" && e.Action == "fail":
		if log != nil {
			fmt.Print(log)
		}
		if !slices.ContainsFunc(r.broken, func(s string) bool { return strings.Contains(s, e.Package) }) {
			r.broken = append(r.broken, e.Package)
		}
	case e.Test == "":
	case e.Action == "pass":
		r.passed++
	case e.Action == "fail":
		r.failed++
		fmt.Printf("--- FAIL %s %s\n%s", e.Package, e.Test, log)
	case e.Action == "skip":
		r.skipped++
		fmt.Printf("--- SKIP %s %s\n%s", e.Package, e.Test, log)
	}
}

func (t tier) flags() []string {
	return slices.DeleteFunc(slices.Clone(t.args), func(s string) bool { return !strings.HasPrefix(s, "-") })
}

// packages lists the packages of the tier: those of its patterns without those of its patterns that start with "!".
func (t tier) packages(ctx context.Context) ([]string, error) {
	list := func(prefix string) ([]string, error) {
		args := []string{"list"}
		for _, a := range t.args {
			if a, ok := strings.CutPrefix(a, prefix); ok && strings.HasPrefix(a, "./") {
				args = append(args, a)
			}
		}
		if len(args) == 1 {
			return nil, nil
		}
		out, err := exec.CommandContext(ctx, "go", args...).Output()
		if err != nil {
			return nil, fmt.Errorf("list the packages of tier %s: %w", t.name, err)
		}
		return strings.Fields(string(out)), nil
	}
	all, err := list("")
	if err != nil {
		return nil, err
	}
	without, err := list("!")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p string) bool { return slices.Contains(without, p) }), nil
}

func report(out io.Writer, results []result, notes string) (int, error) {
	servers, err := readNotes(notes)
	if err != nil {
		return 1, err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\ntier\tagainst\tpassed\tfailed\tskipped\ttook\n")
	var sum result
	bad := false
	for _, r := range results {
		against := r.tier.against
		if s := servers[r.tier.name]; len(s) > 0 {
			against = strings.Join(s, ", ")
			if r.tier.name == "unit" { // servers are the exception there
				against = r.tier.against + ", " + against
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\n", r.tier.name, against, r.passed, r.failed, r.skipped, r.took.Round(time.Second))
		sum.passed, sum.failed, sum.skipped = sum.passed+r.passed, sum.failed+r.failed, sum.skipped+r.skipped
		if r.passed == 0 || len(r.broken) > 0 || r.failed > 0 || os.Getenv("CI") == "true" && r.skipped > 0 && r.tier.name != "unit" {
			bad = true
		}
	}
	if err := w.Flush(); err != nil {
		return 1, err
	}
	for _, r := range results {
		for _, b := range r.broken {
			fmt.Fprintf(out, "broken in %s: %s\n", r.tier.name, b)
		}
		if r.passed == 0 {
			fmt.Fprintf(out, "broken in %s: no test passed, so the tier did not run\n", r.tier.name)
		}
	}
	failed := sum.failed
	if bad && failed == 0 {
		failed = 1
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", sum.passed, failed, sum.skipped)
	if bad {
		return 1, nil
	}
	return 0, nil
}

// readNotes reads what tests noted: tier, version, status, detail, separated by tabs.
func readNotes(name string) (map[string][]string, error) {
	raw, err := os.ReadFile(filepath.Clean(name))
	if err != nil {
		return nil, fmt.Errorf("read what the tests noted: %w", err)
	}
	out := map[string][]string{}
	for line := range strings.SplitSeq(string(raw), "\n") {
		f := strings.Split(line, "\t")
		if len(f) < 3 {
			continue
		}
		note := f[1]
		if f[2] != "ran" && f[2] != "ok" {
			note += " (" + f[2] + ")"
		}
		if !slices.Contains(out[f[0]], note) {
			out[f[0]] = append(out[f[0]], note)
		}
	}
	return out, nil
}
