package groups

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	backupsMost = 50 // of a group; the oldest go
	backupName  = "20060102T150405.000000000Z"
	backupEnd   = ".json"
)

// ErrNoBackup means that no offsets of the group were changed from here.
var ErrNoBackup = errors.New("there is nothing to undo: no offsets of the group were changed from here")

// Backups keeps the plans that were applied, in a folder for each cluster and group: what a group had before each change.
type Backups struct {
	// Dir is where they are kept; it is made when it is needed. Required.
	Dir string
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// Latest returns the plan that was applied last to the group, and the file that it is in. Without one the error is
// [ErrNoBackup].
func (b Backups) Latest(clusterID, group string) (Plan, string, error) {
	fail := func(err error) (Plan, string, error) {
		return Plan{}, "", fmt.Errorf("read backup of group %s: %w", group, err)
	}
	dir := b.folder(clusterID, group)
	names, err := backupsIn(dir)
	if err != nil {
		return fail(err)
	}
	if len(names) == 0 {
		return fail(ErrNoBackup)
	}
	file := filepath.Join(dir, names[len(names)-1])
	src, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	var p Plan
	if err := json.Unmarshal(src, &p); err != nil {
		return fail(fmt.Errorf("%s is damaged: %w", file, err))
	}
	if err := p.validate(); err != nil {
		return fail(fmt.Errorf("%s: %w", file, err))
	}
	return p, file, nil
}

// folder is where the backups of a group lie. A group may be called anything: what a file may not is replaced, and a hash
// keeps names apart.
func (b Backups) folder(clusterID, group string) string {
	safe := func(s string) string {
		clean := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
				return r
			}
			return '_'
		}, s)
		sum := sha256.Sum256([]byte(s))
		return clean[:min(len(clean), 80)] + "-" + hex.EncodeToString(sum[:4])
	}
	return filepath.Join(b.Dir, safe(clusterID), safe(group))
}

// backupsIn are the names of the backups in a folder, the oldest first.
func backupsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // in the order of their names
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), backupEnd) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

type kept struct{ file string }

// drop takes a backup away again.
func (k kept) drop() { _ = os.Remove(k.file) }

// keep writes the plan as the newest backup, whole or not at all, and takes the oldest away.
func (b Backups) keep(p Plan) (kept, error) {
	fail := func(err error) (kept, error) {
		return kept{}, fmt.Errorf("write a backup before the change: %w", err)
	}
	if b.Dir == "" {
		return fail(errors.New("there is no folder for it"))
	}
	now := b.Now
	if now == nil {
		now = time.Now
	}
	dir := b.folder(p.ClusterID, p.Group)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fail(err)
	}
	names, err := backupsIn(dir)
	if err != nil {
		return fail(err)
	}
	at := now().UTC()
	name := at.Format(backupName) + backupEnd
	if n := len(names); n > 0 && names[n-1] >= name { // a clock that went back, or stands, must not hide the newest
		last, err := time.Parse(backupName, strings.TrimSuffix(names[n-1], backupEnd))
		if err != nil {
			return fail(fmt.Errorf("%s is no backup: take it out of the folder", filepath.Join(dir, names[n-1])))
		}
		name = last.Add(1).Format(backupName) + backupEnd
	}
	file := filepath.Join(dir, name)
	if err := writeFile(file, append(text, '\n')); err != nil {
		return fail(err)
	}
	for _, old := range names[:max(0, len(names)+1-backupsMost)] {
		_ = os.Remove(filepath.Join(dir, old)) // one more does no harm
	}
	return kept{file}, nil
}

// writeFile writes a file that is there whole or not at all, also after a crash.
func writeFile(file string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already where all went well
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
