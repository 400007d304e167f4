package gateway_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/schemas"
)

// A certificate is fetched beside the requests, where nobody recovers: a panic there is an error.
func TestAPanicInAFetchEndsNothing(t *testing.T) {
	t.Parallel()
	client := &http.Client{Transport: answering(func(*http.Request) (*http.Response, error) { panic("a bug") })}
	l := newLab(t, gateway.Config{Client: client}, map[string]string{"sns.yaml": snsSource})
	l.env["ARN"] = arn
	l.load()
	key := (*authority)(nil).issue(t, "root", "").key
	for range 2 {
		l.want(notification(t, key, "m1", "https://sns.eu-west-1.amazonaws.com/leaf.pem"), http.StatusServiceUnavailable)
	}
}

// Nobody waits for an outcome that never comes: neither this request, nor its repeat, nor the end.
func TestAPanicInTheProducerSettles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
		l.load()
		l.log.panics = true
		began := time.Now()
		l.want(signed(t, "msg_1", body), http.StatusServiceUnavailable)
		if took := time.Since(began); took != 0 {
			t.Errorf("held for %v", took)
		}
		if _, produce, flights := l.InMemory(); produce != 0 || flights != 0 {
			t.Errorf("%d bytes and %d flights are left", produce, flights)
		}
		l.log.panics = false
		l.want(signed(t, "msg_1", body), http.StatusOK)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A request that the drain has cut off may come as far as the producer after Close: it is told to come again.
func TestNothingBeginsAfterClose(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
	l.load()
	l.want(signed(t, "msg_1", body), http.StatusOK)
	for range 2 {
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.want(signed(t, "msg_2", body), http.StatusServiceUnavailable)
	l.want(signed(t, "msg_1", body), http.StatusOK)
	if n := l.log.attempts(); n != 1 {
		t.Errorf("%d were handed to the producer", n)
	}
	if read, produce, flights := l.InMemory(); read != 0 || produce != 0 || flights != 0 {
		t.Errorf("something is left: %d, %d, %d", read, produce, flights)
	}
}

// Balancers ask whether webhooks get through to Kafka. A registry that is away, or a sender that has gone, says nothing
// about that.
func TestReadinessIsAboutKafkaAlone(t *testing.T) {
	t.Parallel()
	create := schemas.Topic{Create: true}
	for _, tt := range []struct {
		name     string
		registry schemas.Topic
		fault    func(l *lab) context.Context
		ready    bool
	}{
		{"the registry refuses", schemas.Topic{}, func(*lab) context.Context { return context.Background() }, true},
		{"the sender has gone", create, func(l *lab) context.Context {
			l.log.stall()
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(time.Second, cancel)
			return ctx
		}, true},
		{"Kafka refuses", create, func(l *lab) context.Context {
			l.log.refuse = func(*event.Event) error { return errRefused }
			return context.Background()
		}, false},
		{"Kafka hangs", create, func(l *lab) context.Context { l.log.stall(); return context.Background() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLabOn(t, schemas.MemoryWith(map[string]schemas.Topic{"*": tt.registry}), gateway.Config{}, map[string]string{"acme.yaml": acme})
				l.load()
				ctx := tt.fault(l)
				l.want(signed(t, "msg_1", body).WithContext(ctx), http.StatusServiceUnavailable)
				time.Sleep(gateway.Deaf + time.Minute) //nolint:forbidigo // the bubble's clock
				if got := l.Ready(); got != tt.ready {
					t.Errorf("ready: %v", got)
				}
				l.log.release(nil)
				synctest.Wait()
			})
		})
	}
}
