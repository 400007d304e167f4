package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/millrace/millrace/schemas"
)

// schemaRequest is a schema as clients send it. Members that are not here are ignored.
type schemaRequest struct {
	Schema     string          `json:"schema"`
	SchemaType string          `json:"schemaType"`
	References []Reference     `json:"references"`
	Metadata   json.RawMessage `json:"metadata"`
	RuleSet    json.RawMessage `json:"ruleSet"`
	ID         int64           `json:"id"`
	Version    int64           `json:"version"`
}

// The bounds on what a schema refers to, directly and in turn.
const (
	maxReferences    = 100
	maxReferenceText = 4 << 20
)

// prepare reads a schema that a client sent: within its limits, readable by our own decoders, in the text that is stored.
func (r *Registry) prepare(req schemaRequest, normal bool) (*content, *node, error) {
	if req.SchemaType != "" && req.SchemaType != typeAvro {
		return nil, nil, invalidSchema(fmt.Errorf("type %s is not supported: AVRO is", clip(req.SchemaType)))
	}
	if req.Schema == "" {
		return nil, nil, invalidSchema(errors.New("the schema is empty"))
	}
	refs, err := r.resolve(req.References)
	if err != nil {
		return nil, nil, err
	}
	if err := r.admit(req.Schema, refs); err != nil {
		return nil, nil, invalidSchema(err)
	}
	tree, known, err := parseSchema(req.Schema, refs...)
	if err != nil {
		return nil, nil, invalidSchema(err)
	}
	return &content{
		typ: typeAvro, text: canonicalText(tree, known, normal), references: req.References,
		metadata: compact(req.Metadata), ruleSet: compact(req.RuleSet),
	}, tree, nil
}

// admit checks text with the parser that consumers use.
func (r *Registry) admit(text string, refs []string) error {
	var parsed []schemas.Schema
	for _, ref := range refs {
		s, err := r.cfg.Limits.Parse(ref, parsed...)
		if err != nil {
			return fmt.Errorf("reference: %w", err)
		}
		parsed = append(parsed, s)
	}
	_, err := r.cfg.Limits.Parse(text, parsed...)
	return err
}

// resolve gives the texts that refs name, and those that they name in turn, each after what it uses.
func (r *Registry) resolve(refs []Reference) ([]string, error) {
	var texts []string
	var err error
	r.view(func(s *state) {
		q := resolver{state: s, seen: map[Reference]bool{}}
		err = q.add(refs)
		texts = q.texts
	})
	return texts, err
}

type resolver struct {
	state *state
	seen  map[Reference]bool // by subject and version
	texts []string
	size  int
}

func (q *resolver) add(refs []Reference) error {
	for _, ref := range refs {
		place := Reference{Subject: ref.Subject, Version: ref.Version}
		if q.seen[place] {
			continue
		}
		q.seen[place] = true
		v := q.state.subjects[ref.Subject][ref.Version]
		switch {
		case v == nil:
			return invalidSchema(fmt.Errorf("no schema reference found for subject %q and version %d", clip(ref.Subject), ref.Version))
		case v.content.typ != typeAvro:
			return invalidSchema(fmt.Errorf("reference %q is a %s schema", clip(ref.Name), clip(v.content.typ)))
		case len(q.seen) > maxReferences:
			return invalidSchema(fmt.Errorf("more than %d references", maxReferences))
		}
		if q.size += len(v.content.text); q.size > maxReferenceText {
			return invalidSchema(fmt.Errorf("references of more than %d MiB", maxReferenceText>>20))
		}
		if err := q.add(v.content.references); err != nil {
			return err
		}
		q.texts = append(q.texts, v.content.text)
	}
	return nil
}

// compare gives the conflicts of a new schema with an old version.
func (r *Registry) compare(l Level, old *version, tree *node) ([]conflict, error) {
	if l == LevelNone {
		return nil, nil
	}
	if old.content.typ != typeAvro {
		return []conflict{{"TYPE_MISMATCH", "/", "the old schema is " + clip(old.content.typ)}}, nil
	}
	refs, err := r.resolve(old.content.references)
	if err != nil {
		return nil, err
	}
	before, _, err := parseSchema(old.content.text, refs...)
	if err != nil {
		return []conflict{{"TYPE_MISMATCH", "/", "the old schema cannot be read: " + err.Error()}}, nil //nolint:nilerr // it is an answer
	}
	found, err := compatible(l, before, tree)
	if err != nil {
		return nil, invalidSchema(err)
	}
	return found, nil
}

// version is a version of the subject by its number, or "latest".
func (s *state) version(subject, which string, deleted bool) (*version, error) {
	number := 0
	if which != "latest" && which != "-1" {
		n, err := strconv.ParseInt(which, 10, 64)
		if err != nil || n < 1 || n > math.MaxInt32 {
			return nil, &apiError{422, codeInvalidVersion, fmt.Sprintf("The specified version '%s' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\"", clip(which))}
		}
		number = int(n)
	}
	vs := s.versions(subject, deleted)
	if len(s.subjects[subject]) == 0 || number == 0 && len(vs) == 0 {
		return nil, subjectNotFound(subject)
	}
	if number == 0 {
		return vs[len(vs)-1], nil
	}
	for _, v := range vs {
		if v.number == number {
			return v, nil
		}
	}
	return nil, &apiError{404, codeVersionNotFound, fmt.Sprintf("Version %d not found.", number)}
}
