package schemas_test

import (
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"
)

// What goavro gets wrong and we work around: a failure here means that an upstream fix has come and a guard can go.
// What would take the process down (counts that allocate gigabytes, recursion without end) is not tried: TestHostile
// shows that none of it gets that far.
func TestGoavroDefects(t *testing.T) {
	t.Parallel()
	encode := func(schema string, v any) (string, error) {
		c, err := goavro.NewCodec(schema)
		if err != nil {
			return "", err
		}
		b, err := c.BinaryFromNative(nil, v)
		return hex.EncodeToString(b), err
	}
	encodes := func(schema string, v any, want string) bool {
		got, err := encode(schema, v)
		return err == nil && got == want
	}
	decode := func(schema string, b []byte) (any, error) {
		c, err := goavro.NewCodec(schema)
		if err != nil {
			return nil, err
		}
		v, _, err := c.NativeFromBinary(b)
		return v, err
	}
	for _, tt := range []struct {
		name, guard string
		still       func() bool
	}{
		{"a decimal is rounded in silence", "logical types are ours", func() bool {
			return encodes(`{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`, big.NewRat(1, 3), "0221") // 0.33
		}},
		{"a decimal has more digits than its precision", "logical types are ours", func() bool {
			_, err := encode(`{"type":"bytes","logicalType":"decimal","precision":9,"scale":0}`, big.NewRat(12345678901, 1))
			return err == nil
		}},
		{"a decimal that does not fit its fixed is 0", "logical types are ours", func() bool {
			return encodes(`{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":9,"scale":0}`, big.NewRat(1<<40, 1), "00000000")
		}},
		{"a date before 1970 with a time is a day off", "logical types are ours", func() bool {
			return encodes(`{"type":"int","logicalType":"date"}`, time.Date(1969, 12, 31, 12, 0, 0, 0, time.UTC), "00") // 1970-01-01
		}},
		{"timestamp-nanos is a bare number", "logical types are ours", func() bool {
			v, err := decode(`{"type":"long","logicalType":"timestamp-nanos"}`, []byte{2})
			return err == nil && v == int64(1)
		}},
		{"a branch is called long.timestamp-millis", "logical types are ours", func() bool {
			v, err := decode(`["null",{"type":"long","logicalType":"timestamp-millis"}]`, []byte{2, 2})
			m, _ := v.(map[string]any)
			return err == nil && m["long"] == nil && m["long.timestamp-millis"] != nil
		}},
		{"a default of bytes is written as UTF-8", "defaults are filled by us", func() bool {
			return encodes(`{"type":"record","name":"R","fields":[{"name":"b","type":"bytes","default":"\u00ff"}]}`, map[string]any{}, "04c3bf")
		}},
		{"unions must be tagged", "unions are tagged by us", func() bool {
			_, err := encode(`["null","long"]`, int64(7))
			return err != nil
		}},
		{"an int out of range is taken", "the guard walks the bytes first", func() bool {
			_, err := decode(`"int"`, binary.AppendVarint(nil, 1<<40))
			return err == nil
		}},
		{"bytes point into the source", "bytes are copied by us", func() bool {
			src := []byte{2, 'a'}
			v, err := decode(`"bytes"`, src)
			src[1] = 'b'
			b, _ := v.([]byte)
			return err == nil && string(b) == "b"
		}},
		{"there is no empty union", "the other engine has it", func() bool {
			_, err := goavro.NewCodec(`{"type":"array","items":[]}`)
			return err != nil
		}},
		{"a type without a namespace, inside one, gets it", "types are numbered, not named", func() bool {
			inner := `{"type":"record","name":"E","namespace":"","fields":[]}`
			v, err := decode(`{"type":"record","name":"a.R","fields":[{"name":"u","type":["null",`+inner+`]}]}`, []byte{2})
			m, _ := v.(map[string]any)
			u, _ := m["u"].(map[string]any)
			return err == nil && u["E"] == nil
		}},
		{"a count is believed", "the guard walks the bytes first", func() bool {
			// 200,000 nulls cost three bytes; 2^28 of them would cost the process.
			v, err := decode(`{"type":"array","items":"null"}`, []byte{0x80, 0xb5, 0x18, 0})
			s, _ := v.([]any)
			return err == nil && len(s) == 200_000
		}},
		{"recursion has no limit", "recursive schemas go to the other engine", func() bool {
			_, err := decode(`{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}`,
				[]byte(strings.Repeat("\x02", 20_000)+"\x00"))
			return err == nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !tt.still() {
				t.Errorf("goavro no longer does this: look whether %q is still needed", tt.guard)
			}
		})
	}
}

// The same for the other engine.
func TestTwmbDefects(t *testing.T) {
	t.Parallel()
	t.Run("microseconds are read as milliseconds", func(t *testing.T) {
		t.Parallel()
		micros := avro.MustParse(`{"type":"long","logicalType":"timestamp-micros"}`)
		millis := avro.MustParse(`{"type":"long","logicalType":"timestamp-millis"}`)
		if _, err := avro.Resolve(micros, millis); err != nil {
			t.Error("Resolve refuses it now: sameTimes can go")
		}
	})
	t.Run("defaults are written out", func(t *testing.T) {
		t.Parallel()
		took := func(steps int) time.Duration {
			start := time.Now()
			if _, err := avro.Parse(doubling(steps)); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		if took(18) < 8*took(10) {
			t.Error("Parse no longer doubles its work at every step: weighDefaults can go")
		}
	})
}
