// Package signature signs and verifies webhooks. It knows how some thirty senders sign, as data: a [Scheme] says where
// the signature, the time and the id are, which bytes are signed and how, how the sender's repeats are told, how long it
// waits for an answer and what it does without one, and how it greets a new receiver.
//
// The package does no I/O and holds no state: a verdict is a function of the request, the keys and the time. The
// gateway stands on it; a receiver of your own can use it alone:
//
//	stripe, _ := signature.Lookup("stripe")
//	key, err := stripe.ParseKey(os.Getenv("STRIPE_SECRET"))
//	…
//	verified, err := stripe.Verify(&signature.Request{
//		Method: r.Method, URL: "https://hooks.example.com/in/stripe", Header: r.Header, Body: body,
//	}, []signature.Key{key}, time.Now())
//
// Body is the bytes as they came over the wire, before decompression and before any parser: JSON that was read and
// written again is the commonest reason why a signature fails. URL is the public URL that the sender was given, with
// the raw path and query of the request; never put it together from Host or X-Forwarded headers, which the caller chooses.
//
// # Errors
//
// [Scheme.Verify] returns an [*Error] whose [Reason] belongs into a metric. Answer every reason alike, with 401: the
// difference helps only a forger. [Scheme.Explain] tells a person what the sender probably did.
//
// # Replays
//
// A signature proves who spoke, not that it was just now. Schemes with a signed time have a window ([Clock]). Those
// without have none, so the receiver must know the repeats: [Scheme.Identify].
//
// # Stricter than the senders' own libraries
//
// A time in the future is refused like one in the past (Stripe's and HubSpot's take any future). A time is digits alone,
// or RFC 3339: no sign, no fraction, no space. A header of the signature, the id or the time that stands there twice is
// malformed, and so is a list of more than 32, or of more than 8 that need a public key. Pairs are name=value without
// spaces, each with both. Base64 is what an encoder writes: padded, without stray bits and line breaks. Empty keys are
// refused, where some libraries verify with them. JSON that is read for a signature (adyen, sns) holds no name twice.
// A body that Twilio's signature does not cover is refused. Hex is taken in any case, where some libraries compare text.
//
// What a sender leaves open stays so, and [Scheme].Note says it: PayPal signs only a CRC-32 of the body, HubSpot's first two
// versions are no HMACs, Adyen signs eight fields, and a secret that is sent itself (gitlab, ms-graph) is known to whoever sees one request.
//
// # Concurrency
//
// A [Scheme] and a [Key] may be used by any number of goroutines at once, as long as nobody changes the Scheme.
package signature

import "time"

// Request is a webhook as it came over the wire, or as it is to be sent. Nothing in this package changes one in place.
type Request struct {
	// Method is the HTTP method, in capitals.
	Method string
	// URL is the public URL as the sender knows it: scheme and host from the configuration, raw path and query from
	// the request. Only schemes that sign it read it, and handshakes read its query.
	URL string
	// Header holds the headers; an http.Header fits. Names are compared without regard to case.
	Header map[string][]string
	// Body is the body's bytes as sent.
	Body []byte
	// Chain is the certificate chain behind [Scheme.CertificateURL], for the schemes that have one (paypal, sns).
	Chain *Chain
}

// Verified is what a good signature says.
type Verified struct {
	// Key is the index of the key that matched.
	Key int
	// Time is the signed time; zero where the scheme has none.
	Time time.Time
	// Label is the version or prefix under which the signature stood ("v1", "sha256="); empty where there is none.
	Label string
}

// Reason says why a request was not verified. There are five, fit for a metric's label.
type Reason string

const (
	// Missing means: there is no signature, id or time where the scheme has one.
	Missing Reason = "missing"
	// Malformed means: what is there cannot be read, or stands there twice.
	Malformed Reason = "malformed"
	// Stale means: the signed time is too long ago.
	Stale Reason = "stale"
	// Future means: the signed time is too far ahead.
	Future Reason = "future"
	// Mismatch means: no key that holds now made this signature.
	Mismatch Reason = "mismatch"
)

// Error is why a request was not verified. Its text names headers and fields, never a key nor a value that was sent: it
// may be logged. It must not be sent to the caller.
type Error struct {
	Reason Reason
	// Detail says what was looked at, as in "header Stripe-Signature stands there twice".
	Detail string
}

// Error returns the reason and the detail.
func (e *Error) Error() string { return "verify signature: " + string(e.Reason) + ": " + e.Detail }
