package event

import (
	"slices"
	"strings"
	"time"
	"unsafe"
)

// Header is one record header. Its layout is that of kgo.RecordHeader, so that internal/wire can cast one
// slice to the other.
type Header struct {
	Key   string
	Value []byte // nil is null
}

// Headers are a record's headers: order and repeats matter and are kept.
type Headers []Header

// The attribute headers of the CloudEvents 1.0 Kafka binding, binary mode.
const (
	HeaderSpecVersion = "ce_specversion"
	HeaderID          = "ce_id"
	HeaderType        = "ce_type"
	HeaderSource      = "ce_source"
	HeaderTime        = "ce_time" // RFC 3339, UTC
	HeaderTenant      = "ce_tenant"
	HeaderContentType = "content-type"
	HeaderTraceParent = "traceparent" // W3C Trace Context
)

// Millrace's own headers: the one table of them. Values are text unless said otherwise.
const (
	// HeaderCorrelation is the id of the first event of a chain, handed on by After.
	HeaderCorrelation = "millrace_correlation_id"
	// HeaderCause is the id of the event whose handler published this one.
	HeaderCause = "millrace_cause_id"

	// HeaderOriginTopic to HeaderOriginEpoch say where a copied record (dead letter, replay, redrive) was read.
	HeaderOriginTopic         = "millrace_origin_topic"
	HeaderOriginPartition     = "millrace_origin_partition"
	HeaderOriginOffset        = "millrace_origin_offset"
	HeaderOriginTimestamp     = "millrace_origin_timestamp"      // milliseconds since the epoch
	HeaderOriginTimestampType = "millrace_origin_timestamp_type" // CreateTime or LogAppendTime
	HeaderOriginEpoch         = "millrace_origin_leader_epoch"

	// HeaderGroup to HeaderStack say why a record is a dead letter.
	HeaderGroup        = "millrace_group"
	HeaderHandler      = "millrace_handler"
	HeaderAttempts     = "millrace_attempts"
	HeaderFirstFailure = "millrace_first_failure" // RFC 3339, UTC
	HeaderLastFailure  = "millrace_last_failure"  // RFC 3339, UTC
	HeaderErrorClass   = "millrace_error_class"   // a small, bounded set: poison, handler, panic, timeout, …
	HeaderError        = "millrace_error"         // the message, at most 1 KiB
	HeaderStack        = "millrace_stack"         // of a panic, at most 4 KiB
	HeaderSchemaID     = "millrace_schema_id"
	HeaderAppVersion   = "millrace_app_version"

	// HeaderRedrive counts how often a dead letter was put back: the guard against loops.
	HeaderRedrive = "millrace_redrive_count"
	// HeaderReplay is the id of the replay that wrote the record.
	HeaderReplay = "millrace_replay_id"
	// HeaderReplayCount counts how often a record was copied by replays: the guard against loops.
	HeaderReplayCount = "millrace_replay_count"
)

// Get returns the value of the last header named key, nil where there is none or its value is null.
func (h Headers) Get(key string) []byte {
	for _, x := range slices.Backward(h) {
		if x.Key == key {
			return x.Value
		}
	}
	return nil
}

// With returns a copy in which key has one value, at the end. The receiver is not changed.
func (h Headers) With(key string, value []byte) Headers {
	out := make(Headers, 0, len(h)+1)
	for _, x := range h {
		if x.Key != key {
			out = append(out, x)
		}
	}
	return append(out, Header{key, value})
}

// isAttribute reports whether AppendHeaders writes the header from Meta's own fields.
func isAttribute(key string) bool {
	return strings.HasPrefix(key, "ce_") && (key == HeaderID || key == HeaderType || key == HeaderSource ||
		key == HeaderTime || key == HeaderTenant || key == HeaderSpecVersion) || key == HeaderContentType
}

var specVersion = []byte("1.0")

// AppendHeaders appends m's attributes in the CloudEvents Kafka binding to dst, then every header of m.Headers
// that is not one of these attributes, in order. Empty attributes are left out. Values alias m's strings: do not write to them.
func AppendHeaders(dst Headers, m Meta) Headers { return appendHeaders(dst, &m) }

// AppendTo is [AppendHeaders] without the copy of m: the producer's path.
func (m *Meta) AppendTo(dst Headers) Headers { return appendHeaders(dst, m) }

func appendHeaders(dst Headers, m *Meta) Headers {
	dst = append(dst, Header{HeaderSpecVersion, specVersion}, Header{HeaderID, bytesOf(m.ID)})
	if m.Type != "" {
		dst = append(dst, Header{HeaderType, bytesOf(m.Type)})
	}
	if m.Source != "" {
		dst = append(dst, Header{HeaderSource, bytesOf(m.Source)})
	}
	if !m.Time.IsZero() {
		dst = append(dst, Header{HeaderTime, m.Time.UTC().AppendFormat(make([]byte, 0, 30), time.RFC3339Nano)})
	}
	if m.Tenant != "" {
		dst = append(dst, Header{HeaderTenant, bytesOf(m.Tenant)})
	}
	if m.ContentType != "" {
		dst = append(dst, Header{HeaderContentType, bytesOf(m.ContentType)})
	}
	for i := range m.Headers {
		if !isAttribute(m.Headers[i].Key) {
			dst = append(dst, m.Headers[i])
		}
	}
	return dst
}

// ParseHeaders sets m's attributes and m.Headers from h. Strings alias the bytes of h, which must not change
// afterwards. An attribute that is absent, or a ce_time that is no RFC 3339 time, leaves its field as it was: a
// foreign record is an event too. Where a header is repeated, the last one counts.
func ParseHeaders(m *Meta, h Headers) {
	m.Headers = h
	for i := range h {
		key, value := h[i].Key, h[i].Value
		switch key {
		case HeaderID:
			if len(value) > 0 && len(value) <= maxID {
				m.ID = stringOf(value)
			}
		case HeaderType:
			m.Type = stringOf(value)
		case HeaderSource:
			m.Source = stringOf(value)
		case HeaderTenant:
			m.Tenant = stringOf(value)
		case HeaderContentType:
			m.ContentType = stringOf(value)
		case HeaderTime:
			if t, err := time.Parse(time.RFC3339Nano, stringOf(value)); err == nil {
				m.Time = t
			}
		}
	}
}

const maxID = 255 // bytes

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
