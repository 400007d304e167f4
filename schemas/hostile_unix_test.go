//go:build unix

package schemas_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// A hostile input must end in an error or a value: no crash, no panic, no hang, and no more memory than 64 MiB and
// twenty times the input. Each runs in a process of its own, because a stack overflow cannot be recovered from.
const (
	hostileEnv    = "MILLRACE_HOSTILE"
	hostileTime   = 10 * time.Second // for work of milliseconds, on a machine that is busy
	hostileMemory = 64 << 20         // bytes
	hostileLimit  = 1 << 30          // bytes, what the kernel gives
)

// hostile returns the inputs: each says how large it is and does the work. An error of the work is fine; a nil is
// what lenient inputs give.
func hostile() map[string]func() (size int, err error) {
	count := func(n int64, rest ...byte) []byte { return append(binary.AppendVarint(nil, n), rest...) }
	// decode runs bytes through every way in: generic, JSON, a plain struct, and a struct whose schema skips what
	// the writer wrote.
	decode := func(schema string, body []byte) func() (int, error) {
		return func() (int, error) {
			reg := schemas.Memory()
			text := `{"type":"record","name":"W","fields":[{"name":"v","type":` + schema + `},{"name":"kept","type":"int","default":0}]}`
			s, err := reg.Register(context.Background(), "t-value", text)
			if err != nil {
				return len(text), err
			}
			e := event.Event{Meta: event.Meta{Topic: "t"}, Value: append(binary.BigEndian.AppendUint32([]byte{0}, uint32(s.ID)), body...)}
			_, jsonErr := reg.AppendJSON(context.Background(), nil, &e)
			for _, into := range []any{new(any), new(skipsAll), new(skipsPlain)} {
				if err := reg.Decode(context.Background(), &e, into); err == nil {
					return len(e.Value), fmt.Errorf("%T was decoded", into)
				} else if !errors.Is(err, schemas.ErrPoison) {
					return len(e.Value), fmt.Errorf("%T: %w, want poison", into, err)
				}
			}
			return len(e.Value), jsonErr
		}
	}
	parse := func(text string) func() (int, error) {
		return func() (int, error) {
			s, err := schemas.Parse(text)
			if err == nil {
				_, err = schemas.Avro().Compile(s, nil)
			}
			if err == nil {
				_, err = s.FromJSON(nil, []byte(`{}`))
			}
			return len(text), err
		}
	}
	const recursive = `{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}`
	array := func(items string) string { return `{"type":"array","items":` + items + `}` }
	corpus := map[string]func() (int, error){
		"array of long, 2^28":             decode(array(`"long"`), count(1<<28)),
		"array of long, 2^40":             decode(array(`"long"`), count(1<<40)),
		"array of null, 2^27":             decode(array(`"null"`), count(1<<27, 0)),
		"array of null, 2^40":             decode(array(`"null"`), count(1<<40, 0)),
		"array of empty records, 2^28":    decode(array(`{"type":"record","name":"E","fields":[]}`), count(1<<28, 0)),
		"array of empty fixed, 2^28":      decode(array(`{"type":"fixed","name":"E","size":0}`), count(1<<28, 0)),
		"map, 2^28":                       decode(`{"type":"map","values":"long"}`, count(1<<28)),
		"map of null, 2^40":               decode(`{"type":"map","values":"null"}`, count(1<<40)),
		"block count MinInt64, with size": decode(array(`"long"`), append(count(math.MinInt64), count(1)...)),
		"block size MaxInt64":             decode(array(`"long"`), append(count(-1), count(math.MaxInt64)...)),
		"negative block size":             decode(array(`"long"`), append(count(-1), count(-5)...)),
		"a million small blocks":          decode(array(`"null"`), []byte(strings.Repeat("\x02", 1<<20))),
		"string of 2^62 bytes":            decode(`"string"`, count(1<<62)),
		"bytes of a negative length":      decode(`"bytes"`, count(-1)),
		"a linked list of 1.5 M":          decode(recursive, []byte(strings.Repeat("\x02", 1_500_000))),
		"a tree of arrays, 1 M deep": decode(`{"type":"record","name":"R","fields":[{"name":"r","type":{"type":"array","items":"R"}}]}`,
			[]byte(strings.Repeat("\x02", 1_000_000))),
		"a record that holds itself": decode(`{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}`, []byte{2}),
		"union index":                decode(`["null","long"]`, count(math.MaxInt64)),
		"overlong varint":            decode(`"long"`, []byte(strings.Repeat("\xff", 64))),
		"int of 2^40":                decode(`"int"`, count(1<<40)),
		"enum index":                 decode(`{"type":"enum","name":"E","symbols":["A"]}`, count(7)),

		"JSON nested 1 M": func() (int, error) {
			s, err := schemas.Parse(recursive)
			if err != nil {
				return 0, err
			}
			text := strings.Repeat(`{"r":`, 1_000_000)
			_, err = s.FromJSON(nil, []byte(text))
			return len(text), err
		},
		"JSON nested 9,000": func() (int, error) {
			s, err := schemas.Parse(recursive)
			if err != nil {
				return 0, err
			}
			text := strings.Repeat(`{"r":`, 9000) + "null" + strings.Repeat(`}`, 9000)
			_, err = s.FromJSON(nil, []byte(text))
			return len(text), err
		},
		"schema: decimal precision 2^31": parse(`{"type":"record","name":"R","fields":[{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":2147483648,"scale":2147483647},"default":"\u0001"}]}`),
		"schema: fixed of 2^40":          parse(`{"type":"record","name":"R","fields":[{"name":"f","type":{"type":"fixed","name":"F","size":1099511627776}}]}`),
		"schema: fixed of 2^30":          parse(`{"type":"record","name":"R","fields":[{"name":"f","type":{"type":"fixed","name":"F","size":1073741824},"default":""}]}`),
		"schema: a default of itself":    parse(`{"type":"record","name":"R","fields":[{"name":"r","type":"R","default":{}}]}`),
		"schema: defaults that double":   parse(doubling(40)),
		"schema: 20,000 enums":           parse(`[` + strings.TrimSuffix(strings.Repeat(`{"type":"enum","name":"E","symbols":["A"]},`, 20_000), ",") + `]`),
		"schema: 1,000 nested arrays":    parse(strings.Repeat(`{"type":"array","items":`, 1000) + `"int"` + strings.Repeat(`}`, 1000)),
		"schema: nested 500 k":           parse(strings.Repeat(`[`, 500_000)),
		"schema: a union of many":        parse(`[` + strings.Repeat(`"null",`, 50_000) + `"int"]`),
		"schema: long names":             parse(`{"type":"record","name":"` + strings.Repeat("a", 1<<19) + `","fields":[{"name":"` + strings.Repeat("b", 1<<18) + `","type":"nothing"}]}`),
	}
	return corpus
}

// doubling is a schema whose default has 2^steps values.
func doubling(steps int) string {
	text := `{"type":"record","name":"A0","fields":[{"name":"x","type":"int","default":0}]}`
	for i := 1; i <= steps; i++ {
		text = fmt.Sprintf(`{"type":"record","name":"A%d","fields":[{"name":"l","type":%s,"default":{}},{"name":"r","type":"A%d","default":{}}]}`, i, text, i-1)
	}
	return text
}

// skipsAll has none of the writer's fields but one: the rest is skipped by the resolved schema.
type skipsAll struct {
	Kept int32 `avro:"kept"`
}

func (skipsAll) AvroSchema() string {
	return `{"type":"record","name":"W","fields":[{"name":"kept","type":"int","default":0}]}`
}

// skipsPlain does the same without a schema.
type skipsPlain struct {
	Kept int32 `avro:"kept"`
}

func TestHostile(t *testing.T) {
	t.Parallel()
	if name := os.Getenv(hostileEnv); name != "" {
		beHostile(t, name)
		return
	}
	for name := range hostile() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*hostileTime)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHostile$", "-test.v")
			cmd.Env = append(os.Environ(), hostileEnv+"="+name, "GOMAXPROCS=1", "GOMEMLIMIT=512MiB")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "survived") {
				t.Errorf("%v\n%.2000s", err, out)
			}
		})
	}
}

func beHostile(t *testing.T, name string) {
	t.Helper()
	debug.SetMaxStack(256 << 20)
	if !raceEnabled {
		limit := syscall.Rlimit{Cur: hostileLimit, Max: hostileLimit}
		if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
			t.Logf("no memory limit: %v", err)
		}
	}
	input := hostile()[name]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	size, err := input()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if err == nil && !strings.HasPrefix(name, "schema: ") {
		t.Error("it was taken")
	}
	if took > hostileTime {
		t.Errorf("it took %s", took)
	}
	if allocated > hostileMemory && allocated > 20*uint64(size) {
		t.Errorf("it allocated %d MiB for %d bytes", allocated>>20, size)
	}
	if err != nil && (strings.Contains(err.Error(), "panicked") || strings.Contains(err.Error(), "was decoded") || len(err.Error()) > 8<<10) {
		t.Errorf("it ended in %.300v", err)
	}
	if !t.Failed() {
		t.Logf("survived in %s with %d KiB for %d bytes: %.200v", took, allocated>>10, size, err)
	}
}
