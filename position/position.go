// Package position is the grammar of places in a log and of ranges between them: what stands after --offset,
// --from, --until and --at, and in the API. It imports the standard library only and knows no log: a reader
// resolves a [Point] to an offset of each partition.
//
//	r, err := position.ParseRange("@-1h:now", time.Now().UTC())
//	p, err := position.Parse("yesterday 09:00", time.Now().UTC())
//
// # Clock and zone
//
// Every parse takes one reading of the clock: "now" and "-15m" are counted from it, and a time that is written
// without a zone is in its location. Take the clock once per command, and pass it in UTC unless a person asked
// for another zone: Kafka's own tools read times as UTC.
//
// # Errors
//
// Errors say what was written and what may be written instead. What is parsed and printed with String parses to
// the same value again.
package position

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind says how a Point is found.
type Kind int8

// The kinds of Point.
const (
	Start  Kind = iota // the log start, plus N
	End                // the end at start-up (the high watermark or the last stable offset), minus N
	Offset             // the offset N
	Time               // the first record with a timestamp at or after At
	Each               // an offset of its own for each partition in Offsets
)

// Point is a place in a partition. The zero value is the log start. Points are comparable with ==.
type Point struct {
	// Kind says which of the other fields count.
	Kind Kind
	// N is the distance from Start or End, or the Offset: never negative.
	N int64
	// At is the timestamp for Time, between 1970 and 9999. It is kept in UTC.
	At time.Time
	// Offsets is for Each: "p0=123,p1=456", in the order of the partitions. [Point.In] reads it.
	Offsets string
}

// Range is what lies between two points. The zero value is everything from the log start, without an end.
type Range struct {
	// From is the first place that is read.
	From Point
	// Until is the first place that is not. The zero Point means no end: what ends at the log start is empty, so
	// nothing is lost by giving it this meaning.
	Until Point
}

// ErrEmpty is returned for a range whose end is at or before its start as written.
var ErrEmpty = errors.New("the range is empty")

// Bounded reports whether the range has an end.
func (r Range) Bounded() bool { return r.Until != Point{} }

// Validate returns [ErrEmpty] for a range that holds nothing however the log looks: its end is written at or
// before its start. Ends of different kinds ("offset 5 until yesterday") only the log can compare. A negative
// N is an error too: on the wire -1 and -2 are codes, not offsets.
func (r Range) Validate() error {
	if r.From.N < 0 || r.Until.N < 0 {
		return fmt.Errorf("read range %s: an offset is never negative", r)
	}
	if !r.Bounded() {
		return nil
	}
	empty := false
	switch {
	case r.From.Kind == End && r.Until.Kind == End:
		empty = r.Until.N >= r.From.N
	case r.From.Kind == Time && r.Until.Kind == Time:
		empty = !r.Until.At.After(r.From.At)
	case r.From.Kind == r.Until.Kind && r.From.Kind != Each:
		empty = r.Until.N <= r.From.N
	case r.From == Point{}:
		empty = r.Until.Kind == Offset && r.Until.N == 0
	}
	if empty {
		return fmt.Errorf("read range %s: %w: its end is not after its start", r, ErrEmpty)
	}
	return nil
}

// In returns the point as partition sees it. For Each it is the partition's own offset, and false where the
// partition is not named: such a partition has no place in the range. Every other kind is the same in all.
func (p Point) In(partition int32) (Point, bool) {
	if p.Kind != Each {
		return p, true
	}
	offsets, err := parseEach(p.Offsets)
	if err != nil {
		return Point{}, false
	}
	i, found := slices.BinarySearchFunc(offsets, partition, func(o partitionOffset, p int32) int { return int(o.partition) - int(p) })
	if !found {
		return Point{}, false
	}
	return Point{Kind: Offset, N: offsets[i].offset}, true
}

// String prints the point in the grammar of [Parse]: "start", "start+5", "end-10", "offset:123",
// "2026-11-22T09:00:00Z", "p0=123,p1=456". Times are UTC.
func (p Point) String() string {
	switch p.Kind {
	case Start:
		return withDistance("start", "+", p.N)
	case End:
		return withDistance("end", "-", p.N)
	case Offset:
		return "offset:" + strconv.FormatInt(p.N, 10)
	case Time:
		return formatTime(p.At)
	case Each:
		return p.Offsets
	default:
		return fmt.Sprintf("kind %d", p.Kind)
	}
}

func withDistance(word, sign string, n int64) string {
	if n == 0 {
		return word
	}
	return word + sign + strconv.FormatInt(n, 10)
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// String prints the range in the grammar of [ParseRange], and a mixture that only two flags can write as
// "FROM until UNTIL".
func (r Range) String() string {
	timed := r.From.Kind == Time || r.Until.Kind == Time
	from, fromOK := r.From.half(timed)
	until, untilOK := r.Until.half(timed)
	if r.From == (Point{}) && r.Bounded() {
		from = ""
	}
	if timed {
		fromOK = fromOK && (r.From.Kind == Time || r.From == Point{})
		untilOK = untilOK && (r.Until.Kind == Time || !r.Bounded() || r.Until == Point{Kind: End})
		from = "@" + from
	}
	switch {
	case !r.Bounded() && fromOK:
		return from
	case r.Bounded() && fromOK && untilOK:
		return from + ":" + until
	case r.Bounded():
		return r.From.String() + " until " + r.Until.String()
	default:
		return r.From.String()
	}
}

// half is the point as one side of a range, and whether a range can be written with it.
func (p Point) half(timed bool) (string, bool) {
	switch p.Kind {
	case Offset:
		return strconv.FormatInt(p.N, 10), !timed
	case Each:
		return p.Offsets, false
	default:
		return p.String(), true
	}
}

type partitionOffset struct {
	partition int32
	offset    int64
}

// parseEach reads "p0=123,p1=456", in any order, and returns it ordered by partition.
func parseEach(s string) ([]partitionOffset, error) {
	var out []partitionOffset
	for part := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(part, "=")
		digits, isPartition := strings.CutPrefix(name, "p")
		if !ok || !isPartition || !isDigits(digits) || !isDigits(value) {
			return nil, fmt.Errorf("%q is not like p0=123", part)
		}
		partition, err := strconv.ParseInt(digits, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("partition %s is too large", digits)
		}
		offset, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("offset %s is too large", value)
		}
		out = append(out, partitionOffset{int32(partition), offset})
	}
	slices.SortFunc(out, func(a, b partitionOffset) int { return int(a.partition) - int(b.partition) })
	for i := range out[1:] {
		if out[i].partition == out[i+1].partition {
			return nil, fmt.Errorf("partition %d is named twice", out[i].partition)
		}
	}
	return out, nil
}

func formatEach(offsets []partitionOffset) string {
	var b strings.Builder
	for i, o := range offsets {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "p%d=%d", o.partition, o.offset)
	}
	return b.String()
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
