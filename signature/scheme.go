package signature

import "time"

// Scheme is how one sender signs. It is data: [Lookup] returns the known ones, and a user writes more of them as JSON
// ([ParseScheme]) or as YAML, which a caller decodes into this struct before it calls [Scheme.Validate].
//
// A scheme in YAML, of a sender like Stripe:
//
//	name: acme
//	signature: {headers: [Acme-Signature], format: pairs, accept: [{label: v1, algorithm: hmac-sha256}], encoding: hex}
//	clock: {param: t, unit: s, past: 5m, future: 5m}
//	signed: "{ts}.{body}"
//	key: utf8
//	dedupe: {json: [id], window: 72h}
//	sender: {deadline: 10s, retries: {on_5xx: true, for: 24h}}
type Scheme struct {
	// Name is lower case with dashes, unique among the schemes of one receiver.
	Name string `json:"name" yaml:"name"`
	// Note is a line for people: what is special about this sender.
	Note string `json:"note,omitempty" yaml:"note,omitempty"`
	// Signature says where the signature is and how it is written.
	Signature Carrier `json:"signature" yaml:"signature"`
	// Clock says where the signed time is and how old it may be. Without one the scheme has no window.
	Clock Clock `json:"clock,omitzero" yaml:"clock,omitempty"`
	// ID names the header of the message's id where the id is signed. Several names are families: the n-th belongs to
	// the n-th of Signature.Headers.
	ID []string `json:"id,omitempty" yaml:"id,omitempty"`
	// Signed is the template of the signed bytes: text with {placeholders}, where {{ and }} are braces.
	//
	//	{body}       the raw body             {bodysha256} its SHA-256, lower-case hex
	//	{ts} {id}    the header's own text    {bodycrc32}  its CRC-32, decimal
	//	{method}     in capitals              {params}     the form's fields, sorted by name: name and value of each
	//	{url}        Request.URL              {secret}     the key's own bytes
	//	{urldecoded} Request.URL as HubSpot v3 writes it: twelve punctuation marks decoded
	//
	// Empty with the algorithm equal, which signs nothing.
	Signed string `json:"signed,omitempty" yaml:"signed,omitempty"`
	// Key is how a key is written in a configuration.
	Key KeyForm `json:"key" yaml:"key"`
	// URL holds what the sender does to the URL before it signs it.
	URL URLRules `json:"url,omitzero" yaml:"url,omitempty"`
	// Dedupe says how a repeat is told.
	Dedupe Dedupe `json:"dedupe,omitzero" yaml:"dedupe,omitempty"`
	// Sender says how long the sender waits and what it does when it gets no answer.
	Sender Sender `json:"sender,omitzero" yaml:"sender,omitempty"`
	// Handshakes are the requests by which the sender greets a receiver. They are no events.
	Handshakes []Handshake `json:"handshakes,omitempty" yaml:"handshakes,omitempty"`

	code     code      // what data cannot say
	template *template // of Signed, once Validate has seen it
}

// Carrier says where a signature is and how it is written.
type Carrier struct {
	// Headers are the headers that may hold it; the first that is there counts. One that stands there twice is malformed.
	Headers []string `json:"headers,omitempty" yaml:"headers,omitempty"`
	// JSON is a path into the body in place of a header: every value that it finds must verify.
	JSON string `json:"json,omitempty" yaml:"json,omitempty"`
	// Format is plain, pairs or list. Defaults to plain.
	Format Format `json:"format,omitempty" yaml:"format,omitempty"`
	// Separator stands between pairs or items. Defaults to "," for pairs and " " for a list.
	Separator string `json:"separator,omitempty" yaml:"separator,omitempty"`
	// Accept lists the signatures that count. Others are skipped in pairs and lists.
	Accept []Accept `json:"accept" yaml:"accept"`
	// Encoding is hex, base64 or text.
	Encoding Encoding `json:"encoding" yaml:"encoding"`
}

// Accept is one kind of signature that counts.
type Accept struct {
	// Label is what it is known by: the prefix of a plain value ("sha256="), the name of a pair ("v1"), the version of a
	// list's item ("v1" in "v1,…").
	Label string `json:"label,omitempty" yaml:"label,omitempty"`
	// Algorithm makes it.
	Algorithm Algorithm `json:"algorithm" yaml:"algorithm"`
}

// Format is how a header holds signatures.
type Format string

// The formats.
const (
	Plain Format = "plain" // the signature, after its label
	Pairs Format = "pairs" // name=value, name=value: several of one name are several signatures
	List  Format = "list"  // version,signature version,signature
)

// Algorithm makes or checks a signature.
type Algorithm string

// The algorithms.
const (
	HMACSHA1   Algorithm = "hmac-sha1"
	HMACSHA256 Algorithm = "hmac-sha256"
	HMACSHA512 Algorithm = "hmac-sha512"
	SHA256     Algorithm = "sha256" // a bare hash of bytes that hold the {secret}
	Ed25519    Algorithm = "ed25519"
	ECDSAP256  Algorithm = "ecdsa-p256" // ASN.1 over SHA-256
	RSASHA1    Algorithm = "rsa-sha1"   // PKCS #1 v1.5, with the key of a certificate
	RSASHA256  Algorithm = "rsa-sha256" // the same
	Equal      Algorithm = "equal"      // no signature: the secret itself is sent
)

// Encoding is how a signature is written.
type Encoding string

// The encodings.
const (
	Hex    Encoding = "hex"    // in any case
	Base64 Encoding = "base64" // standard alphabet, padded, canonical
	Text   Encoding = "text"   // as it is; for equal
)

// KeyForm is how a key is written in a configuration.
type KeyForm string

// The forms of keys.
const (
	KeyUTF8   KeyForm = "utf8"   // the bytes of the whole text, prefixes included
	KeyBase64 KeyForm = "base64" // public and private keys in DER (PKIX, PKCS #8)
	KeyHex    KeyForm = "hex"    // ed25519: 32 bytes are a public key, 64 are seed and public key
	KeyPEM    KeyForm = "pem"    // PKIX or PKCS #8
	KeyWhsec  KeyForm = "whsec"  // Standard Webhooks: whsec_, whpk_ or whsk_ and base64; without a prefix a whsec_
)

// Unit is how a time is written.
type Unit string

// The units of time.
const (
	Seconds      Unit = "s"       // since the epoch, up to 15 digits
	Milliseconds Unit = "ms"      // since the epoch, up to 15 digits
	RFC3339      Unit = "rfc3339" // 2006-01-02T15:04:05.999Z
)

// Clock says where the signed time is and how far from now it may be. A zero Clock is a scheme without a time.
type Clock struct {
	// Headers name the header, by families as [Scheme.ID].
	Headers []string `json:"headers,omitempty" yaml:"headers,omitempty"`
	// Param is the pair of the signature's header that holds it, in place of a header of its own.
	Param string `json:"param,omitempty" yaml:"param,omitempty"`
	// Unit is s, ms or rfc3339.
	Unit Unit `json:"unit,omitempty" yaml:"unit,omitempty"`
	// Past is how old the time may be, inclusive. Above 0.
	Past Duration `json:"past,omitempty" yaml:"past,omitempty"`
	// Future is how far ahead it may be, inclusive. Above 0.
	Future Duration `json:"future,omitempty" yaml:"future,omitempty"`
}

// URLRules is what a sender does to the URL.
type URLRules struct {
	// Ports tries the URL as given, with the scheme's default port, and without a port.
	Ports bool `json:"ports,omitempty" yaml:"ports,omitempty"`
	// BodyParam is the query parameter with the hex SHA-256 of a body that is no form. A body that neither it nor the
	// template covers is malformed.
	BodyParam string `json:"body_param,omitempty" yaml:"body_param,omitempty"`
}

// Dedupe says how a repeat of the same event is told.
type Dedupe struct {
	// Headers hold the id; the first that is there counts.
	Headers []string `json:"headers,omitempty" yaml:"headers,omitempty"`
	// JSON are paths into the body: the id is all that they find. "data.id", "[].id", "items[].ref".
	JSON []string `json:"json,omitempty" yaml:"json,omitempty"`
	// Form is a field of a form body.
	Form string `json:"form,omitempty" yaml:"form,omitempty"`
	// Scope is a header with the id of the hook, where the sender's ids are the same for all its hooks.
	Scope string `json:"scope,omitempty" yaml:"scope,omitempty"`
	// Body tells repeats by the body's SHA-256 too, because the id is not signed and a replayer can change it. It is
	// what is left where there is no id at all.
	Body bool `json:"body,omitempty" yaml:"body,omitempty"`
	// Window is how long an id is remembered. Defaults to 72h.
	Window Duration `json:"window,omitempty" yaml:"window,omitempty"`
	// BodyWindow is how long a body's hash is remembered: two equal bodies may both be meant where it is the only id.
	// Defaults to 5m.
	BodyWindow Duration `json:"body_window,omitempty" yaml:"body_window,omitempty"`
}

// Sender is what is known of the sender's patience, as its documentation says.
type Sender struct {
	// Deadline is how long it waits for an answer. 0 is unknown: take 10 s.
	Deadline Duration `json:"deadline,omitempty" yaml:"deadline,omitempty"`
	// Retries says what it does without a 2xx.
	Retries Retries `json:"retries,omitzero" yaml:"retries,omitempty"`
	// Disables says after what it stops sending; empty where nothing is known.
	Disables string `json:"disables,omitempty" yaml:"disables,omitempty"`
	// Redeliver says where a person has it send again; empty where nobody can.
	Redeliver string `json:"redeliver,omitempty" yaml:"redeliver,omitempty"`
	// Answer is a body that it wants to see with a 2xx; empty where it reads none.
	Answer string `json:"answer,omitempty" yaml:"answer,omitempty"`
}

// Retries is what a sender does without a 2xx.
type Retries struct {
	// On5xx reports whether it sends again after a 500, 503 or a timeout.
	On5xx bool `json:"on_5xx,omitempty" yaml:"on_5xx,omitempty"`
	// On4xx reports whether it sends again after a 4xx.
	On4xx bool `json:"on_4xx,omitempty" yaml:"on_4xx,omitempty"`
	// Attempts is how often it sends again; 0 is unknown.
	Attempts int `json:"attempts,omitempty" yaml:"attempts,omitempty"`
	// For is for how long it tries; 0 is unknown.
	For Duration `json:"for,omitempty" yaml:"for,omitempty"`
}

// Duration is a time.Duration that is written as text ("5m") in JSON and YAML.
type Duration time.Duration

// String returns the duration as in "5m0s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration as in "5m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration as in "5m".
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// code names what data cannot say of a scheme.
type code int

const (
	codeNone   code = iota
	codeAdyen       // the signature of each item stands in it
	codePayPal      // a certificate from the web
	codeSNS         // the same, and the signature is in the body
)
