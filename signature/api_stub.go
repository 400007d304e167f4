package signature

import (
	"crypto/x509"
	"time"
)

type (
	code     string
	template struct{}
)

// Key is a secret or a public key of one scheme. It prints *** in every format. The zero Key verifies nothing.
type Key struct {
	m *material
	// until is when the key stops to hold; zero is never.
	until time.Time
}

type material struct{}

// ParseKey reads a key as the scheme's senders show it. The error does not hold the text.
func (s *Scheme) ParseKey(text string) (Key, error) { return Key{}, nil }

// Until returns the key with an end: from t on it verifies nothing. The zero time is no end.
func (k Key) Until(t time.Time) Key { k.until = t; return k }

// Expires returns when the key stops to hold; zero is never.
func (k Key) Expires() time.Time { return k.until }

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.m == nil }

// Verify checks that one of keys signed req, at a time within the scheme's window around now. Every error is an [*Error].
// For paypal the key is the id of the webhook, for sns the ARN of the topic: what is signed with the sender's
// certificate, which req.Chain holds, must be meant for it.
func (s *Scheme) Verify(req *Request, keys []Key, now time.Time) (Verified, error) {
	return Verified{}, nil
}

// Sign returns req signed at now, with id where the scheme has one. Where a header takes several signatures all keys
// sign, the first one first; otherwise the first signs alone. It fails for an id or a text that the template could not
// tell apart, for a key that can only verify, and for paypal and sns, whose keys nobody else has.
func (s *Scheme) Sign(req *Request, keys []Key, id string, now time.Time) (*Request, error) {
	return nil, nil
}

// Identity tells one event from another of the same source.
type Identity struct {
	// ID is the sender's id of the event, with the hook's id before it where the scheme has a Scope. Where there is none
	// it is empty. At most 255 bytes: what is longer is hashed.
	ID string
	// Body is the SHA-256 of the body in hex where the scheme tells repeats by it (too, or as the only way: see
	// [Dedupe]) and wherever ID is empty; else empty. A request is a repeat if its ID or its Body was seen.
	Body string
	// Window and BodyWindow are how long each is remembered.
	Window, BodyWindow time.Duration
}

// Identify returns what tells a repeat of req. It reads the body, so call it after Verify.
func (s *Scheme) Identify(req *Request) Identity { return Identity{} }

// CertificateURL returns where the certificate of req's signature is, for the schemes that sign with one (else "").
// The URL is from the caller and was checked: https, a host of the sender's own, no port and no user. Fetch it all the same with
// a client that dials no private address, read at most 64 KiB, and cache the [Chain] by URL.
func (s *Scheme) CertificateURL(req *Request) (string, error) { return "", nil }

// ParseChain reads a chain in PEM, the sender's own certificate first. roots nil is the system's.
func ParseChain(pem []byte, roots *x509.CertPool) (*Chain, error) { return nil, nil }

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
	// Answer is the body: text with {challenge}, {hmac-hex} and {hmac-base64}; the latter are HMAC-SHA256 of the
	// challenge under the first key that holds.
	Answer string `json:"answer,omitempty" yaml:"answer,omitempty"`
	// JSON says that the answer is application/json. Otherwise it is text/plain.
	JSON bool `json:"answer_json,omitempty" yaml:"answer_json,omitempty"`
	// Status is the status. Defaults to 200.
	Status int `json:"status,omitempty" yaml:"status,omitempty"`
	// Fetch is the field with a URL that the receiver must GET to confirm (sns), when its operator allows it.
	Fetch string `json:"fetch,omitempty" yaml:"fetch,omitempty"`
}

// Field is a place in a request: one of the three.
type Field struct {
	Query  string `json:"query,omitempty" yaml:"query,omitempty"`
	Header string `json:"header,omitempty" yaml:"header,omitempty"`
	JSON   string `json:"json,omitempty" yaml:"json,omitempty"`
}

// Condition is something that a handshake has.
type Condition struct {
	Field `yaml:",inline"`
	// Value is what the field holds. Empty is any.
	Value string `json:"value,omitempty" yaml:"value,omitempty"`
	// Absent says that the field is not there.
	Absent bool `json:"absent,omitempty" yaml:"absent,omitempty"`
}

// Answer is what a handshake is answered. Send it with X-Content-Type-Options: nosniff.
type Answer struct {
	Status      int
	ContentType string // empty where there is no body
	Body        []byte
	// Fetch is a checked URL of the sender's own hosts that must be fetched with GET to confirm, if the operator allows
	// it: by a client that dials no private address.
	Fetch string
}

// Greet answers a handshake. It returns nil and no error where req is none and must be treated as an event: so it is
// asked first. Signed handshakes are verified in it. Every error is an [*Error]: 401, like any other. tokens are what the
// receiver was configured with where the handshake carries a token (meta); any of them will do.
func (s *Scheme) Greet(req *Request, keys, tokens []Key, now time.Time) (*Answer, error) {
	return nil, nil
}

// Token returns a text as a key that [Scheme.Greet] compares a handshake's token with.
func Token(text string) Key { return Key{} }

// Finding is something that explains why a request did not verify.
type Finding struct {
	// Reason is the reason of Verify that it explains.
	Reason Reason `json:"reason"`
	// Code is a short name of the finding, as in "body-reserialised".
	Code string `json:"code"`
	// Text says what was found and what to do. It holds no key.
	Text string `json:"text"`
	// Proved says that the request verifies when what was found is undone; otherwise it is a likely guess.
	Proved bool `json:"proved"`
}

// Explain says why req does not verify and what the sender probably did. It returns nothing for a request that verifies.
// It tries a few hundred signatures at most: for a person's question, not for every request.
func (s *Scheme) Explain(req *Request, keys []Key, now time.Time) []Finding { return nil }
