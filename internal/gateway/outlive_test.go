package gateway_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/gateway"
)

// A file that is missing for a moment, while a folder is replaced, takes no memory of repeats with it.
func TestASourceThatIsBackKnowsItsRepeats(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme, "other.yaml": "verify: none\ntopic: webhooks.other\n"})
	l.load()
	l.want(signed(t, "msg_1", body), http.StatusOK)
	if err := os.Remove(filepath.Join(l.dir, "acme.yaml")); err != nil {
		t.Fatal(err)
	}
	l.load()
	l.want(signed(t, "msg_1", body), http.StatusNotFound)
	l.write("acme.yaml", acme)
	l.load()
	l.want(signed(t, "msg_1", body), http.StatusOK)
	if n := len(l.log.in("webhooks.acme")); n != 1 {
		t.Errorf("published %d times", n)
	}
}

func TestARenamedFileIsAnotherSource(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
	l.load()
	if err := os.Rename(filepath.Join(l.dir, "acme.yaml"), filepath.Join(l.dir, "other.yaml")); err != nil {
		t.Fatal(err)
	}
	if changed, err := l.Reload(t.Context()); !changed || err != nil {
		t.Fatalf("got %v, %v", changed, err)
	}
	l.want(signed(t, "msg_1", body), http.StatusNotFound)
}

// A key or type of the sender's choosing may be as large as the body: the record would have room for neither.
func TestALongKeyFitsTheRecord(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme + "type: {json: customer}\n"})
	l.load()
	for i, text := range []string{strings.Repeat("a", 500_000), strings.Repeat("a", 500_000), strings.Repeat("b", 1024)} {
		l.want(signed(t, fmt.Sprintf("msg_%d", i), `{"customer":"`+text+`"}`), http.StatusOK)
	}
	got := l.log.in("webhooks.acme")
	if a, b := string(got[0].Key), string(got[1].Key); len(a) > 1024 || a != b {
		t.Errorf("the keys have %d and %d bytes, equal %v", len(a), len(b), a == b)
	}
	if len(got[0].Value) > 510_000 {
		t.Errorf("the record has %d bytes", len(got[0].Value))
	}
	if len(got[2].Key) != 1024 {
		t.Error("a key of 1 KiB is not kept as it is")
	}
}

// What is acknowledged while the gateway stops is in the last snapshot.
func TestTheLastSnapshotHasWhatEndedLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		l := newLab(t, gateway.Config{Seen: k}, map[string]string{"acme.yaml": acme})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		ln := newNowhere()
		go func() { ended <- l.Run(ctx, ln) }()
		<-l.Up()
		l.log.stall()
		answered := make(chan struct{})
		go func() { l.want(signed(t, "msg_1", body), http.StatusServiceUnavailable); close(answered) }()
		<-answered // its outcome is not known
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		l.log.release(nil)
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if k.kept.Load() != 1 {
			t.Errorf("%d snapshots", k.kept.Load())
		}
	})
}

// Between the half that got through and the sender's second try the events of the source may change.
func TestHalfIsCompletedAfterAReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, nil)
		for _, topic := range []string{"one", "two"} {
			if _, err := l.reg.Register(t.Context(), topic+"-value", paymentSchema); err != nil {
				t.Fatal(err)
			}
		}
		const fields = ", fields: {id: '\"p\"', cents: \"1\", kind: '\"x\"'}}\n"
		one, two := "  - {type: payments.Settled, topic: one"+fields, "  - {type: payments.Settled, topic: two"+fields
		l.write("acme.yaml", acme+"event:\n"+one+two)
		l.load()
		l.log.refuse = func(e *event.Event) error {
			if e.Topic == "two" {
				return errRefused
			}
			return nil
		}
		l.want(signed(t, "msg_1", body), http.StatusServiceUnavailable)
		l.log.refuse = nil
		l.write("acme.yaml", acme+"event:\n"+two+one+one)
		l.load()
		l.want(signed(t, "msg_1", body), http.StatusOK)
		if a, b, c := len(l.log.in("webhooks.acme")), len(l.log.in("one")), len(l.log.in("two")); a != 1 || b != 2 || c != 1 {
			t.Fatalf("%d, %d and %d events, want one, one with its new twin, and one", a, b, c)
		}
		if got := l.log.in("one"); got[0].ID == got[1].ID {
			t.Error("two events of one webhook have one id")
		}
	})
}

func TestEventsOfASourceAreBounded(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme + "event:\n" + strings.Repeat("  - {type: a.B}\n", 33)})
	if _, err := l.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "acme.yaml:5: there are 33 events: at most 32") {
		t.Errorf("got %v", err)
	}
}

// forgetful is a log of snapshots whose first reads fail.
type forgetful struct {
	keeper

	fail  atomic.Int64
	value []byte
}

func (f *forgetful) Read(context.Context, time.Time, time.Time) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if f.fail.Add(-1) >= 0 {
			yield(nil, errRefused)
			return
		}
		yield(f.value, nil)
	}
}

// What was seen is read again where Kafka is away at the start.
func TestIDsAreReadBackUntilTheyAreKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &forgetful{value: gateway.Snapshot(time.Now().Add(-time.Minute), "acme", 1, func(int) string { return "msg_1" })}
		k.fail.Store(3)
		l := newLab(t, gateway.Config{Seen: k}, map[string]string{"acme.yaml": acme})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx, newNowhere()) }()
		<-l.Up()
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
		l.want(signed(t, "msg_1", body), http.StatusOK)
		if n := len(l.log.in("webhooks.acme")); n != 0 {
			t.Errorf("published %d times", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
