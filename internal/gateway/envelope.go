package gateway

import (
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/schemas"
)

// Received is what came in, as it came: the event that the gateway publishes for every request that it accepts.
type Received struct {
	// Source names who sent it: the source's file.
	Source string
	// ReceivedAt is when its header had arrived.
	ReceivedAt time.Time
	// Scheme that verified it, "none" where the source says verify: none.
	Scheme string
	// Key is the index of the secret that it was signed with; -1 where there is none.
	Key int32
	// ID is the sender's own id of the event, "" where it has none.
	ID string
	// Type is the sender's own name for what happened, where the source says how it is found.
	Type string
	// Method, Path and Query of the request. The query has no question mark.
	Method, Path, Query string
	// Headers are those that the source keeps, by name. Values are as they came.
	Headers []Header
	// Body is the body's bytes as they came over the wire.
	Body []byte
}

// Header is one header of a request.
type Header struct{ Name, Value string }

const receivedSchema = `{"type":"record","name":"Received","namespace":"millrace.webhook",` +
	`"doc":"A webhook as it came in: verified, with the body's bytes as they came over the wire.","fields":[` +
	`{"name":"source","type":"string","doc":"who sent it: the name of the source"},` +
	`{"name":"received_at","type":{"type":"long","logicalType":"timestamp-micros"}},` +
	`{"name":"scheme","type":"string","doc":"the scheme that verified it, none where the source does not verify"},` +
	`{"name":"key","type":"int","doc":"index of the secret that it was signed with, -1 for none"},` +
	`{"name":"id","type":"string","doc":"the sender's id of the event, empty where it has none"},` +
	`{"name":"type","type":"string","doc":"the sender's name for what happened, empty where the source does not say"},` +
	`{"name":"method","type":"string"},` +
	`{"name":"path","type":"string"},` +
	`{"name":"query","type":"string"},` +
	`{"name":"headers","type":{"type":"array","items":{"type":"record","name":"Header","fields":[` +
	`{"name":"name","type":"string"},{"name":"value","type":"string"}]}}},` +
	`{"name":"body","type":"bytes"}]}`

// ReceivedName is the event's type.
const ReceivedName = "millrace.webhook.Received"

// AvroName implements [schemas.Named].
func (Received) AvroName() string { return ReceivedName }

// AvroSchema implements [schemas.Described].
func (Received) AvroSchema() string { return receivedSchema }

// receivedFingerprint is that of receivedSchema: a test holds it against the text.
const receivedFingerprint = 0xd9f423ed7d4c7594

// AvroFingerprint implements [schemas.Generated].
func (Received) AvroFingerprint() uint64 { return receivedFingerprint }

var _ schemas.Generated = Received{}

// AppendAvro implements [schemas.Generated].
func (r Received) AppendAvro(dst []byte) ([]byte, error) {
	dst = appendText(dst, r.Source)
	dst = binary.AppendVarint(dst, r.ReceivedAt.UnixMicro())
	dst = appendText(dst, r.Scheme)
	dst = binary.AppendVarint(dst, int64(r.Key))
	for _, s := range [...]string{r.ID, r.Type, r.Method, r.Path, r.Query} {
		dst = appendText(dst, s)
	}
	if len(r.Headers) > 0 {
		dst = binary.AppendVarint(dst, int64(len(r.Headers)))
		for _, h := range r.Headers {
			dst = appendText(appendText(dst, h.Name), h.Value)
		}
	}
	dst = append(dst, 0)
	dst = binary.AppendVarint(dst, int64(len(r.Body)))
	return append(dst, r.Body...), nil
}

// appendText appends a string. What a stranger sent as a header need not be UTF-8, which Avro's strings are.
func appendText(dst []byte, s string) []byte {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return append(binary.AppendVarint(dst, int64(len(s))), s...)
}

// dropped are headers that are never kept: those of the hop, and what lets somebody in.
var dropped = map[string]bool{
	"Authorization": true, "Proxy-Authorization": true, "Cookie": true, "Connection": true, "Keep-Alive": true,
	"Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Content-Length": true, "Accept-Encoding": true, "X-Forwarded-For": true, "X-Forwarded-Host": true,
	"X-Forwarded-Proto": true, "X-Forwarded-Port": true, "X-Real-Ip": true, "Forwarded": true, "Via": true,
}

// keep returns the headers of a request that the source keeps, sorted by name.
func (s *Source) keep(h http.Header) []Header {
	out := make([]Header, 0, len(h))
	for name, values := range h {
		if dropped[name] || s.secretHeaders[name] || s.headers != nil && !s.headers[name] {
			continue
		}
		for _, v := range values {
			out = append(out, Header{name, v})
		}
	}
	slices.SortStableFunc(out, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	return out
}
