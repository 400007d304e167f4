package filter

import (
	"fmt"
	"strconv"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// Variable is what an expression may read of an event.
type Variable struct {
	Name string
	Type string // as CEL says it
	Doc  string // one line
}

// Variables are all there are, in the order in which a help text lists them.
func Variables() []Variable {
	out := make([]Variable, len(variables))
	for i, v := range variables {
		out[i] = Variable{v.name, v.kind.String(), v.doc}
	}
	return out
}

func names() []string {
	out := make([]string, len(variables))
	for i, v := range variables {
		out[i] = v.name
	}
	return out
}

var variables = []struct {
	name string
	kind *cel.Type
	doc  string
	of   func(e *event.Event) ref.Val // nil for what is computed: value and headers
}{
	{"value", cel.DynType, "the decoded data: value.country; null for a tombstone", nil},
	{"key", cel.NullableType(cel.StringType), "the record's key, or null", func(e *event.Event) ref.Val {
		if e.Key == nil {
			return types.NullValue
		}
		return types.String(e.Key)
	}},
	{"headers", cel.MapType(cel.StringType, cel.StringType), "the record's headers by name: the last value, \"\" where there is none", nil},
	{"type", cel.StringType, "the event's type: shop.OrderPlaced", func(e *event.Event) ref.Val { return types.String(e.Type) }},
	{"id", cel.StringType, "the event's id", func(e *event.Event) ref.Val { return types.String(e.ID) }},
	{"source", cel.StringType, "the service that published the event", func(e *event.Event) ref.Val { return types.String(e.Source) }},
	{"tenant", cel.StringType, "the event's tenant, \"\" where there is none", func(e *event.Event) ref.Val { return types.String(e.Tenant) }},
	{"time", cel.TimestampType, "when the event happened", func(e *event.Event) ref.Val { return types.Timestamp{Time: e.Time} }},
	{"timestamp", cel.TimestampType, "when the record was published", func(e *event.Event) ref.Val { return types.Timestamp{Time: e.Published} }},
	{"topic", cel.StringType, "the record's topic", func(e *event.Event) ref.Val { return types.String(e.Topic) }},
	{"partition", cel.IntType, "the record's partition", func(e *event.Event) ref.Val { return types.Int(e.Partition) }},
	{"offset", cel.IntType, "the record's offset", func(e *event.Event) ref.Val { return types.Int(e.Offset) }},
	{"schema", cel.IntType, "the id of the schema that the value was written with, 0 where it says none", func(e *event.Event) ref.Val {
		f, err := schemas.ParseFrame(e.Value, e.Headers)
		if err != nil {
			return types.Int(0)
		}
		return types.Int(f.ID)
	}},
	{"error.class", cel.StringType, "of a dead letter: why it is one, as timeout or poison", header(event.HeaderErrorClass)},
	{"error.message", cel.StringType, "of a dead letter: the handler's error", header(event.HeaderError)},
	{"error.group", cel.StringType, "of a dead letter: the group that gave it up", header(event.HeaderGroup)},
	{"error.handler", cel.StringType, "of a dead letter: the handler that gave it up", header(event.HeaderHandler)},
	{"error.attempts", cel.IntType, "of a dead letter: how often it was tried", number(event.HeaderAttempts)},
	{"origin.topic", cel.StringType, "of a copy: the topic it was first read from", header(event.HeaderOriginTopic)},
	{"origin.partition", cel.IntType, "of a copy: the partition it was first read from", number(event.HeaderOriginPartition)},
	{"origin.offset", cel.IntType, "of a copy: its first offset", number(event.HeaderOriginOffset)},
}

func header(name string) func(*event.Event) ref.Val {
	return func(e *event.Event) ref.Val { return types.String(e.Headers.Get(name)) }
}

// number is a header's number, 0 where it holds none.
func number(name string) func(*event.Event) ref.Val {
	return func(e *event.Event) ref.Val {
		n, err := strconv.ParseInt(string(e.Headers.Get(name)), 10, 64)
		if err != nil {
			return types.Int(0)
		}
		return types.Int(n)
	}
}

// environment is what expressions are compiled in.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	opts := []cel.EnvOption{
		cel.CustomTypeAdapter(adapter{}),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxLength),
		cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
		cel.Function("values", cel.MemberOverload("headers_values",
			[]*cel.Type{cel.MapType(cel.StringType, cel.StringType), cel.StringType}, cel.ListType(cel.StringType),
			cel.BinaryBinding(headerValues))),
		cel.Function("json",
			cel.Overload("json_bytes", []*cel.Type{cel.BytesType}, cel.DynType, cel.UnaryBinding(fromJSON)),
			cel.Overload("json_string", []*cel.Type{cel.StringType}, cel.DynType, cel.UnaryBinding(fromJSON))),
	}
	for _, v := range variables {
		opts = append(opts, cel.Variable(v.name, v.kind))
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	return env, nil
})

// getters finds a variable's function by its name.
var getters = func() map[string]func(*event.Event) ref.Val {
	out := map[string]func(*event.Event) ref.Val{}
	for _, v := range variables {
		if v.of != nil {
			out[v.name] = v.of
		}
	}
	return out
}()

// vars gives one event's variables to CEL, each when it is asked for.
type vars struct {
	e           *event.Event
	data        *schemas.Projection
	value       ref.Val // nil until it is decoded
	undecodable error
}

var pool = sync.Pool{New: func() any { return new(vars) }}

func take(e *event.Event, data *schemas.Projection) *vars {
	v, _ := pool.Get().(*vars)
	v.e, v.data = e, data
	return v
}

func (v *vars) put() {
	*v = vars{}
	pool.Put(v)
}

// ResolveName is part of CEL's activation.
func (v *vars) ResolveName(name string) (any, bool) {
	switch name {
	case "value":
		return v.decode(), true
	case "headers":
		return headerMap(v.e.Headers), true
	}
	if get, ok := getters[name]; ok {
		return get(v.e), true
	}
	return nil, false
}

// Parent is part of CEL's activation.
func (v *vars) Parent() cel.Activation { return nil }

var _ traits.Mapper = headerMap(nil)
