package parquetsink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

func setup(topics ...string) sink.Setup {
	return sink.Setup{Sink: "lake", Topics: topics, Observer: sink.Silent{}, Log: zap.NewNop()}
}

const (
	v1      = `{"type":"record","name":"x.R","fields":[{"name":"n","type":"long"},{"name":"old","type":"string","default":"d"}]}`
	v2      = `{"type":"record","name":"x.R","fields":[{"name":"n","type":"long"},{"name":"fresh","type":"double","default":1.5}]}`
	v3      = `{"type":"record","name":"x.R","fields":[{"name":"n","type":"double"}]}`
	text    = `{"type":"record","name":"x.R","fields":[{"name":"n","type":"string"}]}`
	another = `{"type":"record","name":"x.Other","fields":[{"name":"n","type":"long"}]}`
)

// lake is a directory, and what its tests need.
type lake struct {
	*testing.T

	dir string
	reg *schemas.Registry
	id  cursor.ID
}

func newLake(t *testing.T) *lake {
	t.Helper()
	return &lake{T: t, dir: t.TempDir(), reg: schemas.Memory(), id: cursor.ID{Reader: "lake", Topic: "x.r", TopicID: [16]byte{1}, Partition: 3}}
}

func (l *lake) folder() string { return filepath.Join(l.dir, "x.r") }

func (l *lake) file(start int64) string { return filepath.Join(l.folder(), fileName("x.r", 3, start)) }

// open is one more process, with the directory open.
func (l *lake) open(change ...func(*Config)) *writer {
	l.Helper()
	cfg := Config{Dir: l.dir}
	for _, f := range change {
		f(&cfg)
	}
	w, err := New(cfg).open(l.reg, setup("x.r"))
	if err != nil {
		l.Fatal(err)
	}
	return w
}

// claim is where an owner goes on.
func (l *lake) claim(w *writer, start int64) sink.Place {
	l.Helper()
	got, err := w.Claim(l.Context(), []cursor.ID{l.id}, map[cursor.ID]int64{l.id: start})
	if err == nil {
		err = got[l.id].Err
	}
	if err != nil {
		l.Fatal(err)
	}
	return sink.Place{ID: l.id, Lease: got[l.id].Lease, Next: got[l.id].Position}
}

// events are texts of a schema, at the offsets from on.
func (l *lake) events(from int64, schema string, texts ...string) []event.Event {
	l.Helper()
	s, err := l.reg.Register(l.Context(), schema, schema) // a subject of its own: no compatibility is asked for
	if err != nil {
		l.Fatal(err)
	}
	var out []event.Event
	for i, text := range texts {
		body, err := s.FromJSON(nil, []byte(text))
		if err != nil {
			l.Fatal(err)
		}
		out = append(out, event.Event{
			Meta:  event.Meta{Topic: "x.r", Partition: 3, Offset: from + int64(i), Key: []byte("k")},
			Value: append([]byte{0, 0, 0, 0, byte(s.ID)}, body...),
		})
	}
	return out
}

// numbered are n events of v1 whose n is their offset.
func (l *lake) numbered(from, n int64) []event.Event {
	l.Helper()
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf(`{"n":%d,"old":"x"}`, from+int64(i))
	}
	return l.events(from, v1, texts...)
}

// write writes a batch and returns where the owner stands then.
func (l *lake) write(w *writer, from sink.Place, next int64, es ...event.Event) (sink.Place, error) {
	l.Helper()
	to := from
	to.Next = next
	err := w.Write(l.Context(), sink.Batch{From: from, To: to, Events: es, Attempt: 1, Bury: func(context.Context, int, string, error) error {
		l.Helper()
		l.Error("an event is buried")
		return nil
	}})
	return to, err
}

func (l *lake) mustWrite(w *writer, from sink.Place, next int64, es ...event.Event) sink.Place {
	l.Helper()
	to, err := l.write(w, from, next, es...)
	if err != nil {
		l.Fatal(err)
	}
	return to
}

// read is all rows of the directory, file by file: "n=1 old=x".
func (l *lake) read() []string {
	l.Helper()
	files, err := filepath.Glob(filepath.Join(l.folder(), "*.parquet"))
	if err != nil {
		l.Fatal(err)
	}
	var out []string
	for _, name := range files {
		out = append(out, l.readFile(name)...)
	}
	return out
}

func (l *lake) readFile(name string) (out []string) {
	l.Helper()
	f, err := os.Open(name)
	if err != nil {
		l.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		l.Fatal(err)
	}
	p, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		l.Fatal(err)
	}
	for _, g := range p.RowGroups() {
		rows := g.Rows()
		buf := make([]parquet.Row, 16)
		for {
			n, err := rows.ReadRows(buf)
			for _, row := range buf[:n] {
				var cells []string
				for i, v := range row {
					cells = append(cells, p.Schema().Columns()[i][0]+"="+v.String())
				}
				out = append(out, strings.Join(cells, " "))
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				l.Fatal(err)
			}
		}
		if err := rows.Close(); err != nil {
			l.Error(err)
		}
	}
	return out
}

// The directory is the position: who claims goes on where the last file ends, and a new one where the first owner began.
func TestClaim(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	a, b := l.open(), l.open()
	p := l.claim(a, 100)
	if got := l.claim(b, 200); p.Next != 100 || got.Next != 100 {
		t.Errorf("claimed at %d, then at %d, want 100: who came first has said where the partition begins", p.Next, got.Next)
	}
	p = l.mustWrite(a, p, 110, l.numbered(100, 10)...)
	l.mustWrite(a, p, 150, l.numbered(120, 2)...) // offsets have gaps
	if got := l.claim(l.open(), 0); got.Next != 150 {
		t.Errorf("claimed at %d, want 150", got.Next)
	}
	if got := l.read(); len(got) != 12 || got[0] != "n=100 old=x" || got[11] != "n=121 old=x" {
		t.Errorf("rows %q", got)
	}
	other := l.id
	other.TopicID = [16]byte{2}
	got, err := l.open().Claim(t.Context(), []cursor.ID{other}, map[cursor.ID]int64{other: 0})
	if err != nil || !errors.Is(got[other].Err, sink.ErrOtherTopic) {
		t.Errorf("claim for a topic that was created anew: %v, %v", got[other].Err, err)
	}
	other.Partition = 9
	l.id = other
	l.claim(a, 0)
	other.TopicID = [16]byte{3}
	got, err = a.Claim(t.Context(), []cursor.ID{other}, map[cursor.ID]int64{other: 0})
	if err != nil || !errors.Is(got[other].Err, sink.ErrOtherTopic) {
		t.Errorf("claim for a topic that was created anew, without files: %v, %v", got[other].Err, err)
	}
}

// zombies has an owner sleep between reading and writing, while another takes over, and returns how often each row is
// in the directory afterwards.
func zombies(t *testing.T, bug plant) (counts map[string]int, fenced bool) {
	t.Helper()
	l := newLake(t)
	sleeper, other := l.open(), l.open()
	sleeper.plant, other.plant = bug, bug
	from := l.claim(sleeper, 0)
	from = l.mustWrite(sleeper, from, 5, l.numbered(0, 5)...)
	next := l.claim(other, 0)
	l.mustWrite(other, next, 25, l.numbered(5, 20)...)
	_, err := l.write(sleeper, from, 10, l.numbered(5, 5)...) // it wakes up, and knows of nothing
	if err != nil && !errors.Is(err, sink.ErrNotOwner) {
		t.Fatal(err)
	}
	counts = map[string]int{}
	for _, row := range l.read() {
		counts[row]++
	}
	if fenced = err != nil; fenced {
		if got := l.claim(sleeper, 0); got.Next != 25 {
			t.Errorf("the sleeper claims at %d, want 25", got.Next)
		}
	}
	return counts, fenced
}

// An owner that slept while another wrote adds nothing; with either of two bugs rows would be there twice or be lost.
func TestZombie(t *testing.T) {
	t.Parallel()
	once := func(counts map[string]int) bool {
		for n := range 25 {
			if counts[fmt.Sprintf("n=%d old=x", n)] != 1 {
				return false
			}
		}
		return len(counts) == 25
	}
	if counts, fenced := zombies(t, plant{}); !fenced || !once(counts) {
		t.Errorf("fenced %v, rows %v", fenced, counts)
	}
	for name, bug := range map[string]plant{"a name made of a range": {rangeNames: true}, "rename replaces": {rename: true}} {
		if counts, fenced := zombies(t, bug); fenced || once(counts) {
			t.Errorf("%s: the test does not see it: fenced %v, rows %v", name, fenced, counts)
		}
	}
}

// Whatever is wrong with a chain stops the sink with an error that names the file.
func TestBrokenChain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(l *lake) error
		says  string // empty: it is good
	}{
		{"nothing", func(*lake) error { return nil }, ""},
		{"the oldest is archived", func(l *lake) error { return os.Remove(l.file(0)) }, ""},
		{"another's files", func(l *lake) error { return os.WriteFile(filepath.Join(l.folder(), "notes.parquet"), nil, 0o600) }, ""},
		{"another partition's", func(l *lake) error {
			return os.WriteFile(filepath.Join(l.folder(), "x.r-33-00000000000000000000.parquet"), nil, 0o600)
		}, ""},
		{"a file is missing", func(l *lake) error { return os.Remove(l.file(10)) }, "offsets 10 to 19 are missing"},
		{"a file is cut off", func(l *lake) error { return os.Truncate(l.file(10), 100) }, "cannot be read"},
		{"a file is empty", func(l *lake) error { return os.Truncate(l.file(20), 0) }, "cannot be read"},
		{"a file is another's", func(l *lake) error {
			f, err := os.Create(l.file(30))
			if err != nil {
				return err
			}
			w := parquet.NewGenericWriter[struct{ N int }](f)
			return errors.Join(w.Close(), f.Close())
		}, "the footer is not one of a sink"},
		{"a file was renamed", func(l *lake) error { return os.Rename(l.file(20), l.file(21)) }, "nobody may rename files"},
		{"a file is there under two names", func(l *lake) error {
			return os.Link(l.file(20), filepath.Join(l.folder(), "x.r-3-20.parquet"))
		}, "another name"},
		{"a name of a range", func(l *lake) error {
			return os.Link(l.file(20), filepath.Join(l.folder(), "x.r-3-00000000000000000020-30.parquet"))
		}, "another name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLake(t)
			w := l.open()
			p := l.claim(w, 0)
			for range 3 {
				p = l.mustWrite(w, p, p.Next+10, l.numbered(p.Next, 10)...)
			}
			if err := tt.spoil(l); err != nil {
				t.Fatal(err)
			}
			got, err := l.open().Claim(t.Context(), []cursor.ID{l.id}, map[cursor.ID]int64{l.id: 0})
			if tt.says == "" {
				if err != nil || got[l.id].Position != 30 {
					t.Errorf("claimed at %d, %v", got[l.id].Position, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) || consumer.VerdictOf(err).Kind != verdict.Stop {
				t.Errorf("got %v, want a stop that says %q", err, tt.says)
			}
		})
	}
}

// Files that overlap, as a bug or a person may leave them, are found.
func TestOverlap(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	w := l.open()
	p := l.claim(w, 0)
	l.mustWrite(w, p, 10, l.numbered(0, 10)...)
	p.Next = 5
	l.mustWrite(w, p, 15, l.numbered(5, 10)...)
	_, err := l.open().Claim(t.Context(), []cursor.ID{l.id}, map[cursor.ID]int64{l.id: 0})
	if err == nil || !strings.Contains(err.Error(), "both have offset 5") {
		t.Errorf("got %v", err)
	}
}

// Events that make no rows move the position all the same, and what cannot be decoded is buried first.
func TestEventsThatAreNoRows(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	w := l.open(func(c *Config) { c.Event = "x.R" })
	p := l.claim(w, 0)
	p = l.mustWrite(w, p, 1, event.Event{Meta: event.Meta{Topic: "x.r", Key: []byte("k")}}) // before any column is known
	p = l.mustWrite(w, p, 3, l.events(1, another, `{"n":1}`, `{"n":2}`)...)
	es := append(l.numbered(3, 2),
		event.Event{Meta: event.Meta{Topic: "x.r", Offset: 5}, Value: []byte{0, 0, 0, 0, 1}},
		event.Event{Meta: event.Meta{Topic: "x.r", Offset: 6}, Value: []byte(`{"n":1}`)},
		event.Event{Meta: event.Meta{Topic: "x.r", Offset: 7}})
	es[2].Value = es[0].Value[:7] // cut off
	to := p
	to.Next = 8
	var buried []int
	b := sink.Batch{From: p, To: to, Events: es, Bury: func(_ context.Context, i int, handler string, why error) error {
		if handler == "" || !errors.Is(why, schemas.ErrPoison) {
			t.Errorf("buried by %q: %v", handler, why)
		}
		buried = append(buried, i)
		return nil
	}}
	if err := w.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	slices.Sort(buried)
	if got := l.read(); !slices.Equal(got, []string{"n=3 old=x", "n=4 old=x"}) || !slices.Equal(buried, []int{2, 3}) {
		t.Errorf("rows %q, buried %v", got, buried)
	}
	if got := l.claim(l.open(), 0); got.Next != 8 {
		t.Errorf("claimed at %d, want 8", got.Next)
	}
	b.From, b.To.Next = b.To, 9
	failed := errors.New("no dead letters")
	b.Bury = func(context.Context, int, string, error) error { return failed }
	if err := w.Write(t.Context(), b); !errors.Is(err, failed) {
		t.Errorf("a dead letter that is not acknowledged: %v", err)
	}
	if got := l.claim(l.open(), 0); got.Next != 8 {
		t.Errorf("the position has passed an event that is nowhere: %d", got.Next)
	}
}

// Versions of a schema meet in a file that has the columns of both; what does not fit stops the sink, also after a restart.
func TestEvolution(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	w := l.open()
	p := l.claim(w, 0)
	p = l.mustWrite(w, p, 1, l.numbered(0, 1)...)
	l.mustWrite(w, p, 3, append(l.numbered(1, 1), l.events(2, v2, `{"n":2,"fresh":0.5}`)...)...)
	again := l.open()
	p = l.claim(again, 0)
	p = l.mustWrite(again, p, 4, l.numbered(3, 1)...)
	l.mustWrite(again, p, 5, l.events(4, v3, `{"n":4.5}`)...)
	want := []string{
		"n=0 old=x",
		"n=1 old=x fresh=<null>", "n=2 old=<null> fresh=0.5",
		"n=3 old=x fresh=<null>",
		"n=4.5 old=<null> fresh=<null>",
	}
	if got := l.read(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	last := l.open()
	p = l.claim(last, 0)
	_, err := l.write(last, p, 6, l.events(5, text, `{"n":"x"}`)...)
	if err == nil || !strings.Contains(err.Error(), "column n was a float and is a string") || consumer.VerdictOf(err).Kind != verdict.Stop {
		t.Errorf("a field of another type: %v", err)
	}
	l.mustWrite(last, p, 6, l.events(5, v3, `{"n":5.5}`)...)
	_, err = l.write(last, p, 7, l.events(6, another, `{"n":1}`)...)
	if err == nil || !strings.Contains(err.Error(), "x.R and x.Other") || consumer.VerdictOf(err).Kind != verdict.Stop {
		t.Errorf("a second type: %v", err)
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	w := l.open(func(c *Config) {
		c.Columns = []sink.Column{{Name: "at", From: "$offset"}, {Name: "who", From: "$key"}, {Name: "n"}, {Name: "fresh"}}
	})
	p := l.claim(w, 0)
	p = l.mustWrite(w, p, 1, l.numbered(0, 1)...)
	l.mustWrite(w, p, 3, append(l.numbered(1, 1), l.events(2, v2, `{"n":2}`)...)...)
	want := []string{"at=0 who=k n=0", "at=1 who=k n=1 fresh=<null>", "at=2 who=k n=2 fresh=1.5"}
	if got := l.read(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	w = l.open(func(c *Config) { c.Columns = []sink.Column{{Name: "at", From: "$nothing"}} })
	if _, err := l.write(w, sink.Place{ID: l.id, Next: 3}, 4, l.numbered(3, 1)...); err == nil || !strings.Contains(err.Error(), "no attribute") {
		t.Errorf("an attribute that is none: %v", err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg Config
		dec consumer.Decoder
		set func(s *sink.Setup)
	}{
		"no directory":      {Config{}, schemas.Memory(), func(*sink.Setup) {}},
		"no column's name":  {Config{Dir: t.TempDir(), Columns: []sink.Column{{}}}, schemas.Memory(), func(*sink.Setup) {}},
		"no registry":       {Config{Dir: t.TempDir()}, nil, func(*sink.Setup) {}},
		"ids are forgotten": {Config{Dir: t.TempDir()}, schemas.Memory(), func(s *sink.Setup) { s.Dedupe = time.Hour }},
		"no folder":         {Config{Dir: os.DevNull}, schemas.Memory(), func(*sink.Setup) {}},
	} {
		s := setup("x.r")
		tt.set(&s)
		if _, err := New(tt.cfg).Open(t.Context(), tt.dec, s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Another type after a restart is found as well, and so is a file that a person had written anew.
func TestRestart(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	w := l.open()
	p := l.mustWrite(w, l.claim(w, 0), 1, l.numbered(0, 1)...)
	again := l.open()
	l.claim(again, 0)
	if _, err := l.write(again, p, 2, l.events(1, another, `{"n":1}`)...); err == nil || !strings.Contains(err.Error(), "x.R and x.Other") {
		t.Errorf("a second type: %v", err)
	}
	l.mustWrite(w, p, 5, l.numbered(1, 4)...)
	if got := l.claim(again, 0); got.Next != 5 {
		t.Errorf("claimed at %d, want 5", got.Next)
	}
	if err := os.Remove(l.file(1)); err != nil { // written again, from here on
		t.Fatal(err)
	}
	l.mustWrite(w, p, 3, l.numbered(1, 2)...)
	if got := l.claim(again, 0); got.Next != 3 {
		t.Errorf("claimed at %d, want 3", got.Next)
	}
}

// What a process left half written is removed a day later, when no one can still be at it.
func TestLeftOver(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	w := l.open()
	old, fresh := filepath.Join(l.folder(), ".a.parquet.1.tmp"), filepath.Join(l.folder(), ".b.parquet.2.tmp")
	for _, name := range []string{old, fresh} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, w.now().Add(-tempAge)); err != nil {
		t.Fatal(err)
	}
	l.open()
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old one is there: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("the fresh one is gone: %v", err)
	}
}

// A directory that is away is waited for, and nothing is buried; nothing temporary stays behind.
func TestAway(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	w := l.open()
	p := l.claim(w, 0)
	gone := l.folder() + "-gone"
	if err := os.Rename(l.folder(), gone); err != nil {
		t.Fatal(err)
	}
	if _, err := l.write(w, p, 10, l.numbered(0, 10)...); consumer.VerdictOf(err).Kind != verdict.Pause {
		t.Errorf("got %v, want a pause", err)
	}
	if _, err := w.Claim(t.Context(), []cursor.ID{l.id}, nil); err == nil || consumer.VerdictOf(err).Kind == verdict.Stop {
		t.Errorf("claim: %v", err)
	}
	if err := os.Rename(gone, l.folder()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	to := p
	to.Next = 10
	if err := w.Write(ctx, sink.Batch{From: p, To: to, Events: l.numbered(0, 10)}); consumer.VerdictOf(err).Kind != verdict.Pause {
		t.Errorf("a write that may not: %v", err)
	}
	l.mustWrite(w, p, 10, l.numbered(0, 10)...)
	entries, err := os.ReadDir(l.folder())
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v: want a file and where it all began", entries, err)
	}
}

func TestDecimalSize(t *testing.T) {
	t.Parallel()
	for digits, want := range map[int]int{19: 9, 20: 9, 21: 9, 22: 10, 28: 12, 29: 13, 37: 16, 38: 16} {
		if got := decimalSize(digits); got != want {
			t.Errorf("%d digits: %d bytes, want %d", digits, got, want)
		}
	}
}

// Where a directory stands is in its files, for whoever asks; it is not moved but by taking files away.
func TestPositionsAreThoseOfTheFiles(t *testing.T) {
	t.Parallel()
	l := newLake(t)
	if at, err := New(Config{Dir: filepath.Join(l.dir, "none")}).Positions(t.Context(), "lake"); err != nil || len(at) != 0 {
		t.Errorf("a directory that is not there has %v, %v", at, err)
	}
	w := l.open()
	place := l.claim(w, 100)
	dir := New(Config{Dir: l.dir})
	if at, err := dir.Positions(t.Context(), "lake"); err != nil || len(at) != 0 {
		t.Errorf("a directory without files has %v, %v", at, err)
	}
	place, err := l.write(w, place, 110, l.numbered(100, 10)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.write(w, place, 125, l.numbered(110, 15)...); err != nil {
		t.Fatal(err)
	}
	at, err := dir.Positions(t.Context(), "lake")
	if err != nil || len(at) != 1 || at[0].ID != l.id || at[0].Next != 125 || time.Since(at[0].Updated) > time.Minute {
		t.Errorf("got %+v, %v, want offset 125 of partition 3", at, err)
	}
	if err := dir.Move(t.Context(), nil); !errors.Is(err, errFiles) {
		t.Errorf("moved: %v", err)
	}
	if err := dir.Swap(t.Context(), sink.Swap{}); !errors.Is(err, errFiles) {
		t.Errorf("swapped: %v", err)
	}
}
