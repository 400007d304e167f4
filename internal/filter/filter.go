// Package filter chooses events by an expression in CEL, the Common Expression Language: find and tail --where, what
// the console asks for, which dead letters are put back.
//
//	f, err := filter.New(`type == "shop.OrderPlaced" && value.country == "IT"`, registry)
//	r, err := reader.Open(ctx, cluster, reader.Config{Topics: topics, Match: f.Match})
//
// # What an expression sees
//
// An expression reads the variables of [Variables]: those of the record, and value, the decoded data. A field is
// value.country, or value["country"]. Only the fields that it names are decoded, and only where what stands beside
// them (a topic, a key, a header) has not decided already, in whatever order the expression is written.
//
// Numbers compare with each other whatever their types; a decimal is a double, a number of JSON an int where it has no
// fraction, a UUID its text, a timestamp or a date a timestamp, a time of day a duration, an enum its text.
//
// headers["x"] is the last value of a header, "" where there is none: "x" in headers tells the two apart, and
// headers.values("x") is the list of all.
//
// json(x) reads the JSON document that a field holds as bytes or text: json(value.body).order.id. That it is none is an
// error; value.type == "order" && json(value.body).n > 1 asks only where the first holds.
//
// # Errors
//
// An expression that does not compile is an [*Error], which says where and what is allowed. An expression may fail on
// a record, for one because the record lacks a field that it needs: that is an error of Match and never a silent no.
// Data that cannot be decoded is an error of package schemas.
//
// # Bounds
//
// The length of an expression, its regular expressions and what it may compute for one record are limited: it
// always ends soon.
package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

const (
	maxLength  = 10_000    // of an expression, in code points
	maxNodes   = 2_000     // of its tree
	maxDepth   = 100       // of its tree
	maxRegexp  = 1_000     // instructions of a compiled regular expression
	maxEffort  = 1_000_000 // of an expression with a loop on one record, in CEL's units: about 0.1 s
	maxProblem = 300       // bytes of a compiler's message
)

// Filter is a compiled expression that is true or false. It is safe for concurrent use.
type Filter struct {
	terms []term // all must be true; those that read the value stand last
	data  *schemas.Projection
}

// term is one side of the outermost && of an expression.
type term struct {
	program cel.Program
	value   bool // it reads the value
}

// New compiles an expression that is true or false. Values are decoded by reg; with nil, an expression that reads
// the value is an error. Every error is an [*Error].
func New(expr string, reg *schemas.Registry) (*Filter, error) {
	c, err := compile(expr, reg)
	if err != nil {
		return nil, err
	}
	if k := c.ast.OutputType().Kind(); k != types.BoolKind && k != types.DynKind {
		return nil, &Error{Expr: expr, Line: 1, Column: 1, Problem: fmt.Sprintf("the expression is a %s: a filter is true or false, as in value.country == \"IT\"", c.ast.OutputType())}
	}
	f := &Filter{data: c.data}
	for _, e := range conjuncts(c.ast.NativeRep().Expr(), nil) {
		p, err := c.program(e)
		if err != nil {
			return nil, err
		}
		f.terms = append(f.terms, term{p, readsValue(e)})
	}
	slices.SortStableFunc(f.terms, func(a, b term) int {
		switch {
		case a.value == b.value:
			return 0
		case b.value:
			return -1
		default:
			return 1
		}
	})
	return f, nil
}

// conjuncts are the sides of the outermost &&. CEL's && does not care for their order, nor do errors: false and a
// failure is false.
func conjuncts(e ast.Expr, into []ast.Expr) []ast.Expr {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.LogicalAnd {
		for _, arg := range e.AsCall().Args() {
			into = conjuncts(arg, into)
		}
		return into
	}
	return append(into, e)
}

// Match reports whether the expression is true of e. It is what reader.Config.Match takes. It may wait for the
// registry to say a schema that is not known yet, no longer than [schemas.Registry] waits.
//
// An error wraps those of package schemas where the value cannot be decoded; any other says why the expression has no
// answer for e.
func (f *Filter) Match(e *event.Event) (bool, error) {
	v := take(e, f.data)
	defer v.put()
	var failed error
	for _, t := range f.terms {
		out, err := v.eval(t.program)
		switch {
		case err != nil:
			failed = errors.Join(failed, err)
		case out == types.False:
			return false, nil
		case out != types.True:
			failed = errors.Join(failed, fmt.Errorf("filter %s: the expression is %s, neither true nor false", place(e), text(out)))
		}
	}
	return failed == nil, failed
}

// Value is a compiled expression of any type: what events are counted by. It is safe for concurrent use.
type Value struct {
	program cel.Program
	data    *schemas.Projection
}

// NewValue compiles an expression of any type. It is [New] in all else.
func NewValue(expr string, reg *schemas.Registry) (*Value, error) {
	c, err := compile(expr, reg)
	if err != nil {
		return nil, err
	}
	p, err := c.program(c.ast.NativeRep().Expr())
	if err != nil {
		return nil, err
	}
	return &Value{p, c.data}, nil
}

// Eval returns the expression's value for e as text: null is "null", a timestamp is RFC 3339 in UTC, lists and maps
// are JSON with their keys in order. Errors are those of [Filter.Match].
func (x *Value) Eval(e *event.Event) (string, error) {
	v := take(e, x.data)
	defer v.put()
	out, err := v.eval(x.program)
	if err != nil {
		return "", err
	}
	return text(out), nil
}

// eval evaluates p. What kept a value from being decoded is the error, not what became of that in CEL's hands.
func (v *vars) eval(p cel.Program) (ref.Val, error) {
	out, _, err := p.Eval(v)
	switch {
	case err == nil:
		return out, nil
	case v.undecodable != nil:
		return nil, v.undecodable
	default:
		return nil, fmt.Errorf("filter %s: %w", place(v.e), err)
	}
}

func place(e *event.Event) string {
	return fmt.Sprintf("%s/%d@%d", e.Topic, e.Partition, e.Offset)
}

// decode decodes what the expression names, once.
func (v *vars) decode() ref.Val {
	if v.value == nil {
		data, err := v.data.Decode(context.Background(), v.e) // the registry bounds the wait for a schema
		if err != nil {
			v.undecodable = err
			v.value = types.WrapErr(err)
		} else {
			v.value = adapter{}.NativeToValue(data)
		}
	}
	return v.value
}
