package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// itemsMost bounds how many values one path finds in a body.
const itemsMost = 1024

// lookupJSON returns what stands in body at path: names joined by dots, where [] after a name, or alone at the beginning,
// is every item of an array ("data.id", "[].id", "items[].ref"). Texts, numbers and booleans are values. complete is
// false when an item has none, or when the body is no JSON.
func lookupJSON(body []byte, path string) (values []string, complete bool) {
	if len(bytes.TrimSpace(body)) == 0 || !json.Valid(body) {
		return nil, false
	}
	complete = walk(body, pathSteps(path), &values)
	return values, complete && len(values) <= itemsMost
}

// pathSteps cuts a path into names and [].
func pathSteps(path string) []string {
	var steps []string
	for name := range strings.SplitSeq(path, ".") {
		base, each := strings.CutSuffix(name, "[]")
		if base != "" {
			steps = append(steps, base)
		}
		if each {
			steps = append(steps, "[]")
		}
	}
	return steps
}

func walk(raw []byte, steps []string, values *[]string) bool {
	if len(*values) > itemsMost {
		return false
	}
	if len(steps) == 0 {
		text, ok := scalar(raw)
		if ok {
			*values = append(*values, text)
		}
		return ok
	}
	if steps[0] == "[]" {
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil || len(items) == 0 {
			return false
		}
		complete := true
		for _, item := range items {
			complete = walk(item, steps[1:], values) && complete
		}
		return complete
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return false
	}
	field, ok := fields[steps[0]]
	return ok && walk(field, steps[1:], values)
}

// scalar returns a text, a number or a boolean as text.
func scalar(raw []byte) (string, bool) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		var s string
		return s, json.Unmarshal(raw, &s) == nil
	case '{', '[', 'n':
		return "", false
	default:
		return string(raw), true
	}
}

// object reads a JSON object whose names differ, case aside: of two equal names one parser takes the first and another
// the last, so that what was signed need not be what is read.
func object(raw []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	fields, seen := map[string]json.RawMessage{}, map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, errors.New("it is no JSON object")
		}
		name, _ := t.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("it is no JSON object")
		}
		low := strings.ToLower(name)
		if seen[low] {
			return nil, fmt.Errorf("it holds %q more than once", name)
		}
		seen[low], fields[name] = true, value
	}
	return fields, nil
}
