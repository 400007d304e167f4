package schemas

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/twmb/avro"
)

// The types of schema that a registry knows.
const (
	TypeAvro     = "AVRO"
	TypeJSON     = "JSON"
	TypeProtobuf = "PROTOBUF"
)

// Schema is one schema as a registry knows it, or as [Parse] read it: then ID, GUID, Subject and Version are zero.
type Schema struct {
	// ID is the registry's number for the text, from 1. One text has one id in every subject.
	ID int32
	// GUID is the registry's name for the text that is the same in every registry, "" where the registry has none.
	GUID string
	// Subject and Version say where it was found: "" and 0 for one that was asked for by id.
	Subject string
	Version int
	// Name is the full name of the record, enum or fixed, else the word for its type: "string", "array", "union".
	Name string
	// Type is AVRO, JSON or PROTOBUF.
	Type string
	// Text is the schema as it was written, without insignificant space.
	Text string
	// Fingerprint is the CRC-64-AVRO of the parsing canonical form: equal fingerprints mean equal bytes on the wire.
	// It says nothing of defaults and logical types.
	Fingerprint uint64

	p *parsed // nil unless Type is AVRO
}

// Reference names a schema of another subject that a text uses by its full name.
type Reference struct {
	Name    string `json:"name"`    // the full name that the text uses
	Subject string `json:"subject"` // where it is registered
	Version int    `json:"version"` // from 1
}

// Limits bound what is admitted as a schema, so that a hostile text costs little.
type Limits struct {
	// Text is the size in bytes. Defaults to 1 MiB; 128 KiB is good advice.
	Text int
	// Depth is the nesting of the JSON text; one level of records takes three. Defaults to 192.
	Depth int
	// Fields counts fields and types together: the objects of the text. Defaults to 10,000.
	Fields int
}

func (l Limits) withDefaults() Limits {
	if l.Text == 0 {
		l.Text = 1 << 20
	}
	if l.Depth == 0 {
		l.Depth = 192
	}
	if l.Fields == 0 {
		l.Fields = 10_000
	}
	return l
}

// parsed is what is compiled once per schema.
type parsed struct {
	avro *avro.Schema // with the rich logical types
	full string       // self-contained text: references are inlined

	generic func() (*genericCodec, error) // for values without a Go type, compiled when first needed
}

// Parse admits an Avro schema text and compiles it, within the default [Limits]. The refs are the schemas that the
// text uses by name, and those that they use in turn: what is used comes before its user.
//
// The text is anyone's: Parse takes bounded time and memory on any input, and every error says what is wrong with it.
func Parse(text string, refs ...Schema) (Schema, error) { return Limits{}.Parse(text, refs...) }

// Parse is [Parse] within l; a zero field takes its default.
func (l Limits) Parse(text string, refs ...Schema) (Schema, error) {
	l = l.withDefaults()
	if err := l.admit(text); err != nil {
		return Schema{}, fmt.Errorf("admit schema: %w", err)
	}
	// A bare name is allowed where clients send it: long for "long".
	if t := strings.TrimSpace(text); t != "" && t[0] != '"' && t[0] != '{' && t[0] != '[' {
		text = `"` + t + `"`
	}
	if err := weighDefaults(text, refs); err != nil {
		return Schema{}, fmt.Errorf("admit schema: %w", err)
	}
	s, err := parseWith(text, refs)
	if err != nil {
		return Schema{}, fmt.Errorf("parse schema: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(text)); err != nil {
		return Schema{}, fmt.Errorf("parse schema: %w", err)
	}
	full := compact.String()
	if len(refs) > 0 {
		whole, err := s.Root().Schema()
		if err != nil {
			return Schema{}, fmt.Errorf("inline the references of a schema: %w", err)
		}
		s, full = whole, whole.String()
	}
	return Schema{
		Name: rootName(s), Type: TypeAvro, Text: compact.String(), Fingerprint: fingerprint(s),
		p: newParsed(s, full),
	}, nil
}

// parseWith keeps a panic of the parser, on a text that is anyone's, from ending the process.
func parseWith(text string, refs []Schema) (s *avro.Schema, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("the parser panicked: %v", r)
		}
	}()
	if len(refs) == 0 {
		return avro.Parse(text)
	}
	var cache avro.SchemaCache
	for _, ref := range refs {
		if ref.p == nil {
			return nil, fmt.Errorf("reference %s is no parsed Avro schema", ref.Name)
		}
		if _, err := cache.Parse(ref.Text); err != nil {
			return nil, fmt.Errorf("reference %s: %w", ref.Name, err)
		}
	}
	return cache.Parse(text)
}

func newParsed(s *avro.Schema, full string) *parsed {
	return &parsed{avro: s, full: full, generic: sync.OnceValues(func() (*genericCodec, error) { return newGeneric(s) })}
}

// Canonical is the parsing canonical form: full names, no defaults, docs, aliases or logical types; references are
// inlined. "" for a schema that is not Avro.
func (s Schema) Canonical() string {
	if s.p == nil {
		return ""
	}
	return string(s.p.avro.Canonical())
}

// Full is the text with its references inlined, so that it stands alone. "" for a schema that is not Avro.
func (s Schema) Full() string {
	if s.p == nil {
		return ""
	}
	return s.p.full
}

func rootName(s *avro.Schema) string {
	root := s.Root()
	switch {
	case root.Name != "" && root.Namespace != "" && !strings.Contains(root.Name, "."):
		return root.Namespace + "." + root.Name
	case root.Name != "":
		return root.Name
	}
	return root.Type
}

func fingerprint(s *avro.Schema) uint64 {
	return binary.BigEndian.Uint64(s.Fingerprint(avro.NewRabin()))
}

var errNoSchema = errors.New("the text is empty")

// admit counts, without building anything.
func (l Limits) admit(text string) error {
	if len(text) > l.Text {
		return fmt.Errorf("the text has %d bytes; the limit is %d", len(text), l.Text)
	}
	if strings.TrimSpace(text) == "" {
		return errNoSchema
	}
	depth, fields, inString := 0, 0, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > l.Depth {
				return fmt.Errorf("the text nests deeper than %d levels", l.Depth)
			}
			if c == '{' {
				if fields++; fields > l.Fields {
					return fmt.Errorf("the text has more than %d fields and types", l.Fields)
				}
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
