package filter

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/millrace/millrace/schemas"
)

// Error is an expression that cannot be used: a mistake of whoever wrote it, not of any record.
type Error struct {
	Expr         string
	Line, Column int    // from 1; columns count code points
	Problem      string // what is wrong
	Hint         string // what to write instead, "" where nothing is known
}

// Error shows the place in the expression, and what is allowed.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "column %d: %s", e.Column, e.Problem)
	if e.Line > 1 {
		b.Reset()
		fmt.Fprintf(&b, "line %d, column %d: %s", e.Line, e.Column, e.Problem)
	}
	if lines := strings.Split(e.Expr, "\n"); e.Line <= len(lines) && utf8.RuneCountInString(lines[e.Line-1]) <= 200 {
		fmt.Fprintf(&b, "\n  %s\n  %s^", printable(lines[e.Line-1]), strings.Repeat(" ", e.Column-1))
	}
	if e.Hint != "" {
		b.WriteString("\n" + e.Hint)
	}
	return b.String()
}

// printable keeps the caret under its place, and the terminal as it was.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

type compiled struct {
	expr string
	env  *cel.Env
	ast  *cel.Ast
	data *schemas.Projection // nil if the value is not read
}

func compile(expr string, reg *schemas.Registry) (compiled, error) {
	env, err := environment()
	if err != nil {
		return compiled{}, &Error{Expr: expr, Line: 1, Column: 1, Problem: err.Error()}
	}
	checked, issues := env.Compile(expr)
	if issues.Err() != nil {
		return compiled{}, explain(expr, issues)
	}
	root := checked.NativeRep().Expr()
	if err := refuse(expr, checked.NativeRep()); err != nil {
		return compiled{}, err
	}
	c := compiled{expr: expr, env: env, ast: checked}
	if !readsValue(root) {
		return c, nil
	}
	if reg == nil {
		return compiled{}, &Error{Expr: expr, Line: 1, Column: 1, Problem: "the expression reads the value, and there is no schema registry to decode it with"}
	}
	c.data = reg.Project(fields(root)...)
	return c, nil
}

// explain makes the first of CEL's complaints a person's.
func explain(expr string, issues *cel.Issues) *Error {
	first := issues.Errors()[0]
	e := &Error{Expr: expr, Line: first.Location.Line(), Column: first.Location.Column() + 1}
	e.Line, e.Column = max(e.Line, 1), max(e.Column, 1)
	problem, _, _ := strings.Cut(first.Message, " (in container")
	problem = strings.TrimPrefix(problem, "Syntax error: ")
	if len(problem) > maxProblem {
		problem = strings.ToValidUTF8(problem[:maxProblem], "") + "…"
	}
	e.Problem = printable(problem)
	known := "known are " + strings.Join(names(), ", ")
	name, undeclared := strings.CutPrefix(problem, "undeclared reference to '")
	name, suggestion, _ := strings.Cut(name, "'")
	switch {
	case problem == "invalid matches argument":
		e.Problem = "the text is no regular expression of RE2, or a very large one"
	case undeclared && suggestion == "" && !strings.Contains(expr, name+"("):
		e.Hint = known + "; a field of the data is value." + name
	case undeclared:
		e.Hint = known
	}
	return e
}

// refuse finds what compiles and cannot be meant.
func refuse(expr string, tree *ast.AST) error {
	var found error
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.SelectKind || !e.AsSelect().IsTestOnly() || found != nil {
			return
		}
		if op := e.AsSelect().Operand(); op.Kind() == ast.IdentKind && op.AsIdent() == "headers" {
			at := tree.SourceInfo().GetStartLocation(e.ID())
			found = &Error{
				Expr: expr, Line: max(at.Line(), 1), Column: max(at.Column()+1, 1), Problem: "has() says nothing about a header",
				Hint: fmt.Sprintf("write %q in headers", e.AsSelect().FieldName()),
			}
		}
	}))
	return found
}

// program plans a part of the expression. A loop alone can multiply work beyond what the record and the expression
// hold, so only where there is one is the effort counted, which costs three times the evaluation.
func (c compiled) program(e ast.Expr) (cel.Program, error) {
	tree := c.ast.NativeRep()
	part := ast.NewCheckedAST(ast.NewAST(e, tree.SourceInfo()), tree.TypeMap(), tree.ReferenceMap())
	opts := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if contains(e, func(e ast.Expr) bool { return e.Kind() == ast.ComprehensionKind }) {
		opts = append(opts, cel.CostLimit(maxEffort))
	}
	p, err := c.env.PlanProgram(part, opts...)
	if err != nil {
		return nil, &Error{Expr: c.expr, Line: 1, Column: 1, Problem: err.Error()}
	}
	return p, nil
}

func contains(e ast.Expr, is func(ast.Expr) bool) bool {
	found := false
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) { found = found || is(e) }))
	return found
}

func readsValue(e ast.Expr) bool { return contains(e, isValue) }

func isValue(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == "value" }

// fields are the paths of what the expression reads of the value. A path that nothing in a schema matches costs
// nothing, so a loop's own variable that is called value does no harm.
func fields(e ast.Expr) [][]string {
	var paths [][]string
	within := map[int64]bool{} // parts of a longer path, or of a comparison with null
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if within[e.ID()] {
			return
		}
		if e.Kind() == ast.CallKind {
			if of, ok := comparedWithNull(e); ok {
				within[of.ID()] = true
			}
		}
		var path []string
		var inner []int64
		for at := e; ; {
			if isValue(at) {
				for _, id := range inner {
					within[id] = true
				}
				paths = append(paths, path)
				return
			}
			name, operand, ok := step(at)
			if !ok {
				return
			}
			path = append([]string{name}, path...)
			inner = append(inner, operand.ID())
			at = operand
		}
	}))
	return paths
}

// step takes x.name and x["name"] apart.
func step(e ast.Expr) (name string, operand ast.Expr, ok bool) {
	switch e.Kind() {
	case ast.SelectKind:
		return e.AsSelect().FieldName(), e.AsSelect().Operand(), true
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.Index || call.Args()[1].Kind() != ast.LiteralKind {
			return "", nil, false
		}
		s, ok := call.Args()[1].AsLiteral().(types.String)
		return string(s), call.Args()[0], ok
	default:
		return "", nil, false
	}
}

// comparedWithNull finds the bare value in value == null, which needs none of its fields.
func comparedWithNull(e ast.Expr) (ast.Expr, bool) {
	call := e.AsCall()
	if f := call.FunctionName(); f != operators.Equals && f != operators.NotEquals {
		return nil, false
	}
	a, b := call.Args()[0], call.Args()[1]
	isNull := func(e ast.Expr) bool { return e.Kind() == ast.LiteralKind && e.AsLiteral() == types.NullValue }
	switch {
	case isValue(a) && isNull(b):
		return a, true
	case isValue(b) && isNull(a):
		return b, true
	default:
		return nil, false
	}
}
