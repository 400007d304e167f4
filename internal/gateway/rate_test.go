package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

// unread is a body that must not be looked at.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, http.ErrBodyReadAfterClose
}

func TestARateIsHeldBeforeTheBodyIsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, gateway.Config{}, map[string]string{
			"slow.yaml": "verify: none\ntopic: t\nlimits: {rate: 30/m}\n",
			"fast.yaml": "verify: none\ntopic: t\nlimits: {rate: 100/s}\n",
			"free.yaml": "verify: none\ntopic: t\n",
		})
		l.load()
		n := 0
		send := func(source string, times, status int) {
			t.Helper()
			for range times {
				n++
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/"+source, strings.NewReader(strings.Repeat("x", n)))
				if status == http.StatusTooManyRequests {
					r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/"+source, unread{t})
				}
				w := l.want(r, status)
				if status == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
					t.Error("the sender is not told when to come again")
				}
			}
		}
		send("slow", 1, http.StatusOK)
		send("slow", 3, http.StatusTooManyRequests)
		send("fast", 100, http.StatusOK)
		send("fast", 1, http.StatusTooManyRequests)
		send("free", 200, http.StatusOK)
		if got := l.seen.count("rejected/rate"); got != 4 {
			t.Errorf("%d were counted", got)
		}
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		send("slow", 1, http.StatusTooManyRequests)
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		send("slow", 1, http.StatusOK)
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock
		send("slow", 1, http.StatusOK)
		send("slow", 1, http.StatusTooManyRequests)
		send("fast", 100, http.StatusOK)
		send("fast", 1, http.StatusTooManyRequests)
	})
}

func TestRatesAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"100/s": 100, "60/m": 1, "3600/h": 1, "0/s": 0, "10": 0, "-1/s": 0, "1/d": 0, "1000001/s": 0, "1e3/s": 0} {
		l := newLab(t, gateway.Config{}, map[string]string{"a.yaml": "verify: none\ntopic: t\nlimits: {rate: " + text + "}\n"})
		sources, err := gateway.Folder{Dir: l.dir}.Load(t.Context(), l.reg)
		switch {
		case want == 0 && (err == nil || !strings.Contains(err.Error(), "a.yaml:3: rate is")):
			t.Errorf("%s: got %v", text, err)
		case want != 0 && (err != nil || sources[0].Rate != want):
			t.Errorf("%s: got %v", text, err)
		}
	}
}
