package signature

import (
	"encoding/base64"
	"encoding/hex"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	candidatesMost = 32 // signatures, or other items, in one header
	publicMost     = 8  // of them for public-key algorithms: each costs as much as a hundred HMACs
	signatureMost  = 1024
	timeDigits     = 15
)

// candidate is a signature as it was sent.
type candidate struct {
	accept Accept
	text   string
}

func fault(reason Reason, detail string) *Error { return &Error{Reason: reason, Detail: detail} }

// header returns the values of a header. The names of net/http's maps are canonical; other maps are searched.
func (r *Request) header(name string) []string {
	if v, ok := r.Header[name]; ok {
		return v
	}
	if v, ok := r.Header[textproto.CanonicalMIMEHeaderKey(name)]; ok {
		return v
	}
	var values []string
	for k, v := range r.Header {
		if strings.EqualFold(k, name) {
			values = append(values, v...)
		}
	}
	return values
}

// one returns the only value of a header.
func (r *Request) one(name string) (string, *Error) {
	switch v := r.header(name); {
	case len(v) > 1:
		return "", fault(Malformed, "header "+name+" stands there more than once")
	case len(v) == 0 || v[0] == "":
		return "", fault(Missing, "there is no header "+name)
	default:
		return v[0], nil
	}
}

// read takes signatures, time and id from the headers, or the signatures from the body. They are results of their own,
// because one struct of them would move room to the heap.
func (s *Scheme) read(req *Request, room []candidate) (found []candidate, ts, id string, err *Error) {
	if s.Signature.JSON != "" {
		found, err = s.readBody(req, room)
		return found, "", "", err
	}
	family := max(0, s.family(req))
	name := s.Signature.Headers[family]
	value, err := req.one(name)
	if err != nil {
		return nil, "", "", err
	}
	if found, ts, err = s.split(name, value, room); err != nil {
		return nil, "", "", err
	}
	if len(s.ID) > 0 {
		if id, err = req.one(s.ID[min(family, len(s.ID)-1)]); err != nil {
			return nil, "", "", err
		}
	}
	if len(s.Clock.Headers) > 0 {
		if ts, err = req.one(s.Clock.Headers[min(family, len(s.Clock.Headers)-1)]); err != nil {
			return nil, "", "", err
		}
	}
	return found, ts, id, nil
}

// family is the index of the first signature header that is there: the headers of time and id belong to it. -1 is none.
func (s *Scheme) family(req *Request) int {
	return slices.IndexFunc(s.Signature.Headers, func(name string) bool { return len(req.header(name)) > 0 })
}

func (s *Scheme) readBody(req *Request, room []candidate) ([]candidate, *Error) {
	values, complete := lookupJSON(req.Body, s.Signature.JSON)
	if !complete || len(values) == 0 {
		return nil, fault(Missing, "the body has no "+s.Signature.JSON)
	}
	for _, v := range values {
		room = append(room, candidate{s.Signature.Accept[0], v})
	}
	return room, nil
}

// split takes a signature header apart, and the time in it where it stands there.
func (s *Scheme) split(name, value string, room []candidate) (found []candidate, ts string, err *Error) {
	c := &s.Signature
	switch c.Format {
	case Pairs:
		return s.splitPairs(name, value, room)
	case List:
		found, err = c.splitList(name, value, room)
		return found, "", err
	default:
		for _, a := range c.Accept {
			if text, ok := cutLabel(value, a); ok {
				if text == "" {
					return nil, "", fault(Missing, "header "+name+" holds no signature")
				}
				return append(room, candidate{a, text}), "", nil
			}
		}
		return nil, "", fault(Malformed, "header "+name+" does not begin with "+strconv.Quote(c.Accept[0].Label))
	}
}

// cutLabel cuts a plain value's prefix. The names of HTTP's own login schemes ("Basic ") have no case.
func cutLabel(value string, a Accept) (string, bool) {
	n := len(a.Label)
	if a.Algorithm == Equal && len(value) >= n && strings.EqualFold(value[:n], a.Label) {
		return value[n:], true
	}
	return strings.CutPrefix(value, a.Label)
}

// splitPairs reads name=value, name=value. Every pair has both, or the header is malformed; the time stands there once.
func (s *Scheme) splitPairs(name, value string, room []candidate) (found []candidate, ts string, err *Error) {
	separator, found, items := s.Signature.separator(), room, 0
	for rest, more := value, true; more; items++ {
		var item string
		item, rest, more = strings.Cut(rest, separator)
		k, v, ok := strings.Cut(item, "=")
		switch {
		case items == candidatesMost:
			return nil, "", fault(Malformed, "header "+name+" holds more than "+strconv.Itoa(candidatesMost)+" pairs")
		case !ok || k == "" || v == "":
			return nil, "", fault(Malformed, "header "+name+" holds something that is no name=value")
		case k == s.Clock.Param && ts != "":
			return nil, "", fault(Malformed, "header "+name+" holds "+k+" more than once")
		case k == s.Clock.Param:
			ts = v
			continue
		}
		for _, a := range s.Signature.Accept {
			if k == a.Label {
				found = append(found, candidate{a, v})
			}
		}
	}
	if s.Clock.Param != "" && ts == "" {
		return nil, "", fault(Missing, "header "+name+" holds no "+s.Clock.Param)
	}
	if len(found) == 0 {
		return nil, "", fault(Missing, "header "+name+" holds no "+s.Signature.Accept[0].Label)
	}
	return found, ts, nil
}

// splitList reads version,signature version,signature. Versions that the scheme does not know are skipped.
func (c *Carrier) splitList(name, value string, room []candidate) ([]candidate, *Error) {
	separator, found, items := c.separator(), room, 0
	for rest, more := value, true; more; items++ {
		if items == candidatesMost {
			return nil, fault(Malformed, "header "+name+" holds more than "+strconv.Itoa(candidatesMost)+" signatures")
		}
		var item string
		item, rest, more = strings.Cut(rest, separator)
		version, text, ok := strings.Cut(item, ",")
		for _, a := range c.Accept {
			if ok && version == a.Label && text != "" {
				found = append(found, candidate{a, text})
			}
		}
	}
	if len(found) == 0 {
		return nil, fault(Missing, "header "+name+" holds no "+c.Accept[0].Label)
	}
	return found, nil
}

func (c *Carrier) separator() string {
	switch {
	case c.Separator != "":
		return c.Separator
	case c.Format == List:
		return " "
	default:
		return ","
	}
}

// decode reads a signature's text into dst. Base64 is taken only as an encoder writes it: padded, no stray bits, no line
// breaks, so that one signature has one spelling.
func (e Encoding) decode(dst []byte, text string) ([]byte, bool) {
	if len(text) > signatureMost {
		return nil, false
	}
	var err error
	switch e {
	case Hex:
		dst, err = hex.AppendDecode(dst, []byte(text))
	case Base64:
		if strings.ContainsAny(text, "\r\n") {
			return nil, false
		}
		dst, err = base64.StdEncoding.Strict().AppendDecode(dst, []byte(text))
	default:
		dst = append(dst, text...)
	}
	return dst, err == nil
}

// encode writes a signature.
func (e Encoding) encode(raw []byte) string {
	switch e {
	case Hex:
		return hex.EncodeToString(raw)
	case Base64:
		return base64.StdEncoding.EncodeToString(raw)
	default:
		return string(raw)
	}
}

// parse reads a time strictly: digits alone, or RFC 3339.
func (u Unit) parse(text string) (time.Time, bool) {
	if u == RFC3339 {
		at, err := time.Parse(time.RFC3339, text)
		return at, err == nil && len(text) <= 40
	}
	if text == "" || len(text) > timeDigits || strings.Trim(text, "0123456789") != "" {
		return time.Time{}, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	if u == Milliseconds {
		return time.UnixMilli(n), true
	}
	return time.Unix(n, 0), true
}

// format writes a time.
func (u Unit) format(at time.Time) string {
	switch u {
	case RFC3339:
		return at.UTC().Format("2006-01-02T15:04:05.999Z")
	case Milliseconds:
		return strconv.FormatInt(at.UnixMilli(), 10)
	default:
		return strconv.FormatInt(at.Unix(), 10)
	}
}

// check reads the time and holds it against the window. Both of its ends belong to it: whole seconds are compared where
// whole seconds were sent.
func (c *Clock) check(text string, now time.Time) (time.Time, *Error) {
	at, ok := c.Unit.parse(text)
	if !ok {
		return at, fault(Malformed, "the time is not written as "+map[Unit]string{
			Seconds: "digits", Milliseconds: "digits", RFC3339: "RFC 3339",
		}[c.Unit])
	}
	if c.Unit == Seconds {
		now = now.Truncate(time.Second)
	}
	switch age := now.Sub(at); {
	case age > time.Duration(c.Past):
		return at, fault(Stale, "the time is "+age.Round(time.Second).String()+" ago, "+c.Past.String()+" are allowed")
	case age < -time.Duration(c.Future): // -age would overflow for a time in the year 55000, which is Sub's least duration
		return at, fault(Future, "the time is "+age.Abs().Round(time.Second).String()+" ahead, "+c.Future.String()+" are allowed")
	}
	return at, nil
}

// used reports whether there is a clock at all.
func (c *Clock) used() bool { return c.Param != "" || len(c.Headers) > 0 }
