package schemas

import (
	"context"
	"crypto/md5" //nolint:gosec // names a text as Confluent's registry does; protects nothing
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/avro"
)

// memory is a registry in the process: ids by content, versions by subject, compatibility BACKWARD.
type memory struct {
	mu      sync.Mutex
	records []record         // by id-1
	bySubj  map[string][]int // ids by version-1
}

func newMemory() *memory { return &memory{bySubj: map[string][]int{}} }

func (m *memory) byID(_ context.Context, id int32) (record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id < 1 || int(id) > len(m.records) {
		return record{}, fmt.Errorf("%w: schema %d", ErrNotFound, id)
	}
	return m.records[id-1], nil
}

func (m *memory) byGUID(_ context.Context, guid string) (record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		if r.guid == guid {
			return r, nil
		}
	}
	return record{}, fmt.Errorf("%w: schema %s", ErrNotFound, guid)
}

func (m *memory) version(_ context.Context, subject string, version int) (record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := m.bySubj[subject]
	if len(ids) == 0 {
		return record{}, fmt.Errorf("%w: subject %s", ErrNotFound, subject)
	}
	if version == -1 {
		version = len(ids)
	}
	if version < 1 || version > len(ids) {
		return record{}, fmt.Errorf("%w: version %d of subject %s", ErrNotFound, version, subject)
	}
	return m.at(subject, version), nil
}

func (m *memory) at(subject string, version int) record {
	r := m.records[m.bySubj[subject][version-1]-1]
	r.subject, r.version = subject, version
	return r
}

func (m *memory) lookup(_ context.Context, subject string, r record) (record, error) {
	s, err := m.parse(subject, r)
	if err != nil {
		return record{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.find(subject, s.Text, r.refs)
}

func (m *memory) find(subject, text string, refs []Reference) (record, error) {
	for version := len(m.bySubj[subject]); version > 0; version-- {
		if r := m.at(subject, version); r.text == text && slices.Equal(r.refs, refs) {
			return r, nil
		}
	}
	return record{}, fmt.Errorf("%w: no version of subject %s is this schema", ErrNotFound, subject)
}

func (m *memory) register(ctx context.Context, subject string, r record) (record, error) {
	s, err := m.parse(subject, r)
	if err != nil {
		return record{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, err := m.find(subject, s.Text, r.refs); err == nil {
		return known, nil
	}
	if why := m.against(ctx, subject, s); why != nil {
		return record{}, fmt.Errorf("%w: the latest version of subject %s cannot be read by it: %w", ErrIncompatible, subject, why)
	}
	id := slices.IndexFunc(m.records, func(x record) bool { return x.text == s.Text && slices.Equal(x.refs, r.refs) }) + 1
	if id == 0 {
		id = len(m.records) + 1
		m.records = append(m.records, record{id: int32(id), guid: guidOf(s.Text, r.refs), kind: TypeAvro, text: s.Text, refs: slices.Clone(r.refs)})
	}
	m.bySubj[subject] = append(m.bySubj[subject], id)
	return m.at(subject, len(m.bySubj[subject])), nil
}

// against says why s cannot follow the subject's latest version.
func (m *memory) against(_ context.Context, subject string, s Schema) error {
	versions := len(m.bySubj[subject])
	if versions == 0 {
		return nil
	}
	old, err := m.parseLocked(m.at(subject, versions))
	if err != nil {
		return err
	}
	return avro.CheckCompatibility(old.p.avro, s.p.avro)
}

func (m *memory) check(ctx context.Context, subject string, r record) ([]string, error) {
	s, err := m.parse(subject, r)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if why := m.against(ctx, subject, s); why != nil {
		return []string{why.Error()}, nil
	}
	return nil, nil
}

func (m *memory) subjects(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.bySubj)), nil
}

func (m *memory) versions(_ context.Context, subject string) ([]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.bySubj[subject])
	if n == 0 {
		return nil, fmt.Errorf("%w: subject %s", ErrNotFound, subject)
	}
	vs := make([]int, n)
	for i := range vs {
		vs[i] = i + 1
	}
	return vs, nil
}

func (m *memory) parse(subject string, r record) (Schema, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, err := m.parseLocked(r)
	if err != nil {
		return Schema{}, fmt.Errorf("%w: subject %s: %w", ErrIncompatible, subject, err)
	}
	return s, nil
}

// parseLocked parses a record with its references, which were registered before it and so make no circle.
func (m *memory) parseLocked(r record) (Schema, error) {
	var refs []Schema
	seen := map[versionKey]bool{}
	var collect func(of []Reference) error
	collect = func(of []Reference) error {
		for _, ref := range of {
			key := versionKey{ref.Subject, ref.Version}
			if seen[key] {
				continue
			}
			seen[key] = true
			if ref.Version < 1 || ref.Version > len(m.bySubj[ref.Subject]) {
				return fmt.Errorf("the reference %s names version %d of subject %s, which does not exist", ref.Name, ref.Version, ref.Subject)
			}
			used := m.at(ref.Subject, ref.Version)
			if err := collect(used.refs); err != nil {
				return err
			}
			s, err := Parse(used.text, refs...)
			if err != nil {
				return err
			}
			refs = append(refs, s)
		}
		return nil
	}
	if err := collect(r.refs); err != nil {
		return Schema{}, err
	}
	return Parse(r.text, refs...)
}

// guidOf is a UUID over the text and its references.
func guidOf(text string, refs []Reference) string {
	h := md5.New() //nolint:gosec // see the import
	h.Write([]byte(text))
	for _, ref := range refs {
		fmt.Fprintf(h, "%s%s%c%c%c%c", ref.Name, ref.Subject, byte(ref.Version>>24), byte(ref.Version>>16), byte(ref.Version>>8), byte(ref.Version))
	}
	return formatUUID([16]byte(h.Sum(nil)))
}
