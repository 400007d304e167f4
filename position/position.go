// Package position is the grammar of places in a log: start, end, an offset, a time. It imports the standard
// library only.
package position

import "time"

// Kind says how a Point is found.
type Kind int8

// The kinds of Point.
const (
	Start  Kind = iota // the log start, plus N
	End                // the high watermark, minus N
	Offset             // the offset N
	Time               // the first record with a timestamp at or after At
)

// Point is a place in a partition. The zero value is the log start.
type Point struct {
	Kind Kind
	N    int64
	At   time.Time
}
