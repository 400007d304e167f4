package sink_test

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sinktest"
)

// sales is the state of a fold.
type sales struct {
	Orders int   `json:"orders"`
	Cents  int64 `json:"cents"`
}

// A function, a fold and a table in one transaction with the position. The database is the one in memory of package
// sinktest; with pgsink.New or sqlitesink.New nothing else changes but the type of tx.
func Example() {
	out := sink.NewMux[*sinktest.Tx](sinktest.NewMemory())
	sink.On(out, func(ctx context.Context, tx *sinktest.Tx, es []event.Of[shop.OrderPlaced]) error {
		for _, e := range es {
			if err := tx.Put(ctx, "last order of "+e.Data.CustomerID, e.Data.OrderID); err != nil {
				return err
			}
		}
		return nil
	})
	sink.OnFold(out, sink.Fold[shop.OrderPlaced]{
		Name: "sales_per_minute", Window: time.Minute, Lateness: time.Hour,
		By: func(e event.Of[shop.OrderPlaced]) string { return e.Data.Country },
	}, func(s sales, e event.Of[shop.OrderPlaced]) sales {
		return sales{s.Orders + 1, s.Cents + e.Data.Cents}
	})
	out.Table(sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"order_id"}})

	run := func(ctx context.Context, c kafka.Cluster, reg *schemas.Registry) error {
		return sink.Run(ctx, c, reg, out, sink.Config{
			Name: "analytics", Topics: []string{"shop.orders"}, Dedupe: 24 * time.Hour,
		})
	}
	_ = run
}

// A rebuild writes everything once more beside what is there, and takes its place when it has caught up.
func ExampleMux_Swap() {
	out := sink.NewMux[*sinktest.Tx](sinktest.NewMemory())
	out.Table(sink.Table{Name: "orders", Event: "shop.OrderPlaced", Key: []string{"order_id"}})

	rebuild := func(ctx context.Context, c kafka.Cluster, reg *schemas.Registry) error {
		ctx, caughtUp := context.WithTimeout(ctx, time.Hour) // or once the lag of the group analytics__v2 is 0
		defer caughtUp()
		err := sink.Run(ctx, c, reg, out, sink.Config{Name: "analytics", Topics: []string{"shop.orders"}, Rebuild: true})
		if err != nil {
			return err
		}
		return out.Admin().Swap(context.WithoutCancel(ctx), out.Swap("analytics"))
	}
	_ = rebuild
	fmt.Println(out.Swap("analytics").Tables)
	// Output: [{orders orders__v2 orders__old}]
}
