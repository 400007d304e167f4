package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/filter"
	"github.com/millrace/millrace/schemas"
)

// Mapped is a typed event that is made of what came in: a registered schema, and an expression for each field.
type Mapped struct {
	// Type is the schema's full name, Topic where the event is published.
	Type, Topic string
	// Subject is where the schema is registered.
	Subject string

	nth    int             // of the source's events that have this type and topic, from 0
	when   *filter.Filter  // nil is always
	fields *filter.Mapping // the fields, and the key
	schema schemas.Schema
}

// same reports whether two are one, before and after a reload.
func (m *Mapped) same(o *Mapped) bool {
	return m.Type == o.Type && m.Topic == o.Topic && m.nth == o.nth
}

// keyField is the mapping's name for the key: no field of a record has it.
const keyField = "\x00key"

// mappedSpec is a Mapped as the file writes it.
type mappedSpec struct {
	kind, topic, subject, when, key string
	fields                          map[string]string
}

// compile checks the expressions, and that the schema has the fields.
func (m mappedSpec) compile(ctx context.Context, reg *schemas.Registry) (*Mapped, error) {
	out := &Mapped{Type: m.kind, Topic: m.topic, Subject: m.subject}
	if out.Subject == "" {
		out.Subject = schemas.ByTopic.Subject(m.topic, m.kind)
	}
	var err error
	if m.when != "" {
		if out.when, err = filter.New(m.when, reg); err != nil {
			return nil, fmt.Errorf("when: %w", err)
		}
	}
	exprs := maps.Clone(m.fields)
	if m.key != "" {
		exprs[keyField] = m.key
	}
	if out.fields, err = filter.NewMapping(exprs, reg); err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), "field "+keyField, "key"))
	}
	if out.schema, err = reg.Latest(ctx, out.Subject); err != nil {
		return nil, fmt.Errorf("look up the schema of %s (subject %s): %w", m.kind, out.Subject, err)
	}
	if out.schema.Name != m.kind {
		return nil, fmt.Errorf("subject %s holds the schema of %s, not of %s", out.Subject, out.schema.Name, m.kind)
	}
	return out, nil
}

// misfit is why something that came in is no event of a type.
type misfit struct {
	class deadletter.Class
	kind  string
	err   error
}

// make returns the typed event of a request, nil and no misfit where the mapping is not about it. cause is the envelope,
// seen what expressions see: the body as data, and the request's headers.
func (m *Mapped) make(ctx context.Context, reg *schemas.Registry, cause, seen *event.Event) (*event.Event, *misfit, error) {
	if m.when != nil {
		ok, err := m.when.Match(seen)
		if err != nil {
			return nil, m.misfit(err), nil
		}
		if !ok {
			return nil, nil, nil
		}
	}
	data, err := m.fields.Eval(seen)
	if err != nil {
		return nil, m.misfit(err), nil
	}
	key, hasKey := data[keyField]
	delete(data, keyField)
	var text []byte
	if hasKey && key != nil {
		text = fmt.Append(nil, key)
	}
	label := []string{m.Type}
	if m.nth > 0 { // else two events of one webhook would pass for one
		label = append(label, strconv.Itoa(m.nth))
	}
	e := event.After(cause.Meta, m.Topic, text, schemas.Generic{Schema: m.schema, Data: data, Strict: true}, label...)
	e.Source, e.Time = cause.Source, cause.Time
	if e.Value, err = reg.Encode(ctx, nil, &e); err != nil {
		if errors.Is(err, schemas.ErrUnavailable) || ctx.Err() != nil {
			return nil, nil, err
		}
		return nil, &misfit{deadletter.Incompatible, m.Type, err}, nil
	}
	e.Data = nil
	return &e, nil, nil
}

func (m *Mapped) misfit(err error) *misfit {
	class := deadletter.Incompatible
	if errors.Is(err, schemas.ErrPoison) {
		class = deadletter.Poison
	}
	return &misfit{class, m.Type, err}
}

// seenBy is what expressions read: value is the body's JSON or form, headers are the request's by lower-case name.
func seenBy(r *request, cause *event.Event) *event.Event {
	e := &event.Event{Meta: cause.Meta, Value: r.decoded}
	e.ContentType = "application/json"
	e.Headers = nil
	for _, name := range slices.Sorted(maps.Keys(r.header)) {
		for _, v := range r.header[name] {
			e.Headers = append(e.Headers, event.Header{Key: strings.ToLower(name), Value: []byte(v)})
		}
	}
	if isForm(r.header) {
		e.Value = formJSON(r.decoded)
	}
	if e.Value == nil {
		e.Value = []byte{}
	}
	return e
}

// formJSON is a form as a JSON object of texts: a field that is there twice has its last value.
func formJSON(body []byte) []byte {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return body // no JSON either
	}
	object := make(map[string]string, len(values))
	for k, v := range values {
		object[k] = v[len(v)-1]
	}
	out, err := json.Marshal(object)
	if err != nil {
		return body
	}
	return out
}

// letterTimeout bounds the writing of a dead letter, which nobody waits for longer than for an answer.
const letterTimeout = 30 * time.Second
