package metrics_test

import (
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/metrics"
	"github.com/millrace/millrace/producer"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What a handler publishes with event.After is in the trace of the event that it handles, although the handler knows
// nothing of traces.
func TestAnEffectIsInTheTraceOfItsCause(t *testing.T) {
	t.Parallel()
	cluster := broker(t, "causes", "effects")
	spans := tracetest.NewSpanRecorder()
	cluster.Hooks = metrics.Traces(trace.NewTracerProvider(trace.WithSpanProcessor(spans)))
	p, err := producer.New(cluster, nil, producer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close(t.Context()) }()
	first := event.New("causes", "k", nil)
	first.Value = []byte("x")
	if err := p.Publish(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	cl, err := cluster.Client(kgo.ConsumeTopics("causes"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var cause event.Event
	for _, r := range cl.PollRecords(t.Context(), 1).Records() {
		wire.Read(&cause, r, [16]byte{})
	}
	effect := event.After(cause.Meta, "effects", "k", nil)
	effect.Value = []byte("y")
	if err := p.Publish(t.Context(), effect); err != nil {
		t.Fatal(err)
	}
	byName := map[string]trace.ReadOnlySpan{}
	for _, s := range spans.Ended() {
		byName[s.Name()] = s
	}
	root, received, after := byName["causes publish"], byName["causes receive"], byName["effects publish"]
	if root == nil || received == nil || after == nil {
		t.Fatalf("spans are %v", byName)
	}
	for _, s := range []trace.ReadOnlySpan{received, after} {
		if s.Parent().SpanID() != root.SpanContext().SpanID() || s.SpanContext().TraceID() != root.SpanContext().TraceID() {
			t.Errorf("%s has the parent %v, want %v", s.Name(), s.Parent(), root.SpanContext())
		}
	}
}
