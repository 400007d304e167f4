package signature

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// triesMost bounds the verifications of one Explain.
const triesMost = 400

// Finding is something that explains why a request did not verify.
type Finding struct {
	// Reason is the reason of Verify that it explains.
	Reason Reason `json:"reason"`
	// Code is a short name of the finding, as in "body-reserialised".
	Code string `json:"code"`
	// Text says what was found and what to do. It holds no key and nothing of the body.
	Text string `json:"text"`
	// Proved says that the request verifies when what was found is undone; otherwise it is a guess.
	Proved bool `json:"proved"`
}

// Explain says why req does not verify and what the sender, or something on the way, probably did. Proved findings come
// first. It returns nothing for a request that verifies. It tries at most a few hundred signatures: it is for a person's
// question, not for every request.
func (s *Scheme) Explain(req *Request, keys []Key, now time.Time) []Finding {
	_, fail := s.verify(req, keys, now)
	if fail == nil {
		return nil
	}
	if _, err := s.parsed(); err != nil {
		return []Finding{{Reason: fail.Reason, Code: "scheme", Text: err.Error(), Proved: true}}
	}
	p := &probe{s: s, req: req, keys: keys, now: now, left: triesMost, reason: fail.Reason}
	switch fail.Reason {
	case Missing, Malformed:
		p.guess(string(fail.Reason), fail.Detail)
		if fail.Reason == Malformed {
			p.otherTexts()
		}
		p.otherSchemes()
		p.headers()
	case Stale, Future:
		p.clock(fail)
	default:
		p.mismatch(fail)
	}
	slices.SortStableFunc(p.found, func(a, b Finding) int { return rank(a) - rank(b) })
	return p.found
}

// rank puts what is proved first.
func rank(f Finding) int {
	if f.Proved {
		return 0
	}
	return 1
}

// probe tries what could have happened to a request.
type probe struct {
	s      *Scheme
	req    *Request
	keys   []Key
	now    time.Time
	left   int
	reason Reason
	found  []Finding
}

func (p *probe) guess(code, text string) {
	p.found = append(p.found, Finding{Reason: p.reason, Code: code, Text: text})
}

func (p *probe) proved(code, text string) {
	p.found = append(p.found, Finding{Reason: p.reason, Code: code, Text: text, Proved: true})
}

// verifies reports whether a changed request does, as long as there are tries left.
func (p *probe) verifies(s *Scheme, req *Request, keys []Key) bool {
	if p.left == 0 {
		return false
	}
	p.left--
	_, fail := s.verify(req, keys, p.now)
	return fail == nil
}

func (p *probe) withBody(body []byte) *Request {
	changed := *p.req
	changed.Body = body
	return &changed
}

func (p *probe) withURL(url string) *Request {
	changed := *p.req
	changed.URL = url
	return &changed
}

// clock looks at a time outside the window: whether the rest is right, and whether the unit is.
func (p *probe) clock(fail *Error) {
	text, at, ok := p.signedTime()
	if !ok {
		p.guess("clock", fail.Detail)
		return
	}
	for _, u := range []Unit{Seconds, Milliseconds} {
		other, ok := u.parse(text)
		if u != p.s.Clock.Unit && ok && other.Sub(p.now).Abs() <= 24*time.Hour {
			p.guess("clock-unit", fmt.Sprintf("the time is written in %s, the scheme's is %s: set clock.unit, or have the sender change", unitName(u), unitName(p.s.Clock.Unit)))
		}
	}
	p.now = at
	if p.verifies(p.s, p.req, p.keys) {
		p.proved("clock", fail.Detail+"; the signature itself is right. "+p.clockAdvice(fail.Reason))
		return
	}
	p.guess("clock", fail.Detail+", and the signature is wrong too")
	p.mismatch(&Error{Reason: Mismatch})
}

func (p *probe) clockAdvice(r Reason) string {
	if r == Future {
		return "One of the two clocks is wrong: compare both with NTP"
	}
	return "It was sent again with its old headers, or it waited on the way, or one of the two clocks is wrong"
}

func unitName(u Unit) string {
	return map[Unit]string{Seconds: "seconds", Milliseconds: "milliseconds", RFC3339: "RFC 3339"}[u]
}

// signedTime is the time that the request carries.
func (p *probe) signedTime() (text string, at time.Time, ok bool) {
	if p.s.code == codeSNS {
		text = Field{JSON: "Timestamp"}.of(p.req)
	} else if _, ts, _, fail := p.s.read(p.req, nil); fail == nil {
		text = ts
	}
	at, ok = p.s.Clock.Unit.parse(text)
	return text, at, ok
}

func (p *probe) mismatch(fail *Error) {
	if len(p.keys) == 0 {
		p.guess("no-key", "there is no key")
		return
	}
	if strings.Contains(fail.Detail, "no longer holds") {
		p.proved("key-expired", "a key made the signature that no longer holds: the sender still signs with the old one")
		return
	}
	if p.s.code == codePayPal || p.s.code == codeSNS {
		p.guess("mismatch", fail.Detail)
	}
	p.bodies()
	p.spelledKeys()
	p.urls()
	p.otherSchemes()
	p.otherTexts()
	if slices.ContainsFunc(p.found, func(f Finding) bool { return f.Proved }) {
		return
	}
	p.lengths()
	if !p.jsonOnWire() {
		p.guess("content-type", "Content-Type says JSON and the body is none: a parser or a proxy has changed it on the way")
	}
	p.guess("unknown", "no key made this signature, and no usual change of the body explains it: probably it is the key of another endpoint, "+
		"of the test mode or of the live mode; or the body was changed on the way")
}

// lengths looks for what headers say of the body's bytes.
func (p *probe) lengths() {
	if v := p.req.header("Content-Length"); len(v) == 1 && v[0] != strconv.Itoa(len(p.req.Body)) {
		p.guess("body-length", fmt.Sprintf("the body has %d bytes, and Content-Length says otherwise: it was cut, changed or decompressed on the way", len(p.req.Body)))
	}
	if v := p.req.header("Content-Encoding"); len(v) > 0 {
		p.guess("content-encoding", "the body is compressed: verify its bytes before they are decompressed, and see that no proxy does it")
	}
}

// jsonOnWire is false where a body that is announced as JSON is none.
func (p *probe) jsonOnWire() bool {
	kind := p.req.header("Content-Type")
	if len(kind) == 0 || !strings.Contains(kind[0], "json") || len(p.req.Body) == 0 {
		return true
	}
	first := strings.TrimSpace(string(p.req.Body[:min(64, len(p.req.Body))]))
	return strings.HasPrefix(first, "{") || strings.HasPrefix(first, "[") || strings.HasPrefix(first, `"`)
}

// bodies tries what happens to bodies on their way.
func (p *probe) bodies() {
	for _, v := range bodyVariants(p.req.Body) {
		if p.verifies(p.s, p.withBody(v.body), p.keys) {
			p.proved(v.code, v.text)
			return
		}
	}
}

// spelledKeys tries the key's text in other readings.
func (p *probe) spelledKeys() {
	for _, k := range p.keys[:min(len(p.keys), 8)] {
		for _, v := range keyVariants(k) {
			if p.verifies(p.s, p.req, []Key{v.key}) {
				p.proved(v.code, v.text)
				return
			}
		}
	}
}

type keyVariant struct {
	key        Key
	code, text string
}

// keyVariants reads a key's text in the ways in which it is read by mistake.
func keyVariants(k Key) []keyVariant {
	if k.IsZero() || k.material().public != nil || k.material().text == "" {
		return nil
	}
	var out []keyVariant
	add := func(secret []byte, code, text string) {
		if len(secret) > 0 && string(secret) != string(k.material().secret) {
			out = append(out, keyVariant{newKey(&material{secret: secret}), code, text})
		}
	}
	text := k.material().text
	trimmed := strings.TrimSpace(text)
	bare := trimmed
	for _, prefix := range []string{"whsec_", "v1,whsec_"} {
		bare = strings.TrimPrefix(bare, prefix)
	}
	add([]byte(trimmed), "key-whitespace", "the key has white space around it, often the line's end of a file: remove it")
	add([]byte(text+"\n"), "key-whitespace", "the sender's key ends in a line break: it was read from a file")
	add([]byte(text), "key-as-text", "the sender uses the key's text as it is, where the scheme decodes it first")
	add([]byte(bare), "key-prefix", "the sender uses the key without its whsec_")
	add([]byte("whsec_"+bare), "key-prefix", "the sender uses the key with a whsec_ before it")
	if raw, err := looseBase64(bare); err == nil {
		add(raw, "key-base64", "the sender decodes the key as base64, where the scheme takes its text")
	}
	if raw, err := hex.DecodeString(bare); err == nil {
		add(raw, "key-hex", "the sender decodes the key as hex, where the scheme takes its text")
	}
	add([]byte(base64.StdEncoding.EncodeToString(k.material().secret)), "key-encoded", "the sender uses the base64 of the key")
	add([]byte(hex.EncodeToString(k.material().secret)), "key-encoded", "the sender uses the hex of the key in lower case")
	add([]byte(strings.ToUpper(hex.EncodeToString(k.material().secret))), "key-encoded", "the sender uses the hex of the key in upper case")
	return out
}

// urls tries the spellings of the public URL, for the schemes that sign it.
func (p *probe) urls() {
	t, err := p.s.parsed()
	if err != nil || !t.has("url", "urldecoded") {
		return
	}
	for _, v := range urlVariants(p.req.URL) {
		if p.verifies(p.s, p.withURL(v.url), p.keys) {
			p.proved(v.code, v.text+": set the public URL to what the sender was given")
			return
		}
	}
	p.guess("url", "the scheme signs the URL: the public URL must be, letter by letter, the one that the sender was given")
}

type urlVariant struct{ url, code, text string }

func urlVariants(raw string) []urlVariant {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return nil
	}
	var out []urlVariant
	add := func(u, code, text string) { out = append(out, urlVariant{u, code, text}) }
	switched := map[string]string{"https": "http", "http": "https"}[scheme]
	add(switched+"://"+rest, "url-scheme", "the sender signs "+switched+", not "+scheme)
	path, query, hasQuery := strings.Cut(raw, "?")
	tail := ""
	if hasQuery {
		tail = "?" + query
		add(path, "url-query", "the sender signs the URL without its query")
	}
	if cut, ok := strings.CutSuffix(path, "/"); ok {
		add(cut+tail, "url-slash", "the sender signs the URL without the slash at its end")
	} else {
		add(path+"/"+tail, "url-slash", "the sender signs the URL with a slash at its end")
	}
	for _, v := range append(portVariants(raw)[1:], portVariants(switched + "://" + rest)[1:]...) {
		add(v, "url-port", "the sender signs another port")
	}
	host, local, _ := strings.Cut(rest, "/")
	add("/"+local, "url-path", "the sender signs the path alone")
	if cut, ok := strings.CutPrefix(host, "www."); ok {
		add(scheme+"://"+cut+"/"+local, "url-host", "the sender signs the host without www.")
	} else {
		add(scheme+"://www."+host+"/"+local, "url-host", "the sender signs the host with www.")
	}
	if lower := strings.ToLower(host); lower != host {
		add(scheme+"://"+lower+"/"+local, "url-host", "the sender signs the host in lower case")
	}
	return out
}

// otherSchemes tries the known schemes whose headers the request has.
func (p *probe) otherSchemes() {
	for _, other := range senders() {
		if other.Name == p.s.Name || other.code != codeNone && other.code != codeAdyen || other.Validate() != nil {
			continue
		}
		there := other.code == codeAdyen
		for _, name := range other.Signature.Headers {
			there = there || len(p.req.header(name)) > 0
		}
		if !there {
			continue
		}
		var keys []Key
		for _, k := range p.keys {
			if k.IsZero() {
				continue
			}
			if parsed, err := other.ParseKey(k.material().text); err == nil {
				keys = append(keys, parsed)
			}
		}
		if p.verifies(&other, p.req, keys) {
			p.proved("other-scheme", "the request verifies as "+other.Name+": use that scheme")
			return
		}
		if p.reason == Missing && p.s.Signature.Format != List && other.code != codeAdyen {
			p.guess("other-scheme", "the request has the header of "+other.Name+": is it from another sender?")
			return
		}
	}
}

// headers looks at what the signature's header holds in place of what is wanted.
func (p *probe) headers() {
	for _, name := range p.s.Signature.Headers {
		values := p.req.header(name)
		if len(values) != 1 {
			continue
		}
		value := values[0]
		switch {
		case p.s.Signature.Format == Pairs && strings.Contains(value, "v0=") && !strings.Contains(value, "v1="):
			p.guess("version", "the signature is of version v0, which tests alone use: send a real event")
		case strings.HasPrefix(value, "sha1="):
			p.guess("version", "the signature is of version sha1: the sender must sign with SHA-256, or use the scheme github-sha1")
		case strings.ContainsAny(value, "\"'"):
			p.guess("quoted", "the header has quotation marks in it: the sender wrote the text of a string with its quotes")
		}
	}
}

// otherTexts tries other signed texts and encodings: what the author of a new scheme gets wrong first.
func (p *probe) otherTexts() {
	if p.s.code != codeNone || p.s.Signature.Accept[0].Algorithm == Equal {
		return
	}
	for _, text := range []string{
		"{body}", "{ts}.{body}", "{ts}{body}", "{ts}:{body}", "{ts},{body}", "{id}.{ts}.{body}", "{body}{ts}", "{body}.{ts}", "{url}{body}",
	} {
		other := *p.s
		other.Signed = text
		other.template, _ = parseTemplate(text, placeholders()) // they all are templates
		if text != p.s.Signed && p.verifies(&other, p.req, p.keys) {
			p.proved("signed-text", "the sender signs "+text+", the scheme says "+p.s.Signed)
			return
		}
	}
	for _, a := range []Algorithm{HMACSHA1, HMACSHA256, HMACSHA512} {
		for _, e := range []Encoding{Hex, Base64} {
			other := *p.s
			other.Signature.Encoding = e
			other.Signature.Accept = []Accept{{p.s.Signature.Accept[0].Label, a}}
			if p.verifies(&other, p.req, p.keys) {
				p.proved("algorithm", "the sender signs with "+string(a)+" in "+string(e)+": the scheme says otherwise")
				return
			}
		}
	}
}
