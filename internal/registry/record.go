package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// keyType says what a record of the topic is about.
type keyType string

const (
	keySchema        keyType = "SCHEMA"
	keyConfig        keyType = "CONFIG"
	keyMode          keyType = "MODE"
	keyDeleteSubject keyType = "DELETE_SUBJECT"
	keyClearSubject  keyType = "CLEAR_SUBJECT"
	keyNoop          keyType = "NOOP"
)

// key is the key of a record of the topic.
type key struct {
	kind    keyType
	subject string // "" for the global configuration and mode
	version int    // of a SCHEMA
}

// markKey is the key of the record that holds the highest id ever given. To every reader of the topic it is a NOOP,
// which is skipped; its bytes differ from those of other NOOPs, so that compaction keeps it apart.
const markKey = `{"magic":0,"keytype":"NOOP"}`

// bytes are the key as it is written. Compaction compares bytes: their order and spelling are part of the format.
func (k key) bytes() []byte {
	dst := append([]byte(`{"keytype":"`), k.kind...)
	dst = append(dst, '"')
	if k.subject != "" || k.kind == keySchema {
		dst = append(dst, `,"subject":`...)
		dst = appendString(dst, k.subject)
	}
	if k.kind == keySchema {
		dst = append(dst, `,"version":`...)
		dst = strconv.AppendInt(dst, int64(k.version), 10)
		return append(dst, `,"magic":1}`...)
	}
	return append(dst, `,"magic":0}`...)
}

var errKey = errors.New("not a key of a registry")

// parseKey reads a key by whichever registry it was written: any order, spaces, more members, a null subject.
func parseKey(raw []byte) (key, error) {
	var wire struct {
		Keytype *string `json:"keytype"`
		Subject *string `json:"subject"`
		Version int64   `json:"version"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return key{}, fmt.Errorf("%w: %w", errKey, err)
	}
	if wire.Keytype == nil {
		return key{}, fmt.Errorf("%w: no keytype", errKey)
	}
	k := key{kind: keyType(*wire.Keytype)}
	if wire.Subject != nil {
		k.subject = *wire.Subject
	}
	switch k.kind {
	case keySchema:
		if wire.Subject == nil || wire.Version < 1 || wire.Version > math.MaxInt32 {
			return key{}, fmt.Errorf("%w: subject %q, version %d", errKey, clip(k.subject), wire.Version)
		}
		k.version = int(wire.Version)
	case keyDeleteSubject, keyClearSubject:
		if wire.Subject == nil {
			return key{}, fmt.Errorf("%w: no subject", errKey)
		}
	default: // the subject may be missing, and kinds that others have are skipped later
	}
	return k, nil
}

// Reference names a schema of another subject that a text uses by its full name.
type Reference struct {
	Name    string `json:"name"`    // the full name that the text uses
	Subject string `json:"subject"` // where it is registered
	Version int    `json:"version"` // from 1
}

// schemaValue is the value of a SCHEMA record.
type schemaValue struct {
	Subject    string          `json:"subject"`
	Version    int             `json:"version"`
	ID         int32           `json:"id"`
	SchemaType string          `json:"schemaType"` // "" is AVRO
	References []Reference     `json:"references"`
	Metadata   json.RawMessage `json:"metadata"`
	RuleSet    json.RawMessage `json:"ruleSet"`
	Schema     string          `json:"schema"`
	Deleted    bool            `json:"deleted"`
}

func (v schemaValue) bytes() []byte {
	dst := append([]byte(`{"subject":`), appendString(nil, v.Subject)...)
	dst = append(dst, `,"version":`...)
	dst = strconv.AppendInt(dst, int64(v.Version), 10)
	dst = append(dst, `,"id":`...)
	dst = strconv.AppendInt(dst, int64(v.ID), 10)
	if v.SchemaType != "" && v.SchemaType != typeAvro {
		dst = append(dst, `,"schemaType":`...)
		dst = appendString(dst, v.SchemaType)
	}
	if len(v.References) > 0 {
		dst = append(dst, `,"references":[`...)
		for i, r := range v.References {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"name":`...)
			dst = appendString(dst, r.Name)
			dst = append(dst, `,"subject":`...)
			dst = appendString(dst, r.Subject)
			dst = append(dst, `,"version":`...)
			dst = strconv.AppendInt(dst, int64(r.Version), 10)
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	if v.Metadata != nil {
		dst = append(append(dst, `,"metadata":`...), v.Metadata...)
	}
	if v.RuleSet != nil {
		dst = append(append(dst, `,"ruleSet":`...), v.RuleSet...)
	}
	dst = append(dst, `,"schema":`...)
	dst = appendString(dst, v.Schema)
	dst = append(dst, `,"deleted":`...)
	dst = strconv.AppendBool(dst, v.Deleted)
	return append(dst, '}')
}

// parseSchemaValue reads the value of the SCHEMA record with key k.
func parseSchemaValue(k key, raw []byte) (schemaValue, error) {
	var v schemaValue
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("read schema value: %w", err)
	}
	if v.ID < 1 {
		return v, fmt.Errorf("schema value has the id %d", v.ID)
	}
	v.Subject, v.Version = k.subject, k.version
	if v.SchemaType == "" {
		v.SchemaType = typeAvro
	}
	v.Metadata, v.RuleSet = compact(v.Metadata), compact(v.RuleSet)
	return v, nil
}

// configValue is the value of a CONFIG record. What other registries keep there stays there.
type configValue map[string]json.RawMessage

const levelField = "compatibilityLevel"

func parseConfigValue(raw []byte) (configValue, error) {
	var v configValue
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("read config value: %w", err)
	}
	delete(v, "subject")
	return v, nil
}

// level is the compatibility level that is set, or "".
func (v configValue) level() Level {
	var l Level
	if json.Unmarshal(v[levelField], &l) != nil {
		return ""
	}
	return l
}

// bytes are v with another level, the members sorted after subject and level.
func (v configValue) bytes(subject string, l Level) []byte {
	dst := []byte{'{'}
	if subject != "" {
		dst = append(dst, `"subject":`...)
		dst = append(appendString(dst, subject), ',')
	}
	dst = append(append(dst, `"compatibilityLevel":`...), appendString(nil, string(l))...)
	for _, name := range sortedKeys(v) {
		if name != levelField {
			dst = append(append(append(dst, ','), appendString(nil, name)...), ':')
			dst = append(dst, v[name]...)
		}
	}
	return append(dst, '}')
}

// versionValue is the value of a DELETE_SUBJECT record: versions up to it are soft-deleted.
type versionValue struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

func (v versionValue) bytes() []byte {
	dst := append([]byte(`{"subject":`), appendString(nil, v.Subject)...)
	dst = append(dst, `,"version":`...)
	return append(strconv.AppendInt(dst, int64(v.Version), 10), '}')
}
