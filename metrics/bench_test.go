package metrics_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/metrics"
	"github.com/millrace/millrace/producer"
)

// What the observers cost per event: the consumer's batch path has one attempt for many events, its single path one for
// each; producers tell of each event.
func BenchmarkObservers(b *testing.B) {
	const batch = 500
	id := cursor.ID{Reader: "shipping", Topic: "shop.orders", Partition: 3}
	m, err := metrics.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	c, p := m.Consumer("shipping"), m.Producer()
	c.Assigned(map[cursor.ID]int64{id: 0})
	b.Run("consume/batch", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if i%batch == 0 {
				c.Attempted(id, "shop.OrderPlaced", consumer.Done, batch, time.Millisecond)
				c.Handled(id, batch, 0, time.Millisecond)
			}
		}
	})
	b.Run("consume/single", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			c.Attempted(id, "shop.OrderPlaced", consumer.Done, 1, 3*time.Microsecond)
			if i%batch == 0 {
				c.Handled(id, batch, 0, time.Millisecond)
			}
		}
	})
	b.Run("publish", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Published("shop.orders", producer.Acked, 120, 3*time.Millisecond)
		}
	})
}
