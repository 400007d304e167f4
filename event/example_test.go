package event_test

import (
	"fmt"

	"github.com/millrace/millrace/event"
)

// An effect of a handler has an id that follows from its cause: a handler that runs again publishes the same one.
func ExampleAfter() {
	cause := event.Meta{ID: "0190a3c4-8f2e-7000-8000-000000000001", Topic: "shop.orders"}
	once := event.After(cause, "shop.shipments", "o-1", struct{ OrderID string }{"o-1"})
	again := event.After(cause, "shop.shipments", "o-1", struct{ OrderID string }{"o-1"})
	fmt.Println(once.ID == again.ID)
	fmt.Printf("%s\n", once.Headers.Get(event.HeaderCause))
	// Output:
	// true
	// 0190a3c4-8f2e-7000-8000-000000000001
}
