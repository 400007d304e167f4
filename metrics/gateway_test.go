package metrics_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

func TestGateway(t *testing.T) {
	t.Parallel()
	m := create(t)
	o, err := m.Gateway()
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range gateway.Results() {
		o.Inbound("stripe", result, "mismatch", time.Millisecond)
	}
	o.Inbound("", gateway.Rejected, "unknown", time.Millisecond)
	o.DeadLettered("stripe", "poison")
	o.Evicted("stripe", 7)
	o.Reloaded(true)
	o.Reloaded(false)
	s := read(t, m.Handler())
	s.want(t, "millrace_webhook_inbound_total", map[string]float64{
		"result=accepted source=stripe": 1, "result=duplicate source=stripe": 1, "result=handshake source=stripe": 1,
		"result=rejected source=stripe": 1, "result=unavailable source=stripe": 1, "result=failed source=stripe": 1, "result=rejected": 1,
	})
	s.want(t, "millrace_webhook_inbound_rejected_total", map[string]float64{"reason=mismatch source=stripe": 1, "reason=unknown": 1})
	s.want(t, "millrace_webhook_inbound_unavailable_total", map[string]float64{"reason=mismatch source=stripe": 1})
	s.want(t, "millrace_webhook_inbound_duplicates_total", map[string]float64{"source=stripe": 1})
	s.want(t, "millrace_webhook_inbound_dead_letters_total", map[string]float64{"error_class=poison source=stripe": 1})
	s.want(t, "millrace_webhook_inbound_evicted_total", map[string]float64{"source=stripe": 7})
	s.want(t, "millrace_webhook_sources_reloads_total", map[string]float64{"result=ok": 1, "result=failed": 1})
	if got := s.series(t, "millrace_webhook_inbound_duration_seconds"); len(got) != 7 {
		t.Errorf("durations: got %v", got)
	}
	for i := range 400 {
		o.Inbound(fmt.Sprint("s", i), gateway.Accepted, "", time.Millisecond)
	}
	if got := read(t, m.Handler()).series(t, "millrace_webhook_inbound_total"); len(got) > 7+256 || got["result=accepted source=other"] == 0 {
		t.Errorf("%d series", len(got))
	}
	if _, err := m.Gateway(); err == nil {
		t.Error("the same metrics were registered twice")
	}
}
