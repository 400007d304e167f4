package schemas

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// maxDefaults bounds the values that a schema's defaults stand for, all of them written out.
const maxDefaults = 1 << 20

// weighDefaults refuses a text whose defaults stand for too many values. A field's default may be a record whose own
// fields have defaults: with two such fields at every step forty steps stand for 2^40 values in a text of a few
// kilobytes, and a parser that checks each default by writing it out never ends. It is weighed before it is parsed;
// a text that is not a schema at all weighs nothing here and is refused by the parser.
func weighDefaults(text string, refs []Schema) error {
	w := weigher{records: map[string]definition{}, known: map[string]int{}}
	for _, ref := range refs {
		w.learn(ref.Text)
	}
	w.learn(text)
	total := 0
	for name, def := range w.records {
		for i := range def.fields {
			if total += w.ofField(name, i); total > maxDefaults {
				return fmt.Errorf("the defaults of the schema stand for more than %d values, or for themselves", maxDefaults)
			}
		}
	}
	return nil
}

type weigher struct {
	records map[string]definition
	known   map[string]int // weights by record and field; -1 while being weighed
}

type definition struct {
	namespace string
	fields    []map[string]any
}

func (w *weigher) learn(text string) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) == nil {
		w.collect(v, "")
	}
}

// collect finds the records of a schema. A field that is a definition itself, as goavro allows, is one too.
func (w *weigher) collect(v any, namespace string) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			w.collect(x, namespace)
		}
	case map[string]any:
		name, inner := definedName(v, namespace)
		if fields, ok := v["fields"].([]any); ok && name != "" {
			def := definition{namespace: inner}
			for _, f := range fields {
				if f, ok := f.(map[string]any); ok {
					def.fields = append(def.fields, f)
					w.collect(f, inner)
				}
			}
			w.records[name] = def
		}
		for _, key := range []string{"type", "items", "values"} {
			switch v[key].(type) {
			case map[string]any, []any:
				w.collect(v[key], namespace)
			}
		}
	}
}

// definedName is the full name of a definition, and the namespace within it.
func definedName(v map[string]any, namespace string) (name, inner string) {
	name, _ = v["name"].(string)
	if ns, ok := v["namespace"].(string); ok {
		namespace = ns
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name, name[:i]
	}
	if name != "" && namespace != "" {
		name = namespace + "." + name
	}
	return name, namespace
}

// ofField is the weight of a field's default, 0 where it has none.
func (w *weigher) ofField(record string, i int) int {
	def := w.records[record]
	value, ok := def.fields[i]["default"]
	if !ok {
		return 0
	}
	key := record + "/" + strconv.Itoa(i)
	if known, ok := w.known[key]; ok {
		if known < 0 {
			return maxDefaults + 1 // it needs itself
		}
		return known
	}
	w.known[key] = -1
	weight := w.of(def.fields[i], value, def.namespace)
	w.known[key] = weight
	return weight
}

// of is the weight of value as a default of the type t, at most maxDefaults+1.
func (w *weigher) of(t, value any, namespace string) int {
	weight := 1
	add := func(more int) { weight = min(weight+more, maxDefaults+1) }
	switch t := t.(type) {
	case string:
		name := t
		if _, ok := w.records[namespace+"."+t]; ok && !strings.Contains(t, ".") {
			name = namespace + "." + t
		}
		if given, ok := value.(map[string]any); ok {
			for i, f := range w.records[name].fields {
				fieldName, _ := f["name"].(string)
				if x, ok := given[fieldName]; ok {
					add(w.of(f, x, w.records[name].namespace))
				} else {
					add(w.ofField(name, i))
				}
			}
		}
	case []any: // whichever branch it is
		for _, branch := range t {
			weight = max(weight, w.of(branch, value, namespace))
		}
	case map[string]any:
		switch {
		case t["fields"] != nil:
			name, _ := definedName(t, namespace)
			return w.of(name, value, "")
		case t["items"] != nil:
			items, _ := value.([]any)
			for _, x := range items {
				add(w.of(t["items"], x, namespace))
			}
		case t["values"] != nil:
			values, _ := value.(map[string]any)
			for _, x := range values {
				add(w.of(t["values"], x, namespace))
			}
		case t["type"] != nil:
			return w.of(t["type"], value, namespace)
		}
	}
	return weight
}
