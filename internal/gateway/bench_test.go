package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/gateway"
)

// instant is a publisher that has acknowledged everything already.
type instant struct{ fakeLog }

func (*instant) PublishAsync(_ context.Context, e event.Event, done func(event.Event, error)) {
	done(e, nil)
}

// BenchmarkAccept is the gateway's own work on a webhook of 1 KiB: from the parsed header to the answer, without HTTP
// and Kafka.
func BenchmarkAccept(b *testing.B) {
	l := newLab(b, gateway.Config{}, map[string]string{"acme.yaml": "scheme: github\nsecrets: [env:ACME]\ntopic: webhooks.acme\n"})
	g, err := gateway.New(&instant{}, l.reg, gateway.Config{Folder: gateway.Folder{Dir: l.dir, Getenv: func(string) string { return "s3cret" }}})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := g.Reload(b.Context()); err != nil {
		b.Fatal(err)
	}
	requests := make([]*http.Request, b.N)
	for i := range requests {
		text := fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("x", 1000))
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/in/acme", strings.NewReader(text))
		r.Header.Set("X-Hub-Signature-256", "sha256="+hexMAC("s3cret", text))
		r.Header.Set("X-GitHub-Delivery", fmt.Sprint(i))
		requests[i] = r
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, r := range requests {
		w := httptest.NewRecorder()
		if g.ServeHTTP(w, r); w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
	}
}
