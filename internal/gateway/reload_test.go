package gateway_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

// Another window is for what comes and for what is there: nothing is published again because a file was edited.
func TestAnotherWindowForgetsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
		l.load()
		l.want(signed(t, "msg_1", body), http.StatusOK)
		time.Sleep(2 * time.Hour) //nolint:forbidigo // the bubble's clock
		l.want(signed(t, "msg_2", body), http.StatusOK)
		for _, window := range []string{"24h", "72h", "1h", "96h"} {
			l.write("acme.yaml", acme+"dedupe: {window: "+window+"}\n")
			l.load()
			l.want(signed(t, "msg_2", body), http.StatusOK)
			if window == "72h" {
				l.want(signed(t, "msg_1", body), http.StatusOK)
			}
		}
		if n := len(l.log.in("webhooks.acme")); n != 2 {
			t.Errorf("%d events of 2", n)
		}
		l.want(signed(t, "msg_1", body), http.StatusOK) // is older than the hour that was chosen in between
		if n := len(l.log.in("webhooks.acme")); n != 3 {
			t.Errorf("%d events: what is older than the window is still known", n)
		}
	})
}

// The outcome of a request that began under the old window is remembered by the new one, with all that is there.
func TestARequestInFlightKeepsTheNewWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{"acme.yaml": acme})
		l.load()
		l.want(signed(t, "msg_1", body), http.StatusOK)
		l.log.stall()
		held := make(chan int, 1)
		go func() { held <- l.ask(signed(t, "msg_2", body)).Code }()
		synctest.Wait()
		l.write("acme.yaml", acme+"dedupe: {window: 24h}\n")
		if _, err := l.Reload(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		l.log.release(nil)
		if status := <-held; status != http.StatusOK {
			t.Errorf("got %d", status)
		}
		for _, id := range []string{"msg_1", "msg_2", "msg_3", "msg_1", "msg_2"} {
			l.want(signed(t, id, body), http.StatusOK)
		}
		if n := len(l.log.in("webhooks.acme")); n != 3 {
			t.Errorf("%d events of 3", n)
		}
	})
}

// A volume that is not mounted is an empty folder.
func TestAnEmptyFolderIsRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t, gateway.Config{}, map[string]string{"notes.txt": "x"})
	if _, err := l.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "write a file for each sender") {
		t.Errorf("at the start: got %v", err)
	}
	l.write("acme.yaml", acme)
	l.load()
	if err := os.Remove(filepath.Join(l.dir, "acme.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Reload(t.Context()); err == nil || !strings.Contains(l.Broken(), "not mounted") {
		t.Errorf("got %v, %q", err, l.Broken())
	}
	l.want(signed(t, "msg_1", body), http.StatusOK)
	l.write("acme.yaml", acme)
	if changed, err := l.Reload(t.Context()); changed || err != nil || l.Broken() != "" {
		t.Errorf("it is back: got %v, %v, %q", changed, err, l.Broken())
	}
}

// shared is a log of snapshots as another gateway fills it.
type shared struct {
	keeper

	reads atomic.Int64
	mu    sync.Mutex
	kept  []snapshotAt
}

type snapshotAt struct {
	at    time.Time
	value []byte
}

func (s *shared) keep(source, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.kept = append(s.kept, snapshotAt{now, gateway.Snapshot(now, source, 1, func(int) string { return id })})
}

func (s *shared) Read(_ context.Context, from, until time.Time) iter.Seq2[[]byte, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads.Add(1)
	var values [][]byte
	for _, k := range s.kept {
		if !k.at.Before(from) && k.at.Before(until) {
			values = append(values, k.value)
		}
	}
	return func(yield func([]byte, error) bool) {
		for _, v := range values {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// while runs a lab's gateway for as long as f does.
func while(t *testing.T, l *lab, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, newNowhere()) }()
	<-l.Up()
	f()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A source that a reload brings, or whose window a reload makes longer, has its ids read back too.
func TestAReloadReadsBackWhatIsNew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &shared{}
		k.keep("acme", "msg_1")
		time.Sleep(30 * time.Hour) //nolint:forbidigo // the bubble's clock
		l := newLab(t, gateway.Config{Seen: k}, map[string]string{"other.yaml": "verify: none\ntopic: webhooks.other\n"})
		while(t, l, func() {
			time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock
			reads := k.reads.Load()
			l.write("acme.yaml", acme+"dedupe: {window: 24h}\n")
			time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock
			if k.reads.Load() == reads {
				t.Fatal("nothing is read back")
			}
			l.write("acme.yaml", acme)
			time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock
			l.want(signed(t, "msg_1", body), http.StatusOK)
			if n := len(l.log.in("webhooks.acme")); n != 0 {
				t.Errorf("published %d times", n)
			}
			reads = k.reads.Load()
			l.write("acme.yaml", acme+"limits: {requests: 7}\n")
			time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock
			if k.reads.Load() != reads {
				t.Error("what is known is read again")
			}
		})
	})
}

// The gateway that this one replaces keeps ids for some minutes more.
func TestWhatAnotherGatewayKeepsIsFollowedForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &shared{}
		l := newLab(t, gateway.Config{Seen: k}, map[string]string{"acme.yaml": acme})
		while(t, l, func() {
			for i := range 5 {
				time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
				k.keep("acme", fmt.Sprint("msg_", i))
			}
			time.Sleep(2 * time.Minute) //nolint:forbidigo // the bubble's clock
			for i := range 5 {
				l.want(signed(t, fmt.Sprint("msg_", i), body), http.StatusOK)
			}
			if n := len(l.log.in("webhooks.acme")); n != 0 {
				t.Errorf("%d were published again", n)
			}
			time.Sleep(20 * time.Minute) //nolint:forbidigo // the bubble's clock
			if k.reads.Load() > 15 {
				t.Errorf("%d reads: it is followed for ever", k.reads.Load())
			}
		})
	})
}

// A balancer sees that a gateway stops before the first connection is refused.
func TestItIsNotReadyBeforeItCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{DrainWait: 10 * time.Second}, map[string]string{"acme.yaml": acme})
		ctx, cancel := context.WithCancel(t.Context())
		ended, ln := make(chan error, 1), newNowhere()
		go func() { ended <- l.Run(ctx, ln) }()
		<-l.Up()
		if !l.Ready() {
			t.Error("not ready")
		}
		cancel()
		time.Sleep(9 * time.Second) //nolint:forbidigo // the bubble's clock
		select {
		case <-ln.closed:
			t.Error("closed too early")
		default:
		}
		if l.Ready() {
			t.Error("ready while it stops")
		}
		l.want(signed(t, "msg_1", body), http.StatusOK)
		time.Sleep(2 * time.Second) //nolint:forbidigo // the bubble's clock
		select {
		case <-ln.closed:
		default:
			t.Error("still open")
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
