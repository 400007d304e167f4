package deadletter

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/millrace/millrace/event"
)

// Letter is what a dead letter's headers say.
type Letter struct {
	Failure
	// Origin is where the event was read.
	Origin Origin
	// Group gave it up.
	Group string
	// SchemaID is the id in the value's frame; -1 where it has none.
	SchemaID int64
	// Version of the service that gave it up. Empty where it is not known.
	Version string
	// Redrives counts how often it was put back.
	Redrives int
}

// Origin is where an event was read before it was copied.
type Origin struct {
	Topic     string
	Partition int32
	Offset    int64
	Epoch     int32     // of the leader, -1 where it is not known
	Published time.Time // the record's timestamp
}

// Parse reads the headers of a dead letter, and reports false for an event that is none: without a topic of origin, a
// group and a class. Any other header may be missing, or hold anything, and is then zero; -1 for Origin.Partition,
// Offset and Epoch. The text of Err is the message; its type is lost.
func Parse(e event.Event) (Letter, bool) {
	h := e.Headers
	l := Letter{
		Failure: Failure{
			Class:     Class(h.Get(event.HeaderErrorClass)),
			Stack:     h.Get(event.HeaderStack),
			Handler:   string(h.Get(event.HeaderHandler)),
			Attempts:  int(number(h, event.HeaderAttempts, 0, math.MaxInt32)),
			First:     moment(h, event.HeaderFirstFailure),
			Last:      moment(h, event.HeaderLastFailure),
			LogAppend: string(h.Get(event.HeaderOriginTimestampType)) == logAppendTime,
		},
		Origin: Origin{
			Topic:     string(h.Get(event.HeaderOriginTopic)),
			Partition: int32(number(h, event.HeaderOriginPartition, -1, math.MaxInt32)),
			Offset:    number(h, event.HeaderOriginOffset, -1, math.MaxInt64),
			Epoch:     int32(number(h, event.HeaderOriginEpoch, -1, math.MaxInt32)),
		},
		Group:    string(h.Get(event.HeaderGroup)),
		SchemaID: number(h, event.HeaderSchemaID, -1, math.MaxUint32),
		Version:  string(h.Get(event.HeaderAppVersion)),
		Redrives: int(number(h, event.HeaderRedrive, 0, math.MaxInt32)),
	}
	if ms := number(h, event.HeaderOriginTimestamp, -1, math.MaxInt64); ms >= 0 {
		l.Origin.Published = time.UnixMilli(ms)
	}
	if message := h.Get(event.HeaderError); message != nil {
		l.Err = errors.New(string(message))
	}
	return l, l.Origin.Topic != "" && l.Group != "" && l.Class != ""
}

// number is the header's value from 0 to most, otherwise what stands for none.
func number(h event.Headers, key string, none, most int64) int64 {
	n, err := strconv.ParseInt(string(h.Get(key)), 10, 64)
	if err != nil || n < 0 || n > most {
		return none
	}
	return n
}

func moment(h event.Headers, key string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(h.Get(key)))
	if err != nil {
		return time.Time{}
	}
	return t
}
