package producer_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
)

// Memory is used again while other records are on their way: a record whose id, header or value belongs to another
// has lost its memory too early.
func TestNoRecordIsWrittenOverByAnother(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{MaxRecords: 300})
	const callers, rounds = 6, 60
	made := func(c, i, j int) event.Event {
		e := event.New("a", fmt.Sprintf("%d-%d", c, j), "")
		e.Data = fmt.Sprintf("%s %*d", e.ID, i*j%97, i) // of many sizes
		e.Headers = event.Headers{{Key: "x", Value: []byte(e.ID)}}
		return e
	}
	ctx := soon(t)
	sent := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range rounds {
				n := 1 + (c*rounds+i)%40
				var events []event.Event
				for j := range n {
					events = append(events, made(c, i, j))
				}
				if c%2 == 0 {
					if err := p.Publish(ctx, events...); err != nil {
						t.Error(err)
					}
				} else {
					for _, e := range events {
						p.PublishAsync(ctx, e, func(got event.Event, err error) {
							if err != nil || got.ID != e.ID {
								t.Errorf("got the answer of %s for %s: %v", got.ID, e.ID, err)
							}
						})
					}
				}
				mu.Lock()
				sent += n
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, e := range read(t, fake, "a", sent) {
		if len(e.Value) < len(e.ID) || string(e.Value[:len(e.ID)]) != e.ID || string(e.Headers.Get("x")) != e.ID || ids[e.ID] {
			t.Fatalf("got id %s, header %s, value %s", e.ID, e.Headers.Get("x"), e.Value)
		}
		ids[e.ID] = true
	}
}
