package schemas

import (
	"encoding/json"
	"reflect"
	"strings"
)

// AliasesOf are the full names that the schema of t says its type had before: an event that was written under one of
// them is read as a t. Nil where t carries no schema, or one without aliases.
func AliasesOf(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	d, ok := reflect.TypeAssert[Described](reflect.New(t))
	if !ok {
		return nil
	}
	var s struct {
		Aliases []string `json:"aliases"`
	}
	if json.Unmarshal([]byte(d.AvroSchema()), &s) != nil {
		return nil // not a record; what is wrong with the text is said where it is compiled
	}
	name := NameOf(t)
	for i, a := range s.Aliases {
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 && !strings.Contains(a, ".") {
			s.Aliases[i] = name[:dot+1] + a // an alias without a dot is in the type's own namespace
		}
	}
	return s.Aliases
}
