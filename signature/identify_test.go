package signature_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

func TestIdentify(t *testing.T) {
	t.Parallel()
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}
	for _, c := range []struct {
		name, scheme, body string
		header             http.Header
		want               string
		hash               bool
	}{
		{"a header", "standard", "{}", http.Header{"Webhook-Id": {"msg_1"}}, "msg_1", false},
		{"a header of the other family", "standard", "{}", http.Header{"Svix-Id": {"msg_1"}}, "msg_1", false},
		{
			"an unsigned header of the other family", "standard", "{}",
			http.Header{"Svix-Signature": {"v1,x"}, "Svix-Id": {"msg_1"}, "Webhook-Id": {"forged"}},
			"msg_1", false,
		},
		{"a header twice", "standard", "{}", http.Header{"Webhook-Id": {"a", "b"}}, "", true},
		{"a hook of its own", "github", "{}", http.Header{"X-Github-Delivery": {"72d3"}, "X-Github-Hook-Id": {"9"}}, "9/72d3", true},
		{"no hook", "github", "{}", http.Header{"X-Github-Delivery": {"72d3"}}, "72d3", true},
		{"a field", "stripe", `{"object":"event","id":"evt_1"}`, nil, "evt_1", false},
		{"a number", "stripe", `{"id":12345678901234567890}`, nil, "12345678901234567890", false},
		{"an object", "stripe", `{"id":{}}`, nil, "", true},
		{"null", "stripe", `{"id":null}`, nil, "", true},
		{"no JSON", "stripe", `{"id":"evt_1"`, nil, "", true},
		{"items", "sendgrid", `[{"sg_event_id":"a"},{"sg_event_id":"b"}]`, nil, "a,b", false},
		{"an item without", "sendgrid", `[{"sg_event_id":"a"},{}]`, nil, "", true},
		{"no items", "sendgrid", `[]`, nil, "", true},
		{"a form", "slack", "command=%2Fx&trigger_id=1.2.a", form, "1.2.a", false},
		{"a form without", "slack", "payload=%7B%7D", form, "", true},
		{"only the body", "zoom", `{"event":"x"}`, nil, "", true},
		{
			"three paths", "adyen", `{"notificationItems":[{"NotificationRequestItem":{"pspReference":"p","eventCode":"AUTHORISATION","success":"true"}}]}`,
			nil, "p,AUTHORISATION,true", false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := lookup(t, c.scheme).Identify(&signature.Request{Method: "POST", Header: c.header, Body: []byte(c.body)})
			sum := ""
			if c.hash {
				raw := sha256.Sum256([]byte(c.body))
				sum = hex.EncodeToString(raw[:])
			}
			if got.ID != c.want || got.Body != sum {
				t.Errorf("got %q and %q, want %q and %q", got.ID, got.Body, c.want, sum)
			}
			if got.Window <= 0 || got.BodyWindow <= 0 {
				t.Errorf("the windows are %v and %v", got.Window, got.BodyWindow)
			}
		})
	}
}

// Two equal bodies may both be meant where nothing else tells repeats.
func TestABodyAloneIsRememberedForFiveMinutes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"meta", "zoom", "twitter"} {
		if got := lookup(t, name).Identify(&signature.Request{}); got.BodyWindow != 5*time.Minute || got.Body == "" {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestALongIDIsHashed(t *testing.T) {
	t.Parallel()
	s := lookup(t, "standard")
	a := s.Identify(&signature.Request{Header: http.Header{"Webhook-Id": {strings.Repeat("a", 256)}}})
	b := s.Identify(&signature.Request{Header: http.Header{"Webhook-Id": {strings.Repeat("a", 255) + "b"}}})
	if len(a.ID) != 64 || a.ID == b.ID {
		t.Errorf("got %q and %q", a.ID, b.ID)
	}
}
