package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/parquetsink"
)

// The readers that files are read back with.
var readers = []string{"duckdb==1.5.6", "pyarrow==25.0.1", "pytz==2025.2"}

// python is a directory with the readers in it, for PYTHONPATH: below the user's cache, where with CI=true it is made when it
// is missing; else the test is skipped.
func python(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "millrace-test", strings.Join(readers, "-"))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	install := []string{"-m", "pip", "install", "-q", "--target"}
	if os.Getenv("CI") != "true" {
		t.Skipf("the readers are missing: python3 %s %s %s", strings.Join(install, " "), dir, strings.Join(readers, " "))
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		t.Fatal(err)
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), "new-") //nolint:usetesting // it is renamed, on the cache's own file system
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(made) //nolint:errcheck // what is left is in the cache
	args := slices.Concat(install, []string{made}, readers)
	if out, err := exec.CommandContext(t.Context(), "python3", args...).CombinedOutput(); err != nil {
		t.Fatalf("python3 %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if err := os.Rename(made, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

const (
	parquetV1 = `{"type":"record","name":"x.All","fields":[
	{"name":"id","type":"string"},
	{"name":"yes","type":"boolean"},
	{"name":"n","type":"long"},
	{"name":"x","type":"double"},
	{"name":"raw","type":"bytes"},
	{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
	{"name":"wide","type":["null",{"type":"bytes","logicalType":"decimal","precision":38,"scale":3}]},
	{"name":"day","type":{"type":"int","logicalType":"date"}},
	{"name":"clock","type":{"type":"long","logicalType":"time-micros"}},
	{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"here","type":{"type":"long","logicalType":"local-timestamp-micros"}},
	{"name":"uid","type":{"type":"string","logicalType":"uuid"}},
	{"name":"tags","type":{"type":"array","items":"string"}},
	{"name":"customer","type":["null",{"type":"record","name":"Customer","fields":[{"name":"country","type":"string"}]}]}]}`
	parquetV2 = `{"type":"record","name":"x.All","fields":[{"name":"id","type":"string"},{"name":"added","type":["null","string"]}]}`
)

// DuckDB and pyarrow read every kind of column, and files of two versions of a schema as one table.
func TestRealReadersOfParquet(t *testing.T) {
	t.Parallel()
	site := python(t)
	dir, reg := t.TempDir(), schemas.Memory()
	w, err := parquetsink.New(parquetsink.Config{Dir: dir}).Open(t.Context(), reg, sink.Setup{Sink: "s", Topics: []string{"x.all"}, Observer: sink.Silent{}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	id := cursor.ID{Reader: "s", Topic: "x.all", TopicID: [16]byte{1}}
	if _, err := w.Claim(t.Context(), []cursor.ID{id}, map[cursor.ID]int64{id: 0}); err != nil {
		t.Fatal(err)
	}
	from := sink.Place{ID: id}
	for _, batch := range []struct {
		schema string
		texts  []string
	}{
		{parquetV1, []string{
			`{"id":"a","yes":true,"n":-7,"x":0.5,"raw":"\u0000ÿ","price":"-0.05","wide":"12345678901234567890123456789012345.678","day":"2026-01-31","clock":"15:04:05.000006","at":"2026-01-31T15:04:05.006Z","here":"1969-12-31T23:59:59.999999","uid":"f81d4fae-7dec-11d0-a765-00a0c91e6bf6","tags":["x","y"],"customer":{"country":"DE"}}`,
			`{"id":"b","yes":false,"n":9223372036854775807,"x":-1e300,"raw":"","price":"1234567.89","wide":"-0.001","day":"1969-12-31","clock":"00:00:00","at":"1969-12-31T23:59:59.999Z","here":"2026-01-31T15:04:05.000006","uid":"00000000-0000-0000-0000-000000000000","tags":[],"customer":null}`,
		}},
		{parquetV2, []string{`{"id":"c","added":"new"}`}},
	} {
		s, err := reg.Register(t.Context(), batch.schema, batch.schema) // a subject of its own
		if err != nil {
			t.Fatal(err)
		}
		var events []event.Event
		for _, text := range batch.texts {
			body, err := s.FromJSON(nil, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, event.Event{Meta: event.Meta{Topic: "x.all"}, Value: append([]byte{0, 0, 0, 0, byte(s.ID)}, body...)})
		}
		to := from
		to.Next += int64(len(events))
		if err := w.Write(t.Context(), sink.Batch{From: from, To: to, Events: events}); err != nil {
			t.Fatal(err)
		}
		from = to
	}
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/parquet.py", dir)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+site)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var want strings.Builder
	for _, reader := range []string{"duckdb", "pyarrow"} {
		for _, row := range []string{
			`id=a yes=true n=-7 x=0.5 raw=00ff price=-0.05 wide=12345678901234567890123456789012345.678 day=2026-01-31 clock=15:04:05.000006 at=2026-01-31T15:04:05.006000+00:00 here=1969-12-31T23:59:59.999999 uid=f81d4fae-7dec-11d0-a765-00a0c91e6bf6 tags=["x","y"] customer_country=DE added=null`,
			`id=b yes=false n=9223372036854775807 x=-1e+300 raw= price=1234567.89 wide=-0.001 day=1969-12-31 clock=00:00:00 at=1969-12-31T23:59:59.999000+00:00 here=2026-01-31T15:04:05.000006 uid=00000000-0000-0000-0000-000000000000 tags=[] customer_country=null added=null`,
			`id=c yes=null n=null x=null raw=null price=null wide=null day=null clock=null at=null here=null uid=null tags=null customer_country=null added=new`,
		} {
			fmt.Fprintf(&want, "%s %s\n", reader, row)
		}
	}
	if string(out) != want.String() {
		t.Errorf("got\n%s\nwant\n%s", out, want.String())
	}
}
