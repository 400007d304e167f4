package devbroker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The changes of a pass are on the disk when these return.

func truncate(path string, size int64) error {
	return change(path, os.O_WRONLY, func(f *os.File) error { return f.Truncate(size) })
}

func appendTo(path string, b []byte) error {
	return change(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// replace puts a file in the place of another, whole or not at all.
func replace(path string, b []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, b) {
		return nil
	}
	err := change(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("replace a file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func change(path string, flag int, do func(*os.File) error) error {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return fmt.Errorf("repair a file: %w", err)
	}
	err = do(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("repair %s: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open a directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write a directory to the disk: %w", err)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a file: %w", err)
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("copy a damaged file: %w", err)
	}
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy a damaged file: %w", err)
	}
	defer src.Close() //nolint:errcheck // it was only read
	return change(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, func(f *os.File) error {
		_, err := io.Copy(f, src)
		return err
	})
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
