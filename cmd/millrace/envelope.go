package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// envelope is one event on a line: what tail -o jsonl writes and produce reads. Key, value and headers are the exact
// bytes; data is the value decoded, for people and for jq, and is not read back. The member millrace tells such a line from plain data.
type envelope struct {
	Millrace  int            `json:"millrace"` // version of the format: 1
	Topic     string         `json:"topic,omitempty"`
	Partition int32          `json:"partition"`
	Offset    int64          `json:"offset"`
	Timestamp instant        `json:"timestamp"`
	Type      string         `json:"type,omitempty"`
	Key       *octets        `json:"key"`
	Headers   []headerOctets `json:"headers"`
	Value     *octets        `json:"value"`
	// Data is absent where the value has no JSON form.
	Data json.RawMessage `json:"data,omitempty"`
	// Error is why the value did not decode.
	Error string `json:"error,omitempty"`
	// Context says that the event is no match and stands beside one.
	Context bool `json:"context,omitempty"`
}

// instant is a record's timestamp: RFC 3339 in UTC, and milliseconds since 1970 where it lies beyond the years that
// RFC 3339 has, as it does when a producer has mistaken nanoseconds for milliseconds.
type instant time.Time

func (i instant) MarshalJSON() ([]byte, error) {
	t := time.Time(i).UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return strconv.AppendInt(nil, t.UnixMilli(), 10), nil
	}
	return t.MarshalJSON() //nolint:wrapcheck // it cannot fail for these years
}

func (i *instant) UnmarshalJSON(text []byte) error {
	if ms, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		*i = instant(time.UnixMilli(ms))
		return nil
	}
	return (*time.Time)(i).UnmarshalJSON(text) //nolint:wrapcheck // it says what is wrong with the time
}

// octets are bytes in JSON: a string where they are text, else {"encoding": "base64", "bytes": "…"}. Null is null, and
// empty is "".
type octets []byte

type encoded struct {
	Encoding string `json:"encoding"`
	Bytes    string `json:"bytes"`
}

// MarshalJSON implements json.Marshaler.
func (o octets) MarshalJSON() ([]byte, error) { return o.append(nil), nil } //nolint:unparam // the interface

func (o *octets) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err == nil {
		*o = octets(s)
		return nil
	}
	var b encoded
	if err := json.Unmarshal(text, &b); err != nil || b.Encoding != "base64" {
		return errors.New(`bytes are a string or {"encoding": "base64", "bytes": "…"}`)
	}
	raw, err := base64.StdEncoding.DecodeString(b.Bytes)
	if err != nil {
		return fmt.Errorf("read base64: %w", err)
	}
	*o = append(octets{}, raw...)
	return nil
}

func (o octets) append(dst []byte) []byte {
	if utf8.Valid(o) && bytes.IndexByte(o, 0) < 0 {
		return appendText(dst, o)
	}
	dst = append(dst, `{"encoding":"base64","bytes":"`...)
	return append(base64.StdEncoding.AppendEncode(dst, o), `"}`...)
}

// appendText appends valid UTF-8 as a JSON string.
func appendText(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

type headerOctets struct {
	Key   octets  `json:"key"` // text in all but broken producers
	Value *octets `json:"value"`
}

func (o *octets) appendOrNull(dst []byte) []byte {
	if o == nil {
		return append(dst, "null"...)
	}
	return o.append(dst)
}

func octetsOf(b []byte) *octets {
	if b == nil {
		return nil
	}
	o := octets(b)
	return &o
}

func (o *octets) bytes() []byte {
	if o == nil {
		return nil
	}
	return append([]byte{}, *o...)
}

// marshal is json.Marshal without the escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decoded is what could be made of a value.
type decoded struct {
	json json.RawMessage // nil where the value is no Avro and no JSON
	typ  string
	err  error
}

// decoder makes values readable. It works without a registry too: then framed values stay bytes.
type decoder struct {
	reg *schemas.Registry
	// optional is for a registry that nobody named: when it does not answer, it is left alone from then on.
	optional bool
	say      func(format string, args ...any)
}

// decode returns an error only when nothing more can be read: the named registry does not answer.
func (d *decoder) decode(ctx context.Context, e *event.Event) (decoded, error) {
	out := decoded{typ: e.Type}
	if e.Value == nil {
		return out, nil
	}
	var frame schemas.Frame
	if frame, out.err = schemas.ParseFrame(e.Value, e.Headers); out.err != nil {
		return out, nil //nolint:nilerr // the error is about this value alone and is in out
	}
	if !frame.Framed() {
		if json.Valid(e.Value) && utf8.Valid(e.Value) {
			var compact bytes.Buffer
			_ = json.Compact(&compact, e.Value) // it is valid
			out.json = compact.Bytes()
		}
		return out, nil
	}
	if d.reg == nil {
		return out, nil
	}
	var err error
	out.json, out.typ, err = d.avro(ctx, e, frame)
	if out.typ == "" {
		out.typ = e.Type
	}
	switch {
	case errors.Is(err, schemas.ErrUnavailable) && d.optional:
		d.say("no schema registry answers at %s: values are shown as bytes (name one: --registry URL)", defaultRegistry)
		d.reg = nil
		return out, nil
	case errors.Is(err, schemas.ErrUnavailable), errors.Is(err, context.Canceled):
		return out, err
	}
	out.err = err
	return out, nil
}

func (d *decoder) avro(ctx context.Context, e *event.Event, frame schemas.Frame) (json.RawMessage, string, error) {
	if frame.ID == 0 { // named by GUID: the registry resolves it
		var v any
		if err := d.reg.Decode(ctx, e, &v); err != nil {
			return nil, "", err
		}
		typ, err := d.reg.TypeOf(ctx, e)
		if err != nil {
			return nil, "", err
		}
		text, err := marshal(v)
		return text, typ, err
	}
	s, err := d.reg.ByID(ctx, frame.ID)
	if errors.Is(err, schemas.ErrNotFound) {
		err = fmt.Errorf("%w: the registry has no schema with the id %d", schemas.ErrPoison, frame.ID)
	}
	if err != nil {
		return nil, "", err
	}
	text, err := s.AppendJSON(nil, frame.Body)
	return text, s.Name, err
}

func envelopeOf(e *event.Event, d decoded) envelope {
	env := envelope{
		Millrace: 1, Topic: e.Topic, Partition: e.Partition, Offset: e.Offset, Timestamp: instant(e.Published), Type: d.typ,
		Key: octetsOf(e.Key), Value: octetsOf(e.Value), Data: d.json, Headers: make([]headerOctets, len(e.Headers)),
	}
	for i, h := range e.Headers {
		env.Headers[i] = headerOctets{octets(h.Key), octetsOf(h.Value)}
	}
	if d.err != nil {
		env.Error = d.err.Error()
	}
	return env
}

// appendJSON appends the envelope as one line of JSON: what json.Marshal makes of it, in a quarter of the time.
func (e *envelope) appendJSON(dst []byte) ([]byte, error) {
	dst = append(dst, `{"millrace":`...)
	dst = strconv.AppendInt(dst, int64(e.Millrace), 10)
	if e.Topic != "" {
		dst = appendText(append(dst, `,"topic":`...), []byte(e.Topic))
	}
	dst = strconv.AppendInt(append(dst, `,"partition":`...), int64(e.Partition), 10)
	dst = strconv.AppendInt(append(dst, `,"offset":`...), e.Offset, 10)
	at, err := e.Timestamp.MarshalJSON()
	if err != nil {
		return nil, err
	}
	dst = append(append(dst, `,"timestamp":`...), at...)
	if e.Type != "" {
		dst = appendText(append(dst, `,"type":`...), []byte(strings.ToValidUTF8(e.Type, "\uFFFD")))
	}
	dst = e.Key.appendOrNull(append(dst, `,"key":`...))
	dst = append(dst, `,"headers":[`...)
	for i, h := range e.Headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = h.Key.append(append(dst, `{"key":`...))
		dst = append(h.Value.appendOrNull(append(dst, `,"value":`...)), '}')
	}
	dst = e.Value.appendOrNull(append(dst, `],"value":`...))
	if len(e.Data) > 0 {
		dst = append(append(dst, `,"data":`...), e.Data...)
	}
	if e.Error != "" {
		dst = appendText(append(dst, `,"error":`...), []byte(strings.ToValidUTF8(e.Error, "\uFFFD")))
	}
	if e.Context {
		dst = append(dst, `,"context":true`...)
	}
	return append(dst, '}'), nil
}

// line is an event for people, on one line.
func line(e *event.Event, d decoded, at time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s/%d@%d", at.Format("2006-01-02 15:04:05.000"), e.Topic, e.Partition, e.Offset)
	if e.Key == nil {
		b.WriteString("  -")
	} else {
		b.WriteString("  " + preview(e.Key))
	}
	if d.typ != "" {
		b.WriteString("  " + printable(d.typ))
	}
	switch {
	case e.Value == nil:
		b.WriteString("  (tombstone)")
	case d.json != nil:
		b.WriteString("  " + printable(string(d.json)))
	default:
		b.WriteString("  " + preview(e.Value))
	}
	if class := e.Headers.Get(event.HeaderErrorClass); class != nil {
		fmt.Fprintf(&b, "  (dead letter of %s: %s: %s)", printable(string(e.Headers.Get(event.HeaderGroup))), printable(string(class)),
			printable(string(e.Headers.Get(event.HeaderError))))
	}
	if d.err != nil {
		b.WriteString("  (does not decode: " + printable(d.err.Error()) + ")")
	}
	return b.String()
}

// preview is bytes for people: text as it is, other bytes in hexadecimal, the first of them.
func preview(b []byte) string {
	const most = 48
	if len(b) == 0 {
		return `""` // null is "-" or a tombstone
	}
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return printable(string(b))
	}
	if len(b) > most {
		return fmt.Sprintf("0x%x… (%d bytes)", b[:most], len(b))
	}
	return fmt.Sprintf("0x%x", b)
}
