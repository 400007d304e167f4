package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"time"
)

// identityMost is the longest id in bytes that is kept as it is: that of an event's id.
const identityMost = 255

// The windows of schemes that say nothing.
const (
	defaultWindow     = 72 * time.Hour
	defaultBodyWindow = 5 * time.Minute
)

// Identity tells one event from another of the same source.
type Identity struct {
	// ID is the sender's id of the event, with the hook's id and a slash before it where the scheme has a Scope. Where
	// the request holds none it is empty. At most 255 bytes: what is longer is hashed.
	ID string
	// Body is the SHA-256 of the body in hex: where the scheme tells repeats by it ([Dedupe]), and wherever ID is empty;
	// otherwise empty. A request is a repeat if its ID or its Body was seen.
	Body string
	// Window and BodyWindow are how long each is remembered.
	Window, BodyWindow time.Duration
}

// Identify returns what tells a repeat of req. It reads the body, so call it after Verify.
func (s *Scheme) Identify(req *Request) Identity {
	d := &s.Dedupe
	id := Identity{ID: s.find(req), Window: time.Duration(d.Window), BodyWindow: time.Duration(d.BodyWindow)}
	if id.Window == 0 {
		id.Window = defaultWindow
	}
	if id.BodyWindow == 0 {
		id.BodyWindow = defaultBodyWindow
	}
	if id.ID != "" && d.Scope != "" {
		if scope, err := req.one(d.Scope); err == nil {
			id.ID = scope + "/" + id.ID
		}
	}
	if len(id.ID) > identityMost {
		sum := sha256.Sum256([]byte(id.ID))
		id.ID = hex.EncodeToString(sum[:])
	}
	if d.Body || id.ID == "" {
		sum := sha256.Sum256(req.Body)
		id.Body = hex.EncodeToString(sum[:])
	}
	return id
}

// find returns the sender's id, or nothing. Where the signature covers an id, that is the one: another family's header
// beside it is whatever a replayer wrote there.
func (s *Scheme) find(req *Request) string {
	d, family := &s.Dedupe, s.family(req)
	for _, name := range d.Headers {
		if i := slices.Index(s.ID, name); i >= 0 && family >= 0 && i != min(family, len(s.ID)-1) {
			continue
		}
		if v, err := req.one(name); err == nil {
			return v
		}
	}
	if d.Form != "" && isForm(req) {
		if values, err := url.ParseQuery(string(req.Body)); err == nil {
			return values.Get(d.Form)
		}
	}
	var ids []string
	for _, path := range d.JSON {
		values, complete := lookupJSON(req.Body, path)
		if !complete {
			return "" // half an id would call two events one
		}
		ids = append(ids, values...)
	}
	return strings.Join(ids, ",")
}
