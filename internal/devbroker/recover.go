package devbroker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
)

// ErrUnreadable is wrapped by the error for data that this version does not read: damaged, of another format, or too
// large. [SetAside] keeps them and makes room for an empty directory.
var ErrUnreadable = errors.New("data that cannot be used")

// Recovered is what a pass over the data of a broker came to.
type Recovered struct {
	Bytes     int64 // of record batches, each of them checked
	Torn      int   // files that ended within an entry, which was cut off
	Indexes   int   // that were written anew
	Committed int   // transactions whose end was under way
	Aborted   int   // transactions that were open
	Producers int   // windows of producers, by partition
}

// recovery is one pass over the data of a broker that is not running. kfake keeps in memory what it should have on
// disk, and writes in an order that a kill can tear:
//
//   - which batches a producer has sent (its windows): a batch that is sent again after a kill is appended twice;
//   - a batch and its index entry: with one entry short, the flags of all later batches are another's;
//   - the ends of a transaction, partition by partition, and after them the producer's state: a part is committed, the
//     rest is not, and the client that asks again is told what did not happen.
//
// The record batches tell all of it, so a pass reads them and writes the rest anew. It can be killed anywhere and run
// again: each step leaves the data such that the next pass decides the same.
type recovery struct {
	data    string
	clean   bool   // kfake itself saved its state, open transactions included: only check
	aside   string // where copies of damaged files go
	buf     []byte
	found   Recovered
	pids    map[int64]*producerState
	ends    map[int64]txnEnd // the latest end of a transaction, by producer id
	windows map[windowKey]*window
	commits map[topicPartition]int64 // the furthest position of any group
}

type topicPartition struct {
	topic  string
	number int32
}

// txn names a transaction: its producer has an epoch for each.
type txn struct {
	pid   int64
	epoch int16
}

type txnEnd struct {
	epoch  int16
	commit bool
}

// Recover checks every batch of a kfake data directory and, unless clean says that kfake has saved its state itself,
// makes its state what the batches say. Copies of damaged files go to the directory aside; the error then wraps
// [ErrUnreadable], and nothing else has been changed that matters.
func Recover(data, aside string, clean bool) (Recovered, error) {
	r := &recovery{
		data: data, aside: aside, clean: clean,
		ends: make(map[int64]txnEnd), windows: make(map[windowKey]*window), commits: make(map[topicPartition]int64),
	}
	if err := r.run(); err != nil {
		return r.found, fmt.Errorf("check the broker's data: %w", err)
	}
	return r.found, nil
}

func (r *recovery) run() error {
	var topics struct {
		Topics []struct {
			Name       string
			Partitions int32
		}
	}
	raw, err := os.ReadFile(filepath.Join(r.data, "topics.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // before the first topic
	}
	if err != nil {
		return fmt.Errorf("read the topics: %w", err)
	}
	if err := json.Unmarshal(raw, &topics); err != nil {
		return r.damaged(filepath.Join(r.data, "topics.json"), 0, err)
	}
	if err := errors.Join(r.readPIDs(), r.readGroups()); err != nil {
		return err
	}
	var partitions []*partition
	for _, t := range topics.Topics {
		for n := range t.Partitions {
			p, err := r.readPartition(t.Name, n)
			if err != nil {
				return err
			}
			partitions = append(partitions, p)
		}
	}
	if r.clean {
		return nil
	}
	// The order is the point. The members and transactions that an earlier stop saved are out of date. A producer's
	// state goes to the disk before the ends of its transactions: the other way round, a kill in between would leave
	// nothing that is open, and with it nothing that tells the next pass.
	if err := removeIfThere(filepath.Join(r.data, "session_state.json")); err != nil {
		return err
	}
	commits := r.decide(partitions)
	if err := r.writePIDs(); err != nil {
		return err
	}
	for _, p := range partitions {
		for _, pid := range sortedKeys(p.open) {
			epoch := p.open[pid]
			if err := p.mark(pid, epoch, commits[txn{pid, epoch}]); err != nil {
				return err
			}
		}
	}
	return r.writeWindows()
}

// visit takes one batch, in the order of its partition.
func (r *recovery) visit(p *partition, b batch) {
	pid := b.pid()
	switch {
	case pid < 0:
	case b.control():
		delete(p.open, pid)
		r.ended(pid, txnEnd{b.epoch(), b.commits()})
	default:
		if b.txn() {
			p.open[pid] = b.epoch()
		}
		if b.sequence() >= 0 && !r.clean {
			key := windowKey{pid, topicPartition{p.topic, p.number}}
			w := r.windows[key]
			if w == nil {
				w = &window{txn: b.txn()}
				r.windows[key] = w
			}
			w.push(b)
		}
	}
}

// ended notes the latest end; of two with one epoch a commit counts, because a client may have been told.
func (r *recovery) ended(pid int64, end txnEnd) {
	have, ok := r.ends[pid]
	if !ok || end.epoch > have.epoch || end.epoch == have.epoch && end.commit {
		r.ends[pid] = end
	}
}

// decide settles the transactions that are open: committed when their commit has reached any partition, or the
// broker's own books, and aborted otherwise, because then no client was told of a commit.
func (r *recovery) decide(partitions []*partition) map[txn]bool {
	commits := make(map[txn]bool)
	for _, p := range partitions {
		for pid, epoch := range p.open {
			end, s := r.ends[pid], r.pids[pid]
			commits[txn{pid, epoch}] = end == txnEnd{epoch, true} || s != nil && s.committed == epoch
		}
	}
	for t, commit := range commits {
		if commit {
			r.found.Committed++
		} else {
			r.found.Aborted++
		}
		r.ended(t.pid, txnEnd{t.epoch, commit})
	}
	return commits
}

// readGroups reads how far groups have committed, and cuts a torn tail.
func (r *recovery) readGroups() error {
	return r.recoverLog("groups.log", func(data []byte) {
		var e struct {
			Type   string `json:"type"`
			Topic  string `json:"t"`
			Part   int32  `json:"p"`
			Offset int64  `json:"o"`
		}
		if json.Unmarshal(data, &e) == nil && e.Type == "commit" {
			key := topicPartition{e.Topic, e.Part}
			r.commits[key] = max(r.commits[key], e.Offset)
		}
	})
}

// lowest is where a partition goes on at least, should it hold no record any more.
func (r *recovery) lowest(p *partition) int64 {
	var s struct {
		HighWatermark int64 `json:"high_watermark"`
	}
	raw, err := os.ReadFile(filepath.Join(p.dir, "snapshot.json"))
	if err != nil || json.Unmarshal(raw, &s) != nil {
		s.HighWatermark = 0 // none, or damaged: kfake does without as well
	}
	return max(s.HighWatermark, r.commits[topicPartition{p.topic, p.number}])
}

type windowKey struct {
	pid int64
	topicPartition
}

// window is a producer's last batches in a partition, by which kfake knows one that is sent again.
type window struct {
	Entries [5]windowEntry `json:"entries"`
	Count   uint8          `json:"count"`
	At      uint8          `json:"at"`
	Epoch   int16          `json:"epoch"`
	Seen    bool           `json:"seen"`
	NextSeq int32          `json:"next_seq"`
	txn     bool
}

type windowEntry struct {
	FirstSeq int32 `json:"first_seq"`
	NextSeq  int32 `json:"next_seq"`
	Offset   int64 `json:"offset"`
}

// push is kfake's pidwindow.pushAndValidate for a batch that was accepted.
func (w *window) push(b batch) {
	if !w.Seen || b.epoch() != w.Epoch {
		*w = window{Seen: true, Epoch: b.epoch(), txn: w.txn}
	}
	w.NextSeq = int32((int64(b.sequence()) + int64(b.records())) % math.MaxInt32)
	w.Entries[w.At] = windowEntry{b.sequence(), w.NextSeq, b.first()}
	w.At = (w.At + 1) % uint8(len(w.Entries))
	w.Count = min(w.Count+1, uint8(len(w.Entries)))
}

// writeWindows replaces seq_windows.json.
func (r *recovery) writeWindows() error {
	type saved struct {
		PID       int64  `json:"pid"`
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		*window
	}
	all := struct {
		Version int     `json:"version"`
		Windows []saved `json:"windows"`
	}{Version: dataFormat}
	for key, w := range r.windows {
		all.Windows = append(all.Windows, saved{key.pid, key.topic, key.number, w})
	}
	slices.SortFunc(all.Windows, func(a, b saved) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	r.found.Producers = len(all.Windows)
	raw, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("encode the producers' windows: %w", err)
	}
	return replace(filepath.Join(r.data, "seq_windows.json"), raw)
}

func (r *recovery) partitionDir(topic string, number int32) string {
	return filepath.Join(r.data, "partitions", fmt.Sprintf("%s-%d", url.PathEscape(topic), number))
}

// read reads a file into the pass's buffer, which the next read takes again.
func (r *recovery) read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read a segment: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read a segment: %w", err)
	}
	if size := int(info.Size()); cap(r.buf) < size {
		r.buf = make([]byte, size)
	}
	r.buf = r.buf[:info.Size()]
	if _, err := io.ReadFull(f, r.buf); err != nil {
		return nil, fmt.Errorf("read a segment: %w", err)
	}
	return r.buf, nil
}

// damaged copies a file aside and says what is wrong with it.
func (r *recovery) damaged(path string, at int64, reason error) error {
	name, err := filepath.Rel(r.data, path)
	if err != nil {
		name = filepath.Base(path)
	}
	kept := filepath.Join(r.aside, url.PathEscape(name))
	if err := copyFile(path, kept); err != nil {
		return errors.Join(fmt.Errorf("%w: %s is damaged at byte %d: %w", ErrUnreadable, path, at, reason), err)
	}
	return fmt.Errorf("%w: %s is damaged at byte %d (a copy is %s): %w", ErrUnreadable, path, at, kept, reason)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
