package replay_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
)

// Put the orders of an hour into a topic again, ten times as fast as they came. The same id goes on after a crash.
func Example() {
	again := func(ctx context.Context, c kafka.Cluster, from, until time.Time) (replay.Summary, error) {
		p, err := producer.New(c, nil, producer.Config{})
		if err != nil {
			return replay.Summary{}, err
		}
		defer func() { _ = p.Close(ctx) }()
		return replay.Run(ctx, c, replay.Topic(p, "shop.orders-fixed"), replay.Config{
			ID: "incident-42", Speed: 10,
			Read: reader.Config{Topics: []string{"shop.orders"}, Range: position.Range{
				From: position.Point{Kind: position.Time, At: from}, Until: position.Point{Kind: position.Time, At: until},
			}},
		})
	}
	_ = again
}

// Give the events after the position of a group to a URL, four keys at once, and go on past those that it refuses.
func ExampleURL() {
	post := func(ctx context.Context, c kafka.Cluster) (replay.Summary, error) {
		to, err := replay.URL(nil, "https://shop.example/hooks")
		if err != nil {
			return replay.Summary{}, err
		}
		to.Header = http.Header{"Authorization": {"Bearer …"}}
		return replay.Run(ctx, c, to, replay.Config{
			Read: reader.Config{Topics: []string{"shop.orders"}}, Group: "shipping", Keys: 4, SkipFailed: true,
		})
	}
	_ = post
}

// Run a handler over the past and let nothing out: what it would have caused is written down instead.
func ExampleGuard() {
	shadow := func(ctx context.Context, c kafka.Cluster, handle func(context.Context, *http.Client, event.Event) error, capture io.Writer) error {
		g := &replay.Guard{ID: "what-if", Capture: replay.NewWriter(capture).Write}
		client := &http.Client{Transport: g.Transport(http.DefaultTransport), Timeout: time.Second}
		_, err := replay.Run(ctx, c, replay.Func(func(ctx context.Context, e event.Event) error {
			ctx, a := g.Begin(ctx, "shipping", &e, e.Published)
			if err := handle(ctx, client, e); err != nil && !errors.Is(err, replay.ErrRefused) {
				return err // tried again: only the last attempt is captured
			}
			return a.End()
		}), replay.Config{Read: reader.Config{Topics: []string{"shop.orders"}}})
		return err
	}
	_ = shadow
}
