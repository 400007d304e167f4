package schemas

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
)

// Registry encodes and decodes events by the schemas of a registry. It is safe for concurrent use, has no goroutine
// of its own and needs no closing.
//
// What it once learnt about an id it keeps, so an outage never fails a schema that is known; what it must ask for
// during an outage is an ErrUnavailable.
type Registry struct {
	topics   map[string]Topic
	unframed map[string]bool // topics whose values are never taken for a frame
	ttl      time.Duration
	limits   Limits
	log      *zap.Logger
	backend  backend

	ids      cache[int32, *entry]
	guids    cache[[16]byte, *entry]
	versions cache[versionKey, Schema] // of one subject, immutable
	latest   cache[string, latest]     // by subject
	writers  cache[writerKey, *writer]
	generic  cache[genericKey, *writer]
	flights  singleflight.Group
	refused  refusals
}

// backend is where schemas are kept: a registry behind HTTP, or the process.
//
// Each method returns an error that wraps ErrUnavailable, ErrNotFound or ErrIncompatible. Records carry the
// references of their text, not the texts.
type backend interface {
	byID(ctx context.Context, id int32) (record, error)
	byGUID(ctx context.Context, guid string) (record, error)
	version(ctx context.Context, subject string, version int) (record, error) // -1: the latest
	lookup(ctx context.Context, subject string, r record) (record, error)
	register(ctx context.Context, subject string, r record) (record, error)
	check(ctx context.Context, subject string, r record) ([]string, error)
	subjects(ctx context.Context) ([]string, error)
	versions(ctx context.Context, subject string) ([]int, error)
}

// record is a schema as a registry keeps it.
type record struct {
	id      int32
	guid    string
	subject string
	version int
	kind    string // TypeAvro, …
	text    string
	refs    []Reference
}

type versionKey struct {
	subject string
	version int
}

type latest struct {
	schema Schema
	until  time.Time
}

// Limits of what one look-up may cause.
const (
	askTimeout    = 20 * time.Second // for all attempts at all URLs
	maxReferences = 256              // schemas that one text uses, directly or not
	maxPrefetch   = 4                // requests at once
)

// ByID returns the schema with the id. An error wraps ErrNotFound where a healthy registry does not know it, or
// ErrUnavailable. A schema that is not Avro, or that cannot be parsed, is returned all the same: as text.
func (r *Registry) ByID(ctx context.Context, id int32) (Schema, error) {
	e, err := r.entry(ctx, id)
	if err != nil {
		return Schema{}, err
	}
	return e.schema, nil
}

// Prefetch learns about ids ahead of need, so that the first event of each waits for nothing. The error joins those
// of the ids that could not be learnt.
func (r *Registry) Prefetch(ctx context.Context, ids ...int32) error {
	var g errgroup.Group
	g.SetLimit(maxPrefetch)
	errs := make([]error, len(ids))
	for i, id := range ids {
		g.Go(func() error {
			_, errs[i] = r.entry(ctx, id)
			return nil
		})
	}
	_ = g.Wait() // its functions return nil: the errors are in errs
	return errors.Join(errs...)
}

// Latest returns the subject's latest version, at most Config.TTL old. During an outage the last known answer
// stands.
func (r *Registry) Latest(ctx context.Context, subject string) (Schema, error) {
	known, ok := r.latest.get(subject)
	if ok && time.Now().Before(known.until) {
		return known.schema, nil
	}
	s, err := once(ctx, r, "latest/"+subject, func(ctx context.Context) (Schema, error) {
		rec, err := r.backend.version(ctx, subject, -1)
		if err != nil {
			return Schema{}, err
		}
		return r.keep(ctx, rec)
	})
	switch {
	case err == nil:
		r.latest.put(subject, latest{s, time.Now().Add(r.ttl)})
		return s, nil
	case ok && errors.Is(err, ErrUnavailable):
		r.log.Warn("registry is unavailable: going on with the latest version that is known",
			zap.String("subject", subject), zap.Int("version", known.schema.Version), zap.Error(err))
		r.latest.put(subject, latest{known.schema, time.Now().Add(refusalTTL)})
		return known.schema, nil
	default:
		return Schema{}, fmt.Errorf("get the latest version of subject %s: %w", subject, err)
	}
}

// Version returns one version of the subject, from 1.
func (r *Registry) Version(ctx context.Context, subject string, version int) (Schema, error) {
	key := versionKey{subject, version}
	if s, ok := r.versions.get(key); ok {
		return s, nil
	}
	s, err := once(ctx, r, "version/"+strconv.Itoa(version)+"/"+subject, func(ctx context.Context) (Schema, error) {
		rec, err := r.backend.version(ctx, subject, version)
		if err != nil {
			return Schema{}, err
		}
		return r.keep(ctx, rec)
	})
	if err != nil {
		return Schema{}, fmt.Errorf("get version %d of subject %s: %w", version, subject, err)
	}
	return s, nil
}

// Versions are the numbers of the subject's versions, ascending.
func (r *Registry) Versions(ctx context.Context, subject string) ([]int, error) {
	vs, err := r.backend.versions(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("list the versions of subject %s: %w", subject, err)
	}
	slices.Sort(vs)
	return vs, nil
}

// Subjects are the names of all subjects, sorted.
func (r *Registry) Subjects(ctx context.Context) ([]string, error) {
	names, err := r.backend.subjects(ctx)
	if err != nil {
		return nil, fmt.Errorf("list subjects: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// Lookup returns the version of the subject that is the Avro schema text. An error wraps ErrNotFound where no
// version is.
func (r *Registry) Lookup(ctx context.Context, subject, text string, refs ...Reference) (Schema, error) {
	s, err := once(ctx, r, lookupKey(subject, text), func(ctx context.Context) (Schema, error) {
		rec, err := r.backend.lookup(ctx, subject, record{kind: TypeAvro, text: text, refs: refs})
		if err != nil {
			return Schema{}, err
		}
		return r.keep(ctx, rec)
	})
	if err != nil {
		return Schema{}, fmt.Errorf("look up a schema in subject %s: %w", subject, err)
	}
	return s, nil
}

func lookupKey(subject, text string) string { return "lookup/" + subject + "/" + text }

// Register registers an Avro schema text under subject and returns it with its id and version; registering a text
// again returns what is there. An error wraps ErrIncompatible where the registry refuses the text, because it is no
// valid schema or may not follow the versions that are there.
func (r *Registry) Register(ctx context.Context, subject, text string, refs ...Reference) (Schema, error) {
	rec, err := r.backend.register(ctx, subject, record{kind: TypeAvro, text: text, refs: refs})
	if err != nil {
		return Schema{}, fmt.Errorf("register a schema under subject %s: %w", subject, err)
	}
	r.refused.forget()
	r.latest.drop(subject)
	s, err := r.keep(ctx, rec)
	if err != nil {
		return Schema{}, fmt.Errorf("register a schema under subject %s: %w", subject, err)
	}
	return s, nil
}

// Check asks the registry whether text may follow the versions of subject by the subject's compatibility level: the
// reasons against, none where it may. Nothing is written.
func (r *Registry) Check(ctx context.Context, subject, text string, refs ...Reference) ([]string, error) {
	why, err := r.backend.check(ctx, subject, record{kind: TypeAvro, text: text, refs: refs})
	if err != nil {
		return nil, fmt.Errorf("check a schema against subject %s: %w", subject, err)
	}
	return why, nil
}

// once asks the backend one question at a time per key, for all who wait for its answer. It runs to its own end, so
// that one impatient caller does not fail the others.
func once[T any](ctx context.Context, r *Registry, key string, ask func(context.Context) (T, error)) (T, error) {
	var zero T
	if err := r.refused.get(key); err != nil {
		return zero, err
	}
	ch := r.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		v, err := ask(ctx)
		if errors.Is(err, ErrNotFound) {
			r.refused.put(key, err)
		}
		return v, err
	})
	select {
	case res := <-ch:
		if res.Err != nil {
			return zero, res.Err
		}
		v, _ := res.Val.(T)
		return v, nil
	case <-ctx.Done():
		return zero, fmt.Errorf("%w: wait for its answer: %w", ErrUnavailable, context.Cause(ctx))
	}
}

// keep parses a record and remembers what is immutable of it.
func (r *Registry) keep(ctx context.Context, rec record) (Schema, error) {
	s, err := r.schema(ctx, rec)
	if err != nil {
		return Schema{}, err
	}
	if s.ID > 0 {
		if _, ok := r.ids.get(s.ID); !ok {
			byID := s
			byID.Subject, byID.Version = "", 0
			r.ids.put(s.ID, &entry{schema: byID})
		}
	}
	if s.Subject != "" && s.Version > 0 {
		r.versions.put(versionKey{s.Subject, s.Version}, s)
	}
	return s, nil
}

// schema parses a record, with the texts of its references. A text that cannot be parsed is kept as text: a registry
// may hold what this parser refuses.
func (r *Registry) schema(ctx context.Context, rec record) (Schema, error) {
	s := Schema{Type: rec.kind, Text: rec.text}
	if rec.kind == "" {
		s.Type = TypeAvro
	}
	if s.Type == TypeAvro {
		refs, err := r.references(ctx, rec.refs)
		if err != nil {
			return Schema{}, err
		}
		if p, err := r.limits.Parse(rec.text, refs...); err == nil {
			s = p
		} else {
			r.log.Warn("a registered schema cannot be parsed: its events are incompatible",
				zap.Int32("schema_id", rec.id), zap.Error(err))
		}
	}
	s.ID, s.GUID, s.Subject, s.Version = rec.id, rec.guid, rec.subject, rec.version
	return s, nil
}

// references returns the schemas that a text uses, those that are used coming before their users.
func (r *Registry) references(ctx context.Context, refs []Reference) ([]Schema, error) {
	var found []Schema
	state := map[versionKey]int{} // 1: being visited, 2: done
	var visit func(refs []Reference) error
	visit = func(refs []Reference) error {
		for _, ref := range refs {
			key := versionKey{ref.Subject, ref.Version}
			switch {
			case state[key] == 2:
				continue
			case state[key] == 1:
				return fmt.Errorf("%w: the references of subject %s make a circle", ErrIncompatible, ref.Subject)
			case len(state) >= maxReferences:
				return fmt.Errorf("%w: a schema uses more than %d others", ErrIncompatible, maxReferences)
			}
			state[key] = 1
			rec, err := r.backend.version(ctx, ref.Subject, ref.Version)
			if err != nil {
				return fmt.Errorf("get the referenced version %d of subject %s: %w", ref.Version, ref.Subject, err)
			}
			if err := visit(rec.refs); err != nil {
				return err
			}
			s, err := r.limits.Parse(rec.text, slices.Clip(found)...)
			if err != nil {
				return fmt.Errorf("%w: the referenced version %d of subject %s: %w", ErrIncompatible, ref.Version, ref.Subject, err)
			}
			found = append(found, s)
			state[key] = 2
		}
		return nil
	}
	err := visit(refs)
	return found, err
}
