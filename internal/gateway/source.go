package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/signature"
)

// Source is somebody who sends webhooks, as a file of the folder describes it.
type Source struct {
	// Name is the file's, without .yaml, unless the file says another one. It is the last part of the path that the
	// sender is given: /in/NAME.
	Name string
	// Scheme says how the sender signs. Nil only where the file says verify: none.
	Scheme *signature.Scheme
	// Keys are the secrets, the newest first. Tokens are what handshakes carry.
	Keys, Tokens []signature.Key
	// Secrets says where the secrets are, in the order of Keys: env:NAME or file:PATH. With [Folder].Lenient one that
	// cannot be read here has " (not set)" behind it, and no key.
	Secrets []string
	// PublicURL is what the sender was given. Needed where the scheme signs the URL.
	PublicURL string
	// Topic gets what came in, as it came.
	Topic string
	// Key finds the record's key, Type the sender's name for what happened. The zero Pick finds nothing.
	Key, Type Pick
	// MaxBody is the largest body in bytes.
	MaxBody int64
	// MaxRequests is how many requests may be under way at once.
	MaxRequests int
	// Rate is how many requests there may be in a second, and how many at once after a pause of one. 0 is any number.
	Rate float64
	// Gzip allows compressed bodies.
	Gzip bool
	// Confirm lets the gateway fetch the URL that a handshake asks to be fetched (SNS).
	Confirm bool
	// Events are made of what came in, next to it.
	Events []*Mapped

	identity      *signature.Scheme // says how repeats are told
	headers       map[string]bool   // nil keeps all
	secretHeaders map[string]bool   // of schemes that send the secret itself
	signsURL      bool
	deadline      time.Duration // how long the sender waits
	file          string
	line          int
}

const (
	defaultMaxRequests = 1024
	holdMost           = 8 * time.Second  // how long a request is held, at most
	deadlineUnknown    = 10 * time.Second // of a sender that says nothing
)

// hold is how long a request may be held: the sender must hear our answer before it gives up.
func (s *Source) hold() time.Duration { return min(s.deadline*8/10, holdMost) }

// schemeName is what the envelope says.
func (s *Source) schemeName() string {
	if s.Scheme == nil {
		return "none"
	}
	return s.Scheme.Name
}

// url is the URL that the sender signed: never what the request says of its host.
func (s *Source) url(u *url.URL) string {
	base := s.PublicURL
	if base == "" {
		base = "https://" + s.Name + ".invalid" + u.EscapedPath() // no scheme that signs it is loaded without one
	}
	if u.RawQuery != "" || u.ForceQuery {
		return base + "?" + u.RawQuery
	}
	return base
}

// Pick is where a value of a request is: one of the two.
type Pick struct {
	// Header is a header's name.
	Header string
	// JSON is a path into a JSON body, or a field of a form: data.object.id, items[0].sku.
	JSON string

	path []string
}

// newPick checks a Pick.
func newPick(header, path string) (Pick, error) {
	p := Pick{Header: textproto.CanonicalMIMEHeaderKey(header), JSON: path}
	if path == "" {
		return p, nil
	}
	for part := range strings.SplitSeq(path, ".") {
		name, rest, _ := strings.Cut(part, "[")
		if name != "" {
			p.path = append(p.path, name)
		} else if rest == "" || len(p.path) > 0 {
			return Pick{}, fmt.Errorf("%q is no path: write data.object.id or items[0].sku", path)
		}
		for rest != "" {
			index, more, ok := strings.Cut(rest, "]")
			if _, err := strconv.ParseUint(index, 10, 31); err != nil || !ok {
				return Pick{}, fmt.Errorf("%q is no path: an index is a number in brackets", path)
			}
			p.path = append(p.path, "["+index)
			rest = strings.TrimPrefix(more, "[")
			if rest == more && more != "" {
				return Pick{}, fmt.Errorf("%q is no path: a name stands behind a dot", path)
			}
		}
	}
	return p, nil
}

// find returns the value, "" where there is none: a request is never refused for it.
func (p Pick) find(h http.Header, body []byte) string {
	if p.Header != "" {
		return h.Get(p.Header)
	}
	if p.JSON == "" {
		return ""
	}
	if isForm(h) {
		values, err := url.ParseQuery(string(body))
		if err != nil {
			return ""
		}
		return values.Get(p.JSON)
	}
	at := json.RawMessage(body)
	for _, step := range p.path {
		if at = child(at, step); at == nil {
			return ""
		}
	}
	return scalar(at)
}

// child is a member of an object, or with a bracket an element of an array.
func child(at json.RawMessage, step string) json.RawMessage {
	if index, ok := strings.CutPrefix(step, "["); ok {
		var list []json.RawMessage
		i, err := strconv.Atoi(index)
		if err != nil || json.Unmarshal(at, &list) != nil || i >= len(list) {
			return nil
		}
		return list[i]
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(at, &object) != nil {
		return nil
	}
	return object[step]
}

// scalar is a text, a number or a truth as text; anything else is nothing.
func scalar(at json.RawMessage) string {
	at = bytes.TrimSpace(at)
	if len(at) == 0 || at[0] == '{' || at[0] == '[' || at[0] == 'n' {
		return ""
	}
	if at[0] != '"' {
		return string(at)
	}
	var s string
	if json.Unmarshal(at, &s) != nil {
		return ""
	}
	return s
}

func isForm(h http.Header) bool {
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded")
}
