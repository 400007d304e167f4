package schemas_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// FuzzRows: any bytes are refused, leaving nothing behind, or are the row that the whole value tells of.
func FuzzRows(f *testing.F) {
	reg := schemas.Memory()
	s := register(f, reg, orderText)
	body, err := s.FromJSON(nil, []byte(orderJSON))
	if err != nil {
		f.Fatal(err)
	}
	columns, err := s.Columns()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte{})
	f.Add(body[:20])
	f.Fuzz(func(t *testing.T, body []byte) {
		rows, err := reg.NewRows(columns...)
		if err != nil {
			t.Fatal(err)
		}
		good := framed(s, body)
		rowErr := rows.Append(t.Context(), good)
		var whole any
		wholeErr := reg.Decode(t.Context(), good, &whole)
		if rowErr != nil {
			if !errors.Is(rowErr, schemas.ErrPoison) || rows.Len() != 0 || rows.Size() != 0 {
				t.Fatalf("%v, %d rows of %d bytes", rowErr, rows.Len(), rows.Size())
			}
			return // text that is not UTF-8, a number out of its range: the whole value may have them
		}
		if wholeErr != nil {
			t.Fatalf("a row of what does not decode: %v", wholeErr)
		}
		for i, c := range columns {
			want := expected(c, whole)
			if got := cell(rows, i, 0); got != want && want != "?" && c.Kind != schemas.KindUUID {
				t.Fatalf("%s: got %s, want %s", c.Name, got, want)
			}
		}
	})
}

// BenchmarkRows fills eight columns from Avro rows of 200 bytes, 5,000 a batch; reduce sorts them by a text besides.
func BenchmarkRows(b *testing.B) {
	reg := schemas.Memory()
	s := register(b, reg, `{"type":"record","name":"x.Row","fields":[
		{"name":"id","type":"string"},{"name":"customer","type":"string"},{"name":"country","type":["null","string"]},
		{"name":"cents","type":"long"},{"name":"items","type":"int"},
		{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
		{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"note","type":"string"}]}`)
	columns, err := s.Columns()
	if err != nil {
		b.Fatal(err)
	}
	rows, err := reg.NewRows(columns...)
	if err != nil {
		b.Fatal(err)
	}
	var events []event.Event
	for i := range 5000 {
		events = append(events, *fromJSON(b, s, fmt.Sprintf(
			`{"id":"order-%08d","customer":"customer-%06d","country":"DE","cents":%d,"items":3,"total":"%d.90","at":"2026-01-02T03:04:05Z","note":"%s"}`,
			i*7919%5000, i, i*100, i, strings.Repeat("n", 130))))
	}
	for _, reduce := range []bool{false, true} {
		b.Run(map[bool]string{false: "append", true: "reduce"}[reduce], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rows.Reset()
				for i := range events {
					if err := rows.Append(b.Context(), &events[i]); err != nil {
						b.Fatal(err)
					}
				}
				if reduce {
					rows.Reduce(0)
				}
			}
			b.ReportMetric(float64(b.N*len(events))/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
