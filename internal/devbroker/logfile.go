package devbroker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	maxLog   = 4 << 20          // bytes of a log before it becomes the old generation
	maxWords = 200              // bytes of a last line that are kept
	wordsAge = 10 * time.Second // an older complaint is none about the end
)

// LogFile is a child's log, of 4 MiB at most and with one old generation beside it (broker.log, broker.old.log). It
// keeps the line that tells most about an end: a panic, else the last one that is no mere information. Safe for
// concurrent use.
type LogFile struct {
	name string
	mu   sync.Mutex
	file *os.File
	size int64
	line []byte    // the unfinished last line, cut
	last string    // the last line that was neither empty nor information
	said time.Time // when it was
	bad  string    // the first line of a panic or fatal error
}

// OpenLog opens or makes the log at name, and its directory.
func OpenLog(name string) (*LogFile, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("make the log directory: %w", err)
	}
	l := &LogFile{name: name}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *LogFile) open() error {
	f, err := os.OpenFile(l.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Name is the log's path.
func (l *LogFile) Name() string { return l.name }

// Write appends p. What cannot be written is dropped and not an error: a full disk must not end the child, whose
// output is read only as long as it is taken.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch(p)
	if l.file != nil && l.size+int64(len(p)) > maxLog {
		l.turn()
	}
	if l.file != nil {
		n, _ := l.file.Write(p)
		l.size += int64(n)
	}
	return len(p), nil
}

// turn makes the log the old generation.
func (l *LogFile) turn() {
	_ = l.file.Close()
	l.file = nil
	ext := filepath.Ext(l.name)
	if err := os.Rename(l.name, strings.TrimSuffix(l.name, ext)+".old"+ext); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	_ = l.open()
}

func (l *LogFile) watch(p []byte) {
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte{'\n'})
		if room := maxWords - len(l.line); room > 0 {
			l.line = append(l.line, part[:min(len(part), room)]...)
		}
		if !ended {
			return
		}
		p = rest
		line := strings.ToValidUTF8(string(bytes.TrimSpace(l.line)), "?")
		l.line = l.line[:0]
		if line == "" || informs(line) {
			continue
		}
		l.last, l.said = strings.ReplaceAll(line, "\t", " "), time.Now()
		if l.bad == "" && (strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")) {
			l.bad = line
		}
	}
}

// informs reports whether line is that of a log, TIME<tab>LEVEL<tab>MESSAGE, at a level at which nothing is wrong.
func informs(line string) bool {
	_, rest, _ := strings.Cut(line, "\t")
	level, _, ok := strings.Cut(rest, "\t")
	return ok && (level == "INFO" || level == "DEBUG")
}

// LastWords is the panic, or the last complaint of the last seconds, written since it was last called; "no last words"
// when there is none.
func (l *LogFile) LastWords() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	words := l.bad
	if words == "" && time.Since(l.said) < wordsAge {
		words = l.last
	}
	l.bad, l.last = "", ""
	if words == "" {
		return "no last words"
	}
	return words
}

// Close closes the file; later writes are dropped.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}
