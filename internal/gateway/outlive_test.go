package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

// A file that is missing for a moment, while a folder is replaced, takes no memory of repeats with it.
func TestASourceThatIsBackKnowsItsRepeats(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
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
