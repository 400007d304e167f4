package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// adapter makes CEL's values of decoded data: those of package schemas, and what JSON has.
type adapter struct{}

// NativeToValue is part of CEL's types.Adapter.
func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case ref.Val:
		return v
	case string:
		return types.String(v)
	case int32:
		return types.Int(v)
	case int64:
		return types.Int(v)
	case map[string]any:
		return types.NewStringInterfaceMap(a, v)
	case []any:
		return types.NewDynamicList(a, v)
	case []string:
		return types.NewStringList(a, v)
	case time.Time:
		return types.Timestamp{Time: v}
	case *big.Rat:
		f, _ := v.Float64()
		return types.Double(f)
	case [16]byte:
		return types.String(uuid(v))
	case schemas.Duration:
		return types.NewStringInterfaceMap(a, map[string]any{
			"months": int64(v.Months), "days": int64(v.Days), "milliseconds": int64(v.Milliseconds),
		})
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return types.Int(i)
		}
		if f, err := v.Float64(); err == nil {
			return types.Double(f)
		}
		return types.String(v)
	default:
		return types.DefaultTypeAdapter.NativeToValue(v)
	}
}

func uuid(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// text is a value as a person reads it.
func text(v ref.Val) string {
	switch v := v.(type) {
	case types.String:
		return string(v)
	case types.Bytes:
		return string(v)
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339Nano)
	case types.Duration:
		return v.String()
	case types.Double:
		return strconv.FormatFloat(float64(v), 'g', -1, 64)
	case types.Int, types.Uint, types.Bool:
		return fmt.Sprint(v.Value())
	case types.Null:
		return "null"
	case traits.Mapper, traits.Lister:
		b, err := json.Marshal(plain(v))
		if err != nil {
			return fmt.Sprint(v.Value())
		}
		return string(b)
	default:
		return fmt.Sprint(v.Value())
	}
}

// plain makes of a list or a map what encoding/json takes: what is neither is its text, except numbers, truth and null.
func plain(v ref.Val) any {
	switch v := v.(type) {
	case traits.Mapper:
		out := map[string]any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			k := it.Next()
			out[text(k)] = plain(v.Get(k))
		}
		return out
	case traits.Lister:
		out := []any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			out = append(out, plain(it.Next()))
		}
		return out
	case types.Int, types.Uint, types.Bool:
		return v.Value()
	case types.Double:
		return json.RawMessage(strconv.AppendFloat(nil, float64(v), 'g', -1, 64))
	case types.Null:
		return nil
	default:
		return text(v)
	}
}

// headerMap is a record's headers as a map: a name has its last value, and one that is not there has "". Asking with
// in tells; a loop goes over the names.
type headerMap event.Headers

// Find is part of traits.Mapper.
func (h headerMap) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	return types.String(event.Headers(h).Get(string(name))), true
}

// Get is part of traits.Mapper.
func (h headerMap) Get(key ref.Val) ref.Val {
	v, ok := h.Find(key)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key)
	}
	return v
}

// Contains is part of traits.Mapper.
func (h headerMap) Contains(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key)
	}
	return types.Bool(slices.ContainsFunc(h, func(x event.Header) bool { return x.Key == string(name) }))
}

// native is the same map as CEL makes it: for the rare.
func (h headerMap) native() traits.Mapper {
	m := make(map[string]string, len(h))
	for _, x := range h {
		m[x.Key] = string(x.Value)
	}
	return types.NewStringStringMap(adapter{}, m)
}

// Size is part of traits.Mapper.
func (h headerMap) Size() ref.Val { return h.native().Size() }

// Iterator is part of traits.Mapper.
func (h headerMap) Iterator() traits.Iterator { return h.native().Iterator() }

// Equal is part of ref.Val.
func (h headerMap) Equal(other ref.Val) ref.Val { return h.native().Equal(other) }

// ConvertToNative is part of ref.Val.
func (h headerMap) ConvertToNative(t reflect.Type) (any, error) { return h.native().ConvertToNative(t) }

// ConvertToType is part of ref.Val.
func (h headerMap) ConvertToType(t ref.Type) ref.Val { return h.native().ConvertToType(t) }

// Type is part of ref.Val.
func (h headerMap) Type() ref.Type { return types.MapType }

// Value is part of ref.Val.
func (h headerMap) Value() any { return h.native().Value() }

// headerValues is headers.values("x").
func headerValues(m, key ref.Val) ref.Val {
	h, ok := m.(headerMap)
	name, isText := key.(types.String)
	if !ok || !isText {
		return types.MaybeNoSuchOverloadErr(m)
	}
	out := []string{}
	for _, x := range h {
		if x.Key == string(name) {
			out = append(out, string(x.Value))
		}
	}
	return types.NewStringList(adapter{}, out)
}

// fromJSON is json(x): the data of a JSON document that a field holds as text or bytes, as a webhook's body.
func fromJSON(v ref.Val) ref.Val {
	var text []byte
	switch v := v.(type) {
	case types.Bytes:
		text = v
	case types.String:
		text = []byte(v)
	default:
		return types.MaybeNoSuchOverloadErr(v)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var data any
	if err := dec.Decode(&data); err != nil {
		return types.NewErr("json: it is no JSON document: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return types.NewErr("json: something stands behind the document")
	}
	return adapter{}.NativeToValue(data)
}
