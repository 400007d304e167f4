package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

const (
	contentType = "application/vnd.schemaregistry.v1+json"
	// maxBody is room for a schema of a megabyte in which every third byte is escaped.
	maxBody    = 4 << 20
	maxSubject = 1 << 10
)

// accepted are the content types of requests; none at all is accepted too, for old clients.
var accepted = []string{contentType, "application/vnd.schemaregistry+json", "application/json", "application/octet-stream"}

// A handler gives the body of the answer, or an error for answerOf.
type handler func(req *http.Request) (any, error)

// rawText is a body that is JSON already.
type rawText string

func (r *Registry) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET /{$}":                                            func(*http.Request) (any, error) { return struct{}{}, nil },
		"GET /schemas/types":                                  func(*http.Request) (any, error) { return []string{typeAvro}, nil },
		"GET /contexts":                                       func(*http.Request) (any, error) { return []string{"."}, nil },
		"GET /schemas":                                        r.listSchemas,
		"GET /schemas/ids/{id}":                               r.schemaByID,
		"GET /schemas/ids/{id}/schema":                        r.textByID,
		"GET /schemas/ids/{id}/subjects":                      r.subjectsByID,
		"GET /schemas/ids/{id}/versions":                      r.versionsByID,
		"GET /subjects":                                       r.listSubjects,
		"POST /subjects/{subject}":                            r.lookUp,
		"DELETE /subjects/{subject}":                          r.removeSubject,
		"GET /subjects/{subject}/versions":                    r.listVersions,
		"POST /subjects/{subject}/versions":                   r.registerSchema,
		"GET /subjects/{subject}/versions/{v}":                r.getVersion,
		"DELETE /subjects/{subject}/versions/{v}":             r.removeVersion,
		"GET /subjects/{subject}/versions/{v}/schema":         r.versionText,
		"GET /subjects/{subject}/versions/{v}/referencedby":   r.referencedBy,
		"POST /compatibility/subjects/{subject}/versions":     r.checkAll,
		"POST /compatibility/subjects/{subject}/versions/{v}": r.checkOne,
		"GET /config":                                         r.globalLevel,
		"PUT /config":                                         r.putLevel,
		"DELETE /config":                                      r.removeLevel,
		"GET /config/{subject}":                               r.subjectLevel,
		"PUT /config/{subject}":                               r.putLevel,
		"DELETE /config/{subject}":                            r.removeLevel,
		"GET /mode":                                           r.globalMode,
		"GET /mode/{subject}":                                 r.subjectMode,
	} {
		mux.Handle(pattern, r.serve(h))
	}
	mux.Handle("/", r.serve(func(req *http.Request) (any, error) {
		return nil, &apiError{404, 404, fmt.Sprintf("HTTP 404 Not Found: %s %s", req.Method, clip(req.URL.Path))}
	}))
	return mux
}

// serve is the frame of every request: what it may be, what comes back.
func (r *Registry) serve(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := r.handle(h, w, req)
		status := http.StatusOK
		if err != nil {
			answer := answerOf(err)
			if answer.status >= 500 && !errors.Is(err, errNotReady) {
				r.cfg.Log.Error("request to the registry failed", zap.String("method", req.Method), zap.String("path", clip(req.URL.Path)), zap.Error(err))
			}
			if answer.status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "1")
			}
			status = answer.status
			body = struct {
				Code int    `json:"error_code"`
				Text string `json:"message"`
			}{answer.code, answer.text}
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		if raw, ok := body.(rawText); ok {
			_, err = io.WriteString(w, string(raw)) //nolint:gosec // JSON under a JSON content type, and nosniff
		} else {
			enc := json.NewEncoder(w)
			enc.SetEscapeHTML(false)
			err = enc.Encode(body)
		}
		if err != nil {
			r.cfg.Log.Debug("answer of the registry not sent", zap.Error(err))
		}
	})
}

func (r *Registry) handle(h handler, w http.ResponseWriter, req *http.Request) (any, error) {
	if !r.Ready() {
		return nil, errNotReady
	}
	if req.Method == http.MethodPost || req.Method == http.MethodPut {
		if t := req.Header.Get("Content-Type"); t != "" {
			media, _, err := mime.ParseMediaType(t)
			if err != nil || !slices.Contains(accepted, media) {
				return nil, &apiError{http.StatusUnsupportedMediaType, 415, "HTTP 415 Unsupported Media Type: send " + contentType}
			}
		}
		req.Body = http.MaxBytesReader(w, req.Body, maxBody)
	}
	if s := req.PathValue("subject"); len(s) > maxSubject {
		return nil, &apiError{422, codeInvalidSubject, fmt.Sprintf("The subject is longer than %d bytes", maxSubject)}
	}
	return h(req)
}

// writable is the subject of a request that writes.
func writable(req *http.Request) (string, error) {
	subject := req.PathValue("subject")
	if strings.HasPrefix(subject, ":.") || strings.HasPrefix(subject, ":*") || subject == "__GLOBAL" || subject == "__EMPTY" ||
		strings.ContainsFunc(subject, func(c rune) bool { return c < ' ' || c == 0x7F || c == '\uFFFD' }) {
		return "", &apiError{422, codeInvalidSubject, fmt.Sprintf("The specified subject '%s' is not a valid subject.", clip(subject))}
	}
	return subject, nil
}

func decode(req *http.Request, into any) error {
	body, err := io.ReadAll(req.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &apiError{http.StatusRequestEntityTooLarge, codeTooLarge, fmt.Sprintf("The request is larger than %d MiB", maxBody>>20)}
	case err != nil:
		return &apiError{http.StatusBadRequest, 400, "the request's body did not arrive"}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return &apiError{http.StatusUnprocessableEntity, 422, "the request's body is not the JSON that is expected: " + clip(err.Error())}
	}
	return nil
}

func (r *Registry) registerSchema(req *http.Request) (any, error) {
	subject, err := writable(req)
	if err != nil {
		return nil, err
	}
	var body schemaRequest
	if err := decode(req, &body); err != nil {
		return nil, err
	}
	if body.ID > 0 {
		return nil, &apiError{422, codeNotPermitted, fmt.Sprintf("Subject %s is not in import mode: the registry gives the ids", clip(subject))}
	}
	id, err := r.register(req.Context(), subject, body, flag(req, "normalize"))
	if err != nil {
		return nil, err
	}
	return struct {
		ID int32 `json:"id"`
	}{id}, nil
}

func (r *Registry) lookUp(req *http.Request) (any, error) {
	var body schemaRequest
	if err := decode(req, &body); err != nil {
		return nil, err
	}
	subject, deleted := req.PathValue("subject"), flag(req, "deleted")
	var there bool
	r.view(func(s *state) { there = len(s.versions(subject, deleted)) > 0 })
	if !there {
		return nil, subjectNotFound(subject)
	}
	c, _, err := r.prepare(body, flag(req, "normalize"))
	if err != nil {
		return nil, err
	}
	var found any
	r.view(func(s *state) {
		if v := s.find(subject, c, deleted); v != nil {
			found = answer(v)
		}
	})
	if found == nil {
		return nil, schemaNotFound()
	}
	return found, nil
}

func schemaNotFound() error { return &apiError{404, codeSchemaNotFound, "Schema not found"} }

// schemaAnswer is a version as clients read it.
type schemaAnswer struct {
	Subject    string          `json:"subject,omitempty"`
	ID         int32           `json:"id,omitempty"`
	Version    int             `json:"version,omitempty"`
	SchemaType string          `json:"schemaType,omitempty"`
	References []Reference     `json:"references,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
	RuleSet    json.RawMessage `json:"ruleSet,omitempty"`
	Schema     string          `json:"schema"`
	Deleted    bool            `json:"deleted,omitempty"`
}

func answer(v *version) schemaAnswer {
	a := ofContent(v.content)
	a.Subject, a.ID, a.Version, a.Deleted = v.subject, v.content.id, v.number, v.deleted
	return a
}

func ofContent(c *content) schemaAnswer {
	a := schemaAnswer{References: c.references, Metadata: c.metadata, RuleSet: c.ruleSet, Schema: c.text}
	if c.typ != typeAvro {
		a.SchemaType = c.typ
	}
	return a
}

// byID runs read over the content of the id in the path.
func (r *Registry) byID(req *http.Request, read func(*state, *content) any) (any, error) {
	id, err := strconv.ParseInt(req.PathValue("id"), 10, 32)
	if err != nil {
		return nil, &apiError{404, 404, "HTTP 404 Not Found: an id is a number"}
	}
	var body any
	r.view(func(s *state) {
		if c := s.ids[idKey{"", int32(id)}]; c != nil {
			body = read(s, c)
		}
	})
	if body == nil {
		return nil, &apiError{404, codeSchemaNotFound, fmt.Sprintf("Schema %d not found", id)}
	}
	return body, nil
}

func (r *Registry) schemaByID(req *http.Request) (any, error) {
	return r.byID(req, func(_ *state, c *content) any { return ofContent(c) })
}

func (r *Registry) textByID(req *http.Request) (any, error) {
	return r.byID(req, func(_ *state, c *content) any { return rawText(c.text) })
}

func (r *Registry) subjectsByID(req *http.Request) (any, error) {
	deleted := flag(req, "deleted")
	return r.byID(req, func(s *state, c *content) any {
		subjects := []string{}
		for _, v := range s.of(c) {
			if (!v.deleted || deleted) && !slices.Contains(subjects, v.subject) {
				subjects = append(subjects, v.subject)
			}
		}
		return subjects
	})
}

func (r *Registry) versionsByID(req *http.Request) (any, error) {
	type place struct {
		Subject string `json:"subject"`
		Version int    `json:"version"`
	}
	deleted := flag(req, "deleted")
	return r.byID(req, func(s *state, c *content) any {
		places := []place{}
		for _, v := range s.of(c) {
			if !v.deleted || deleted {
				places = append(places, place{v.subject, v.number})
			}
		}
		return places
	})
}

func (r *Registry) listSchemas(req *http.Request) (any, error) {
	q := req.URL.Query()
	deleted, latest, prefix := flag(req, "deleted"), flag(req, "latestOnly"), q.Get("subjectPrefix")
	all := []schemaAnswer{}
	r.view(func(s *state) {
		for _, subject := range sortedKeys(s.subjects) {
			if !strings.HasPrefix(subject, prefix) {
				continue
			}
			vs := s.versions(subject, deleted)
			if latest && len(vs) > 1 {
				vs = vs[len(vs)-1:]
			}
			for _, v := range vs {
				all = append(all, answer(v))
			}
		}
	})
	return page(req, all)
}

func (r *Registry) listSubjects(req *http.Request) (any, error) {
	deleted, only, prefix := flag(req, "deleted"), flag(req, "deletedOnly"), req.URL.Query().Get("subjectPrefix")
	prefix = strings.TrimPrefix(prefix, ":*:") // in every context
	all := []string{}
	r.view(func(s *state) {
		for _, subject := range sortedKeys(s.subjects) {
			live := len(s.versions(subject, false)) > 0
			if strings.HasPrefix(subject, prefix) && (live && !only || !live && (only || deleted)) {
				all = append(all, subject)
			}
		}
	})
	return page(req, all)
}

func (r *Registry) listVersions(req *http.Request) (any, error) {
	subject, deleted, only := req.PathValue("subject"), flag(req, "deleted"), flag(req, "deletedOnly")
	numbers := []int{}
	r.view(func(s *state) {
		for _, v := range s.versions(subject, deleted || only) {
			if v.deleted || !only {
				numbers = append(numbers, v.number)
			}
		}
	})
	if len(numbers) == 0 {
		return nil, subjectNotFound(subject)
	}
	return page(req, numbers)
}

// page is the part of a list that a request asks for.
func page[T any](req *http.Request, all []T) (any, error) {
	q := req.URL.Query()
	offset, limit := 0, -1
	for name, n := range map[string]*int{"offset": &offset, "limit": &limit} {
		if text := q.Get(name); text != "" {
			parsed, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return nil, &apiError{422, 422, name + " is no number"}
			}
			*n = int(parsed)
		}
	}
	all = all[min(max(offset, 0), len(all)):]
	if limit > 0 && limit < len(all) {
		all = all[:limit]
	}
	return all, nil
}

func (r *Registry) oneVersion(req *http.Request, read func(*state, *version) any) (any, error) {
	var body any
	var err error
	r.view(func(s *state) {
		var v *version
		if v, err = s.version(req.PathValue("subject"), req.PathValue("v"), flag(req, "deleted")); err == nil {
			body = read(s, v)
		}
	})
	return body, err
}

func (r *Registry) getVersion(req *http.Request) (any, error) {
	return r.oneVersion(req, func(_ *state, v *version) any { return answer(v) })
}

func (r *Registry) versionText(req *http.Request) (any, error) {
	return r.oneVersion(req, func(_ *state, v *version) any { return rawText(v.content.text) })
}

func (r *Registry) referencedBy(req *http.Request) (any, error) {
	return r.oneVersion(req, func(s *state, v *version) any {
		ids := []int32{}
		for _, user := range s.usedBy(v.subject, v.number) {
			if !user.deleted && !slices.Contains(ids, user.content.id) {
				ids = append(ids, user.content.id)
			}
		}
		return ids
	})
}

func (r *Registry) removeSubject(req *http.Request) (any, error) {
	return r.deleteSubject(req.Context(), req.PathValue("subject"), flag(req, "permanent"))
}

func (r *Registry) removeVersion(req *http.Request) (any, error) {
	return r.deleteVersion(req.Context(), req.PathValue("subject"), req.PathValue("v"), flag(req, "permanent"))
}

// checkAnswer is the answer of a compatibility check; the messages come with verbose=true.
type checkAnswer struct {
	Compatible bool     `json:"is_compatible"`
	Messages   []string `json:"messages,omitempty"`
}

func (r *Registry) checkAll(req *http.Request) (any, error) {
	return r.check(req, func(s *state, subject string, l Level) ([]*version, error) {
		vs := s.versions(subject, false)
		if !l.transitive() && len(vs) > 1 {
			vs = vs[len(vs)-1:]
		}
		slices.Reverse(vs)
		return vs, nil
	})
}

func (r *Registry) checkOne(req *http.Request) (any, error) {
	return r.check(req, func(s *state, subject string, _ Level) ([]*version, error) {
		which := req.PathValue("v")
		v, err := s.version(subject, which, false)
		var api *apiError
		switch {
		case err == nil:
			return []*version{v}, nil
		case errors.As(err, &api) && api.code == codeSubjectNotFound && (which == "latest" || which == "-1"):
			return nil, nil // the first schema of a subject fits
		case errors.As(err, &api) && api.code == codeSubjectNotFound:
			return nil, &apiError{404, codeVersionNotFound, fmt.Sprintf("Version %s not found.", clip(which))}
		}
		return nil, err
	})
}

func (r *Registry) check(req *http.Request, against func(*state, string, Level) ([]*version, error)) (any, error) {
	var body schemaRequest
	if err := decode(req, &body); err != nil {
		return nil, err
	}
	_, tree, err := r.prepare(body, flag(req, "normalize"))
	if err != nil {
		return nil, err
	}
	var old []*version
	var level Level
	r.view(func(s *state) {
		level = r.level(s, req.PathValue("subject"))
		old, err = against(s, req.PathValue("subject"), level)
	})
	if err != nil {
		return nil, err
	}
	answer := checkAnswer{Compatible: true}
	for _, v := range old {
		found, err := r.compare(level, v, tree)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			continue
		}
		answer.Compatible = false
		if flag(req, "verbose") {
			answer.Messages = append(messages(found, v), fmt.Sprintf("{compatibility: '%s'}", level))
		}
		break // the newest that does not fit says enough
	}
	return answer, nil
}

type levelAnswer struct {
	Level Level `json:"compatibilityLevel"`
}

type levelRequest struct {
	Level Level `json:"compatibility"`
}

func (r *Registry) globalLevel(*http.Request) (any, error) {
	var l Level
	r.view(func(s *state) { l = r.level(s, "") })
	return levelAnswer{l}, nil
}

func (r *Registry) subjectLevel(req *http.Request) (any, error) {
	subject := req.PathValue("subject")
	var own, effective Level
	r.view(func(s *state) { own, effective = s.configs[subject].level(), r.level(s, subject) })
	switch {
	case own != "":
		return levelAnswer{own}, nil
	case flag(req, "defaultToGlobal"):
		return levelAnswer{effective}, nil
	}
	return nil, &apiError{404, codeNoSubjectLevel, fmt.Sprintf("Subject '%s' does not have subject-level compatibility configured", clip(subject))}
}

func (r *Registry) putLevel(req *http.Request) (any, error) {
	subject, err := writable(req)
	if err != nil {
		return nil, err
	}
	var body levelRequest
	if err := decode(req, &body); err != nil {
		return nil, err
	}
	body.Level = Level(strings.ToUpper(string(body.Level)))
	if !known(body.Level) {
		return nil, &apiError{422, codeInvalidLevel, "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, forward_transitive, and full_transitive"}
	}
	return body, r.setLevel(req.Context(), subject, body.Level)
}

func (r *Registry) removeLevel(req *http.Request) (any, error) {
	was, err := r.unsetLevel(req.Context(), req.PathValue("subject"))
	return levelAnswer{was}, err
}

type modeAnswer struct {
	Mode string `json:"mode"`
}

func (r *Registry) globalMode(*http.Request) (any, error) {
	var m string
	r.view(func(s *state) { m = s.mode("") })
	return modeAnswer{m}, nil
}

func (r *Registry) subjectMode(req *http.Request) (any, error) {
	subject := req.PathValue("subject")
	var own, effective string
	r.view(func(s *state) { own, effective = s.modes[subject], s.mode(subject) })
	switch {
	case own != "":
		return modeAnswer{own}, nil
	case flag(req, "defaultToGlobal"):
		return modeAnswer{effective}, nil
	}
	return nil, &apiError{404, codeNoSubjectMode, fmt.Sprintf("Subject '%s' does not have subject-level mode configured", clip(subject))}
}

// flag reports whether a query parameter is true.
func flag(req *http.Request, name string) bool {
	on, err := strconv.ParseBool(req.URL.Query().Get(name))
	return err == nil && on
}
