package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/filter"
	"github.com/millrace/millrace/schemas"
)

// expressionHelp is what the help of every command with expressions says of them.
func expressionHelp() string {
	var b strings.Builder
	b.WriteString(`
Expressions, of --where and --count-by, are CEL:  value.country == "IT" && value.cents > 9000,  key.startsWith("o-"),
"x" in headers,  timestamp > timestamp("2026-11-22T09:00:00Z"),  value.items.exists(i, i.sku == "A1"),
json(value.body).id == "o-17"  where a field holds JSON, as a webhook's body. They may use

`)
	for _, v := range filter.Variables() {
		fmt.Fprintf(&b, "  %-16s %s\n", v.Name, v.Doc)
	}
	b.WriteString("\nAn event on which an expression fails, for one because it lacks the field, is counted and reported: has(value.x) asks first.")
	return b.String()
}

// filters are what an event must be to be shown: what is cheap is asked first, the value last.
type filters struct {
	keys    []string
	headers []headerTest
	where   []*filter.Filter
}

type headerTest struct {
	name string
	ok   func([]byte) bool
}

// newFilters returns nil where every event is shown.
func newFilters(f readFlags, reg *schemas.Registry) (*filters, error) {
	if !f.filtered() {
		return nil, nil //nolint:nilnil // no filter is no error
	}
	x := &filters{keys: f.keys}
	for _, h := range f.headers {
		i := strings.IndexAny(h, "=~")
		if i <= 0 {
			return nil, fmt.Errorf("--header %q: write name=value, or name~regexp", h)
		}
		name, value := h[:i], h[i+1:]
		if h[i] == '=' {
			x.headers = append(x.headers, headerTest{name, func(b []byte) bool { return string(b) == value }})
			continue
		}
		re, err := regexp.Compile(value)
		if err != nil {
			return nil, fmt.Errorf("--header %q: %w", h, err)
		}
		x.headers = append(x.headers, headerTest{name, re.Match})
	}
	for _, text := range f.where {
		w, err := filter.New(text, reg)
		if err != nil {
			return nil, fmt.Errorf("--where: %w", err)
		}
		x.where = append(x.where, w)
	}
	return x, nil
}

func (x *filters) match(e *event.Event) (bool, error) {
	if len(x.keys) > 0 && (e.Key == nil || !slices.Contains(x.keys, string(e.Key))) {
		return false, nil
	}
	for _, t := range x.headers { // any header of the name will do: names repeat
		if !slices.ContainsFunc(e.Headers, func(h event.Header) bool { return h.Key == t.name && t.ok(h.Value) }) {
			return false, nil
		}
	}
	e = readable(e)
	for _, w := range x.where {
		if ok, err := w.Match(e); !ok || err != nil {
			return false, err //nolint:wrapcheck // it says what is wrong with which event
		}
	}
	return true, nil
}

// readable is e for an expression. What other tools write says nothing of what it is: where it is not framed it is taken
// for JSON, as it is when it is shown.
func readable(e *event.Event) *event.Event {
	if e.ContentType != "" || len(e.Value) == 0 || e.Value[0] == 0 {
		return e
	}
	if f, err := schemas.ParseFrame(e.Value, e.Headers); err != nil || f.Framed() {
		return e
	}
	k := *e
	k.ContentType = schemas.JSON().ContentType()
	return &k
}
