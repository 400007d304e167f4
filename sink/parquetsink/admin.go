package parquetsink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/sink"
)

var _ sink.Admin = (*Dir)(nil)

// errFiles is what there is to do in place of moving a position.
var errFiles = errors.New("a directory of files has no position beside them: to write a partition's newest files again, stop the sink and take them away; to write all of it again, read it under another name into another directory")

// Positions implements [sink.Admin]: where the chains of files end, whatever sink wrote them. Epoch is 0, for nobody needs
// to be fenced.
func (d *Dir) Positions(ctx context.Context, name string) ([]sink.Position, error) {
	entries, err := os.ReadDir(d.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look into the directory: %w", err)
	}
	w := &writer{cfg: d.cfg, now: time.Now, footers: map[stamp]footer{}}
	var out []sink.Position
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		t := &topic{name: e.Name(), folder: filepath.Join(d.cfg.Dir, e.Name())}
		partitions, err := t.partitions()
		if err != nil {
			return nil, err
		}
		for _, p := range partitions {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			at, err := w.position(t, name, p)
			if err != nil {
				return nil, err
			}
			out = append(out, at)
		}
	}
	return out, nil
}

// partitions are those that have files, ascending.
func (t *topic) partitions() ([]int32, error) {
	entries, err := os.ReadDir(t.folder)
	if err != nil {
		return nil, fmt.Errorf("look into the directory: %w", err)
	}
	var out []int32
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), t.name+"-")
		if !ok || !strings.HasSuffix(rest, suffix) {
			continue
		}
		number, _, _ := strings.Cut(rest, "-")
		if p, err := strconv.ParseInt(number, 10, 32); err == nil && !slices.Contains(out, int32(p)) {
			out = append(out, int32(p))
		}
	}
	slices.Sort(out)
	return out, nil
}

func (w *writer) position(t *topic, name string, partition int32) (sink.Position, error) {
	files, err := w.chain(t, partition)
	if err != nil {
		return sink.Position{}, err
	}
	if len(files) == 0 { // what began with its name is no file of ours
		return sink.Position{}, fmt.Errorf("%w: %s has no file of partition %d", errForm, t.folder, partition)
	}
	last := files[len(files)-1]
	at := sink.Position{ID: cursor.ID{Reader: name, Topic: t.name, TopicID: last.topicID, Partition: partition}, Next: last.end}
	info, err := os.Stat(filepath.Join(t.folder, fileName(t.name, partition, last.start)))
	if err != nil {
		return at, err
	}
	at.Updated = info.ModTime()
	return at, nil
}

// Move implements [sink.Admin]. It refuses.
func (d *Dir) Move(context.Context, []sink.Move) error { return errFiles }

// Swap implements [sink.Admin]. It refuses.
func (d *Dir) Swap(context.Context, sink.Swap) error { return errFiles }

// Discard implements [sink.Admin]. It refuses.
func (d *Dir) Discard(context.Context, sink.Swap) error { return errFiles }
