// Package deadletter copies events that a consumer group gives up to <topic>.<group>.dlq, and reads such copies.
//
// It stands beside the consumer: the position passes an event only when its copy is acknowledged. The log itself is
// never copied but here, because a dead letter must outlive the retention of its topic.
//
//	w := deadletter.New(publisher, "shipping", deadletter.Config{})
//	err := w.Write(ctx, e, deadletter.Failure{Class: deadletter.Poison, Err: err, Attempts: 1, First: now, Last: now})
//
// A copy has the event's key, value and headers as they were, and its id, so whoever dedupes by id sees one event: a
// record that came without an id gets the one it was handled under, its place in the log. Behind the headers stand those of event's table: where the event was read, and why it was given up. [Parse] reads
// them back.
package deadletter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
)

// Class says in one word why an event was given up. The set is small and fixed: it is a label of metrics.
type Class string

// The classes of failures.
const (
	Poison       Class = "poison"       // the bytes do not decode
	Incompatible Class = "incompatible" // the writer's schema cannot be read as the handler's type
	Handler      Class = "handler"      // the handler's error, after its last attempt
	Panic        Class = "panic"        // the handler panicked
	Timeout      Class = "timeout"      // the handler did not end in time
	Rejected     Class = "rejected"     // the handler asked for the dead letters
	Refused      Class = "refused"      // the database of a sink refused the row: a value that does not fit, a constraint
)

var classes = []Class{Poison, Incompatible, Handler, Panic, Timeout, Rejected, Refused}

// Failure is why an event is given up.
type Failure struct {
	// Class is one of the constants; anything else is written as Handler.
	Class Class
	// Err is the last error. Its message is written up to 1 KiB.
	Err error
	// Stack of a panic, written up to 4 KiB. Empty is left out.
	Stack []byte
	// Handler names who failed. Empty is left out.
	Handler string
	// Attempts that were made, the last one included.
	Attempts int
	// First and Last are when the first and the last attempt failed.
	First, Last time.Time
	// LogAppend says that the record's timestamp was set by the broker (LogAppendTime), not by its producer.
	LogAppend bool
}

// Config configures a Writer. The zero value works.
type Config struct {
	// Version of the service, written into each dead letter. Defaults to that of the main module, where it has one.
	Version string
}

// Writer writes the dead letters of one group. It is used by any number of goroutines.
type Writer struct {
	pub     event.Publisher
	group   string
	version string
}

const (
	maxMessage = 1 << 10 // bytes of an error's message
	maxStack   = 4 << 10 // bytes of a stack
	// shortMessage is all that is left of message and stack where the record would be too large with them.
	shortMessage = 128
	// maxNames is how long a topic's and a group's name may be together, so that every name made of them is a topic's.
	maxNames = 230
)

// New returns a Writer that publishes through pub. A producer for dead letters needs no encoder.
func New(pub event.Publisher, group string, cfg Config) *Writer {
	if cfg.Version == "" {
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "(devel)" {
			cfg.Version = info.Main.Version
		}
	}
	return &Writer{pub: pub, group: group, version: cfg.Version}
}

// Topic is where group's dead letters of topic's events are.
func Topic(topic, group string) string { return topic + "." + group + ".dlq" }

// Check says whether topic and group have room for a dead-letter topic: together at most 230 characters.
func Check(topic, group string) error {
	if topic == "" || group == "" {
		return errors.New("dead letters need a topic and a group")
	}
	if n := len(topic) + len(group); n > maxNames {
		return fmt.Errorf("topic %s and group %s have %d characters together, more than %d: their dead letters would have no topic", topic, group, n, maxNames)
	}
	return nil
}

// Write copies e, an event as it was read, to the dead letters. Nil means that every in-sync replica has the copy:
// only then may the position pass e. After an error nothing is settled; write again, the copy's id stays.
//
// Where message and stack would make the record too large for the topic, it is written without them.
func (w *Writer) Write(ctx context.Context, e event.Event, f Failure) error {
	if err := Check(e.Topic, w.group); err != nil {
		return err
	}
	err := w.pub.Publish(ctx, w.letter(e, f, maxMessage, maxStack))
	if errors.Is(err, producer.ErrTooLarge) {
		err = w.pub.Publish(ctx, w.letter(e, f, shortMessage, 0))
	}
	if errors.Is(err, producer.ErrUnknownTopic) {
		err = fmt.Errorf("%w (or let the consumer create it at start: CreateTopics, -create-topics of a service)", err)
	}
	if err != nil {
		return fmt.Errorf("write dead letter of %s/%d@%d: %w", e.Topic, e.Partition, e.Offset, err)
	}
	return nil
}

// letter is the copy of e.
func (w *Writer) letter(e event.Event, f Failure, message, stack int) event.Event {
	h := make(event.Headers, 0, len(e.Headers)+len(own)+1)
	for _, x := range e.Headers {
		if !slices.Contains(own, x.Key) { // of an earlier life as a dead letter
			h = append(h, x)
		}
	}
	add := func(key, value string) {
		if value != "" {
			h = append(h, event.Header{Key: key, Value: []byte(value)})
		}
	}
	if string(h.Get(event.HeaderID)) != e.ID {
		add(event.HeaderID, e.ID) // the last one counts
	}
	number := func(key string, n int64) { add(key, strconv.FormatInt(n, 10)) }
	add(event.HeaderOriginTopic, e.Topic)
	number(event.HeaderOriginPartition, int64(e.Partition))
	number(event.HeaderOriginOffset, e.Offset)
	number(event.HeaderOriginTimestamp, e.Published.UnixMilli())
	add(event.HeaderOriginTimestampType, timestampType(f.LogAppend))
	number(event.HeaderOriginEpoch, int64(e.Epoch))
	add(event.HeaderGroup, w.group)
	add(event.HeaderHandler, f.Handler)
	number(event.HeaderAttempts, int64(f.Attempts))
	add(event.HeaderFirstFailure, instant(f.First))
	add(event.HeaderLastFailure, instant(f.Last))
	if !slices.Contains(classes, f.Class) {
		f.Class = Handler
	}
	add(event.HeaderErrorClass, string(f.Class))
	if f.Err != nil {
		add(event.HeaderError, cut(f.Err.Error(), message))
	}
	add(event.HeaderStack, cut(string(f.Stack), stack))
	if id, ok := schemaID(&e); ok {
		number(event.HeaderSchemaID, int64(id))
	}
	add(event.HeaderAppVersion, w.version)

	return event.Event{Meta: event.Meta{ID: e.ID, Topic: Topic(e.Topic, w.group), Key: e.Key, Headers: h}, Value: e.Value, Verbatim: true}
}

// own are the headers that letter writes: one that an event came with is replaced.
var own = []string{
	event.HeaderOriginTopic, event.HeaderOriginPartition, event.HeaderOriginOffset, event.HeaderOriginTimestamp,
	event.HeaderOriginTimestampType, event.HeaderOriginEpoch, event.HeaderGroup, event.HeaderHandler, event.HeaderAttempts,
	event.HeaderFirstFailure, event.HeaderLastFailure, event.HeaderErrorClass, event.HeaderError, event.HeaderStack,
	event.HeaderSchemaID, event.HeaderAppVersion,
}

const (
	createTime    = "CreateTime"
	logAppendTime = "LogAppendTime"
)

func timestampType(logAppend bool) string {
	if logAppend {
		return logAppendTime
	}
	return createTime
}

// instant is t in RFC 3339, UTC; nothing for the zero time.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// cut shortens s to at most n bytes, between characters, and makes it valid UTF-8: tools print it.
func cut(s string, n int) string {
	const mark = "…"
	if len(s) > n {
		if n <= len(mark) {
			return ""
		}
		s = strings.ToValidUTF8(s[:n-len(mark)], "") + mark
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// schemaID is the id in the value's frame, 0x00 and four bytes, where its content type does not say that there is
// none.
func schemaID(e *event.Event) (uint32, bool) {
	const frame = 5
	if len(e.Value) < frame || e.Value[0] != 0 || e.ContentType != "" && !strings.HasPrefix(e.ContentType, "application/avro") {
		return 0, false
	}
	return binary.BigEndian.Uint32(e.Value[1:]), true
}
