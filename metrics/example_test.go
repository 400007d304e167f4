package metrics_test

import (
	"context"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/metrics"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

// For a program that does not use package service: an observer here, an observer there, and the hooks of the clients.
func Example() {
	run := func(ctx context.Context, cluster kafka.Cluster, reg *schemas.Registry, mux *consumer.Mux) error {
		m, err := metrics.New(prometheus.DefaultRegisterer)
		if err != nil {
			return err
		}
		http.Handle("/metrics", promhttp.Handler())
		cluster.Hooks = append(cluster.Hooks, m.Hooks()...)
		go m.Watch(ctx, cluster)

		p, err := producer.New(cluster, reg, producer.Config{Observer: m.Producer()})
		if err != nil {
			return err
		}
		err = consumer.Run(ctx, cluster, reg, mux, consumer.Config{
			Group: "shipping", Topics: []string{"shop.orders"}, Observer: m.Consumer("shipping"),
		})
		return errors.Join(err, p.Close(context.WithoutCancel(ctx)))
	}
	_ = run
}
