package signature_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

var noon = time.Unix(1_700_000_000, 0) // the time of these tests

// sample returns a key that signs for the scheme, as text, and another of its kind.
func sample(tb testing.TB, s *signature.Scheme, n byte) string {
	tb.Helper()
	secret := slices.Repeat([]byte{'a' + n}, 32)
	switch {
	case s.Signature.Accept[0].Algorithm == signature.ECDSAP256:
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			tb.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(der)
	case s.Signature.Accept[0].Algorithm == signature.Ed25519:
		return hex.EncodeToString(ed25519.NewKeyFromSeed(secret))
	case s.Key == signature.KeyHex:
		return hex.EncodeToString(secret)
	case s.Key == signature.KeyWhsec:
		return "whsec_" + base64.StdEncoding.EncodeToString(secret)
	}
	return string(secret)
}

func parseKey(tb testing.TB, s *signature.Scheme, text string) signature.Key {
	tb.Helper()
	k, err := s.ParseKey(text)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func lookup(tb testing.TB, name string) *signature.Scheme {
	tb.Helper()
	s, ok := signature.Lookup(name)
	if !ok {
		tb.Fatalf("there is no scheme %s", name)
	}
	return s
}

// signable are the known schemes that a stranger can sign for, with a body that each takes.
func signable() map[string]string {
	bodies := map[string]string{}
	for _, name := range signature.Names() {
		bodies[name] = `{"id":"evt_1", "n": 1.0}`
	}
	bodies["adyen"] = `{"live":"false","notificationItems":[{"NotificationRequestItem":{"pspReference":"p1","eventCode":"A","success":"true"}},` +
		`{"NotificationRequestItem":{"pspReference":"p2","eventCode":"A","success":"true","amount":{"value":1,"currency":"EUR"}}}]}`
	for _, name := range []string{"paypal", "sns", "ms-graph"} {
		delete(bodies, name)
	}
	return bodies
}

func reason(err error) signature.Reason {
	if e, ok := errors.AsType[*signature.Error](err); ok {
		return e.Reason
	}
	return ""
}

func TestWhatIsSignedVerifies(t *testing.T) {
	t.Parallel()
	for name, body := range signable() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := lookup(t, name)
			key, other := parseKey(t, s, sample(t, s, 0)), parseKey(t, s, sample(t, s, 1))
			req := &signature.Request{Method: "POST", URL: "https://hooks.example.com/in/x?a=1%2F2", Body: []byte(body)}
			signed, err := s.Sign(req, []signature.Key{key}, "msg_1", noon)
			if err != nil {
				t.Fatal(err)
			}
			if req.Header != nil || string(req.Body) != body {
				t.Error("Sign changed its argument")
			}
			v, err := s.Verify(signed, []signature.Key{other, key}, noon.Add(time.Minute))
			if err != nil || v.Key != 1 {
				t.Errorf("got key %d, %v, want 1", v.Key, err)
			}
			if windowed := s.Signed != "" && strings.Contains(s.Signed, "{ts}"); windowed != !v.Time.IsZero() {
				t.Errorf("got the time %v", v.Time)
			}
			for _, keys := range [][]signature.Key{nil, {other}, {key.Until(noon)}, {{}}} {
				if _, err := s.Verify(signed, keys, noon.Add(time.Minute)); reason(err) != signature.Mismatch {
					t.Errorf("%d other keys: got %v, want a mismatch", len(keys), err)
				}
			}
			if s.Signature.Accept[0].Algorithm == signature.Equal {
				return
			}
			changed := *signed
			changed.Body = []byte(strings.Replace(string(signed.Body), `1`, `2`, 1))
			if _, err := s.Verify(&changed, []signature.Key{key}, noon); reason(err) != signature.Mismatch {
				t.Errorf("another body: got %v, want a mismatch", err)
			}
		})
	}
}

// A header that stands there twice means one thing to us and may mean another to who reads the request after us.
func TestARepeatedHeaderIsMalformed(t *testing.T) {
	t.Parallel()
	for name, body := range signable() {
		s := lookup(t, name)
		key := parseKey(t, s, sample(t, s, 0))
		req := &signature.Request{Method: "POST", URL: "https://h.example.com/", Body: []byte(body)}
		signed, err := s.Sign(req, []signature.Key{key}, "msg_1", noon)
		if err != nil {
			t.Fatal(err)
		}
		for header := range signed.Header {
			twice := *signed
			twice.Header = maps.Clone(signed.Header)
			twice.Header[header] = slices.Repeat(signed.Header[header], 2)
			if _, err := s.Verify(&twice, []signature.Key{key}, noon); reason(err) != signature.Malformed {
				t.Errorf("%s: %s twice: got %v, want malformed", name, header, err)
			}
			delete(twice.Header, header)
			if _, err := s.Verify(&twice, []signature.Key{key}, noon); reason(err) != signature.Missing {
				t.Errorf("%s: without %s: got %v, want missing", name, header, err)
			}
		}
	}
}

func TestTheWindowIncludesItsEnds(t *testing.T) {
	t.Parallel()
	for name := range signable() {
		s := lookup(t, name)
		if s.Clock.Past == 0 {
			continue
		}
		key := parseKey(t, s, sample(t, s, 0))
		signed, err := s.Sign(&signature.Request{Method: "POST", Body: []byte("{}")}, []signature.Key{key}, "m", noon)
		if err != nil {
			t.Fatal(err)
		}
		past, future := time.Duration(s.Clock.Past), time.Duration(s.Clock.Future)
		for _, c := range []struct {
			at   time.Duration
			want signature.Reason
		}{
			{0, ""},
			{past, ""},
			{past + time.Second, signature.Stale},
			{-future, ""},
			{-future - time.Second, signature.Future},
			{1 << 62, signature.Stale},
			{-1 << 62, signature.Future},
		} {
			if _, err := s.Verify(signed, []signature.Key{key}, noon.Add(c.at)); reason(err) != c.want {
				t.Errorf("%s: %v after it was signed: got %v, want %q", name, c.at, err, c.want)
			}
		}
	}
}

// A time so far away that the distance does not fit a duration is in the future, not now.
func TestATimeAtTheEndOfTheWorld(t *testing.T) {
	t.Parallel()
	s := lookup(t, "stripe")
	key := parseKey(t, s, "k")
	signed, err := s.Sign(&signature.Request{}, []signature.Key{key}, "", time.Unix(999_999_999_999_999, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range []time.Time{noon, {}, time.Unix(0, 0)} {
		if _, err := s.Verify(signed, []signature.Key{key}, now); reason(err) != signature.Future {
			t.Errorf("at %v: got %v, want future", now, err)
		}
	}
}

// The rotation of a key: who takes several signatures gets one of each, the receiver takes the old key until its end.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"standard", "stripe", "paddle", "convoy-advanced", "gitlab-signed"} {
		s := lookup(t, name)
		old, next := parseKey(t, s, sample(t, s, 0)), parseKey(t, s, sample(t, s, 1))
		req := &signature.Request{Method: "POST", Body: []byte("{}")}
		signed, err := s.Sign(req, []signature.Key{next, old.Until(noon.Add(time.Hour))}, "m", noon)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []signature.Key{old, next} {
			if _, err := s.Verify(signed, []signature.Key{k}, noon); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		signed, err = s.Sign(req, []signature.Key{next, old.Until(noon)}, "m", noon)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(signed, []signature.Key{old}, noon); reason(err) != signature.Mismatch {
			t.Errorf("%s: an ended key signed: %v", name, err)
		}
	}
}

func TestStandardWebhooksHasTwoAlgorithms(t *testing.T) {
	t.Parallel()
	s := lookup(t, "standard")
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	sk := parseKey(t, s, "whsk_"+base64.StdEncoding.EncodeToString(private))
	pk := parseKey(t, s, "whpk_"+base64.RawStdEncoding.EncodeToString(private[32:]))
	secret := parseKey(t, s, sample(t, s, 0))
	signed, err := s.Sign(&signature.Request{Body: []byte("{}")}, []signature.Key{secret, sk}, "m", noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  signature.Key
		want string
	}{{secret, "v1"}, {pk, "v1a"}} {
		if v, err := s.Verify(signed, []signature.Key{c.key}, noon); err != nil || v.Label != c.want {
			t.Errorf("got %q, %v, want %s", v.Label, err, c.want)
		}
	}
	if _, err := s.Sign(&signature.Request{}, []signature.Key{pk}, "m", noon); err == nil {
		t.Error("a public key signed")
	}
	for _, id := range []string{"", "a.b", "a\nb"} {
		if _, err := s.Sign(&signature.Request{}, []signature.Key{secret}, id, noon); err == nil {
			t.Errorf("the id %q was signed", id)
		}
	}
}

func TestTheHeadersOfAFamilyBelongTogether(t *testing.T) {
	t.Parallel()
	s := lookup(t, "standard")
	key := parseKey(t, s, sample(t, s, 0))
	signed, err := lookup(t, "svix").Sign(&signature.Request{Body: []byte("{}")}, []signature.Key{key}, "m", noon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verify(signed, []signature.Key{key}, noon); err != nil {
		t.Error(err)
	}
	h := http.Header(signed.Header)
	h.Set("Webhook-Id", h.Get("Svix-Id"))
	h.Del("Svix-Id")
	if _, err := s.Verify(signed, []signature.Key{key}, noon); reason(err) != signature.Missing {
		t.Errorf("an id of the other family: got %v, want missing", err)
	}
}

// A scheme and its keys are used by all requests at once.
func TestManyVerifyAtOnce(t *testing.T) {
	t.Parallel()
	s := lookup(t, "stripe")
	keys := []signature.Key{parseKey(t, s, "a"), parseKey(t, s, "b")}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				req := &signature.Request{Body: fmt.Appendf(nil, "%d/%d", g, i)}
				signed, err := s.Sign(req, keys[i%2:], "", noon)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Verify(signed, keys, noon); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestEverySchemeSaysHowItsSenderWaits(t *testing.T) {
	t.Parallel()
	for _, name := range signature.Names() {
		s := lookup(t, name)
		if s.Note == "" {
			t.Errorf("%s has no note", name)
		}
		if generic := slices.Contains([]string{"hmac", "basic", "bearer", "api-key"}, name); !generic && s.Sender.Deadline == 0 {
			t.Errorf("%s has no deadline", name)
		}
		if s.Clock.Past == 0 && !s.Dedupe.Body && s.Dedupe.JSON == nil {
			t.Errorf("%s has neither a window nor a way to tell repeats", name)
		}
	}
	if a, _ := signature.Lookup("stripe"); a != nil {
		a.Signature.Accept[0].Label = "v0"
		if b := lookup(t, "stripe"); b.Signature.Accept[0].Label != "v1" {
			t.Error("two copies share their parts")
		}
	}
	if _, ok := signature.Lookup("nobody"); ok {
		t.Error("there is a scheme nobody")
	}
}
