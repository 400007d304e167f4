package cluster_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// sinkReport is what the sink's fault run came to.
type sinkReport struct {
	Date    time.Time `json:"date"`
	Command string    `json:"command"`
	OS      string    `json:"os"`
	Go      string    `json:"go"`
	CPUs    int       `json:"cpus"`
	Note    string    `json:"note,omitempty"`
	Seed    uint64    `json:"seed"`
	Seconds float64   `json:"seconds"` // from the first member to the last event written

	Records             int `json:"records"` // in the log
	Events              int `json:"events"`  // that count
	Planted             int `json:"planted"` // records that repeat an event
	DeadLetters         int `json:"dead_letters"`
	DeadLettersRepeated int `json:"dead_letters_repeated"` // copies that a crash has repeated

	// What the members have seen. What a member did in the instant of its death is not in it.
	Transactions  int `json:"transactions"`
	Repeats       int `json:"repeats"` // skipped
	Fenced        int `json:"fenced"`
	SleeperFenced int `json:"sleeper_fenced"`
	SettledDone   int `json:"settled_done"`   // a COMMIT without an answer had taken effect
	SettledUndone int `json:"settled_undone"` // it had not

	Faults     []sinkFaultAt `json:"faults"`
	Violations []string      `json:"violations"`
}

// sinkFaultAt is a fault, and when it was made.
type sinkFaultAt struct {
	At   float64 `json:"at"` // seconds
	What string  `json:"what"`
	Whom string  `json:"whom,omitempty"`
}

func newSinkReport() *sinkReport {
	return &sinkReport{
		Date: time.Now().UTC(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), CPUs: runtime.NumCPU(),
		Command: fmt.Sprintf("make soak-sink ARGS=%q", fmt.Sprintf("-rounds %d -seed %d", *soakRounds, *soakSeed)), Note: *soakNote, Seed: *soakSeed,
		Violations: []string{},
	}
}

func (r *sinkReport) String() string {
	return fmt.Sprintf("%d records, %d events, %d repeats planted, %d dead letters (and %d repeated), %d faults in %.0f s; "+
		"%d transactions, %d repeats skipped, %d fenced (%d of the sleeper when it woke), %d unanswered commits: %d had taken effect, %d had not",
		r.Records, r.Events, r.Planted, r.DeadLetters, r.DeadLettersRepeated, len(r.Faults), r.Seconds,
		r.Transactions, r.Repeats, r.Fenced, r.SleeperFenced, r.SettledDone+r.SettledUndone, r.SettledDone, r.SettledUndone)
}

// sum reads the journals of all members.
func (r *sinkReport) sum(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for in := bufio.NewScanner(bytes.NewReader(raw)); in.Scan(); {
			switch line := in.Text(); {
			case strings.HasPrefix(line, "fenced "):
				r.Fenced++
			case line == "settled true":
				r.SettledDone++
			case line == "settled false":
				r.SettledUndone++
			case strings.HasPrefix(line, "written "):
				var events, rows, states, repeats int
				if _, err := fmt.Sscanf(line, "written %d %d %d %d", &events, &rows, &states, &repeats); err != nil {
					t.Fatalf("%s: %q: %v", name, line, err)
				}
				r.Transactions++
				r.Repeats += repeats
			}
		}
	}
}

// check is that the run was what it is called: each fault had its effect.
func (r *sinkReport) check(t *testing.T) {
	t.Helper()
	if r.SleeperFenced == 0 {
		t.Error("the sleeper's late transaction was not attempted, or was not rolled back")
	}
	if r.SettledDone == 0 || r.SettledUndone == 0 {
		t.Errorf("of the commits without an answer %d had taken effect and %d had not: the run needs both", r.SettledDone, r.SettledUndone)
	}
	if r.Repeats == 0 || r.Planted == 0 || r.DeadLetters == 0 {
		t.Errorf("%d repeats planted, %d skipped, %d dead letters: the run needs all of them", r.Planted, r.Repeats, r.DeadLetters)
	}
}

// save writes the report to a file of dir that is named by the date.
func (r *sinkReport) save(t *testing.T, dir string) {
	t.Helper()
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "sink-"+r.Date.Format("2006-01-02T150405Z")+".json")
	if err := os.WriteFile(name, append(raw, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("kept in %s", name)
}
