package replay

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"unicode/utf8"
)

// The kinds of an [Effect], and what its Target and Body are.
const (
	KindPublish = "publish" // Target is the live topic; Body the data as generic JSON, null for a tombstone
	KindHTTP    = "http"    // Target is "METHOD URL"; Body what was sent, at most 1 MiB of it
	KindRow     = "row"     // Target is the live table of a sink, Key its key columns, Body the row by column; null: deleted
	KindFold    = "fold"    // Target is the live table of a fold, Key the key and, with windows, the window, Body the state
	KindDLQ     = "dlq"     // Target is the dead-letter topic; Body is {"class", "handler", "error"}
)

// Effect is one thing that a handler would have caused: a line of a capture.
//
// Two captures of one range are compared by cause id, By, Kind, Target and Ordinal. The effects of one event stand together,
// in the order in which they were caused, and are those of its last attempt; events stand in the order in which they
// were done; what a goroutine caused that outlived its handler stands where it was caused. A replay that was killed and
// went on may have captured an event twice: the later lines count.
type Effect struct {
	Version int    `json:"millrace"` // 1
	Replay  string `json:"replay"`
	By      string `json:"by,omitempty"` // the group of the consumer, or the name of the sink
	Cause   Cause  `json:"cause"`        // zero where it was caused outside of a handler's context
	Kind    string `json:"kind"`
	Target  string `json:"target"`
	// Ordinal counts the effects of one cause, kind and target from 0.
	Ordinal int `json:"ordinal"`
	// ID and Type are those of a published event. An ID that event.New made differs from run to run; one of event.After does not.
	ID   string `json:"id,omitempty"`
	Type string `json:"type,omitempty"`
	// Key and Body are JSON: text as a string, bytes that are no text as {"base64": "…"}, nothing as null.
	Key     json.RawMessage   `json:"key,omitempty"`
	Headers map[string]string `json:"headers,omitempty"` // without attributes, traces and secrets
	Body    json.RawMessage   `json:"body"`
	Refused bool              `json:"refused,omitempty"` // it was kept in; else it was redirected, captured alone, or let out
}

// Cause is the event that was being handled.
type Cause struct {
	ID        string `json:"id"`
	Type      string `json:"type,omitempty"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Value is bytes as [Effect] has them: JSON as it is, text as a string, other bytes in base64, nil as null.
func Value(b []byte) json.RawMessage {
	if b != nil && json.Valid(b) {
		return append(json.RawMessage(nil), b...)
	}
	return Text(b)
}

// Text is [Value] for bytes that are not JSON, whatever they look like: keys.
func Text(b []byte) json.RawMessage {
	var v any
	switch {
	case b == nil:
		return json.RawMessage("null")
	case utf8.Valid(b):
		v = string(b)
	default:
		v = map[string][]byte{"base64": b}
	}
	out, _ := json.Marshal(v) //nolint:errchkjson // strings alone
	return out
}

// Writer writes a capture, as JSON lines. It may be used by several goroutines.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
	b  []byte
}

// NewWriter returns a writer to w, which it gives the effects of one call of Write in one piece: to a file they are
// appended together.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write appends effects.
func (w *Writer) Write(effects []Effect) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = w.b[:0]
	for i := range effects {
		e := effects[i]
		e.Version = 1
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("capture an effect: %w", err)
		}
		w.b = append(append(w.b, line...), '\n')
	}
	if _, err := w.w.Write(w.b); err != nil {
		return fmt.Errorf("capture an effect: %w", err)
	}
	return nil
}

// maxLine bounds a line of a capture: the largest record, in base64, with room for the rest.
const maxLine = 128 << 20

// Effects yields the effects of a capture, and ends at the first line that is none. A last line that has no end is one
// that a crash cut off: it is left out, as the event that it belongs to is captured again.
func Effects(r io.Reader) iter.Seq2[Effect, error] {
	return func(yield func(Effect, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		for n := 1; ; n++ {
			line, err := readLine(in)
			if err == io.EOF { //nolint:errorlint // bufio returns it as it is
				return
			}
			var e Effect
			if err == nil {
				err = json.Unmarshal(line, &e)
			}
			if err == nil && e.Version != 1 {
				err = errors.New("it is no effect of version 1")
			}
			if err != nil {
				err = fmt.Errorf("read a capture: line %d: %w", n, err)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// readLine returns the next line that ends.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case err != bufio.ErrBufferFull: //nolint:errorlint // bufio returns it as it is
			return nil, err //nolint:wrapcheck // Effects says where
		case len(line) > maxLine:
			return nil, fmt.Errorf("it has more than %d bytes", maxLine)
		}
	}
}
