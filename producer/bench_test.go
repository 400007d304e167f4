package producer_test

import (
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
)

// BenchmarkLayer is what an event costs before the client sees it: everything but the client, the network and the
// encoder, which is a copy of 200 bytes here. Bounds are left out with the client.
func BenchmarkLayer(b *testing.B) {
	p, err := producer.New(kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}, text{}, producer.Config{
		Source: "bench", Redirect: func(string) (string, error) { return "", nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close(b.Context()) }()
	data := string(make([]byte, 200))
	e := event.New("a", "order-00001", data)
	b.Run("async", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.PublishAsync(b.Context(), e, nil)
		}
	})
	b.Run("batch", func(b *testing.B) {
		b.ReportAllocs()
		events := make([]event.Event, 1000)
		for i := range events {
			events[i] = e
		}
		for n := 0; n < b.N; n += len(events) {
			if err := p.Publish(b.Context(), events...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) { // what the caller pays before
		b.ReportAllocs()
		var x event.Event
		for b.Loop() {
			x = event.New("a", "order-00001", data)
		}
		_ = x
	})
}
