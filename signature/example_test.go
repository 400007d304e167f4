package signature_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/millrace/millrace/signature"
)

// receiver takes webhooks of one sender. It answers 2xx only for what verified and was kept.
type receiver struct {
	scheme *signature.Scheme
	keys   []signature.Key
	public string // the URL that the sender was given, without path and query
	now    func() time.Time
	keep   func(id signature.Identity, body []byte) error
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, 1<<20)) // the raw bytes: nothing has parsed them
	if err != nil {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	in := &signature.Request{Method: req.Method, URL: r.public + req.URL.RequestURI(), Header: req.Header, Body: body}
	if answer, err := r.scheme.Greet(in, r.keys, nil, r.now()); answer != nil && err == nil {
		w.Header().Set("Content-Type", answer.ContentType)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(answer.Status)
		_, _ = w.Write(answer.Body)
		return
	}
	if _, err := r.scheme.Verify(in, r.keys, r.now()); err != nil {
		if e, ok := errors.AsType[*signature.Error](err); ok {
			fmt.Println("refused:", e.Reason) // for a metric; the sender learns nothing of it
		}
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	if err := r.keep(r.scheme.Identify(in), body); err != nil {
		http.Error(w, "come again", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// A receiver of one's own: an http.Handler with this package alone.
func Example() {
	slack, _ := signature.Lookup("slack")
	key, err := slack.ParseKey("8f742231b10e8888abcd99yyyzzz85a5")
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Unix(1_531_420_618, 0)
	handler := &receiver{
		scheme: slack, keys: []signature.Key{key}, public: "https://hooks.example.com", now: func() time.Time { return now },
		keep: func(id signature.Identity, _ []byte) error {
			fmt.Println("kept:", id.ID)
			return nil
		},
	}
	send := func(body string, signer signature.Key) {
		signed, err := slack.Sign(&signature.Request{Method: "POST", Body: []byte(body)}, []signature.Key{signer}, "", now)
		if err != nil {
			fmt.Println(err)
			return
		}
		req := httptest.NewRequest(http.MethodPost, "/in/slack", strings.NewReader(body))
		req.Header = signed.Header
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body)))
	}
	send(`{"type":"url_verification","challenge":"3eZbrw1aBm2r"}`, key)
	send(`{"type":"event_callback","event_id":"Ev08MFMKH6"}`, key)
	send(`{"type":"event_callback","event_id":"Ev08MFMKH6"}`, signature.Token("of somebody else"))
	// Output:
	// 200 3eZbrw1aBm2r
	// kept: Ev08MFMKH6
	// 204
	// refused: mismatch
	// 401 unauthorized
}

// Sending: while a key rolls, both keys sign.
func ExampleScheme_Sign() {
	standard, _ := signature.Lookup("standard")
	now := time.Unix(1_700_000_000, 0)
	next, _ := standard.ParseKey("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	old, _ := standard.ParseKey("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
	signed, err := standard.Sign(&signature.Request{
		Method: http.MethodPost, Body: []byte(`{"type":"order.created"}`),
	}, []signature.Key{next, old.Until(now.Add(24 * time.Hour))}, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", now)
	if err != nil {
		fmt.Println(err)
		return
	}
	h := http.Header(signed.Header)
	fmt.Println(h.Get("webhook-id"), h.Get("webhook-timestamp"), len(strings.Fields(h.Get("webhook-signature"))))
	fmt.Println(next)
	// Output:
	// msg_2KWPBgLlAfxdpx2AI54pPJ85f4W 1700000000 2
	// ***
}

// A person's question: why does this request not verify?
func ExampleScheme_Explain() {
	github, _ := signature.Lookup("github")
	key, _ := github.ParseKey("secret")
	now := time.Unix(1_700_000_000, 0)
	req, err := github.Sign(&signature.Request{Method: "POST", Body: []byte(`{"zen": "Design for failure."}`)}, []signature.Key{key}, "", now)
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Body = []byte(`{"zen":"Design for failure."}`) // a framework has parsed the body and written it again
	for _, f := range github.Explain(req, []signature.Key{key}, now) {
		fmt.Println(f.Code, f.Proved)
	}
	// Output:
	// body-reserialised true
}
