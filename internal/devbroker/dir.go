package devbroker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	dataFormat = 1 // of kfake's meta.json
	lockPoll   = 50 * time.Millisecond
	maxHolder  = 4 << 10 // bytes of a lock that are read
)

// Holder is who holds a directory.
type Holder struct {
	PID      int       `json:"pid"`
	Since    time.Time `json:"since"`
	Broker   string    `json:"broker,omitempty"`   // its broker's address, once it has one
	Registry string    `json:"registry,omitempty"` // its registry's URL, once it has one
}

// HeldError says that another process holds a directory.
type HeldError struct {
	Dir    string
	Holder Holder // zero PID: the process had no time yet to say who it is
}

func (e *HeldError) Error() string {
	if e.Holder.PID == 0 {
		return e.Dir + " is held by another process"
	}
	return fmt.Sprintf("%s is held by process %d", e.Dir, e.Holder.PID)
}

// Lock is the hold on a directory. The system lets it go when the process ends, however it ends.
type Lock struct {
	file   *os.File
	holder Holder
}

// Acquire makes dir, readable by its owner alone, and takes the hold on it. A *HeldError says who else has it.
func Acquire(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory needs the x
		return nil, fmt.Errorf("make %s private: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	got, err := tryLock(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	if !got {
		held := &HeldError{Dir: dir}
		b, _ := io.ReadAll(io.LimitReader(f, maxHolder))
		_ = json.Unmarshal(b, &held.Holder) // who it is helps a person, and only that
		_ = f.Close()
		return nil, held
	}
	l := &Lock{file: f}
	if err := l.Describe(Holder{}); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l, nil
}

// AcquireWithin is Acquire that waits for a holder to end.
func AcquireWithin(ctx context.Context, dir string, wait time.Duration) (*Lock, error) {
	deadline, ticker := time.NewTimer(wait), time.NewTicker(lockPoll)
	defer deadline.Stop()
	defer ticker.Stop()
	for {
		l, err := Acquire(dir)
		if held := (*HeldError)(nil); !errors.As(err, &held) {
			return l, err
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return nil, err
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
}

// Describe tells others what this process serves. PID and Since are filled in.
func (l *Lock) Describe(h Holder) error {
	h.PID = os.Getpid()
	if h.Since = l.holder.Since; h.Since.IsZero() {
		h.Since = time.Now().UTC().Truncate(time.Second)
	}
	l.holder = h
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("describe the holder: %w", err)
	}
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write the lock: %w", err)
	}
	if _, err := l.file.WriteAt(append(b, '\n'), 0); err != nil {
		return fmt.Errorf("write the lock: %w", err)
	}
	return nil
}

// Release lets the directory go. The file stays: removing it would let two processes lock two files of one name.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("release the lock: %w", err)
	}
	return nil
}

// admit refuses data that kfake would read wrongly or that do not fit into memory.
func admit(data string, maxSize int64) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	meta, err := os.ReadFile(filepath.Join(data, "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(data, "partitions")); err == nil {
			return fmt.Errorf("%w: %s has partitions and no meta.json", ErrUnreadable, data)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the data's format: %w", err)
	}
	var m struct{ Version int }
	if err := json.Unmarshal(meta, &m); err != nil {
		return fmt.Errorf("%w: %s/meta.json is damaged: %w", ErrUnreadable, data, err)
	}
	if m.Version != dataFormat {
		return fmt.Errorf("%w: %s has format %d, and this version of millrace reads format %d (the version that wrote it still does)", ErrUnreadable, data, m.Version, dataFormat)
	}
	size, err := sizeOf(data)
	if err != nil {
		return err
	}
	if size > maxSize {
		return fmt.Errorf("%w: %s holds %d MiB, and the development broker loads %d MiB at most", ErrUnreadable, data, size>>20, maxSize>>20)
	}
	return nil
}

// SetAside moves the data of the broker in dir out of its way, so that the next start is empty, and returns where they
// are now; "" when there were none.
func SetAside(ctx context.Context, dir string, now time.Time) (kept string, err error) {
	lock, err := AcquireWithin(ctx, dir, lockWait)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	data := filepath.Join(dir, "data")
	kept = data + "." + now.UTC().Format("20060102T150405.000Z")
	if err := os.Rename(data, kept); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("set the data aside: %w", err)
	}
	return kept, removeIfThere(filepath.Join(dir, cleanMark))
}

func sizeOf(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // retention was faster
		}
		if err != nil {
			return err
		}
		size += info.Size()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure the data: %w", err)
	}
	return size, nil
}

// remembered is the address in the file memory; "" at the first start.
func remembered(memory string) (string, error) {
	b, err := os.ReadFile(memory)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the remembered address: %w", err)
	}
	addr := strings.TrimSpace(string(b))
	if addr == "" {
		return "", nil // a crash between the file and its words
	}
	if err := checkLoopback(addr); err != nil {
		return "", fmt.Errorf("read the remembered address in %s: %w", memory, err)
	}
	return addr, nil
}

// remember keeps the address for the next start.
func remember(memory, addr string) error {
	if err := os.WriteFile(memory+".tmp", []byte(addr+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember the address: %w", err)
	}
	if err := os.Rename(memory+".tmp", memory); err != nil {
		return fmt.Errorf("remember the address: %w", err)
	}
	return nil
}
