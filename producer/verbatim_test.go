package producer_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
)

func TestAVerbatimEventIsTheRecordItSays(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{Source: "shop"})
	repeated := event.Headers{
		{Key: "b", Value: []byte{0xff, 0}}, {Key: "a", Value: nil}, {Key: "b", Value: []byte{}}, {Key: "ce_id", Value: []byte("1")}, {Key: "ce_id", Value: []byte("2")},
	}
	want := []event.Event{
		{Meta: event.Meta{Topic: "a", Key: []byte("k"), Headers: repeated}, Value: []byte{0}, Verbatim: true},
		{Meta: event.Meta{Topic: "a", Key: []byte("k"), Type: "not.Sent", Tenant: "nor this"}, Verbatim: true}, // a foreign tombstone
		{Meta: event.Meta{Topic: "a", Key: []byte("k")}, Value: []byte{}, Verbatim: true},
	}
	if err := p.Publish(soon(t), want[:2]...); err != nil {
		t.Fatal(err)
	}
	acked := make(chan error, 1)
	p.PublishAsync(soon(t), want[2], func(_ event.Event, err error) { acked <- err })
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
	for i, got := range read(t, fake, "a", len(want)) {
		if !reflect.DeepEqual(got.Value, want[i].Value) || len(got.Headers) != len(want[i].Headers) ||
			len(got.Headers) > 0 && !reflect.DeepEqual(got.Headers, want[i].Headers) {
			t.Errorf("%d: got value %#v and headers %v, want %#v and %v", i, got.Value, got.Headers, want[i].Value, want[i].Headers)
		}
	}
	both := event.New("a", "k", "data")
	both.Verbatim = true
	if err := p.Publish(soon(t), both); !errors.Is(err, producer.ErrRejected) {
		t.Errorf("data that would have to be encoded: got %v, want ErrRejected", err)
	}
}
