package signature_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

func TestAKeyPrintsStars(t *testing.T) {
	t.Parallel()
	const text = "whsec_Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"
	key := parseKey(t, lookup(t, "standard"), text)
	holder := struct {
		Shown  signature.Key
		hidden signature.Key
	}{key, key}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{key, &key, holder, &holder, []signature.Key{key}} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, "orrect") || strings.Contains(got, "Y29") || strings.Contains(got, "636f7272") {
				t.Errorf("%s of %T shows the key: %s", verb, v, got)
			}
		}
	}
	for verb, want := range map[string]string{"%v": "***", "%#v": "***", "%x": "***"} {
		if got := fmt.Sprintf(verb, key); got != want {
			t.Errorf("%s: got %s, want %s", verb, got, want)
		}
	}
	if got, err := json.Marshal(key); err != nil || string(got) != `"***"` {
		t.Errorf("got %s, %v", got, err)
	}
	if got := fmt.Sprint(signature.Key{}); got != "" {
		t.Errorf("no key prints %q", got)
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scheme, text, err string
	}{
		{"stripe", "whsec_anything at all", ""},
		{"stripe", "", "empty"},
		{"standard", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ""},
		{"standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", ""}, // no padding, stray bits
		{"standard", "whsec_", "empty"},
		{"standard", "whsec_====", "empty"},
		{"standard", "whsec_!", "no base64"},
		{"standard", "whsec_MfKQ\n9r8G", "line break"},
		{"standard", "whpk_MfKQ", "32 are a public key"},
		{"standard", "whsk_" + strings.Repeat("A", 86), "does not belong"},
		{"gitlab-signed", "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", "no algorithm"},
		{"adyen", "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056", ""},
		{"adyen", "4478zz", "no hex"},
		{"discord", "abcd", "neither"},
		{"discord", strings.Repeat("ab", 32), ""},
		{"sendgrid", "AAAA", "neither"},
		{"paypal", "1JE4291016473214C", ""},
		{"sns", "arn:aws:sns:eu-west-1:1:t", ""},
	} {
		s := lookup(t, c.scheme)
		_, err := s.ParseKey(c.text)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%s %q: %v", c.scheme, c.text, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s %q: got %v, want %q", c.scheme, c.text, err, c.err)
		case c.err != "" && len(c.text) > 8 && strings.Contains(err.Error(), c.text):
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

func TestAKeyEndsAtItsTime(t *testing.T) {
	t.Parallel()
	s := lookup(t, "github")
	key := parseKey(t, s, "secret")
	if !key.Expires().IsZero() || !key.Until(noon).Expires().Equal(noon) {
		t.Error("a key's end is not what was set")
	}
	signed, err := s.Sign(&signature.Request{}, []signature.Key{key}, "", noon)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration]signature.Reason{-1: "", 0: signature.Mismatch, 1: signature.Mismatch} {
		if _, err := s.Verify(signed, []signature.Key{key.Until(noon)}, noon.Add(at)); reason(err) != want {
			t.Errorf("%v from its end: got %v, want %q", at, err, want)
		}
	}
}
