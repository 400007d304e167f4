package kafkatest

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	prefix     = "millrace-kafka-"
	failedMark = "failed" // in a directory whose logs someone may want to read
)

// temporary makes a directory for one cluster, after removing those that earlier processes left behind: a test
// binary ends without a word to us.
func temporary() (string, error) {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		if abandoned(dir) {
			_ = os.RemoveAll(dir) // someone else may be at it too
		}
	}
	return os.MkdirTemp("", prefix)
}

// abandoned reports whether nobody holds the directory's lock. One in which a test failed is kept for a day.
func abandoned(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil || time.Since(info.ModTime()) < time.Minute {
		return false // perhaps its lock is about to be made
	}
	if _, err := os.Stat(filepath.Join(dir, failedMark)); err == nil && time.Since(info.ModTime()) < 24*time.Hour {
		return false
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer func() { _ = f.Close() }()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
