package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // RSA with SHA-1 is what SNS's first version signs with
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/url"
	"strings"
	"time"
)

// Verify checks that one of keys signed req, at a time within the scheme's window around now. Every error is an [*Error].
// All signatures that the request holds are compared with all keys, in constant time.
//
// For paypal the key is the id of the webhook and for sns the ARN of the topic: what the sender's certificate, which
// req.Chain holds, must have signed for.
func (s *Scheme) Verify(req *Request, keys []Key, now time.Time) (Verified, error) {
	v, err := s.verify(req, keys, now)
	if err != nil {
		return v, err
	}
	return v, nil
}

func (s *Scheme) verify(req *Request, keys []Key, now time.Time) (Verified, *Error) {
	t, invalid := s.parsed()
	if invalid != nil {
		return Verified{}, fault(Mismatch, invalid.Error())
	}
	switch s.code {
	case codeAdyen:
		return s.verifyAdyen(req, keys, now)
	case codeSNS:
		return s.verifySNS(req, keys, now)
	default:
	}
	var room [4]candidate
	candidates, ts, id, err := s.read(req, room[:0])
	if err != nil {
		return Verified{}, err
	}
	var at time.Time
	if s.Clock.used() {
		if at, err = s.Clock.check(ts, now); err != nil {
			return Verified{}, err
		}
	}
	in := input{body: req.Body, ts: ts, id: id, method: req.Method, url: req.URL}
	v, err := s.match(t, req, &in, candidates, keys, now)
	v.Time = at
	return v, err
}

// match finds the key that made one of the candidates; where they are the items of a body, all of them.
func (s *Scheme) match(t *template, req *Request, in *input, candidates []candidate, keys []Key, now time.Time) (Verified, *Error) {
	if err := s.cover(t, req, in); err != nil {
		return Verified{}, err
	}
	var chain *Chain
	if s.code == codePayPal {
		var err error
		if chain, err = s.trusted(req, now); err != nil {
			return Verified{}, fault(Mismatch, err.Error())
		}
	}
	if s.Signature.JSON != "" {
		return s.matchEach(t, in, candidates, keys, now)
	}
	urls := []string{in.url}
	if s.URL.Ports {
		urls = portVariants(in.url)
	}
	for _, in.url = range urls {
		v, err := s.matchAny(t, in, candidates, keys, chain, now)
		if err == nil || err.Reason != Mismatch || in.url == urls[len(urls)-1] {
			return v, err
		}
	}
	return Verified{}, fault(Mismatch, "no URL")
}

func (s *Scheme) matchEach(t *template, in *input, candidates []candidate, keys []Key, now time.Time) (v Verified, err *Error) {
	for i := range candidates {
		if v, err = s.matchAny(t, in, candidates[i:i+1], keys, nil, now); err != nil {
			return v, err
		}
	}
	return v, err
}

// tally is what one key made of the candidates of one algorithm.
type tally struct {
	ok           bool
	read, broken bool // whether some candidate was of the encoding and length, and some was not
}

// matchAny compares every candidate with every key. A key that no longer holds is tried too, so that the error can say so.
func (s *Scheme) matchAny(t *template, in *input, candidates []candidate, keys []Key, chain *Chain, now time.Time) (Verified, *Error) {
	var all tally
	expired, public := false, 0
	for i, k := range keys {
		for _, a := range s.Signature.Accept {
			if k.IsZero() || chain == nil && !k.can(a.Algorithm) {
				continue
			}
			var one tally
			if a.Algorithm.public() {
				if public += count(candidates, a); public > publicMost*len(keys) {
					return Verified{}, fault(Malformed, "there are too many signatures")
				}
				one = s.tryPublic(t, in, candidates, a, k, chain)
			} else {
				one = s.trySecret(t, in, candidates, a, k)
			}
			if one.ok && k.holds(now) {
				return Verified{Key: i, Label: a.Label}, nil
			}
			expired, all.read, all.broken = expired || one.ok, all.read || one.read, all.broken || one.broken
		}
	}
	switch {
	case expired:
		return Verified{}, fault(Mismatch, "the key that made the signature no longer holds")
	case all.broken && !all.read:
		return Verified{}, fault(Malformed, "no signature is "+string(s.Signature.Encoding)+" of the right length")
	case !all.read:
		return Verified{}, fault(Mismatch, "there is no key of the signature's kind")
	}
	return Verified{}, fault(Mismatch, "no key made the signature")
}

func count(candidates []candidate, a Accept) (n int) {
	for _, c := range candidates {
		if c.accept == a {
			n++
		}
	}
	return n
}

// trySecret compares the candidates with what the key makes of the signed bytes.
func (s *Scheme) trySecret(t *template, in *input, candidates []candidate, a Accept, k Key) (got tally) {
	if a.Algorithm == Equal {
		return s.tryEqual(candidates, k)
	}
	m := k.mac(a.Algorithm)
	defer k.release(a.Algorithm, m)
	t.write(m, in, k.material().secret)
	m.sum = m.Sum(m.sum[:0])
	for _, c := range candidates {
		if c.accept != a {
			continue
		}
		raw, fine := s.Signature.Encoding.decode(m.buf[:0], c.text)
		if !fine || len(raw) != len(m.sum) {
			got.broken = true
			continue
		}
		got.read = true
		got.ok = got.ok || hmac.Equal(raw, m.sum)
	}
	return got
}

// tryEqual compares secrets as hashes, so that not even their length shows in the time it takes.
func (s *Scheme) tryEqual(candidates []candidate, k Key) (got tally) {
	want := sha256.Sum256(k.material().secret)
	for _, c := range candidates {
		raw, fine := s.Signature.Encoding.decode(nil, c.text)
		sum := sha256.Sum256(raw)
		got.read, got.broken = got.read || fine, got.broken || !fine
		got.ok = got.ok || fine && subtle.ConstantTimeCompare(sum[:], want[:]) == 1
	}
	return got
}

func (s *Scheme) tryPublic(t *template, in *input, candidates []candidate, a Accept, k Key, chain *Chain) (got tally) {
	public := k.material().public
	if chain != nil {
		public = chain.certs[0].PublicKey
	}
	message := t.bytes(in, k.material().secret)
	for _, c := range candidates {
		if c.accept != a {
			continue
		}
		raw, fine := s.Signature.Encoding.decode(nil, c.text)
		if !fine || a.Algorithm == Ed25519 && len(raw) != ed25519.SignatureSize {
			got.broken = true
			continue
		}
		got.read = true
		got.ok = got.ok || checkPublic(a.Algorithm, public, message, raw)
	}
	return got
}

func checkPublic(a Algorithm, public crypto.PublicKey, message, sig []byte) bool {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return a == Ed25519 && ed25519.Verify(key, message, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return a == ECDSAP256 && ecdsa.VerifyASN1(key, sum[:], sig)
	case *rsa.PublicKey:
		switch a {
		case RSASHA1:
			sum := sha1.Sum(message) //nolint:gosec // SNS's first version
			return rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], sig) == nil
		case RSASHA256:
			sum := sha256.Sum256(message)
			return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil
		default:
		}
	}
	return false
}

// cover reads the form where the template signs its fields, and sees to it that a body which neither the template nor a
// query parameter covers is refused.
func (s *Scheme) cover(t *template, req *Request, in *input) *Error {
	if !t.has("params") {
		return nil
	}
	if p := s.URL.BodyParam; p != "" {
		if want := queryValue(req.URL, p); want != "" {
			sum := sha256.Sum256(req.Body)
			raw, err := hex.DecodeString(want)
			if err != nil || !hmac.Equal(raw, sum[:]) {
				return fault(Mismatch, "the query's "+p+" is not that of the body")
			}
			return nil
		}
	}
	if len(req.Body) == 0 {
		return nil
	}
	if !isForm(req) {
		return fault(Malformed, "the body is no form, and nothing else covers it")
	}
	params, err := formParams(req.Body)
	if err != nil {
		return fault(Malformed, err.Error())
	}
	in.params = params
	return nil
}

func isForm(req *Request) bool {
	v := req.header("Content-Type")
	if len(v) != 1 {
		return false
	}
	kind, _, _ := strings.Cut(v[0], ";")
	return strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded")
}

// queryValue returns the first value of a query parameter.
func queryValue(raw, name string) string {
	_, query, _ := strings.Cut(raw, "?")
	query, _, _ = strings.Cut(query, "#")
	values, err := url.ParseQuery(query)
	if err != nil {
		return ""
	}
	return values.Get(name)
}

// parsed returns the template. A scheme that Validate has not seen, or not since Signed was changed, is validated on the
// way: one that is not valid verifies nothing.
func (s *Scheme) parsed() (*template, error) {
	if s.template != nil && s.template.text == s.Signed {
		return s.template, nil
	}
	unseen := *s
	if err := unseen.Validate(); err != nil {
		return nil, err
	}
	return unseen.template, nil
}
