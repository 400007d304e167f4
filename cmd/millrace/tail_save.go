package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// saver writes a set of events to a file that is there whole or not at all.
type saver struct {
	path string // where it will be
	file *os.File
	w    *bufio.Writer
	n    int64
}

// newSaver makes a file beside path: what cannot be written is found out before anything is read.
func newSaver(path string) (*saver, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("--save %s: it is there and no plain file", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("--save: %w", err)
	}
	return &saver{path: path, file: f, w: bufio.NewWriterSize(f, 64<<10)}, nil
}

func (s *saver) add(line []byte) error {
	s.n++
	_, _ = s.w.Write(line) // a bufio.Writer keeps its error for the next call
	if err := s.w.WriteByte('\n'); err != nil {
		return fmt.Errorf("save events: %w", err)
	}
	return nil
}

// commit puts the file into its place.
func (s *saver) commit() error {
	err := errors.Join(s.w.Flush(), s.file.Sync(), s.file.Close())
	if err == nil {
		err = os.Rename(s.file.Name(), s.path)
	}
	if err != nil {
		_ = os.Remove(s.file.Name())
		return fmt.Errorf("save events: %w", err)
	}
	return nil
}

// discard leaves what was there before.
func (s *saver) discard() {
	_ = s.file.Close()
	_ = os.Remove(s.file.Name())
}
