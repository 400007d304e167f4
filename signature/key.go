package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // HMAC-SHA1 is what Twilio signs with
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"time"
)

// rsaLeast is the least size of an RSA key in bits.
const rsaLeast = 2048

// Key is a secret or a public key of one scheme. It prints *** in every format. The zero Key verifies nothing.
type Key struct {
	// A pointer to a pointer: fmt prints the unexported fields of whoever holds a Key by reflection, past every method of
	// it, and follows one pointer to a struct (%s does). Of this it shows an address.
	sealed **material
	// until is when the key stops to hold; zero is never.
	until time.Time
}

// material is what a key is made of: a secret, or a public key and perhaps its private half.
type material struct {
	text   string // as it was configured: Explain reads it another way
	secret []byte
	public crypto.PublicKey
	signer crypto.Signer
	macs   [3]sync.Pool // of *mac, by macIndex: keying an HMAC anew costs as much as a short body
}

// mac is a keyed hash and room for what goes in and comes out, so that a verification allocates nothing.
type mac struct {
	hash.Hash

	buf, sum []byte
}

func newKey(m *material) Key { return Key{sealed: &m} }

// material returns what the key is made of; the key is not zero.
func (k Key) material() *material { return *k.sealed }

// ParseKey reads a key as the scheme's senders show it. An empty key is an error, and so is one that no algorithm of the
// scheme takes. The error does not hold the text. For paypal the key is the id of the webhook, for sns the ARN of the
// topic, for basic "user:password".
func (s *Scheme) ParseKey(text string) (Key, error) {
	m, err := parseMaterial(s.Key, s.publicKeys(), text)
	if err != nil {
		return Key{}, fmt.Errorf("read the key for %s: %w", s.Name, err)
	}
	m.text = text
	k := newKey(m)
	for _, a := range s.Signature.Accept {
		if s.code != codeNone || k.can(a.Algorithm) {
			return k, nil
		}
	}
	return Key{}, fmt.Errorf("read the key for %s: it is of a kind that no algorithm of the scheme takes", s.Name)
}

// publicKeys reports whether the scheme's keys are public keys, rather than secrets.
func (s *Scheme) publicKeys() bool {
	for _, a := range s.Signature.Accept {
		if !a.Algorithm.public() {
			return false
		}
	}
	return s.code == codeNone
}

// Until returns the key with an end: from t on it verifies nothing. The zero time is no end.
func (k Key) Until(t time.Time) Key { return Key{sealed: k.sealed, until: t} }

// Expires returns when the key stops to hold; zero is never.
func (k Key) Expires() time.Time { return k.until }

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.sealed == nil }

// String returns ***, or nothing where there is no key.
func (k Key) String() string {
	if k.IsZero() {
		return ""
	}
	return "***"
}

// Format writes [Key.String] for every verb, %#v and %x included.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText returns [Key.String]: JSON, YAML and the encoders of logs end here.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Token returns a text as a key that [Scheme.Greet] compares a handshake's token with.
func Token(text string) Key {
	if text == "" {
		return Key{}
	}
	return newKey(&material{text: text, secret: []byte(text)})
}

// holds reports whether the key may verify at now.
func (k Key) holds(now time.Time) bool {
	return !k.IsZero() && (k.until.IsZero() || now.Before(k.until))
}

// can reports whether the key is of the kind that a takes.
func (k Key) can(a Algorithm) bool {
	if k.IsZero() {
		return false
	}
	switch a {
	case Ed25519:
		_, ok := k.material().public.(ed25519.PublicKey)
		return ok
	case ECDSAP256:
		_, ok := k.material().public.(*ecdsa.PublicKey)
		return ok
	case RSASHA1, RSASHA256:
		_, ok := k.material().public.(*rsa.PublicKey)
		return ok
	default:
		return len(k.material().secret) > 0
	}
}

// public reports whether a takes public keys.
func (a Algorithm) public() bool {
	return a == Ed25519 || a == ECDSAP256 || a == RSASHA1 || a == RSASHA256
}

// macIndex is the place of a's pool in a key; -1 for what is no HMAC.
func macIndex(a Algorithm) int {
	switch a {
	case HMACSHA1:
		return 0
	case HMACSHA256:
		return 1
	case HMACSHA512:
		return 2
	default:
		return -1
	}
}

// mac takes a keyed hash for a: from the key's pool if there is one. It is given back with release.
func (k Key) mac(a Algorithm) *mac {
	i := macIndex(a)
	if i >= 0 {
		if m, ok := k.material().macs[i].Get().(*mac); ok {
			m.Reset()
			m.buf = m.buf[:0]
			return m
		}
	}
	m := &mac{buf: make([]byte, 0, 256), sum: make([]byte, 0, sha512.Size)}
	switch a {
	case HMACSHA1:
		m.Hash = hmac.New(sha1.New, k.material().secret)
	case HMACSHA256:
		m.Hash = hmac.New(sha256.New, k.material().secret)
	case HMACSHA512:
		m.Hash = hmac.New(sha512.New, k.material().secret)
	default:
		m.Hash = sha256.New()
	}
	return m
}

func (k Key) release(a Algorithm, m *mac) {
	if i := macIndex(a); i >= 0 {
		k.material().macs[i].Put(m)
	}
}

func parseMaterial(form KeyForm, public bool, text string) (*material, error) {
	if text == "" {
		return nil, errors.New("it is empty")
	}
	if form == KeyWhsec {
		return parseWhsec(text)
	}
	if form == KeyPEM {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return nil, errors.New("it is no PEM")
		}
		return parseDER(block.Bytes)
	}
	raw := []byte(text)
	var err error
	switch form {
	case KeyBase64:
		raw, err = looseBase64(text)
	case KeyHex:
		if raw, err = hex.DecodeString(text); err != nil {
			err = errors.New("it is no hex") // hex's own error shows a character of the key
		}
	default:
	}
	switch {
	case err != nil:
		return nil, err
	case len(raw) == 0:
		return nil, errors.New("it is empty")
	case !public:
		return &material{secret: raw}, nil
	case len(raw) == ed25519.PublicKeySize || len(raw) == ed25519.PrivateKeySize:
		return parseEd25519(raw)
	}
	return parseDER(raw)
}

// parseWhsec reads the keys of Standard Webhooks. Padding is optional, and stray bits at the end are accepted, because
// there are secrets in use that have them.
func parseWhsec(text string) (*material, error) {
	rest := text
	asymmetric := false
	for _, prefix := range []string{"whsec_", "whpk_", "whsk_"} {
		if cut, ok := strings.CutPrefix(text, prefix); ok {
			rest, asymmetric = cut, prefix != "whsec_"
			break
		}
	}
	raw, err := looseBase64(rest)
	switch {
	case err != nil:
		return nil, err
	case len(raw) == 0:
		return nil, errors.New("it is empty")
	case asymmetric:
		return parseEd25519(raw)
	}
	return &material{secret: raw}, nil
}

func looseBase64(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // Go's decoder skips them
		return nil, errors.New("it holds a line break")
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, errors.New("it is no base64")
	}
	return raw, nil
}

func parseEd25519(raw []byte) (*material, error) {
	switch len(raw) {
	case ed25519.PublicKeySize:
		return &material{public: ed25519.PublicKey(raw)}, nil
	case ed25519.PrivateKeySize:
		private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
		if !bytes.Equal(private, raw) {
			return nil, errors.New("its public half does not belong to its seed")
		}
		return &material{public: private.Public(), signer: private}, nil
	}
	return nil, fmt.Errorf("it has %d bytes: 32 are a public key of ed25519, 64 a private one", len(raw))
}

// parseDER reads a public key (PKIX) or a private one (PKCS #8).
func parseDER(der []byte) (*material, error) {
	m := &material{}
	if private, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, ok := private.(crypto.Signer)
		if !ok {
			return nil, errors.New("it is no key that signs")
		}
		m.signer, m.public = signer, signer.Public()
	} else if m.public, err = x509.ParsePKIXPublicKey(der); err != nil {
		return nil, errors.New("it is neither a public key (PKIX) nor a private one (PKCS #8)")
	}
	switch public := m.public.(type) {
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return nil, errors.New("its curve is not P-256")
		}
	case *rsa.PublicKey:
		if public.Size()*8 < rsaLeast {
			return nil, fmt.Errorf("an RSA key has at least %d bits", rsaLeast)
		}
	case ed25519.PublicKey:
	default:
		return nil, errors.New("it is of a kind that no scheme signs with")
	}
	return m, nil
}
