package signature

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// Sign returns req signed at now, with id where the scheme has one. Its headers replace those of the same name. Where the
// format takes several signatures all keys that hold sign, in their order; otherwise the first alone. What the scheme
// changes besides headers is in the returned request too: Twilio's bodySHA256 in the URL, Adyen's signatures in the body.
//
// It fails for an id that the template could not tell from what follows it, for a key that can only verify, and for
// schemes whose secret stands in the body (ms-graph) or whose key nobody else has (paypal, sns).
func (s *Scheme) Sign(req *Request, keys []Key, id string, now time.Time) (*Request, error) {
	signed, err := s.sign(req, keys, id, now)
	if err != nil {
		return nil, fmt.Errorf("sign for %s: %w", s.Name, err)
	}
	return signed, nil
}

func (s *Scheme) sign(req *Request, keys []Key, id string, now time.Time) (*Request, error) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k Key) bool { return !k.holds(now) })
	switch {
	case len(keys) == 0:
		return nil, errors.New("there is no key that holds now")
	case s.code == codePayPal || s.code == codeSNS:
		return nil, errors.New("only the sender has the key of its certificate")
	case s.Signature.JSON != "" && s.code != codeAdyen:
		return nil, errors.New("it sends the secret in the body: write it to " + s.Signature.JSON)
	}
	out := *req
	out.Header = maps.Clone(req.Header)
	if out.Header == nil {
		out.Header = map[string][]string{}
	}
	if s.code == codeAdyen {
		var err error
		out.Body, err = s.signAdyen(req.Body, keys[0])
		return &out, err
	}
	t, err := s.parsed()
	if err != nil {
		return nil, err
	}
	if err := checkID(t, id); err != nil {
		return nil, err
	}
	s.coverBody(t, &out)
	in := input{body: out.Body, ts: s.Clock.Unit.format(now), id: id, method: out.Method, url: out.URL}
	if fail := s.cover(t, &out, &in); fail != nil {
		return nil, errors.New(fail.Detail)
	}
	value, err := s.value(t, &in, keys)
	if err != nil {
		return nil, err
	}
	out.set(s.Signature.Headers[0], value)
	if len(s.Clock.Headers) > 0 {
		out.set(s.Clock.Headers[0], in.ts)
	}
	if len(s.ID) > 0 {
		out.set(s.ID[0], id)
	}
	return &out, nil
}

// value is the text of the signature's header.
func (s *Scheme) value(t *template, in *input, keys []Key) (string, error) {
	c := &s.Signature
	if c.Format != Pairs && c.Format != List {
		keys = keys[:1]
	}
	var items []string
	if s.Clock.Param != "" {
		items = append(items, s.Clock.Param+"="+in.ts)
	}
	for _, k := range keys {
		a, err := s.signerOf(k)
		if err != nil {
			return "", err
		}
		sig, err := s.make(t, in, a, k)
		if err != nil {
			return "", err
		}
		join := map[Format]string{Pairs: "=", List: ","}[c.Format]
		items = append(items, a.Label+join+sig)
	}
	return strings.Join(items, c.separator()), nil
}

// signerOf is the first kind of signature that the key can make.
func (s *Scheme) signerOf(k Key) (Accept, error) {
	for _, a := range s.Signature.Accept {
		if k.can(a.Algorithm) && (!a.Algorithm.public() || k.material().signer != nil) {
			return a, nil
		}
	}
	return Accept{}, errors.New("the key can only verify: sign with the private one")
}

// make makes one signature and writes it in the scheme's encoding.
func (s *Scheme) make(t *template, in *input, a Accept, k Key) (string, error) {
	if a.Algorithm == Equal {
		return s.Signature.Encoding.encode(k.material().secret), nil
	}
	if !a.Algorithm.public() {
		m := k.mac(a.Algorithm)
		defer k.release(a.Algorithm, m)
		t.write(m, in, k.material().secret)
		return s.Signature.Encoding.encode(m.Sum(nil)), nil
	}
	message, how := t.bytes(in, k.material().secret), crypto.Hash(0)
	switch a.Algorithm {
	case ECDSAP256, RSASHA256:
		sum := sha256.Sum256(message)
		message, how = sum[:], crypto.SHA256
	case RSASHA1:
		return "", errors.New("rsa-sha1 is only verified")
	default:
	}
	raw, err := k.material().signer.Sign(rand.Reader, message, how)
	if err != nil {
		return "", err
	}
	return s.Signature.Encoding.encode(raw), nil
}

// checkID refuses an id that a receiver could not tell from what follows it in the signed text: with the template
// {id}.{ts} the id "a.1" at 2 signs the same bytes as the id "a" at "1.2".
func checkID(t *template, id string) error {
	if !t.has("id") {
		return nil
	}
	if id == "" || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("the id is empty or holds control characters")
	}
	for i, p := range t.parts {
		if p.name == "id" && i+1 < len(t.parts) && t.parts[i+1].literal != "" && strings.Contains(id, t.parts[i+1].literal) {
			return fmt.Errorf("the id holds %q, which ends it in the signed text", t.parts[i+1].literal)
		}
	}
	return nil
}

// coverBody adds the body's hash to the URL where a body is no form.
func (s *Scheme) coverBody(t *template, req *Request) {
	p := s.URL.BodyParam
	if p == "" || !t.has("params") || len(req.Body) == 0 || isForm(req) || queryValue(req.URL, p) != "" {
		return
	}
	sum := sha256.Sum256(req.Body)
	join := "?"
	if strings.Contains(req.URL, "?") {
		join = "&"
	}
	req.URL += join + p + "=" + hex.EncodeToString(sum[:])
}

// set replaces a header in every spelling.
func (r *Request) set(name, value string) {
	maps.DeleteFunc(r.Header, func(k string, _ []string) bool { return strings.EqualFold(k, name) })
	r.Header[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
}
