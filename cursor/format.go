package cursor

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"time"
)

// The metadata of a commit is "mill:" and the unpadded base64 of
//
//	version   1 byte
//	crc       4 bytes, CRC32C of the position (8 bytes, big endian) and the body
//	body      uvarint flags (1 = a Mark follows Floor)
//	          uvarint Position − Floor
//	          [uvarint Mark.From, uvarint Mark.To − Mark.From]
//	          uvarint base: seconds since 1970 that times are relative to
//	          uvarint number of Open entries, then each:
//	              uvarint Attempt<<1 | Held
//	              uvarint Position − Offset of the first entry, then Offset − Offset of the one before
//	              4 bytes Lane, big endian
//	              varint  Due, less that of the entry before (or base)
//	              varint  Due − First, less that of the entry before (or 0)
//	          uvarint number of Done runs, then each:
//	              uvarint From − end of the run before (or Position), uvarint To − From
//
// The crc covers the position, so metadata that a tool copied to another offset is damaged and not believed.
const (
	prefix  = "mill:" // with the colon: a member id starts with its client id, and ours is "millrace"
	version = 1

	// MaxRoom is the longest metadata in bytes that is read or written: Kafka's default
	// offset.metadata.max.bytes.
	MaxRoom = 4096

	head     = 1 + 4  // version, crc
	fixed    = 32     // flags, Floor and a Mark at their longest, no runs
	minOpen  = 8      // the shortest entry
	minRoom  = 128    // below this not even Floor and Mark are sure to fit
	maxRuns  = 1024   // more are dropped
	flagMark = 1 << 0 // in flags
)

// Errors of [Decode].
var (
	// ErrForeign means that the metadata is absent, was written by something else (kgo writes the member's
	// id), or has a version that this one cannot read. The committed offset counts.
	ErrForeign = errors.New("the commit's metadata is not a cursor")
	// ErrDamaged means that the metadata was a cursor's and is no longer whole. The committed offset counts;
	// records that were deferred by reference are forgotten.
	ErrDamaged = errors.New("the cursor in the commit's metadata is damaged: its offset counts, deferred records are forgotten")
	// ErrRoom means that what cannot be spilled, held lanes, does not fit.
	ErrRoom = errors.New("the cursor does not fit into a commit")
)

var (
	crcTable = crc32.MakeTable(crc32.Castagnoli)
	encoding = base64.RawStdEncoding.Strict()
)

// Encode returns the metadata of a commit of c in at most room bytes, and never more than [MaxRoom]. Floor and Mark
// are always in it; Open comes next, and those entries with the latest Due that do not fit are returned as spill:
// they must be safe elsewhere before the commit. Held lanes cannot be spilled: where they do not fit the error is
// [ErrRoom]. Done runs fill what is left, those farthest from the position are dropped first.
//
// Encode is pure, and the same cursor gives the same metadata. Any other error says which rule of [Cursor] c breaks.
func Encode(c Cursor, room int) (meta string, spill []Open, err error) {
	if err := c.validate(); err != nil {
		return "", nil, fmt.Errorf("encode cursor at %d: %w", c.Position, err)
	}
	if room < minRoom {
		return "", nil, fmt.Errorf("encode cursor at %d in %d bytes, fewer than %d: %w", c.Position, room, minRoom, ErrRoom)
	}
	raw := encoding.DecodedLen(min(room, MaxRoom) - len(prefix))
	open, spill, err := fit(c, raw-head-fixed)
	if err != nil {
		return "", nil, fmt.Errorf("encode cursor at %d: %w", c.Position, err)
	}

	b := make([]byte, head, raw)
	b[0] = version
	b = appendFixed(b, c)
	b = appendOpen(b, c.Position, open)
	b = appendDone(b, c, raw)
	binary.BigEndian.PutUint32(b[1:], checksum(c.Position, b[head:]))
	return prefix + encoding.EncodeToString(b), spill, nil
}

// Decode reads the metadata of a commit at position. With [ErrForeign] or [ErrDamaged] the cursor returned is
// still good: the bare position. Epoch is -1: it stands in the commit itself. Decode takes time and memory
// proportional to meta, and refuses more than [MaxRoom] bytes.
func Decode(position int64, meta string) (Cursor, error) {
	bare := Cursor{Position: position, Epoch: -1, Floor: position}
	switch {
	case position < 0:
		return bare, fmt.Errorf("decode cursor: position %d is negative: %w", position, ErrDamaged)
	case !strings.HasPrefix(meta, prefix), len(meta) > MaxRoom:
		return bare, ErrForeign
	}
	b, err := encoding.DecodeString(meta[len(prefix):])
	if err != nil || len(b) < head {
		return bare, ErrDamaged
	}
	if b[0] != version {
		return bare, fmt.Errorf("cursor of version %d, this one reads %d: %w", b[0], version, ErrForeign)
	}
	if binary.BigEndian.Uint32(b[1:]) != checksum(position, b[head:]) {
		return bare, ErrDamaged
	}
	c := bare
	r := reader{b: b[head:]}
	r.cursor(&c)
	if r.bad || len(r.b) > 0 || c.validate() != nil {
		return bare, ErrDamaged
	}
	return c, nil
}

func (c *Cursor) validate() error {
	if c.Position < 0 || c.Floor < 0 || c.Floor > c.Position {
		return fmt.Errorf("floor %d is not within 0 and the position", c.Floor)
	}
	if m := c.Mark; m != nil && (m.From < 0 || m.To < m.From) {
		return fmt.Errorf("mark %d to %d is not a range", m.From, m.To)
	}
	last := int64(-1)
	for _, o := range c.Open {
		if o.Offset <= last || o.Offset >= c.Position {
			return fmt.Errorf("open offset %d is out of order or not below the position", o.Offset)
		}
		if first, due := floorSeconds(o.First), ceilSeconds(o.Due); min(first, due) < 0 || max(first, due) > maxSeconds {
			return fmt.Errorf("open offset %d has a time out of range", o.Offset)
		}
		last = o.Offset
	}
	end := c.Position
	for _, d := range c.Done {
		if d.From < end || d.To <= d.From || d.From == c.Position {
			return fmt.Errorf("done run %d to %d is empty, out of order or at the position", d.From, d.To)
		}
		end = d.To
	}
	return nil
}

const maxSeconds = 1 << 40 // some 34,000 years: sums of two never overflow

func checksum(position int64, body []byte) uint32 {
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], uint64(position))
	return crc32.Update(crc32.Checksum(p[:], crcTable), crcTable, body)
}

// fit splits c.Open into what is encoded in at most room bytes and what is spilled. It keeps held lanes, then
// what is due first.
func fit(c Cursor, room int) (open, spill []Open, err error) {
	if len(c.Open) <= room/minOpen && len(appendOpen(nil, c.Position, c.Open)) <= room {
		return c.Open, nil, nil
	}
	byDue := slices.Clone(c.Open)
	slices.SortStableFunc(byDue, func(a, b Open) int {
		if a.Held != b.Held {
			if a.Held {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Offset, b.Offset))
	})
	byOffset := func(a, b Open) int { return cmp.Compare(a.Offset, b.Offset) }
	// The size is not monotone in the last byte, so the search is downwards in steps and ends at none.
	for keep := min(len(byDue), room/minOpen); ; keep -= max(1, keep/64) {
		open = slices.Clone(byDue[:keep])
		slices.SortFunc(open, byOffset)
		if len(appendOpen(nil, c.Position, open)) <= room {
			spill = byDue[keep:]
			slices.SortFunc(spill, byOffset)
			break
		}
		if keep == 0 {
			return nil, nil, ErrRoom
		}
	}
	for _, o := range spill {
		if o.Held {
			return nil, nil, fmt.Errorf("lane %08x is held: %w", o.Lane, ErrRoom)
		}
	}
	return open, spill, nil
}

func appendFixed(b []byte, c Cursor) []byte {
	if c.Mark == nil {
		b = append(b, 0)
		return appendUint(b, c.Position-c.Floor)
	}
	b = append(b, flagMark)
	b = appendUint(b, c.Position-c.Floor)
	b = appendUint(b, c.Mark.From)
	return appendUint(b, c.Mark.To-c.Mark.From)
}

func appendOpen(b []byte, position int64, open []Open) []byte {
	var base int64
	if len(open) > 0 {
		base = ceilSeconds(open[0].Due)
		for _, o := range open {
			base = min(base, ceilSeconds(o.Due))
		}
	}
	b = appendUint(b, base)
	b = appendUint(b, int64(len(open)))
	due, age := base, int64(0)
	for i, o := range open {
		held := uint64(0)
		if o.Held {
			held = 1
		}
		b = binary.AppendUvarint(b, uint64(o.Attempt)<<1|held)
		if i == 0 {
			b = appendUint(b, position-o.Offset)
		} else {
			b = appendUint(b, o.Offset-open[i-1].Offset)
		}
		b = binary.BigEndian.AppendUint32(b, o.Lane)
		d := ceilSeconds(o.Due)
		a := d - floorSeconds(o.First)
		b = binary.AppendVarint(b, d-due)
		b = binary.AppendVarint(b, a-age)
		due, age = d, a
	}
	return b
}

// appendDone appends as many runs as fit into limit bytes in all, those nearest the position first.
func appendDone(b []byte, c Cursor, limit int) []byte {
	var runs []byte
	end, n := c.Position, 0
	for _, d := range c.Done {
		next := appendUint(appendUint(runs, d.From-end), d.To-d.From)
		if len(b)+2+len(next) > limit || n == maxRuns {
			break
		}
		runs, end, n = next, d.To, n+1
	}
	return append(appendUint(b, int64(n)), runs...)
}

// floorSeconds is t in seconds since 1970, 0 for the zero time.
func floorSeconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func ceilSeconds(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return floorSeconds(t)
}

func fromSeconds(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

func appendUint(b []byte, n int64) []byte {
	return binary.AppendUvarint(b, uint64(n))
}

// reader reads a body. After the first thing that is not as it must be, bad is set and all else reads as zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) cursor(c *Cursor) {
	flags := r.uint()
	c.Floor = c.Position - r.uint()
	if flags&flagMark != 0 {
		from := r.uint()
		c.Mark = &Mark{from, r.sum(from, r.uint())}
	}
	r.bad = r.bad || flags&^flagMark != 0
	r.open(c)
	r.done(c)
}

func (r *reader) open(c *Cursor) {
	due, age := r.uint(), int64(0)
	n := r.count(7) // an entry is never shorter
	if n > 0 {
		c.Open = make([]Open, 0, n)
	}
	at := int64(0)
	for i := range n {
		attempt := r.uint()
		if i == 0 {
			at = c.Position - r.uint()
		} else {
			at = r.sum(at, r.uint())
		}
		lane := r.uint32()
		due += r.int()
		age += r.int()
		if attempt>>1 > math.MaxUint16 || due < 0 || due > maxSeconds || age > due || due-age > maxSeconds {
			r.bad = true
		}
		if r.bad {
			return
		}
		c.Open = append(c.Open, Open{
			Offset: at, Lane: lane, Held: attempt&1 == 1, Attempt: uint16(attempt >> 1),
			First: fromSeconds(due - age), Due: fromSeconds(due),
		})
	}
}

func (r *reader) done(c *Cursor) {
	n := r.count(2)
	if n > 0 {
		c.Done = make([]Run, 0, n)
	}
	end := c.Position
	for range n {
		from := r.sum(end, r.uint())
		end = r.sum(from, r.uint())
		if r.bad {
			return
		}
		c.Done = append(c.Done, Run{from, end})
	}
}

// count reads a number of things of at least size bytes each, all of which must still be there: what is
// allocated is bounded by what was sent.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > int64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) uint() int64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > math.MaxInt64 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return int64(n)
}

func (r *reader) int() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 || n > 4*maxSeconds || n < -4*maxSeconds || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 || r.bad {
		r.bad = true
		return 0
	}
	n := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return n
}

func (r *reader) sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		r.bad = true
		return 0
	}
	return a + b
}
