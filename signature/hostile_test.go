package signature_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

// hostile are headers of signatures that somebody sent, or could.
func hostile() []string {
	return []string{
		"", "t", "t=", ",", ",,", "=", "t,,", "t=,v1=ab", "t,v1=,v0=", "t,v1=,", "v1,t=1", "t=1,t=1,v1=ab", "t=1,v1", "t=1,v1=",
		"t=1;v1=ab", "t=-1,v1=ab", "t=+1,v1=ab", "t=1e9,v1=ab", "t= 1700000000,v1=ab", "t=1700000000 ,v1=ab", "t=9999999999999999,v1=ab",
		"t=0x65,v1=ab", "t=1700000000,v1=zz", "t=1700000000,v1=abc", "t=1700000000,v0=ab", "v1", "v1,", "v1,,", ",v1", "v1,=", "v1,===",
		"v1a,", "v1,\x00", "v1 v1 v1", "sha256=", "sha256", "SHA256=ab", "sha256=\xff", "v0=", "v0", "é,,=;v1", "\x00", strings.Repeat("t=1,", 4096),
		strings.Repeat("v1,YQ== ", 4096), strings.Repeat("t=1700000000,v1=ab,", 64), "v1," + strings.Repeat("A", 1<<20), "Basic", "Basic ", "Bearer ",
	}
}

func TestHostileHeadersAreErrorsOfTheirOwn(t *testing.T) {
	t.Parallel()
	for name, body := range signable() {
		s := lookup(t, name)
		key := parseKey(t, s, sample(t, s, 0))
		if len(s.Signature.Headers) == 0 {
			continue
		}
		for _, value := range hostile() {
			h := http.Header{}
			for _, name := range append(s.ID, s.Clock.Headers...) {
				h.Set(name, s.Clock.UnitText(noon))
			}
			h.Set(s.Signature.Headers[0], value)
			_, err := s.Verify(&signature.Request{Method: "POST", URL: "https://h.example.com/", Header: h, Body: []byte(body)}, []signature.Key{key}, noon)
			if reason(err) == "" {
				t.Errorf("%s: %.40q: got %v", name, value, err)
			}
			if len(err.Error()) > 200 {
				t.Errorf("%s: the error repeats what was sent: %.300s", name, err)
			}
		}
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	stripe, standard, github := lookup(t, "stripe"), lookup(t, "standard"), lookup(t, "github")
	hex64, b64 := strings.Repeat("ab", 32), strings.Repeat("A", 43)+"="
	for _, c := range []struct {
		name   string
		scheme *signature.Scheme
		value  string
		want   signature.Reason
	}{
		{"a pair without a value", stripe, "t=,v1=" + hex64, signature.Malformed},
		{"a pair without =", stripe, "t,v1=,v0=", signature.Malformed},
		{"an empty pair", stripe, "t=1700000000,,v1=" + hex64, signature.Malformed},
		{"two times", stripe, "t=1700000000,t=1700000000,v1=" + hex64, signature.Malformed},
		{"no time", stripe, "v1=" + hex64, signature.Missing},
		{"only v0", stripe, "t=1700000000,v0=" + hex64, signature.Missing},
		{"short", stripe, "t=1700000000,v1=abcd", signature.Malformed},
		{"wrong", stripe, "t=1700000000,v1=" + hex64, signature.Mismatch},
		{"31 signatures and a time", stripe, "t=1700000000" + strings.Repeat(",v1="+hex64, 31), signature.Mismatch},
		{"32 signatures and a time", stripe, "t=1700000000" + strings.Repeat(",v1="+hex64, 32), signature.Malformed},
		{"a time with a sign", stripe, "t=+1700000000,v1=" + hex64, signature.Malformed},
		{"unknown versions", standard, "v9," + b64, signature.Missing},
		{"an unknown version first", standard, "v9,x v1," + b64, signature.Mismatch},
		{"32 signatures", standard, strings.TrimSpace(strings.Repeat("v1,"+b64+" ", 32)), signature.Mismatch},
		{"33 signatures", standard, strings.TrimSpace(strings.Repeat("v1,"+b64+" ", 33)), signature.Malformed},
		{"base64 without padding", standard, "v1," + strings.Repeat("A", 43), signature.Malformed},
		{"base64 with stray bits", standard, "v1," + strings.Repeat("A", 42) + "B=", signature.Malformed},
		{"base64 with a line break", standard, "v1," + strings.Repeat("A", 43) + "=\n", signature.Malformed},
		{"sha1", github, "sha1=" + strings.Repeat("ab", 20), signature.Malformed},
		{"sha512", github, "sha512=" + strings.Repeat("ab", 64), signature.Mismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {"1700000000"}}
			h.Set(c.scheme.Signature.Headers[0], c.value)
			key := parseKey(t, c.scheme, sample(t, c.scheme, 0))
			_, err := c.scheme.Verify(&signature.Request{Header: h, Body: []byte("{}")}, []signature.Key{key}, noon)
			if reason(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// Signatures of public keys cost a hundred times as much as HMACs: a list of them is no lever.
func TestManyPublicSignaturesAreRefused(t *testing.T) {
	t.Parallel()
	s := lookup(t, "standard")
	key := parseKey(t, s, "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=")
	one := "v1a," + strings.Repeat("A", 86) + "== "
	for n, want := range map[int]signature.Reason{8: signature.Mismatch, 9: signature.Malformed} {
		h := http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {"1700000000"}, "Webhook-Signature": {strings.TrimSpace(strings.Repeat(one, n))}}
		if _, err := s.Verify(&signature.Request{Header: h}, []signature.Key{key}, noon); reason(err) != want {
			t.Errorf("%d signatures: got %v, want %s", n, err, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, value := range hostile() {
		f.Add(value, "1700000000", "msg_1", []byte(`{"id":1}`), "https://h.example.com/?bodySHA256=x")
	}
	for _, v := range vectors(f)[:60] {
		req := v.request(f)
		for _, values := range req.Header {
			f.Add(values[0], "1700000000", "m", req.Body, req.URL)
		}
	}
	f.Fuzz(func(t *testing.T, value, ts, id string, body []byte, url string) {
		for _, name := range signature.Names() {
			s := lookup(t, name)
			text := sample(t, s, 0)
			if s.Signature.Accept[0].Algorithm == signature.ECDSAP256 {
				continue // making a key takes too long here
			}
			h := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
			for _, name := range s.ID {
				h.Set(name, id)
			}
			for _, name := range s.Clock.Headers {
				h.Set(name, ts)
			}
			for _, name := range s.Signature.Headers {
				h.Set(name, value)
			}
			req := &signature.Request{Method: "POST", URL: url, Header: h, Body: body}
			keys := []signature.Key{parseKey(t, s, text)}
			now := time.Unix(1_700_000_000, 0)
			if _, err := s.Verify(req, keys, now); err != nil && reason(err) == "" {
				t.Errorf("%s: %v has no reason", name, err)
			}
			if id := s.Identify(req); id.ID == "" && id.Body == "" || len(id.ID) > 255 {
				t.Errorf("%s: the identity is %+v", name, id)
			}
			if _, err := s.Greet(req, keys, keys, now); err != nil && reason(err) == "" {
				t.Errorf("%s: %v has no reason", name, err)
			}
			if _, err := s.CertificateURL(req); err != nil && reason(err) == "" {
				t.Errorf("%s: %v has no reason", name, err)
			}
		}
	})
}

// Explain works on whatever was sent, and says something about all that does not verify.
func FuzzExplain(f *testing.F) {
	for _, body := range []string{"", "{}", `{"a":"\ud800"}`, "a=1&b=%zz", "payload=%7B%7D", "\xef\xbb\xbf{}", `["a/b","é<"]`, `{"a":1}x`} {
		f.Add("sha256="+strings.Repeat("ab", 32), []byte(body), "https://h.example.com:443/a/?b", "whsec_YWJj\n")
	}
	f.Fuzz(func(t *testing.T, value string, body []byte, url, secret string) {
		for _, name := range []string{"github", "twilio", "hubspot-v2"} {
			s := lookup(t, name)
			key, err := s.ParseKey(secret)
			if err != nil {
				return
			}
			req := &signature.Request{Method: "POST", URL: url, Body: body, Header: http.Header{s.Signature.Headers[0]: {value}}}
			_, err = s.Verify(req, []signature.Key{key}, noon)
			if found := s.Explain(req, []signature.Key{key}, noon); (len(found) == 0) != (err == nil) {
				t.Errorf("%s: %v is explained by %v", name, err, found)
			}
		}
	})
}
