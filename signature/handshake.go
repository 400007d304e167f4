package signature

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// challengeMost is the longest challenge that is echoed, in bytes.
const challengeMost = 1024

// Handshake is a request by which a sender greets a receiver, and the answer that it wants.
type Handshake struct {
	// Method is GET or POST.
	Method string `json:"method" yaml:"method"`
	// Match are the conditions; all must hold.
	Match []Condition `json:"match" yaml:"match"`
	// Signed says that the request must verify before it is answered.
	Signed bool `json:"signed,omitempty" yaml:"signed,omitempty"`
	// Token is where the caller sends a token that the receiver was configured with.
	Token Field `json:"token,omitzero" yaml:"token,omitempty"`
	// Challenge is what is echoed, or what an HMAC is made of.
	Challenge Field `json:"challenge,omitzero" yaml:"challenge,omitempty"`
	// Answer is the body: text with {challenge}, {hmac} and {hmacbase64}; the latter are the HMAC-SHA256 of the challenge
	// under the first key that holds, in hex and base64. {{ and }} are braces.
	Answer string `json:"answer,omitempty" yaml:"answer,omitempty"`
	// JSON says that the answer is application/json. Otherwise it is text/plain.
	JSON bool `json:"answer_json,omitempty" yaml:"answer_json,omitempty"`
	// Status is the status. Defaults to 200.
	Status int `json:"status,omitempty" yaml:"status,omitempty"`
	// Fetch is where the URL stands that the receiver must GET to confirm (sns), when its operator allows it. It is
	// answered only if it is on the sender's own hosts: for the built-in schemes alone.
	Fetch Field `json:"fetch,omitzero" yaml:"fetch,omitempty"`
}

// Field is a place in a request: a query parameter, a header, or a path into a JSON body.
type Field struct {
	Query  string `json:"query,omitempty" yaml:"query,omitempty"`
	Header string `json:"header,omitempty" yaml:"header,omitempty"`
	JSON   string `json:"json,omitempty" yaml:"json,omitempty"`
}

// Condition is something that a handshake has.
type Condition struct {
	Query  string `json:"query,omitempty" yaml:"query,omitempty"`
	Header string `json:"header,omitempty" yaml:"header,omitempty"`
	JSON   string `json:"json,omitempty" yaml:"json,omitempty"`
	// Value is what the place holds. Empty is any.
	Value string `json:"value,omitempty" yaml:"value,omitempty"`
}

// Answer is what a handshake is answered. Send it with X-Content-Type-Options: nosniff: part of it is the caller's.
type Answer struct {
	Status int
	// ContentType is empty where there is no body.
	ContentType string
	Body        []byte
	// Fetch is a URL on the sender's own hosts that must be fetched with GET to confirm, if the operator allows it, by a
	// client that dials no private address. Empty for nearly all.
	Fetch string
}

// oracleText is what Zoom and Twitter send to be signed. They sign with the key of the events, so a caller could have an
// event signed for it: no text of this form is a JSON body, or Zoom's v0:time:body.
var oracleText = regexp.MustCompile(`^[A-Za-z0-9_-]{1,256}$`)

// Greet answers a handshake. It returns nil and no error where req is none: then it is an event, to be verified. So it is
// asked first. Signed handshakes are verified in it. Every error is an [*Error], to be answered with 401 like any other.
// tokens are what the receiver was configured with where the handshake carries a token (meta); any of them will do.
func (s *Scheme) Greet(req *Request, keys, tokens []Key, now time.Time) (*Answer, error) {
	for i := range s.Handshakes {
		h := &s.Handshakes[i]
		if !h.matches(req) {
			continue
		}
		a, fail := s.greet(h, req, keys, tokens, now)
		if fail != nil {
			return nil, fail
		}
		return a, nil
	}
	return nil, nil //nolint:nilnil // no handshake and no fault: the doc says so
}

func (s *Scheme) greet(h *Handshake, req *Request, keys, tokens []Key, now time.Time) (*Answer, *Error) {
	if h.Signed {
		if _, fail := s.verify(req, keys, now); fail != nil {
			return nil, fail
		}
	}
	if h.Token != (Field{}) && !tokenKnown(h.Token.of(req), tokens, now) {
		return nil, fault(Mismatch, "the handshake's token is not the configured one")
	}
	a := &Answer{Status: max(h.Status, 200)}
	if h.Fetch != (Field{}) {
		a.Fetch = h.Fetch.of(req)
		if host, _ := s.hosts(); host == nil || !ownURL(a.Fetch, host) {
			return nil, fault(Malformed, "the URL to confirm is not one of the sender's own")
		}
	}
	if h.Answer == "" {
		return a, nil
	}
	body, fail := h.body(req, keys, now)
	if fail != nil {
		return nil, fail
	}
	a.Body, a.ContentType = body, "text/plain; charset=utf-8"
	if h.JSON {
		a.ContentType = "application/json"
	}
	return a, nil
}

// body writes the answer.
func (h *Handshake) body(req *Request, keys []Key, now time.Time) ([]byte, *Error) {
	t, err := parseTemplate(h.Answer, answerNames())
	if err != nil {
		return nil, fault(Malformed, "the scheme is not valid: "+err.Error())
	}
	challenge := h.Challenge.of(req)
	signs := t.has("hmac", "hmacbase64")
	switch {
	case h.Challenge != (Field{}) && challenge == "":
		return nil, fault(Missing, "the handshake holds no challenge")
	case len(challenge) > challengeMost, (signs || h.JSON) && challenge != "" && !oracleText.MatchString(challenge):
		return nil, fault(Malformed, "the handshake's challenge is not of the form that is answered")
	}
	var b []byte
	for _, p := range t.parts {
		switch p.name {
		case "challenge":
			b = append(b, challenge...)
		case "hmac", "hmacbase64":
			sum, ok := firstMAC(challenge, keys, now)
			if !ok {
				return nil, fault(Mismatch, "there is no key that holds now")
			}
			encoding := Hex
			if p.name == "hmacbase64" {
				encoding = Base64
			}
			b = append(b, encoding.encode(sum)...)
		default:
			b = append(b, p.literal...)
		}
	}
	return b, nil
}

// answerNames are the placeholders of [Handshake.Answer].
func answerNames() []string { return []string{"challenge", "hmac", "hmacbase64"} }

func firstMAC(text string, keys []Key, now time.Time) ([]byte, bool) {
	for _, k := range keys {
		if k.holds(now) && k.can(HMACSHA256) {
			m := k.mac(HMACSHA256)
			defer k.release(HMACSHA256, m)
			_, _ = m.Write([]byte(text))
			return m.Sum(nil), true
		}
	}
	return nil, false
}

func tokenKnown(text string, tokens []Key, now time.Time) bool {
	got, known := sha256.Sum256([]byte(text)), 0
	for _, k := range tokens {
		if k.holds(now) && len(k.material().secret) > 0 {
			want := sha256.Sum256(k.material().secret)
			known |= subtle.ConstantTimeCompare(got[:], want[:])
		}
	}
	return known == 1
}

func (h *Handshake) matches(req *Request) bool {
	if req.Method != h.Method {
		return false
	}
	for _, c := range h.Match {
		// A body without the text is none: that spares nearly every event from being read here.
		if c.JSON != "" && c.Value != "" && !bytes.Contains(req.Body, []byte(c.Value)) {
			return false
		}
		got := Field{c.Query, c.Header, c.JSON}.of(req)
		if got == "" || c.Value != "" && got != c.Value {
			return false
		}
	}
	return true
}

// of returns what stands at the place; "" where nothing does, or where it stands more than once.
func (f Field) of(req *Request) string {
	switch {
	case f.Query != "":
		_, query, _ := strings.Cut(req.URL, "?")
		values, err := url.ParseQuery(query)
		if err != nil || len(values[f.Query]) != 1 {
			return ""
		}
		return values.Get(f.Query)
	case f.Header != "":
		v, err := req.one(f.Header)
		if err != nil {
			return ""
		}
		return v
	case f.JSON != "":
		v, complete := lookupJSON(req.Body, f.JSON)
		if !complete || len(v) != 1 {
			return ""
		}
		return v[0]
	}
	return ""
}
