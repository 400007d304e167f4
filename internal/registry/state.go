package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const typeAvro = "AVRO"

// content is what an id stands for.
type content struct {
	id         int32
	typ        string
	text       string
	references []Reference
	metadata   json.RawMessage
	ruleSet    json.RawMessage
	uses       int // versions that have it, soft-deleted ones too
}

// version is a schema in a subject.
type version struct {
	subject string
	number  int
	content *content
	deleted bool // softly: readable by id and by number on request
}

// identity is equal for two contents that are one schema and share an id.
type identity [sha256.Size]byte

func identify(space, typ, text string, refs []Reference, metadata, ruleSet json.RawMessage) identity {
	var b []byte
	add := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	add(space)
	add(typ)
	add(text)
	for _, r := range refs {
		add(r.Name)
		add(r.Subject)
		b = binary.BigEndian.AppendUint32(b, uint32(r.Version))
	}
	add(string(metadata))
	add(string(ruleSet))
	return sha256.Sum256(b)
}

// An idKey is an id in a context: ids are counted in each for itself.
type idKey struct {
	space string
	id    int32
}

// spaceOf is the context in a subject's name (":.context:subject"), "" for the default one.
func spaceOf(subject string) string {
	if rest, ok := strings.CutPrefix(subject, ":."); ok {
		if space, _, ok := strings.Cut(rest, ":"); ok {
			return space
		}
	}
	return ""
}

// state is what the records of the log amount to, up to an offset. It is a value of its records alone: two registries
// that have read the same records have the same state.
type state struct {
	subjects map[string]map[int]*version
	ids      map[idKey]*content
	known    map[identity]*content
	highest  map[string]int32 // the highest id seen, by context
	mark     int32            // the highest id of the default context that the mark records
	configs  map[string]configValue
	modes    map[string]string

	// A record's key may be spelled otherwise than we spell it. current is the spelling of the record that counts,
	// where it is not ours; foreign are all such spellings that have a value, for they must be deleted too.
	current map[key]string
	foreign map[key]map[string]bool
	// refused are keys whose last record was refused, with its spelling: the log must get the value that counts once
	// more, for compaction keeps the last record of a key whatever we think of it.
	refused map[key]string
}

func newState() *state {
	return &state{
		subjects: map[string]map[int]*version{}, ids: map[idKey]*content{}, known: map[identity]*content{},
		highest: map[string]int32{}, configs: map[string]configValue{}, modes: map[string]string{},
		current: map[key]string{}, foreign: map[key]map[string]bool{}, refused: map[key]string{},
	}
}

// errConflict is in the error of a record that would give one id to two schemas, or one version two ids.
var errConflict = errors.New("the log gives one number to two schemas")

// apply takes one record in. An error means that the record was skipped; it is for a log line, the state is sound.
func (s *state) apply(rec Record) error {
	k, err := parseKey(rec.Key)
	if err != nil {
		return err
	}
	if k.kind == keyNoop {
		if string(rec.Key) == markKey {
			s.applyMark(rec.Value)
		}
		return nil
	}
	if len(rec.Value) == 0 || string(rec.Value) == "null" {
		s.applyTombstone(k, string(rec.Key))
		return nil
	}
	if err := s.applyValue(k, rec.Value); err != nil {
		if errors.Is(err, errConflict) {
			s.refused[k] = string(rec.Key)
		}
		return err
	}
	s.spelled(k, string(rec.Key))
	return nil
}

func (s *state) applyMark(value []byte) {
	var mark struct {
		Highest int32 `json:"maxId"`
	}
	if json.Unmarshal(value, &mark) == nil {
		s.mark = max(s.mark, mark.Highest)
		s.highest[""] = max(s.highest[""], mark.Highest)
	}
}

func (s *state) applyValue(k key, raw []byte) error {
	switch k.kind {
	case keySchema:
		v, err := parseSchemaValue(k, raw)
		if err != nil {
			return err
		}
		return s.applySchema(k, v)
	case keyConfig:
		v, err := parseConfigValue(raw)
		if err != nil {
			return err
		}
		s.configs[k.subject] = v
	case keyMode:
		var v struct {
			Mode string `json:"mode"`
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("read mode value: %w", err)
		}
		s.modes[k.subject] = v.Mode
	case keyDeleteSubject:
		var v versionValue
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("read delete value: %w", err)
		}
		for n, ver := range s.subjects[k.subject] {
			ver.deleted = ver.deleted || n <= v.Version
		}
	case keyClearSubject:
		for n, ver := range s.subjects[k.subject] {
			if ver.deleted {
				s.drop(k.subject, n)
			}
		}
	default: // a kind that others have
	}
	return nil
}

func (s *state) applySchema(k key, v schemaValue) error {
	space := spaceOf(v.Subject)
	s.highest[space] = max(s.highest[space], v.ID)
	ident := identify(space, v.SchemaType, v.Schema, v.References, v.Metadata, v.RuleSet)
	held := s.ids[idKey{space, v.ID}]
	old := s.subjects[v.Subject][v.Version]
	same := func(c *content) bool { return identOf(space, c) == ident }
	if held != nil && !same(held) {
		return fmt.Errorf("%w: id %d of subject %q version %d", errConflict, v.ID, clip(v.Subject), v.Version)
	}
	if old != nil && (old.content.id != v.ID || !same(old.content)) {
		return fmt.Errorf("%w: subject %q version %d has the id %d and now %d", errConflict, clip(v.Subject), v.Version, old.content.id, v.ID)
	}
	delete(s.refused, k)
	if old != nil {
		old.deleted = v.Deleted
		return nil
	}
	if held == nil {
		held = &content{id: v.ID, typ: v.SchemaType, text: v.Schema, references: v.References, metadata: v.Metadata, ruleSet: v.RuleSet}
		s.ids[idKey{space, v.ID}] = held
		// Another registry may have given one schema two ids; the first is the one to give again.
		if s.known[ident] == nil {
			s.known[ident] = held
		}
	}
	held.uses++
	if s.subjects[v.Subject] == nil {
		s.subjects[v.Subject] = map[int]*version{}
	}
	s.subjects[v.Subject][v.Version] = &version{v.Subject, v.Version, held, v.Deleted}
	return nil
}

func identOf(space string, c *content) identity {
	return identify(space, c.typ, c.text, c.references, c.metadata, c.ruleSet)
}

// applyTombstone deletes what k names, if the deleted spelling is the one that counts.
func (s *state) applyTombstone(k key, raw string) {
	if s.refused[k] == raw {
		delete(s.refused, k)
	}
	if f := s.foreign[k]; f != nil {
		if delete(f, raw); len(f) == 0 {
			delete(s.foreign, k)
		}
	}
	if cur, ok := s.current[k]; ok && cur != raw || !ok && raw != string(k.bytes()) {
		return
	}
	delete(s.current, k)
	switch k.kind {
	case keySchema:
		s.drop(k.subject, k.version)
	case keyConfig:
		delete(s.configs, k.subject)
	case keyMode:
		delete(s.modes, k.subject)
	default: // versions that were deleted stay so
	}
}

// spelled notes how the record that counts is spelled.
func (s *state) spelled(k key, raw string) {
	if raw == string(k.bytes()) {
		delete(s.current, k)
		return
	}
	s.current[k] = raw
	if s.foreign[k] == nil {
		s.foreign[k] = map[string]bool{}
	}
	s.foreign[k][raw] = true
}

// spellings are the keys to delete for k to be gone: the foreign ones first, so that one that is left by a crash does
// not bring the record back without ours saying what it is.
func (s *state) spellings(k key) [][]byte {
	var all [][]byte
	for _, raw := range sortedKeys(s.foreign[k]) {
		all = append(all, []byte(raw))
	}
	return append(all, k.bytes())
}

func (s *state) drop(subject string, n int) {
	v := s.subjects[subject][n]
	if v == nil {
		return
	}
	if delete(s.subjects[subject], n); len(s.subjects[subject]) == 0 {
		delete(s.subjects, subject)
	}
	if v.content.uses--; v.content.uses > 0 {
		return
	}
	space := spaceOf(subject)
	delete(s.ids, idKey{space, v.content.id})
	if ident := identOf(space, v.content); s.known[ident] == v.content {
		delete(s.known, ident)
	}
}

// versions are a subject's, by number; soft-deleted ones only with deleted.
func (s *state) versions(subject string, deleted bool) []*version {
	var vs []*version
	for _, v := range s.subjects[subject] {
		if !v.deleted || deleted {
			vs = append(vs, v)
		}
	}
	slices.SortFunc(vs, func(a, b *version) int { return cmp.Compare(a.number, b.number) })
	return vs
}

// usedBy are the versions that refer to a version, soft-deleted ones too, by subject and number.
func (s *state) usedBy(subject string, n int) []*version {
	var users []*version
	for _, vs := range s.subjects {
		for _, v := range vs {
			if slices.ContainsFunc(v.content.references, func(r Reference) bool { return r.Subject == subject && r.Version == n }) {
				users = append(users, v)
			}
		}
	}
	slices.SortFunc(users, byPlace)
	return users
}

// of are the versions that have the id, by subject and number.
func (s *state) of(c *content) []*version {
	var all []*version
	for _, vs := range s.subjects {
		for _, v := range vs {
			if v.content == c {
				all = append(all, v)
			}
		}
	}
	slices.SortFunc(all, byPlace)
	return all
}

func byPlace(a, b *version) int {
	return cmp.Or(strings.Compare(a.subject, b.subject), cmp.Compare(a.number, b.number))
}

// value is what the log must hold for a version.
func (v *version) value() schemaValue {
	return schemaValue{
		Subject: v.subject, Version: v.number, ID: v.content.id, SchemaType: v.content.typ, References: v.content.references,
		Metadata: v.content.metadata, RuleSet: v.content.ruleSet, Schema: v.content.text, Deleted: v.deleted,
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
