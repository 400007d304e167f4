package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/producer"
)

const settled = acme + `event:
  type: payments.Settled
  topic: payments
  when: value.kind != "ping"
  key: value.id
  fields: {id: value.id, cents: value.cents, kind: 'headers["x-kind"]'}
`

// mappedLab is a gateway that makes a typed event of what acme sends.
func mappedLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": settled})
	withPayments(t, l.reg)
	l.load()
	return l
}

func kinded(t *testing.T, id, body string) *http.Request {
	t.Helper()
	r := signed(t, id, body)
	r.Header.Set("X-Kind", "card")
	return r
}

func TestTypedEventStandsNextToWhatCameIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := mappedLab(t)
		l.want(kinded(t, "msg_1", `{"id":"p-1","cents":1990,"kind":"paid"}`), http.StatusOK)
		l.want(kinded(t, "msg_2", `{"kind":"ping"}`), http.StatusOK)
		envelopes, typed := l.log.in("webhooks.acme"), l.log.in("payments")
		if len(envelopes) != 2 || len(typed) != 1 {
			t.Fatalf("%d and %d events", len(envelopes), len(typed))
		}
		e := typed[0]
		if e.Type != "payments.Settled" || string(e.Key) != "p-1" || e.ID == envelopes[0].ID || string(e.Headers.Get(event.HeaderCause)) != envelopes[0].ID {
			t.Errorf("got %+v", e.Meta)
		}
		if got := l.received(e); fmt.Sprint(got) != "map[cents:1990 id:p-1 kind:card]" {
			t.Errorf("got %v", got)
		}
		l.want(kinded(t, "msg_1", `{"id":"p-1","cents":1990,"kind":"paid"}`), http.StatusOK)
		if len(l.log.in("payments")) != 1 {
			t.Error("a repeat was published")
		}
	})
}

func TestFormsAreMapped(t *testing.T) {
	t.Parallel()
	l := mappedLab(t)
	l.write("form.yaml", "verify: none\ntopic: webhooks.form\nkey: {json: id}\nevent: {type: payments.Settled, topic: payments, fields: {id: value.id, cents: int(value.cents), kind: '\"form\"'}}\n")
	l.load()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/form", strings.NewReader("id=p%2D1&cents=7"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	l.want(r, http.StatusOK)
	typed, envelopes := l.log.in("payments"), l.log.in("webhooks.form")
	if len(typed) != 1 || fmt.Sprint(l.received(typed[0])) != "map[cents:7 id:p-1 kind:form]" || len(envelopes) != 1 || string(envelopes[0].Key) != "p-1" {
		t.Fatalf("got %v, %v", typed, envelopes)
	}
}

func TestWhatDoesNotFitIsADeadLetterAndNoRefusal(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		class      deadletter.Class
		refuse     func(e *event.Event) error
	}{
		{"no JSON", `{"id":`, deadletter.Poison, nil},
		{"a field is missing", `{"id":"p-1","kind":"paid"}`, deadletter.Incompatible, nil},
		{"a field of another type", `{"id":"p-1","cents":"many","kind":"paid"}`, deadletter.Incompatible, nil},
		{"a topic that is gone", `{"id":"p-1","cents":1,"kind":"paid"}`, deadletter.Rejected, func(e *event.Event) error {
			if e.Topic == "payments" {
				return fmt.Errorf("%w: %w", producer.ErrRejected, producer.ErrUnknownTopic)
			}
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := mappedLab(t)
				l.log.refuse = tt.refuse
				l.want(kinded(t, "msg_1", tt.body), http.StatusOK)
				if len(l.log.in("payments")) != 0 || len(l.log.in("webhooks.acme")) != 1 {
					t.Error("what came in must be in the log, and no typed event")
				}
				letters := l.log.in("webhooks.acme.gateway.dlq")
				if len(letters) != 1 {
					t.Fatalf("%d dead letters", len(letters))
				}
				got, ok := deadletter.Parse(letters[0])
				if !ok || got.Class != tt.class || got.Origin.Topic != "webhooks.acme" || got.Handler != "payments.Settled" || letters[0].ID != l.log.in("webhooks.acme")[0].ID {
					t.Errorf("got %+v", got)
				}
				if l.seen.count("dead/"+string(tt.class)) != 1 {
					t.Errorf("got %v", l.seen.results)
				}
				l.want(kinded(t, "msg_1", tt.body), http.StatusOK)
				if len(l.log.in("webhooks.acme.gateway.dlq")) != 1 {
					t.Error("a repeat made another dead letter")
				}
			})
		})
	}
}

// A dead letter that cannot be written is no refusal either: what came in is in the log.
func TestDeadLetterThatFails(t *testing.T) {
	t.Parallel()
	l := mappedLab(t)
	l.log.refuse = func(e *event.Event) error {
		if strings.HasSuffix(e.Topic, ".dlq") {
			return errRefused
		}
		return nil
	}
	l.want(kinded(t, "msg_1", `{}`), http.StatusOK)
}

// One of two that got through is not published again when the sender comes again.
func TestHalfIsCompleted(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"payments", "webhooks.acme"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := mappedLab(t)
				l.log.refuse = func(e *event.Event) error {
					if e.Topic == lost {
						return errRefused
					}
					return nil
				}
				const paid = `{"id":"p-1","cents":1,"kind":"paid"}`
				l.want(kinded(t, "msg_1", paid), http.StatusServiceUnavailable)
				l.log.refuse = nil
				l.want(kinded(t, "msg_1", paid), http.StatusOK)
				time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
				if a, b := len(l.log.in("webhooks.acme")), len(l.log.in("payments")); a != 1 || b != 1 || l.log.attempts() != 3 {
					t.Errorf("%d and %d events by %d attempts, want one of each by three", a, b, l.log.attempts())
				}
			})
		})
	}
}
