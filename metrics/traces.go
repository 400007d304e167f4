package metrics

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Traces returns hooks for [kafka.Cluster].Hooks that make spans of provider's: one when an event is published, one
// when it is received. The W3C header traceparent carries the trace through the log. An event that a handler publishes
// with event.After takes part in the trace of its cause. Where spans go to is the provider's business.
func Traces(provider trace.TracerProvider) []kgo.Hook {
	tracer := kotel.NewTracer(kotel.TracerProvider(provider), kotel.TracerPropagator(propagation.TraceContext{}))
	return append([]kgo.Hook{heir{}}, kotel.NewKotel(kotel.WithTracer(tracer)).Hooks()...)
}

// heir puts a record that is published outside of a span into the trace that its headers name: event.After hands on
// that of the cause. It stands before the tracer, which would begin a new trace.
type heir struct{}

// OnProduceRecordBuffered implements [kgo.HookProduceRecordBuffered].
func (heir) OnProduceRecordBuffered(r *kgo.Record) {
	if !trace.SpanContextFromContext(r.Context).IsValid() {
		r.Context = propagation.TraceContext{}.Extract(r.Context, kotel.NewRecordCarrier(r))
	}
}
