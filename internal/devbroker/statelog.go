package devbroker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

// kfake's state logs (pids.log, groups.log) are frames of
//
//	u32 LE length (of what follows the crc) | u32 LE crc32c (of the same) | u16 LE version | JSON
const frameHeader = 10

// castagnoli is the polynomial of Kafka's batches and of kfake's frames.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frames calls visit with the JSON of each frame, and returns how many bytes of raw are whole frames. What follows them
// is a frame that was not written to its end, or else an error: kfake would skip it and everything after it.
func frames(raw []byte, visit func(data []byte)) (whole int, err error) {
	for whole < len(raw) {
		rest := raw[whole:]
		if len(rest) < frameHeader || allZero(rest) {
			return whole, nil
		}
		size := 8 + int64(binary.LittleEndian.Uint32(rest))
		if size < frameHeader || size > maxFrame {
			return whole, errors.New("an entry has an impossible length")
		}
		if size > int64(len(rest)) {
			return whole, nil
		}
		if crc32.Checksum(rest[8:size], castagnoli) != binary.LittleEndian.Uint32(rest[4:]) {
			return whole, errors.New("the checksum of an entry is wrong")
		}
		if v := binary.LittleEndian.Uint16(rest[8:]); v != dataFormat {
			return whole, fmt.Errorf("an entry has format %d, and %d is known", v, dataFormat)
		}
		visit(rest[frameHeader:size])
		whole += int(size)
	}
	return whole, nil
}

// frame is data as one frame.
func frame(data []byte) []byte {
	b := make([]byte, frameHeader, frameHeader+len(data))
	binary.LittleEndian.PutUint32(b, uint32(2+len(data)))
	binary.LittleEndian.PutUint16(b[8:], dataFormat)
	b = append(b, data...)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

// recoverLog cuts a torn tail off a state log: kfake appends behind it, and would never read that again.
func (r *recovery) recoverLog(name string, visit func(data []byte)) error {
	path := filepath.Join(r.data, name)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	whole, err := frames(raw, visit)
	if err != nil {
		return r.damaged(path, int64(whole), err)
	}
	if whole < len(raw) {
		r.found.Torn++
		return truncate(path, int64(whole))
	}
	return nil
}

// pidEntry is an entry of pids.log.
type pidEntry struct {
	Type    string `json:"type"` // init, endtx, timeout
	PID     int64  `json:"pid"`
	Epoch   int16  `json:"epoch"`
	TxID    string `json:"txid,omitempty"`
	Timeout int32  `json:"timeout,omitempty"`
	Commit  *bool  `json:"commit,omitempty"`
}

// producerState is what pids.log says of a producer.
type producerState struct {
	epoch     int16
	txn       bool
	committed int16 // the last epoch whose transaction the broker itself wrote down as committed; -1 = none
}

// readPIDs reads pids.log as kfake does.
func (r *recovery) readPIDs() error {
	r.pids = make(map[int64]*producerState)
	return r.recoverLog("pids.log", func(data []byte) {
		var e pidEntry
		if json.Unmarshal(data, &e) != nil {
			return // as kfake
		}
		p := r.pids[e.PID]
		switch {
		case e.Type == "init":
			committed := int16(-1)
			if p != nil {
				committed = p.committed
			}
			r.pids[e.PID] = &producerState{epoch: e.Epoch, txn: e.TxID != "", committed: committed}
		case p == nil:
		case e.Type == "endtx":
			// kfake writes the epoch that the transaction had; an entry of ours is one further and speaks of the one before.
			if e.Commit != nil && *e.Commit && e.Epoch == p.epoch {
				p.committed = e.Epoch
			}
			p.epoch = e.Epoch
		case e.Type == "timeout":
			p.epoch = e.Epoch
		}
	})
}

// writePIDs appends what the broker did not get to write down, and returns once it is on the disk.
//
// A producer whose last transaction has its end in the log, but not in pids.log, moves one epoch on: then a client that
// asks again for that end hears how it really went, and an epoch is never used for two transactions. A producer without
// an entry gets one, or kfake would not load its windows.
func (r *recovery) writePIDs() error {
	var out []byte
	put := func(e pidEntry) error {
		data, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode an entry of pids.log: %w", err)
		}
		out = append(out, frame(data)...)
		return nil
	}
	for _, pid := range sortedKeys(r.ends) {
		p, end := r.pids[pid], r.ends[pid]
		if p == nil || p.epoch > end.epoch || end.epoch == math.MaxInt16 {
			continue
		}
		if err := put(pidEntry{Type: "endtx", PID: pid, Epoch: end.epoch + 1, Commit: &end.commit}); err != nil {
			return err
		}
	}
	unknown := make(map[int64]int16)
	for key, w := range r.windows {
		if r.pids[key.pid] == nil && !w.txn {
			unknown[key.pid] = max(unknown[key.pid], w.Epoch)
		}
	}
	for _, pid := range sortedKeys(unknown) {
		if err := put(pidEntry{Type: "init", PID: pid, Epoch: unknown[pid]}); err != nil {
			return err
		}
	}
	if len(out) == 0 {
		return nil
	}
	return appendTo(filepath.Join(r.data, "pids.log"), out)
}
