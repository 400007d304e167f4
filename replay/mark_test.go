package replay

import (
	"encoding/json"
	"testing"
)

// FuzzMark reads metadata as anybody may have committed it: what is taken for a replay's has its offset within its span,
// and reads the same when it is written again.
func FuzzMark(f *testing.F) {
	f.Add(int64(5), `{"millrace_replay":1,"from":0,"until":9}`)
	f.Add(int64(0), `{"millrace_replay":1,"from":0,"until":9,"head":{"begun":"2026-11-22T09:00:00Z","parts":3,"grant":1000,"delivered":7,"note":"{\"into\":\"x\"}"}}`)
	f.Add(int64(10), `{"millrace_replay":1,"from":0,"until":9}`)
	f.Add(int64(1), `{"millrace_replay":2,"from":0,"until":9}`)
	f.Add(int64(1), `{"millrace_replay":1,"from":-5,"until":9,"head":{"grant":-1}}`)
	f.Add(int64(-1), "millrace-cli-1d3f")
	f.Add(int64(3), "mill:AQ")
	f.Fuzz(func(t *testing.T, at int64, meta string) {
		m, ok := parseMark(at, meta)
		if !ok {
			return
		}
		if m.From < 0 || at < m.From || at > m.Until || m.Head != nil && (m.Head.Parts < 1 || m.Head.Grant < 0) {
			t.Fatalf("%q at %d is taken for a replay's: %+v", meta, at, m)
		}
		text, err := json.Marshal(m)
		if err != nil {
			return // a time beyond the years that JSON has
		}
		if again, ok := parseMark(at, string(text)); !ok || again.From != m.From || again.Until != m.Until || (again.Head == nil) != (m.Head == nil) {
			t.Fatalf("%+v reads as %+v", m, again)
		}
	})
}
