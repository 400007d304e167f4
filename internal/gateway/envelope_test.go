package gateway

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

func TestReceivedIsItsSchema(t *testing.T) {
	t.Parallel()
	s, err := schemas.Parse(receivedSchema)
	if err != nil {
		t.Fatal(err)
	}
	if s.Fingerprint != receivedFingerprint {
		t.Errorf("the fingerprint is %#x", s.Fingerprint)
	}
	for _, r := range []Received{
		{},
		{
			Source: "stripe", ReceivedAt: time.UnixMicro(1_790_000_000_123_456).UTC(), Scheme: "stripe", Key: -1, ID: "evt_1", Type: "charge.paid",
			Method: "POST", Path: "/in/stripe", Query: "a=b", Headers: []Header{{"Content-Type", "application/json"}, {"X", "\xff"}}, Body: []byte{0, 1, 0xff},
		},
	} {
		reg := schemas.Memory()
		e := event.New("webhooks", "", &r)
		if e.Value, err = reg.Encode(context.Background(), nil, &e); err != nil {
			t.Fatal(err)
		}
		var got any
		if err := reg.Decode(context.Background(), &e, &got); err != nil {
			t.Fatal(err)
		}
		headers := []any{}
		for _, h := range r.Headers {
			v := h.Value
			if v == "\xff" {
				v = "\uFFFD"
			}
			headers = append(headers, map[string]any{"name": h.Name, "value": v})
		}
		want := map[string]any{
			"source": r.Source, "received_at": time.UnixMicro(r.ReceivedAt.UnixMicro()).UTC(), "scheme": r.Scheme, "key": r.Key, "id": r.ID, "type": r.Type,
			"method": r.Method, "path": r.Path, "query": r.Query, "headers": headers, "body": append([]byte{}, r.Body...),
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %#v\nwant %#v", got, want)
		}
	}
}
