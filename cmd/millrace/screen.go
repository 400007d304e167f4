package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/service"
	"github.com/millrace/millrace/topics"
)

const (
	drawEvery  = 250 * time.Millisecond
	plainEvery = 3 * time.Second
	noteLines  = 10
	notesKept  = 200
	ctrlC      = 3
)

// owesNow marks a row whose debt is the end of its topics at the next look.
const owesNow = -1

// board is what the screen shows. The parts of millrace dev write to it as things happen.
type board struct {
	mu       sync.Mutex
	flags    devFlags
	broker   devbroker.Up
	down     string // how the broker crashed, while it is down
	full     bool   // it refuses writes
	crashes  int
	registry string
	gateway  string // where senders post, "" where nothing is taken in
	specs    []topics.Spec
	rows     []*row
	dead     int64
	notes    []note
	noted    int // notes ever made
}

type note struct {
	at   time.Time
	text string
}

// lines is the note over lines of at most width-1 characters, broken between words; a longer word is cut by the screen.
func (n note) lines(width int) []styled {
	const indent = "         " // of the time
	line, words := n.at.Format("15:04:05"), 0
	var lines []styled
	for word := range strings.FieldsSeq(n.text) {
		if words > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width-1 {
			lines = append(lines, styled{line, plain})
			line, words = indent[1:], 0
		}
		line += " " + word
		words++
	}
	return append(lines, styled{line, plain})
}

// row is a service.
type row struct {
	name      string
	pid       int // 0: it does not run
	state     string
	status    service.Status
	restarts  int
	group     bool  // it has a group; then
	done, end int64 // are its position and the end of its topics, as sums of offsets
	killed    bool  // by us, and not yet caught up
	owes      int64 // what it must have done to have caught up
}

func newBoard(f devFlags) *board { return &board{flags: f} }

func (b *board) brokerUp(up devbroker.Up) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != "" {
		b.noteLocked("the broker is back (pid %d) at %s", up.PID, up.Addr)
	}
	b.broker, b.down, b.full = up, "", false
}

func (b *board) brokerFull(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
	if full {
		b.noteLocked("the broker is full and refuses writes (POLICY_VIOLATION): delete a topic, or set a smaller retention.bytes")
	} else {
		b.noteLocked("the broker has room again and takes writes")
	}
}

func (b *board) brokerDown(d devbroker.Down) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.crashes++
	b.down = d.State
	b.noteLocked("the broker (pid %d) crashed with %s and is started again: %s (%s)", d.PID, d.State, d.LastWords, d.Log)
}

func (b *board) registryUp(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.registry = url
}

func (b *board) gatewayUp(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gateway = url
}

func (b *board) declared(specs []topics.Spec) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.specs = append(b.specs, specs...)
}

func (b *board) serve(names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range names {
		b.rows = append(b.rows, &row{name: name, state: "starting"})
	}
}

// row changes the row of a service.
func (b *board) row(name string, change func(r *row)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.rows {
		if r.name == name {
			change(r)
			return
		}
	}
}

// positionLocked takes a look at a group. A consumer that was killed has lost nothing once its group's position is past
// all that was in its topics when it died.
func (b *board) positionLocked(r *row, done, end int64) {
	r.group, r.done, r.end = true, done, end
	if r.owes == owesNow {
		r.owes = end
		return
	}
	if r.killed && r.pid != 0 && r.state == "running" && done >= r.owes {
		b.noteLocked("%s is back (pid %d): all %s events up to its death are done, none is missing, lag %s", r.name, r.pid, number(r.owes), number(end-done))
		r.killed, r.owes = false, 0
	}
}

func (b *board) deadLetters(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead = n
}

// victim is the n-th running consumer, counted around; its pid is 0 when it does not run.
func (b *board) victim(n int) row {
	b.mu.Lock()
	defer b.mu.Unlock()
	var consumers []*row
	for _, r := range b.rows {
		if r.group {
			consumers = append(consumers, r)
		}
	}
	if len(consumers) == 0 {
		return row{}
	}
	return *consumers[n%len(consumers)]
}

func (b *board) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noteLocked(format, args...)
}

func (b *board) noteLocked(format string, args ...any) {
	for text := range strings.Lines(fmt.Sprintf(format, args...)) { // an error may have several
		b.notes = append(b.notes, note{time.Now(), printable(strings.TrimRight(text, "\n"))})
		b.noted++
	}
	if len(b.notes) > notesKept {
		b.notes = b.notes[len(b.notes)-notesKept:]
	}
}

// style is how a line looks where colours are wanted.
type style string

const (
	plain style = ""
	bold  style = "1"
	faint style = "2"
	red   style = "31"
)

type styled struct {
	text  string
	style style
}

// places says what runs where and what to type next. It changes with a crash only.
func (b *board) places() []styled {
	lines := []styled{{"Millrace dev: one broker, not replicated; data and logs/ are in " + b.flags.data, bold}}
	if b.down == "" {
		lines = append(lines, styled{fmt.Sprintf("  broker    %-26s pid %d%s", b.broker.Addr, b.broker.PID, times(b.crashes, "crash")), plain})
	} else {
		lines = append(lines, styled{fmt.Sprintf("  broker    %-26s DOWN (%s), starting again", b.broker.Addr, b.down), red})
	}
	if b.full {
		lines = append(lines, styled{"            FULL: it refuses writes until topics are deleted or retention makes room", red})
	}
	if b.registry != "" {
		lines = append(lines, styled{"  registry  " + b.registry, plain})
	}
	if b.gateway != "" {
		lines = append(lines, styled{"  webhooks  " + b.gateway, plain})
	}
	lines = append(lines, styled{"  promise   " + b.promise(), plain}, styled{}, styled{elsewhere(), bold})
	if b.broker.Addr != defaultHere(9092) || b.registry != "" && b.registry != "http://"+defaultHere(8081) {
		lines = append(lines, styled{"  " + export(devbroker.Holder{Broker: b.broker.Addr}), plain})
		if b.registry != "" {
			lines = append(lines, styled{"  export MILLRACE_REGISTRY=" + b.registry, plain})
		}
	}
	for _, next := range b.next() {
		lines = append(lines, styled{fmt.Sprintf("  %-40s %s", next[0], next[1]), plain})
	}
	return lines
}

// elsewhere heads what to type next, which begins with millrace: from a build that is not on the PATH it says how.
func elsewhere() string {
	dir := filepath.Dir(os.Args[0])
	if _, err := exec.LookPath("millrace"); err == nil || dir == "." {
		return "In another terminal:"
	}
	if !filepath.IsAbs(dir) {
		dir = "$PWD/" + dir
	}
	return "In another terminal, after  export PATH=" + dir + ":$PATH"
}

// promise is what the broker keeps and what it does not, on one line of 80 characters.
func (b *board) promise() string {
	if b.flags.sync {
		return "a kill or a power failure loses nothing acknowledged; a bad disk may"
	}
	return "a kill loses nothing acknowledged; a power failure may (see --sync)"
}

func defaultHere(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// times is ", 2 crashes", and nothing for none.
func times(n int, what string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return ", 1 " + what
	default:
		return fmt.Sprintf(", %d %ses", n, what)
	}
}

// next is what to type next, with what it shows.
func (b *board) next() [][2]string {
	if len(b.specs) == 0 {
		return [][2]string{
			{"millrace topics ls", "what is there: nothing yet"},
			{"millrace topics apply DIR", "create what the files in DIR declare"},
			{"millrace dev --demo", "with a demo shop (stop this one)"},
		}
	}
	topic := b.specs[0].Name
	for _, s := range b.specs {
		if strings.HasSuffix(s.Name, "orders") {
			topic = s.Name
		}
	}
	next := [][2]string{
		{"millrace tail " + topic + " -n 5", "the last events; without -n, live"},
		{"millrace groups lag", "who is behind, in events and seconds"},
	}
	if b.flags.demo {
		next = append(next, [2]string{"millrace tail " + topic + ".shipping.dlq", "what could not be handled, and why"})
	}
	return next
}

func (b *board) keys() styled {
	if b.flags.demo {
		return styled{"k kills a consumer   p adds poison   q quits", faint}
	}
	return styled{"q quits", faint}
}

// block is the whole screen, at most height lines. Of the notes the newest stand in it, over as many lines as they need:
// what happened is often said at their end. Results that have no room in the table stand beneath it, when what happened
// in the last minute leaves some.
func (b *board) block(width, height int, now time.Time) []styled {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := b.places()
	table, results := b.table(width)
	if table != nil {
		lines = append(append(lines, styled{}), table...)
	}
	if len(lines)+3 > height { // better no empty line than no line of keys
		lines = slices.DeleteFunc(lines, func(l styled) bool { return l.text == "" })
	}
	room := height - len(lines) - 2 // of the keys, and the line that stays empty
	recent := 0
	for _, n := range b.notes {
		if now.Sub(n.at) < recentNotes {
			recent += len(n.lines(width))
		}
	}
	beneath := []styled{{}}
	if len(results) > 0 && len(results) <= room-min(recent, noteLines) {
		beneath = results
	}
	lines, room = append(append(lines, beneath...), b.keys()), room-len(beneath)
	room = min(noteLines, room)
	var notes []styled
	for _, n := range slices.Backward(b.notes) {
		whole := n.lines(width)
		if left := room - len(notes); len(whole) > left {
			if len(notes) == 0 && left > 0 { // better its beginning than nothing
				notes = whole[:left]
				notes[left-1].text += " …"
			}
			break
		}
		notes = append(whole, notes...)
	}
	lines = append(lines, notes...)
	return lines[:min(len(lines), max(height-1, 1))]
}

// screen draws a board: on a terminal as a block of lines that is written over, elsewhere as lines that follow each
// other.
type screen struct {
	out    io.Writer
	term   *os.File // nil: no terminal
	color  bool
	keys   chan byte // closed never; nothing comes without a terminal to type into
	reset  func()
	drawn  int // lines of the block on the terminal
	opened bool
	noted  int
	last   time.Time
}

// openScreen takes hold of the terminal, if there is one; close gives it back.
func (a *app) openScreen() *screen {
	s := &screen{out: a.out, keys: make(chan byte), reset: func() {}}
	if !isTerminal(a.out) {
		return s
	}
	s.term, _ = a.out.(*os.File)
	s.color = a.getenv("NO_COLOR") == ""
	in, ok := a.in.(*os.File)
	if !ok || !isTerminal(in) {
		return s
	}
	before, err := term.MakeRaw(int(in.Fd())) // single keys, without Enter
	if err != nil {
		return s
	}
	s.reset = func() { _ = term.Restore(int(in.Fd()), before) }
	go func() { // stays until the process ends: a read of a terminal cannot be called off
		var key [1]byte
		for {
			if _, err := in.Read(key[:]); err != nil {
				return
			}
			s.keys <- key[0]
		}
	}()
	return s
}

func (s *screen) draw(b *board, now time.Time) {
	if s.term != nil {
		s.drawBlock(b, now)
		return
	}
	s.drawPlain(b, now)
}

func (s *screen) drawBlock(b *board, now time.Time) {
	width, height, err := term.GetSize(int(s.term.Fd()))
	if err != nil || width < 1 || height < 2 {
		width, height = 80, 24
	}
	lines := b.block(width, height, now)
	var out strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", min(s.drawn, height-1))
	}
	for _, l := range lines {
		out.WriteString(s.paint(clip(l.text, width-1), l.style) + "\x1b[K\r\n")
	}
	out.WriteString("\x1b[J")
	fmt.Fprint(s.out, out.String())
	s.drawn = len(lines)
}

// drawPlain prints the places once, each note once, and the table every few seconds.
func (s *screen) drawPlain(b *board, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []styled
	if !s.opened {
		s.opened = true
		lines = append(lines, b.places()...)
	}
	fresh := min(b.noted-s.noted, len(b.notes))
	for _, n := range b.notes[len(b.notes)-fresh:] {
		lines = append(lines, styled{text: n.at.Format("15:04:05 ") + n.text})
	}
	s.noted = b.noted
	if now.Sub(s.last) >= plainEvery {
		s.last = now
		table, _ := b.table(math.MaxInt32) // whatever reads it may break lines
		lines = append(lines, table...)
	}
	for _, l := range lines {
		fmt.Fprintln(s.out, l.text)
	}
}

func (s *screen) paint(text string, st style) string {
	if !s.color || st == plain || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

// clip cuts text to a terminal's width; a cut line ends with an ellipsis.
func clip(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:max(width-1, 0)]) + "…"
}

func (s *screen) close() { s.reset() }
