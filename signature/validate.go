package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	schemeName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")
	pathForm   = regexp.MustCompile(`^(\[\]|[^.\[\]]+(\[\])?)(\.[^.\[\]]+(\[\])?)*$`)
)

// ParseScheme reads a scheme from JSON and validates it. Fields that a scheme does not have are errors.
func ParseScheme(data []byte) (*Scheme, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	s := &Scheme{}
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("read the scheme: %w", err)
	}
	if d.More() {
		return nil, errors.New("read the scheme: something follows it")
	}
	return s, s.Validate()
}

// Validate checks the scheme and returns every fault of it, joined. Call it before use, and after a change.
func (s *Scheme) Validate() error {
	if s.Signature.Format == "" {
		s.Signature.Format = Plain
	}
	v := &validator{}
	v.want(schemeName.MatchString(s.Name), "name %q: lower-case letters, digits and dashes", s.Name)
	v.signature(&s.Signature, s.code)
	v.clock(s)
	for _, name := range slices.Concat(s.ID, s.Dedupe.Headers) {
		v.header(name)
	}
	v.distinct(slices.Concat(s.Signature.Headers, s.Clock.Headers, s.ID))
	v.want(s.URL.BodyParam == "" || schemeName.MatchString(strings.ToLower(s.URL.BodyParam)), "url: %q is no parameter's name", s.URL.BodyParam)
	if s.Dedupe.Scope != "" {
		v.header(s.Dedupe.Scope)
	}
	for _, p := range s.Dedupe.JSON {
		v.want(pathForm.MatchString(p), "dedupe: %q is no path like data.id or items[].id", p)
	}
	v.want(slices.Contains([]KeyForm{KeyUTF8, KeyBase64, KeyHex, KeyPEM, KeyWhsec}, s.Key), "key %q: utf8, base64, hex, pem or whsec", s.Key)
	v.want(min(s.Dedupe.Window, s.Dedupe.BodyWindow, s.Sender.Deadline, s.Sender.Retries.For) >= 0, "a duration is negative")
	s.template = v.signed(s)
	for i := range s.Handshakes {
		v.handshake(&s.Handshakes[i])
	}
	if err := errors.Join(v.faults...); err != nil {
		return fmt.Errorf("scheme %s: %w", s.Name, err)
	}
	return nil
}

type validator struct{ faults []error }

func (v *validator) want(ok bool, format string, args ...any) {
	if !ok {
		v.faults = append(v.faults, fmt.Errorf(format, args...))
	}
}

func (v *validator) header(name string) {
	v.want(headerName.MatchString(name), "%q is no header's name", name)
}

// distinct checks that signature, time and id stand in headers of their own.
func (v *validator) distinct(names []string) {
	seen := map[string]bool{}
	for _, name := range names {
		low := strings.ToLower(name)
		v.want(!seen[low], "the header %s is named for two things", name)
		seen[low] = true
	}
}

func (v *validator) signature(c *Carrier, by code) {
	v.want((len(c.Headers) > 0) != (c.JSON != ""), "signature: name headers, or a path into the body in json")
	for _, name := range c.Headers {
		v.header(name)
	}
	v.want(c.JSON == "" || pathForm.MatchString(c.JSON), "signature: %q is no path like data.id or items[].id", c.JSON)
	v.want(slices.Contains([]Format{Plain, Pairs, List}, c.Format), "signature format %q: plain, pairs or list", c.Format)
	v.want(slices.Contains([]Encoding{Hex, Base64, Text}, c.Encoding), "signature encoding %q: hex, base64 or text", c.Encoding)
	v.want(len(c.Accept) > 0 && len(c.Accept) <= 4, "signature: accept lists one to four signatures")
	v.want(c.JSON == "" || c.Format == Plain && (len(c.Accept) == 1 || by == codeSNS), "signature: in the body there is one kind, and it is plain")
	v.want(strings.Trim(c.Separator, ",;&| ") == "", "signature: the separator %q is not of , ; & | and spaces", c.Separator)
	labels := map[string]bool{}
	for _, a := range c.Accept {
		v.want(slices.Contains([]Algorithm{
			HMACSHA1, HMACSHA256, HMACSHA512, SHA256, Ed25519, ECDSAP256, RSASHA1, RSASHA256, Equal,
		}, a.Algorithm), "signature: there is no algorithm %q", a.Algorithm)
		v.want(!labels[a.Label], "signature: two signatures have the label %q", a.Label)
		labels[a.Label] = true
		v.want(c.Format == Plain || a.Label != "" && !strings.ContainsAny(a.Label, "=, "), "signature: %q is no label for %s", a.Label, c.Format)
		v.want((a.Algorithm == Equal) || c.Encoding != Text, "signature: the encoding text is for the algorithm equal")
		v.want(a.Algorithm != Equal || len(c.Accept) == 1 && c.Format == Plain, "signature: the algorithm equal stands alone, and plain")
	}
}

func (v *validator) clock(s *Scheme) {
	c := &s.Clock
	for _, name := range c.Headers {
		v.header(name)
	}
	if !c.used() {
		v.want(s.code == codeSNS || c.Unit == "" && c.Past == 0 && c.Future == 0, "clock: name the headers or the param that hold the time")
		return
	}
	v.want(len(c.Headers) == 0 || c.Param == "", "clock: the time stands in headers or in a param, not in both")
	v.want(c.Param == "" || s.Signature.Format == Pairs, "clock: a param is one of the pairs of the signature's header")
	v.want(c.Param == "" || !slices.ContainsFunc(s.Signature.Accept, func(a Accept) bool { return a.Label == c.Param }),
		"clock: the param %q is a signature's label", c.Param)
	v.want(slices.Contains([]Unit{Seconds, Milliseconds, RFC3339}, c.Unit), "clock unit %q: s, ms or rfc3339", c.Unit)
	v.want(c.Past > 0 && c.Future > 0, "clock: past and future are above 0")
}

// signed checks that the signed text says what it must: an algorithm that signs covers the body, and what it names is there.
func (v *validator) signed(s *Scheme) *template {
	t, err := parseTemplate(s.Signed, placeholders())
	if err != nil {
		v.faults = append(v.faults, fmt.Errorf("signed: %w", err))
		return nil
	}
	if len(s.Signature.Accept) == 0 || s.code == codeAdyen || s.code == codeSNS {
		return t
	}
	if s.Signature.Accept[0].Algorithm == Equal {
		v.want(len(t.parts) == 0, "signed: the algorithm equal signs nothing")
		return t
	}
	v.want(t.has("body", "bodysha256", "bodycrc32") || t.has("url") && t.has("params") && s.URL.BodyParam != "",
		"signed: nothing in it covers the body: add {body}")
	v.want(!t.has("ts") || s.Clock.used(), "signed: it holds {ts}, and the clock says not where that is")
	v.want(t.has("ts") || !s.Clock.used(), "signed: the time is not in it: anybody can change it, so it is no window")
	v.want(!t.has("id") || len(s.ID) > 0, "signed: it holds {id}, and id names no header")
	for _, a := range s.Signature.Accept {
		v.want(a.Algorithm != SHA256 || t.has("secret"), "signed: a bare sha256 proves nothing without {secret} in it")
	}
	return t
}

func (v *validator) handshake(h *Handshake) {
	v.want(h.Method == "GET" || h.Method == "POST", "handshake: method %q: GET or POST", h.Method)
	v.want(len(h.Match) > 0, "handshake: match says how it is told from an event")
	for _, c := range h.Match {
		v.field(Field{c.Query, c.Header, c.JSON}, true)
	}
	v.field(h.Token, false)
	v.field(h.Challenge, false)
	v.field(h.Fetch, false)
	v.want(h.Status == 0 || h.Status >= 200 && h.Status < 300, "handshake: status %d is no 2xx", h.Status)
	t, err := parseTemplate(h.Answer, answerNames())
	if err != nil {
		v.faults = append(v.faults, fmt.Errorf("handshake answer: %w", err))
		return
	}
	v.want(len(t.parts) == 0 || !t.has(answerNames()...) || h.Challenge != (Field{}), "handshake: the answer needs a challenge")
}

func (v *validator) field(f Field, needed bool) {
	n := 0
	for _, place := range []string{f.Query, f.Header, f.JSON} {
		if place != "" {
			n++
		}
	}
	v.want(n == 1 || n == 0 && !needed, "handshake: a place is one of query, header and json")
	v.want(f.JSON == "" || pathForm.MatchString(f.JSON), "handshake: %q is no path like data.id", f.JSON)
	if f.Header != "" {
		v.header(f.Header)
	}
}
