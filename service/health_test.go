package service

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/cursor"
)

// patient is a health with a clock that stands still until it is moved.
type patient struct {
	*health
	clock time.Time
	phase string
}

func newPatient() *patient {
	p := &patient{clock: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), phase: "running"}
	p.health = newHealth(func() time.Time { return p.clock }, func() string { return p.phase })
	return p
}

func (p *patient) wait(d time.Duration) { p.clock = p.clock.Add(d) }

func (p *patient) ready(t *testing.T, what string) {
	t.Helper()
	if missing := p.missing(); len(missing) > 0 {
		t.Errorf("%s: not ready: %s", what, strings.Join(missing, "; "))
	}
}

func (p *patient) notReady(t *testing.T, what, because string) {
	t.Helper()
	if missing := strings.Join(p.missing(), "; "); !strings.Contains(missing, because) {
		t.Errorf("%s: missing is %q, want %q", what, missing, because)
	}
}

var orders3 = cursor.ID{Reader: "shipping", Topic: "shop.orders", Partition: 3}

func TestAServiceIsReadyWhileItRuns(t *testing.T) {
	t.Parallel()
	p := newPatient()
	p.ready(t, "without consumers")
	for _, phase := range []string{"starting", "stopping"} {
		p.phase = phase
		p.notReady(t, phase, "the service is "+phase)
	}
}

func TestAConsumerIsReadyFromItsFirstAssignment(t *testing.T) {
	t.Parallel()
	p := newPatient()
	m := p.consumer("shipping")
	p.notReady(t, "before", "group shipping has assigned no partitions yet")
	m.Assigned(map[cursor.ID]int64{orders3: 0})
	p.ready(t, "after")
	m.Revoked([]cursor.ID{orders3}, false)
	p.ready(t, "in a rebalance")
	second := p.consumer("audit")
	p.notReady(t, "one of two", "group audit")
	second.Assigned(nil)
	p.ready(t, "both")
}

// More members than partitions: the one without must not hold up a deployment. It is known by its heartbeats.
func TestASpareMemberIsReadyToo(t *testing.T) {
	t.Parallel()
	p := newPatient()
	m := p.consumer("shipping")
	beat := func(key int16, err error) { m.OnBrokerE2E(kgo.BrokerMetadata{}, key, kgo.BrokerE2E{ReadErr: err}) }
	for range 10 {
		beat(3, nil) // metadata
		beat(12, errors.New("reset"))
		p.wait(3 * time.Second)
	}
	p.notReady(t, "without heartbeats", "group shipping")
	beat(12, nil)
	p.notReady(t, "after the first heartbeat", "group shipping")
	for range 5 {
		p.wait(3 * time.Second)
		beat(12, nil)
	}
	p.ready(t, "after 15 seconds in the group")
	p.wait(16 * time.Second)
	p.notReady(t, "out of the group", "group shipping")
	beat(68, nil)
	p.notReady(t, "back for a moment", "group shipping")
}

func TestWhatIsAwayForHalfAMinuteIsMissing(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"the cluster", "the registry"} {
		p := newPatient()
		gone := errors.New("connection refused")
		for range 3 {
			p.asked(name, gone)
			p.ready(t, "a hiccup")
			p.wait(checkEvery)
		}
		p.asked(name, gone)
		p.notReady(t, "half a minute", name+" does not answer since 2026-11-22T09:00:00Z")
		p.asked(name, nil)
		p.ready(t, "back")
		p.asked(name, gone)
		p.ready(t, "a new hiccup")
	}
}

func TestAPartitionThatStandsStillIsMissing(t *testing.T) {
	t.Parallel()
	stuck := func() (*patient, *membership) {
		p := newPatient()
		m := p.consumer("shipping")
		m.Assigned(map[cursor.ID]int64{orders3: 0})
		for range 4 {
			m.Problem(orders3, errors.New("no such topic: shop.orders.shipping.dlq"))
			p.wait(10 * time.Second)
			m.Handled(orders3, 0, 1, 0) // no progress
		}
		p.notReady(t, "stuck", "shop.orders/3 stands still since 2026-11-22T09:00:00Z")
		return p, m
	}
	p, m := stuck()
	m.Handled(orders3, 1, 0, 0)
	p.ready(t, "it moved")
	m.Problem(orders3, errors.New("again"))
	p.ready(t, "a first problem")

	p, m = stuck()
	m.Revoked([]cursor.ID{orders3}, true)
	p.ready(t, "it is another member's")

	p, _ = stuck()
	p.wait(forgetAfter)
	p.ready(t, "it is not heard of any more")

	p, m = stuck()
	m.Problem(cursor.ID{}, errors.New("coordinator"))
	m.Handled(orders3, 1, 0, 0)
	p.wait(awayAfter)
	m.Problem(cursor.ID{}, errors.New("coordinator"))
	p.notReady(t, "a problem of the whole", "group shipping stands still since")
}

func TestCommitsThatFailAreMissing(t *testing.T) {
	t.Parallel()
	p := newPatient()
	m := p.consumer("shipping")
	m.Assigned(nil)
	for range 31 {
		m.Committed(1, 0, errors.New("no coordinator"))
		p.wait(time.Second)
	}
	p.notReady(t, "half a minute", "group shipping takes no commits since")
	m.Committed(1, 0, nil)
	p.ready(t, "a commit")
}
