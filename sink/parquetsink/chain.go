package parquetsink

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// errForm means that the directory is not as this package leaves it, or that columns cannot be written: a person has
// to look.
var errForm = errors.New("the directory needs a person")

// The keys of a footer.
const (
	keyTopicID = "millrace.topic_id"
	keyStart   = "millrace.start"
	keyEnd     = "millrace.end"
	keyEvent   = "millrace.event"
	keyColumns = "millrace.columns"
)

// footer is what a file says of itself.
type footer struct {
	start, end int64
	topicID    [16]byte
	event      string // the type of its events, empty where no event told
	columns    []schemas.Column
}

// stamp tells one file from another that had its name before.
type stamp struct {
	path string
	size int64
	at   int64 // nanoseconds since 1970
}

// tempAge is when a temporary file is left over: its process has ended, or will find that it is gone.
const tempAge = 24 * time.Hour

const (
	suffix     = ".parquet"
	tempSuffix = ".tmp"
)

// tidy removes temporary files that are left over.
func (w *writer) tidy(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), tempSuffix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if w.now().Sub(info.ModTime()) < tempAge {
			continue
		}
		if err := os.Remove(filepath.Join(folder, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// fileName is the name of the file that begins at start: nothing else is in it, so that there is one such file.
func fileName(topic string, partition int32, start int64) string {
	return fmt.Sprintf("%s-%d-%020d%s", topic, partition, start, suffix)
}

// name is fileName, unless a bug is planted.
func (w *writer) name(topic string, partition int32, start, end int64) string {
	if w.plant.rangeNames {
		return fmt.Sprintf("%s-%d-%020d-%d%s", topic, partition, start, end, suffix)
	}
	return fileName(topic, partition, start)
}

// startOf is where a file of the partition begins, by its name.
func startOf(name, topic string, partition int32) (int64, bool) {
	rest, ok := strings.CutPrefix(name, fmt.Sprintf("%s-%d-", topic, partition))
	if !ok {
		return 0, false
	}
	if rest, ok = strings.CutSuffix(rest, suffix); !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, "-") // what follows a hyphen is no name of this package, and found by the chain
	start, err := strconv.ParseInt(digits, 10, 64)
	return start, err == nil && start >= 0
}

// claim is where the partition goes on: the end of its chain, else where it was first claimed at, which is start for the
// first who asks.
func (w *writer) claim(id cursor.ID, start int64) (int64, error) {
	t, err := w.topic(id.Topic)
	if err != nil {
		return 0, err
	}
	files, err := w.chain(t, id.Partition)
	if err != nil {
		return 0, err
	}
	if len(files) == 0 {
		return w.anchor(t, id, start)
	}
	last := files[len(files)-1]
	if last.topicID != id.TopicID && last.topicID != [16]byte{} && id.TopicID != [16]byte{} {
		return 0, sink.ErrOtherTopic
	}
	if err := t.recall(last); err != nil {
		return 0, fmt.Errorf("%w: %s: %w", errForm, t.folder, err)
	}
	return last.end, nil
}

// chain reads the files of a partition in their order, and checks that each begins where the one before it ends.
func (w *writer) chain(t *topic, partition int32) ([]footer, error) {
	entries, err := os.ReadDir(t.folder)
	if err != nil {
		return nil, err
	}
	type file struct {
		name  string
		start int64
	}
	var files []file
	for _, e := range entries {
		if start, ok := startOf(e.Name(), t.name, partition); ok {
			files = append(files, file{e.Name(), start})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	var out []footer
	for i, f := range files {
		path := filepath.Join(t.folder, f.name)
		foot, err := w.footer(path)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %s cannot be read: %w: take it away with all that come after it, and they are written again", errForm, path, err)
		case foot.start != f.start || f.name != w.name(t.name, partition, foot.start, foot.end):
			return nil, fmt.Errorf("%w: %s has the rows from offset %d on, and another name: nobody may rename files", errForm, path, foot.start)
		case i > 0 && foot.start > out[i-1].end:
			return nil, fmt.Errorf("%w: between %s and %s offsets %d to %d are missing: bring the file back, or take away all that come after it", errForm, files[i-1].name, path, out[i-1].end, foot.start-1)
		case i > 0 && foot.start < out[i-1].end:
			return nil, fmt.Errorf("%w: %s and %s both have offset %d", errForm, files[i-1].name, path, foot.start)
		}
		out = append(out, foot)
	}
	return out, nil
}

// footer reads what a file says of itself, once: files never change, though a person may have them written again.
func (w *writer) footer(path string) (footer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return footer{}, err
	}
	key := stamp{path, info.Size(), info.ModTime().UnixNano()}
	w.mu.Lock()
	known, ok := w.footers[key]
	w.mu.Unlock()
	if ok {
		return known, nil
	}
	f, err := readFooter(path)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.footers[key] = f
	}
	return f, err
}

func readFooter(path string) (_ footer, err error) {
	defer func() { // the file may be anyone's
		if v := recover(); v != nil {
			err = fmt.Errorf("read the footer: %v", v)
		}
	}()
	file, err := os.Open(path)
	if err != nil {
		return footer{}, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return footer{}, err
	}
	p, err := parquet.OpenFile(file, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return footer{}, err
	}
	get := func(key string) string {
		v, _ := p.Lookup(key)
		return v
	}
	start, startErr := strconv.ParseInt(get(keyStart), 10, 64)
	end, endErr := strconv.ParseInt(get(keyEnd), 10, 64)
	id, idErr := hex.DecodeString(get(keyTopicID))
	columns, columnsErr := unmarshalColumns(get(keyColumns))
	if err := errors.Join(startErr, endErr, idErr, columnsErr); err != nil || len(id) != 16 || start < 0 || end <= start {
		return footer{}, fmt.Errorf("the footer is not one of a sink: %w", errors.Join(errForm, err))
	}
	return footer{start, end, [16]byte(id), get(keyEvent), columns}, nil
}

// anchorJSON is where a partition begins that has no file yet.
type anchorJSON struct {
	Start   int64  `json:"start"`
	TopicID string `json:"topic_id"`
}

// anchor is where a partition without files begins. Whoever claims it first says so for all: else an owner of before
// could begin elsewhere, and add a file whose rows others have as well.
func (w *writer) anchor(t *topic, id cursor.ID, start int64) (int64, error) {
	path := filepath.Join(t.folder, fmt.Sprintf(".%s-%d.start", t.name, id.Partition))
	for range 2 {
		text, err := os.ReadFile(path)
		if err == nil {
			var a anchorJSON
			if err := json.Unmarshal(text, &a); err != nil || a.Start < 0 {
				return 0, fmt.Errorf("%w: %s says nothing: remove it, and the partition begins where the sink does", errForm, path)
			}
			if none := hex.EncodeToString(make([]byte, 16)); a.TopicID != hex.EncodeToString(id.TopicID[:]) && a.TopicID != none && id.TopicID != [16]byte{} {
				return 0, sink.ErrOtherTopic
			}
			return a.Start, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		if text, err = json.Marshal(anchorJSON{start, hex.EncodeToString(id.TopicID[:])}); err != nil {
			return 0, err
		}
		err = w.put(t, path, func(f *os.File) error {
			_, err := f.Write(text)
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%s appears and is gone again", path)
}
