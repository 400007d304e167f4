package parquetsink

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// publish writes the file of a batch.
func (w *writer) publish(ctx context.Context, t *topic, b sink.Batch, rows *schemas.Rows) error {
	path := filepath.Join(t.folder, w.name(t.name, b.To.ID.Partition, b.From.Next, b.To.Next))
	err := w.put(t, path, func(f *os.File) error { return writeFile(ctx, f, t.kind(), b, rows) })
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write %s: %w: the file is there", path, sink.ErrNotOwner)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// put makes a file under a temporary name, and gives it its own when all of it is on the disk. The error wraps
// fs.ErrExist where the name is taken.
func (w *writer) put(t *topic, path string, write func(f *os.File) error) error {
	f, err := os.CreateTemp(t.folder, "."+filepath.Base(path)+".*"+tempSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // what cannot be removed is left over, and removed one day
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if w.plant.rename {
		err = os.Rename(f.Name(), path)
	} else {
		err = os.Link(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(t.folder)
}

// probe finds out whether files can have two names here, before anything depends on it.
func probe(folder string) error {
	f, err := os.CreateTemp(folder, ".probe.*"+tempSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is left over, and removed one day
	if err := f.Close(); err != nil {
		return err
	}
	second := f.Name() + tempSuffix
	if err := os.Link(f.Name(), second); err != nil {
		return fmt.Errorf("hard links are needed, and the file system has none: %w", err)
	}
	return os.Remove(second)
}

// syncDir brings the names in a directory to the disk.
func syncDir(path string) error {
	if runtime.GOOS == "windows" { // it has no such thing: NTFS keeps a journal of names
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// piece is how many values are handed over at once.
const piece = 4096

// writeFile writes rows, which may be nil, of events of a type, as one row group.
func writeFile(ctx context.Context, out io.Writer, kind string, b sink.Batch, rows *schemas.Rows) (err error) {
	var columns []schemas.Column
	if rows != nil {
		columns = rows.Columns()
	}
	defer func() { // the library panics where it does not like a schema
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errForm, v)
		}
	}()
	text, err := marshalColumns(columns)
	if err != nil {
		return err
	}
	pw := parquet.NewGenericWriter[any](out,
		schemaOf(b.To.ID.Topic, columns),
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}),
		parquet.CreatedBy("github.com/millrace/millrace", "", ""),
		parquet.KeyValueMetadata(keyTopicID, hex.EncodeToString(b.To.ID.TopicID[:])),
		parquet.KeyValueMetadata(keyStart, strconv.FormatInt(b.From.Next, 10)),
		parquet.KeyValueMetadata(keyEnd, strconv.FormatInt(b.To.Next, 10)),
		parquet.KeyValueMetadata(keyEvent, kind),
		parquet.KeyValueMetadata(keyColumns, text),
	)
	if rows != nil && rows.Len() > 0 {
		values := make([]parquet.Value, piece)
		for i, cw := range pw.ColumnWriters() {
			fill := filler(rows, i)
			for from := 0; from < rows.Len(); from += piece {
				if err := ctx.Err(); err != nil {
					return err
				}
				part := values[:min(piece, rows.Len()-from)]
				for k := range part {
					part[k] = fill(from + k)
				}
				if _, err := cw.WriteRowValues(part); err != nil {
					return fmt.Errorf("column %s: %w", columns[i].Name, err)
				}
			}
		}
	}
	return pw.Close()
}
