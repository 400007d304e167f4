package wire_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
)

// FuzzRead takes headers as a foreign producer may write them, reads them, and writes them again: no panic, an id
// in every event, and a copy that reads as the same event.
func FuzzRead(f *testing.F) {
	f.Add([]byte(nil), []byte(nil), int32(0), int64(0))
	f.Add([]byte("\x05\x02ce_idi1\x07\x14ce_time2026-09-01T12:00:00Z"), []byte("v"), int32(3), int64(42))
	f.Add([]byte("\x05\xffce_id\x05\x00ce_id\x07\xffce_type"), []byte{0, 0, 0, 0, 1}, int32(-1), int64(-1))
	f.Add([]byte("\x07\x04ce_time\xff\xfe\x00\x01\x0c\x03content-typea/b\x00\x00"), []byte{}, int32(1<<30), int64(1)<<62)
	f.Add(bytes.Repeat([]byte("\x05\x01ce_idx"), 500), []byte("many"), int32(1), int64(1))
	f.Fuzz(func(t *testing.T, raw, value []byte, partition int32, offset int64) {
		r := &kgo.Record{Topic: "t", Partition: partition, Offset: offset, Value: value, Timestamp: time.UnixMilli(1), Headers: parse(raw)}
		var e event.Event
		wire.Read(&e, r, topicID)
		if e.ID == "" || len(e.ID) > 255 || e.Time.IsZero() {
			t.Fatalf("id %q, time %v", e.ID, e.Time)
		}
		if len(e.Headers) != len(r.Headers) {
			t.Fatalf("%d headers of %d", len(e.Headers), len(r.Headers))
		}
		copied := wire.Record(&e, e.Value)
		var again event.Event
		wire.Read(&again, copied, topicID)
		if again.ID != e.ID || again.Type != e.Type || again.Source != e.Source || again.Tenant != e.Tenant || again.ContentType != e.ContentType {
			t.Fatalf("copied: %+v\nread:   %+v", again.Meta, e.Meta)
		}
		if !again.Time.Equal(e.Time) && e.Time.Year() >= 0 && e.Time.Year() <= 9999 {
			t.Fatalf("copied time %v, read %v", again.Time, e.Time)
		}
	})
}

// parse reads headers as: key length, value length (0xff is null), key, value.
func parse(raw []byte) []kgo.RecordHeader {
	var h []kgo.RecordHeader
	for len(raw) >= 2 && len(h) < 1000 {
		k, v := int(raw[0]), int(raw[1])
		raw = raw[2:]
		key := raw[:min(k, len(raw))]
		raw = raw[len(key):]
		if v == 0xff {
			h = append(h, kgo.RecordHeader{Key: string(key)})
			continue
		}
		value := raw[:min(v, len(raw))]
		raw = raw[len(value):]
		h = append(h, kgo.RecordHeader{Key: string(key), Value: value})
	}
	return h
}
