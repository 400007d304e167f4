package registry

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// Compaction compares the bytes of keys: these are what Confluent's registry writes.
func TestKeysAreByteExact(t *testing.T) {
	t.Parallel()
	for want, k := range map[string]key{
		`{"keytype":"SCHEMA","subject":"orders-value","version":1,"magic":1}`:                          {keySchema, "orders-value", 1},
		`{"keytype":"SCHEMA","subject":"a\"b\\c<&>/é` + "\u2028" + `","version":2147483647,"magic":1}`: {keySchema, "a\"b\\c<&>/é\u2028", 2147483647},
		`{"keytype":"CONFIG","subject":"orders-value","magic":0}`:                                      {keyConfig, "orders-value", 0},
		`{"keytype":"CONFIG","magic":0}`:                                                               {keyConfig, "", 0},
		`{"keytype":"MODE","subject":"s","magic":0}`:                                                   {keyMode, "s", 0},
		`{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}`:                                         {keyDeleteSubject, "s", 0},
		`{"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}`:                                          {keyClearSubject, "s", 0},
		`{"keytype":"NOOP","magic":0}`:                                                                 {kind: keyNoop},
	} {
		if got := string(k.bytes()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if back, err := parseKey([]byte(want)); err != nil || back != k {
			t.Errorf("%s: read as %+v, %v", want, back, err)
		}
	}
}

func TestValuesAreByteExact(t *testing.T) {
	t.Parallel()
	v := schemaValue{
		Subject: "s", Version: 2, ID: 3, SchemaType: "AVRO", References: []Reference{{"n.R", "r", 1}},
		Metadata: json.RawMessage(`{"a":1}`), Schema: "\"int\"", Deleted: true,
	}
	want := `{"subject":"s","version":2,"id":3,"references":[{"name":"n.R","subject":"r","version":1}],"metadata":{"a":1},"schema":"\"int\"","deleted":true}`
	if got := string(v.bytes()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c := configValue{levelField: json.RawMessage(`"NONE"`), "normalize": json.RawMessage(`true`), "alias": json.RawMessage(`"x"`)}
	want = `{"subject":"s","compatibilityLevel":"FULL","alias":"x","normalize":true}`
	if got := string(c.bytes("s", LevelFull)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := string(configValue(nil).bytes("", LevelNone)), `{"compatibilityLevel":"NONE"}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// log is a topic in the hands of a test.
type log struct {
	t       *testing.T
	state   *state
	records []Record
	skipped []error
}

func replay(t *testing.T, records ...string) *log {
	t.Helper()
	l := &log{t: t, state: newState()}
	for i := 0; i < len(records); i += 2 {
		l.add(records[i], records[i+1])
	}
	return l
}

// add takes in a record; an empty value is a tombstone.
func (l *log) add(key, value string) {
	rec := Record{Offset: int64(len(l.records)), Key: []byte(key)}
	if value != "" {
		rec.Value = []byte(value)
	}
	l.records = append(l.records, rec)
	if err := l.state.apply(rec); err != nil {
		l.skipped = append(l.skipped, err)
	}
}

// compacted is the log as Kafka's cleaner leaves it, tombstones gone too.
func (l *log) compacted() *state {
	last := map[string]int{}
	for i, rec := range l.records {
		last[string(rec.Key)] = i
	}
	s := newState()
	for i, rec := range l.records {
		if last[string(rec.Key)] == i && rec.Value != nil {
			_ = s.apply(rec) // what is skipped shows in the state
		}
	}
	return s
}

func (l *log) expect(want string) {
	l.t.Helper()
	if got := sketch(l.state); got != want {
		l.t.Errorf("got  %s\nwant %s", got, want)
	}
}

// sketch is the state on a line: "s/1=7 int, s/2=8 long -" with a minus for soft-deleted.
func sketch(s *state) string {
	var parts []string
	for _, subject := range sortedKeys(s.subjects) {
		for _, v := range s.versions(subject, true) {
			text := subject + "/" + string(rune('0'+v.number)) + "=" + string('0'+v.content.id) + " " + strings.Trim(v.content.text, `"`)
			if v.deleted {
				text += " -"
			}
			parts = append(parts, text)
		}
	}
	for _, scope := range sortedKeys(s.configs) {
		parts = append(parts, "config "+scope+"="+string(s.configs[scope].level()))
	}
	for _, scope := range sortedKeys(s.modes) {
		parts = append(parts, "mode "+scope+"="+s.modes[scope])
	}
	return strings.Join(parts, ", ")
}

const (
	keyS1 = `{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}`
	keyS2 = `{"keytype":"SCHEMA","subject":"s","version":2,"magic":1}`
	keyT1 = `{"keytype":"SCHEMA","subject":"t","version":1,"magic":1}`
	// the same key as keyS1, as Karapace wrote it once
	karapaceS1 = `{"subject": "s", "version": 1, "magic": 1, "keytype": "SCHEMA"}`
)

func val(subject string, version, id int, text string, deleted bool) string {
	return string(schemaValue{Subject: subject, Version: version, ID: int32(id), Schema: `"` + text + `"`, Deleted: deleted}.bytes())
}

func TestReplayOfOtherRegistriesRecords(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		records []string
		want    string
		skipped int
	}{
		{"ours", []string{keyS1, val("s", 1, 7, "int", false)}, "s/1=7 int", 0},
		{"another order and spaces", []string{karapaceS1, `{"subject": "s", "version": 1, "id": 7, "schema": "\"int\"", "deleted": false}`}, "s/1=7 int", 0},
		{"members that only others have", []string{`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1,"seq":4,"node":2}`, `{"subject":"s","version":1,"id":7,"md5":"x","schemaTags":[],"schema":"\"int\"","deleted":false,"ts":1}`}, "s/1=7 int", 0},
		{"a type that only others have", []string{keyS1, `{"subject":"s","version":1,"id":7,"schemaType":"PROTOBUF","schema":"p","deleted":false}`}, "s/1=7 p", 0},
		{"the global level, with a null subject", []string{`{"keytype":"CONFIG","subject":null,"magic":0}`, `{"compatibilityLevel":"FULL"}`}, "config =FULL", 0},
		{"the global level, without subject", []string{`{"keytype":"CONFIG","magic":0}`, `{"compatibilityLevel":"FULL"}`}, "config =FULL", 0},
		{"a mode", []string{`{"keytype":"MODE","subject":"s","magic":0}`, `{"subject":"s","mode":"READONLY"}`}, "mode s=READONLY", 0},
		{"a mode that was unset", []string{`{"keytype":"MODE","subject":"s","magic":0}`, `{"mode":"READONLY"}`, `{"keytype":"MODE","subject":"s","magic":0}`, ``}, "", 0},
		{"kinds that only others have", []string{`{"keytype":"CONTEXT","tenant":"t","context":".","magic":0}`, `{}`, `{"keytype":"ASSOC","magic":0}`, `{}`}, "", 0},
		{"no operation", []string{`{"keytype":"NOOP","magic":0}`, ``, `{"keytype":"NOOP","magic":0}`, `{}`}, "", 0},
		{"a subject that was deleted", []string{keyS1, val("s", 1, 7, "int", false), keyS2, val("s", 2, 8, "long", false), `{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}`, `{"subject":"s","version":1}`}, "s/1=7 int -, s/2=8 long", 0},
		{"a subject that was cleared", []string{keyS1, val("s", 1, 7, "int", true), keyS2, val("s", 2, 8, "long", false), `{"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}`, `{"subject":"s"}`}, "s/2=8 long", 0},
		{"a version that was deleted for good", []string{keyS1, val("s", 1, 7, "int", true), keyS1, ``}, "", 0},
		{"a tombstone of nothing", []string{keyS1, ``}, "", 0},
		{"a value that is null", []string{keyS1, val("s", 1, 7, "int", true), keyS1, `null`}, "", 0},
		{"nonsense", []string{`x`, `y`, ``, ``, `{}`, `{}`, `[]`, ``, keyS1, `x`, keyS1, `{"id":0}`, keyS1, `{"id":99999999999}`, `{"keytype":"SCHEMA","version":1}`, `{}`, `{"keytype":"SCHEMA","subject":"s","version":0}`, `{}`, keyT1, val("t", 1, 7, "int", false)}, "t/1=7 int", 9},
		{"one id for two schemas: the first has it", []string{keyS1, val("s", 1, 7, "int", false), keyT1, val("t", 1, 7, "long", false)}, "s/1=7 int", 1},
		{"one version for two ids: the first has it", []string{keyS1, val("s", 1, 7, "int", false), keyS1, val("s", 1, 8, "long", false)}, "s/1=7 int", 1},
		{"contexts count for themselves", []string{keyS1, val("s", 1, 7, "int", false), `{"keytype":"SCHEMA","subject":":.c:s","version":1,"magic":1}`, val(":.c:s", 1, 7, "long", false)}, ":.c:s/1=7 long, s/1=7 int", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := replay(t, tt.records...)
			l.expect(tt.want)
			if len(l.skipped) != tt.skipped {
				t.Errorf("skipped %v, want %d", l.skipped, tt.skipped)
			}
		})
	}
}

// A key in another spelling and ours are one record to a registry and two to compaction.
func TestForeignSpellingsAreDeletedToo(t *testing.T) {
	t.Parallel()
	l := replay(t, karapaceS1, val("s", 1, 7, "int", false))
	k := key{keySchema, "s", 1}

	l.add(keyS1, val("s", 1, 7, "int", true))
	l.expect("s/1=7 int -")
	spellings := l.state.spellings(k)
	if len(spellings) != 2 || string(spellings[0]) != karapaceS1 || string(spellings[1]) != keyS1 {
		t.Fatalf("got %q", spellings)
	}
	l.add(karapaceS1, "") // the older spelling goes: the record that counts stays
	l.expect("s/1=7 int -")
	l.add(keyS1, "")
	l.expect("")
	if got := sketch(l.compacted()); got != "" {
		t.Errorf("after compaction: %s", got)
	}

	alone := replay(t, karapaceS1, val("s", 1, 7, "int", false), karapaceS1, "")
	alone.expect("")
}

func TestRefusedRecordsAreKeptForRepair(t *testing.T) {
	t.Parallel()
	l := replay(t, keyS1, val("s", 1, 7, "int", false), keyS1, val("s", 1, 7, "long", false))
	if len(l.skipped) != 1 || !errors.Is(l.skipped[0], errConflict) || l.state.refused[key{keySchema, "s", 1}] != keyS1 {
		t.Fatalf("skipped %v, refused %v", l.skipped, l.state.refused)
	}
	if got := sketch(l.compacted()); got != "s/1=7 long" {
		t.Fatalf("the trap is gone: %s", got)
	}
	l.add(keyS1, string(l.state.subjects["s"][1].value().bytes()))
	if len(l.state.refused) != 0 {
		t.Errorf("refused %v", l.state.refused)
	}
	if got := sketch(l.compacted()); got != "s/1=7 int" {
		t.Errorf("after compaction: %s", got)
	}
	if l.state.highest[""] != 7 {
		t.Errorf("highest id %d", l.state.highest[""])
	}
}

// The ids of refused records are burned: someone may have been told of them.
func TestIDsOfRefusedRecordsAreNotGiven(t *testing.T) {
	t.Parallel()
	l := replay(t, keyS1, val("s", 1, 7, "int", false), keyS1, val("s", 1, 9, "long", false))
	v, err := l.state.draft("t", &content{typ: typeAvro, text: `"string"`})
	if err != nil || v.content.id != 10 {
		t.Errorf("got %+v, %v", v.content, err)
	}
}

func TestMarkOutlivesCompaction(t *testing.T) {
	t.Parallel()
	l := replay(t, keyS1, val("s", 1, 7, "int", true), markKey, `{"maxId":7}`, keyS1, "", `{"keytype":"NOOP","magic":0}`, "")
	if got := l.compacted().highest[""]; got != 7 {
		t.Errorf("highest id after compaction: %d", got)
	}
	if k, err := parseKey([]byte(markKey)); err != nil || k.kind != keyNoop {
		t.Errorf("to others the mark is %+v, %v; want a NOOP", k, err)
	}
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte(keyS1), []byte(val("s", 1, 7, "int", false)))
	f.Add([]byte(karapaceS1), []byte(val("s", 1, 7, "int", true)))
	f.Add([]byte(`{"keytype":"CONFIG","subject":null,"magic":0}`), []byte(`{"compatibilityLevel":"FULL"}`))
	f.Add([]byte(`{"keytype":"MODE","magic":0}`), []byte(`{"mode":"READONLY"}`))
	f.Add([]byte(`{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}`), []byte(`{"subject":"s","version":1}`))
	f.Add([]byte(`{"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}`), []byte(`{}`))
	f.Add([]byte(markKey), []byte(`{"maxId":7}`))
	f.Add([]byte(`{"keytype":`), []byte{})
	f.Fuzz(func(t *testing.T, rawKey, value []byte) {
		l := replay(t, keyS1, val("s", 1, 7, "int", true), keyS2, val("s", 2, 8, "long", false))
		l.add(string(rawKey), string(value))
		l.add(string(rawKey), "")
		for _, vs := range l.state.subjects {
			for _, v := range vs {
				if held := l.state.ids[idKey{spaceOf(v.subject), v.content.id}]; held != v.content || v.content.uses < 1 {
					t.Fatalf("%q: %s version %d has a content that its id %d does not", rawKey, v.subject, v.number, v.content.id)
				}
			}
		}
		if k, err := parseKey(rawKey); err == nil && k.kind == keySchema {
			if back, err := parseKey(k.bytes()); err != nil || back != k {
				t.Fatalf("%q: %+v is read back as %+v, %v", rawKey, k, back, err)
			}
		}
	})
}

func FuzzSchemaText(f *testing.F) {
	f.Add(`{"type":"record","name":"n.R","fields":[{"name":"a","type":["null","R"],"default":null,"order":"ignore"}]}`)
	f.Add(`{"type":"enum","name":"E","symbols":["A"],"default":"A","aliases":["x.Y"]}`)
	f.Add(`{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`)
	f.Add(`{"type":"map","values":{"type":"fixed","name":"F","size":1e1}}`)
	f.Add(`[`)
	f.Add(`long`)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 10_000 {
			return
		}
		tree, _, err := parseSchema(text)
		if err != nil {
			return
		}
		for _, normal := range []bool{false, true} {
			printed := canonicalText(tree, nil, normal)
			again, _, err := parseSchema(printed)
			if err != nil {
				t.Fatalf("%q prints as %q, which is no schema: %v", text, printed, err)
			}
			if twice := canonicalText(again, nil, normal); twice != printed {
				t.Fatalf("%q prints as %q and that as %q", text, printed, twice)
			}
		}
		if found, err := canRead(tree, tree); err != nil || len(found) > 0 {
			t.Fatalf("%q does not read itself: %v, %v", text, found, err)
		}
	})
}
