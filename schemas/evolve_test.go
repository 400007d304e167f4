package schemas_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

const (
	userV1 = `{"type":"record","name":"User","namespace":"shop","fields":[{"name":"name","type":"string"},{"name":"age","type":"int"},{"name":"old","type":"string"}]}`
	userV2 = `{"type":"record","name":"User","namespace":"shop","fields":[{"name":"name","type":"string"},{"name":"age","type":"long"},{"name":"email","type":"string","default":"none"}]}`
)

type userOne struct {
	Name string `avro:"name"`
	Age  int32  `avro:"age"`
	Old  string `avro:"old"`
}

func (userOne) AvroSchema() string { return userV1 }

type userTwo struct {
	Name  string `avro:"name"`
	Age   int64  `avro:"age"`
	Email string `avro:"email"`
}

func (userTwo) AvroSchema() string { return userV2 }

// userPlain has no schema: it follows the writer's.
type userPlain struct {
	Name  string `avro:"name"`
	Email string `avro:"email"`
}

func (userPlain) AvroName() string { return "shop.User" }

type userWrong struct {
	Name int64 `avro:"name"`
}

// A reader of version 2 reads what version 1 wrote, and the other way round where it may.
func TestResolve(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	e := round(t, reg, userOne{"ann", 41, "x"})
	for _, tt := range []struct {
		name string
		into any
		want any
		err  error
	}{
		{"a newer type fills in defaults", new(userTwo), &userTwo{"ann", 41, "none"}, nil},
		{"a plain type takes what matches", &userPlain{Email: "kept"}, &userPlain{"ann", "kept"}, nil},
		{"a plain type that cannot hold it", new(userWrong), nil, schemas.ErrIncompatible},
		{"another event", new(order), nil, schemas.ErrIncompatible},
		{"generic", new(any), func() *any {
			var v any = map[string]any{"name": "ann", "age": int32(41), "old": "x"}
			return &v
		}(), nil},
		{"no pointer", userTwo{}, nil, schemas.ErrIncompatible},
		{"nil", nil, nil, schemas.ErrIncompatible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the second time from what is compiled
				err := reg.Decode(t.Context(), &e, tt.into)
				if !errors.Is(err, tt.err) {
					t.Fatalf("got %v, want %v", err, tt.err)
				}
				if tt.err != nil {
					if errors.Is(err, schemas.ErrPoison) || !strings.Contains(err.Error(), "shop.orders/3@42") || !strings.Contains(err.Error(), "schema 1") {
						t.Errorf("%q does not name the record and the schema, or is poison too", err)
					}
				} else if !reflect.DeepEqual(tt.into, tt.want) {
					t.Errorf("got %+v, want %+v", tt.into, tt.want)
				}
			}
		})
	}
}

// Latest writes by a schema that the type does not know: its own fields go through, the rest are defaults.
func TestLatest(t *testing.T) {
	t.Parallel()
	reg := schemas.MemoryWith(map[string]schemas.Topic{"shop.orders": {Latest: true, Naming: schemas.ByRecord}})
	for _, text := range []string{userV1, userV2} {
		if _, err := reg.Register(t.Context(), "shop.User", text); err != nil {
			t.Fatal(err)
		}
	}
	e := round(t, reg, userOne{"ann", 41, "x"})
	var got any
	if err := reg.Decode(t.Context(), &e, &got); err != nil {
		t.Fatal(err)
	}
	if want := map[string]any{"name": "ann", "age": int64(41), "email": "none"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// A type without a schema is written by the latest one too, if it has all its fields.
	bad := event.New("shop.orders", "k", userPlain{})
	if _, err := reg.Encode(t.Context(), nil, &bad); err == nil || !strings.Contains(err.Error(), "age") {
		t.Errorf("got %v, want an error that names the field", err)
	}
}

func TestRegisterIncompatible(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	if _, err := reg.Register(t.Context(), "s", userV1); err != nil {
		t.Fatal(err)
	}
	breaking := strings.Replace(userV1, `"name":"old","type":"string"`, `"name":"new","type":"string"`, 1)
	if why, err := reg.Check(t.Context(), "s", breaking); len(why) == 0 || err != nil {
		t.Errorf("Check says %q, %v", why, err)
	}
	if _, err := reg.Register(t.Context(), "s", breaking); !errors.Is(err, schemas.ErrIncompatible) {
		t.Errorf("got %v, want ErrIncompatible", err)
	}
	if why, err := reg.Check(t.Context(), "s", userV2); len(why) != 0 || err != nil {
		t.Errorf("Check says %q, %v", why, err)
	}
	second, err := reg.Register(t.Context(), "s", userV2)
	if err != nil || second.Version != 2 || second.ID != 2 {
		t.Errorf("got version %d, id %d, %v", second.Version, second.ID, err)
	}
	again, err := reg.Register(t.Context(), "s", "  "+userV1)
	if err != nil || again.Version != 1 || again.ID != 1 {
		t.Errorf("registering again gave version %d, id %d, %v", again.Version, again.ID, err)
	}
	if latest, err := reg.Latest(t.Context(), "s"); err != nil || latest.Version != 2 || latest.Name != "shop.User" {
		t.Errorf("latest is %+v, %v", latest, err)
	}
	if vs, err := reg.Versions(t.Context(), "s"); err != nil || !reflect.DeepEqual(vs, []int{1, 2}) {
		t.Errorf("versions are %v, %v", vs, err)
	}
	if found, err := reg.Lookup(t.Context(), "s", userV2); err != nil || found.Version != 2 {
		t.Errorf("lookup found %+v, %v", found, err)
	}
	if _, err := reg.Lookup(t.Context(), "s", orderText); !errors.Is(err, schemas.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if _, err := reg.Version(t.Context(), "s", 3); !errors.Is(err, schemas.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if names, err := reg.Subjects(t.Context()); err != nil || !reflect.DeepEqual(names, []string{"s"}) {
		t.Errorf("subjects are %v, %v", names, err)
	}
}

type eventMillis struct {
	At int64 `avro:"at"`
}

func (eventMillis) AvroSchema() string {
	return `{"type":"record","name":"E","fields":[{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}`
}

type eventMicros struct {
	At int64 `avro:"at"`
}

func (eventMicros) AvroSchema() string {
	return `{"type":"record","name":"E","fields":[{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}`
}

// Avro's rules let microseconds be read as milliseconds, a thousand times too late. We do not.
func TestTimesOfOtherUnits(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	e := round(t, reg, eventMicros{1})
	if err := reg.Decode(t.Context(), &e, new(eventMillis)); !errors.Is(err, schemas.ErrIncompatible) {
		t.Errorf("got %v, want ErrIncompatible", err)
	}
}

// fast is what generated types are.
type fast struct {
	ID    int64 `avro:"id"`
	calls *[]string
}

const fastText = `{"type":"record","name":"Fast","namespace":"shop","fields":[{"name":"id","type":"long"}]}`

func (fast) AvroSchema() string { return fastText }

func (fast) AvroFingerprint() uint64 {
	s, err := schemas.Parse(fastText)
	if err != nil {
		panic(err)
	}
	return s.Fingerprint
}

func (f fast) AppendAvro(dst []byte) ([]byte, error) {
	if f.calls != nil {
		*f.calls = append(*f.calls, "append")
	}
	return binary.AppendVarint(dst, f.ID), nil
}

func (f *fast) ReadAvro(src []byte) ([]byte, error) {
	id, n := binary.Varint(src)
	if n <= 0 {
		return nil, errors.New("cut off")
	}
	f.ID = id
	if f.calls != nil {
		*f.calls = append(*f.calls, "read")
	}
	return src[n:], nil
}

// A generated type's own code runs where the schema is its own, and only there.
func TestGenerated(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	var calls []string
	e := round(t, reg, fast{ID: 7, calls: &calls})
	got := fast{calls: &calls}
	if err := reg.Decode(t.Context(), &e, &got); err != nil || got.ID != 7 {
		t.Fatalf("got %d, %v", got.ID, err)
	}
	if !reflect.DeepEqual(calls, []string{"append", "read"}) {
		t.Errorf("got calls %v", calls)
	}
	calls = nil
	e.Value = append(e.Value, 0)
	if err := reg.Decode(t.Context(), &e, &got); !errors.Is(err, schemas.ErrPoison) {
		t.Errorf("a rest after ReadAvro: got %v, want poison", err)
	}
	other, err := reg.Register(t.Context(), "other", strings.Replace(fastText, `}]}`, `},{"name":"more","type":"string","default":""}]}`, 1))
	if err != nil {
		t.Fatal(err)
	}
	calls = nil
	e.Value = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(other.ID)), 14, 2, 'x')
	if err := reg.Decode(t.Context(), &e, &got); err != nil || got.ID != 7 || len(calls) > 0 {
		t.Errorf("another writer: got %d, %v, calls %v", got.ID, err, calls)
	}
}

type derived struct {
	OrderID string `avro:"order_id"`
	Cents   int64  `avro:"cents,default=0"`
}

var derivedText = schemas.MustFor[derived]()

func (derived) AvroName() string   { return "shop.Derived" }
func (derived) AvroSchema() string { return derivedText }

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		t    reflect.Type
		want string
	}{
		{"by AvroName", reflect.TypeFor[userPlain](), "shop.User"},
		{"by schema", reflect.TypeFor[order](), "shop.OrderPlaced"},
		{"through a pointer", reflect.TypeFor[**order](), "shop.OrderPlaced"},
		{"by Go's name", reflect.TypeFor[line](), "schemas_test.line"},
		{"derived", reflect.TypeFor[derived](), "shop.Derived"},
		{"nil", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := schemas.NameOf(tt.t); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	s, err := schemas.Parse(derivedText)
	if err != nil || s.Name != "shop.Derived" {
		t.Errorf("the derived schema is %s: %v", derivedText, err)
	}
	for naming, want := range map[schemas.Naming]string{schemas.ByTopic: "t-value", schemas.ByRecord: "a.B", schemas.ByTopicRecord: "t-a.B"} {
		if got := naming.Subject("t", "a.B"); got != want {
			t.Errorf("%s: got %q, want %q", naming, got, want)
		}
	}
}

// TestFormats is what every format promises: what goes in comes out, and a type that cannot work says so.
func TestFormats(t *testing.T) {
	t.Parallel()
	s, err := schemas.Parse(`{"type":"record","name":"a.P","fields":[{"name":"x","type":"string"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	type point struct {
		X string `avro:"x" json:"x"`
	}
	for _, tt := range []struct {
		format schemas.Format
		writer schemas.Schema
		data   []any
		broken []byte
	}{
		{schemas.Avro(), s, []any{point{"a"}, map[string]any{"x": "a"}}, []byte{9}},
		{schemas.JSON(), schemas.Schema{}, []any{point{"a"}, map[string]any{"x": "a"}}, []byte("{")},
		{schemas.Raw(), schemas.Schema{}, []any{[]byte("a\x00b"), "text"}, nil},
	} {
		t.Run(tt.format.Name(), func(t *testing.T) {
			t.Parallel()
			if tt.format.Framed() != (tt.writer.Text != "") || tt.format.ContentType() == "" {
				t.Error("Framed or ContentType is off")
			}
			for _, data := range tt.data {
				c, err := tt.format.Compile(tt.writer, reflect.TypeOf(data))
				if err != nil {
					t.Fatal(err)
				}
				got, err := c.Append([]byte("head:"), data)
				if err != nil || !strings.HasPrefix(string(got), "head:") {
					t.Fatalf("%T: got %q, %v", data, got, err)
				}
				into := reflect.New(reflect.TypeOf(data))
				if err := c.Decode(got[len("head:"):], into.Interface()); err != nil {
					t.Fatalf("%T: %v", data, err)
				}
				if !reflect.DeepEqual(into.Elem().Interface(), data) {
					t.Errorf("got %v, want %v", into.Elem(), data)
				}
				clear(got)
				if !reflect.DeepEqual(into.Elem().Interface(), data) {
					t.Errorf("%T points into its source", data)
				}
				if tt.broken != nil {
					if err := c.Decode(tt.broken, into.Interface()); !errors.Is(err, schemas.ErrPoison) {
						t.Errorf("%T: broken bytes: got %v, want poison", data, err)
					}
				}
			}
		})
	}
}

// Values without a frame are read by what is known of them.
func TestUnframed(t *testing.T) {
	t.Parallel()
	reg := schemas.MemoryWith(map[string]schemas.Topic{"json": {Format: schemas.JSON()}, "raw": {Format: schemas.Raw()}})
	framed := "\x00\x00\x00\x00\x07"
	for _, tt := range []struct {
		name, topic, contentType, value string
		into                            any
		want                            any // what into points to, or an error
	}{
		{"JSON topic", "json", "", `{"x":1}`, new(any), map[string]any{"x": 1.0}},
		{"JSON by content type", "t", "application/json; charset=utf-8", `{"x":1}`, new(any), map[string]any{"x": 1.0}},
		{"JSON by suffix", "t", "application/vnd.x+json", `[1]`, new([]int), []int{1}},
		{"bad JSON", "json", "", `{`, new(any), schemas.ErrPoison},
		{"JSON of another type", "json", "", `{}`, new(int), schemas.ErrPoison},
		{"raw topic with what looks like a frame", "raw", "", framed, new([]byte), []byte(framed)},
		{"raw by content type", "t", "application/octet-stream", framed, new([]byte), []byte(framed)},
		{"raw into a string", "raw", "", "abc", new(string), "abc"},
		{"raw into a struct", "raw", "", "abc", new(order), schemas.ErrIncompatible},
		{"bytes where nothing is known", "t", "", "abc", new([]byte), []byte("abc")},
		{"nothing known", "t", "", "abc", new(any), schemas.ErrPoison},
		{"empty value", "t", "", "", new(any), schemas.ErrPoison},
		{"unknown id", "t", "", framed, new(any), schemas.ErrPoison},
		{"id 0", "t", "", "\x00\x00\x00\x00\x00abc", new(any), schemas.ErrPoison},
		{"negative id", "t", "", "\x00\xff\x00\x00\x00abc", new(any), schemas.ErrPoison},
		{"cut off frame", "t", "", "\x00\x00", new(any), schemas.ErrPoison},
		{"cut off GUID", "t", "", "\x01aaaa", new(any), schemas.ErrPoison},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := event.Event{Meta: event.Meta{Topic: tt.topic, ContentType: tt.contentType}, Value: []byte(tt.value)}
			err := reg.Decode(t.Context(), &e, tt.into)
			if want, bad := tt.want.(error); bad {
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
				for _, other := range []error{schemas.ErrPoison, schemas.ErrUnavailable, schemas.ErrIncompatible, schemas.ErrNotFound} {
					if !errors.Is(want, other) && errors.Is(err, other) {
						t.Errorf("%v is %v too", err, other)
					}
				}
				return
			}
			if got := reflect.ValueOf(tt.into).Elem().Interface(); err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// The header form keeps the value pure; of several headers the last one counts.
func TestHeaderFrame(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	e := round(t, reg, fast{ID: 7})
	s, body, err := reg.SchemaOf(t.Context(), &e)
	if err != nil {
		t.Fatal(err)
	}
	var guid []byte
	for part := range strings.SplitSeq(s.GUID, "-") {
		var b []byte
		if _, err := fmt.Sscanf(part, "%x", &b); err != nil {
			t.Fatal(err)
		}
		guid = append(guid, b...)
	}
	byGUID, byID := append([]byte{1}, guid...), []byte{0, 0, 0, 0, 1}
	for _, tt := range []struct {
		name    string
		headers event.Headers
		value   []byte
		want    error
	}{
		{"GUID", event.Headers{{Key: schemas.HeaderValueSchema, Value: byGUID}}, body, nil},
		{"id", event.Headers{{Key: schemas.HeaderValueSchema, Value: byID}}, body, nil},
		{"the last one counts", event.Headers{{Key: schemas.HeaderValueSchema, Value: []byte{0, 0, 0, 0, 99}}, {Key: schemas.HeaderValueSchema, Value: byGUID}}, body, nil},
		{"a null header says nothing", event.Headers{{Key: schemas.HeaderValueSchema}}, e.Value, nil},
		{"the last one is null", event.Headers{{Key: schemas.HeaderValueSchema, Value: byGUID}, {Key: schemas.HeaderValueSchema}}, e.Value, nil},
		{"GUID in the payload", nil, append(byGUID, body...), nil},
		{"unknown GUID", event.Headers{{Key: schemas.HeaderValueSchema, Value: append([]byte{1}, make([]byte, 15)...)}}, body, schemas.ErrPoison},
		{"no id", event.Headers{{Key: schemas.HeaderValueSchema, Value: []byte("7")}}, body, schemas.ErrPoison},
		{"empty", event.Headers{{Key: schemas.HeaderValueSchema, Value: []byte{}}}, body, schemas.ErrPoison},
		{"a rest", event.Headers{{Key: schemas.HeaderValueSchema, Value: append(byID, 0)}}, body, schemas.ErrPoison},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := event.Event{Meta: event.Meta{Topic: "t", Headers: tt.headers}, Value: tt.value}
			var got fast
			if err := reg.Decode(t.Context(), &e, &got); !errors.Is(err, tt.want) || err == nil && got.ID != 7 {
				t.Errorf("got %d, %v, want %v", got.ID, err, tt.want)
			}
		})
	}
}

func TestTombstone(t *testing.T) {
	t.Parallel()
	reg := schemas.Memory()
	e := event.Tombstone("t", "k")
	e.Type = "a.B"
	var v any = "old"
	if err := reg.Decode(t.Context(), &e, &v); err != nil || v != nil {
		t.Errorf("got %v, %v", v, err)
	}
	if err := reg.Decode(t.Context(), &e, new(order)); !errors.Is(err, schemas.ErrPoison) {
		t.Errorf("got %v, want poison", err)
	}
	if name, err := reg.TypeOf(t.Context(), &e); name != "a.B" || err != nil {
		t.Errorf("got %q, %v", name, err)
	}
	if b, err := reg.Encode(t.Context(), nil, &e); b != nil || err != nil {
		t.Errorf("got %v, %v: a tombstone's value is null", b, err)
	}
}

// Generic data is written by the latest version, or by the schema that it brings.
func TestEncodeGeneric(t *testing.T) {
	t.Parallel()
	reg := schemas.MemoryWith(map[string]schemas.Topic{"by-record": {Naming: schemas.ByRecord}})
	s, err := reg.Register(t.Context(), "shop.User", userV1)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := schemas.Parse(userV1)
	if err != nil {
		t.Fatal(err)
	}
	data := map[string]any{"name": "ann", "age": 41, "old": "x"}
	for _, tt := range []struct {
		name string
		data any
		typ  string
		err  error
	}{
		{"by its type", data, "shop.User", nil},
		{"without a type", data, "", schemas.ErrIncompatible},
		{"unknown type", data, "shop.Nobody", schemas.ErrNotFound},
		{"with a registered schema", schemas.Generic{Schema: s, Data: data}, "", nil},
		{"with a schema of its own", &schemas.Generic{Schema: parsed, Data: data}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := event.New("by-record", "k", tt.data)
			e.Type = tt.typ
			value, err := reg.Encode(context.Background(), nil, &e)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			var u userOne
			e.Value = value
			if err := reg.Decode(t.Context(), &e, &u); err != nil || u.Name != "ann" || e.Type != "shop.User" {
				t.Errorf("got %+v of type %s, %v", u, e.Type, err)
			}
		})
	}
}
