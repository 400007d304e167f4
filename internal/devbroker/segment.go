package devbroker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A partition's directory holds segments: <first offset>.dat is record batches as they go over the wire, one after the
// other, and <first offset>.idx has an entry for each of them:
//
//	version 1 | low byte of crc32c of the rest | u32 LE leader epoch | u64 LE highest timestamp | 1 when in a transaction
const indexEntry = 15

const (
	batchHeader = 61
	txnFlag     = 0x10
	controlFlag = 0x20
)

// batch is a record batch as it is in a segment, header first.
type batch []byte

func (b batch) size() int64       { return 12 + int64(binary.BigEndian.Uint32(b[8:])) }
func (b batch) first() int64      { return int64(binary.BigEndian.Uint64(b)) }
func (b batch) leader() int32     { return int32(binary.BigEndian.Uint32(b[12:])) }
func (b batch) magic() byte       { return b[16] }
func (b batch) attributes() int16 { return int16(binary.BigEndian.Uint16(b[21:])) }
func (b batch) txn() bool         { return b.attributes()&txnFlag != 0 }
func (b batch) control() bool     { return b.attributes()&controlFlag != 0 }
func (b batch) end() int64        { return b.first() + int64(int32(binary.BigEndian.Uint32(b[23:]))) + 1 }
func (b batch) timestamp() int64  { return int64(binary.BigEndian.Uint64(b[35:])) }
func (b batch) pid() int64        { return int64(binary.BigEndian.Uint64(b[43:])) }
func (b batch) epoch() int16      { return int16(binary.BigEndian.Uint16(b[51:])) }
func (b batch) sequence() int32   { return int32(binary.BigEndian.Uint32(b[53:])) }
func (b batch) records() int32    { return int32(binary.BigEndian.Uint32(b[57:])) }

func (b batch) intact() bool {
	return crc32.Checksum(b[21:], castagnoli) == binary.BigEndian.Uint32(b[17:])
}

// commits says whether a control batch is a COMMIT; one that cannot be read is an abort, as in kfake.
func (b batch) commits() bool {
	var rec kmsg.Record
	if rec.ReadFrom(b[batchHeader:]) != nil || len(rec.Key) < 4 {
		return false
	}
	return binary.BigEndian.Uint16(rec.Key[2:]) == uint16(kmsg.ControlRecordKeyTypeCommit)
}

// batches calls visit with each batch of a segment whose first offset is base, and returns how many bytes are whole
// batches. What follows them is a batch that was not written to its end, or else an error.
func batches(raw []byte, base int64, visit func(batch)) (whole int64, err error) {
	next, firstOne := base, true
	for whole < int64(len(raw)) {
		rest := raw[whole:]
		if len(rest) < 12 || allZero(rest) {
			return whole, nil
		}
		b := batch(rest)
		size := b.size()
		if size < batchHeader || size > maxFrame {
			return whole, errors.New("a batch has an impossible length")
		}
		if size > int64(len(rest)) {
			if wholeBatchIn(rest[12:], next) {
				return whole, errors.New("a batch has a wrong length")
			}
			return whole, nil
		}
		b = b[:size]
		switch {
		case b.magic() != 2:
			return whole, fmt.Errorf("a batch has the unknown format %d", b.magic())
		case !b.intact():
			return whole, errors.New("the checksum of a batch is wrong")
		case b.first() < next || firstOne && b.first() != base || b.end() <= b.first():
			return whole, fmt.Errorf("a batch has the offsets %d to %d, and %d is next", b.first(), b.end()-1, next)
		}
		visit(b)
		next, firstOne = b.end(), false
		whole += size
	}
	return whole, nil
}

// wholeBatchIn looks for a later batch behind one that runs past the end: then it is its length that is wrong, and to
// cut here would lose the later ones.
func wholeBatchIn(raw []byte, next int64) bool {
	for ; len(raw) >= batchHeader; raw = raw[1:] {
		b := batch(raw)
		if b.magic() != 2 || b.first() < next || b.size() < batchHeader || b.size() > int64(len(raw)) {
			continue
		}
		if b[:b.size()].intact() {
			return true
		}
	}
	return false
}

// partition is what a pass knows of one partition once it has read it.
type partition struct {
	topic  string
	number int32
	dir    string
	active string // path of the last segment without its extension; "" when there is none
	end    int64  // the next offset
	leader int32
	latest int64           // the highest timestamp
	open   map[int64]int16 // producer id to epoch of transactions without an end here
}

// readPartition reads every batch of a partition, repairs what a kill leaves behind, and hands the batches to r.
func (r *recovery) readPartition(topic string, number int32) (*partition, error) {
	p := &partition{topic: topic, number: number, dir: r.partitionDir(topic, number), open: make(map[int64]int16)}
	entries, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the partition %s-%d: %w", topic, number, err)
	}
	var bases []int64
	indexes := make(map[int64]bool)
	for _, e := range entries {
		name, ext, _ := strings.Cut(e.Name(), ".")
		base, err := strconv.ParseInt(name, 10, 64)
		switch {
		case err != nil:
		case ext == "dat":
			bases = append(bases, base)
		case ext == "idx":
			indexes[base] = true
		}
	}
	slices.Sort(bases)
	floor := r.lowest(p)
	for i, base := range bases {
		delete(indexes, base)
		kept, err := r.readSegment(p, base, i == len(bases)-1)
		if err != nil {
			return nil, err
		}
		if !kept {
			floor = max(floor, base)
		}
	}
	for base := range indexes { // of a segment that retention has just removed: kfake would append to it
		if err := os.Remove(filepath.Join(p.dir, strconv.FormatInt(base, 10)+".idx")); err != nil {
			return nil, fmt.Errorf("remove an index without its segment: %w", err)
		}
	}
	if p.active == "" && floor > 0 {
		if err := p.hold(floor); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// readSegment reads one segment. It is not kept when there is no batch in it.
func (r *recovery) readSegment(p *partition, base int64, last bool) (kept bool, err error) {
	path := filepath.Join(p.dir, strconv.FormatInt(base, 10))
	raw, err := r.read(path + ".dat")
	if err != nil {
		return false, err
	}
	if base < p.end {
		return false, r.damaged(path+".dat", 0, fmt.Errorf("the segment begins before the end of the one before it, %d", p.end))
	}
	var index []byte
	whole, err := batches(raw, base, func(b batch) {
		p.latest = max(p.latest, b.timestamp())
		p.end, p.leader = b.end(), b.leader()
		index = appendIndex(index, b.leader(), p.latest, b.txn() && !b.control())
		r.visit(p, b)
	})
	if err == nil && whole < int64(len(raw)) && !last {
		err = errors.New("a batch was not written to its end, and there are later ones")
	}
	if err != nil {
		return false, r.damaged(path+".dat", whole, err)
	}
	r.found.Bytes += whole
	if whole < int64(len(raw)) {
		r.found.Torn++
	}
	if whole == 0 {
		return false, errors.Join(os.Remove(path+".dat"), removeIfThere(path+".idx"))
	}
	if whole < int64(len(raw)) {
		if err := truncate(path+".dat", whole); err != nil {
			return false, err
		}
	}
	p.active = path
	have, err := os.ReadFile(path + ".idx")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read an index: %w", err)
	}
	if !sameIndex(have, index) {
		r.found.Indexes++
		return true, replace(path+".idx", index)
	}
	return true, nil
}

func appendIndex(index []byte, leader int32, latest int64, inTxn bool) []byte {
	var e [indexEntry]byte
	e[0] = dataFormat
	binary.LittleEndian.PutUint32(e[2:], uint32(leader))
	binary.LittleEndian.PutUint64(e[6:], uint64(latest))
	if inTxn {
		e[14] = 1
	}
	e[1] = byte(crc32.Checksum(e[2:], castagnoli))
	return append(index, e[:]...)
}

// sameIndex compares what kfake uses of an index; it counts the timestamps anew.
func sameIndex(have, want []byte) bool {
	if len(have) != len(want) {
		return false
	}
	for i := 0; i < len(have); i += indexEntry {
		h, w := have[i:i+indexEntry], want[i:i+indexEntry]
		if h[0] != w[0] || h[1] != byte(crc32.Checksum(h[2:], castagnoli)) || !bytes.Equal(h[2:6], w[2:6]) || h[14] != w[14] {
			return false
		}
	}
	return true
}

// mark appends the end of a producer's transaction.
func (p *partition) mark(pid int64, epoch int16, commit bool) error {
	index, err := os.ReadFile(p.active + ".idx")
	if err != nil {
		return fmt.Errorf("read an index: %w", err)
	}
	// A transaction's end has the time of what it ends: the same data give the same bytes whenever a pass is run.
	if err := appendTo(p.active+".dat", marker(p.end, p.leader, p.latest, pid, epoch, commit)); err != nil {
		return err
	}
	p.end++
	return replace(p.active+".idx", appendIndex(index, p.leader, p.latest, false))
}

// hold keeps the end of a partition whose records are all gone: kfake would start it again at 0, and a group that has
// read further would not see what comes. The batch is the end of no transaction, which readers skip.
func (p *partition) hold(end int64) error {
	p.active = filepath.Join(p.dir, strconv.FormatInt(end-1, 10))
	if err := replace(p.active+".dat", marker(end-1, p.leader, p.latest, -1, -1, false)); err != nil {
		return err
	}
	p.end = end
	return replace(p.active+".idx", appendIndex(nil, p.leader, p.latest, false))
}

// marker is the control batch that ends a transaction.
func marker(offset int64, leader int32, at, pid int64, epoch int16, commit bool) []byte {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	if commit {
		key.Type = kmsg.ControlRecordKeyTypeCommit
	}
	rec := kmsg.Record{Key: key.AppendTo(nil), Value: (&kmsg.EndTxnMarker{}).AppendTo(nil)}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1) // its own length is one byte
	b := kmsg.RecordBatch{
		FirstOffset: offset, PartitionLeaderEpoch: leader, Magic: 2, Attributes: txnFlag | controlFlag,
		FirstTimestamp: at, MaxTimestamp: at, ProducerID: pid, ProducerEpoch: epoch, FirstSequence: -1,
		NumRecords: 1, Records: rec.AppendTo(nil),
	}
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], castagnoli))
	return out
}
