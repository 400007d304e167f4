package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"go.uber.org/zap"
)

// writer is the registry in the hands of the one who writes.
type writer struct {
	*Registry
	log Log
}

// catchUp reads what others have written, and puts right what was refused of it.
func (w *writer) catchUp(ctx context.Context) error {
	end, err := w.log.End(ctx)
	if err != nil {
		return fmt.Errorf("find the end of the log: %w", err)
	}
	w.mu.RLock()
	behind := w.next < end
	w.mu.RUnlock()
	if behind {
		if err := w.append(ctx, key{kind: keyNoop}.bytes(), nil); err != nil {
			return err
		}
	}
	if err := w.repair(ctx); err != nil {
		return err
	}
	return w.sweep(ctx)
}

// append writes a record and waits until it is in the state.
func (w *writer) append(ctx context.Context, key, value []byte) error {
	offset, err := w.log.Append(ctx, key, value)
	if err != nil {
		return fmt.Errorf("write to the log: %w", err)
	}
	return w.await(ctx, offset)
}

// put writes the value of k, and deletes the records that spell the same key otherwise.
func (w *writer) put(ctx context.Context, k key, value []byte) error {
	if err := w.append(ctx, k.bytes(), value); err != nil {
		return err
	}
	var foreign []string
	w.view(func(s *state) { foreign = sortedKeys(s.foreign[k]) })
	for _, raw := range foreign {
		if err := w.append(ctx, []byte(raw), nil); err != nil {
			return err
		}
	}
	return nil
}

// erase deletes k in every spelling.
func (w *writer) erase(ctx context.Context, k key) error {
	var all [][]byte
	w.view(func(s *state) { all = s.spellings(k) })
	for _, raw := range all {
		if err := w.append(ctx, raw, nil); err != nil {
			return err
		}
	}
	return nil
}

// repair writes once more what counts where the log's last record of a key was refused. Until then compaction would keep
// the refused record and forget the one that counts.
func (w *writer) repair(ctx context.Context) error {
	type fix struct {
		key   key
		raw   string
		value []byte
	}
	var fixes []fix
	w.view(func(s *state) {
		for k, raw := range s.refused {
			if v := s.subjects[k.subject][k.version]; v != nil {
				fixes = append(fixes, fix{k, raw, v.value().bytes()})
			}
		}
	})
	for _, f := range fixes {
		err := w.put(ctx, f.key, f.value)
		if err == nil && f.raw != string(f.key.bytes()) {
			err = w.append(ctx, []byte(f.raw), nil)
		}
		if err != nil {
			return fmt.Errorf("put subject %q version %d right: %w", clip(f.key.subject), f.key.version, err)
		}
		w.cfg.Log.Warn("log of the registry put right", zap.String("subject", f.key.subject), zap.Int("version", f.key.version))
	}
	return nil
}

// sweep overwrites refused records where nothing counts: a writer that was refused and did not live to choose again has
// left them. It takes their place with a soft-deleted version and not with a tombstone: when another process writes the
// same key at this moment, the one that comes first stays and the other is refused, while a tombstone would delete what
// the other has answered for. It is done once, after Run has begun: who was refused a moment ago is still at it.
func (w *writer) sweep(ctx context.Context) error {
	w.mu.RLock()
	swept := w.swept
	w.mu.RUnlock()
	if swept {
		return nil
	}
	for range maxRefused {
		var k key
		var raw string
		var v *version
		var err error
		w.view(func(s *state) {
			for k, raw = range s.refused {
				if s.subjects[k.subject][k.version] == nil {
					if v, err = s.draft(k.subject, &content{typ: typeAvro, text: `"null"`}); err == nil {
						v.number, v.deleted = k.version, true
					}
					return
				}
			}
		})
		if err != nil {
			return err
		}
		if v == nil {
			break
		}
		err = w.put(ctx, k, v.value().bytes())
		if err == nil && raw != string(k.bytes()) {
			err = w.append(ctx, []byte(raw), nil)
		}
		if err != nil {
			return fmt.Errorf("put subject %q version %d right: %w", clip(k.subject), k.version, err)
		}
		w.cfg.Log.Warn("log of the registry put right", zap.String("subject", k.subject), zap.Int("version", k.version))
	}
	w.mu.Lock()
	w.swept = true
	w.mu.Unlock()
	return nil
}

// maxRefused bounds a sweep; what is left is swept after the next start.
const maxRefused = 1_000

// maxAttempts bounds how often a writer chooses anew because another process was faster.
const maxAttempts = 8

// register gives the id of the schema in the subject, new or not.
func (r *Registry) register(ctx context.Context, subject string, req schemaRequest, normal bool) (int32, error) {
	var id int32
	err := r.write(ctx, func(ctx context.Context, w *writer) error {
		for range maxAttempts {
			v, fresh, err := w.choose(subject, req, normal)
			if err != nil {
				return err
			}
			id = v.content.id
			if !fresh {
				return nil
			}
			k := key{kind: keySchema, subject: subject, version: v.number}
			if err := w.put(ctx, k, v.value().bytes()); err != nil {
				return err
			}
			if w.holds(v) {
				return w.forgetOlder(ctx, v)
			}
			if err := w.catchUp(ctx); err != nil {
				return err
			}
		}
		return fmt.Errorf("register subject %q: other processes were faster %d times", clip(subject), maxAttempts)
	})
	return id, err
}

// choose is the version to write, or with fresh false the one that is there.
func (w *writer) choose(subject string, req schemaRequest, normal bool) (v *version, fresh bool, err error) {
	if err := w.mayWrite(subject); err != nil {
		return nil, false, err
	}
	c, tree, err := w.prepare(req, normal)
	if err != nil {
		return nil, false, err
	}
	var live []*version
	var level Level
	w.view(func(s *state) {
		if v = s.find(subject, c, false); v != nil {
			return
		}
		live = s.versions(subject, false)
		level = w.level(s, subject)
		v, err = s.draft(subject, c)
		fresh = true
	})
	if err != nil || !fresh {
		return v, false, err
	}
	if !level.transitive() && len(live) > 1 {
		live = live[len(live)-1:]
	}
	slices.Reverse(live)
	for _, old := range live {
		found, err := w.compare(level, old, tree)
		if err != nil {
			return nil, false, err
		}
		if len(found) > 0 {
			return nil, false, incompatible(subject, old, found)
		}
	}
	return v, true, nil
}

// draft is the next version of the subject with the content: under its id if it has one, else under a new one.
func (s *state) draft(subject string, c *content) (*version, error) {
	number := 0
	for n := range s.subjects[subject] {
		number = max(number, n)
	}
	space := spaceOf(subject)
	drafted := *c
	if same := s.known[identOf(space, c)]; same != nil {
		drafted.id = same.id
	} else {
		if s.highest[space] == math.MaxInt32 {
			return nil, errors.New("no ids are left")
		}
		drafted.id = s.highest[space] + 1
	}
	return &version{subject: subject, number: number + 1, content: &drafted}, nil
}

// find is the version of the subject that has the content. A request without metadata and rules means the text alone.
func (s *state) find(subject string, c *content, deleted bool) *version {
	vs := s.versions(subject, deleted)
	space := spaceOf(subject)
	ident := identOf(space, c)
	for _, v := range slices.Backward(vs) {
		if identOf(space, v.content) == ident {
			return v
		}
	}
	if c.metadata != nil || c.ruleSet != nil {
		return nil
	}
	for _, v := range slices.Backward(vs) {
		if identify(space, v.content.typ, v.content.text, v.content.references, nil, nil) == ident {
			return v
		}
	}
	return nil
}

// holds reports whether the log made v what we wrote: another process may have taken its id or its number first.
func (w *writer) holds(v *version) bool {
	var ok bool
	w.view(func(s *state) {
		space := spaceOf(v.subject)
		is := s.subjects[v.subject][v.number]
		ok = is != nil && is.content.id == v.content.id && identOf(space, is.content) == identOf(space, v.content)
	})
	return ok
}

// forgetOlder deletes the soft-deleted versions of the subject that had the content of v, unless a schema refers to one:
// a client that asks for an id's version shall get the one that lives.
func (w *writer) forgetOlder(ctx context.Context, v *version) error {
	var old []key
	w.view(func(s *state) {
		for _, o := range s.versions(v.subject, true) {
			if o.deleted && o.content.id == v.content.id && len(s.usedBy(o.subject, o.number)) == 0 {
				old = append(old, key{kind: keySchema, subject: o.subject, version: o.number})
			}
		}
	})
	for _, k := range old {
		if err := w.erase(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// writeMark keeps the highest id where compaction does not take it: without it, an id whose last version is deleted for
// good would be given again after a restart, and consumers that have it cached would read the wrong schema.
func (w *writer) writeMark(ctx context.Context) error {
	var highest, mark int32
	w.view(func(s *state) { highest, mark = s.highest[""], s.mark })
	if mark >= highest {
		return nil
	}
	value := strconv.AppendInt([]byte(`{"maxId":`), int64(highest), 10)
	return w.append(ctx, []byte(markKey), append(value, '}'))
}

// mayWrite refuses what the mode of the subject, or of the registry, does not allow.
func (w *writer) mayWrite(subject string) error {
	var mode string
	w.view(func(s *state) { mode = s.mode(subject) })
	if mode != modeReadWrite {
		return &apiError{422, codeNotPermitted, fmt.Sprintf("subject %q is in %s mode", clip(subject), clip(mode))}
	}
	return nil
}

const modeReadWrite = "READWRITE"

func (s *state) mode(subject string) string {
	for _, scope := range []string{subject, ""} {
		if m := s.modes[scope]; m != "" {
			return m
		}
	}
	return modeReadWrite
}

// level is the level that holds for a subject.
func (r *Registry) level(s *state, subject string) Level {
	for _, scope := range []string{subject, ""} {
		if l := s.configs[scope].level(); l != "" {
			return l
		}
	}
	return r.cfg.Compatibility
}

// deleteSubject deletes the versions of a subject and gives their numbers; permanently only what is soft-deleted.
func (r *Registry) deleteSubject(ctx context.Context, subject string, permanent bool) ([]int, error) {
	numbers := []int{}
	err := r.write(ctx, func(ctx context.Context, w *writer) error {
		if err := w.mayWrite(subject); err != nil {
			return err
		}
		var err error
		w.view(func(s *state) { numbers, err = s.deletable(subject, permanent) })
		switch {
		case err != nil:
			return err
		case !permanent:
			v := versionValue{subject, numbers[len(numbers)-1]}
			return w.put(ctx, key{kind: keyDeleteSubject, subject: subject}, v.bytes())
		}
		if err := w.writeMark(ctx); err != nil {
			return err
		}
		for _, n := range numbers {
			if err := w.erase(ctx, key{kind: keySchema, subject: subject, version: n}); err != nil {
				return err
			}
		}
		for _, kind := range []keyType{keyDeleteSubject, keyConfig, keyMode} {
			if err := w.erase(ctx, key{kind: kind, subject: subject}); err != nil {
				return err
			}
		}
		return nil
	})
	return numbers, err
}

// deletable are the versions that deleting the subject deletes, or why it may not be.
func (s *state) deletable(subject string, permanent bool) ([]int, error) {
	all, live := s.versions(subject, true), s.versions(subject, false)
	switch {
	case len(all) == 0:
		return nil, subjectNotFound(subject)
	case !permanent && len(live) == 0:
		return nil, &apiError{404, codeSubjectDeleted, fmt.Sprintf("Subject '%s' was soft deleted. Set permanent=true to delete permanently", clip(subject))}
	case permanent && len(live) > 0:
		return nil, &apiError{404, codeSubjectNotDeleted, fmt.Sprintf("Subject '%s' was not deleted first before being permanently deleted", clip(subject))}
	}
	if !permanent {
		all = live
	}
	numbers := []int{}
	for _, v := range all {
		if err := s.unused(v); err != nil {
			return nil, err
		}
		numbers = append(numbers, v.number)
	}
	return numbers, nil
}

// unused refuses to delete what other schemas refer to.
func (s *state) unused(v *version) error {
	if users := s.usedBy(v.subject, v.number); len(users) > 0 {
		return &apiError{422, codeReferenceExists, fmt.Sprintf("one or more references exist to the schema {subject=%s,version=%d}: %s version %d", clip(v.subject), v.number, clip(users[0].subject), users[0].number)}
	}
	return nil
}

// deleteVersion deletes one version: softly, or one that is soft-deleted for good.
func (r *Registry) deleteVersion(ctx context.Context, subject, which string, permanent bool) (int, error) {
	var number int
	err := r.write(ctx, func(ctx context.Context, w *writer) error {
		if err := w.mayWrite(subject); err != nil {
			return err
		}
		var v *version
		var value []byte
		var err error
		w.view(func(s *state) {
			if v, err = s.version(subject, which, true); err != nil {
				return
			}
			if err = s.unused(v); err != nil {
				return
			}
			number = v.number
			switch {
			case !permanent && v.deleted:
				err = &apiError{404, codeVersionDeleted, fmt.Sprintf("Subject '%s' Version %d was soft deleted. Set permanent=true to delete permanently", clip(subject), number)}
			case permanent && !v.deleted:
				err = &apiError{404, codeVersionNotDeleted, fmt.Sprintf("Subject '%s' Version %d was not deleted first before being permanently deleted", clip(subject), number)}
			}
			gone := v.value()
			gone.Deleted = true
			value = gone.bytes()
		})
		if err != nil {
			return err
		}
		k := key{kind: keySchema, subject: subject, version: number}
		if !permanent {
			return w.put(ctx, k, value)
		}
		if err := w.writeMark(ctx); err != nil {
			return err
		}
		return w.erase(ctx, k)
	})
	return number, err
}

// setLevel sets the level of a subject, or of the registry.
func (r *Registry) setLevel(ctx context.Context, subject string, l Level) error {
	return r.write(ctx, func(ctx context.Context, w *writer) error {
		var value []byte
		w.view(func(s *state) { value = s.configs[subject].bytes(subject, l) })
		return w.put(ctx, key{kind: keyConfig, subject: subject}, value)
	})
}

// unsetLevel gives the level that was set, and leaves the subject to the registry's, or the registry to its default.
func (r *Registry) unsetLevel(ctx context.Context, subject string) (Level, error) {
	var was Level
	err := r.write(ctx, func(ctx context.Context, w *writer) error {
		w.view(func(s *state) { was = s.configs[subject].level() })
		if was == "" && subject != "" {
			return &apiError{404, codeNoSubjectLevel, fmt.Sprintf("Subject '%s' does not have subject-level compatibility configured", clip(subject))}
		}
		return w.erase(ctx, key{kind: keyConfig, subject: subject})
	})
	if was == "" {
		was = r.cfg.Compatibility
	}
	return was, err
}
