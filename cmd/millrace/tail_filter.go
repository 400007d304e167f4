package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// expressionHelp is what the help of every command with expressions says of them.
const expressionHelp = ``

// filters are what an event must be to be shown: what is cheap is asked first, the value last.
type filters struct {
	keys    []string
	headers []headerTest
	where   []predicate
}

// predicate is an expression that is true or false. An error is about the event alone, or wraps schemas.ErrUnavailable.
type predicate func(e *event.Event) (bool, error)

// evaluator is an expression with a value of any kind, as JSON. Its errors are those of a predicate.
type evaluator func(e *event.Event) ([]byte, error)

func newEvaluator(text string, reg *schemas.Registry) (evaluator, error) {
	return nil, fmt.Errorf("%s %v", text, reg)
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
	for _, p := range x.where {
		if ok, err := p(e); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}
