package signature_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/millrace/millrace/signature"
)

func TestAdyensOwnExample(t *testing.T) {
	t.Parallel()
	s := lookup(t, "adyen")
	key := parseKey(t, s, "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00")
	body := `{"notificationItems":[{"NotificationRequestItem":{"pspReference":"pspReference","originalReference":"originalReference",
		"merchantAccountCode":"merchantAccount","merchantReference":"reference","amount":{"value":1000,"currency":"EUR"},
		"eventCode":"EVENT","success":"true","additionalData":{"hmacSignature":"ipnxGCaUZ4l8TUW75a71/ghd2Fe5ffvX0pV4TLTntIc="}}}]}`
	verify := func(body string) error {
		_, err := s.Verify(&signature.Request{Method: "POST", Body: []byte(body)}, []signature.Key{key}, noon)
		return err
	}
	if err := verify(body); err != nil {
		t.Error(err)
	}
	item := body[strings.Index(body, "[")+1 : strings.LastIndex(body, "]")]
	for name, c := range map[string]struct {
		body string
		want signature.Reason
	}{
		"a second item with another signature": {strings.Replace(body, item, item+","+strings.Replace(item, "1000", "1001", 1), 1), signature.Mismatch},
		"a second item without one":            {strings.Replace(body, item, item+`,{"NotificationRequestItem":{"additionalData":{}}}`, 1), signature.Missing},
		"a field twice":                        {strings.Replace(body, `"success"`, `"SUCCESS":"false","success"`, 1), signature.Malformed},
		"an amount twice":                      {strings.Replace(body, `"value"`, `"value":1,"value"`, 1), signature.Malformed},
		"no items":                             {`{"notificationItems":[]}`, signature.Malformed},
		"something after it":                   {body + "{}", signature.Malformed},
		"too many items":                       {strings.Replace(body, item, strings.Repeat(item+",", 64)+item, 1), signature.Malformed},
	} {
		if err := verify(c.body); reason(err) != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func TestTwilio(t *testing.T) {
	t.Parallel()
	s := lookup(t, "twilio")
	key := parseKey(t, s, "12345")
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	sign := func(place, body string, h http.Header) *signature.Request {
		signed, err := s.Sign(&signature.Request{Method: "POST", URL: place, Header: h, Body: []byte(body)}, []signature.Key{key}, "", noon)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	verify := func(r *signature.Request) signature.Reason {
		_, err := s.Verify(r, []signature.Key{key}, noon)
		return reason(err)
	}
	const place = "https://example.com/a?b=c"
	for _, other := range []string{"https://example.com:443/a?b=c", "https://example.com:8443/a?b=c", "https://example.com/a"} {
		r := sign(place, "From=1&To=2", form)
		r.URL = other
		if want := map[bool]signature.Reason{true: "", false: signature.Mismatch}[other != "https://example.com/a"]; verify(r) != want {
			t.Errorf("%s: got %q, want %q", other, verify(r), want)
		}
	}
	reordered := sign(place, "ReasonX=1&Reason=2&Reason=1", form)
	reordered.Body = []byte("Reason=1&ReasonX=1&Reason=2&Reason=2")
	if got := verify(reordered); got != "" {
		t.Errorf("a form in another order: %s", got)
	}
	// A body that is no form is covered by its hash in the URL, which is signed.
	covered := sign(place, `{"a":1}`, http.Header{"Content-Type": {"application/json"}})
	u, err := url.Parse(covered.URL)
	if err != nil || len(u.Query().Get("bodySHA256")) != 64 || verify(covered) != "" {
		t.Errorf("got %s, %v", covered.URL, verify(covered))
	}
	covered.Body = []byte(`{"a":2}`)
	if got := verify(covered); got != signature.Mismatch {
		t.Errorf("another body: got %q, want a mismatch", got)
	}
	// A Content-Type is not signed: changing it does not take the body out of the signature.
	sneaked := sign(place, "", nil)
	sneaked.Header["Content-Type"], sneaked.Body = []string{"text/plain"}, []byte("From=evil")
	if got := verify(sneaked); got != signature.Malformed {
		t.Errorf("a body that nothing covers: got %q, want malformed", got)
	}
}

func TestHubSpotDecodesItsTwelve(t *testing.T) {
	t.Parallel()
	s := lookup(t, "hubspot-v3")
	key := parseKey(t, s, "secret")
	signed, err := s.Sign(&signature.Request{Method: "POST", URL: "https://h.example.com/a:b?c=d@e&f=%20g%25"}, []signature.Key{key}, "", noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{"https://h.example.com/a%3Ab?c=d%40e&f=%20g%25", "https://h.example.com/a%3ab?c=d@e&f=%20g%25"} {
		signed.URL = u
		if _, err := s.Verify(signed, []signature.Key{key}, noon); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
}

func TestEverySubscriptionOfGraphMustHaveTheSecret(t *testing.T) {
	t.Parallel()
	s := lookup(t, "ms-graph")
	keys := []signature.Key{parseKey(t, s, "a"), parseKey(t, s, "b")}
	for body, want := range map[string]signature.Reason{
		`{"value":[{"clientState":"a"},{"clientState":"b"}]}`: "",
		`{"value":[{"clientState":"a"},{"clientState":"c"}]}`: signature.Mismatch,
		`{"value":[{"clientState":"a"},{}]}`:                  signature.Missing,
		`{"value":[]}`:                                        signature.Missing,
		`{"value":[{"clientState":["a"]}]}`:                   signature.Missing,
		``:                                                    signature.Missing,
		`{"value":[{"clientState":"a"}` + strings.Repeat(`,{"clientState":"a"}`, 2000) + `]}`: signature.Missing,
	} {
		if _, err := s.Verify(&signature.Request{Body: []byte(body)}, keys, noon); reason(err) != want {
			t.Errorf("%.80s: got %v, want %q", body, err, want)
		}
	}
}

func TestASecretInAHeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scheme, key, header, value string
		want                       signature.Reason
	}{
		{"basic", "Aladdin:open sesame", "Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ""},
		{"basic", "Aladdin:open sesame", "Authorization", "basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ""},
		{"basic", "Aladdin:open", "Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", signature.Mismatch},
		{"basic", "Aladdin:open", "Authorization", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", signature.Malformed},
		{"basic", "Aladdin:open", "Authorization", "Basic !", signature.Malformed},
		{"bearer", "tok", "Authorization", "Bearer tok", ""},
		{"bearer", "tok", "Authorization", "Bearer to", signature.Mismatch},
		{"api-key", "tok", "x-api-key", "tok", ""},
		{"gitlab", "tok", "X-GITLAB-TOKEN", "tok ", signature.Mismatch},
		{"gitlab", "tok", "X-GITLAB-TOKEN", "", signature.Missing},
	} {
		s := lookup(t, c.scheme)
		req := &signature.Request{Header: map[string][]string{c.header: {c.value}}}
		if _, err := s.Verify(req, []signature.Key{parseKey(t, s, c.key)}, noon); reason(err) != c.want {
			t.Errorf("%s %q: got %v, want %q", c.scheme, c.value, err, c.want)
		}
	}
}
